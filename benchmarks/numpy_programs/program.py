"""What a program of this benchmark is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Data = tuple[Any, ...]


@dataclass(frozen=True)
class Program:
    """`data(r, size)` gives arguments, from a random generator and "tiny", "small" or "full"; `numba` is the same by an
    expert's hand (loops); `jax(jax.numpy)` builds a version for `jax.jit` that returns the result and the changed
    arguments in the order of `outcome`; `helpers` are functions that Numba wants decorated."""

    function: Callable[..., Any]
    data: Callable[[np.random.Generator, str], Data]
    numba: Callable[..., Any] | None = None
    jax: Callable[..., Any] | None = None
    helpers: tuple[Callable[..., Any], ...] = ()
    tolerance: float = 1e-9

    @property
    def name(self) -> str:
        return self.function.__name__


def outcome(result: Any, args: Data) -> list[Any]:
    """What a call leaves: its results, then the arrays among its arguments."""
    given = result if isinstance(result, tuple) else () if result is None else (result,)
    return [np.asarray(x) for x in (*given, *(a for a in args if isinstance(a, np.ndarray)))]


def copied(args: Data) -> Data:
    return tuple(a.copy() if isinstance(a, np.ndarray) else a for a in args)


def difference(got: list[Any], want: list[Any]) -> float:
    """The largest difference over the largest value; infinite if a shape or dtype differs."""
    worst = 0.0
    if len(got) != len(want):
        return float("inf")
    for a, b in zip(got, want):
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf")
        if a.size:
            x, y = a.astype(float), b.astype(float)
            if not np.array_equal(np.isfinite(x), np.isfinite(y)):
                return float("inf")
            fine = np.isfinite(y)
            worst = max(worst, float(np.max(np.abs(x - y), where=fine, initial=0.0)
                                     / (np.max(np.abs(y), where=fine, initial=0.0) or 1.0)))
    return worst


def pick(size: str, tiny: int, small: int, full: int) -> int:
    return {"tiny": tiny, "small": small, "full": full}[size]
