"""What the accelerator is asked to do for one stage, in its own words.

What holds here: plain frozen data, made by `match`, read by everything after it. Axes are the stage's own; an axis that
runs along lanes is counted in blocks of B wherever sizes are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as OneOf

from tracedsl.hw.fpga.isa import Op
from tracedsl.ir.expr import Affine, Axis, Buffer, Stage

Kind = OneOf["gemm", "diag", "pool", "map"]
Format = OneOf["narrow", "wide", "tile"]


@dataclass(frozen=True)
class Form:
    """How a tensor lies in the accelerator's memory: `buffer` as it is seen, cut along `lanes` (dimensions; of a tile
    the output's, then the sum's) into elements of B lanes: vectors of int8 (narrow) or int32 (wide), or tiles of int8.
    The blocks are outermost, the other dimensions follow in order. A dimension None is made up: one value, in all lanes
    of a vector if `spread`, else in the first of them."""

    buffer: Buffer
    format: Format
    lanes: tuple[int | None, ...]
    spread: bool = False

    @property
    def others(self) -> tuple[int, ...]:
        """The dimensions that do not run along lanes."""
        return tuple(d for d in range(len(self.buffer.shape)) if d not in self.lanes)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal layouts of the same memory."""
        b = self.buffer
        return b.name, b.shape, b.strides, self.format, self.lanes, self.spread

    def extents(self, block: int) -> tuple[int, ...]:
        """Of the elements: blocks along the lanes, then the other dimensions."""
        shape = self.buffer.shape
        blocks = (1 if d is None else -(-shape[d] // block) for d in self.lanes)
        return (*blocks, *(shape[d] for d in self.others))


@dataclass(frozen=True)
class Operand:
    """A tensor and where a stage touches it: `blocks` are the axes that count its blocks (None: there is one block),
    `index` the positions in its other dimensions."""

    form: Form
    blocks: tuple[Axis | None, ...]
    index: tuple[Affine, ...]

    @property
    def memory(self) -> str:
        """The scratchpad that it is loaded to."""
        return {"narrow": "inp", "wide": "aux", "tile": "wgt"}[self.form.format]


@dataclass(frozen=True)
class Step:
    """acc region `target` op= `source`: a number, another region of the tile (`Region`), or an operand."""

    op: Op
    target: int
    source: int | Region | Operand


@dataclass(frozen=True)
class Region:
    """Another region of `acc`, as large as the tile of the result."""

    number: int


@dataclass(frozen=True)
class Epilogue:
    """What follows the sum: the ALU's steps, then the store of region `result`. `start`: what the sum starts with.
    `regions`: how many the steps need, the sum's (number 0) included."""

    steps: tuple[Step, ...] = ()
    result: int = 0
    regions: int = 1
    start: Operand | None = None
    multiplier: int = 1
    shift: int = 0
    low: int = -128
    high: int = 127

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Those that the steps read."""
        return tuple(step.source for step in self.steps if isinstance(step.source, Operand))


@dataclass(frozen=True)
class Work:
    """One stage. gemm: tiles of `weights` times vectors of `data`, summed over `inner` (along lanes) and `taps`; diag:
    lane by lane, summed over `taps`; pool: `data` combined by `combine` over `taps`; map: the epilogue alone.
    `lane`: the axis of the result's lanes; `rows`: its other axes, in the order of its dimensions."""

    kind: Kind
    stage: Stage
    out: Operand
    lane: Axis | None
    rows: tuple[Axis, ...]
    epilogue: Epilogue
    inner: Axis | None = None
    taps: tuple[Axis, ...] = ()
    data: Operand | None = None
    weights: Operand | None = None
    combine: Op = Op.ADD

    @property
    def spatial(self) -> tuple[Axis, ...]:
        """The axes of the result, the lanes' first."""
        return (*((self.lane,) if self.lane else ()), *self.rows)

    @property
    def reduce(self) -> tuple[Axis, ...]:
        return (*((self.inner,) if self.inner else ()), *self.taps)

    def extent(self, axis: Axis, block: int) -> int:
        """Steps along an axis: blocks along lanes."""
        return -(-axis.extent // block) if axis in (self.lane, self.inner) else axis.extent

    @property
    def operands(self) -> tuple[Operand, ...]:
        """All that is read."""
        first = tuple(o for o in (self.data, self.weights, self.epilogue.start) if o is not None)
        return (*first, *self.epilogue.operands)
