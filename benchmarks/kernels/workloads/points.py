"""Arrays of points: axes of three steps beside long ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.kernels.workload import COST, Arrays, Form, Workload


def distances(p, q):  # type: ignore[no-untyped-def]
    return np.sqrt(((p[:, None] - q[None]) ** 2).sum(-1))


def unit_vectors(p):  # type: ignore[no-untyped-def]
    return p / np.sqrt((p * p).sum(-1, keepdims=True))


def _pairs(rng: np.random.Generator, n: int) -> Arrays:
    return rng.standard_normal((n, 3), dtype=np.float32), rng.standard_normal((n, 3), dtype=np.float32)


def _points(rng: np.random.Generator, n: int) -> Arrays:
    return (rng.standard_normal((n, 3), dtype=np.float32),)


def _numba_distances(numba: Any) -> Any:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def loops(p, x, y, z):  # type: ignore[no-untyped-def]
        out = np.empty((p.shape[0], x.size), p.dtype)
        for i in numba.prange(p.shape[0]):
            a, b, c = p[i, 0], p[i, 1], p[i, 2]
            for j in range(x.size):
                dx, dy, dz = a - x[j], b - y[j], c - z[j]
                out[i, j] = np.sqrt(dx * dx + dy * dy + dz * dz)
        return out
    return Form(loops, lambda p, q: (p, *(np.ascontiguousarray(q[:, d]) for d in range(3))), name="planes")


def _numba_unit(numba: Any) -> Any:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def loops(p):  # type: ignore[no-untyped-def]
        out = np.empty_like(p)
        for i in numba.prange(p.shape[0]):
            x, y, z = p[i, 0], p[i, 1], p[i, 2]
            scale = np.float32(1) / np.sqrt(x * x + y * y + z * z)
            out[i, 0], out[i, 1], out[i, 2] = x * scale, y * scale, z * scale
        return out
    return loops


def _torch_distances(torch: Any) -> list[Form]:
    return [Form(torch.cdist, name="as a matrix product"),
            Form(lambda p, q: torch.cdist(p, q, compute_mode="donot_use_mm_for_euclid_dist"), name="direct")]


WORKLOADS = [
    Workload("distances 2000x2000 d3", "loops", distances, _pairs, (2000,), (7,),
             lambda n: n * n * (8.0 + COST["sqrt"]),
             {"numba": _numba_distances, "torch": _torch_distances,
              "jax": lambda jax: lambda p, q: jax.numpy.sqrt(((p[:, None] - q[None]) ** 2).sum(-1))}),
    Workload("unit vectors 1M d3", "loops", unit_vectors, _points, (1_000_000,), (9,),
             lambda n: n * (8.0 + COST["sqrt"] + 3 * COST["div"]),
             {"numba": _numba_unit, "torch": lambda torch: lambda p: p / torch.sqrt((p * p).sum(-1, keepdim=True)),
              "jax": lambda jax: lambda p: p / jax.numpy.sqrt((p * p).sum(-1, keepdims=True))}),
]
