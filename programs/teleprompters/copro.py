"""COPRO: instructions, improved one predictor after the other, each time from the attempts with their scores.

Source: the optimizer of that name in DSPy, after Yang et al., Large Language Models as Optimizers (2023). What holds
here: demonstrations stay as they are. The best instructions so far are always among those that are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracedsl.autotune import Budget
from tracedsl.programs.example import Example
from tracedsl.programs.metrics import Metric
from tracedsl.programs.teleprompters.base import P, Progress, check_trainset
from tracedsl.programs.teleprompters.candidates import Candidate, Part
from tracedsl.programs.teleprompters.proposing import Proposer
from tracedsl.programs.teleprompters.race import Contest, Entry
from tracedsl.programs.teleprompters.searching import Searching, instructions_of

if TYPE_CHECKING:
    from tracedsl.programs.modules.module import Module


@dataclass(frozen=True)
class COPRO(Searching):
    """`COPRO(metric=exact_match, breadth=5, depth=2).compile(program, trainset=train)`

    Args:
        prompt_model: writes instructions; None: the model in force.
        metric: scores a run.
        breadth: candidates for each predictor and round, the present instructions among them.
        depth: rounds.
        init_temperature: of the model that writes.
        track_stats: taken for DSPy's sake: the report always tells all scores.
        seed: decides the order of the examples and the samples.
        budget: hard limits; `trials` are metric calls.
        num_threads: runs at the same time.
        progress: told after each run.
    """

    prompt_model: Any = None
    metric: Metric | None = None
    breadth: int = 10
    depth: int = 3
    init_temperature: float = 1.4
    track_stats: bool = field(default=False, compare=False)
    seed: int = 0
    budget: Budget | None = None
    num_threads: int | None = field(default=None, compare=False)
    progress: Progress | None = field(default=None, compare=False)

    def compile(self, student: P, *, trainset: Sequence[Example], teacher: Module | None = None,
                valset: Sequence[Example] | None = None, eval_kwargs: Mapping[str, Any] | None = None) -> P:
        """A compiled copy of `student`, scored on the valset if there is one, else on the trainset. `teacher` and
        `eval_kwargs` are not used."""
        check_trainset(student, trainset)
        session = self.open_session(student)
        contest = Contest(session, student, list(trainset if valset is None else valset), seed=self.seed)
        proposer = Proposer(session, student, lm=self.prompt_model)
        start = instructions_of(student)

        def search() -> Entry[P]:
            best = contest.add(Candidate("the student", {name: Part(text) for name, text in start.items()}))
            for round_ in range(self.depth):
                for name in start:
                    best = self._improve(contest, proposer, best, name, round_)
            return best

        return self.conclude(contest, search)

    def _improve(self, contest: Contest[P], proposer: Proposer, best: Entry[P], name: str, round_: int) -> Entry[P]:
        """The best of new instructions for one predictor and the ones it has."""
        current = best.candidate.parts[name].instructions or ""
        attempts = {e.candidate.parts[name].instructions or "": 100 * e.mean for e in contest.entries if e.runs}
        contest.session.tell(f"round {round_ + 1}: instructions for {name}")
        first = 1 + self.seed * 10_000 + round_ * self.breadth
        new = proposer.instructions(name, self.breadth - 1, current=current, attempts=list(attempts.items())[-10:],
                                    first=first, temperature=self.init_temperature)
        entries = [contest.add(best.candidate.with_part(f"{name}, round {round_ + 1}, proposal {i + 1}", name,
                                                        Part(text))) for i, text in enumerate(new)]
        return contest.race([best, *entries])
