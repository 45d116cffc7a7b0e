"""Learned cost models: from the features of points to how well they will do, and how sure that is.

What holds here: a model predicts ranks, not seconds: 0 is the fastest point that it has seen, 1 the slowest; failures
count as slowest. Which of the fast points is faster matters more than which of the slow ones is, so ranks are stretched
at the fast end, and fast points weigh more. The trees are scikit-learn's (extra `tune`), loaded when one is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tracedsl.autotune.space import Point, Space
from tracedsl.diagnostics import TracedslError

Array = np.ndarray[Any, Any]
Features = Callable[[Sequence[Point]], Array]   # n points -> n rows of float32

FAST = 0.15          # ranks below this weigh most


class CostModel(Protocol):
    """Learns from points with known losses."""

    def fit(self, rows: Array, losses: Array) -> None:
        """`rows`: (n, features), float; `losses`: (n,), smaller is better, inf for a failure."""
        ...

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Expected rank (0: fastest) and its standard deviation, both (n,)."""
        ...


def ranks(losses: Array) -> Array:
    """Losses as targets in 0 .. 1: the square root of their rank, ties alike, failures 1.

        >>> ranks(np.array([3.0, 1.0, 2.0, np.inf, 1.0])).round(2).tolist()
        [0.87, 0.0, 0.71, 1.0, 0.0]
    """
    order = np.unique(losses)
    places = np.searchsorted(np.sort(losses), losses) / max(1, len(losses) - 1)
    places[~np.isfinite(losses)] = 1.0
    return np.sqrt(places) if len(order) > 1 else np.zeros(len(losses))


def weights(targets: Array) -> Array:
    """How much each target counts."""
    return 1.0 / (FAST + targets * targets)


@dataclass
class Trees:
    """Extremely randomised trees (Geurts, Ernst and Wehenkel 2006): they need no tuning, fit a hundred points in some
    50 ms, and differ among each other where they know little, which is the uncertainty."""

    count: int = 48
    seed: int = 0

    def fit(self, rows: Array, losses: Array) -> None:
        try:
            from sklearn.ensemble import ExtraTreesRegressor
        except ImportError as error:
            raise TracedslError("T004", "the learned cost model needs scikit-learn", why=str(error),
                                hint="pip install 'tracedsl[tune]', or choose another strategy") from error
        targets = ranks(losses)
        self._forest = ExtraTreesRegressor(self.count, min_samples_leaf=2, max_features=0.5, random_state=self.seed)
        self._forest.fit(rows, targets, sample_weight=weights(targets))

    def predict(self, rows: Array) -> tuple[Array, Array]:
        given = np.ascontiguousarray(rows, np.float32)
        each = np.stack([tree.tree_.predict(given)[:, 0] for tree in self._forest.estimators_])
        return each.mean(0), each.std(0)


def point_features(space: Space) -> Features:
    """Features of points for spaces of which nothing else is known: the place of each ordered choice, one column for
    each other one."""

    def features(points: Sequence[Point]) -> Array:
        columns: list[Array] = []
        for p in space.parameters:
            places = np.array([p.choices.index(point[p.name]) for point in points], np.float32)
            if p.ordered:
                columns.append(places)
            else:
                columns += [(places == n).astype(np.float32) for n in range(len(p.choices))]
        return np.stack(columns, 1) if columns else np.zeros((len(points), 1), np.float32)

    return features
