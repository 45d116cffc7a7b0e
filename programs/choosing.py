"""Which prompt layout a model understands best, measured: the adapter as a compile-time choice.

What holds here: the search is an ordinary `autotune.Study` over one parameter, `adapter`; its measurer evaluates the
program with the metric. What was measured is in the records and is not paid for again, also after Ctrl-C; the same
program, model, examples and metric are the same task. The adapter in force is not changed: the caller sets the best
one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracedsl.autotune import Budget, Exhaustive, Measurement, Parameter, Point, Records, Space, Study, Trial
from tracedsl.cache import Store, digest
from tracedsl.diagnostics import TracedslError
from tracedsl.programs.adapters import NAMES, adapter_by_name
from tracedsl.programs.context import context
from tracedsl.programs.evaluate import Evaluate, EvaluationError
from tracedsl.programs.metrics import metric_name

if TYPE_CHECKING:
    from tracedsl.programs.adapters.base import Adapter
    from tracedsl.programs.example import Example
    from tracedsl.programs.lm.base import LM
    from tracedsl.programs.metrics import Metric

COMPACT_FIRST = tuple(sorted(NAMES, key=("plain", "json", "baml", "xml", "chat").index))


@dataclass(frozen=True)
class AdapterScore:
    """What one adapter gave: the score in percent with its 95 % interval, failures among the examples, tokens of all
    prompts and answers (0 where answers came from the cache), seconds."""

    adapter: str
    score: float
    interval: tuple[float, float]
    failures: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float


@dataclass(frozen=True)
class AdapterChoice:
    """The best adapter and all that was measured. `stopped`: "done", the name of a spent budget, or "interrupted"."""

    adapter: Adapter
    scores: tuple[AdapterScore, ...]
    stopped: str

    def __str__(self) -> str:
        rows = [f"{s.adapter:6} {s.score:5.1f} % ({s.interval[0]:.1f} to {s.interval[1]:.1f}), {s.failures} failed, "
                f"{s.prompt_tokens} + {s.completion_tokens} tokens, {s.seconds:.1f} s" for s in self.scores]
        return "\n".join([*rows, f"best: {self.adapter.name}"])


def choose_adapter(program: Callable[..., Any], lm: LM, examples: Sequence[Example], metric: Metric, *,
                   adapters: Sequence[str] = COMPACT_FIRST, records: Records | None = None,
                   budget: Budget | None = None, num_threads: int | None = None,
                   progress: Callable[[AdapterScore], None] | None = None) -> AdapterChoice:
    """Score a program with each adapter and name the best; of equal ones the first, so the more compact.

    Args:
        program: a module or a function; it runs with `lm` and each adapter in force.
        examples: development examples that know their inputs; not those in the demonstrations.
        metric: as for `Evaluate`.
        adapters: names, in the order in which they are tried.
        records: where measurements are kept; by default in the user's cache folder.
        budget: of the search: seconds, trials, tokens.
        progress: called with each score.

    Raises `TracedslError` P021 if no adapter could be scored, `LMError` if the model cannot be used at all.
    """
    space = Space((Parameter("adapter", tuple(adapters)),), default={"adapter": adapters[0]})
    study = Study(space, Exhaustive(space), _measurer(program, lm, examples, metric, num_threads),
                  _task(program, lm, examples, metric), goal="max", budget=budget or Budget(),
                  records=records or Records(Store().root / "records" / "adapters.jsonl"))

    scores: list[AdapterScore] = []

    def on_trial(trial: Trial, best: Trial) -> None:
        if trial.measurement.ok:
            scores.append(_score(trial))
            if progress is not None:
                progress(scores[-1])

    outcome = study.run(on_trial)
    if outcome.best is None:
        reasons = "; ".join(f"{t.point['adapter']}: {t.measurement.error}" for t in outcome.trials) or outcome.stopped
        raise TracedslError("P021", "no adapter could be scored", why=reasons,
                            hint="look at one call of the program: lm.history[-1]")
    return AdapterChoice(adapter_by_name(str(outcome.best.point["adapter"])), tuple(scores), outcome.stopped)


def _measurer(program: Callable[..., Any], lm: LM, examples: Sequence[Example], metric: Metric,
              num_threads: int | None) -> Callable[[Point], Measurement]:
    def measure(point: Point) -> Measurement:
        started, before = time.monotonic(), _tokens(lm)
        with context(lm=lm, adapter=adapter_by_name(str(point["adapter"]))):
            try:
                result = Evaluate(devset=examples, metric=metric, num_threads=num_threads)(program)
            except EvaluationError as error:  # every example failed: this is a score, and a bad one
                return _measurement(0.0, (0.0, 0.0), len(error.failures) or len(examples), started, before, lm)
        return _measurement(result.score, result.interval, len(result.failures), started, before, lm)

    return measure


def _measurement(score: float, interval: tuple[float, float], failures: int, started: float,
                 before: tuple[int, int], lm: LM) -> Measurement:
    seconds = time.monotonic() - started
    prompt, completion = (now - then for now, then in zip(_tokens(lm), before))
    notes = {"interval": list(interval), "failures": failures, "prompt_tokens": prompt, "completion_tokens": completion,
             "seconds": seconds}
    return Measurement(score, cost={"seconds": seconds, "tokens": float(prompt + completion)}, notes=notes)


def _tokens(lm: LM) -> tuple[int, int]:
    usage = getattr(lm, "usage", None)
    return (0, 0) if usage is None else (usage.prompt_tokens, usage.completion_tokens)


def _score(trial: Trial) -> AdapterScore:
    notes, value = trial.measurement.notes, trial.measurement.value
    low, high = notes["interval"]
    return AdapterScore(str(trial.point["adapter"]), float(value or 0.0), (low, high), notes["failures"],
                        notes["prompt_tokens"], notes["completion_tokens"], notes["seconds"])


def _task(program: Callable[..., Any], lm: LM, examples: Sequence[Example], metric: Metric) -> str:
    """What is measured, as a digest: learned state and signatures, model, examples, metric."""
    state = program.dump_state() if hasattr(program, "dump_state") else repr(program)
    predictors = program.named_predictors() if hasattr(program, "named_predictors") else ()
    return digest("adapter", json.dumps(state, sort_keys=True, default=repr),
                  *(f"{name} {p.signature.fingerprint} {p.get_config()}" for name, p in predictors), lm.identity,
                  *(json.dumps(e.dump(), sort_keys=True, default=repr) for e in examples), str(metric_name(metric)))
