"""What a teleprompter is, and what all of them share: settings, the report, drawing of examples.

What holds here: `compile` never changes the student; it returns a compiled copy whose `compile_report` tells what was
done. The same student, training set and settings give the same result: samples are drawn with fixed seeds. A predictor
for which no demonstration could be found is reported with a warning, never passed over silently.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from tracedsl.autotune import Budget
from tracedsl.diagnostics import TracedslError, warn
from tracedsl.programs.evaluate import check_examples
from tracedsl.programs.example import Example
from tracedsl.programs.metrics import Metric, metric_name, takes_trace

if TYPE_CHECKING:
    from tracedsl.programs.modules.module import Module
    from tracedsl.programs.modules.predict import Predict

P = TypeVar("P", bound="Module")
Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps at most, a line that says what is going on)."""


class CompileError(TracedslError, RuntimeError):
    """A program that cannot be compiled."""


class MetricError(TracedslError, RuntimeError):
    """The metric raised. The cause is what it raised."""


@dataclass(frozen=True)
class CompileReport:
    """What a compilation did. `demos` counts demonstrations by predictor; `interrupted` is set after Ctrl-C: the
    program then holds the best that had been found until then; `stopped` names the limit that ended the search.

    `score` (in percent, on the examples that the search scored with) and `search` are there if candidates were scored:
    one row for each candidate, with its score, interval, number of examples and what became of it. `cost` counts metric
    calls and model calls, those that were answered from records and caches too: the same every time. `paid` counts the
    metric calls that were really made.
    """

    teleprompter: str
    settings: Mapping[str, Any]
    demos: Mapping[str, int]
    missing: tuple[str, ...] = ()
    tried: int = 0
    passed: int = 0
    failures: tuple[str, ...] = field(default=())
    interrupted: bool = False
    stopped: str = ""
    score: float | None = None
    search: tuple[Mapping[str, Any], ...] = ()
    cost: Mapping[str, float] = field(default_factory=dict)
    paid: int = field(default=0, compare=False)
    why: str = ""
    steps: tuple[CompileReport, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The part of an artefact that tells how it was found: the same for the same student, data, seed and model."""
        made: dict[str, Any] = {
            "teleprompter": self.teleprompter, "settings": dict(self.settings), "demos": dict(self.demos),
            "tried": self.tried, "passed": self.passed, "failures": list(self.failures), "stopped": self.stopped,
            "score": self.score, "search": [dict(row) for row in self.search], "cost": dict(self.cost),
            "why": self.why, "steps": [step.to_json() for step in self.steps]}
        return {name: value for name, value in made.items() if value not in (None, "", [], {})}


class Teleprompter(Protocol):
    """Compiles programs."""

    def compile(self, student: P, *, trainset: Sequence[Example], teacher: Module | None = None,
                valset: Sequence[Example] | None = None) -> P:
        """A compiled copy of `student`."""

    def settings(self) -> dict[str, Any]:
        """All that decides the result beside student, training set and model: JSON data, for cache keys."""


class Configured:
    """What teleprompters that are dataclasses have in common: `settings` and `with_metric` follow from the fields."""

    def settings(self) -> dict[str, Any]:
        """All that decides the result beside student, training set and model. Fields that are not compared (threads,
        progress) decide nothing."""
        own = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.compare}  # type: ignore[arg-type]
        return {"teleprompter": type(self).__name__, **own}

    def with_metric(self, metric: Metric) -> Self:
        """The same with this metric, unless it has one."""
        if getattr(self, "metric", self) is not None:
            return self
        return replace(self, metric=metric)  # type: ignore[type-var]


def plain(value: Any) -> Any:
    """A setting as JSON data: models by identity, adapters and metrics by name, teleprompters by their settings."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(v) for name, v in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if callable(getattr(value, "settings", None)):
        return value.settings()
    if (identity := getattr(value, "identity", None)) is not None:
        return str(identity)
    if isinstance(value, Budget):
        return {f.name: v for f in fields(value) if (v := getattr(value, f.name)) != float("inf")}
    if callable(value):
        return metric_name(value)
    return getattr(value, "name", None) or repr(value)


def metric_error(metric: Metric, example: Any, prediction: Any, error: Exception) -> MetricError:
    """The error of a metric that failed, with what it was given."""
    return MetricError(
        "P104", f"the metric {metric_name(metric)} failed: {type(error).__name__}: {error}",
        why=f"it was given {_short(example)} and {_short(prediction)}",
        hint="a metric takes (example, prediction) or (example, prediction, trace) and returns a number"
             + (" or a bool" if takes_trace(metric) else ""))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def check_trainset(student: Module, trainset: Sequence[Example]) -> None:
    """Raise unless there are predictors to compile and examples to compile with."""
    check_examples(trainset, "trainset")
    if not student.named_predictors():
        raise CompileError("P007", f"{type(student).__name__} has no predictors to compile",
                           hint="keep Predict or ChainOfThought objects in its attributes")


def usable_for(predictor: Predict, examples: Sequence[Example]) -> list[Example]:
    """The examples that can be demonstrations for a predictor: with at least one of its inputs and of its outputs."""
    inputs, outputs = predictor.signature.input_fields, predictor.signature.output_fields
    return [e for e in examples if any(n in e for n in inputs) and any(n in e for n in outputs)]


def sample_labeled(predictor: Predict, examples: Sequence[Example], k: int, source: random.Random) -> list[Example]:
    """At most `k` of the usable examples, drawn without replacement."""
    usable = usable_for(predictor, examples)
    return source.sample(usable, min(k, len(usable)))


def finish(compiled: P, report: CompileReport) -> P:
    """Mark a program as compiled and warn about predictors that got nothing."""
    compiled._compiled = True  # type: ignore[attr-defined]
    compiled.compile_report = report  # type: ignore[attr-defined]
    for name in report.missing:
        warn("P009", f"no demonstration for {name!r}", why=_why_missing(report), stacklevel=4,
             hint="give the trainset the fields of this step, use BootstrapFewShot, or pass a stronger teacher")
    if report.interrupted:
        found = f"{report.passed} demonstrations had been found; they are in the program"
        if report.search:
            found = f"{len(report.search)} candidates had been scored; the best of them is in the program"
        warn("P107", "the compilation was interrupted", why=found, stacklevel=4,
             hint="compile again to finish: what was scored and answered is not paid for again")
    return compiled


def _why_missing(report: CompileReport) -> str:
    if report.tried:
        failed = f", {len(report.failures)} raised (first: {report.failures[0]})" if report.failures else ""
        return f"of {report.tried} examples tried, {report.passed} passed the metric{failed}"
    return "no example of the trainset has both an input and an output of its signature"
