"""What a teleprompter is, and what all of them share: the report, sampling, demonstrations for inner steps.

What holds here: `compile` never changes the student; it returns a compiled copy whose `compile_report` tells what was
done. The same student, training set and settings give the same result: samples are drawn with fixed seeds. A predictor
for which no demonstration could be found is reported with a warning, never passed over silently.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tracedsl.diagnostics import TracedslError, warn
from tracedsl.programs.evaluate import check_examples
from tracedsl.programs.example import Example

if TYPE_CHECKING:
    from tracedsl.programs.modules.module import Module
    from tracedsl.programs.modules.predict import Predict

P = TypeVar("P", bound="Module")
Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps at most, a line that says what is going on)."""


class CompileError(TracedslError, RuntimeError):
    """A program that cannot be compiled."""


@dataclass(frozen=True)
class CompileReport:
    """What a compilation did. `demos` counts demonstrations by predictor; `interrupted` is set after Ctrl-C: the
    program then holds what had been found until then."""

    teleprompter: str
    settings: Mapping[str, Any]
    demos: Mapping[str, int]
    missing: tuple[str, ...] = ()
    tried: int = 0
    passed: int = 0
    failures: tuple[str, ...] = field(default=())
    interrupted: bool = False


class Teleprompter(Protocol):
    """Compiles programs."""

    def compile(self, student: P, *, trainset: Sequence[Example], teacher: Module | None = None,
                valset: Sequence[Example] | None = None) -> P:
        """A compiled copy of `student`."""

    def settings(self) -> dict[str, Any]:
        """All that decides the result beside student, training set and model: JSON data, for cache keys."""


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
        warn("P009", "the compilation was interrupted", why=f"{report.passed} demonstrations had been found; "
             "they are in the program", stacklevel=4,
             hint="compile again to finish: answered calls come from the cache")
    return compiled


def _why_missing(report: CompileReport) -> str:
    if report.tried:
        failed = f", {len(report.failures)} raised (first: {report.failures[0]})" if report.failures else ""
        return f"of {report.tried} examples tried, {report.passed} passed the metric{failed}"
    return "no example of the trainset has both an input and an output of its signature"
