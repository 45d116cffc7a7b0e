"""What a target is: data that schedules and passes read, and the two functions that make something run.

What holds here: a `Target` is found by name and loaded on first use; describing a target loads no compiler.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from tracedsl.diagnostics import TracedslError, nearest
from tracedsl.ir.intrinsics import DotIntrinsic

if TYPE_CHECKING:
    from tracedsl.ir.loops import LoopProgram

# name -> module, class, what the class is called with; a target further away costs nothing until it is named
_TARGETS: dict[str, tuple[str, ...]] = {
    "cpu": ("tracedsl.hw.cpu.target", "Cpu"),
    "numba": ("tracedsl.hw.numba.target", "Numba"),
    "fpga-sim": ("tracedsl.hw.fpga.target", "FpgaSim"),
    "opencl": ("tracedsl.hw.opencl.target", "OpenCl"),
    **{name: ("tracedsl.hw.cross.target", "Cross", name)
       for name in ("aarch64", "aarch64-sve", "riscv64", "riscv64-rvv", "wasm32")},
}


@dataclass(frozen=True)
class Description:
    """What a scheduler needs to know. Sizes in bytes; `caches` from the nearest to the furthest, each as one core sees
    it; `vector_registers` counts them; `threads` is how many run at once; `intrinsics` are
    what single instructions do."""

    name: str
    vector_bytes: int
    vector_registers: int
    threads: int
    caches: tuple[int, ...]
    features: frozenset[str] = frozenset()
    intrinsics: tuple[DotIntrinsic, ...] = ()

    @property
    def l1(self) -> int:
        return self.caches[0]

    @property
    def l2(self) -> int:
        return self.caches[1]

    @property
    def l3(self) -> int:
        return self.caches[2]

    @property
    def cores(self) -> int:
        return self.threads


class Artefact(Protocol):
    """Code for one target, as plain data that `tracedsl.cache.Store` can keep: `blobs` are bytes by name, `meta` is
    JSON and says how to call it."""

    @property
    def blobs(self) -> Mapping[str, bytes]: ...

    @property
    def meta(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, eq=False)
class NativeCode:
    """Code that can be called by its address: `void code(void **arrays)`, with the params', results' and temporaries'
    addresses, in this order. `offsets`: where the temporaries lie in a workspace of so many bytes that starts on a
    cache line. `microseconds`: what one call is guessed to take. `keep` keeps the code loaded."""

    address: int
    offsets: tuple[int, ...]
    workspace: int
    microseconds: float
    keep: Any


class Runnable(Protocol):
    """Loaded code. It stays loaded as long as this object lives; any number of threads may call it."""

    @property
    def native(self) -> NativeCode | None:
        """The code itself, if it can be called by its address."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """An array for a result, its content undefined."""
        ...

    def run(self, pointers: Iterable[int]) -> None:
        """Run on the arrays at these addresses: params, then results. Nothing is checked."""
        ...


class Target(Protocol):
    """Turns scheduled loop programs into something that runs."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> str:
        """What it is, in one line for people."""
        ...

    @property
    def description(self) -> Description: ...

    @property
    def texts(self) -> tuple[str, ...]:
        """What `text` can show."""
        ...

    def fingerprint(self) -> str:
        """What, beside the program, decides what `compile` makes: part of every cache key."""
        ...

    def compile(self, program: LoopProgram) -> Artefact:
        """Code for a whole kernel. Raises TracedslError if no code can be made of the program."""
        ...

    def text(self, what: str, program: LoopProgram) -> str:
        """A readable form of the code: one of `texts`."""
        ...

    def missing(self) -> tuple[tuple[str, str], ...]:
        """What this machine lacks to compile for the target and to run what was compiled, each with the line that
        installs it."""
        ...

    def load(self, blobs: Mapping[str, bytes], meta: Mapping[str, Any]) -> Runnable:
        """Make stored code callable, in this process or in another one on an equal machine. Raises TracedslError if
        it does not fit."""
        ...


def target(name: str | Target) -> Target:
    """The target of this name; a target itself is given back. What stands behind a colon are settings of the target's
    own: "fpga-sim:block=16,rtl". Raises TracedslError (H003) if there is none."""
    if not isinstance(name, str):
        return name
    base, _, settings = name.partition(":")
    if base not in _TARGETS:
        raise TracedslError("H003", f"there is no target {base!r}", hint=nearest(base, _TARGETS))
    return _load(base, settings)


def names() -> list[str]:
    return sorted(_TARGETS)


def missing(name: str) -> tuple[tuple[str, str], ...]:
    """What this machine lacks for a target, each with the line that installs it. Raises TracedslError (H003)."""
    return target(name).missing()


@cache
def _load(name: str, settings: str) -> Target:
    module, attribute, *given = _TARGETS[name]
    kind = getattr(import_module(module), attribute)
    if settings and not hasattr(kind, "configured"):
        raise TracedslError("H003", f"the target {name!r} has no settings", hint=f"target={name!r}")
    made: Target = kind.configured(settings) if settings else kind(*given)
    return made
