"""Strategies: which points to measure next. They ask and are told; they never measure.

What holds here: a strategy is a function of its space, its seed and what it was told, in that order: the same seed and
the same answers give the same questions. An empty list from `ask` means that it has nothing left to propose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random
from typing import Protocol

from tracedsl.autotune.measure import Measurement
from tracedsl.autotune.space import Point, Space, key


class Strategy(Protocol):
    """Proposes points. `tell` reports each asked point's value as a loss (smaller is better), None for a failure."""

    def ask(self, count: int) -> list[Point]: ...

    def tell(self, point: Point, loss: float | None, measurement: Measurement) -> None: ...


class Exhaustive:
    """Every valid point once, the default first."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        first = [space.default] if space.default is not None else []
        known = {key(point) for point in first}
        self._rest: Iterator[Point] = iter([*first, *(p for p in space.points() if key(p) not in known)])

    def ask(self, count: int) -> list[Point]:
        return list(islice(self._rest, count))

    def tell(self, point: Point, loss: float | None, measurement: Measurement) -> None:
        pass


class RandomSearch:
    """Uniform over the valid points, none twice, the default first."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space, self._rng = space, Random(seed)
        self._asked: set[str] = set()
        self._first = [space.default] if space.default is not None else []

    def ask(self, count: int) -> list[Point]:
        found: list[Point] = []
        for _ in range(100 * count):
            point = self._first.pop() if self._first else self._space.sample(self._rng)
            if key(point) not in self._asked:
                self._asked.add(key(point))
                found.append(point)
            if len(found) == count:
                break
        return found

    def tell(self, point: Point, loss: float | None, measurement: Measurement) -> None:
        pass


class CoordinateDescent:
    """From the default (or a random point): try the neighbours along one parameter after the other, move to the best
    of them if it is better; start anew from a random point when no parameter helps."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space, self._rng = space, Random(seed)
        self._asked: set[str] = set()
        self._best: tuple[float, Point] | None = None
        self._queue: list[Point] = [space.default if space.default is not None else space.sample(self._rng)]
        self._names: list[str] = []

    def ask(self, count: int) -> list[Point]:
        found: list[Point] = []
        for _ in range(100 * count):
            if not self._queue:
                self._refill()
            while self._queue and len(found) < count:
                point = self._queue.pop(0)
                if key(point) not in self._asked:
                    self._asked.add(key(point))
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
        names: Sequence[str] = [p.name for p in self._space.parameters]
        return self._rng.sample(names, len(names))
