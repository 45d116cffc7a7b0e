"""BootstrapFewShot: a teacher works through the training set; traces that pass the metric become demonstrations.

Source: Khattab et al., DSPy: Compiling Declarative Language Model Calls into Self-Improving Pipelines (2023), section
4 and appendix E.1. What holds here: every step of a program gets demonstrations from the same runs; the example at hand
is never among the teacher's own demonstrations; order and draws are the same every time, for any number of threads.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracedsl.autotune import Budget
from tracedsl.cache import digest
from tracedsl.programs.example import Example
from tracedsl.programs.metrics import Metric
from tracedsl.programs.teleprompters.base import (
    CompileError,
    CompileReport,
    Configured,
    P,
    Progress,
    check_trainset,
    finish,
    sample_labeled,
)
from tracedsl.programs.teleprompters.race import leave_out
from tracedsl.programs.teleprompters.runs import Job, Run
from tracedsl.programs.teleprompters.session import SearchEnded, Session

if TYPE_CHECKING:
    from tracedsl.programs.modules.module import Module


@dataclass(frozen=True)
class BootstrapFewShot(Configured):
    """`BootstrapFewShot(metric=exact_match).compile(program, trainset=train)`

    Args:
        metric: which runs pass; None: all that do not raise.
        metric_threshold: the value from which on a run passes; None: any value that is true.
        teacher_settings: `lm` and `adapter` that the teacher uses.
        max_bootstrapped_demos: demonstrations from the teacher, at most, for each predictor.
        max_labeled_demos: demonstrations in all, filled up from the training set.
        max_rounds: how often an example is tried; from the second time on at temperature 1.
        max_errors: stop after so many runs that raised; None: only if all did.
        budget: hard limits; `trials` are runs of the teacher.
        num_threads: runs at the same time; None: one, since a metric may not be made for more.
        progress: told after each run.
    """

    metric: Metric | None = None
    metric_threshold: float | None = None
    teacher_settings: Mapping[str, Any] | None = None
    max_bootstrapped_demos: int = 4
    max_labeled_demos: int = 16
    max_rounds: int = 1
    max_errors: int | None = None
    budget: Budget | None = None
    num_threads: int | None = field(default=None, compare=False)
    progress: Progress | None = field(default=None, compare=False)

    def compile(self, student: P, *, trainset: Sequence[Example], teacher: Module | None = None,
                valset: Sequence[Example] | None = None) -> P:
        """A compiled copy of `student`. `teacher` (default: the student) must have the same predictors; a compiled one
        teaches with what it has learned. After Ctrl-C the demonstrations found so far are used. `valset` is not
        used."""
        check_trainset(student, trainset)
        compiled = student.reset_copy()
        session = Session(student, self.metric, limits=self.budget, threads=self.num_threads or 1,
                          progress=self.progress)
        run = Bootstrapper(session, make_teacher(teacher or student, compiled, trainset, self.max_labeled_demos),
                           trainset, Passing(self.metric_threshold, self.max_rounds, self.max_errors,
                                             self.teacher_settings))
        interrupted, stopped = False, ""
        try:
            run.collect(range(len(trainset)), self.max_bootstrapped_demos)
        except KeyboardInterrupt:
            if not run.passed:
                raise
            interrupted = True
        except SearchEnded as end:
            stopped = end.reason
        run.check()
        demos = run.demonstrations(compiled, list(run.passed)[:self.max_bootstrapped_demos], self.max_labeled_demos)
        for name, predictor in compiled.named_predictors():
            predictor.demos = list(demos[name])
        wanted = max(self.max_bootstrapped_demos, self.max_labeled_demos) > 0
        return finish(compiled, CompileReport(
            type(self).__name__, self.settings(), {name: len(d) for name, d in demos.items()},
            tuple(name for name, d in demos.items() if wanted and not d), tried=run.tried, passed=len(run.passed),
            failures=run.failures(), interrupted=interrupted, stopped=stopped,
            cost=session.cost(), paid=session.paid_trials))


def make_teacher(given: Module, student: Module, trainset: Sequence[Example], labeled: int) -> Module:
    """A copy of the teacher that may be changed, with labeled demonstrations if it is not compiled itself."""
    teacher = given.deepcopy()
    ours, theirs = dict(student.named_predictors()), dict(teacher.named_predictors())
    if ours.keys() != theirs.keys():
        odd = ", ".join(sorted(ours.keys() ^ theirs.keys()))
        raise CompileError("P007", "teacher and student have different predictors", why=f"only one has: {odd}",
                           hint="use a teacher of the same structure, with another model or demonstrations")
    if labeled and not getattr(given, "_compiled", False):
        source = random.Random(0)
        for predictor in theirs.values():
            predictor.demos = sample_labeled(predictor, trainset, labeled, source)
    return teacher


@dataclass(frozen=True)
class Passing:
    """Which runs pass, and how often an example is tried: see `BootstrapFewShot`. `share` of the budget's metric calls
    may go into it; `strict`: a metric that fails is an error at once."""

    threshold: float | None = None
    max_rounds: int = 1
    max_errors: int | None = None
    settings: Mapping[str, Any] | None = None
    share: float = 1.0
    strict: bool = False


class Bootstrapper:
    """A teacher's runs over a training set, each made once however many sets of demonstrations are drawn from them.
    `passed` holds the runs that pass, by the example's position, in the order in which they were found."""

    def __init__(self, session: Session, teacher: Module, trainset: Sequence[Example], passing: Passing) -> None:
        self.session, self.teacher, self.trainset = session, teacher, list(trainset)
        self.passed: dict[int, Run] = {}
        self.errors: list[Exception] = []
        self._passing = passing
        self._tried: set[tuple[int, int]] = set()

    @property
    def tried(self) -> int:
        return len(self._tried)

    def collect(self, order: Sequence[int], wanted: int) -> list[int]:
        """The first `wanted` examples of `order` that pass, or all that do. Runs go out together only where one after
        the other would have made each of them, too."""
        found: list[int] = []
        for round_ in range(self._passing.max_rounds):
            todo = [i for i in order if i not in found]
            while todo and len(found) < wanted and not self._used_up():
                wave, todo = todo[:wanted - len(found)], todo[wanted - len(found):]
                found += self._wave(wave, round_, wanted)
        return found

    def _used_up(self) -> bool:
        """Whether the rest of the budget is for others."""
        share, session = self._passing.share, self.session
        return share < 1 and (self.tried >= share * session.limits.trials
                              or session.spent["calls"] >= share * session.limits.calls)

    def _wave(self, wave: Sequence[int], round_: int, wanted: int) -> list[int]:
        """Those of some examples that pass."""
        fresh = [i for i in wave if i not in self.passed and (i, round_) not in self._tried]
        fresh = fresh[:max(1, int(min(len(fresh), self.session.room)))] if fresh else []
        jobs = [self._job(i, round_) for i in fresh]
        self.session.planned = max(self.session.planned, len(self.trainset) * self._passing.max_rounds)
        try:
            for i, run in zip(fresh, self.session.runs(jobs)):
                self._take(i, round_, run)
        except KeyboardInterrupt:
            for i, known in zip(fresh, self.session.known(jobs)):
                if known is not None:
                    self._take(i, round_, known)
            raise
        self.session.tell(f"{len(self.passed)} of {wanted} demonstrations, {self.tried} tried")
        left = [i for i in wave if i not in self.passed and (i, round_) not in self._tried]
        if left:
            raise SearchEnded(self.session.short_of())
        return [i for i in wave if i in self.passed]

    def _job(self, i: int, round_: int) -> Job:
        example = self.trainset[i]
        return Job(leave_out(self.teacher, example), example, rollout=round_, traced=True,
                   settings=self._passing.settings or {})

    def _take(self, i: int, round_: int, run: Run) -> None:
        self._tried.add((i, round_))
        if run.error is not None:
            if self._passing.strict:
                self.session.check_metric(run)
            self.errors.append(run.error)
            limit = self._passing.max_errors
            if limit is not None and len(self.errors) >= max(1, limit):
                raise CompileError("P008", f"{len(self.errors)} runs of the teacher failed", why=str(run.error),
                                   hint="raise max_errors, or run the program on one example") from run.error
            return
        threshold = self._passing.threshold
        if run.score >= threshold if threshold is not None else bool(run.score):
            self.passed[i] = run

    def check(self) -> None:
        """Raise if the teacher failed each time."""
        if self.tried and len(self.errors) == self.tried:
            raise CompileError("P008", f"all {self.tried} runs of the teacher failed", why=str(self.errors[0]),
                               hint="run the program on one example of the trainset") from self.errors[0]

    def failures(self) -> tuple[str, ...]:
        return tuple(f"{type(e).__name__}: {e}" for e in self.errors)

    def demonstrations(self, student: Module, found: Sequence[int], labeled: int,
                       order: Sequence[int] | None = None) -> dict[str, tuple[Example, ...]]:
        """Demonstrations for each predictor of the student: what the teacher did on the examples `found`, filled up to
        `labeled` in all from the other examples (in `order`)."""
        rest = [self.trainset[i] for i in (order or range(len(self.trainset))) if i not in found]
        steps = [demonstrations_of(self.passed[i]) for i in found]
        source, made = random.Random(0), {}
        for name, predictor in student.named_predictors():
            bootstrapped = [step[name] for step in steps if name in step]
            drawn = sample_labeled(predictor, rest, max(0, labeled - len(bootstrapped)), source)
            made[name] = (*drawn, *bootstrapped)
        return made


def demonstrations_of(run: Run) -> dict[str, Example]:
    """Each predictor's step as a demonstration. Of several steps of one predictor, one is taken: the last, or with the
    same chance any earlier one."""
    by_name: dict[str, list[Example]] = {}
    for step in run.steps:
        by_name.setdefault(step.predictor, []).append(step.demonstration())
    chosen = {}
    for name, demos in by_name.items():
        source = random.Random(digest(*(repr(d) for d in demos)))
        several = len(demos) > 1 and source.random() < 0.5
        chosen[name] = source.choice(demos[:-1]) if several else demos[-1]
    return chosen
