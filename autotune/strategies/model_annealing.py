"""Simulated annealing on a learned cost model, as AutoTVM does it (Chen et al., Learning to Optimize Tensor Programs,
2018, section 3.3): many chains walk on what the model predicts; the best points that they saw are measured."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from tracedsl.autotune.measure import Measurement
from tracedsl.autotune.model import CostModel, Features, Trees, point_features
from tracedsl.autotune.space import Point, Space, key
from tracedsl.autotune.strategies.base import Asked, neighbour

Array = np.ndarray[Any, Any]


class ModelAnnealing:
    """Batches of `batch` points: the first is random (with the default), each later one is what `chains` chains of
    `steps` steps find on the model, and a share `epsilon` of random points."""

    def __init__(self, space: Space, seed: int = 0, *, features: Features | None = None, model: CostModel | None = None,
                 batch: int = 64, chains: int = 64, steps: int = 60, epsilon: float = 0.05) -> None:
        self._space, self._rng = space, Random(seed)
        self._features = features or point_features(space)
        self._model: CostModel = model or Trees(seed=seed)
        self._batch, self._chains, self._steps, self._epsilon = batch, chains, steps, epsilon
        self._asked, self._queue = Asked(), list[Point]()
        self._known: list[tuple[Point, float]] = []
        self._first = [space.default] if space.default is not None else []

    def ask(self, count: int) -> list[Point]:
        if not self._queue:
            self._queue = self._warm_up() if not self._known else self._planned()
        found, self._queue = self._queue[:count], self._queue[count:]
        return found

    def tell(self, point: Point, loss: float | None, measurement: Measurement) -> None:
        self._known.append((point, float("inf") if loss is None else loss))

    def _warm_up(self) -> list[Point]:
        return list(self._asked.new(lambda: self._first.pop() if self._first else self._space.sample(self._rng),
                                    self._batch))

    def _planned(self) -> list[Point]:
        self._model.fit(self._features([p for p, _ in self._known]), np.array([loss for _, loss in self._known]))
        wanted = self._batch - int(self._batch * self._epsilon)
        chosen = [p for p in self._walk() if self._asked.add(p)][:wanted]
        chosen += self._asked.new(lambda: self._space.sample(self._rng), self._batch - len(chosen))
        return chosen

    def _walk(self) -> list[Point]:
        """All points that the chains saw and that were not asked for, the most promising first."""
        at = [p for p, _ in sorted(self._known, key=lambda pair: pair[1])[:self._chains // 4]]
        at += [self._space.sample(self._rng) for _ in range(self._chains - len(at))]
        energy, _ = self._model.predict(self._features(at))
        seen = {key(p): (e, p) for p, e in zip(at, energy)}
        for step in range(self._steps):
            moved = [neighbour(self._space, p, self._rng) for p in at]
            new, _ = self._model.predict(self._features(moved))
            temperature = 0.2 * (1 - step / self._steps) + 1e-6
            for n, (p, e) in enumerate(zip(moved, new)):
                seen.setdefault(key(p), (e, p))
                if e <= energy[n] or self._rng.random() < np.exp((energy[n] - e) / temperature):
                    at[n], energy[n] = p, e
        return [p for _, p in sorted(seen.values(), key=lambda pair: float(pair[0])) if p not in self._asked]
