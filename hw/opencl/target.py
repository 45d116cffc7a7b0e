"""OpenCL as a target: loop programs to OpenCL C, kept as source, built by the driver when they are loaded.

What holds here: a program that is kept has been built and run by the driver in another process. On a CPU, schedules are
those for this machine's registers and caches, one work-item is a part of a parallel loop, and arrays are not copied.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tracedsl.cache import Store, code_digest, digest
from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cpu.executable import Layout
from tracedsl.hw.cpu.target import Artefact, Cpu
from tracedsl.hw.opencl import device, trial
from tracedsl.hw.opencl.source import Launch, emit_program
from tracedsl.hw.span import Span
from tracedsl.hw.target import Description, NativeCode
from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.loops import LoopProgram

_SOURCE = "source"
_AGAIN = "compile it again; `tracedsl cache prune --kind kernel` removes what is stored"
_VECTOR_BYTES = 32      # drivers' compilers cut wider vectors in two, which doubles the registers that a tile takes
_GRAINS = 8      # work-items for each compute unit

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class OpenCl:
    """The device that `device.device()` finds."""

    @property
    def name(self) -> str:
        return "opencl"

    @property
    def about(self) -> str:
        try:
            return f"OpenCL on {device.device().name}"
        except TracedslError:
            return "OpenCL, on whatever driver this machine has"

    def missing(self) -> tuple[tuple[str, str], ...]:
        return device.missing()

    @property
    def texts(self) -> tuple[str, ...]:
        return ("opencl",)

    @property
    def description(self) -> Description:
        host = Cpu().description
        return replace(host, name="opencl", threads=device.device().units, intrinsics=(),
                       vector_bytes=min(host.vector_bytes, _VECTOR_BYTES))

    def fingerprint(self) -> str:
        """Of the device, its driver, and this generator."""
        found, here = device.device(), Path(__file__).parent
        return digest(found.name, found.version, str(found.options), code_digest(here),
                      code_digest(here.parent / "text"), str(self.description))[:16]

    def compile(self, program: LoopProgram) -> Artefact:
        """The source and how to launch it. Raises TracedslError (H001, H020, H070, H071, H072)."""
        source, launches = emit_program(program, self._grains())
        sizes = {b.name: _bytes(b.length, b.dtype) for b in program.temps}
        sizes |= {a.name: Span.of(0, a).size for layout in [Layout.of(program)]
                  for a in (*layout.params, *layout.results)}
        trial.check(source, [(launch.name, [sizes[b] for b in launch.buffers]) for launch in launches], _folder())
        meta = {"target": "opencl", "fingerprint": self.fingerprint(), "layout": Layout.of(program).to_json(),
                "launches": [[launch.name, launch.items, list(launch.buffers)] for launch in launches],
                "temps": [[b.name, sizes[b.name]] for b in program.temps]}
        return Artefact({_SOURCE: source.encode()}, meta)

    def load(self, blobs: Mapping[str, bytes], meta: Mapping[str, Any]) -> Compiled:
        """Have the driver build the source. Raises TracedslError: H022 if it was made by another version or is
        incomplete, H070 or H072 if there is no device that can be used."""
        try:
            source, layout = blobs[_SOURCE].decode(), Layout.from_json(meta["layout"])
            launches = [Launch(str(name), int(items), tuple(buffers)) for name, items, buffers in meta["launches"]]
            temps = {str(name): int(size) for name, size in meta["temps"]}
        except (KeyError, TypeError, ValueError) as error:
            raise TracedslError("H022", "compiled code is incomplete", why=f"{type(error).__name__}: {error}",
                                hint=_AGAIN) from error
        if meta.get("fingerprint") != self.fingerprint():
            raise TracedslError("H022", "compiled code is of another version or device", hint=_AGAIN,
                                why=f"it is of {meta.get('fingerprint')}, this is {self.fingerprint()}")
        return Compiled(source, layout, launches, temps)

    def text(self, what: str, program: LoopProgram) -> str:
        """The source ("opencl"); needs no driver. Raises TracedslError (K002) for another word."""
        if what != "opencl":
            raise TracedslError("K002", f"the target 'opencl' has no {what!r} to show", hint="show('opencl')")
        return emit_program(program, self._grains())[0]

    def _grains(self) -> int:
        return _GRAINS * (Cpu() if self.missing() else self).description.threads


class Compiled:
    """A loop program that the driver has built, callable with the addresses of its arrays."""

    native: NativeCode | None = None

    def __init__(self, source: str, layout: Layout, launches: Sequence[Launch], temps: Mapping[str, int]) -> None:
        import pyopencl as cl

        found = device.device()
        self._cl, self._layout, self._launches, self._temps = cl, layout, launches, temps
        self._context = cl.Context([found.handle])
        self._program = cl.Program(self._context, source).build(options=list(found.options))
        self._mine = threading.local()      # kernels hold their arguments: no two threads may share them

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """An array for a result, its content undefined."""
        return np.empty(shape, dtype)

    def run(self, pointers: Iterable[int]) -> None:
        """Run on the arrays at these addresses: params, then results. Nothing is checked."""
        cl, queue = self._cl, self._queue()
        buffers, mapped = dict(self._mine.temps), []
        arrays = [*self._layout.params, *self._layout.results]
        for number, (at, array) in enumerate(zip(pointers, arrays, strict=True)):
            written = number >= len(self._layout.params)
            span = Span.of(at, array)
            host = np.frombuffer(memoryview((ctypes.c_uint8 * span.size).from_address(span.address)), np.uint8)
            access = cl.mem_flags.READ_WRITE if written else cl.mem_flags.READ_ONLY
            buffers[array.name] = made = (cl.Buffer(self._context, access | cl.mem_flags.USE_HOST_PTR, hostbuf=host)
                                          if span.size else cl.Buffer(self._context, access, 1))
            if written and span.size:
                mapped.append((made, span.size))
        for launch, kernel in zip(self._launches, self._mine.kernels, strict=True):
            kernel.set_args(*(buffers[name] for name in launch.buffers))
            cl.enqueue_nd_range_kernel(queue, kernel, (launch.items,), (1,))
        for made, size in mapped:       # mapping is what makes results visible here
            view, _ = cl.enqueue_map_buffer(queue, made, cl.map_flags.READ, 0, (size,), np.uint8)
            view.base.release(queue)
        queue.finish()

    def _queue(self) -> Any:
        """This thread's queue; its kernels and temporaries are made with it."""
        cl, mine = self._cl, self._mine
        if not hasattr(mine, "queue"):
            mine.kernels = [cl.Kernel(self._program, launch.name) for launch in self._launches]
            mine.temps = {name: cl.Buffer(self._context, cl.mem_flags.READ_WRITE, max(1, size))
                          for name, size in self._temps.items()}
            mine.queue = cl.CommandQueue(self._context)
        return mine.queue


def _bytes(elements: int, dtype: str) -> int:
    return elements * BYTES[dtype]


def _folder() -> Path:
    """Where PoCL keeps what it compiles."""
    device.device()
    return Path(os.environ.get("POCL_CACHE_DIR", str(Store().root / "pocl")))
