"""A study: asks a strategy, measures, records, stops at the budget, keeps the best.

What holds here: a point with a record is never measured again; a failing candidate costs one trial and nothing else;
Ctrl-C ends the search and keeps what was found. With the same seed and records, the same outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal as OneOf

from tracedsl.autotune.budget import Budget
from tracedsl.autotune.measure import Measurement, Measurer
from tracedsl.autotune.records import Records
from tracedsl.autotune.space import Point, Space, key
from tracedsl.autotune.strategies.base import Paced, Strategy

Goal = OneOf["min", "max"]


@dataclass(frozen=True)
class Trial:
    """One point and what it gave. `recorded` trials cost nothing: they were measured before."""

    number: int
    point: Point
    measurement: Measurement
    recorded: bool


@dataclass(frozen=True)
class Outcome:
    """How a search ended. `stopped`: "done" (nothing left to try), the name of a spent budget, or "interrupted"."""

    best: Trial | None
    trials: tuple[Trial, ...]
    stopped: str

    @property
    def measured(self) -> int:
        """Trials that were paid for in this run."""
        return sum(not trial.recorded for trial in self.trials)


@dataclass(frozen=True)
class Study:
    """What is searched, how, for what, and where it is written down.

    `task` identifies in the records what is measured, `where` on what and by whose code (see `Records`). `goal` says
    whether small values are good or large ones. A candidate replaces the best so far only if it is better by the
    relative `margin`, so that ties and noise keep the earlier one.
    """

    space: Space
    strategy: Strategy
    measure: Measurer
    task: str
    goal: Goal = "min"
    budget: Budget = field(default_factory=Budget)
    records: Records | None = None
    batch: int = 1
    margin: float = 0.0
    where: Mapping[str, str] = field(default_factory=dict)

    def run(self, on_trial: Callable[[Trial, Trial], None] | None = None) -> Outcome:
        """Search until the strategy has nothing left, the budget is spent or Ctrl-C. `on_trial(trial, best)` is
        called after each trial that succeeded or failed once there is a best one."""
        known = self.records.load(self.task, self.where) if self.records is not None else {}
        meter, trials = self.budget.start(), list[Trial]()
        best: Trial | None = None
        stopped = ""
        try:
            while not stopped:
                if isinstance(self.strategy, Paced):
                    self.strategy.pace(meter.share())
                points = self.strategy.ask(self.batch)
                stopped = "" if points else "done"
                for point in points:
                    if stopped := meter.exhausted():
                        break
                    trial = self._trial(len(trials), point, known)
                    trials.append(trial)
                    meter.add({} if trial.recorded else trial.measurement.cost)
                    best = self._better(best, trial)
                    if on_trial is not None and best is not None:
                        on_trial(trial, best)
        except KeyboardInterrupt:
            stopped = "interrupted"
        return Outcome(best, tuple(trials), stopped)

    def _trial(self, number: int, point: Point, known: dict[str, Measurement]) -> Trial:
        recorded = known.get(key(point))
        measurement = recorded if recorded is not None else self.measure(point)
        if recorded is None:
            known[key(point)] = measurement
            if self.records is not None:
                self.records.append(self.task, point, measurement, self.where)
        self.strategy.tell(point, self._loss(measurement), measurement)
        return Trial(number, point, measurement, recorded is not None)

    def _loss(self, measurement: Measurement) -> float | None:
        if not measurement.ok or measurement.value is None:
            return None
        return measurement.value if self.goal == "min" else -measurement.value

    def _better(self, best: Trial | None, trial: Trial) -> Trial | None:
        new = self._loss(trial.measurement)
        if new is None:
            return best
        old = self._loss(best.measurement) if best is not None else None
        return trial if old is None or new < old - abs(old) * self.margin else best
