"""BootstrapFewShotWithRandomSearch: many sets of demonstrations, raced on the same examples.

Source: Khattab et al., DSPy (2023), section 4, stage 2. What holds here: the candidates are those of DSPy: nothing,
labeled examples, what the teacher finds first, and what it finds in other orders. The teacher works on each example
once for all of them, and candidates that fall behind are dropped early, which is what saves metric calls.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracedsl.autotune import Budget
from tracedsl.programs.example import Example
from tracedsl.programs.metrics import Metric
from tracedsl.programs.teleprompters.base import P, Progress, check_trainset, sample_labeled
from tracedsl.programs.teleprompters.bootstrap import Bootstrapper, Passing, make_teacher
from tracedsl.programs.teleprompters.candidates import Candidate, PromptSpace
from tracedsl.programs.teleprompters.labeled import sample_first
from tracedsl.programs.teleprompters.race import Contest, Entry
from tracedsl.programs.teleprompters.searching import Searching

if TYPE_CHECKING:
    from tracedsl.programs.modules.module import Module

SHARE = 1 / 3       # of the metric calls of a budget, for the teacher at most
FIXED = ("uncompiled", "labeled", "bootstrapped")


@dataclass(frozen=True)
class BootstrapFewShotWithRandomSearch(Searching):
    """`BootstrapFewShotWithRandomSearch(metric=exact_match).compile(program, trainset=train, valset=dev)`

    Args:
        metric, teacher_settings, max_bootstrapped_demos, max_labeled_demos, max_rounds, max_errors, metric_threshold:
            as for `BootstrapFewShot`.
        num_candidate_programs: how many shuffled sets of demonstrations are tried beside the three fixed candidates.
        num_threads: runs at the same time.
        stop_at_score: a score in percent that is good enough.
        seed: decides the draws and the order of the examples.
        budget: hard limits; `trials` are metric calls.
        progress: told after each run.
    """

    metric: Metric | None = None
    teacher_settings: Mapping[str, Any] | None = None
    max_bootstrapped_demos: int = 4
    max_labeled_demos: int = 16
    max_rounds: int = 1
    num_candidate_programs: int = 16
    num_threads: int | None = field(default=None, compare=False)
    max_errors: int | None = None
    stop_at_score: float | None = None
    metric_threshold: float | None = None
    seed: int = 0
    budget: Budget | None = None
    progress: Progress | None = field(default=None, compare=False)

    def compile(self, student: P, *, trainset: Sequence[Example], teacher: Module | None = None,
                valset: Sequence[Example] | None = None, restrict: Sequence[int] | None = None,
                labeled_sample: bool = True) -> P:
        """A compiled copy of `student`: the best candidate on `valset` (default: the trainset, where an example is
        never among the demonstrations that it is asked with). `restrict` tries these seeds alone, as DSPy numbers them:
        -3 is the uncompiled program, -2 labeled examples, -1 the teacher's first finds."""
        check_trainset(student, trainset)
        session, bare = self.open_session(student), student.reset_copy()
        contest = Contest(session, bare, list(trainset if valset is None else valset), seed=self.seed)
        boot = Bootstrapper(session, make_teacher(teacher or student, bare, trainset, self.max_labeled_demos), trainset,
                            Passing(self.metric_threshold, self.max_rounds, self.max_errors, self.teacher_settings,
                                    share=SHARE, strict=True))

        def search() -> Entry[P]:
            entries = [contest.add(c) for c in self._candidates(bare, boot, restrict, labeled_sample)]
            enough = None if self.stop_at_score is None else self.stop_at_score / 100
            return contest.race(entries, enough=enough)

        return self.conclude(contest, search, tried=boot.tried, passed=len(boot.passed))

    def _candidates(self, bare: Module, boot: Bootstrapper, restrict: Sequence[int] | None,
                    labeled_sample: bool) -> list[Candidate]:
        """The points of the space of demonstration sets, one parameter for all predictors together."""
        names, sets = [], list[Mapping[str, tuple[Example, ...]]]()
        for seed in range(-3, self.num_candidate_programs):
            if restrict is not None and seed not in restrict:
                continue
            names.append(FIXED[seed + 3] if seed < 0 else f"bootstrapped, seed {seed}")
            sets.append(self._demos(bare, boot, seed, labeled_sample))
        space = PromptSpace(demos={name: tuple(s[name] for s in sets) for name, _ in bare.named_predictors()},
                            joint=True)
        return [Candidate(names[int(point["demos"] or 0)], space.candidate(point).parts)
                for point in space.space().points()]

    def _demos(self, bare: Module, boot: Bootstrapper, seed: int, sample: bool) -> dict[str, tuple[Example, ...]]:
        """The set of demonstrations with DSPy's number `seed`."""
        predictors, trainset = bare.named_predictors(), boot.trainset
        if seed == -3:
            return {name: () for name, _ in predictors}
        if seed == -2:
            source, k = random.Random(0), self.max_labeled_demos
            if sample:
                return {name: tuple(sample_labeled(p, trainset, k, source)) for name, p in predictors}
            return {name: tuple(sample_first(sample_labeled(p, trainset, len(trainset), source), trainset, k))
                    for name, p in predictors}
        order, wanted = list(range(len(trainset))), self.max_bootstrapped_demos
        if seed >= 0:
            source = random.Random(1000 * self.seed + seed)
            source.shuffle(order)
            wanted = source.randint(1, max(1, self.max_bootstrapped_demos))
        found = boot.collect(order, wanted)
        boot.check()
        return boot.demonstrations(bare, found, self.max_labeled_demos, order)
