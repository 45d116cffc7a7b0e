"""Plans: what the native entry point checks and calls, laid out in memory as `entry_ir` reads it.

What holds here: a plan is plain data about one call (`CallPlan`); `Plan` is its image in memory and owns all that the
image points to. An image never moves; its guards may be set anew while the interpreter lock is held.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from types import CellType
from typing import Any

import numpy as np

from tracedsl.hw.cpu import entry_ir as ir
from tracedsl.hw.cpu.memory import LARGE
from tracedsl.hw.target import NativeCode

Array = np.ndarray[Any, Any]

_C_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x001, 0x100, 0x400
_COMPARED = (int, str, bytes)       # equal values of these are found by ==, which runs no code of the user's
_RELEASE_US = 15.0                  # code that runs longer lets other threads have the interpreter


@dataclass(frozen=True)
class ArrayArgument:
    """An array of exactly this dtype and shape. `strides` in elements; None: C-contiguous. `slot`: which of the
    code's arrays it is, None if it is not read; `written`: which result goes straight into it."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    slot: int | None
    written: int | None = None

    def span(self) -> tuple[int, int]:
        """Where its bytes begin and end, counted from its first element."""
        size = np.dtype(self.dtype).itemsize
        strides = self.strides or tuple(math.prod(self.shape[i + 1:]) for i in range(len(self.shape)))
        ends = [(extent - 1) * stride * size for extent, stride in zip(self.shape, strides)]
        empty = 0 in self.shape
        return (0, 0) if empty else (sum(e for e in ends if e < 0), sum(e for e in ends if e > 0) + size)


@dataclass(frozen=True)
class RepeatedArgument:
    """The same array as an earlier argument."""

    position: int


@dataclass(frozen=True)
class FloatArgument:
    """A Python float, which the code reads as float64 and/or float32."""

    wide: int | None
    narrow: int | None


@dataclass(frozen=True)
class ScalarArgument:
    """A NumPy scalar of exactly this type."""

    dtype: str
    slot: int | None


@dataclass(frozen=True)
class StaticArgument:
    """A value that was compiled in."""

    value: Any


Argument = ArrayArgument | RepeatedArgument | FloatArgument | ScalarArgument | StaticArgument


@dataclass(frozen=True)
class Guard:
    """An outer name that must still have this value, or (`array`) an array like this one. `missing`: it must not be
    there."""

    holder: dict[str, Any] | CellType
    name: str
    value: Any
    missing: bool = False
    array: ArrayArgument | None = None


@dataclass(frozen=True)
class Out:
    """A result that the code writes to `slot`. `is_scalar`: it becomes a NumPy scalar."""

    dtype: str
    shape: tuple[int, ...]
    slot: int
    is_scalar: bool


@dataclass(frozen=True)
class Part:
    """One object that is returned: result `out`, argument `argument`, or a value."""

    out: int | None = None
    argument: int | None = None
    value: Any = None


@dataclass(frozen=True)
class CallPlan:
    """A whole call. `fixed`: arrays that belong to the plan, by slot. `single`: the one part is returned itself."""

    arguments: tuple[Argument, ...]
    guards: tuple[Guard, ...]
    outs: tuple[Out, ...]
    parts: tuple[Part, ...]
    single: bool
    fixed: tuple[tuple[int, Array], ...]
    code: NativeCode
    temps: tuple[int, ...]            # slots of the temporaries


@dataclass
class _Frame:
    """Words of a call's frame beside the addresses: numbers, and one for what nobody reads."""

    used: int
    unread: int = field(init=False)
    _next: Any = field(init=False)

    def __post_init__(self) -> None:
        self.unread = self.used
        self._next = count(self.used + 2 + self.used % 2, 2)     # numbers of up to 16 bytes, aligned

    def number(self) -> int:
        return int(next(self._next))

    def full(self) -> bool:
        return self.number() + 2 > ir.FRAME


