"""What a call costs: arrays of a thousand elements, so small that the work is nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.kernels.workload import Arrays, Form, Workload


def add(a, b):  # type: ignore[no-untyped-def]
    return np.add(a, b)


def add_into(a, b, out):  # type: ignore[no-untyped-def]
    return np.add(a, b, out=out)


def _pair(rng: np.random.Generator, n: int) -> Arrays:
    return rng.random(n, dtype=np.float32), rng.random(n, dtype=np.float32)


def _three(rng: np.random.Generator, n: int) -> Arrays:
    return (*_pair(rng, n), np.empty(n, np.float32))


def _numba_add(numba: Any) -> list[Form]:
    @numba.njit(cache=True)
    def loop(a, b):  # type: ignore[no-untyped-def]
        out = np.empty_like(a)
        for i in range(a.size):
            out[i] = a[i] + b[i]
        return out
    return [Form(loop, name="njit"), Form(numba.vectorize(["float32(float32, float32)"])(lambda a, b: a + b),
                                          name="vectorize")]


def _numba_into(numba: Any) -> Any:
    @numba.njit(cache=True)
    def loop(a, b, out):  # type: ignore[no-untyped-def]
        for i in range(a.size):
            out[i] = a[i] + b[i]
        return out
    return loop


def _torch_into(torch: Any) -> Any:
    return lambda a, b, out: torch.add(a, b, out=out)


WORKLOADS = [
    Workload("call, 1k f32, into out", "call", add_into, _three, (1024,), (37,), lambda n: 1.0 * n,
             {"numpy": lambda np: Form(np.add, name="np.add"), "numba": _numba_into, "torch": _torch_into,
              "numexpr": lambda ne: lambda a, b, out: ne.evaluate("a + b", {"a": a, "b": b}, out=out)},
             tolerance=1e-6),
    Workload("call, 1k f32, allocating", "call", add, _pair, (1024,), (37,), lambda n: 1.0 * n,
             {"numpy": lambda np: Form(np.add, name="np.add"), "numba": _numba_add,
              "jax": lambda jax: jax.numpy.add, "torch": lambda torch: lambda a, b: torch.add(a, b),
              "numexpr": lambda ne: lambda a, b: ne.evaluate("a + b", {"a": a, "b": b})}, tolerance=1e-6),
]
