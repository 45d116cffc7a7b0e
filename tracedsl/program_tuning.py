"""The tuning stage of programs: is the compiled program better than the uncompiled one, on examples it has not seen?

What holds here: the search is an ordinary `autotune.Study` over one parameter, `candidate`; its measurer compiles with
the teleprompter and evaluates with the metric. What was measured is in the records and not paid for again; the learned
state lies beside the measurement, so that a compilation that was killed after it is not repeated either.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from tracedsl.autotune import Budget, Exhaustive, Measurement, Outcome, Parameter, Point, Records, Space, Study, Trial
from tracedsl.cache import digest
from tracedsl.diagnostics import TracedslError, Unsupported
from tracedsl.programs.context import current_lm
from tracedsl.programs.evaluate import Evaluate, EvaluationError, EvaluationResult
from tracedsl.programs.lm.accounts import BudgetExceeded, budget
from tracedsl.programs.lm.base import LMError, Usage
from tracedsl.programs.metrics import Verdict, metric_name, verdict_of
from tracedsl.programs.teleprompters.base import CompileError, MetricError, metric_error

if TYPE_CHECKING:
    from tracedsl.program import Program
    from tracedsl.program_options import Options
    from tracedsl.programs.example import Example

SMALLEST_SPLIT = 4
CAPTURE_EXAMPLES = 8


@dataclass(frozen=True)
class Data:
    """`train` for the teleprompter, `held` for the scores, and how they came about."""

    train: tuple[Example, ...]
    held: tuple[Example, ...]
    how: str


def split(trainset: Sequence[Example], valset: Sequence[Example] | None) -> Data:
    """Keep examples away from the teleprompter: the valset, else about a third of the trainset, chosen by the digest of
    each example, so that the same examples are chosen every time."""
    if valset is not None:
        return Data(tuple(trainset), tuple(valset), f"the valset ({len(valset)} examples)")
    if len(trainset) < SMALLEST_SPLIT:
        return Data(tuple(trainset), tuple(trainset),
                    f"the trainset itself ({len(trainset)} examples are too few to hold some back)")
    order = sorted(range(len(trainset)), key=lambda i: digest(repr(trainset[i].dump()), str(i)))
    held = set(order[:max(1, len(trainset) // 3)])
    return Data(tuple(e for i, e in enumerate(trainset) if i not in held),
                tuple(e for i, e in enumerate(trainset) if i in held),
                f"{len(held)} of the trainset's {len(trainset)} examples, held back from the teleprompter")


def fitting(function: Callable[..., Any], options: Options) -> Data:
    """The data, checked: the inputs of each example are arguments of the function. Raises `TracedslError` P104."""
    trainset = options.trainset or ()
    signature = inspect.signature(function)
    for name, examples in (("trainset", trainset), ("valset", options.valset or ())):
        for i, example in enumerate(examples):
            try:
                signature.bind(**example.inputs())
            except TypeError as error:
                raise TracedslError("P104", f"{name}[{i}] does not fit {function.__name__}{signature}", why=str(error),
                                    hint="the inputs of an example are the arguments of the function") from None
    return split(trainset, options.valset)


def visit_sites(student: Program, data: Data, tell: Callable[[str], None]) -> None:
    """Run the program on training inputs, so that its call sites are known. Raises the first error if all runs fail,
    `TracedslError` P104 if there is no call site."""
    errors: list[Exception] = []
    examples = data.train[:CAPTURE_EXAMPLES]
    for i, example in enumerate(examples):
        tell(f"capturing: {i + 1}/{len(examples)}")
        try:
            student(**example.inputs())
        except LMError as error:
            if not error.concerns_one_request:
                raise
            errors.append(error)
        except Exception as error:  # noqa: BLE001 - users' code; the first one is raised if nothing works
            errors.append(error)
    if len(errors) == len(examples):
        raise errors[0]
    if not student.named_predictors():
        reason = student._captured
        why = reason.diagnostic.what if isinstance(reason, Unsupported) else "no model was called"
        raise TracedslError("P104", f"{student.__name__!r} has no call site to compile", why=why,
                            hint="call Predict or ChainOfThought in the decorated function itself")


def data_digest(examples: Sequence[Example] | None) -> str:
    """64 hex digits over all examples, in order."""
    if examples is None:
        return "none"
    return digest(*(json.dumps(example.dump(), sort_keys=True, default=repr) for example in examples))


@dataclass(frozen=True)
class Tuning:
    """All that a search needs. `task` identifies it in the records."""

    program: Program
    data: Data
    metric: Callable[..., Any]
    teleprompter: Any
    task: str
    records: Records
    budget: Budget

    def run(self, tell: Callable[[str], None]) -> Outcome:
        """Score both candidates. Raises `MetricError` P104 if the metric raises, `CompileError`, `LMError`."""
        space = Space((Parameter("candidate", ("uncompiled", "compiled")),), default={"candidate": "uncompiled"})
        study = Study(space, Exhaustive(space), self._measurer(tell), self.task, goal="max", budget=self.budget,
                      records=self.records)
        done: list[Trial] = []

        def on_trial(trial: Trial, best: Trial) -> None:
            done.append(trial)
            tell(f"{trial.point['candidate']}: {score_text(trial.measurement)}")

        try:
            return study.run(on_trial)
        except BudgetExceeded as error:
            return Outcome(done[0] if done else None, tuple(done), error.limit)

    def _measurer(self, tell: Callable[[str], None]) -> Callable[[Point], Measurement]:
        def measure(point: Point) -> Measurement:
            started, before = time.monotonic(), _usage()
            student = self.program.reset_copy()
            notes: dict[str, Any] = {"held_out": self.data.how}
            if point["candidate"] == "compiled":
                student = self._compile(student, tell)
                notes["report"] = _report(student)
            result = self._evaluate(student, str(point["candidate"]), tell)
            notes |= {"interval": list(result.interval), "examples": len(result.results),
                      "failures": len(result.failures), "sites": student.dump_state()["sites"]}
            cost = {"seconds": time.monotonic() - started, **_difference(before, _usage())}
            return Measurement(result.score, cost=cost, notes=notes)

        return measure

    def _compile(self, student: Program, tell: Callable[[str], None]) -> Program:
        teleprompter = self.teleprompter
        if hasattr(teleprompter, "with_metric"):
            teleprompter = teleprompter.with_metric(checked(self.metric))
        if is_dataclass(teleprompter) and getattr(teleprompter, "progress", self) is None:
            teleprompter = replace(teleprompter, progress=lambda done, total, line: tell(  # type: ignore[type-var]
                f"{type(self.teleprompter).__name__}: {done}/{total}, {line}"))
        try:
            compiled: Program = teleprompter.compile(student, trainset=list(self.data.train))
        except CompileError as error:
            if isinstance(error.__cause__, MetricError):
                raise error.__cause__ from None
            raise
        if getattr(getattr(compiled, "compile_report", None), "interrupted", False):
            raise KeyboardInterrupt
        return compiled

    def _evaluate(self, student: Program, name: str, tell: Callable[[str], None]) -> EvaluationResult:
        def progress(done: int, total: int, mean: float) -> None:
            tell(f"scoring {name}: {done}/{total}, {mean:.1f} % so far")

        try:
            result = Evaluate(devset=self.data.held, metric=checked(self.metric), progress=progress)(student)
            failures = result.failures
        except EvaluationError as error:
            failures = error.failures
            if not any(isinstance(f.error, MetricError) for f in failures):
                raise
        for failure in failures:
            if isinstance(failure.error, MetricError):
                raise failure.error
        return result


def checked(metric: Callable[..., Any]) -> Callable[..., Any]:
    """The metric, with its own failures told apart from those of the program."""

    @functools.wraps(metric)
    def score(*given: Any) -> Verdict:
        try:
            return verdict_of(metric, *given)
        except Exception as error:
            raise metric_error(metric, given[0], given[1], error) from error

    score.__qualname__ = metric_name(metric) or "metric"
    return score


def score_text(measurement: Measurement) -> str:
    """`62.5 % (95 %: 45.0 to 80.0; 24 examples)`"""
    if measurement.value is None:
        return f"failed: {measurement.error}"
    low, high = measurement.notes.get("interval", (measurement.value, measurement.value))
    examples = measurement.notes.get("examples", "?")
    return f"{measurement.value:.1f} % (95 %: {low:.1f} to {high:.1f}; {examples} examples)"


@contextmanager
def metered(limits: Budget) -> Iterator[None]:
    """Within this block the budget of a compilation holds for each call."""
    with budget(usd=limits.money, tokens=limits.tokens, calls=limits.calls, seconds=limits.seconds):
        yield


@contextmanager
def progress_display(title: str, verbose: bool) -> Iterator[Callable[[str], None]]:
    """Where progress is told: a live line on a terminal, plain lines if asked for, nowhere else."""
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(title) as status:
            yield lambda line: status.update(f"{title}: {line}")
    elif verbose:
        yield lambda line: print(f"{title}: {line}", file=sys.stderr)
    else:
        yield lambda line: None


def _usage() -> Usage | None:
    usage = getattr(current_lm(), "usage", None)
    return usage if isinstance(usage, Usage) else None


def _difference(before: Usage | None, after: Usage | None) -> Mapping[str, float]:
    if before is None or after is None:
        return {}
    return {"calls": float(after.calls - before.calls), "tokens": float(after.total_tokens - before.total_tokens)}


def _report(compiled: Any) -> dict[str, Any]:
    report = getattr(compiled, "compile_report", None)
    if report is None:
        return {}
    return {"teleprompter": report.teleprompter, "demos": dict(report.demos), "tried": report.tried,
            "passed": report.passed, "failures": list(report.failures)}