class Plan:
    """The image of a `CallPlan`. Raises ValueError if it does not fit the entry point's frame."""

    def __init__(self, call: CallPlan, *, versions: bool) -> None:
        self._kept: list[Any] = [call]      # what the image points to
        slots = [a.slot for a in call.arguments if isinstance(a, ArrayArgument | ScalarArgument)]
        slots += [a.written for a in call.arguments if isinstance(a, ArrayArgument)]
        slots += [s for a in call.arguments if isinstance(a, FloatArgument) for s in (a.wide, a.narrow)]
        slots += [g.array.slot for g in call.guards if g.array is not None]
        known = [s for s in slots if s is not None] + [o.slot for o in call.outs] + [s for s, _ in call.fixed]
        self._frame = _Frame(max([*known, *call.temps], default=-1) + 1)
        self._versions = versions
        self._arrays = [0 if g.array is None else self._table([self._argument(g.array)]) for g in call.guards]
        self._guards = self._words([0] * len(ir.GUARD) * len(call.guards))
        self.expect(call.guards)
        code, workspace = call.code, None
        if code.workspace:
            size = -(-code.workspace // 64) * 64
            workspace = np.empty(size + 64, np.uint8)
            self._kept.append(workspace)
        words = {
            "nargs": len(call.arguments), "nguards": len(call.guards), "nouts": len(call.outs),
            "nparts": len(call.parts), "nfixed": len(call.fixed), "ntemps": len(call.temps),
            "arguments": self._table(self._argument(a) for a in call.arguments),
            "npairs": len(pairs := _pairs(call)), "pairs": self._table(pairs),
            "guards": ctypes.addressof(self._guards), "outs": self._table(self._out(o) for o in call.outs),
            "parts": self._table(self._part(p) for p in call.parts),
            "fixed": self._table((slot, array.ctypes.data) for slot, array in call.fixed),
            "temps": self._table(zip(call.temps, code.offsets, strict=True)),
            "workspace": -(-code.workspace // 64) * 64,
            "base": 0 if workspace is None else -(-workspace.ctypes.data // 64) * 64,
            "busy": 0, "code": code.address, "release": code.microseconds >= _RELEASE_US, "single": call.single,
        }
        self._image = self._words([int(words[name]) for name in ir.PLAN])
        if self._frame.full() or len(call.outs) > ir.OUTS:
            raise ValueError("too many arrays for the native entry point")

    @property
    def address(self) -> int:
        return ctypes.addressof(self._image)

    def expect(self, guards: Sequence[Guard]) -> None:
        """Expect these outer names from now on. There are as many as before, with arrays in the same places."""
        for number, guard in enumerate(guards):
            words = dict.fromkeys(ir.GUARD, 0)
            in_dict = isinstance(guard.holder, dict)
            words["kind"] = ir.CELL if not in_dict else ir.VERSIONED if self._versions else ir.PLAIN
            words |= {"holder": id(guard.holder), "name": id(guard.name), "version": -1}
            words["expected"] = 0 if guard.missing or guard.array is not None else id(guard.value)
            words["argument"] = self._arrays[number]
            for i, word in enumerate(words.values(), number * len(words)):
                self._guards[i] = word
        self._expected = tuple(guards)      # keeps the names, the dicts, and the values that are compared

    # -- records ------------------------------------------------------------------------------------------------

    def _words(self, values: Sequence[int]) -> Any:
        made = (ctypes.c_int64 * max(1, len(values)))(*values)
        self._kept.append(made)
        return made

    def _table(self, records: Iterable[Sequence[int]]) -> int:
        return ctypes.addressof(self._words([int(word) for record in records for word in record]))

    def _slot(self, slot: int | None) -> int:
        return self._frame.unread if slot is None else slot

    def _argument(self, a: Argument) -> list[int]:
        record = dict.fromkeys(ir.ARGUMENT, 0)
        record["slot"] = record["narrow_slot"] = record["scratch"] = record["narrow_scratch"] = self._frame.unread
        match a:
            case ArrayArgument():
                dtype = np.dtype(a.dtype)
                self._kept.append(dtype)
                record |= {"kind": ir.ARRAY, "expected": id(dtype), "nd": len(a.shape), "slot": self._slot(a.slot),
                           "mask": _ALIGNED | (0 if a.strides else _C_CONTIGUOUS)
                           | (0 if a.written is None else _WRITEABLE), "narrow_slot": self._slot(a.written),
                           "dims": ctypes.addressof(self._words(a.shape))}
                if a.strides is not None:
                    record["strides"] = ctypes.addressof(self._words([s * dtype.itemsize for s in a.strides]))
            case RepeatedArgument():
                record |= {"kind": ir.REPEATED, "expected": a.position}
            case FloatArgument():
                record |= {"kind": ir.FLOAT, "slot": self._slot(a.wide), "narrow_slot": self._slot(a.narrow),
                           "scratch": self._frame.number(), "narrow_scratch": self._frame.number()}
            case ScalarArgument():
                record |= {"kind": ir.SCALAR, "expected": id(np.dtype(a.dtype).type), "slot": self._slot(a.slot)}
            case StaticArgument():
                self._kept.append(a.value)
                record |= {"kind": ir.STATIC, "expected": id(a.value), "nd": type(a.value) in _COMPARED}
        return list(record.values())

    def _out(self, o: Out) -> list[int]:
        dtype = np.dtype(o.dtype)
        self._kept.append(dtype)
        size = dtype.itemsize * math.prod(o.shape)
        kind = ir.NEW_SCALAR if o.is_scalar else ir.NEW_ARRAY
        scratch = self._frame.number() if o.is_scalar else self._frame.unread
        return [id(dtype), len(o.shape), ctypes.addressof(self._words(o.shape)), o.slot, kind, scratch, size >= LARGE]

    def _part(self, p: Part) -> tuple[int, int]:
        if p.out is not None:
            return ir.OF_OUT, p.out
        return (ir.OF_ARGUMENT, p.argument) if p.argument is not None else (ir.OF_PLAN, id(p.value))


def _pairs(call: CallPlan) -> list[tuple[int, int, int, int, int]]:
    """Arrays that must lie apart: one that is written, and any other."""
    arrays = [a for a in call.arguments if isinstance(a, ArrayArgument)]
    arrays += [g.array for g in call.guards if g.array is not None]
    pairs = []
    for at, array in enumerate(arrays):
        for other in (a for n, a in enumerate(arrays) if array.written is not None and n != at):
            slot = other.slot if other.slot is not None else other.written
            if slot is not None:
                assert array.written is not None
                pairs.append((array.written, array.span()[1], slot, *other.span()))
    return pairs
