"""Loaded machine code of a loop program, ready to be called with arrays.

What holds here:
- A call is one foreign call, with the GIL released; temporaries lie in one block of memory a thread, aligned to a cache
  line and reused.
- `run` trusts its caller: the addresses are those of arrays with the layouts that the code was made for. Calling the
  executable with arrays checks that first.
- Any number of threads may call at once.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cpu import memory
from tracedsl.hw.cpu.abi import ENTRY
from tracedsl.hw.cpu.jit import Loaded
from tracedsl.hw.target import NativeCode
from tracedsl.ir.dtypes import BYTES

if TYPE_CHECKING:
    from tracedsl.ir.expr import Buffer
    from tracedsl.ir.loops import LoopProgram

_LINE = 64  # bytes of a cache line; `offsets` are multiples of it

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ArrayLayout:
    """What one array must be: dtype (a NumPy name), shape, strides in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @staticmethod
    def of(buffer: Buffer) -> ArrayLayout:
        size = BYTES[buffer.dtype]
        return ArrayLayout(buffer.name, buffer.dtype, buffer.shape, tuple(s * size for s in buffer.strides))

    @cached_property
    def _kind(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    def at(self, address: int) -> Array:
        """The array that lies at an address; nothing keeps its memory. Elements of float16 are given as uint16."""
        dtype = "uint16" if self.dtype == "float16" else self.dtype
        if 0 in self.shape:
            return np.empty(self.shape, dtype)
        reach = [(n - 1) * s for n, s in zip(self.shape, self.strides)]
        low, high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
        memory = (ctypes.c_uint8 * (high - low + self._kind.itemsize)).from_address(address + low)
        return np.ndarray(self.shape, dtype, memoryview(memory), -low, self.strides)

    def fits(self, array: Array) -> bool:
        if array.dtype != self._kind or array.shape != self.shape:
            return False
        if array.strides == self.strides or array.size == 0:
            return True
        return all(extent == 1 or have == want
                   for extent, have, want in zip(self.shape, array.strides, self.strides, strict=True))


@dataclass(frozen=True)
class Layout:
    """What a call hands over: the arrays, and where the temporaries lie in the workspace (bytes)."""

    params: tuple[ArrayLayout, ...]
    results: tuple[ArrayLayout, ...]
    offsets: tuple[int, ...]
    workspace: int

    @staticmethod
    def of(program: LoopProgram) -> Layout:
        return Layout(tuple(map(ArrayLayout.of, program.params)), tuple(map(ArrayLayout.of, program.results)),
                      program.offsets, program.workspace)

    def to_json(self) -> dict[str, Any]:
        def rows(arrays: Iterable[ArrayLayout]) -> list[list[Any]]:
            return [[a.name, a.dtype, list(a.shape), list(a.strides)] for a in arrays]

        return {"params": rows(self.params), "results": rows(self.results), "offsets": list(self.offsets),
                "workspace": self.workspace}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Layout:
        """Raises KeyError, TypeError or ValueError if `data` is no layout."""
        def arrays(rows: Iterable[Sequence[Any]]) -> tuple[ArrayLayout, ...]:
            return tuple(ArrayLayout(str(name), str(dtype), tuple(map(int, shape)), tuple(map(int, strides)))
                         for name, dtype, shape, strides in rows)

        return Layout(arrays(data["params"]), arrays(data["results"]), tuple(map(int, data["offsets"])),
                      int(data["workspace"]))


class _Workspace(threading.local):
    """The calling thread's block for temporaries."""

    def __init__(self, size: int) -> None:
        self.memory = np.empty(size + _LINE, np.uint8)
        self.base = -(-int(self.memory.ctypes.data) // _LINE) * _LINE


class Executable:
    """A loop program as machine code. Call it with lists of arrays, or `run` it with their addresses."""

    def __init__(self, loaded: Loaded, layout: Layout, microseconds: float = 0.0) -> None:
        self.layout = layout
        self._microseconds = microseconds
        self._loaded = loaded  # keeps the code in memory
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(loaded[ENTRY])
        self._slots = ctypes.c_void_p * (len(layout.params) + len(layout.results) + len(layout.offsets))
        self._workspace = _Workspace(layout.workspace) if layout.offsets else None

    @property
    def address(self) -> int:
        """Of `void run(void **buffers)`: params, results, temporaries. Valid as long as this object lives."""
        return self._loaded[ENTRY]

    @property
    def native(self) -> NativeCode:
        return NativeCode(self.address, self.layout.offsets, self.layout.workspace, self._microseconds, self._loaded)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """An array for a result; large ones come from the pool of blocks."""
        return memory.empty(shape, dtype)

    def run(self, pointers: Iterable[int]) -> None:
        """Run on the arrays at these addresses: params, then results. Nothing is checked."""
        if self._workspace is None:
            self._call(self._slots(*pointers))
        else:
            base = self._workspace.base
            self._call(self._slots(*pointers, *(base + offset for offset in self.layout.offsets)))

    def __call__(self, params: Sequence[Array], results: Sequence[Array]) -> None:
        """Read `params`, write `results`.

        Raises TracedslError (H021) if an array is not what the code was made for.
        """
        self._check(self.layout.params, params)
        self._check(self.layout.results, results)
        self.run([array.ctypes.data for array in (*params, *results)])

    def _check(self, wanted: Sequence[ArrayLayout], arrays: Sequence[Array]) -> None:
        if len(wanted) != len(arrays):
            raise TracedslError("H021", f"{len(wanted)} arrays are needed, not {len(arrays)}")
        for layout, array in zip(wanted, arrays):
            if not layout.fits(array):
                raise TracedslError(
                    "H021", f"array {layout.name!r} does not fit the compiled code",
                    why=f"it is {array.dtype} {array.shape} with strides {array.strides}; the code was made for "
                        f"{layout.dtype} {layout.shape} with strides {layout.strides}",
                    hint="compile for these arrays, or copy them into the layout that the code wants")
