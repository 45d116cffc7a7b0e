"""Evaluate: a program's score on examples, with its uncertainty and its failures.

What holds here: results stand in the order of the examples, whatever the number of threads. One example that fails
costs that example, never the others; a model that is out of reach stops the evaluation at once. A score that comes from
failures alone is never returned.
"""

from __future__ import annotations

import contextvars
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from tracedsl.diagnostics import TracedslError
from tracedsl.programs.example import Example
from tracedsl.programs.lm.base import LMError
from tracedsl.programs.metrics import Metric, score_of

_RESAMPLES = 1000


class EvaluationError(TracedslError, RuntimeError):
    """An evaluation that has no meaningful score. `failures` holds what went wrong."""

    failures: tuple[Failure, ...] = ()


class Result(NamedTuple):
    """One example, what the program answered (None if it failed), and the metric's value."""

    example: Example
    prediction: Any
    score: float


class Failure(NamedTuple):
    """An example for which the program or the metric raised."""

    example: Example
    error: Exception


@dataclass(frozen=True)
class EvaluationResult:
    """`score` in percent; `interval` is its 95 % bootstrap interval (Efron, 1979: percentiles of resampled means)."""

    score: float
    results: tuple[Result, ...]
    failures: tuple[Failure, ...]
    interval: tuple[float, float]

    def __float__(self) -> float:
        return self.score

    def __str__(self) -> str:
        low, high = self.interval
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"{self.score:.1f} % (95 %: {low:.1f} to {high:.1f}; {len(self.results)} examples{failed})"


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
    """

    def __init__(self, *, devset: Sequence[Example], metric: Metric | None = None, num_threads: int | None = None,
                 display_progress: bool = False, max_errors: int | None = None, failure_score: float = 0.0,
                 progress: Callable[[int, int, float], None] | None = None) -> None:
        self.devset = list(devset)
        self.metric = metric
        self.num_threads = num_threads
        self.display_progress = display_progress
        self.max_errors = max_errors
        self.failure_score = failure_score
        self.progress = progress

    def __call__(self, program: Callable[..., Any], metric: Metric | None = None,
                 devset: Sequence[Example] | None = None) -> EvaluationResult:
        """Run the program on all examples. Raises `EvaluationError` if all fail or too many do, `LMError` if the model
        cannot be used at all."""
        metric = metric or self.metric
        examples = self.devset if devset is None else list(devset)
        if metric is None:
            raise EvaluationError("P008", "there is no metric", hint="Evaluate(devset=..., metric=exact_match)")
        check_examples(examples)
        with self._display(len(examples)) as show:
            outcomes = self._run(program, metric, examples, show)
        failures = tuple(o for o in outcomes if isinstance(o, Failure))
        if len(failures) == len(examples):
            raise _too_many(failures, len(examples))
        results = tuple(Result(o.example, None, self.failure_score) if isinstance(o, Failure) else o for o in outcomes)
        scores = [100 * r.score for r in results]
        return EvaluationResult(sum(scores) / len(scores), results, failures, bootstrap_interval(scores))

    def _run(self, program: Callable[..., Any], metric: Metric, examples: list[Example],
             show: Callable[[int, int, float], None]) -> list[Result | Failure]:
        """The outcome for each example, in order. Leaves early on `max_errors`, a dead model, or Ctrl-C."""
        outcomes: dict[int, Result | Failure] = {}
        waiting: dict[Future[Result | Failure], int] = {}
        slots = max(1, min(self.num_threads or 8, len(examples)))
        pool = ThreadPoolExecutor(slots)
        todo = enumerate(examples)
        try:
            while len(outcomes) < len(examples):
                # No more than `slots` are under way, so that leaving early leaves the other calls unmade.
                for i, example in itertools.islice(todo, slots - len(waiting)):
                    waiting[pool.submit(contextvars.copy_context().run, _one, program, metric, example)] = i
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    outcomes[waiting.pop(future)] = future.result()
                    self._check_errors(outcomes, len(examples))
                    show(len(outcomes), len(examples), self._mean(outcomes))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
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


def _one(program: Callable[..., Any], metric: Metric, example: Example) -> Result | Failure:
    try:
        prediction = program(**example.inputs())
        return Result(example, prediction, score_of(metric, example, prediction))
    except LMError as error:
        if error.concerns_one_request:
            return Failure(example, error)
        raise
    except Exception as error:  # noqa: BLE001 - users' code; it is reported, and counted against the score
        return Failure(example, error)


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
