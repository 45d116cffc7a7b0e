"""Evaluate: a program's score on examples, with its uncertainty and its failures.

What holds here: results stand in the order of the examples, whatever the number of threads or tasks. One example that
fails costs that example, never the others; a model that is out of reach stops the evaluation at once. A score that
comes from failures alone is never returned. With `resume`, an example that was scored is not run again, in any process.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tracedsl.autotune import Measurement, Records
from tracedsl.autotune.space import key
from tracedsl.cache import Store, digest
from tracedsl.diagnostics import TracedslError
from tracedsl.programs.batch import SLOTS, call_program
from tracedsl.programs.context import current_lm
from tracedsl.programs.driving import as_done, current_io, drive
from tracedsl.programs.example import Example, Prediction
from tracedsl.programs.lm.accounts import Spent, track_usage
from tracedsl.programs.lm.base import LMError
from tracedsl.programs.metrics import Metric, metric_name, score_of
from tracedsl.programs.modules.module import Module

_RESAMPLES = 1000


class EvaluationError(TracedslError, RuntimeError):
    """An evaluation that has no meaningful score. `failures` holds what went wrong."""

    failures: tuple[Failure, ...] = ()


class Result(NamedTuple):
    """One example, what the program answered (None if it failed), and the metric's value. Of a prediction that was
    recorded before, the fields are JSON data."""

    example: Example
    prediction: Any
    score: float


class Failure(NamedTuple):
    """An example for which the program or the metric raised."""

    example: Example
    error: Exception


@dataclass(frozen=True)
class EvaluationResult:
    """`score` in percent; `interval` is its 95 % bootstrap interval (Efron, 1979: percentiles of resampled means);
    `spent` is what this evaluation used and cost; `resumed` examples had been scored before."""

    score: float
    results: tuple[Result, ...]
    failures: tuple[Failure, ...]
    interval: tuple[float, float]
    spent: Spent = field(default_factory=Spent)
    resumed: int = 0

    def __float__(self) -> float:
        return self.score

    def __str__(self) -> str:
        low, high = self.interval
        failed = f", {len(self.failures)} failed" if self.failures else ""
        known = f", {self.resumed} scored before" if self.resumed else ""
        return f"{self.score:.1f} % (95 %: {low:.1f} to {high:.1f}; {len(self.results)} examples{failed}{known})"


class Evaluate:
    """`Evaluate(devset=dev, metric=exact_match)(program).score`

    Args:
        devset: examples that know their inputs (`with_inputs`).
        metric: `(example, prediction)` or `(example, prediction, trace)` to a number; 1 is perfect.
        num_threads: how many examples run at the same time.
        display_progress: show a bar on the terminal.
        max_errors: stop with `EvaluationError` after this many failures; None: never (one failure is one example).
        failure_score: what an example that failed counts.
        progress: called with (done, total, mean score so far in percent) after each example.
        resume: a name under which each score is recorded as it comes, so that an evaluation that was killed goes on
            where it was. It goes on only with the same program, model, metric and example; what failed is tried again.
        display_table: print the results as a table, all of them or so many.
        provide_traceback: taken for DSPy's sake; an error is always whole.
    """

    def __init__(self, *, devset: Sequence[Example], metric: Metric | None = None, num_threads: int | None = None,
                 display_progress: bool = False, max_errors: int | None = None, failure_score: float = 0.0,
                 progress: Callable[[int, int, float], None] | None = None, resume: str | None = None,
                 display_table: bool | int = False, provide_traceback: bool | None = None) -> None:
        self.devset = list(devset)
        self.metric = metric
        self.num_threads = num_threads
        self.display_progress = display_progress
        self.max_errors = max_errors
        self.failure_score = failure_score
        self.progress = progress
        self.resume = resume
        self.display_table = display_table

    def __call__(self, program: Callable[..., Any], metric: Metric | None = None,
                 devset: Sequence[Example] | None = None) -> EvaluationResult:
        """Run the program on all examples. Raises `EvaluationError` if all fail or too many do, `LMError` if the model
        cannot be used at all."""
        return drive(self.acall(program, metric, devset))

    async def acall(self, program: Callable[..., Any], metric: Metric | None = None,
                    devset: Sequence[Example] | None = None) -> EvaluationResult:
        """The same under asyncio, `num_threads` tasks at the same time."""
        metric = metric or self.metric
        examples = self.devset if devset is None else list(devset)
        if metric is None:
            raise EvaluationError("P008", "there is no metric", hint="Evaluate(devset=..., metric=exact_match)")
        check_examples(examples)
        kept = _Kept(self.resume, program, metric) if self.resume is not None else None
        known = kept.load(examples) if kept is not None else {}
        with self._display(len(examples)) as show, track_usage() as account:
            outcomes = await self._run(program, metric, examples, show, known, kept)
        failures = tuple(o for o in outcomes if isinstance(o, Failure))
        if len(failures) == len(examples):
            raise _too_many(failures, len(examples))
        results = tuple(Result(o.example, None, self.failure_score) if isinstance(o, Failure) else o for o in outcomes)
        scores = [100 * r.score for r in results]
        made = EvaluationResult(sum(scores) / len(scores), results, failures, bootstrap_interval(scores), account.spent,
                                len(known))
        if self.display_table:
            _print_table(made, len(results) if self.display_table is True else int(self.display_table))
        return made

    async def _run(self, program: Callable[..., Any], metric: Metric, examples: list[Example],
                   show: Callable[[int, int, float], None], known: Mapping[int, Result],
                   kept: _Kept | None) -> list[Result | Failure]:
        """The outcome for each example, in order. Leaves early on `max_errors`, a dead model, or Ctrl-C."""
        outcomes: dict[int, Result | Failure] = dict(known)
        todo = [i for i in range(len(examples)) if i not in known]

        async def one(i: int) -> Result:
            return await _one(program, metric, examples[i])

        if outcomes:
            show(len(outcomes), len(examples), self._mean(outcomes))
        async with aclosing(as_done(one, todo, min(self.num_threads or SLOTS, len(examples)))) as done:
            async for position, outcome, error in done:
                i = todo[position]
                outcomes[i] = outcome if outcome is not None else _failure(examples[i], error or AssertionError())
                if kept is not None and outcome is not None:
                    kept.append(outcome)
                self._check_errors(outcomes, len(examples))
                show(len(outcomes), len(examples), self._mean(outcomes))
        return [outcomes[i] for i in range(len(examples))]

    def _check_errors(self, outcomes: dict[int, Result | Failure], total: int) -> None:
        failures = tuple(o for o in outcomes.values() if isinstance(o, Failure))
        if self.max_errors is not None and len(failures) >= max(1, self.max_errors):
            raise _too_many(failures, total)

    def _mean(self, outcomes: dict[int, Result | Failure]) -> float:
        scores = [o.score if isinstance(o, Result) else self.failure_score for o in outcomes.values()]
        return 100 * sum(scores) / len(scores)

    @contextmanager
    def _display(self, total: int) -> Iterator[Callable[[int, int, float], None]]:
        """What is told about progress: the caller's function, a bar on the terminal, both or neither."""
        given = self.progress or (lambda done, total, mean: None)
        if not self.display_progress:
            yield given
            return
        from rich.progress import Progress

        with Progress() as bar:
            task = bar.add_task("evaluating", total=total)

            def show(done: int, total: int, mean: float) -> None:
                bar.update(task, completed=done, description=f"evaluating: {mean:.1f} %")
                given(done, total, mean)

            yield show


