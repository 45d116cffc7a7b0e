"""Matrix products: square, tall, flat, batched, small integers, with an epilogue."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.kernels.workload import COST, Arrays, Form, Workload


def matmul(a, b):  # type: ignore[no-untyped-def]
    return a @ b


def matmul_int8(a, b):  # type: ignore[no-untyped-def]
    return a.astype(np.int32) @ b.astype(np.int32)


def dense_gelu(x, w, b):  # type: ignore[no-untyped-def]
    y = x @ w + b
    return 0.5 * y * (1 + np.tanh(0.7978845608 * (y + 0.044715 * y * y * y)))


def _floats(dtype: str) -> Any:
    def make(rng: np.random.Generator, m: int, k: int, n: int) -> Arrays:
        return rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    return make


def _bytes(rng: np.random.Generator, m: int, k: int, n: int) -> Arrays:
    return rng.integers(-127, 128, (m, k), dtype=np.int8), rng.integers(-127, 128, (k, n), dtype=np.int8)


def _batch(rng: np.random.Generator, count: int, n: int) -> Arrays:
    return (rng.standard_normal((count, n, n), dtype=np.float32), rng.standard_normal((count, n, n), dtype=np.float32))


def _dense(rng: np.random.Generator, m: int, k: int, n: int) -> Arrays:
    x, w = rng.standard_normal((m, k), dtype=np.float32), rng.standard_normal((k, n), dtype=np.float32)
    return x, w * np.float32(k**-0.5), rng.standard_normal(n, dtype=np.float32)


def _plain(_module: Any) -> Any:
    return matmul


def _numba_product(numba: Any) -> Any:
    return numba.njit(cache=True)(lambda a, b: a @ b)


def _numba_int8(numba: Any) -> Any:
    @numba.njit(parallel=True, cache=True)
    def run(a, b):  # type: ignore[no-untyped-def]
        m, k = a.shape
        n = b.shape[1]
        c = np.zeros((m, n), np.int32)
        for i in numba.prange(m):
            for p in range(k):
                x = np.int32(a[i, p])
                for j in range(n):
                    c[i, j] += x * np.int32(b[p, j])
        return c
    return run


def _numba_batched(numba: Any) -> list[Form]:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def loops(a, b):  # type: ignore[no-untyped-def]
        count, m, k = a.shape
        n = b.shape[2]
        c = np.zeros((count, m, n), a.dtype)
        for t in numba.prange(count):
            for i in range(m):
                for p in range(k):
                    x = a[t, i, p]
                    for j in range(n):
                        c[t, i, j] += x * b[t, p, j]
        return c

    @numba.njit(parallel=True, cache=True)
    def blas(a, b):  # type: ignore[no-untyped-def]
        c = np.empty((a.shape[0], a.shape[1], b.shape[2]), a.dtype)
        for t in numba.prange(a.shape[0]):
            np.dot(a[t], b[t], c[t])
        return c
    return [Form(loops, name="loops"), Form(blas, name="BLAS in a parallel loop")]


def _numba_dense(numba: Any) -> Any:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def run(x, w, b):  # type: ignore[no-untyped-def]
        y = np.dot(x, w)
        for i in numba.prange(y.shape[0]):
            for j in range(y.shape[1]):
                v = y[i, j] + b[j]
                y[i, j] = np.float32(0.5) * v * (np.float32(1) + np.tanh(
                    np.float32(0.7978845608) * (v + np.float32(0.044715) * v * v * v)))
        return y
    return run


def _jax_int8(jax: Any) -> Any:
    return lambda a, b: jax.lax.dot(a, b, preferred_element_type=jax.numpy.int32)


def _jax_dense(jax: Any) -> Any:
    return lambda x, w, b: jax.nn.gelu(x @ w + b, approximate=True)


def _torch_int8(torch: Any) -> list[Form]:
    def transposed(a: Any, b: Any) -> Arrays:
        return torch.from_numpy(a), torch.from_numpy(np.ascontiguousarray(b.T)).T
    return [Form(torch._int_mm, name="b in rows"), Form(torch._int_mm, transposed, name="b in columns")]


def _torch_dense(torch: Any) -> Any:
    return lambda x, w, b: torch.nn.functional.gelu(torch.addmm(b, x, w), approximate="tanh")


_PEERS = {"numba": _numba_product, "jax": _plain, "torch": _plain}


def _product(name: str, group: str, sizes: tuple[int, int, int], dtype: str = "float32") -> Workload:
    return Workload(name, group, matmul, _floats(dtype), sizes, (7, 9, 5), lambda m, k, n: 2.0 * m * k * n, _PEERS,
                    "f64" if dtype == "float64" else "f32", 1e-12 if dtype == "float64" else 1e-5)


WORKLOADS = [
    *(_product(f"gemm f32 {n}", "gemm f32", (n, n, n)) for n in (256, 512, 1024, 2048)),
    _product("gemm f64 1024", "gemm f64", (1024, 1024, 1024), "float64"),
    Workload("gemm int8 1024", "gemm int8", matmul_int8, _bytes, (1024, 1024, 1024), (7, 9, 5),
             lambda m, k, n: 2.0 * m * k * n, {"numba": _numba_int8, "jax": _jax_int8, "torch": _torch_int8}, "int8", 0,
             reference=lambda a, b: (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int32)),
    _product("gemm 4096x64x64", "gemm skinny", (4096, 64, 64)),
    _product("gemm 64x4096x64", "gemm skinny", (64, 4096, 64)),
    _product("gemm 64x64x4096", "gemm skinny", (64, 64, 4096)),
    Workload("gemm 1024 x 32x32", "gemm batched", matmul, _batch, (1024, 32), (3, 5), lambda c, n: 2.0 * c * n**3,
             {"numba": _numba_batched, "jax": _plain, "torch": lambda torch: torch.bmm}, tolerance=1e-5),
    Workload("dense + gelu 512x768x3072", "gemm fused", dense_gelu, _dense, (512, 768, 3072), (3, 5, 7),
             lambda m, k, n: 2.0 * m * k * n + m * n * (COST["tanh"] + 9),
             {"numba": _numba_dense, "jax": _jax_dense, "torch": _torch_dense}),
]
