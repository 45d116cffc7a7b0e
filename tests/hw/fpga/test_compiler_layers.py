"""Layers of networks on the accelerator: convolutions, pooling, chains of integers, and the split with the host. All
results are NumPy's, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from fpga_kernels import TARGETS, bytes_of, on_targets, same
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from tracedsl import kernel

Array = np.ndarray[Any, Any]
sizes = st.integers(3, 9)
channels = st.integers(1, 20)
seeds = st.integers(0, 2**32)


def windows(x: Any, k: int, stride: int) -> Any:
    p = (k - 1) // 2
    padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    return sliding_window_view(padded, (k, k), axis=(1, 2))[:, ::stride, ::stride]


@settings(max_examples=10)
@given(on_targets, sizes, sizes, channels, channels, st.sampled_from([1, 3]), st.integers(1, 2), seeds)
@example(TARGETS[0], 7, 5, 1, 3, 3, 2, 0)
@example(TARGETS[1], 8, 8, 9, 5, 3, 1, 1)
def test_convolutions(target: str, h: int, w: int, inside: int, outside: int, k: int, stride: int, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def conv(x, weights, bias, other):  # type: ignore[no-untyped-def]
        total = np.einsum("nhwcij,ijco->nhwo", windows(x, k, stride).astype(np.int32), weights.astype(np.int32)) + bias
        y = np.clip((total * 5 + 64) >> 7, -128, 127).astype(np.int8)
        return np.clip(np.maximum(y.astype(np.int32) + other, 0), 0, 127).astype(np.int8)

    x, weights = bytes_of(rng, 2, h, w, inside), bytes_of(rng, k, k, inside, outside)
    bias = rng.integers(-(1 << 14), 1 << 14, outside, dtype=np.int32)
    same(conv, target, x, weights, bias, bytes_of(rng, 2, -(-h // stride), -(-w // stride), outside))


@settings(max_examples=6)
@given(on_targets, sizes, sizes, channels, st.integers(1, 2), seeds)
def test_depthwise_convolutions(target: str, h: int, w: int, count: int, stride: int, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def depthwise(x, weights):  # type: ignore[no-untyped-def]
        return np.einsum("nhwcij,ijc->nhwc", windows(x, 3, stride).astype(np.int32), weights.astype(np.int32))

    same(depthwise, target, bytes_of(rng, 1, h, w, count), bytes_of(rng, 3, 3, count))


@settings(max_examples=6)
@given(on_targets, sizes, sizes, channels, st.integers(1, 2), seeds)
def test_pooling(target: str, h: int, w: int, count: int, stride: int, seed: int) -> None:
    x = bytes_of(np.random.default_rng(seed), 1, h, w, count)

    def largest(x):  # type: ignore[no-untyped-def]
        return sliding_window_view(x, (2, 2), axis=(1, 2))[:, ::stride, ::stride].max(axis=(-1, -2))

    def average(x):  # type: ignore[no-untyped-def]
        taken = sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
        return (taken.astype(np.int32).sum(axis=(-1, -2), dtype=np.int32) // 9).astype(np.int8)

    def whole(x):  # type: ignore[no-untyped-def]
        return x.astype(np.int32).sum(axis=(1, 2), dtype=np.int32)

    for function in (largest, average, whole):
        same(function, target, x)


@settings(max_examples=8)
@given(on_targets, st.lists(st.integers(1, 9), min_size=1, max_size=3), seeds)
def test_chains_of_integers(target: str, shape: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = bytes_of(rng, *shape), bytes_of(rng, *shape)
    c = rng.integers(-(1 << 31), 1 << 31, shape, dtype=np.int64).astype(np.int32)

    def residual(a, b):  # type: ignore[no-untyped-def]
        return np.clip(a.astype(np.int32) * 3 - b + abs(b.astype(np.int32)), -50, 90).astype(np.int8)

    def wrapping(a, b):  # type: ignore[no-untyped-def]
        return a + b * a

    def shifts(c, a):  # type: ignore[no-untyped-def]
        return ((c >> 3) - a // 7) * a + (c << 2) // 16

    def shared(a, c):  # type: ignore[no-untyped-def]
        t = np.maximum(a.astype(np.int32) * 7, c)
        return (t - np.minimum(t, 5)) * 3 + t

    same(residual, target, a, b)
    same(wrapping, target, a, b)
    same(shifts, target, c, a)
    same(shared, target, a, c)


def test_what_is_left_to_the_host() -> None:
    """A network of three layers with a softmax behind it: one launch, the rest on the host, and `explain` says so."""
    rng = np.random.default_rng(0)

    def network(x, w, b, last):  # type: ignore[no-untyped-def]
        total = np.einsum("nhwcij,ijco->nhwo", windows(x, 3, 1).astype(np.int32), w.astype(np.int32)) + b
        y = np.clip((total + 64) >> 7, 0, 127).astype(np.int8)
        pooled = sliding_window_view(y, (2, 2), axis=(1, 2))[:, ::2, ::2].max(axis=(-1, -2))
        logits = pooled.reshape(pooled.shape[0], -1).astype(np.int32) @ last.astype(np.int32)
        e = np.exp(logits.astype(np.float32) * np.float32(0.01))
        return e / e.sum(axis=1, keepdims=True)

    made = kernel(target=TARGETS[0], strict=True)(network)
    given = (bytes_of(rng, 3, 8, 8, 5), bytes_of(rng, 3, 3, 5, 12), rng.integers(-99, 99, 12, dtype=np.int32),
             rng.integers(-4, 5, (192, 10)).astype(np.int8))
    np.testing.assert_allclose(made(*given), network(*given), rtol=1e-6)
    assert len(made.runnable.launches) == 1
    text = made.explain()
    assert "on the accelerator (gemm)" in text and "on the accelerator (pool)" in text
    assert "on the host: the result is of float32" in text and "cycles" in text
