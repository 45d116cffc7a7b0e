"""Exhaustive search."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from tracedsl.autotune.measure import Measurement
from tracedsl.autotune.space import Point, Space


class Exhaustive:
    """Every valid point once, the default first."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        first = [space.default] if space.default is not None else []
        self._rest: Iterator[Point] = chain(first, (p for p in space.points() if p not in first))

    def ask(self, count: int) -> list[Point]:
        return list(islice(self._rest, count))

    def tell(self, point: Point, loss: float | None, measurement: Measurement) -> None:
        pass
