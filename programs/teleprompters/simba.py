"""SIMBA: learn from the examples on which the same program sometimes does well and sometimes does not.

Source: the optimizer of that name in DSPy (stochastic introspective mini-batch ascent). What holds here: in each step
the programs so far are sampled on a few examples; where the scores of one example are far apart, the best run becomes a
demonstration, or a model says what made the difference and that becomes a rule. New programs are challengers of the
best one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tracedsl.autotune import Budget
from tracedsl.programs.example import Example
from tracedsl.programs.metrics import Metric
from tracedsl.programs.teleprompters.base import P, Progress, check_trainset
from tracedsl.programs.teleprompters.bootstrap import demonstrations_of
from tracedsl.programs.teleprompters.candidates import Candidate, Part
from tracedsl.programs.teleprompters.proposing import Proposer
from tracedsl.programs.teleprompters.race import Contest, Entry, leave_out
from tracedsl.programs.teleprompters.runs import Job, Run
from tracedsl.programs.teleprompters.searching import Searching

if TYPE_CHECKING:
    from tracedsl.programs.modules.module import Module

FINALISTS = 4


@dataclass(frozen=True, kw_only=True)
class SIMBA(Searching):
    """`SIMBA(metric=exact_match, max_steps=4).compile(program, trainset=train)`

    Args:
        metric: scores a run.
        bsize: examples of a step.
        num_candidates: samples of each example, and new programs of each step.
        max_steps: how many steps.
        max_demos: demonstrations of a predictor; older ones make room. 0: rules alone.
        prompt_model: says what made the difference; None: the model in force.
        teacher_settings: model and adapter of one more sample of each example.
        demo_input_field_maxlen: longer inputs of demonstrations are cut there.
        num_threads: runs at the same time.
        temperature_for_sampling: how far the draw of programs looks beside the best; `temperature_for_candidates`: the
            same for the programs that are changed.
        budget: hard limits; `trials` are metric calls.
        progress: told after each run.
    """

    metric: Metric | None = None
    bsize: int = 32
    num_candidates: int = 6
    max_steps: int = 8
    max_demos: int = 4
    prompt_model: Any = None
    teacher_settings: Mapping[str, Any] | None = None
    demo_input_field_maxlen: int = 100_000
    num_threads: int | None = field(default=None, compare=False)
    temperature_for_sampling: float = 0.2
    temperature_for_candidates: float = 0.2
    budget: Budget | None = None
    progress: Progress | None = field(default=None, compare=False)

    def compile(self, student: P, *, trainset: Sequence[Example], teacher: Module | None = None,
                valset: Sequence[Example] | None = None, seed: int = 0) -> P:
        """A compiled copy of `student`. New programs are scored on the valset if there is one, else on the trainset.
        `teacher` is not used."""
        check_trainset(student, trainset)
        session = self.open_session(student)
        contest = Contest(session, student, list(trainset if valset is None else valset), seed=seed)
        walk = _Walk(self, contest, Proposer(session, student, lm=self.prompt_model), list(trainset), seed)
        return self.conclude(contest, walk.search)


@dataclass(frozen=True)
class _Bucket:
    """The samples of one example, the best first."""

    runs: tuple[Run, ...]

    @property
    def key(self) -> tuple[float, float]:
        best, worst = self.runs[0].score, self.runs[-1].score
        return (-(best - worst), -best)


class _Walk:
    """The steps of one compilation."""

    def __init__(self, settings: SIMBA, contest: Contest[Any], proposer: Proposer, trainset: list[Example],
                 seed: int) -> None:
        self._settings, self._contest, self._proposer = settings, contest, proposer
        self._source = random.Random(seed)
        self._trainset = self._source.sample(trainset, len(trainset))
        self._pool: list[Entry[Any]] = []

    def search(self) -> Entry[Any]:
        s, contest = self._settings, self._contest
        best = contest.add(Candidate("the student"))
        size = min(s.bsize, len(contest.examples))
        contest.extend([best], size)
        self._pool = [best]
        for step in range(s.max_steps):
            contest.session.tell(f"step {step + 1} of {s.max_steps}, best {100 * best.mean:.1f} % of {len(best.runs)}")
            for i, bucket in enumerate(self._buckets(step)[:s.num_candidates]):
                entry = self._changed(bucket, step, i)
                if entry is None or entry in self._pool:
                    continue
                if contest.challenge(entry, best, size):
                    best = entry
                if not entry.fate:
                    self._pool.append(entry)
        ranked = sorted(self._pool, key=lambda e: (-round(e.mean, 9), e.number))[:FINALISTS]
        return contest.race(list(dict.fromkeys([best, *ranked])))

    def _buckets(self, step: int) -> list[_Bucket]:
        """The samples of this step's examples, the most telling first; examples whose samples agree are left out."""
        s, n = self._settings, len(self._trainset)
        batch = [self._trainset[(step * s.bsize + i) % n] for i in range(min(s.bsize, n))]
        jobs = []
        for example in batch:
            for sample in range(s.num_candidates):
                program = leave_out(self._draw(s.temperature_for_sampling).program, example)
                jobs.append(Job(program, example, rollout=1 + step * s.num_candidates + sample))
            if s.teacher_settings:
                jobs.append(Job(leave_out(self._pool[0].program, example), example, settings=s.teacher_settings))
        runs, each = self._contest.session.scored(jobs), len(jobs) // len(batch)
        made = [_Bucket(tuple(sorted(runs[i:i + each], key=lambda r: -r.score))) for i in range(0, len(runs), each)]
        return sorted((b for b in made if b.key[0] < 0), key=lambda b: b.key)

    def _draw(self, temperature: float) -> Entry[Any]:
        """One of the programs so far, better ones more often (softmax of the mean scores)."""
        top = max(e.mean for e in self._pool)
        weights = [math.exp((e.mean - top) / max(temperature, 1e-6)) for e in self._pool]
        return self._source.choices(self._pool, weights)[0]

    def _changed(self, bucket: _Bucket, step: int, number: int) -> Entry[Any] | None:
        """A program so far with one more demonstration or rule; None if nothing is to be learned."""
        base = self._draw(self._settings.temperature_for_candidates)
        by_demo = self._settings.max_demos > 0 and self._source.random() < 0.5
        parts = self._with_demos(base, bucket.runs[0]) if by_demo else self._with_rules(base, bucket, step, number)
        if not parts:
            return None
        name = f"step {step + 1}, {'demonstration' if by_demo else 'rule'} {number + 1}"
        return self._contest.add(Candidate(name, {**base.candidate.parts, **parts}))

    def _with_demos(self, base: Entry[Any], run: Run) -> dict[str, Part]:
        parts, demos = {}, demonstrations_of(run)
        for name, predictor in base.program.named_predictors():
            if name not in demos:
                continue
            kept = list(predictor.demos)
            while len(kept) >= self._settings.max_demos:
                kept.pop(self._source.randrange(len(kept)))
            old = base.candidate.parts.get(name, Part())
            parts[name] = replace(old, demos=(*kept, self._cut(demos[name], predictor.signature.input_fields)))
        return parts

    def _cut(self, demo: Example, inputs: Mapping[str, Any]) -> Example:
        most = self._settings.demo_input_field_maxlen
        return demo.copy(**{k: v[:most] for k, v in demo.items() if k in inputs and isinstance(v, str)})

    def _with_rules(self, base: Entry[Any], bucket: _Bucket, step: int, number: int) -> dict[str, Part]:
        parts = {}
        for name, predictor in base.program.named_predictors():
            rule = self._proposer.advice(name, bucket.runs[0], bucket.runs[-1], 1 + step * 1000 + number)
            if rule and rule not in predictor.signature.instructions:
                old = base.candidate.parts.get(name, Part())
                parts[name] = replace(old, instructions=f"{predictor.signature.instructions}\n\n{rule}")
        return parts
