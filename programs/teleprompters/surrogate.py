"""BayesianSearch: a strategy that learns which choices make good prompts, and asks where it expects most.

It is for tens of trials, each with noise that is known; `autotune.strategies.ModelGuided` is for hundreds without.

Source: Gaussian-process regression (Rasmussen and Williams, 2006, chapter 2) with an upper confidence bound (Srinivas
et al., 2010). It stands in the place of the tree-structured Parzen estimator that DSPy takes from Optuna. What holds
here: each observation has a noise of its own, from the number of examples behind it; the same seed and the same answers
give the same questions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random
from typing import Any

from tracedsl.autotune import Measurement, Point, Space
from tracedsl.autotune.space import key
from tracedsl.autotune.strategies.base import Asked
from tracedsl.programs.teleprompters.base import CompileError
from tracedsl.programs.teleprompters.candidates import Candidate

FIRST = 4               # points before the model is asked
POOL = 200              # points that it is asked about
CURIOSITY = 1.0         # standard deviations that count beside the mean
TEXT_FEATURES = 16


class BayesianSearch:
    """A `Strategy` of `autotune`. `features` tells more of a point than its choices: numbers, alike for alike points.
    Measurements say in `notes["examples"]` how many examples are behind them."""

    def __init__(self, space: Space, seed: int = 0, features: Callable[[Point], Sequence[float]] | None = None) -> None:
        self._space, self._rng = space, Random(seed)
        self._features = features or (lambda point: ())
        self._asked = Asked()
        self._first = [space.default] if space.default is not None else []
        self._told: list[tuple[Point, float, int]] = []
        need_scikit_learn()

    def ask(self, count: int) -> list[Point]:
        found: list[Point] = []
        while len(found) < count and (point := self._next()) is not None:
            self._asked.add(point)
            found.append(point)
        return found

    def tell(self, point: Point, loss: float | None, measurement: Measurement) -> None:
        if loss is not None:
            self._told.append((point, -loss, int(measurement.notes.get("examples", 1))))

    def _next(self) -> Point | None:
        if self._first:
            return self._first.pop()
        pool = self._pool()
        if len(self._told) < FIRST or len(pool) < 2:
            return pool[0] if pool else None
        hopes = self._hopes(pool)
        best = max(range(len(pool)), key=lambda i: (round(hopes[i], 9), -i))    # the first of equals
        return pool[best]

    def _pool(self) -> list[Point]:
        """Points that were not asked for: all of a small space, else a sample."""
        if len(self._space) <= POOL:
            points = [p for p in self._space.points() if p not in self._asked]
            return self._rng.sample(points, len(points))
        found: dict[str, Point] = {}
        for _ in range(4 * POOL):
            point = self._space.sample(self._rng)
            if point not in self._asked:
                found.setdefault(key(point), point)
            if len(found) == POOL:
                break
        return list(found.values())

    def _hopes(self, pool: Sequence[Point]) -> list[float]:
        """The upper confidence bound of the score at each point."""
        import numpy as np
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel

        values = [value for _, value, _ in self._told]
        mean = sum(values) / len(values)
        spread = max(0.02, math.sqrt(sum((v - mean) ** 2 for v in values) / len(values)))
        noise = [max(1e-6, 0.25 / n / spread**2) for _, _, n in self._told]     # a right-or-wrong score's variance
        model = GaussianProcessRegressor(ConstantKernel(1.0, "fixed") * RBF(1.5, "fixed"), alpha=np.array(noise),
                                         optimizer=None)
        model.fit([self._vector(p) for p, _, _ in self._told], [(v - mean) / spread for v in values])
        means, stds = model.predict([self._vector(p) for p in pool], return_std=True)
        return [float(m + CURIOSITY * s) for m, s in zip(means, stds)]

    def _vector(self, point: Point) -> list[float]:
        """One number a choice, then the features."""
        hot = [float(point[p.name] == choice) for p in self._space.parameters for choice in p.choices]
        return [*hot, *self._features(point)]


def prompt_features(candidate_of: Callable[[Point], Candidate]) -> Callable[[Point], list[float]]:
    """Features of a candidate: for all predictors together, how many demonstrations and how much text there are, and
    the words of the instructions, hashed."""
    from sklearn.feature_extraction.text import HashingVectorizer

    words = HashingVectorizer(n_features=TEXT_FEATURES, norm="l2")

    @lru_cache(maxsize=4096)
    def hashed(text: str) -> tuple[float, ...]:
        return tuple(float(x) for x in words.transform([text]).toarray()[0])

    def features(point: Point) -> list[float]:
        parts = candidate_of(point).parts.values()
        texts = [p.instructions or "" for p in parts]
        demos = [demo for p in parts for demo in p.demos or ()]
        size = sum(len(str(v)) for demo in demos for v in demo.values())
        sizes = [len(demos) / 4, math.log1p(size) / 4, math.log1p(sum(map(len, texts))) / 4]
        return [*sizes, *(sum(column) / 2 for column in zip(*map(hashed, texts)))]

    return features


def need_scikit_learn() -> Any:
    """scikit-learn, or `CompileError` P109 that says how to get it."""
    try:
        import sklearn
    except ImportError as error:
        raise CompileError("P109", "a search that is guided by a model needs the package scikit-learn", why=str(error),
                           hint='pip install "tracedsl[tune]", or use BootstrapFewShotWithRandomSearch') from error
    return sklearn
