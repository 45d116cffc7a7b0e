"""Contests: candidates on the same examples, of which those that are behind are dropped early.

What holds here: all candidates meet the examples in one order, so each two are compared on the same ones (paired). A
candidate is behind if the paired differences say so at the level `ALPHA` (an exact sign-flip test), or if successive
halving leaves no place for it. Ties go to the earlier candidate. An example that is among a candidate's own
demonstrations is taken out of them while it is asked for.

Sources: Maron and Moore, Hoeffding Races (1993); Birattari et al., A Racing Algorithm for Configuring Metaheuristics
(2002); Jamieson and Talwalkar, Non-stochastic Best Arm Identification (2016), for successive halving; Fisher, The
Design of Experiments (1935), section 21, for the sign-flip test.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

from tracedsl.programs.evaluate import bootstrap_interval
from tracedsl.programs.example import Example
from tracedsl.programs.modules.module import Module
from tracedsl.programs.teleprompters.base import P
from tracedsl.programs.teleprompters.candidates import Candidate
from tracedsl.programs.teleprompters.runs import Job, Run, state_of
from tracedsl.programs.teleprompters.session import SearchEnded, Session

ALPHA = 0.05
SMALLEST_RUNG = 4
_FLIPS = 2000


@dataclass(eq=False)
class Entry(Generic[P]):
    """A candidate in a contest: its program, and its runs on the first examples of the contest's order."""

    number: int
    candidate: Candidate
    program: P
    runs: list[Run] = field(default_factory=list)
    fate: str = ""

    @property
    def scores(self) -> list[float]:
        return [run.score for run in self.runs]

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.runs) if self.runs else -math.inf

    def row(self) -> dict[str, Any]:
        """What a report tells: score and interval in percent."""
        scores = [100 * s for s in self.scores]
        low, high = bootstrap_interval(scores) if scores else (0.0, 0.0)
        return {"candidate": self.candidate.name, "score": round(100 * self.mean, 6) if scores else None,
                "interval": [round(low, 6), round(high, 6)], "examples": len(scores), "fate": self.fate}


class Contest(Generic[P]):
    """Candidates for one student.

    Args:
        session: makes the runs.
        student: what the candidates change.
        examples: what is asked.
        seed: decides the order in which.
        settings: a model or an adapter for the runs.
    """

    def __init__(self, session: Session, student: P, examples: Sequence[Example], *, seed: int = 0,
                 settings: Mapping[str, Any] | None = None) -> None:
        self.session, self.student = session, student
        self.examples = random.Random(seed).sample(list(examples), len(examples))
        self.entries: list[Entry[P]] = []
        self._settings = settings or {}
        self._by_state: dict[str, Entry[P]] = {}

    def add(self, candidate: Candidate) -> Entry[P]:
        """The entry of a candidate; one that says the same as an earlier one is that one."""
        program = candidate.program(self.student)
        state = state_of(program)
        if state not in self._by_state:
            self._by_state[state] = Entry(len(self.entries), candidate, program)
            self.entries.append(self._by_state[state])
        return self._by_state[state]

    def extend(self, entries: Sequence[Entry[P]], upto: int) -> None:
        """Let entries see the examples up to that number, all in one batch: all of it, or the search ends."""
        upto = min(upto, len(self.examples))
        wanted = [(entry, self.examples[i]) for entry in entries for i in range(len(entry.runs), upto)]
        jobs = [Job(leave_out(entry.program, example), example, settings=self._settings) for entry, example in wanted]
        for (entry, _), run in zip(wanted, self.session.scored(jobs)):
            entry.runs.append(run)

    def race(self, entries: Sequence[Entry[P]], *, enough: float | None = None) -> Entry[P]:
        """The best entry, by successive halving with early drops; `enough` is a mean that ends it. If the budget ends
        within, `SearchEnded` is raised; `best` then tells the leader."""
        alive, total = list(dict.fromkeys(entries)), len(self.examples)
        sizes = rungs(total)
        fit = self.session.room // min(sizes[0], total)
        if fit < len(alive):        # better a few candidates on some examples than all of them on none
            alive = alive[:max(2, int(fit))]
        self.session.planned = int(self.session.spent["trials"]) + planned(len(alive), total)
        for step, size in enumerate(sizes):
            size = self._affordable(alive, size)
            self.session.tell(f"{len(alive)} candidates on {size} of {total} examples{self._leader_text()}")
            self.extend(alive, size)
            leader = self._rank(alive)[0]
            alive = [e for e in alive if e is leader or not self._behind(e, leader)]
            if step + 1 < len(sizes):
                alive = self._halve(alive)
            if enough is not None and leader.mean >= enough and len(leader.runs) == total:
                break
        best = self._rank(alive)[0]
        for entry in alive:
            entry.fate = "lower score"
        best.fate = "best"
        return best

    def challenge(self, entry: Entry[P], incumbent: Entry[P] | None, upto: int, first: int = SMALLEST_RUNG) -> bool:
        """Let a candidate see examples, twice as many each time, up to `upto`, until it is behind the incumbent. True
        if it got there with a higher mean on the same examples."""
        upto, seen = min(upto, len(self.examples)), first
        while incumbent is not None and len(entry.runs) < upto:
            self.extend([entry, incumbent], min(seen, upto))
            if self._behind(entry, incumbent) or self._hopeless(entry, incumbent, upto):
                return False
            seen *= 2
        self.extend([entry], upto)
        return incumbent is None or paired(entry, incumbent)[0] > paired(entry, incumbent)[1]

    def best(self) -> Entry[P] | None:
        """The leader so far: the highest mean among the entries with the most examples that were not dropped."""
        open_ = [e for e in self.entries if e.runs and not e.fate.startswith("dropped")]
        if not open_:
            return None
        most = max(len(e.runs) for e in open_)
        return self._rank([e for e in open_ if len(e.runs) == most])[0]

    def rows(self) -> tuple[dict[str, Any], ...]:
        return tuple(entry.row() for entry in self.entries)

    # -- who stays -----------------------------------------------------------------------------------------------

    def _rank(self, entries: Sequence[Entry[P]]) -> list[Entry[P]]:
        return sorted(entries, key=lambda e: (-round(e.mean, 12), e.number))

    def _behind(self, entry: Entry[P], leader: Entry[P]) -> bool:
        """Whether an entry is significantly behind; it is marked as dropped then."""
        n = min(len(entry.runs), len(leader.runs))
        chance = sign_flip([a - b for a, b in zip(leader.scores[:n], entry.scores[:n])])
        if chance < ALPHA:
            entry.fate = f"dropped: behind {leader.candidate.name!r} (p = {chance:.3f})"
        return chance < ALPHA

    def _hopeless(self, entry: Entry[P], incumbent: Entry[P], upto: int) -> bool:
        """Whether an entry could not come out ahead even with full marks from here on."""
        if max(entry.scores + incumbent.scores) > 1 or len(incumbent.runs) < upto:
            return False
        best = sum(entry.scores) + (upto - len(entry.runs))
        if best > sum(incumbent.scores[:upto]):
            return False
        entry.fate = f"dropped: cannot reach {incumbent.candidate.name!r}"
        return True

    def _halve(self, alive: list[Entry[P]]) -> list[Entry[P]]:
        kept = self._rank(alive)[:max(2, math.ceil(len(alive) / 2))]
        for entry in alive:
            if entry not in kept:
                entry.fate = "dropped: in the lower half"
        return [e for e in alive if e in kept]

    def _affordable(self, alive: Sequence[Entry[P]], size: int) -> int:
        """The size of a rung that the budget allows; ends the search if it allows none."""
        while size and sum(max(0, size - len(e.runs)) for e in alive) > self.session.room:
            size -= 1
        if not size or all(len(e.runs) >= size for e in alive):
            raise SearchEnded(self.session.short_of())
        return size

    def _leader_text(self) -> str:
        leader = self.best()
        if leader is None:
            return ""
        row = leader.row()
        return f", best {row['score']:.1f} % ({row['interval'][0]:.1f} to {row['interval'][1]:.1f})"


