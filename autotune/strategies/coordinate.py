"""Coordinate descent."""

from __future__ import annotations

from random import Random

from tracedsl.autotune.measure import Measurement
from tracedsl.autotune.space import Point, Space
from tracedsl.autotune.strategies.base import TRIES, Asked


class CoordinateDescent:
    """From the default (or a random point): try the neighbours along one parameter after the other, move to the best
    of them if it is better; start anew from a random point when no parameter helps."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space, self._rng = space, Random(seed)
        self._asked = Asked()
        self._best: tuple[float, Point] | None = None
        self._queue: list[Point] = [space.default if space.default is not None else space.sample(self._rng)]
        self._names: list[str] = []

    def ask(self, count: int) -> list[Point]:
        found: list[Point] = []
        for _ in range(TRIES * count):
            if not self._queue:
                self._refill()
            while self._queue and len(found) < count:
                point = self._queue.pop(0)
                if self._asked.add(point):
                    found.append(point)
            if found:
                break
        return found

    def tell(self, point: Point, loss: float | None, measurement: Measurement) -> None:
        if loss is not None and (self._best is None or loss < self._best[0]):
            self._best = (loss, point)
            self._names = self._shuffled()

    def _refill(self) -> None:
        if self._best is not None and self._names:
            self._queue = list(self._space.neighbours(self._best[1], self._names.pop(0)))
        else:
            self._queue = [self._space.sample(self._rng)]

    def _shuffled(self) -> list[str]:
        names = [p.name for p in self._space.parameters]
        return self._rng.sample(names, len(names))
