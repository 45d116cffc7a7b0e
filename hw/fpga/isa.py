"""The instructions, as frozen data, and where each of their fields stands in a word.

What holds here: `LAYOUT` is the only place that knows bits; encoding and checking read it. A value
may be out of its field's range until the program is encoded or checked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Unit(IntEnum):
    LOAD = 0
    COMPUTE = 1
    STORE = 2


class Target(IntEnum):
    """Where a load writes; `DIAG`: each vector on the diagonal of a tile of `wgt`."""

    INP = 0
    WGT = 1
    AUX = 2
    DIAG = 3

    @property
    def memory(self) -> str:
        return "wgt" if self is Target.DIAG else self.name.lower()


class Start(IntEnum):
    """What GEMM adds its products to."""

    ACC = 0
    ZERO = 1
    AUX = 2


class Operand(IntEnum):
    """Where ALU finds b."""

    IMM = 0
    INP = 1
    AUX = 2
    ACC = 3


class Op(IntEnum):
    MOV = 0
    ADD = 1
    SUB = 2
    MIN = 3
    MAX = 4
    MUL = 5
    SHR = 6


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What an instruction waits for and gives: `prev` is the unit on the left (load -> compute -> store)."""

    pop_prev: bool = False
    pop_next: bool = False
    push_prev: bool = False
    push_next: bool = False


@dataclass(frozen=True)
class Walk:
    """An element for each step of three loops: `base` plus each counter times its stride, the innermost loop last."""

    base: int = 0
    strides: tuple[int, int, int] = (0, 0, 0)

    def last(self, counts: tuple[int, int, int]) -> int:
        return self.base + sum((n - 1) * s for n, s in zip(counts, self.strides, strict=True))


@dataclass(frozen=True, kw_only=True)
class Load(Tokens):
    """`rows` x `cols` elements from memory, `stride` vectors from row to row, to element `at` on."""

    target: Target
    at: int
    dram: int
    rows: int = 1
    cols: int = 1
    stride: int = 0
    before: int = 0
    between: int = 0
    after: int = 0
    value: int = 0

    unit = Unit.LOAD

    @staticmethod
    def padded(target: Target, at: int, dram: int, rows: int, cols: int, stride: int, *,
               pad: tuple[int, int, int, int], value: int = 0, **tokens: bool) -> Load:
        """With `pad` = (top, bottom, left, right) elements filled around the rows."""
        top, bottom, left, right = pad
        width = left + cols + right
        return Load(target=target, at=at, dram=dram, rows=rows, cols=cols, stride=stride, before=top * width + left,
                    between=left + right, after=right + bottom * width, value=value, **tokens)

    @property
    def elements(self) -> int:
        """Elements written, filled ones included."""
        return self.rows * self.cols + self.before + (self.rows - 1) * self.between + self.after


@dataclass(frozen=True, kw_only=True)
class Compute(Tokens):
    """Three loops, the innermost last; a step every `interval` cycles writes the next element of `acc`. `once`: the
    first pass of the outermost loop starts anew."""

    counts: tuple[int, int, int]
    acc: Walk
    once: bool = False
    interval: int = 1

    unit = Unit.COMPUTE

    @property
    def steps(self) -> int:
        return math.prod(self.counts)


@dataclass(frozen=True, kw_only=True)
class Gemm(Compute):
    """acc[d] = start + wgt[w] @ inp[x]."""

    inp: Walk
    wgt: Walk
    aux: Walk = Walk()
    start: Start = Start.ACC


@dataclass(frozen=True, kw_only=True)
class Alu(Compute):
    """acc[d] = acc[d] op b; `src` walks over the operand's scratchpad, `imm` is an int32."""

    op: Op
    operand: Operand = Operand.IMM
    src: Walk = Walk()
    imm: int = 0


@dataclass(frozen=True, kw_only=True)
class Store(Tokens):
    """`rows` x `cols` vectors of `acc`, `pitch` elements from row to row, to memory, `stride` vectors apart."""

    at: int
    dram: int
    rows: int = 1
    cols: int = 1
    pitch: int = 0
    stride: int = 0
    wide: bool = False
    multiplier: int = 1
    shift: int = 0
    low: int = -128
    high: int = 127

    unit = Unit.STORE


@dataclass(frozen=True, kw_only=True)
class Finish:
    """The end of a program; it belongs to no unit."""


Instruction = Load | Gemm | Alu | Store | Finish
Program = Sequence[Instruction]


@dataclass(frozen=True)
class Field:
    """Bits `low` to `low + width - 1` of a word."""

    low: int
    width: int
    signed: bool = False
    least: int = 0

    @property
    def range(self) -> tuple[int, int]:
        if self.signed:
            return -(1 << self.width - 1), (1 << self.width - 1) - 1
        return self.least, (1 << self.width) - 1


OPCODE = Field(0, 4)
CRC = Field(248, 8)
OPCODES: dict[type, int] = {Load: 1, Gemm: 2, Alu: 3, Store: 4, Finish: 5}
_TOKENS = {name: Field(4 + at, 1) for at, name in enumerate(("pop_prev", "pop_next", "push_prev", "push_next"))}
_ROWS = {"rows": Field(20, 12, least=1), "cols": Field(32, 12, least=1), "at": Field(44, 12), "dram": Field(56, 32),
         "stride": Field(88, 24)}
_LOOPS = {"once": Field(10, 1), "interval": Field(11, 3, least=1),
          **{f"count{level}": Field(20 + 12 * level, 12, least=1) for level in range(3)}}


def _walk(name: str, low: int) -> dict[str, Field]:
    return {name: Field(low, 12), **{f"{name}_stride{level}": Field(low + 12 + 12 * level, 12) for level in range(3)}}


LAYOUT: dict[type, dict[str, Field]] = {
    Load: {**_TOKENS, "target": Field(8, 2), **_ROWS, "before": Field(112, 12), "between": Field(124, 12),
           "after": Field(136, 12), "value": Field(148, 8, signed=True)},
    Gemm: {**_TOKENS, "start": Field(8, 2), **_LOOPS, **_walk("acc", 56), **_walk("inp", 104), **_walk("wgt", 152),
           **_walk("aux", 200)},
    Alu: {**_TOKENS, "operand": Field(8, 2), **_LOOPS, "op": Field(14, 3), **_walk("acc", 56), **_walk("inp", 104),
          **_walk("wgt", 152), **_walk("aux", 200), "imm": Field(152, 32, signed=True)},
    Store: {**_TOKENS, "wide": Field(8, 1), **_ROWS, "pitch": Field(112, 12), "multiplier": Field(124, 15),
            "shift": Field(139, 6), "low": Field(145, 8, signed=True), "high": Field(153, 8, signed=True)},
    Finish: {},
}
# The fields that are names, by the field's name.
ENUMS: dict[str, type[IntEnum]] = {kind.__name__.lower(): kind for kind in (Target, Start, Operand, Op)}
# The walk that an ALU's `src` is encoded as: the generator that feeds the operand's memory. For `acc` it is the one of
# `wgt`, which ALU does not read; the immediate lies in the same bits.
SOURCE_WALK = {Operand.INP: "inp", Operand.AUX: "aux", Operand.ACC: "wgt"}
MAX_SHIFT = 46


def name_of(instruction: Instruction) -> str:
    return type(instruction).__name__.lower()
