"""The convolutions C2 to C12 of ResNet-18 on the accelerator, quantised, with and without latency hiding.

What holds here: the kernels are NumPy; cycles are the timing model's, which equals the RTL's. A layer's result is
compared with NumPy's when asked for (`check`), which takes longer than everything else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.kernels.workloads.convolutions import CONVOLUTIONS
from tracedsl import kernel
from tracedsl.cache import Store

Array = np.ndarray[Any, Any]
LAYERS = {name: row for name, row in CONVOLUTIONS.items() if name != "C1"}  # in the paper the host does C1


def layer(stride: int) -> Any:
    """conv2d, bias, requantisation and ReLU."""
    def convolution(padded, w, b):  # type: ignore[no-untyped-def]
        k = w.shape[0]
        windows = sliding_window_view(padded, (k, k), axis=(1, 2))[:, ::stride, ::stride]
        total = np.tensordot(windows.astype(np.int32), w.astype(np.int32), axes=([4, 5, 3], [0, 1, 2])) + b
        scaled = (total.astype(np.int64) * 77 + (1 << 17)) >> 18
        return np.clip(scaled, 0, 127).astype(np.int8)
    return convolution


def inputs(size: int, inside: int, outside: int, k: int) -> tuple[Array, Array, Array]:
    """An image with its border of zeros, weights, biases."""
    rng, p = np.random.default_rng(0), (k - 1) // 2
    x = np.zeros((1, size + 2 * p, size + 2 * p, inside), np.int8)
    x[:, p:p + size, p:p + size] = rng.integers(-128, 128, (1, size, size, inside))
    w = rng.integers(-128, 128, (k, k, inside, outside), dtype=np.int8)
    return x, w, rng.integers(-1000, 1000, outside, dtype=np.int32)


@dataclass(frozen=True)
class Result:
    """One layer under one setting. `used`: part of the cycles in which the array multiplied."""

    name: str
    threads: int
    cycles: int
    used: float
    moved: int
    seconds: float


def measure(name: str, settings: str, threads: int, store: Store, check: bool = False) -> Result:
    """Compile and run a layer. Raises AssertionError if `check` finds another result than NumPy's."""
    size, inside, outside, k, stride = LAYERS[name]
    given = inputs(size, inside, outside, k)
    plain = layer(stride)
    made = kernel(target=f"fpga-sim:{settings},threads={threads}", strict=True, store=store)(plain)
    start = time.perf_counter()
    result = made(*given)
    seconds = time.perf_counter() - start
    if check:
        np.testing.assert_array_equal(result, plain(*given))
    counts = [launch.counts for launch in made.runnable.launches]
    cycles = sum(c["cycles"] for c in counts)
    return Result(name, threads, cycles, sum(c["steps"] for c in counts) / cycles,
                  sum(c["loaded"] + c["stored"] for c in counts), seconds)


def all_layers(settings: str, store: Store, check: bool = False) -> Iterator[tuple[Result, Result]]:
    """Each layer without and with latency hiding."""
    for name in LAYERS:
        yield (measure(name, settings, 1, store, check), measure(name, settings, 2, store, check))
