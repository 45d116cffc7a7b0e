"""MIPROv2: instructions and demonstrations together, searched with a model of which choices are good.

Source: Opsahl-Ong et al., Optimizing Instructions and Demonstrations for Multi-Stage Language Model Programs (2024).
What holds here: the space is one of `autotune`; a strategy proposes points; a point is a challenger that sees a
minibatch, block by block, until it is behind the best so far. Only the finalists see all examples.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tracedsl.autotune import Budget, Measurement
from tracedsl.programs.example import Example
from tracedsl.programs.metrics import Metric
from tracedsl.programs.teleprompters.base import P, Progress, check_trainset
from tracedsl.programs.teleprompters.bootstrap import Bootstrapper, Passing, make_teacher
from tracedsl.programs.teleprompters.candidates import Candidate, PromptSpace
from tracedsl.programs.teleprompters.proposing import TIPS, Proposer
from tracedsl.programs.teleprompters.race import Contest, Entry
from tracedsl.programs.teleprompters.searching import Searching, instructions_of
from tracedsl.programs.teleprompters.surrogate import BayesianSearch, need_scikit_learn, prompt_features

if TYPE_CHECKING:
    from tracedsl.programs.modules.module import Module

AUTO = {"light": (6, 100), "medium": (12, 300), "heavy": (18, 1000)}    # candidates, examples to score with
FINALISTS = 3
SHARE = 1 / 4       # of the metric calls of a budget, for the teacher at most


@dataclass(frozen=True)
class MIPROv2(Searching):
    """`MIPROv2(metric=exact_match, auto="light").compile(program, trainset=train, valset=dev)`. Needs scikit-learn.

    Args:
        metric: scores a run.
        prompt_model: writes instructions; `task_model`: runs the program; None: the model in force.
        teacher_settings: model and adapter of the teacher.
        max_bootstrapped_demos, max_labeled_demos: as for `BootstrapFewShot`; both 0: instructions alone.
        auto: "light", "medium", "heavy": how many candidates, and examples to score with; None: `num_candidates` says.
        num_candidates: instructions, and sets of demonstrations, for each predictor.
        num_threads: runs at the same time.
        seed: decides all draws.
        init_temperature: of the model that writes.
        verbose, track_stats, log_dir: taken for DSPy's sake: the report tells all scores, the records keep all runs.
        max_errors, metric_threshold: as for `BootstrapFewShot`.
        budget: hard limits; `trials` are metric calls.
        progress: told after each run.
    """

    metric: Metric | None = None
    prompt_model: Any = None
    task_model: Any = None
    teacher_settings: Mapping[str, Any] | None = None
    max_bootstrapped_demos: int = 4
    max_labeled_demos: int = 4
    auto: Literal["light", "medium", "heavy"] | None = "light"
    num_candidates: int | None = None
    num_threads: int | None = field(default=None, compare=False)
    max_errors: int | None = None
    seed: int = 9
    init_temperature: float = 1.0
    verbose: bool = field(default=False, compare=False)
    track_stats: bool = field(default=True, compare=False)
    log_dir: str | None = field(default=None, compare=False)
    metric_threshold: float | None = None
    budget: Budget | None = None
    progress: Progress | None = field(default=None, compare=False)

    def compile(self, student: P, *, trainset: Sequence[Example], teacher: Module | None = None,
                valset: Sequence[Example] | None = None, num_trials: int | None = None, minibatch: bool = True,
                minibatch_size: int = 35, minibatch_full_eval_steps: int = 5, program_aware_proposer: bool = True,
                data_aware_proposer: bool = True, view_data_batch_size: int = 10, tip_aware_proposer: bool = True,
                fewshot_aware_proposer: bool = True) -> P:
        """A compiled copy of `student`. Without a valset, candidates are scored on the trainset, where an example is
        never among the demonstrations that it is asked with."""
        need_scikit_learn()
        check_trainset(student, trainset)
        count, most = AUTO[self.auto] if self.auto else (self.num_candidates or 6, 10**9)
        count = self.num_candidates or count
        scored = random.Random(self.seed).sample(list(trainset if valset is None else valset),
                                                 min(most, len(trainset if valset is None else valset)))
        session, settings = self.open_session(student), {"lm": self.task_model} if self.task_model else {}
        contest = Contest(session, student, scored, seed=self.seed, settings=settings)
        boot = Bootstrapper(session, make_teacher(teacher or student, student, trainset, self.max_labeled_demos),
                            trainset, Passing(self.metric_threshold, 1, self.max_errors,
                                              {**settings, **(self.teacher_settings or {})}, share=SHARE, strict=True))
        proposer = Proposer(session, student, trainset=trainset if data_aware_proposer else None, lm=self.prompt_model,
                            describe_program=program_aware_proposer, rows=view_data_batch_size)
        size = min(minibatch_size, len(scored)) if minibatch else len(scored)

        def search() -> Entry[P]:
            demos = self._demo_sets(student, boot, count)
            tips = TIPS if tip_aware_proposer else ("",)
            said = self._instructions(student, proposer, demos if fewshot_aware_proposer else {}, count, tips)
            space = PromptSpace(said, demos)
            trials = num_trials or trials_for(len(space.space().parameters), count)
            return self._walk(contest, space, trials, size, minibatch_full_eval_steps)

        return self.conclude(contest, search, tried=boot.tried, passed=len(boot.passed))

    def _demo_sets(self, student: Module, boot: Bootstrapper, count: int) -> dict[str, tuple[tuple[Example, ...], ...]]:
        """Sets of demonstrations for each predictor, what it has first; none at all if no demonstrations are wanted."""
        if not max(self.max_bootstrapped_demos, self.max_labeled_demos):
            return {}
        sets: dict[str, list[tuple[Example, ...]]] = {n: [tuple(p.demos)] for n, p in student.named_predictors()}
        for i in range(1, count):
            source, order = random.Random(1000 * self.seed + i), list(range(len(boot.trainset)))
            source.shuffle(order)
            wanted = 0 if i == 1 else source.randint(1, max(1, self.max_bootstrapped_demos))
            found = boot.collect(order, min(wanted, self.max_bootstrapped_demos))
            boot.check()
            for name, demos in boot.demonstrations(student, found, self.max_labeled_demos, order).items():
                sets[name].append(demos)
        return {name: tuple(dict.fromkeys(choices)) for name, choices in sets.items()}

    def _instructions(self, student: Module, proposer: Proposer, demos: Mapping[str, tuple[tuple[Example, ...], ...]],
                      count: int, tips: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Instructions for each predictor, what it has first."""
        made = {}
        for name, current in instructions_of(student).items():
            seen = max(demos.get(name, ((),)), key=len)
            new = proposer.instructions(name, count - 1, current=current, demos=seen[:4], tips=tips,
                                        first=1 + 10_000 * self.seed, temperature=self.init_temperature)
            made[name] = (current, *new)
        return made

    def _walk(self, contest: Contest[P], space: PromptSpace, trials: int, size: int, every: int) -> Entry[P]:
        """Let a strategy propose challengers, then let the best of them see all examples."""
        made = space.space()
        strategy = BayesianSearch(made, self.seed, prompt_features(space.candidate))
        best = contest.add(Candidate("the student", space.candidate(made.default or {}).parts))
        contest.session.planned = int(contest.session.spent["trials"]) + trials * size // 2 + 2 * len(contest.examples)
        for trial in range(trials):
            points = strategy.ask(1)
            if not points:
                break
            entry = contest.add(space.candidate(points[0]))
            best_text = f"best {100 * best.mean:.1f} % of {len(best.runs)}" if best.runs else "the student first"
            contest.session.tell(f"trial {trial + 1} of {trials}, {best_text}")
            if entry is not best and contest.challenge(entry, best, size):
                best = entry
            contest.extend([best], size)
            strategy.tell(points[0], -entry.mean, Measurement(entry.mean, notes={"examples": len(entry.runs)}))
            if (trial + 1) % every == 0:
                contest.extend([best], len(contest.examples))
        open_ = [e for e in contest.entries if len(e.runs) >= size and not e.fate]
        finalists = sorted(open_, key=lambda e: (-round(sum(e.scores[:size]), 9), e.number))[:FINALISTS]
        return contest.race(list(dict.fromkeys([best, *finalists])))


def trials_for(parameters: int, candidates: int) -> int:
    """How many points are tried, as DSPy counts them."""
    return int(max(2 * parameters * math.log2(max(2, candidates)), 1.5 * candidates))
