"""The part of a tensor that one tile touches: a box of elements, as bursts between memory and scratchpad.

What holds here: in the scratchpad a box lies dense, row by row, its last dimension innermost. Positions and strides
count elements (vectors, tiles).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tracedsl.hw.fpga.compile.work import Operand
from tracedsl.ir.expr import Affine, Axis

Ranges = Mapping[Axis, tuple[int, int]]  # where a tile begins along an axis, and its steps


@dataclass(frozen=True)
class Box:
    """`first`: its first element in the tensor; `sizes` and `strides` (in the tensor) by dimension; `steps`: how far
    one step along an axis goes in the scratchpad."""

    first: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    steps: Mapping[Axis, int]

    @property
    def elements(self) -> int:
        return math.prod(self.sizes)


@dataclass(frozen=True)
class Burst:
    """`rows` x `cols` elements: from `at` in the scratchpad, `pitch` from row to row; from `first`, `stride`, in the
    tensor."""

    at: int
    first: int
    rows: int
    cols: int
    pitch: int
    stride: int


def box(operand: Operand, ranges: Ranges, block: int) -> Box:
    """What a tile touches of an operand. A dimension of which only every n-th position is touched has only these, the
    last one apart, which is read in bursts."""
    extents = operand.form.extents(block)
    strides = dense(extents)
    places = [Affine() if axis is None else Affine.of(axis) for axis in operand.blocks] + list(operand.index)
    first, sizes, far, moves = 0, [], [], []
    for d, (place, stride) in enumerate(zip(places, strides, strict=True)):
        begins = place.constant + sum(factor * ranges[axis][0] for axis, factor in place.terms)
        moving = [(axis, factor) for axis, factor in place.terms if ranges[axis][1] > 1]
        every = math.gcd(*(factor for _, factor in moving)) if moving and d < len(places) - 1 else 1
        sizes.append(1 + sum(factor * (ranges[axis][1] - 1) for axis, factor in moving) // every)
        first += begins * stride
        far.append(stride * every)
        moves.append([(axis, factor // every) for axis, factor in moving])
    steps: dict[Axis, int] = {}
    for move, near in zip(moves, dense(sizes), strict=True):
        for axis, factor in move:
            steps[axis] = steps.get(axis, 0) + factor * near
    return Box(first, tuple(sizes), tuple(far), steps)


def dense(sizes: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides."""
    strides, step = [], 1
    for size in reversed(sizes):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def bursts(part: Box, longest: int, most_rows: int = 4095) -> Iterator[Burst]:
    """A box as bursts of at most `longest` elements, as many rows in each instruction as there can be."""
    dims = _merged(part, longest)
    size, stride, _ = dims.pop()
    if stride != 1:
        dims.append((size, stride, 1))
        size = 1
    if size > longest:
        for at, first in _corners(dims):
            yield from _long(at, first + part.first, size, longest)
        return
    rows, stride, pitch = dims.pop() if dims else (1, 0, 0)
    for at, first in _corners(dims):
        for row in range(0, rows, most_rows):
            yield Burst(at + row * pitch, first + part.first + row * stride, min(most_rows, rows - row), size, pitch,
                        stride)


def run_length(part: Box) -> int:
    """Elements that lie behind one another in memory, at most."""
    size, stride, _ = _merged(part, 1 << 30)[-1]
    return size if stride == 1 else 1


def _long(at: int, first: int, size: int, longest: int) -> Iterator[Burst]:
    whole, rest = divmod(size, longest)
    yield Burst(at, first, whole, longest, longest, longest)
    if rest:
        yield Burst(at + whole * longest, first + whole * longest, 1, rest, rest, 0)


def _merged(part: Box, longest: int) -> list[tuple[int, int, int]]:
    """(size, stride in the tensor, stride in the scratchpad) by dimension; neighbours that lie behind one another are
    one, the innermost as far as a burst reaches."""
    dims: list[tuple[int, int, int]] = []
    for size, far, near in reversed(list(zip(part.sizes, part.strides, dense(part.sizes), strict=True))):
        if size == 1 and dims:
            continue
        if dims:
            inner, step, local = dims[-1]
            together = far == step * inner and near == local * inner
            if inner == 1 or (together and (len(dims) > 1 or inner * size <= longest)):
                dims[-1] = (inner * size, step if inner > 1 else far, local if inner > 1 else near)
                continue
        dims.append((size, far, near))
    return dims[::-1]


def _corners(dims: Sequence[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """Where the inner parts of a box begin: in the scratchpad, in the tensor (from the box's first element)."""
    if not dims:
        yield 0, 0
        return
    (size, far, near), *inner = dims
    for step in range(size):
        for at, first in _corners(inner):
            yield at + step * near, first + step * far
