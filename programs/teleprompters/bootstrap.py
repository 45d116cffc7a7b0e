"""BootstrapFewShot: a teacher works through the training set; traces that pass the metric become demonstrations.

Source: Khattab et al., DSPy: Compiling Declarative Language Model Calls into Self-Improving Pipelines (2023), section
4 and appendix E.1. What holds here: every step of a program gets demonstrations from the same runs; the example at hand
is never among the teacher's own demonstrations; order and draws are the same every time.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from tracedsl.cache import digest
from tracedsl.programs.context import TraceStep, context, trace_calls
from tracedsl.programs.example import Example
from tracedsl.programs.lm.base import LMError
from tracedsl.programs.metrics import Metric, metric_name, score_of
from tracedsl.programs.teleprompters.base import (
    CompileError,
    CompileReport,
    P,
    Progress,
    check_trainset,
    finish,
    sample_labeled,
)

if TYPE_CHECKING:
    from tracedsl.programs.modules.module import Module


@dataclass(frozen=True)
class BootstrapFewShot:
    """`BootstrapFewShot(metric=exact_match).compile(program, trainset=train)`

    Args:
        metric: which runs pass; None: all that do not raise.
        metric_threshold: the value from which on a run passes; None: any value that is true.
        teacher_settings: `lm` and `adapter` that the teacher uses.
        max_bootstrapped_demos: demonstrations from the teacher, at most, for each predictor.
        max_labeled_demos: demonstrations in all, filled up from the training set.
        max_rounds: how often an example is tried; from the second time on at temperature 1.
        max_errors: stop after so many runs that raised; None: only if all did.
        progress: told after each run.
    """

    metric: Metric | None = None
    metric_threshold: float | None = None
    teacher_settings: Mapping[str, Any] | None = None
    max_bootstrapped_demos: int = 4
    max_labeled_demos: int = 16
    max_rounds: int = 1
    max_errors: int | None = None
    progress: Progress | None = field(default=None, compare=False)

    def with_metric(self, metric: Metric) -> Self:
        """The same with this metric, unless it has one."""
        return self if self.metric is not None else replace(self, metric=metric)

    def settings(self) -> dict[str, Any]:
        teacher = {name: getattr(v, "identity", None) or getattr(v, "name", None) or repr(v)
                   for name, v in sorted((self.teacher_settings or {}).items())}
        return {"teleprompter": type(self).__name__, "metric": metric_name(self.metric),
                "metric_threshold": self.metric_threshold, "teacher_settings": teacher,
                "max_bootstrapped_demos": self.max_bootstrapped_demos, "max_labeled_demos": self.max_labeled_demos,
                "max_rounds": self.max_rounds, "max_errors": self.max_errors}

    def compile(self, student: P, *, trainset: Sequence[Example], teacher: Module | None = None,
                valset: Sequence[Example] | None = None) -> P:
        """A compiled copy of `student`. `teacher` (default: the student) must have the same predictors. After Ctrl-C
        the demonstrations found so far are used. `valset` is not used."""
        check_trainset(student, trainset)
        compiled = student.reset_copy()
        run = _Run(self, self._teacher(teacher or student, compiled, trainset), list(trainset))
        run.bootstrap()
        counts = self._install(compiled, run)
        missing = tuple(name for name, n in counts.items() if n == 0 and self._wanted() > 0)
        return finish(compiled, CompileReport(
            type(self).__name__, self.settings(), counts, missing, tried=run.tried, passed=len(run.passed),
            failures=tuple(f"{type(e).__name__}: {e}" for e in run.errors), interrupted=run.interrupted))

    def _wanted(self) -> int:
        return max(self.max_bootstrapped_demos, self.max_labeled_demos)

    def _teacher(self, given: Module, student: Module, trainset: Sequence[Example]) -> Module:
        """A copy of the teacher that may be changed, with labeled demonstrations if it is not compiled itself."""
        teacher = given.deepcopy()
        ours, theirs = dict(student.named_predictors()), dict(teacher.named_predictors())
        if ours.keys() != theirs.keys():
            odd = ", ".join(sorted(ours.keys() ^ theirs.keys()))
            raise CompileError("P007", "teacher and student have different predictors", why=f"only one has: {odd}",
                               hint="use a teacher of the same structure, with another model or demonstrations")
        if self.max_labeled_demos and not getattr(given, "_compiled", False):
            source = random.Random(0)
            for predictor in theirs.values():
                predictor.demos = sample_labeled(predictor, trainset, self.max_labeled_demos, source)
        return teacher

    def _install(self, compiled: Module, run: _Run) -> dict[str, int]:
        """Give each predictor what the teacher found, filled up with labeled examples that were not bootstrapped."""
        rest = [e for i, e in enumerate(run.trainset) if i not in run.passed]
        source, counts = random.Random(0), {}
        for name, predictor in compiled.named_predictors():
            found = run.found.get(name, [])[:self.max_bootstrapped_demos]
            labeled = sample_labeled(predictor, rest, max(0, self.max_labeled_demos - len(found)), source)
            predictor.demos = [*labeled, *found]
            counts[name] = len(predictor.demos)
        return counts


class _Run:
    """One pass of a teacher over a training set: which examples passed, and the demonstrations by predictor."""

    def __init__(self, settings: BootstrapFewShot, teacher: Module, trainset: list[Example]) -> None:
        self.settings = settings
        self.teacher = teacher
        self.trainset = trainset
        self.names = {id(p): name for name, p in teacher.named_predictors()}
        self.found: dict[str, list[Example]] = {name: [] for name in self.names.values()}
        self.passed: set[int] = set()
        self.errors: list[Exception] = []
        self.tried = 0
        self.interrupted = False

    def bootstrap(self) -> None:
        wanted, total = self.settings.max_bootstrapped_demos, len(self.trainset)
        try:
            for round_ in range(self.settings.max_rounds):
                for i, example in enumerate(self.trainset):
                    if len(self.passed) >= wanted:
                        return
                    if i not in self.passed and self._try(example, round_):
                        self.passed.add(i)
                    self._tell(i + 1 + round_ * total, total * self.settings.max_rounds)
        except KeyboardInterrupt:
            if not self.passed:
                raise
            self.interrupted = True
        if self.tried and len(self.errors) == self.tried:
            raise CompileError("P008", f"all {self.tried} runs of the teacher failed", why=str(self.errors[0]),
                               hint="run the program on one example of the trainset") from self.errors[0]

    def _tell(self, done: int, total: int) -> None:
        if self.settings.progress is not None:
            line = f"{len(self.passed)} of {self.settings.max_bootstrapped_demos} demonstrations, {self.tried} tried"
            self.settings.progress(done, total, line)

    def _try(self, example: Example, round_: int) -> bool:
        """Let the teacher work on one example; True if it passes, its steps then are demonstrations."""
        self.tried += 1
        kept = [(p, p.demos, p.config) for p in self.teacher.predictors()]
        try:
            for predictor, demos, config in kept:
                predictor.demos = [d for d in demos if d != example]
                if round_:
                    predictor.config = {**config, "temperature": 1.0, "rollout_id": round_}
            with context(**(self.settings.teacher_settings or {})), trace_calls() as steps:
                prediction = self.teacher(**example.inputs())
            if not self._passes(example, prediction, steps):
                return False
        except LMError as error:
            if not error.concerns_one_request:
                raise
            return self._failed(error)
        except Exception as error:  # noqa: BLE001 - users' code; counted and reported
            return self._failed(error)
        finally:
            for predictor, demos, config in kept:
                predictor.demos, predictor.config = demos, config
        self._keep(steps)
        return True

    def _failed(self, error: Exception) -> bool:
        self.errors.append(error)
        limit = self.settings.max_errors
        if limit is not None and len(self.errors) >= max(1, limit):
            raise CompileError("P008", f"{len(self.errors)} runs of the teacher failed", why=str(error),
                               hint="raise max_errors, or run the program on one example") from error
        return False

    def _passes(self, example: Example, prediction: Any, steps: list[TraceStep]) -> bool:
        metric, threshold = self.settings.metric, self.settings.metric_threshold
        if metric is None:
            return True
        value = score_of(metric, example, prediction, steps)
        return value >= threshold if threshold is not None else bool(value)

    def _keep(self, steps: list[TraceStep]) -> None:
        """Each predictor's step as a demonstration. Of several steps of one predictor, one is kept: the last, or with
        the same chance any earlier one."""
        by_name: dict[str, list[Example]] = {}
        for step in steps:
            if (name := self.names.get(id(step.predictor))) is not None:
                demo = Example(dict(step.inputs), **dict(step.prediction.items()), augmented=True)
                by_name.setdefault(name, []).append(demo)
        for name, demos in by_name.items():
            source = random.Random(digest(*(repr(d) for d in demos)))
            several = len(demos) > 1 and source.random() < 0.5
            self.found[name].append(source.choice(demos[:-1]) if several else demos[-1])
