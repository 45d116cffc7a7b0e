"""What a strategy is: it proposes which points to measure next. It asks and is told; it never measures.

What holds here: a strategy is a function of its space, its seed and what it was told, in that order: the same seed and
the same answers give the same questions. It asks for no point twice. An empty list from `ask` means that it has
nothing left to propose. A failure is told as None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Protocol, runtime_checkable

from tracedsl.autotune.measure import Measurement
from tracedsl.autotune.space import Point, Space, key

TRIES = 100     # draws for one new point before a space counts as exhausted


class Strategy(Protocol):
    """Proposes points. `tell` reports each asked point's value as a loss (smaller is better), None for a failure."""

    def ask(self, count: int) -> list[Point]: ...

    def tell(self, point: Point, loss: float | None, measurement: Measurement) -> None: ...


@runtime_checkable
class Paced(Protocol):
    """A strategy that plans its budget: before each `ask` it is told which share of it is spent (0 to 1)."""

    def pace(self, spent: float) -> None: ...


class Asked:
    """The points that were asked for."""

    def __init__(self) -> None:
        self._keys: set[str] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, point: Point) -> bool:
        return key(point) in self._keys

    def add(self, point: Point) -> bool:
        """Note a point; False if it was asked for before."""
        known = key(point)
        if known in self._keys:
            return False
        self._keys.add(known)
        return True

    def new(self, draw: Callable[[], Point], count: int) -> Iterator[Point]:
        """Up to `count` points that `draw` gives and that are new; fewer where it finds none."""
        found = 0
        for _ in range(TRIES * count):
            if found == count:
                return
            point = draw()
            if self.add(point):
                found += 1
                yield point


def mutated(space: Space, point: Point, rng: Random, share: float) -> Point:
    """The point with each parameter drawn anew with probability `share`; itself if nothing valid comes of it."""
    for _ in range(TRIES):
        drawn = {p.name: rng.choice(p.choices) if rng.random() < share else point[p.name] for p in space.parameters}
        if space.allows(moved := space.normal(drawn)):
            return moved
    return point


def neighbour(space: Space, point: Point, rng: Random) -> Point:
    """A random valid point that differs in one parameter; itself if there is none."""
    names = [p.name for p in space.parameters]
    for name in rng.sample(names, len(names)):
        if near := list(space.neighbours(point, name)):
            return rng.choice(near)
    return point
