"""The CPU as a target: loop programs to LLVM IR to object code to something that can be called.

What holds here: only glue. `codegen` writes the IR, `jit` compiles and links it, `pool` runs its parallel loops,
`executable` calls it. An artefact is plain data: it can be kept on disk and loaded by another process on an equal
machine without compiling anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracedsl import __version__
from tracedsl.cache import code_digest, digest
from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cpu.intrinsics import available
from tracedsl.hw.cpu.machine import Machine, host
from tracedsl.hw.target import Description

if TYPE_CHECKING:
    from tracedsl.hw.cpu.executable import Executable
    from tracedsl.ir.loops import LoopProgram

_OBJECT = "object"
_AGAIN = "compile it again; `tracedsl cache prune --kind kernel` removes what is stored"


@dataclass(frozen=True)
class Artefact:
    """Code that can be stored: `blobs` are bytes by name, `meta` is JSON and says how to call it."""

    blobs: Mapping[str, bytes]
    meta: Mapping[str, Any]


@dataclass(frozen=True)
class Cpu:
    """This machine's CPU, or (for looking at code) another one. `contract` allows fused multiply-add inside sums."""

    machine: Machine = field(default_factory=host)
    contract: bool = True

    @property
    def name(self) -> str:
        return "cpu"

    @property
    def about(self) -> str:
        m = self.machine
        return f"this machine: {m.cpu}, {m.cores} cores, {m.vector_bytes * 8}-bit vectors"

    def missing(self) -> tuple[tuple[str, str], ...]:
        return ()

    @property
    def description(self) -> Description:
        m = self.machine
        on = frozenset(word[1:] for word in m.features.split(",") if word.startswith("+"))
        return Description("cpu", m.vector_bytes, m.vector_registers, m.cores, (m.l1, m.l2, m.l3), on,
                           tuple(row.dot for row in available(m)))

    @property
    def texts(self) -> tuple[str, ...]:
        return "llvm", "asm"

    def fingerprint(self) -> str:
        """Of the machine, of LLVM and of the code generator itself."""
        return digest(self.machine.fingerprint(), str(self.machine.cores), _generator(), str(self.contract))[:16]

    def compile(self, program: LoopProgram) -> Artefact:
        """Object code and how to call it. Raises TracedslError (H001, H020) if no code can be made of the program."""
        from tracedsl.hw.cpu import jit
        from tracedsl.hw.cpu.abi import PARALLEL_FOR
        from tracedsl.hw.cpu.codegen import microseconds
        from tracedsl.hw.cpu.executable import Layout

        text = self.llvm(program)
        meta = {"target": "cpu", "fingerprint": self.fingerprint(), "layout": Layout.of(program).to_json(),
                "threads": f"@{PARALLEL_FOR}(" in text, "microseconds": sum(map(microseconds, program.nests))}
        return Artefact({_OBJECT: jit.compile_object(text, self.machine)}, meta)

    def load(self, blobs: Mapping[str, bytes], meta: Mapping[str, Any]) -> Executable:
        """Make stored code callable. Raises TracedslError: H022 if it was made for another machine or by another
        version or is incomplete, H002 if the bytes are no object code."""
        from tracedsl.hw.cpu import jit, pool
        from tracedsl.hw.cpu.abi import ENTRY
        from tracedsl.hw.cpu.executable import Executable, Layout

        try:
            image, layout, threads = blobs[_OBJECT], Layout.from_json(meta["layout"]), bool(meta["threads"])
            took = float(meta["microseconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise TracedslError("H022", "compiled code is incomplete", why=f"{type(error).__name__}: {error}",
                                hint=_AGAIN) from error
        if meta.get("fingerprint") != self.fingerprint():
            raise TracedslError("H022", "compiled code does not fit this machine", hint=_AGAIN,
                                why=f"it is for {meta.get('fingerprint')}, this is {self.fingerprint()}")
        imports = pool.pool().symbols if threads else {}
        return Executable(jit.load(image, [ENTRY], imports), layout, took)

    def llvm(self, program: LoopProgram) -> str:
        """The LLVM IR of a program."""
        from tracedsl.hw.cpu.codegen import emit_program

        return emit_program(program, self.machine, contract=self.contract)

    def assembly(self, program: LoopProgram) -> str:
        """The machine's assembly of a program."""
        from tracedsl.hw.cpu import jit

        return jit.assembly(self.llvm(program), self.machine)

    def text(self, what: str, program: LoopProgram) -> str:
        """A readable form of the code: "llvm" or "asm"."""
        return self.llvm(program) if what == "llvm" else self.assembly(program)


@cache
def _generator() -> str:
    """The code generator's version: a digest of its source (and the package's version, where there is no source)."""
    return digest(__version__, code_digest(Path(__file__).parent))
