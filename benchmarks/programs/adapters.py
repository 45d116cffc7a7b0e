"""Every adapter on every task with every model: which layout a model understands best.

    python -m benchmarks.programs.adapters --data DIR --model smollm2-135m --model path/to/model.gguf --out adapters.md

DIR holds `TASK.train.jsonl` and `TASK.dev.jsonl`. What was measured is recorded beside the output; run it again to go
on where it was stopped. The model's answers are held to no grammar unless `--grammar` is given: the layout alone
counts.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import click

from tracedsl.autotune import Records
from tracedsl.programs import Example, InputField, OutputField, Predict, Signature, exact_match
from tracedsl.programs.choosing import COMPACT_FIRST, AdapterScore, choose_adapter
from tracedsl.programs.lm import make_lm


class Dates(Signature):
    """Find the date in the text and write it as DD.MM.YYYY."""

    text: str = InputField()
    date: str = OutputField()


class Extract(Signature):
    """Extract the order from the note: the buyer's last name in capitals, the item in the singular, the quantity."""

    note: str = InputField()
    buyer: str = OutputField()
    item: str = OutputField()
    quantity: int = OutputField()
    city: str = OutputField()


class Tickets(Signature):
    """Say which queue the customer's message belongs to."""

    message: str = InputField()
    queue: Literal["repair", "shipping", "account", "returns", "billing", "praise"] = OutputField()


TASKS: Mapping[str, type[Signature]] = {"dates": Dates, "extract": Extract, "tickets": Tickets}


def examples(path: Path, signature: type[Signature], most: int) -> list[Example]:
    rows = [json.loads(line) for line in path.read_text().splitlines()[:most]]
    names = signature.fields
    return [Example({k: v for k, v in row.items() if k in names}).with_inputs(*signature.input_fields) for row in rows]


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--model", "models", multiple=True, default=("smollm2-135m",))
@click.option("--out", type=click.Path(path_type=Path), default=Path("adapters.md"))
@click.option("--dev", default=24, help="examples that are scored")
@click.option("--demos", "demo_counts", multiple=True, type=int, default=(4, 0))
@click.option("--task", "tasks", multiple=True, default=tuple(TASKS))
@click.option("--threads", default=1, help="threads of the model")
@click.option("--grammar/--no-grammar", default=False)
def main(data: Path, models: tuple[str, ...], out: Path, dev: int, demo_counts: tuple[int, ...],
         tasks: tuple[str, ...], threads: int, grammar: bool) -> None:
    """Measure and write the table after every row."""
    records = Records(out.with_suffix(".records.jsonl"))
    rows: list[str] = []
    for model in models:
        lm = make_lm(f"local/{model}", threads=threads, constrained=grammar, max_tokens=64)
        for count in demo_counts:
            for task in tasks:
                predictor = Predict(TASKS[task])
                predictor.demos = examples(data / f"{task}.train.jsonl", TASKS[task], count)
                devset = examples(data / f"{task}.dev.jsonl", TASKS[task], dev)
                choice = choose_adapter(predictor, lm, devset, exact_match(*TASKS[task].output_fields), num_threads=1,
                                        records=records, progress=lambda s: click.echo(f"{s.adapter}: {s.score:.1f}"))
                rows.append(_row(Path(model).stem, task, count, choice.scores, choice.adapter.name))
                click.echo(rows[-1])
                out.write_text(_table(rows, dev, threads, grammar))


def _row(model: str, task: str, demos: int, scores: tuple[AdapterScore, ...], best: str) -> str:
    by_name = {s.adapter: s for s in scores}
    cells = [f"{by_name[n].score:.1f} ({by_name[n].failures}; {by_name[n].prompt_tokens})" if n in by_name else "-"
             for n in COMPACT_FIRST]
    return f"| {model} | {task} | {demos} | {' | '.join(cells)} | {best} |"


def _table(rows: list[str], dev: int, threads: int, grammar: bool) -> str:
    held = "held to the adapter's grammar" if grammar else "held to nothing"
    return "\n".join([
        f"Score in percent on {dev} examples (answers that could not be read even the second time; tokens of all "
        f"prompts, repairs among them). Answers {held}; temperature 0; {threads} thread(s); {platform.machine()}.", "",
        f"| model | task | demos | {' | '.join(COMPACT_FIRST)} | best |",
        f"|---|---|---|{'---|' * len(COMPACT_FIRST)}---|", *rows, ""])


if __name__ == "__main__":
    main()
