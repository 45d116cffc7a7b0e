"""Searches replayed on tables: what a strategy would have found with so many trials, without measuring anything.

What holds here: a replay is the search that a user gets - strategy, features, budget of `TRIALS` - with the table in
the place of the measurer. Every strategy starts with the default schedule. Values are shares of the table's optimum:
its time over the best time so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.autotune.tables import Table
from tracedsl import autotune
from tracedsl.autotune import Budget, Measurement, Point, Strategy, Study
from tracedsl.autotune.space import key
from tracedsl.hw.target import target
from tracedsl.kernel_effort import STRATEGIES, modelled
from tracedsl.kernel_tuning import remembered
from tracedsl.schedule import ScheduleSpace

TRIALS = 256
MARKS = (32, 64, 128, 256)
NEAR = 0.95

Array = np.ndarray[Any, Any]
Features = Callable[[Sequence[Point]], Array]


@dataclass(frozen=True)
class Replay:
    """One search: share of the optimum after each trial, and the strategy's own seconds."""

    shares: Array
    seconds: float

    @property
    def trials_to_near(self) -> int:
        """Trials until `NEAR` of the optimum; one more than there were if it was not reached."""
        reached = np.flatnonzero(self.shares >= NEAR)
        return int(reached[0]) + 1 if len(reached) else len(self.shares) + 1


def features_of(table: Table) -> Features:
    """The features that the tuner takes, computed once for all replays."""
    return remembered(ScheduleSpace.of(table.task, target("cpu").description))


def replay(table: Table, name: str, seed: int, features: Features, trials: int = TRIALS, **more: Any) -> Replay:
    """One search with a strategy; `more` goes to its constructor."""
    given = {"features": features, **more} if modelled(name) else more
    strategy: Strategy = getattr(autotune, STRATEGIES[name])(table.space, seed, **given)

    def measure(point: Point) -> Measurement:
        seconds = table.seconds[key(point)]
        return Measurement(seconds, "" if seconds is not None else "failed")

    start = time.process_time()
    outcome = Study(table.space, strategy, measure, table.name, budget=Budget(trials=trials)).run()
    took = time.process_time() - start
    values = np.array([t.measurement.value or np.inf for t in outcome.trials])
    shares = table.best / np.minimum.accumulate(values)
    return Replay(np.pad(shares, (0, max(0, trials - len(shares))), mode="edge"), took)
