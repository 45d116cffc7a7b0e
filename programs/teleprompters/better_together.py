"""BetterTogether: several teleprompters, one after the other, and the best of what they made.

Source: Soylu, Potts and Khattab, Fine-Tuning and Prompt Optimization: Two Great Steps that Work Better Together (2024).
What holds here: each step works on what the last one made; every stage is scored on the same examples, the student
among them, and the best is kept, ties going to the earlier one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracedsl.programs.example import Example
from tracedsl.programs.metrics import Metric
from tracedsl.programs.teleprompters.base import CompileError, CompileReport, P, check_trainset, finish, plain
from tracedsl.programs.teleprompters.race import leave_out
from tracedsl.programs.teleprompters.runs import Job
from tracedsl.programs.teleprompters.session import Session

if TYPE_CHECKING:
    from tracedsl.programs.modules.module import Module


@dataclass(frozen=True)
class _Stage:
    name: str
    program: Any
    score: float
    report: CompileReport | None


class BetterTogether:
    """`BetterTogether(metric=exact_match, p=MIPROv2(), w=BootstrapFinetune()).compile(program, trainset=train)`

    Args:
        metric: scores the stages, and is given to the teleprompters that have none.
        optimizers: teleprompters by the names that `strategy` uses. Default: `p` is BootstrapFewShotWithRandomSearch,
            `w` is BootstrapFinetune.
    """

    def __init__(self, metric: Metric, **optimizers: Any) -> None:
        from tracedsl.programs.teleprompters.finetune import BootstrapFinetune
        from tracedsl.programs.teleprompters.random_search import BootstrapFewShotWithRandomSearch

        self.metric = metric
        self.optimizers: dict[str, Any] = optimizers or {
            "p": BootstrapFewShotWithRandomSearch(metric), "w": BootstrapFinetune(metric)}
        self.progress: Any = None

    def settings(self) -> dict[str, Any]:
        return {"teleprompter": type(self).__name__, "metric": plain(self.metric), "optimizers": plain(self.optimizers)}

    def compile(self, student: P, *, trainset: Sequence[Example], teacher: Module | None = None,
                valset: Sequence[Example] | None = None, num_threads: int | None = None, seed: int | None = None,
                valset_ratio: float = 0.1, shuffle_trainset_between_steps: bool = True, strategy: str = "p -> w -> p",
                optimizer_compile_args: Mapping[str, Mapping[str, Any]] | None = None) -> P:
        """The best of the student and of what came after each step of the `strategy` (`"p -> w -> p"`). Without a
        valset, `valset_ratio` of the trainset is held back for the scores."""
        check_trainset(student, trainset)
        steps = self._steps(strategy)
        source, train = random.Random(seed or 0), list(trainset)
        if valset is None:
            source.shuffle(train)
            held = max(1, round(valset_ratio * len(train))) if len(train) > 1 else 0
            valset, train = (train[:held], train[held:]) if held else (train, train)
        session = Session(student, self.metric, threads=num_threads)
        stages = [self._stage("the student", student.deepcopy(), valset, session, None)]
        for i, name in enumerate(steps):
            if shuffle_trainset_between_steps and i:
                source.shuffle(train)
            made = self._compile(name, stages[-1].program, train, valset, teacher,
                                 (optimizer_compile_args or {}).get(name, {}))
            stages.append(self._stage(f"{i + 1}. {name}", made, valset, session, made.compile_report))
            if made.compile_report.interrupted:
                break
        best: P = self._finish(stages, session)
        return best

    def _steps(self, strategy: str) -> list[str]:
        steps = [step.strip() for step in strategy.split("->")]
        if unknown := [step for step in steps if step not in self.optimizers]:
            raise CompileError("P007", f"the strategy {strategy!r} names {unknown[0]!r}, which is no teleprompter here",
                               hint=f"known: {', '.join(self.optimizers)}")
        return steps

    def _compile(self, name: str, program: Any, train: list[Example], valset: Sequence[Example], teacher: Module | None,
                 arguments: Mapping[str, Any]) -> Any:
        optimizer = self.optimizers[name]
        if hasattr(optimizer, "with_metric"):
            optimizer = optimizer.with_metric(self.metric)
        return optimizer.compile(program, **{"trainset": list(train), "valset": list(valset), "teacher": teacher,
                                             **arguments})

    def _stage(self, name: str, program: Any, valset: Sequence[Example], session: Session,
               report: CompileReport | None) -> _Stage:
        runs = session.scored([Job(leave_out(program, e), e) for e in valset])
        score = 100 * sum(r.score for r in runs) / len(runs)
        if self.progress is not None:
            self.progress(0, 0, f"{name}: {score:.1f} %")
        return _Stage(name, program, round(score, 6), report)

    def _finish(self, stages: list[_Stage], session: Session) -> Any:
        best = max(stages, key=lambda s: s.score)       # the first of equals
        rows = tuple({"candidate": s.name, "score": s.score, "fate": "best" if s is best else "lower score"}
                     for s in stages)
        reports = tuple(s.report for s in stages if s.report is not None)
        counts = {name: len(p.demos) for name, p in best.program.named_predictors()}
        cost = {name: session.cost()[name] + sum(r.cost.get(name, 0.0) for r in reports) for name in session.cost()}
        return finish(best.program.deepcopy(), CompileReport(
            type(self).__name__, self.settings(), counts, search=rows, score=best.score, cost=cost, steps=reports,
            paid=session.paid_trials + sum(r.paid for r in reports),
            interrupted=any(r.interrupted for r in reports)))
