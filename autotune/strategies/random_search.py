"""Random search."""

from __future__ import annotations

from random import Random

from tracedsl.autotune.measure import Measurement
from tracedsl.autotune.space import Point, Space
from tracedsl.autotune.strategies.base import Asked


class RandomSearch:
    """Random valid points, none twice, the default first."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space, self._rng = space, Random(seed)
        self._asked = Asked()
        self._first = [space.default] if space.default is not None else []

    def ask(self, count: int) -> list[Point]:
        def draw() -> Point:
            return self._first.pop() if self._first else self._space.sample(self._rng)

        return list(self._asked.new(draw, count))

    def tell(self, point: Point, loss: float | None, measurement: Measurement) -> None:
        pass
