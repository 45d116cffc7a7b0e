"""A CPU that this machine is not, as a target: code of the CPU's generator in an image, run by an emulator.

What holds here: compiling needs LLVM and a linker, running an emulator; what is missing is said with the line that
installs it. Every call copies its arrays in and its results out.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tracedsl.cache import code_digest, digest
from tracedsl.diagnostics import TracedslError, nearest
from tracedsl.hw.cpu.executable import Layout
from tracedsl.hw.cpu.target import Artefact, Cpu
from tracedsl.hw.cross import emulator
from tracedsl.hw.cross.machines import TABLE, Row
from tracedsl.hw.cross.support import support
from tracedsl.hw.span import Span
from tracedsl.hw.target import Description, NativeCode
from tracedsl.ir.loops import LoopProgram

_IMAGE = "image"
_LINE = 64

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Cross:
    """The machine of a row of `machines.TABLE`, or of a row of your own."""

    name: str
    own: Row | None = field(default=None, repr=False)

    @cached_property
    def row(self) -> Row:
        if self.own is None and self.name not in TABLE:
            raise TracedslError("H003", f"there is no machine {self.name!r}", hint=nearest(self.name, TABLE))
        return self.own or TABLE[self.name]

    @cached_property
    def _cpu(self) -> Cpu:
        return Cpu(self.row.machine())

    @property
    def about(self) -> str:
        return self.row.about

    def missing(self) -> tuple[tuple[str, str], ...]:
        return emulator.missing(self.row)

    @property
    def description(self) -> Description:
        return replace(self._cpu.description, name=self.name)

    @property
    def texts(self) -> tuple[str, ...]:
        return self._cpu.texts

    def fingerprint(self) -> str:
        """Of the machine, of LLVM, of the generator and of what starts the code."""
        return digest(self._cpu.fingerprint(), code_digest(Path(__file__).parent), str(self.row))[:16]

    def compile(self, program: LoopProgram) -> Artefact:
        """An image and how to call it. Raises TracedslError (H001, H002, H020, H070)."""
        emulator.need(self.name, self.row, run=False)
        image = emulator.link(self.row, [self.object(program), self._object(support(self.row))])
        meta = {"target": self.name, "fingerprint": self.fingerprint(), "layout": Layout.of(program).to_json()}
        return Artefact({_IMAGE: image}, meta)

    def object(self, program: LoopProgram) -> bytes:
        """Object code with `void run(void **buffers)`."""
        return self._object(self._cpu.llvm(program))

    def _object(self, text: str) -> bytes:
        from tracedsl.hw.cpu import jit

        return jit.compile_object(text, self._cpu.machine)

    def load(self, blobs: Mapping[str, bytes], meta: Mapping[str, Any]) -> Emulated:
        """Make a stored image callable. Raises TracedslError: H022 if it was made by another version or is
        incomplete, H070 if nothing here can run it."""
        again = "compile it again; `tracedsl cache prune --kind kernel` removes what is stored"
        try:
            image, layout = blobs[_IMAGE], Layout.from_json(meta["layout"])
        except (KeyError, TypeError, ValueError) as error:
            raise TracedslError("H022", "compiled code is incomplete", why=f"{type(error).__name__}: {error}",
                                hint=again) from error
        if meta.get("fingerprint") != self.fingerprint():
            raise TracedslError("H022", "compiled code is of another version", hint=again,
                                why=f"it is of {meta.get('fingerprint')}, this is {self.fingerprint()}")
        emulator.need(self.name, self.row, run=True)
        return Emulated(self.row, image, layout)

    def text(self, what: str, program: LoopProgram) -> str:
        """A readable form of the code: "llvm" or "asm"."""
        return self._cpu.text(what, program)


class Emulated:
    """A loop program as an image for another machine."""

    native: NativeCode | None = None

    def __init__(self, row: Row, image: bytes, layout: Layout) -> None:
        self._row, self._image, self._layout = row, image, layout

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """An array for a result, its content undefined."""
        return np.empty(shape, dtype)

    def run(self, pointers: Iterable[int]) -> None:
        """Run on the arrays at these addresses: params, then results. Nothing is checked."""
        arrays = [*self._layout.params, *self._layout.results]
        spans = [Span.of(at, array) for at, array in zip(pointers, arrays, strict=True)]
        places, end = _places([span.size for span in spans], self._table(len(spans)))
        start = -(-end // _LINE) * _LINE
        block = emulator.run(self._row, self._image, lambda base: self._block(base, spans, places, start))
        for span, place in list(zip(spans, places))[len(self._layout.params):]:
            ctypes.memmove(span.address, bytes(block[place:place + span.size]), span.size)

    def _table(self, arrays: int) -> int:
        """Bytes of the addresses at the block's beginning."""
        return (arrays + len(self._layout.offsets)) * self._row.pointer_bytes

    def _block(self, base: int, spans: list[Span], places: list[int], temporaries: int) -> bytearray:
        block = bytearray(temporaries + self._layout.workspace)
        for span, place in zip(spans, places):
            block[place:place + span.size] = ctypes.string_at(span.address, span.size)
        at = [base + place - span.low for span, place in zip(spans, places)]
        at += [base + temporaries + offset for offset in self._layout.offsets]
        table = np.array(at, f"<u{self._row.pointer_bytes}").tobytes()
        block[:len(table)] = table
        return block


def _places(sizes: Iterable[int], end: int) -> tuple[list[int], int]:
    """Where blocks of these sizes lie, each on a cache line, and where they end."""
    places = []
    for size in sizes:
        places.append(-(-end // _LINE) * _LINE)
        end = places[-1] + size
    return places, end