async def _one(program: Callable[..., Any], metric: Metric, example: Example) -> Result:
    prediction = await call_program(program, dict(example.inputs().items()))
    return Result(example, prediction, await current_io().call(score_of, metric, example, prediction))


def _failure(example: Example, error: BaseException) -> Failure:
    """The outcome of an example that raised; raises again what concerns all examples."""
    if not isinstance(error, Exception) or (isinstance(error, LMError) and not error.concerns_one_request):
        raise error
    return Failure(example, error)


class _Kept:
    """The scores of an evaluation in the records, by example."""

    def __init__(self, name: str, program: Callable[..., Any], metric: Metric) -> None:
        self._records = Records(Store().root / "records" / "evaluations.jsonl")
        try:
            model = current_lm().identity
        except LMError:
            model = "none"      # a program that may never call one
        self._task = digest("evaluation", name, _program_text(program), model, metric_name(metric) or "")

    def load(self, examples: Sequence[Example]) -> dict[int, Result]:
        """What is known, by the examples' positions."""
        known, found = self._records.load(self._task), {}
        for i, example in enumerate(examples):
            kept = known.get(key(_point(example)))
            if kept is not None and kept.value is not None:
                fields = kept.notes.get("prediction")
                found[i] = Result(example, None if fields is None else Prediction(fields), kept.value)
        return found

    def append(self, result: Result) -> None:
        answered = result.prediction
        notes = {"prediction": answered.toDict()} if isinstance(answered, Example) else {}
        self._records.append(self._task, _point(result.example), Measurement(result.score, notes=notes))


def _point(example: Example) -> dict[str, Any]:
    return {"example": digest(json.dumps(example.dump(), sort_keys=True, default=repr))}


def _program_text(program: Callable[..., Any]) -> str:
    """What tells programs apart: the class and all that is learned, or the function's name and code."""
    if isinstance(program, Module):
        return f"{type(program).__qualname__} {json.dumps(program.dump_state(), sort_keys=True, default=repr)}"
    code = getattr(program, "__code__", None)
    return f"{getattr(program, '__qualname__', type(program).__qualname__)} {code.co_code.hex() if code else ''}"


def _print_table(result: EvaluationResult, rows: int) -> None:
    """The first rows on the terminal: the example, what was answered, the score."""
    from rich.console import Console
    from rich.table import Table

    table = Table("example", "prediction", "score", title=str(result))
    for row in result.results[:rows]:
        table.add_row(str(row.example.toDict()), str(row.prediction), f"{row.score:g}")
    Console().print(table)


def _too_many(failures: tuple[Failure, ...], total: int) -> EvaluationError:
    first = failures[0].error
    error = EvaluationError("P008", f"{len(failures)} of {total} examples failed",
                            why=f"the first one: {type(first).__name__}: {first}",
                            hint="run the program on that example alone: error.failures[0].example")
    error.failures = failures
    error.__cause__ = first
    return error


def check_examples(examples: Sequence[Any], what: str = "devset") -> None:
    """Raise `EvaluationError` unless these are examples that know their inputs."""
    if not examples:
        raise EvaluationError("P011", f"the {what} is empty", hint="give at least one Example")
    for i, example in enumerate(examples):
        if not isinstance(example, Example):
            raise EvaluationError("P011", f"{what}[{i}] is a {type(example).__name__}, not an Example",
                                  hint="make it one: Example(**record).with_inputs('question', ...)")
        if example._input_keys is None:
            raise EvaluationError("P011", f"{what}[{i}] does not say which of its fields are inputs",
                                  hint="call .with_inputs('question', ...) on the examples")


def bootstrap_interval(scores: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the mean, from resampling with replacement; the same every time."""
    source, n = random.Random(seed), len(scores)
    means = sorted(sum(source.choices(scores, k=n)) / n for _ in range(_RESAMPLES))
    return means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES) - 1]
