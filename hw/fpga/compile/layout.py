"""How arrays get into the accelerator's memory and out of it.

What holds here: `pack` and `unpack` are the only places that know the order of bytes of a form; what a lane has no
value for is zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracedsl.hw.fpga.compile.work import Form

Array = NDArray[Any]


def vectors_of(form: Form, block: int) -> int:
    """Vectors that a tensor takes."""
    size = 1
    for extent in form.extents(block):
        size *= extent
    return size * {"narrow": 1, "wide": 4, "tile": block}[form.format]


def pack(array: Array, form: Form, block: int) -> NDArray[np.uint8]:
    """The bytes of an array (shaped as the form sees it)."""
    dtype = np.int32 if form.format == "wide" else np.int8
    order = [d for d in form.lanes if d is not None]
    moved = array.astype(dtype, copy=False).transpose(*order, *form.others)
    for at, lane in enumerate(form.lanes):
        if lane is None:
            moved = np.expand_dims(moved, at)
    count = len(form.lanes)
    if form.spread:
        moved = np.repeat(moved, block, axis=0)
    padding = [(0, -size % block) for size in moved.shape[:count]] + [(0, 0)] * (moved.ndim - count)
    padded = np.pad(moved, padding)
    split = padded.reshape(*(n for size in padded.shape[:count] for n in (size // block, block)), *moved.shape[count:])
    blocks, lanes = range(0, 2 * count, 2), range(1, 2 * count, 2)
    return np.ascontiguousarray(split.transpose(*blocks, *range(2 * count, split.ndim), *lanes)).view(np.uint8).ravel()


def unpack(data: NDArray[np.uint8], array: Array, form: Form, block: int) -> None:
    """Write the bytes of a tensor of vectors into an array (shaped as the form sees it)."""
    dtype = np.int32 if form.format == "wide" else np.int8
    blocks, *others = form.extents(block)
    found = data.view(dtype).reshape(blocks, *others, block)
    lanes = np.moveaxis(found, -1, 1).reshape(blocks * block, *others)
    (lane,) = form.lanes
    if lane is None:
        array[...] = lanes[0]
    else:
        array[...] = np.moveaxis(lanes[:array.shape[lane]], 0, lane)