def rungs(total: int) -> list[int]:
    """How many examples a race shows, step by step: an eighth, a quarter, a half, all of them."""
    return sorted({min(total, max(SMALLEST_RUNG, math.ceil(total / part))) for part in (8, 4, 2, 1)})


def planned(candidates: int, total: int) -> int:
    """The runs of a race without early drops."""
    runs, seen = 0, 0
    for size in rungs(total):
        runs += candidates * (size - seen)
        seen, candidates = size, min(candidates, max(2, math.ceil(candidates / 2)))
    return runs


def paired(entry: Entry[Any], other: Entry[Any]) -> tuple[float, float]:
    """The sums of two entries over the examples that both have seen."""
    n = min(len(entry.runs), len(other.runs))
    return round(sum(entry.scores[:n]), 9), round(sum(other.scores[:n]), 9)


def sign_flip(differences: Sequence[float], seed: int = 0) -> float:
    """The chance that differences at least as much above zero in sum come about if each could as well have had the
    other sign. Exact where all have the same size (as with right or wrong: McNemar's test), else from random flips.

    >>> sign_flip([1, 1, 1, 1, 1]), sign_flip([1, 0, -1]), sign_flip([])
    (0.03125, 0.75, 1.0)
    """
    sizes = [d for d in differences if d]
    if not sizes:
        return 1.0
    n = len(sizes)
    if len({abs(d) for d in sizes}) == 1:
        ahead = sum(d > 0 for d in sizes)
        return float(sum(math.comb(n, k) for k in range(ahead, n + 1)) / 2**n)
    source, seen = random.Random(seed), sum(sizes) - 1e-12
    hits = sum(sum(d if source.random() < 0.5 else -d for d in sizes) >= seen for _ in range(_FLIPS))
    return (hits + 1) / (_FLIPS + 1)


def leave_out(program: Module, example: Example) -> Any:
    """The program, or a copy in which no demonstration shows this example."""
    asked = dict(example.inputs().items())

    def shows(demo: Example) -> bool:
        return all(name in demo and demo[name] == value for name, value in asked.items())

    if not any(shows(demo) for predictor in program.predictors() for demo in predictor.demos):
        return program
    copy = program.deepcopy()
    for predictor in copy.predictors():
        predictor.demos = [demo for demo in predictor.demos if not shows(demo)]
    return copy
