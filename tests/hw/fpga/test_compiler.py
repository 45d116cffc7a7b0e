"""Kernels on the accelerator: whatever the shape and the values, the result is NumPy's, bit for bit; every stream
passes the checker (the target refuses to compile one that does not)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fpga_kernels import TARGETS, bytes_of, on_targets, product, requantised, same
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tracedsl import kernel
from tracedsl.diagnostics import Unsupported

extents = st.integers(1, 40)


def wide(x, w):  # type: ignore[no-untyped-def]
    return x.astype(np.int64) @ w.astype(np.int64)


@settings(max_examples=12)
@given(on_targets, extents, extents, extents, st.integers(0, 2**32))
@example(TARGETS[0], 1, 1, 1, 0)
@example(TARGETS[1], 33, 70, 1, 1)
@example(TARGETS[0], 100, 100, 100, 2)
def test_matrix_products(target: str, m: int, k: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = bytes_of(rng, m, k), bytes_of(rng, k, n)
    same(product, target, x, w)
    same(requantised, target, x, w, rng.integers(-(1 << 20), 1 << 20, n, dtype=np.int32))
    same(wide, target, x, w)


def test_a_float_kernel_is_refused_with_the_reason(golden: Any) -> None:
    @kernel(target="fpga-sim", strict=True)
    def softmax(x):  # type: ignore[no-untyped-def]
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    with pytest.raises(Unsupported, match="nothing of the kernel runs on the accelerator") as refused:
        softmax(np.ones((4, 5), np.float32))
    assert refused.value.diagnostic.code == "H069"
    assert "float32" in str(refused.value)


@pytest.mark.parametrize("target", TARGETS)
def test_arrays_that_are_views(target: str) -> None:
    rng = np.random.default_rng(3)
    x, w = bytes_of(rng, 22, 33), bytes_of(rng, 24, 34)
    same(product, target, x[::2, 32::-3], w[::-1, ::2][:11])
    same(product, target, x[1::2, ::3].T, x[1::2, :9])


def test_a_large_sum_wraps_as_numpy_does() -> None:
    x = np.full((3, 5), -(1 << 31), np.int32)
    w = np.arange(15, dtype=np.int32).reshape(3, 5) * (1 << 28)

    def sums(x, w):  # type: ignore[no-untyped-def]
        return (x + w) * 3 - w

    same(sums, TARGETS[0], x, w)
