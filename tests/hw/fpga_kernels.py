"""Kernels for the accelerator, compiled and compared with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tracedsl import kernel

Array = np.ndarray[Any, Any]
TARGETS = ("fpga-sim", "fpga-sim:block=4,bus_bytes=4,inp_depth=64,wgt_depth=32,acc_depth=64,aux_depth=16",
           "fpga-sim:block=16,latency=20")
on_targets = st.sampled_from(TARGETS)


def bytes_of(rng: np.random.Generator, *shape: int) -> Array:
    """Bytes, the extremes often."""
    plain = rng.integers(-128, 128, shape)
    return np.where(rng.random(shape) < 0.2, rng.choice([-128, 127], shape), plain).astype(np.int8)


def same(function: Any, target: str, *arrays: Any) -> Any:
    """Compile for the accelerator and compare with NumPy; gives the kernel."""
    made = kernel(target=target, strict=True)(function)
    got, wanted = made(*arrays), function(*arrays)
    assert made.compiled
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    assert np.array_equal(got, wanted)
    return made


def product(x, w):  # type: ignore[no-untyped-def]
    return x.astype(np.int32) @ w.astype(np.int32)


def requantised(x, w, b):  # type: ignore[no-untyped-def]
    total = x.astype(np.int32) @ w.astype(np.int32) + b
    scaled = (total.astype(np.int64) * 1234 + (1 << 15)) >> 16
    return np.clip(scaled, -100, 127).astype(np.int8)
