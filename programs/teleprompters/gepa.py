"""GEPA: instructions that evolve by reflection on runs, along the Pareto front of the examples.

Source: Agrawal et al., GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning (2025), sections 3.1 to
3.3. What holds here: a parent is drawn from the candidates that are best on some example; a model reads its runs on a
few training examples, with the metric's feedback in words, and rewrites one predictor's instructions; the child sees
the valset only if it does better than its parent on those few. With `use_merge`, two candidates that improved different
predictors are put together.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from tracedsl.autotune import Budget
from tracedsl.programs.example import Example
from tracedsl.programs.metrics import Metric
from tracedsl.programs.teleprompters.base import CompileError, P, Progress, check_trainset
from tracedsl.programs.teleprompters.candidates import Candidate, Part
from tracedsl.programs.teleprompters.proposing import Proposer
from tracedsl.programs.teleprompters.race import Contest, Entry
from tracedsl.programs.teleprompters.runs import Job, Run
from tracedsl.programs.teleprompters.searching import Searching, instructions_of
from tracedsl.programs.teleprompters.session import SearchEnded

if TYPE_CHECKING:
    from tracedsl.programs.modules.module import Module

AUTO = {"light": 6, "medium": 12, "heavy": 18}      # full evaluations that the budget is worth
IDLE_ROUNDS = 8         # rounds without a new candidate in which nothing was paid, after which it ends


@dataclass(frozen=True)
class GEPA(Searching):
    """`GEPA(metric=judge, auto="light", reflection_lm=strong).compile(program, trainset=train, valset=dev)`

    Args:
        metric: `(example, prediction, trace, pred_name, pred_trace)`, or fewer; best with a result that has `score` and
            `feedback`.
        auto, max_full_evals, max_metric_calls: the budget, one of them; none: `auto="light"`.
        reflection_minibatch_size: training examples that a reflection is shown.
        candidate_selection_strategy: "pareto", or "current_best".
        reflection_lm: writes instructions; None: the model in force.
        skip_perfect_score: do not reflect on examples that all went perfectly.
        add_format_failure_as_feedback: let it learn from answers that could not be read.
        component_selector: "round_robin" changes one predictor a time, "all" each.
        use_merge: put candidates together that improved different predictors, `max_merge_invocations` times at most.
        num_threads: runs at the same time.
        perfect_score: what skip_perfect_score goes by.
        seed: decides all draws.
        budget: further hard limits.
        progress: told after each run.
    """

    metric: Metric | None = None
    auto: Literal["light", "medium", "heavy"] | None = field(default=None, kw_only=True)
    max_full_evals: int | None = field(default=None, kw_only=True)
    max_metric_calls: int | None = field(default=None, kw_only=True)
    reflection_minibatch_size: int = field(default=3, kw_only=True)
    candidate_selection_strategy: Literal["pareto", "current_best"] = field(default="pareto", kw_only=True)
    reflection_lm: Any = field(default=None, kw_only=True)
    skip_perfect_score: bool = field(default=True, kw_only=True)
    add_format_failure_as_feedback: bool = field(default=False, kw_only=True)
    component_selector: Literal["round_robin", "all"] = field(default="round_robin", kw_only=True)
    use_merge: bool = field(default=True, kw_only=True)
    max_merge_invocations: int | None = field(default=5, kw_only=True)
    num_threads: int | None = field(default=None, compare=False, kw_only=True)
    perfect_score: float = field(default=1.0, kw_only=True)
    seed: int | None = field(default=0, kw_only=True)
    budget: Budget | None = field(default=None, kw_only=True)
    progress: Progress | None = field(default=None, compare=False, kw_only=True)

    def compile(self, student: P, *, trainset: Sequence[Example], teacher: Module | None = None,
                valset: Sequence[Example] | None = None) -> P:
        """A compiled copy of `student`: the candidate with the highest mean on the valset (default: the trainset).
        `teacher` is not used."""
        check_trainset(student, trainset)
        scored = list(trainset if valset is None else valset)
        limited = replace(self, budget=self._limits(len(scored)))
        session = limited.open_session(student)
        contest = Contest(session, student, scored, seed=self.seed or 0)
        evolution = _Evolution(limited, contest, Proposer(session, student, lm=self.reflection_lm), list(trainset))
        return self.conclude(contest, evolution.search)

    def _limits(self, scored: int) -> Budget:
        """The budget in force, in metric calls."""
        given = [v for v in (self.auto, self.max_full_evals, self.max_metric_calls) if v is not None]
        if len(given) > 1:
            raise CompileError("P008", "GEPA was given more than one budget",
                               hint="give one of auto, max_full_evals, max_metric_calls")
        calls = self.max_metric_calls or (self.max_full_evals or AUTO[self.auto or "light"]) * scored
        own = self.budget or Budget()
        return replace(own, trials=min(own.trials, calls))


class _Evolution:
    """The candidates of one compilation and where they came from."""

    def __init__(self, settings: GEPA, contest: Contest[Any], proposer: Proposer, trainset: list[Example]) -> None:
        self._settings, self._contest, self._proposer = settings, contest, proposer
        self._source = random.Random(settings.seed or 0)
        self._trainset, self._queue = trainset, list[Example]()
        self._pool: list[Entry[Any]] = []
        self._turn: dict[int, int] = {}             # entry -> whose predictor's turn it is
        self._parents: dict[int, int] = {}          # entry -> whose instructions were rewritten, or the better of two
        self._merged: set[str] = set()

    def search(self) -> Entry[Any]:
        """Evolve until the budget is spent or nothing new comes."""
        contest, session = self._contest, self._contest.session
        texts = instructions_of(contest.student)
        first = contest.add(Candidate("the student", {name: Part(text) for name, text in texts.items()}))
        contest.extend([first], len(contest.examples))
        self._pool, idle, round_ = [first], 0, 0
        session.planned = int(session.limits.trials)
        while idle < IDLE_ROUNDS and session.room > 0:
            round_ += 1
            before = session.spent["trials"]
            best = self._best()
            session.tell(f"round {round_}, {len(self._pool)} candidates, best {100 * best.mean:.1f} %")
            try:
                grown = self._merge() if self._may_merge() else False
                grown = self._mutate(round_) or grown
            except SearchEnded:
                if self._best() is first and len(self._pool) == 1:
                    raise
                break
            idle = 0 if grown or session.spent["trials"] > before else idle + 1
        best = self._best()
        best.fate = "best"
        return best

    def _best(self) -> Entry[Any]:
        return min(self._pool, key=lambda e: (-round(e.mean, 12), e.number))

    # -- one step ------------------------------------------------------------------------------------------------

    def _mutate(self, round_: int) -> bool:
        """One reflection; True if a new candidate came of it."""
        parent = self._parent()
        batch = self._minibatch()
        runs = self._contest.session.scored([Job(parent.program, e) for e in batch])
        if self._settings.skip_perfect_score and all(r.score >= self._settings.perfect_score for r in runs):
            return False
        parts = dict(parent.candidate.parts)
        shown = [r for r in runs if r.error is None or self._settings.add_format_failure_as_feedback] or runs
        changed: list[str] = []
        for name in self._components(parent):
            text = self._proposer.reflected(name, parts[name].instructions or "", shown, round_)
            if text is not None:
                parts[name], changed = Part(text), [*changed, name]
        if not changed:
            return False
        return self._try(Candidate(f"round {round_}: {', '.join(changed)}", parts), parent, batch, runs)

    def _try(self, candidate: Candidate, parent: Entry[Any], batch: Sequence[Example], runs: Sequence[Run]) -> bool:
        """Take a child into the pool if it beats its parent on the minibatch and is not behind the best."""
        entry = self._contest.add(candidate)
        if entry in self._pool or entry.fate:
            return False        # said before
        mine = self._contest.session.scored([Job(entry.program, e) for e in batch])
        if sum(r.score for r in mine) <= sum(r.score for r in runs):
            entry.fate = "dropped: no better than its parent on a minibatch"
            return False
        self._contest.extend([entry], len(self._contest.examples))
        self._pool.append(entry)
        self._parents[entry.number] = parent.number
        return True

    def _parent(self) -> Entry[Any]:
        """An entry of the Pareto front, the more often the more examples it is best on."""
        if self._settings.candidate_selection_strategy == "current_best":
            return self._best()
        front = pareto_front([entry.scores for entry in self._pool])
        return self._pool[self._source.choices(list(front), list(front.values()))[0]]

    def _minibatch(self) -> list[Example]:
        """The next training examples; each comes once before any comes again."""
        size = min(self._settings.reflection_minibatch_size, len(self._trainset))
        if len(self._queue) < size:
            self._queue = self._source.sample(self._trainset, len(self._trainset))
        batch, self._queue = self._queue[:size], self._queue[size:]
        return batch

    def _components(self, parent: Entry[Any]) -> list[str]:
        names = list(parent.candidate.parts)
        if self._settings.component_selector == "all":
            return names
        turn = self._turn.get(parent.number, 0)
        self._turn[parent.number] = turn + 1
        return [names[turn % len(names)]]

    # -- merging -------------------------------------------------------------------------------------------------

    def _may_merge(self) -> bool:
        most = self._settings.max_merge_invocations
        return self._settings.use_merge and len(self._pool) > 2 and (most is None or len(self._merged) < most)

    def _merge(self) -> bool:
        """Put two of the front together: each predictor as in the one that changed it since they parted; where both
        did, as in the better one."""
        front = [self._pool[i] for i in sorted(pareto_front([entry.scores for entry in self._pool]))]
        for i, one in enumerate(front):
            for two in front[i + 1:]:
                candidate = self._together(one, two)
                if candidate is None or self._contest.add(candidate).fate or candidate.name in self._merged:
                    continue
                self._merged.add(candidate.name)
                better = min((one, two), key=lambda e: (-e.mean, e.number))
                batch = self._minibatch()
                runs = self._contest.session.scored([Job(better.program, e) for e in batch])
                return self._try(candidate, better, batch, runs)
        return False

    def _together(self, one: Entry[Any], two: Entry[Any]) -> Candidate | None:
        """The two as one candidate; None if one comes from the other, or if they changed the same predictors."""
        ours, theirs = self._line(one), self._line(two)
        if one.number in theirs or two.number in ours:
            return None
        origin = self._contest.entries[max(set(ours) & set(theirs))].candidate.parts
        a, b = one.candidate.parts, two.candidate.parts
        mine, other = ({n for n in origin if parts[n] != origin[n]} for parts in (a, b))
        if not mine - other or not other - mine:
            return None
        both = a if one.mean >= two.mean else b
        parts = {n: both[n] if n in mine & other else b[n] if n in other else a[n] for n in origin}
        return Candidate(f"{one.number} and {two.number} together", parts)

    def _line(self, entry: Entry[Any]) -> list[int]:
        """The numbers of an entry and its ancestors."""
        line = [entry.number]
        while (parent := self._parents.get(line[-1])) is not None:
            line.append(parent)
        return line


def pareto_front(scores: Sequence[Sequence[float]]) -> dict[int, int]:
    """The candidates that nothing dominates among those that are best on some example, and on how many each is.

    >>> pareto_front([[1, 0, 0], [0, 1, 1], [0, 1, 0]])
    {0: 1, 1: 2}
    """
    tops = [max(column) for column in zip(*scores)]
    wins = {i: {n for n, value in enumerate(row) if value >= tops[n]} for i, row in enumerate(scores)}
    return {i: len(mine) for i, mine in wins.items() if mine and not any(
        mine < other or (mine == other and j < i) for j, other in wins.items() if j != i)}
