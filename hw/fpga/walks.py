"""Which elements an instruction touches, as index arrays.

What holds here: arrays are in the order of the steps; those that depend on counts and strides alone are kept, since
programs repeat their loops.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracedsl.hw.fpga.isa import Walk

Index = NDArray[np.int64]
Counts = tuple[int, int, int]
Strides = tuple[int, int, int]


def walk(counts: Counts, places: Walk) -> Index:
    """The element of each step."""
    return _offsets(counts, places.strides) + places.base


@lru_cache(maxsize=4096)
def _offsets(counts: Counts, strides: Strides) -> Index:
    outer, middle, inner = (np.arange(n) * s for n, s in zip(counts, strides, strict=True))
    found: Index = (outer[:, None, None] + middle[:, None] + inner).ravel()
    found.flags.writeable = False
    return found


@lru_cache(maxsize=4096)
def distinct(counts: Counts, strides: Strides) -> bool:
    """Whether no element comes twice."""
    offsets = _offsets(counts, strides)
    return len(np.unique(offsets)) == len(offsets)


@lru_cache(maxsize=4096)
def nearest_reuse(counts: Counts, written: Strides, read: Strides, shift: int, reach: int) -> int:
    """The least number of steps, up to `reach`, after which `read` (its base `shift` above that of `written`) comes to
    an element that was written; `reach` + 1 if it does not. `reach` is small."""
    wrote, reads = _offsets(counts, written), _offsets(counts, read) + shift
    for steps in range(1, min(reach, len(wrote) - 1) + 1):
        if np.any(wrote[:-steps] == reads[steps:]):
            return steps
    return reach + 1


@lru_cache(maxsize=4096)
def rows(count: int, cols: int, stride: int) -> Index:
    """Offsets of `count` rows of `cols`, `stride` apart."""
    found: Index = (np.arange(count)[:, None] * stride + np.arange(cols)).ravel()
    found.flags.writeable = False
    return found


@lru_cache(maxsize=4096)
def filled(count: int, cols: int, before: int, between: int, after: int) -> tuple[Index, Index]:
    """Of the elements that a load writes, offsets of those that come from memory, and of those that are filled."""
    data = before + rows(count, cols, cols + between)
    mask: NDArray[Any] = np.ones(before + count * cols + (count - 1) * between + after, bool)
    mask[data] = False
    return data, np.flatnonzero(mask)
