"""Budgets: hard limits of a search in trials, seconds, calls, tokens or money.

What holds here: a meter only counts up, and a search asks it before each trial. A trial whose measurement was on record
counts as a trial but costs nothing, so that a search that is resumed ends where it would have ended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Limits; infinite where not given. `seconds` is wall time from the start of the search."""

    trials: float = math.inf
    seconds: float = math.inf
    calls: float = math.inf
    tokens: float = math.inf
    money: float = math.inf

    def start(self) -> Meter:
        return Meter(self)


class Meter:
    """What a running search has spent."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.spent = {"trials": 0.0, "calls": 0.0, "tokens": 0.0, "money": 0.0}
        self._start = time.monotonic()

    def add(self, cost: Mapping[str, float]) -> None:
        self.spent["trials"] += 1
        for name in ("calls", "tokens", "money"):
            self.spent[name] += cost.get(name, 0.0)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def share(self) -> float:
        """How much of the tightest limit is spent, 0 to 1."""
        spent = {**self.spent, "seconds": self.seconds}
        shares = [value / limit if (limit := getattr(self.budget, name)) else 1.0 for name, value in spent.items()]
        return min(1.0, max(shares))

    def exhausted(self) -> str:
        """The name of a limit that is reached, or "" while there is room."""
        if self.seconds >= self.budget.seconds:
            return "seconds"
        return next((name for name, value in self.spent.items() if value >= getattr(self.budget, name)), "")
