"""InferRules: rules that a model finds in demonstrations, added to the instructions.

Source: the optimizer of that name in DSPy. What holds here: demonstrations are bootstrapped first; each candidate has
rules of its own, from another sample of the model; the program without rules is among the candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracedsl.autotune import Budget
from tracedsl.programs.example import Example
from tracedsl.programs.metrics import Metric
from tracedsl.programs.teleprompters.base import P, Progress, check_trainset
from tracedsl.programs.teleprompters.bootstrap import Bootstrapper, Passing, make_teacher
from tracedsl.programs.teleprompters.candidates import Candidate, Part
from tracedsl.programs.teleprompters.proposing import Proposer
from tracedsl.programs.teleprompters.race import Contest, Entry
from tracedsl.programs.teleprompters.searching import Searching, with_demos

if TYPE_CHECKING:
    from tracedsl.programs.modules.module import Module

SHARE = 1 / 4


@dataclass(frozen=True)
class InferRules(Searching):
    """`InferRules(metric=exact_match, num_candidates=4).compile(program, trainset=train)`

    Args:
        num_candidates: how many sets of rules are tried.
        num_rules: rules of a set, at most.
        num_threads: runs at the same time.
        teacher_settings, metric, metric_threshold, max_bootstrapped_demos, max_labeled_demos, max_rounds, max_errors:
            as for `BootstrapFewShot`.
        prompt_model: finds the rules; None: the model in force.
        seed: decides the samples and the order of the examples.
        budget: hard limits; `trials` are metric calls.
        progress: told after each run.
    """

    num_candidates: int = 10
    num_rules: int = 10
    num_threads: int | None = field(default=None, compare=False)
    teacher_settings: Mapping[str, Any] | None = None
    metric: Metric | None = None
    metric_threshold: float | None = None
    max_bootstrapped_demos: int = 4
    max_labeled_demos: int = 16
    max_rounds: int = 1
    max_errors: int | None = None
    prompt_model: Any = None
    seed: int = 0
    budget: Budget | None = None
    progress: Progress | None = field(default=None, compare=False)

    def compile(self, student: P, *, trainset: Sequence[Example], teacher: Module | None = None,
                valset: Sequence[Example] | None = None) -> P:
        """A compiled copy of `student`. Without a valset, the second half of the trainset is held back for scores."""
        check_trainset(student, trainset)
        half = max(1, len(trainset) // 2)
        train = list(trainset) if valset is not None or len(trainset) < 2 else list(trainset)[:half]
        scored = list(valset) if valset is not None else list(trainset)[half:] or train
        session, bare = self.open_session(student), student.reset_copy()
        contest = Contest(session, bare, scored, seed=self.seed)
        boot = Bootstrapper(session, make_teacher(teacher or student, bare, train, self.max_labeled_demos), train,
                            Passing(self.metric_threshold, self.max_rounds, self.max_errors, self.teacher_settings,
                                    share=SHARE, strict=True))
        proposer = Proposer(session, bare, lm=self.prompt_model)

        def search() -> Entry[P]:
            found = boot.collect(range(len(train)), self.max_bootstrapped_demos)
            boot.check()
            demos = boot.demonstrations(bare, found, self.max_labeled_demos)
            entries = [contest.add(Candidate("uncompiled")), contest.add(with_demos("demonstrations", demos))]
            entries += [contest.add(self._with_rules(bare, demos, proposer, i)) for i in range(self.num_candidates)]
            return contest.race(entries)

        return self.conclude(contest, search, tried=boot.tried, passed=len(boot.passed))

    def _with_rules(self, bare: Module, demos: Mapping[str, tuple[Example, ...]], proposer: Proposer,
                    number: int) -> Candidate:
        """A candidate whose instructions end with rules found in its demonstrations."""
        parts = {}
        for name, predictor in bare.named_predictors():
            rollout = 1 + 10_000 * self.seed + number
            rules = proposer.rules(name, demos[name], self.num_rules, rollout) if demos[name] else ""
            said = predictor.signature.instructions
            parts[name] = Part(f"{said}\n\nKeep to these rules:\n{rules}" if rules else said, demos[name])
        return Candidate(f"rules {number + 1}", parts)
