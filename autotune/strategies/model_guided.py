"""The default strategy: a learned cost model proposes what to measure, and descent finishes what it found.

What holds here: the first points are the default and a stratified sample; then batches of points that the model expects
to be fast, or about which it knows little; the last part of the budget steps along single parameters from the best
points. With few trials of its own the model is helped by `prior`, a guess from other tasks, whose part shrinks as they
grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np

from tracedsl.autotune.measure import Measurement
from tracedsl.autotune.model import CostModel, Features, Trees, point_features
from tracedsl.autotune.space import Point, Space, key
from tracedsl.autotune.strategies.base import Asked, mutated, neighbour

Array = np.ndarray[Any, Any]
Prior = Callable[[Array], Array]       # rows of features -> expected ranks, 0 the fastest

WARM_UP = 15         # stratified points beside the default
BATCH = 8
EPSILON = 0.1        # share of points that are random
DESCENT = 0.85       # share of the budget after which descent begins
STARTS = 3           # best points from which it goes
POOL = 512           # points that the model chooses from
ELITES = 12          # best known points around which it looks
CURIOSITY = 0.5      # standard deviations that are taken off what is expected
TRUST = 24.0         # trials of its own after which the model counts as much as the prior


class ModelGuided:
    """See the module. `features` turns points into rows of numbers; without it, the choices themselves are taken."""

    def __init__(self, space: Space, seed: int = 0, *, features: Features | None = None, model: CostModel | None = None,
                 prior: Prior | None = None) -> None:
        self._space, self._rng = space, Random(seed)
        self._features, self._prior = features or point_features(space), prior
        self._model: CostModel = model or Trees(seed=seed)
        self._asked, self._spent = Asked(), 0.0
        self._known: list[tuple[float, Point]] = []
        self._rows: list[Array] = []        # features of the first of them
        self._queue = self._warm_up()
        self._descents: dict[str, list[str]] = {}       # a starting point -> parameters that are left to try

    def pace(self, spent: float) -> None:
        self._spent = spent

    def ask(self, count: int) -> list[Point]:
        if not self._queue and self._spent >= DESCENT:
            self._queue = self._descend()
        if not self._queue:
            self._queue = self._promising()
        found, self._queue = self._queue[:count], self._queue[count:]
        return found

    def tell(self, point: Point, loss: float | None, measurement: Measurement) -> None:
        self._known.append((float("inf") if loss is None else loss, point))

    # -- the beginning ------------------------------------------------------------------------------------------

    def _warm_up(self) -> list[Point]:
        """The default, and points whose choices are spread: every choice of a parameter about equally often (a Latin
        hypercube). With a prior, half of them are what it likes best."""
        points = [self._space.default] if self._space.default is not None else []
        chosen = [p for p in points if self._asked.add(p)]
        if self._prior is not None:
            drawn = self._drawn(POOL)
            order = np.argsort(self._prior(self._features(drawn)), kind="stable")
            chosen += [p for p in (drawn[n] for n in order) if self._asked.add(p)][:WARM_UP // 2]
        rows = self._stratified(WARM_UP)
        left = WARM_UP + len(points) - len(chosen)
        chosen += self._asked.new(lambda: next(rows, None) or self._space.sample(self._rng), left)
        return chosen

    def _stratified(self, count: int) -> Iterator[Point]:
        columns = {}
        for p in self._space.parameters:
            spread = [p.choices[n * len(p.choices) // count] if len(p.choices) <= count else
                      p.choices[int((n + self._rng.random()) * len(p.choices) / count)] for n in range(count)]
            self._rng.shuffle(spread)
            columns[p.name] = spread
        for n in range(count):
            point = self._space.normal({name: column[n] for name, column in columns.items()})
            yield point if self._space.allows(point) else self._near(point)

    def _near(self, point: Point) -> Point:
        """A valid point that shares as much with an invalid one as a few draws find."""
        for share in (0.2, 0.4, 0.6):
            for _ in range(10):
                drawn = {p.name: self._rng.choice(p.choices) if self._rng.random() < share else point[p.name]
                         for p in self._space.parameters}
                if self._space.allows(moved := self._space.normal(drawn)):
                    return moved
        return self._space.sample(self._rng)

    # -- the middle ---------------------------------------------------------------------------------------------

    def _promising(self) -> list[Point]:
        """A batch: the points with the lowest bound on what is expected, and now and then a random one."""
        if not any(np.isfinite(loss) for loss, _ in self._known):
            return list(self._asked.new(lambda: self._space.sample(self._rng), BATCH))
        self._rows += list(self._features([p for _, p in self._known[len(self._rows):]]))
        self._model.fit(np.stack(self._rows), np.array([loss for loss, _ in self._known]))
        pool = self._pool()
        scores = self._score(pool)
        better = [pool[n] for n in np.argsort(scores, kind="stable")[:ELITES]]
        more = {key(p): p for p in (neighbour(self._space, b, self._rng) for b in better for _ in range(8))
                if p not in self._asked}
        fresh = [p for name, p in more.items() if name not in {key(q) for q in pool}]
        if fresh:
            pool, scores = pool + fresh, np.concatenate([scores, self._score(fresh)])
        chosen: list[Point] = []
        order = iter(np.argsort(scores, kind="stable"))
        while len(chosen) < BATCH:
            if self._rng.random() < EPSILON:
                chosen += self._asked.new(lambda: self._space.sample(self._rng), 1)
            elif (n := next(order, None)) is None:
                return chosen + list(self._asked.new(lambda: self._space.sample(self._rng), BATCH - len(chosen)))
            elif self._asked.add(pool[n]):
                chosen.append(pool[n])
        return chosen

    def _pool(self) -> list[Point]:
        """Points that were not asked for: around the best known ones, crossed among them, and anywhere."""
        best = [p for _, p in sorted(self._known, key=lambda pair: pair[0])[:ELITES]]
        found = {key(near): near for p in best for parameter in self._space.parameters
                 for near in self._space.neighbours(p, parameter.name)}
        for _ in range(POOL // 4):
            one, two = self._rng.choice(best), self._rng.choice(best)
            mixed = self._space.normal({name: self._rng.choice((one[name], two[name])) for name in one})
            if not self._space.allows(mixed):
                mixed = one
            moved = mutated(self._space, mixed, self._rng, 0.15)
            found.setdefault(key(moved), moved)
        for p in self._drawn(POOL // 2):
            found.setdefault(key(p), p)
        return [p for p in found.values() if p not in self._asked]

    def _drawn(self, count: int) -> list[Point]:
        return list({key(p): p for p in (self._space.sample(self._rng) for _ in range(count))}.values())

    def _score(self, points: list[Point]) -> Array:
        if not points:
            return np.zeros(0)
        rows = self._features(points)
        expected, unsure = self._model.predict(rows)
        scores: Array = expected - CURIOSITY * unsure
        if self._prior is not None:
            part = TRUST / (TRUST + len(self._known))
            scores = (1 - part) * scores + part * self._prior(rows)
        return scores

    # -- the end ------------------------------------------------------------------------------------------------

    def _descend(self) -> list[Point]:
        """Unknown neighbours along one parameter of one of the best points; none when there are no more."""
        names = [p.name for p in self._space.parameters]
        for loss, point in sorted(self._known, key=lambda pair: pair[0])[:STARTS]:
            left = self._descents.setdefault(key(point), self._rng.sample(names, len(names)))
            while left and np.isfinite(loss):
                near = [p for p in self._space.neighbours(point, left.pop(0)) if self._asked.add(p)]
                if near:
                    return near
        return []
