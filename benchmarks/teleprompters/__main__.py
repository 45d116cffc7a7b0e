"""Teleprompters beside DSPy's, with the same model, data, metric and settings.

    python -m benchmarks.teleprompters --data DIR --model PATH.gguf --json run.json
    python -m benchmarks.teleprompters --data DIR --model openai/NAME --json run.json --seeds 5

DIR holds `TASK.train.jsonl` and `TASK.dev.jsonl`. What was answered is kept beside the output, so a run that was
stopped goes on; a row is booked as if it began with nothing.

Systems: `dspy` and `tracedsl chat` send prompts in the same layout (DSPy's default), with answers held to nothing, so
that the teleprompters alone differ. `tracedsl` is what a user gets without saying anything: for an embedded model the
plain layout, held to a grammar.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.programs.adapters import TASKS, examples
from benchmarks.teleprompters.engine import Books, Engine, OurLM, dspy_lm
from tracedsl.cache import Store
from tracedsl.programs import Predict, context
from tracedsl.programs.lm import make_lm
from tracedsl.programs.metrics import normalize_text
from tracedsl.programs.teleprompters import bootstrap, copro, labeled, mipro, random_search
from tracedsl.programs.teleprompters.runs import records_in

TOKENS = 32             # of an answer
PROPOSAL_TOKENS = 160
SYSTEMS = ("dspy", "tracedsl chat", "tracedsl")
MIPRO = {"num_trials": 6, "minibatch_size": 8, "minibatch_full_eval_steps": 3}


def our_teleprompters(metric: Any, writer: Any = None) -> dict[str, Callable[[Any, list[Any], list[Any]], Any]]:
    """Name -> (student, trainset, valset) -> program, one thread each, since the model has one slot."""
    return {
        "none": lambda s, t, v: s,
        "LabeledFewShot": lambda s, t, v: labeled.LabeledFewShot(4).compile(s, trainset=t),
        "BootstrapFewShot": lambda s, t, v: bootstrap.BootstrapFewShot(metric, max_labeled_demos=4).compile(
            s, trainset=t),
        "BootstrapFewShotWithRandomSearch": lambda s, t, v: random_search.BootstrapFewShotWithRandomSearch(
            metric, max_labeled_demos=4, num_candidate_programs=3, num_threads=1).compile(s, trainset=t, valset=v),
        "COPRO": lambda s, t, v: copro.COPRO(writer, metric, breadth=3, depth=1, num_threads=1).compile(s, trainset=v),
        "MIPROv2": lambda s, t, v: mipro.MIPROv2(metric, writer, auto=None, num_candidates=3, num_threads=1).compile(
            s, trainset=t, valset=v, **MIPRO),
    }


def their_teleprompters(metric: Any, writer: Any) -> dict[str, Callable[[Any, list[Any], list[Any]], Any]]:
    """The same in DSPy."""
    import dspy

    loose = lambda e, p, trace=None: metric(e, p)  # noqa: E731
    return {
        "none": lambda s, t, v: s,
        "LabeledFewShot": lambda s, t, v: dspy.LabeledFewShot(4).compile(s, trainset=t),
        "BootstrapFewShot": lambda s, t, v: dspy.BootstrapFewShot(loose, max_labeled_demos=4).compile(s, trainset=t),
        "BootstrapFewShotWithRandomSearch": lambda s, t, v: dspy.BootstrapFewShotWithRandomSearch(
            loose, max_labeled_demos=4, num_candidate_programs=3, num_threads=1).compile(s, trainset=t, valset=v),
        "COPRO": lambda s, t, v: dspy.COPRO(writer, loose, breadth=3, depth=1).compile(
            s, trainset=v, eval_kwargs={"num_threads": 1, "display_progress": False}),
        "MIPROv2": lambda s, t, v: dspy.MIPROv2(loose, writer, auto=None, num_candidates=3, num_threads=1).compile(
            s, trainset=t, valset=v, **MIPRO),
    }


def measure(system: str, name: str, task: str, engine: Engine, splits: list[list[Any]]) -> dict[str, Any]:
    """One row: compile, then score on the test examples; the books of both apart."""
    books = engine.books = Books()

    def metric(example: Any, prediction: Any) -> bool:
        books.metric_calls += 1
        return all(normalize_text(str(example[f])) == normalize_text(str(getattr(prediction, f, "")))
                   for f in TASKS[task].output_fields)

    started = time.perf_counter()
    run = _in_dspy if system == "dspy" else _in_tracedsl
    try:
        score, compiling = run(system, name, task, engine, metric, splits)
    except Exception as error:  # noqa: BLE001 - a library that cannot work with this model is a result
        score, compiling = None, {**_spent(engine), "failed": f"{type(error).__name__}: {error}"[:200]}
    return {"task": task, "teleprompter": name, "system": system, "score": score, "wall": time.perf_counter() - started,
            **compiling, "demos": compiling.get("demos", 0)}


def _spent(engine: Engine) -> dict[str, Any]:
    b = engine.books
    return {"metric_calls": b.metric_calls, "calls": b.calls, "prompt_tokens": b.prompt_tokens,
            "completion_tokens": b.completion_tokens, "seconds": round(b.seconds, 1)}


def _in_tracedsl(system: str, name: str, task: str, engine: Engine, metric: Any, splits: list[list[Any]]) -> Any:
    train, val, test = splits
    held, layout = system == "tracedsl", "chat" if system == "tracedsl chat" else engine.lm.default_adapter.name
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), records_in(Store(folder)):
        warnings.simplefilter("ignore")
        lm, writer = (OurLM(engine, layout, held, cache=True, max_tokens=room, store=Store(folder))
                      for room in (TOKENS, PROPOSAL_TOKENS))
        with context(lm=lm):
            program = our_teleprompters(metric, writer)[name](Predict(TASKS[task]), train, val)
            spent = _spent(engine)
            right = [_safely(program, e, metric) for e in test]
    return 100 * sum(right) / len(right), {**spent, "demos": len(program.demos)}


def _in_dspy(system: str, name: str, task: str, engine: Engine, metric: Any, splits: list[list[Any]]) -> Any:
    import dspy

    logging.getLogger("dspy").setLevel(logging.ERROR)
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    fields = TASKS[task].input_fields
    train, val, test = ([dspy.Example(**e.toDict()).with_inputs(*fields) for e in split] for split in splits)
    with dspy.context(lm=dspy_lm(engine, TOKENS)), contextlib.redirect_stdout(io.StringIO()), \
            contextlib.redirect_stderr(io.StringIO()):
        program = their_teleprompters(metric, dspy_lm(engine, PROPOSAL_TOKENS))[name](
            dspy.Predict(_their_signature(task)), train, val)
        spent = _spent(engine)
        right = [_safely(program, e, metric) for e in test]
    demos = len(program.predictors()[0].demos)
    return 100 * sum(right) / len(right), {**spent, "demos": demos}


def _their_signature(task: str) -> Any:
    import dspy

    ours = TASKS[task]
    namespace: dict[str, Any] = {"__doc__": ours.instructions, "__annotations__": {}}
    for f in ours.fields.values():
        namespace["__annotations__"][f.name] = f.type
        namespace[f.name] = dspy.InputField() if f.kind == "input" else dspy.OutputField()
    return type(dspy.Signature)(task.title(), (dspy.Signature,), namespace)


def _safely(program: Any, example: Any, metric: Any) -> bool:
    """Whether the program is right; a failure is wrong."""
    try:
        return bool(metric(example, program(**example.inputs())))
    except Exception as error:
        if "L001" in str(error):
            raise
        return False


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--model", required=True, help="A .gguf file, local/smollm2-135m, or openai/NAME.")
@click.option("--json", "out", type=click.Path(path_type=Path), default=Path("teleprompters.json"))
@click.option("--task", "tasks", multiple=True, default=("dates",))
@click.option("--only", multiple=True, help="Teleprompters; all without it.")
@click.option("--system", "systems", multiple=True, default=SYSTEMS)
@click.option("--seeds", default=1, help="Draws of the data.")
@click.option("--sizes", nargs=3, default=(16, 16, 32), help="Examples to learn from, to choose by, to test on.")
@click.option("--threads", default=1, help="Threads of an embedded model.")
@click.option("--minutes", default=20.0, help="Begin no further row after this.")
def main(data: Path, model: str, out: Path, tasks: tuple[str, ...], only: tuple[str, ...], systems: tuple[str, ...],
         seeds: int, sizes: tuple[int, int, int], threads: int, minutes: float) -> None:
    """Measure row by row, and write the table after each."""
    local = model.endswith(".gguf") or model.startswith("local/")
    name = f"local/{model.removeprefix('local/')}" if local else model
    made = {held: make_lm(name, cache=False, max_tokens=TOKENS,
                          **({"threads": threads, "constrained": held} if local else {})) for held in (True, False)}
    engines = {held: Engine(lm, out.with_suffix(f".{'held' if held else 'free'}.jsonl")) for held, lm in made.items()}
    rows: list[dict[str, Any]] = json.loads(out.read_text()) if out.exists() else []
    started = time.monotonic()
    for seed in range(seeds):
        for task in tasks:
            splits = _splits(data, task, sizes, seed)
            for which in only or tuple(our_teleprompters(None)):
                for system in systems:
                    known = any((r["task"], r["teleprompter"], r["system"], r["seed"]) == (task, which, system, seed)
                                for r in rows)
                    if known or time.monotonic() - started > 60 * minutes:
                        continue
                    row = {"seed": seed, **measure(system, which, task, engines[system == "tracedsl"], splits)}
                    rows.append(row)
                    click.echo(json.dumps(row))
                    out.write_text(json.dumps(rows, indent=1))
    click.echo(table(rows))


def _splits(data: Path, task: str, sizes: tuple[int, int, int], seed: int) -> list[list[Any]]:
    """Three disjoint lists of examples: two from the training file, shuffled by the seed, one from the other file."""
    train = examples(data / f"{task}.train.jsonl", TASKS[task], 10**6)
    random.Random(seed).shuffle(train)
    test = examples(data / f"{task}.dev.jsonl", TASKS[task], sizes[2])
    return [train[:sizes[0]], train[sizes[0]:sizes[0] + sizes[1]], test]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, means over the seeds."""
    lines = ["| task | teleprompter | system | score % | metric calls | model calls | prompt + completion tokens | "
             "model seconds | seeds |", "|---|---|---|---|---|---|---|---|---|"]
    for key in dict.fromkeys((r["task"], r["teleprompter"], r["system"]) for r in rows):
        mine = [r for r in rows if (r["task"], r["teleprompter"], r["system"]) == key]

        def mean(field: str, mine: list[dict[str, Any]] = mine) -> float:
            return sum(float(r[field]) for r in mine) / len(mine)

        failed = next((str(r["failed"]).split(":")[0] for r in mine if r.get("failed")), "")
        score = failed or f"{mean('score'):.1f}"
        lines.append(f"| {' | '.join(key)} | {score} | {mean('metric_calls'):.0f} | {mean('calls'):.0f} | "
                     f"{mean('prompt_tokens'):.0f} + {mean('completion_tokens'):.0f} | {mean('seconds'):.0f} | "
                     f"{len(mine)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
