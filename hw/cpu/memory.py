"""Large results come from a pool of blocks that were used before: their pages are there already.

What holds here: arrays made by `empty` are NumPy's own in every respect (`owndata`, `resize`, freeing): NumPy is told
to take their memory from the pool (NEP 49), for the moment of their making alone. Without the pool (other systems,
limit 0) `empty` is `np.empty`. What the pool keeps is bounded by `limit`.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tracedsl.cache import Store
from tracedsl.diagnostics import TracedslError, warn
from tracedsl.hw.cpu import memory_ir, numpy_api, runtime
from tracedsl.hw.cpu.machine import host

LARGE = 1 << 20              # bytes; smaller results are left to malloc, which keeps them at hand itself
_VARIABLE = "TRACEDSL_MEMORY_POOL"
_MOST = 512 << 20


class _Handler(ctypes.Structure):
    """`PyDataMem_Handler` of NumPy's ndarraytypes.h."""

    _fields_ = (("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("ctx", ctypes.c_void_p),
                ("malloc", ctypes.c_void_p), ("calloc", ctypes.c_void_p), ("realloc", ctypes.c_void_p),
                ("free", ctypes.c_void_p))


@dataclass(eq=False)
class MemoryPool:
    """The loaded pool. `capsule` is what NumPy takes as a handler."""

    capsule: Any
    _symbols: Any
    _handler: _Handler
    _set: Callable[[Any], Any]

    @property
    def held(self) -> int:
        """Bytes that are kept for later."""
        return ctypes.c_int64.from_address(self._symbols[memory_ir.HELD]).value

    @property
    def limit(self) -> int:
        """The most bytes that are kept."""
        return self._limit.value

    @limit.setter
    def limit(self, size: int) -> None:
        self._limit.value = max(0, size)
        if self.held > self.limit:
            self.trim()

    def trim(self) -> None:
        """Give all that is kept back to the system."""
        ctypes.CFUNCTYPE(None)(self._symbols[memory_ir.TRIM])()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """`np.empty` out of the pool."""
        before = self._set(self.capsule)
        try:
            return np.empty(shape, dtype)
        finally:
            self._set(before)

    @property
    def _limit(self) -> ctypes.c_int64:
        return ctypes.c_int64.from_address(self._symbols[memory_ir.LIMIT])


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """`np.empty`; large arrays come from the pool."""
    if math.prod(shape) * np.dtype(dtype).itemsize < LARGE or (found := pool()) is None:
        return np.empty(shape, dtype)
    return found.empty(shape, dtype)


@cache
def pool() -> MemoryPool | None:
    """The pool of this process; None where there is none."""
    limit = _default_limit()
    if not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_void_p) != 8 or limit == 0:
        return None
    names = (memory_ir.MALLOC, memory_ir.CALLOC, memory_ir.REALLOC, memory_ir.FREE)
    try:
        loaded = runtime.load("memory pool", memory_ir.source(), (*names, memory_ir.LIMIT, memory_ir.HELD,
                                                                   memory_ir.TRIM), host(), Store())
        set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(numpy_api.function("PyDataMem_SetHandler"))
    except (TracedslError, ValueError):
        return None
    handler = _Handler(b"tracedsl", 1, None, *(loaded[name] for name in names))
    _KEPT.append(handler)            # arrays may outlive everything else
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    made = MemoryPool(new(ctypes.addressof(handler), b"mem_handler", None), loaded, handler, set_handler)
    made.limit = limit
    return made


_KEPT: list[_Handler] = []


def _default_limit() -> int:
    """Bytes to keep: as asked for in MiB, else a sixteenth of the machine's memory, but not more than 512 MiB."""
    if given := os.environ.get(_VARIABLE):
        try:
            return max(0, int(given)) << 20
        except ValueError:
            warn("H006", f"{_VARIABLE}={given!r} is no number of MiB", hint="0 switches the memory pool off")
    try:
        return min(_MOST, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 16)
    except (ValueError, OSError):
        return _MOST // 4
