"""Sums and running sums along each axis of a square matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.kernels.workload import Arrays, Form, Workload


def sum_columns(x):  # type: ignore[no-untyped-def]
    return x.sum(axis=0)


def sum_rows(x):  # type: ignore[no-untyped-def]
    return x.sum(axis=1)


def cumsum_columns(x):  # type: ignore[no-untyped-def]
    return np.cumsum(x, axis=0)


def cumsum_rows(x):  # type: ignore[no-untyped-def]
    return np.cumsum(x, axis=1)


def _matrix(rng: np.random.Generator, rows: int, columns: int) -> Arrays:
    return (rng.random((rows, columns), dtype=np.float32),)


def _numba_sum_columns(numba: Any) -> Any:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def run(x):  # type: ignore[no-untyped-def]
        width = 256
        blocks = (x.shape[1] + width - 1) // width
        out = np.zeros(x.shape[1], x.dtype)
        for b in numba.prange(blocks):
            low, high = b * width, min((b + 1) * width, x.shape[1])
            for i in range(x.shape[0]):
                for j in range(low, high):
                    out[j] += x[i, j]
        return out
    return run


def _numba_sum_rows(numba: Any) -> Any:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def run(x):  # type: ignore[no-untyped-def]
        out = np.empty(x.shape[0], x.dtype)
        for i in numba.prange(x.shape[0]):
            total = np.float32(0)
            for j in range(x.shape[1]):
                total += x[i, j]
            out[i] = total
        return out
    return run


def _numba_cumsum_columns(numba: Any) -> Any:
    @numba.njit(parallel=True, cache=True)
    def run(x):  # type: ignore[no-untyped-def]
        width = 512
        blocks = (x.shape[1] + width - 1) // width
        out = np.empty_like(x)
        for b in numba.prange(blocks):
            low, high = b * width, min((b + 1) * width, x.shape[1])
            for j in range(low, high):
                out[0, j] = x[0, j]
            for i in range(1, x.shape[0]):
                for j in range(low, high):
                    out[i, j] = out[i - 1, j] + x[i, j]
        return out
    return run


def _numba_cumsum_rows(numba: Any) -> Any:
    @numba.njit(parallel=True, cache=True)
    def run(x):  # type: ignore[no-untyped-def]
        out = np.empty_like(x)
        for i in numba.prange(x.shape[0]):
            total = np.float32(0)
            for j in range(x.shape[1]):
                total += x[i, j]
                out[i, j] = total
        return out
    return run


def _one(name: str, function: Callable[..., Any], numba: Callable[[Any], Any], axis: int, total: bool) -> Workload:
    def jax_form(jax: Any) -> Any:
        return (lambda x: x.sum(axis)) if total else (lambda x: jax.numpy.cumsum(x, axis))

    def torch_form(torch: Any) -> Any:
        return Form((lambda x: x.sum(axis)) if total else (lambda x: torch.cumsum(x, axis)))
    return Workload(name, "reduction", function, _matrix, (4096, 4096), (9, 11), lambda m, n: 1.0 * m * n,
                    {"numba": numba, "jax": jax_form, "torch": torch_form}, tolerance=1e-4)


WORKLOADS = [
    _one("sum over axis 0, 4096x4096", sum_columns, _numba_sum_columns, 0, True),
    _one("sum over axis 1, 4096x4096", sum_rows, _numba_sum_rows, 1, True),
    _one("cumsum over axis 0, 4096x4096", cumsum_columns, _numba_cumsum_columns, 0, False),
    _one("cumsum over axis 1, 4096x4096", cumsum_rows, _numba_cumsum_rows, 1, False),
]
