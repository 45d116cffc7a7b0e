"""The memory of an array with strides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracedsl.hw.cpu.executable import ArrayLayout


@dataclass(frozen=True)
class Span:
    """`size` bytes from `address`; the array's first element lies `-low` bytes inside. Nothing for an empty array."""

    address: int
    size: int
    low: int

    @staticmethod
    def of(first: int, array: ArrayLayout) -> Span:
        """Of an array whose first element lies at the address `first`."""
        if 0 in array.shape:
            return Span(first, 0, 0)
        reach = [(n - 1) * s for n, s in zip(array.shape, array.strides)]
        low, high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
        return Span(first + low, high - low + np.dtype(array.dtype).itemsize, low)
