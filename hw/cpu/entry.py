"""The native entry point: loading it, and giving instances of a natively callable class their plans.

What holds here: before anything is called natively, every offset that the code relies on is checked against real
objects of this interpreter and this NumPy; if one is off, calls go on through Python. All work here is done under the
interpreter lock.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import CellType, FunctionType
from typing import Any

import numpy as np

from tracedsl.cache import Store
from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cpu import entry_ir, memory, numpy_api, runtime
from tracedsl.hw.cpu.entry_plan import Plan
from tracedsl.hw.cpu.entry_type import can_call_natively
from tracedsl.hw.cpu.machine import host
from tracedsl.ir.dtypes import SHORT

CAPACITY = 64       # plans of one object


@dataclass(frozen=True)
class Native:
    """The loaded entry point for classes whose words stand at `words`. `versions`: dicts tell when they change."""

    address: int
    versions: bool


class Dispatch:
    """The plans of one natively callable object. `slow` is the function that serves what no plan does."""

    def __init__(self, target: Any, slow: Callable[..., Any], native: Native) -> None:
        self._plans: list[Plan] = []
        self._table = (ctypes.c_int64 * CAPACITY)()
        self._native, self._slow = native, slow
        target._slow = id(slow)
        target._table = ctypes.addressof(self._table)
        target._vectorcall = native.address

    def add(self, target: Any, plan: Plan) -> bool:
        """Serve calls by this plan, too. False if there is no room."""
        if len(self._plans) >= CAPACITY:
            return False
        self._table[len(self._plans)] = plan.address
        self._plans.append(plan)
        target._count = len(self._plans)
        return True

    @property
    def versions(self) -> bool:
        return self._native.versions


@cache
def native(words: int) -> Native | None:
    """The entry point for instances whose words start at byte `words`; None where it cannot be used."""
    at = entry_ir.Offsets(words)
    if not can_call_natively() or not _as_expected(at):
        return None
    try:
        imports = {**_python_symbols(), **_numpy_symbols()}
        loaded = runtime.load("native entry", entry_ir.source(at), (entry_ir.ENTRY, entry_ir.HANDLER), host(), Store(),
                              passes=2, imports=imports)
    except (TracedslError, AttributeError, ValueError):
        return None
    if (blocks := memory.pool()) is not None:
        ctypes.c_void_p.from_address(loaded[entry_ir.HANDLER]).value = id(blocks.capsule)
    return Native(loaded[entry_ir.ENTRY], _dicts_have_versions(at))


def _python_symbols() -> dict[str, int]:
    def address(name: str) -> int:
        return ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, name)) if name.endswith("_Type") else \
            ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0

    return {name: address(name) for name in entry_ir.PYTHON}


def _numpy_symbols() -> dict[str, int]:
    return {name: numpy_api.function(of) for name, of in entry_ir.NUMPY.items()}


# -- what the code relies on --------------------------------------------------------------------------------------


a = 0    # what `_assign` assigns, in whatever module it is put into


def _word(address: int) -> int:
    return ctypes.c_int64.from_address(address).value


def _half(address: int) -> int:
    return ctypes.c_int32.from_address(address).value


def _as_expected(at: entry_ir.Offsets) -> bool:
    """Whether arrays, scalars, cells and tuples look as the code reads them."""
    arrays = [np.arange(24.0).reshape(2, 3, 4), np.zeros((5, 7), np.int16).T, np.array(3, np.complex64),
              np.zeros((0, 2), bool), np.arange(10)[::-2]]
    cell, three = CellType(arrays), (1, 2, 3)
    return (all(_array_as_expected(array, at) for array in arrays) and _scalars_as_expected(at)
            and _word(id(cell) + at.cell) == id(arrays) and _word(id(three) + at.length) == len(three))


def _array_as_expected(array: np.ndarray[Any, Any], at: entry_ir.Offsets) -> bool:
    here, n = id(array), array.ndim
    if (_word(here + at.type), _word(here + at.descr)) != (id(np.ndarray), id(array.dtype)):
        return False
    swapped = array.dtype.newbyteorder()
    if [ctypes.string_at(id(d) + at.order, 1).decode() for d in (array.dtype, swapped)] != \
            [array.dtype.byteorder, swapped.byteorder]:
        return False
    if (_word(here + at.data), _half(here + at.nd), _half(here + at.flags)) != \
            (array.ctypes.data, n, array.flags.num):
        return False
    dims, strides = _word(here + at.dims), _word(here + at.strides)
    return n == 0 or ([_word(dims + 8 * i) for i in range(n)] == list(array.shape)
                      and [_word(strides + 8 * i) for i in range(n)] == list(array.strides))


def _scalars_as_expected(at: entry_ir.Offsets) -> bool:
    for name in SHORT:
        value = np.dtype(name).type(1)
        if ctypes.string_at(id(value) + at.scalar, value.nbytes) != value.tobytes():
            return False
    return True


def _assign() -> None:
    global a
    a = 5


def _dicts_have_versions(at: entry_ir.Offsets) -> bool:
    """Whether a word of a dict changes whenever the dict does, and stays when it is read. (PEP 509 had it so; later
    interpreters need not.)"""
    names: dict[str, Any] = {"a": 1, "b": 2}

    def changes(act: Callable[[], Any]) -> bool:
        before = _word(id(names) + at.version)
        act()
        return _word(id(names) + at.version) != before

    writes: list[Callable[[], Any]] = [
        lambda: names.__setitem__("a", 3), lambda: names.__setitem__("a", 4), lambda: names.update(c=1),
        lambda: names.pop("c"), lambda: names.setdefault("d", 1), lambda: names.__delitem__("d"),
        FunctionType(_assign.__code__, names), lambda: names.clear(),
    ]
    reads: list[Callable[[], Any]] = [lambda: names.get("a"), lambda: list(names.items()), lambda: "b" in names]
    return not any(map(changes, reads)) and all(map(changes, writes)) and not any(map(changes, reads))
