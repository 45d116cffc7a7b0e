"""Text IR to object code, and object code to callable addresses.

What holds here:
- `compile_object` needs LLVM's compiler; `load` only links bytes that are ready, in this process or another one, and
  without LLVM where `elf` understands them.
- What LLVM refuses is a `TracedslError` (H001) that shows the line of the IR; what cannot be linked is H002.
- Code stays loaded as long as its `Loaded` lives. Everything here may be called from any thread.
- llvmlite is imported on first use. Keeping objects on disk is the caller's business (`tracedsl.cache.Store`).
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cpu import elf
from tracedsl.hw.cpu.machine import Machine, host

_REPORT = "please report it with the output of show('llvm')"


class _Code(Protocol):
    """Where code lies; it is unloaded with this object unless it is to be kept."""

    def keep(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Loaded:
    """Object code in memory: the addresses of the symbols that were asked for."""

    symbols: Mapping[str, int]
    _code: _Code = field(repr=False)

    def __getitem__(self, name: str) -> int:
        return self.symbols[name]

    def keep(self) -> None:
        """Never unload this code, not even when the interpreter ends: threads of its own may be running it."""
        self._code.keep()


@dataclass(frozen=True, eq=False)
class _InLljit:
    """Code that LLVM linked."""

    tracker: Any
    engine: Any

    def keep(self) -> None:
        self.tracker._owned = True  # llvmlite: somebody else disposes of it


def compile_object(text: str, machine: Machine | None = None, *, opt: int = 2, passes: int = 0) -> bytes:
    """Object code (ELF, Mach-O or COFF) for `machine` (default: this one).

    opt: effort of instruction selection and scheduling, 0 to 3.
    passes: 0 takes the IR as it is, which explicit vectors want; 1 cleans up scalar code (promotes memory to
        registers, combines, removes what is dead); 2 and 3 are LLVM's own pipelines, which vectorise loops.
    Raises TracedslError (H001) if LLVM refuses the text.
    """
    with _prepared(text, machine or host(), opt, passes) as (module, target):
        return bytes(target.emit_object(module))


def assembly(text: str, machine: Machine | None = None, *, opt: int = 2, passes: int = 0) -> str:
    """What `compile_object` would make, as assembly."""
    with _prepared(text, machine or host(), opt, passes) as (module, target):
        return str(target.emit_assembly(module))


def optimized(text: str, machine: Machine | None = None, *, passes: int = 1) -> str:
    """The IR after the passes."""
    with _prepared(text, machine or host(), 2, passes) as (module, _):
        return str(module)


def load(image: bytes, symbols: Iterable[str], imports: Mapping[str, int] | None = None) -> Loaded:
    """Link object code and return the addresses of `symbols`.

    `imports` are addresses for symbols that the code uses; others are looked for in this process (libc, libm).
    Raises TracedslError (H002) if the bytes are no object code for this machine or a symbol is missing.
    """
    wanted, given = tuple(dict.fromkeys(symbols)), imports or {}
    try:
        linked = elf.link(image, wanted, given)
    except elf.NotLinked:
        return _engine().link(image, wanted, given)
    return Loaded(linked.symbols, linked)


class _Engine:
    """One ORC LLJIT. Its lock makes linking atomic; a library's name is never used twice."""

    def __init__(self) -> None:
        import llvmlite.binding as llvm

        _initialize()
        with suppress(RuntimeError):  # where libm has no name of its own, its functions are in libc already
            llvm.load_library_permanently("libm.so.6")
        self._llvm = llvm
        self._lljit = llvm.create_lljit_compiler(suppress_errors=True)
        self._lljit._owned = True  # it lives until the process ends: other threads may still run its code then
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def link(self, image: bytes, symbols: tuple[str, ...], imports: Mapping[str, int]) -> Loaded:
        builder = self._llvm.JITLibraryBuilder().add_object_img(image).add_current_process()
        for name, address in imports.items():
            builder.import_symbol(name, address)
        for name in symbols:
            builder.export_symbol(name)
        with self._lock:
            try:
                tracker = builder.link(self._lljit, f"tracedsl.{next(self._numbers)}")
            except RuntimeError as error:
                raise TracedslError("H002", "object code cannot be loaded", why=str(error).strip(),
                                    hint="clear the cache of kernels if it came from there; else " + _REPORT) from error
        return Loaded({name: tracker[name] for name in symbols}, _InLljit(tracker, self))


@cache
def _engine() -> _Engine:
    return _Engine()


@cache
def _initialize(native: bool = True) -> None:
    """LLVM's back end of this machine, or all of them."""
    import llvmlite.binding as llvm

    if not native:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        return
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()


@contextmanager
def _prepared(text: str, machine: Machine, opt: int, passes: int) -> Iterator[tuple[Any, Any]]:
    """The verified module, after its passes, and the target machine that makes code of it. Both are gone afterwards:
    a module must be disposed of before its context, which garbage collection would not promise."""
    import llvmlite.binding as llvm

    _initialize(machine.triple == llvm.get_process_triple())
    context = llvm.create_context()
    try:
        target = llvm.Target.from_triple(machine.triple).create_target_machine(
            cpu=machine.cpu, features=machine.features, opt=opt, reloc="pic", codemodel="default")
        with _refusals(text):
            module = llvm.parse_assembly(text, context)
        try:
            module.triple = machine.triple
            module.data_layout = str(target.target_data)
            with _refusals(text):
                module.verify()
            if passes:
                _run_passes(llvm, module, target, passes)
            yield module, target
        finally:
            module.close()
    finally:
        context.close()


@contextmanager
def _refusals(text: str) -> Iterator[None]:
    """LLVM's complaints as errors of ours."""
    try:
        yield
    except RuntimeError as error:
        raise TracedslError("H001", "LLVM refuses the generated code", why=_explain(str(error), text),
                            hint=_REPORT) from error


def _run_passes(llvm: Any, module: Any, target: Any, level: int) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=max(1, level))
    builder = llvm.create_pass_builder(target, options)
    if level == 1:
        manager = llvm.create_new_module_pass_manager()
        for add in ("add_sroa_pass", "add_instruction_combine_pass", "add_simplify_cfg_pass", "add_new_gvn_pass",
                    "add_aggressive_dce_pass"):
            if hasattr(manager, add):
                getattr(manager, add)()
    else:
        manager = builder.getModulePassManager()
    manager.run(module, builder)


def _explain(message: str, text: str) -> str:
    """LLVM's message, with the number and the text of the line of IR that it means, if it can be found."""
    lines = text.splitlines()
    if match := re.search(r":(\d+):\d+: error", message):
        number = int(match[1])
        return f"{message.strip()}\nIR line {number}: {lines[number - 1].strip() if number <= len(lines) else ''}"
    for part in map(str.strip, message.splitlines()):
        for number, line in enumerate(lines, 1):
            if part and part == line.strip():
                return f"{message.strip()}\nIR line {number}: {part}"
    return message.strip()
