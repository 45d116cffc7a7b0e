"""Simulated annealing on measurements, without a model (Kirkpatrick et al. 1983)."""

from __future__ import annotations

import math
from random import Random

from tracedsl.autotune.measure import Measurement
from tracedsl.autotune.space import Point, Space, key
from tracedsl.autotune.strategies.base import TRIES, Asked, neighbour


class SimulatedAnnealing:
    """A few walkers step to neighbours; a step that is worse by the share d of the loss is taken with probability
    exp(-d / temperature). The temperature falls from `hot` to `cold` as the budget is spent (or over `steps` trials,
    where nobody tells the pace). The first walker starts from the default."""

    def __init__(self, space: Space, seed: int = 0, *, walkers: int = 4, hot: float = 0.5, cold: float = 0.01,
                 steps: int = 256) -> None:
        self._space, self._rng = space, Random(seed)
        self._hot, self._cold, self._steps = hot, cold, steps
        self._asked = Asked()
        starts = [space.default] if space.default is not None else []
        self._starts = [*starts, *(space.sample(self._rng) for _ in range(walkers - len(starts)))]
        self._at: list[tuple[float, Point]] = []
        self._open: dict[str, int] = {}     # key of an asked point -> its walker
        self._told, self._spent, self._next = 0, 0.0, 0

    def pace(self, spent: float) -> None:
        self._spent = spent

    def ask(self, count: int) -> list[Point]:
        found: list[Point] = []
        while self._starts and len(found) < count:
            point = self._starts.pop(0)
            if self._asked.add(point):
                found.append(point)
        if found:
            return found
        for _ in range(max(1, min(count, len(self._at)))):
            found += self._step()
        return found

    def _step(self) -> list[Point]:
        walker = self._next = (self._next + 1) % max(1, len(self._at))
        point = self._at[walker][1] if self._at else self._space.sample(self._rng)
        for _ in range(TRIES):
            point = neighbour(self._space, point, self._rng)    # steps over what is known, until something is new
            if self._asked.add(point):
                self._open[key(point)] = walker
                return [point]
        return list(self._asked.new(lambda: self._space.sample(self._rng), 1))

    def tell(self, point: Point, loss: float | None, measurement: Measurement) -> None:
        self._told += 1
        walker = self._open.pop(key(point), None)
        if loss is None:
            return
        if walker is None:
            self._at.append((loss, point))
        elif self._takes(self._at[walker][0], loss):
            self._at[walker] = (loss, point)

    def _takes(self, old: float, new: float) -> bool:
        if new <= old:
            return True
        spent = min(1.0, max(self._spent, self._told / self._steps if self._spent == 0 else 0.0))
        temperature = self._hot * (self._cold / self._hot) ** spent
        worse = (new - old) / abs(old) if old else math.inf
        return self._rng.random() < math.exp(-worse / temperature)
