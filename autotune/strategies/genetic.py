"""A genetic algorithm, with the settings of AutoTVM's tuner, which the TVM paper (Chen et al. 2018, figure 12) compares
the learned cost model with: a population of 100, the three best kept, one mutation in ten genes."""

from __future__ import annotations

from random import Random

from tracedsl.autotune.measure import Measurement
from tracedsl.autotune.space import Point, Space
from tracedsl.autotune.strategies.base import TRIES, Asked, mutated


class Genetic:
    """Generations of `population` points, the default among the first. Parents are drawn in proportion to their
    fitness, the reciprocal of the loss; a child takes its first parameters from one and the rest from the other, then
    each changes with probability `mutation`. The `elites` best points so far always are among the parents. A child that
    was measured before is mutated until it is new."""

    def __init__(self, space: Space, seed: int = 0, *, population: int = 100, elites: int = 3,
                 mutation: float = 0.1) -> None:
        self._space, self._rng = space, Random(seed)
        self._population, self._elites, self._mutation = population, elites, mutation
        self._asked = Asked()
        self._first = [space.default] if space.default is not None else []
        self._parents: list[tuple[float, Point]] = []
        self._children: list[tuple[float, Point]] = []
        self._open = 0

    def ask(self, count: int) -> list[Point]:
        if self._open + len(self._children) >= self._population and not self._open:
            self._turn()
        count = min(count, self._population - self._open - len(self._children))
        found = list(self._asked.new(self._draw, count)) if count > 0 else []
        self._open += len(found)
        return found

    def tell(self, point: Point, loss: float | None, measurement: Measurement) -> None:
        self._open -= 1
        self._children.append((float("inf") if loss is None else loss, point))

    def _turn(self) -> None:
        """The children become the parents, with the elites of before."""
        known = sorted([*self._parents[:self._elites], *self._children], key=lambda pair: pair[0])
        self._parents, self._children = known, []

    def _draw(self) -> Point:
        if self._first:
            return self._first.pop()
        if not self._parents:
            return self._space.sample(self._rng)
        one, two = self._rng.choices([p for _, p in self._parents], weights=self._fitness(), k=2)
        names = [p.name for p in self._space.parameters]
        cut = self._rng.randrange(len(names)) if names else 0
        child = self._space.normal({name: (one if n < cut else two)[name] for n, name in enumerate(names)})
        if not self._space.allows(child):
            child = one
        child = mutated(self._space, child, self._rng, self._mutation)
        for _ in range(TRIES):
            if child not in self._asked:
                break
            child = mutated(self._space, child, self._rng, self._mutation)
        return child

    def _fitness(self) -> list[float]:
        """Reciprocals of the losses; where some are not positive (scores), how far they lie from the worst."""
        losses = [loss for loss, _ in self._parents]
        finite = [loss for loss in losses if loss != float("inf")]
        if not finite:
            return [1.0] * len(losses)
        if min(finite) > 0:
            return [1 / loss for loss in losses]
        worst, spread = max(finite), (max(finite) - min(finite)) or 1.0
        return [0.0 if loss == float("inf") else (worst - loss) / spread + 1e-3 for loss in losses]
