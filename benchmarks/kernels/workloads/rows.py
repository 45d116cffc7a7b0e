"""Row-wise functions: softmax, layer norm, logsumexp, attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.kernels.workload import COST, Arrays, Form, Workload


def softmax(x):  # type: ignore[no-untyped-def]
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layer_norm(x, gain, bias):  # type: ignore[no-untyped-def]
    mean = x.mean(axis=-1, keepdims=True)
    var = x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * gain + bias


def logsumexp(x):  # type: ignore[no-untyped-def]
    top = x.max(axis=1)
    return top + np.log(np.exp(x - top[:, None]).sum(axis=1))


def attention(q, k, v):  # type: ignore[no-untyped-def]
    scores = q @ np.swapaxes(k, -1, -2) * q.shape[-1] ** -0.5
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights @ v


def _matrix(rng: np.random.Generator, rows: int, columns: int) -> Arrays:
    return (rng.standard_normal((rows, columns), dtype=np.float32),)


def _norm(rng: np.random.Generator, rows: int, columns: int) -> Arrays:
    return (*_matrix(rng, rows, columns), rng.standard_normal(columns, dtype=np.float32),
            rng.standard_normal(columns, dtype=np.float32))


def _heads(rng: np.random.Generator, *shape: int) -> Arrays:
    return tuple(rng.standard_normal(shape, dtype=np.float32) for _ in range(3))


def _numba_softmax(numba: Any) -> Any:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def run(x):  # type: ignore[no-untyped-def]
        y = np.empty_like(x)
        for i in numba.prange(x.shape[0]):
            top = x[i, 0]
            for j in range(1, x.shape[1]):
                top = max(top, x[i, j])
            total = np.float32(0)
            for j in range(x.shape[1]):
                e = np.exp(x[i, j] - top)
                y[i, j] = e
                total += e
            scale = np.float32(1) / total
            for j in range(x.shape[1]):
                y[i, j] *= scale
        return y
    return run


def _numba_layer_norm(numba: Any) -> Any:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def run(x, gain, bias):  # type: ignore[no-untyped-def]
        y = np.empty_like(x)
        n = x.shape[1]
        for i in numba.prange(x.shape[0]):
            total = np.float32(0)
            for j in range(n):
                total += x[i, j]
            mean = total / np.float32(n)
            squares = np.float32(0)
            for j in range(n):
                d = x[i, j] - mean
                squares += d * d
            scale = np.float32(1) / np.sqrt(squares / np.float32(n) + np.float32(1e-5))
            for j in range(n):
                y[i, j] = (x[i, j] - mean) * scale * gain[j] + bias[j]
        return y
    return run


def _numba_logsumexp(numba: Any) -> Any:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def run(x):  # type: ignore[no-untyped-def]
        y = np.empty(x.shape[0], x.dtype)
        for i in numba.prange(x.shape[0]):
            top = x[i, 0]
            for j in range(1, x.shape[1]):
                top = max(top, x[i, j])
            total = np.float32(0)
            for j in range(x.shape[1]):
                total += np.exp(x[i, j] - top)
            y[i] = top + np.log(total)
        return y
    return run


def _numba_attention(numba: Any) -> Any:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def soften(s):  # type: ignore[no-untyped-def]
        for i in numba.prange(s.shape[0]):
            top = s[i, 0]
            for j in range(1, s.shape[1]):
                top = max(top, s[i, j])
            total = np.float32(0)
            for j in range(s.shape[1]):
                e = np.exp(s[i, j] - top)
                s[i, j] = e
                total += e
            scale = np.float32(1) / total
            for j in range(s.shape[1]):
                s[i, j] *= scale

    @numba.njit(cache=False)
    def one(q, k, v):  # type: ignore[no-untyped-def]
        s = np.dot(q * np.float32(q.shape[1] ** -0.5), k.T)
        soften(s)
        return np.dot(s, v)

    def run(q: Any, k: Any, v: Any) -> Any:
        if q.ndim == 2:
            return one(q, k, v)
        return np.stack([one(q[h], k[h], v[h]) for h in range(q.shape[0])])
    return run


def _torch_softmax(torch: Any) -> Any:
    return lambda x: torch.softmax(x, -1)


def _torch_layer_norm(torch: Any) -> Any:
    return lambda x, gain, bias: torch.nn.functional.layer_norm(x, gain.shape, gain, bias, 1e-5)


def _torch_logsumexp(torch: Any) -> Any:
    return lambda x: torch.logsumexp(x, 1)


def _torch_attention(torch: Any) -> list[Form]:
    def fused(q: Any, k: Any, v: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    def four(*arrays: Any) -> Arrays:
        return tuple(torch.from_numpy(a.reshape((1,) * (4 - a.ndim) + a.shape)) for a in arrays)

    def by_hand(q: Any, k: Any, v: Any) -> Any:
        return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1) @ v
    return [Form(fused, four, lambda y: y.squeeze(0).squeeze(0).numpy(), "scaled_dot_product_attention"),
            Form(by_hand, name="by hand")]


def _jax_layer_norm(jax: Any) -> Any:
    jnp = jax.numpy

    def run(x: Any, gain: Any, bias: Any) -> Any:
        mean = x.mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(jnp.var(x, -1, keepdims=True) + 1e-5) * gain + bias
    return run


def _jax_attention(jax: Any) -> Callable[..., Any]:
    def run(q: Any, k: Any, v: Any) -> Any:
        return jax.nn.softmax(q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5, -1) @ v
    return run


def _attention_flops(*shape: int) -> float:
    length, depth = shape[-2:]
    heads = shape[0] if len(shape) == 3 else 1
    return heads * (4.0 * length * length * depth + length * length * (COST["exp"] + 4))


_ATTENTION = {"numba": _numba_attention, "jax": _jax_attention, "torch": _torch_attention}

WORKLOADS = [
    Workload("softmax 4096x1024", "rows", softmax, _matrix, (4096, 1024), (3, 17),
             lambda m, n: m * n * (COST["exp"] + 4.0),
             {"numba": _numba_softmax, "torch": _torch_softmax, "jax": lambda jax: lambda x: jax.nn.softmax(x, -1)},
             tolerance=1e-5),
    Workload("layer norm 4096x768", "rows", layer_norm, _norm, (4096, 768), (3, 17), lambda m, n: m * n * 8.0,
             {"numba": _numba_layer_norm, "torch": _torch_layer_norm, "jax": _jax_layer_norm}, tolerance=1e-5),
    Workload("logsumexp 4096x4096", "rows", logsumexp, _matrix, (4096, 4096), (3, 17),
             lambda m, n: m * n * (COST["exp"] + 3.0),
             {"numba": _numba_logsumexp, "torch": _torch_logsumexp,
              "jax": lambda jax: lambda x: jax.nn.logsumexp(x, 1)}, tolerance=1e-5),
    Workload("attention 1024x64", "attention", attention, _heads, (1024, 64), (9, 5), _attention_flops, _ATTENTION),
    Workload("attention 12x1024x64", "attention", attention, _heads, (12, 1024, 64), (2, 9, 5), _attention_flops,
             _ATTENTION),
]
