"""Numba as a target: loop programs to Python source, kept as source, compiled by Numba when it is loaded.

What holds here: making the text needs no Numba (`show("numba")` works without it); running it does. Schedules are those
for this machine's CPU, so that what is seen is what the other target runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tracedsl import __version__
from tracedsl.cache import digest
from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cpu.executable import ArrayLayout, Layout
from tracedsl.hw.cpu.target import Artefact, Cpu
from tracedsl.hw.numba import semantics
from tracedsl.hw.numba.source import FUNCTIONS, emit_program, header
from tracedsl.hw.target import Description, NativeCode
from tracedsl.ir.loops import LoopProgram

_SOURCE = "source"
_AGAIN = "compile it again; `tracedsl cache prune --kind kernel` removes what is stored"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Numba:
    """This machine's CPU, through Numba. `jit=False` runs the source as plain Python, which is slow and for tests."""

    jit: bool = True

    @property
    def name(self) -> str:
        return "numba"

    @property
    def about(self) -> str:
        return "this machine, by way of Python source for Numba"

    def missing(self) -> tuple[tuple[str, str], ...]:
        return () if find_spec("numba") else (("numba", "pip install 'tracedsl[numba]'"),)

    @property
    def description(self) -> Description:
        return replace(Cpu().description, name="numba")

    @property
    def texts(self) -> tuple[str, ...]:
        return ("numba",)

    def fingerprint(self) -> str:
        """Of Numba, of this generator, of the machine that schedules are made for. Raises TracedslError (H040)."""
        return digest(_numba().__version__ if self.jit else "", _generator(), str(self.description), str(self.jit))[:16]

    def compile(self, program: LoopProgram) -> Artefact:
        """The source and how to call it. Raises TracedslError (H020, H040)."""
        meta = {"target": "numba", "fingerprint": self.fingerprint(), "layout": Layout.of(program).to_json()}
        return Artefact({_SOURCE: emit_program(program).encode()}, meta)

    def load(self, blobs: Mapping[str, bytes], meta: Mapping[str, Any]) -> Compiled:
        """Have Numba compile the source. Raises TracedslError: H022 if it was made by another version or is
        incomplete, H040 if there is no Numba."""
        try:
            source, layout = blobs[_SOURCE].decode(), Layout.from_json(meta["layout"])
        except (KeyError, TypeError, ValueError) as error:
            raise TracedslError("H022", "compiled code is incomplete", why=f"{type(error).__name__}: {error}",
                                hint=_AGAIN) from error
        if meta.get("fingerprint") != self.fingerprint():
            raise TracedslError("H022", "compiled code is of another version", hint=_AGAIN,
                                why=f"it is of {meta.get('fingerprint')}, this is {self.fingerprint()}")
        return Compiled(source, layout, self.jit)

    def text(self, what: str, program: LoopProgram) -> str:
        """The source ("numba"), as it could stand in a file. Raises TracedslError (K002) for another word."""
        if what != "numba":
            raise TracedslError("K002", f"the target 'numba' has no {what!r} to show", hint="show('numba')")
        body = emit_program(program)
        return f"{header(body)}\n\n{body}"


class Compiled:
    """A loop program that Numba has compiled, callable with the addresses of its arrays."""

    native: NativeCode | None = None

    def __init__(self, source: str, layout: Layout, jit: bool) -> None:
        self._layouts = (*layout.params, *layout.results)
        names = _names(jit)
        exec(compile(source, "<numba>", "exec"), names)  # noqa: S102 - what emit_program wrote, checked by the store
        self._run = names["run"]
        if jit:
            numba = _numba()
            examples = [as_strided(np.zeros(1, _memory(a)), a.shape, a.strides) for a in self._layouts]
            self._run.compile(tuple(numba.typeof(example) for example in examples))

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """An array for a result, its content undefined."""
        return np.empty(shape, dtype)

    def run(self, pointers: Iterable[int]) -> None:
        """Run on the arrays at these addresses: params, then results. Nothing is checked."""
        with np.errstate(all="ignore"):
            self._run(*(layout.at(address) for address, layout in zip(pointers, self._layouts, strict=True)))


def _memory(layout: ArrayLayout) -> str:
    return "uint16" if layout.dtype == "float16" else layout.dtype


def _numba() -> Any:
    """The package. Raises TracedslError (H040) if it is not installed."""
    try:
        import numba
    except ImportError as error:
        raise TracedslError("H040", "the target 'numba' needs the package numba", why=str(error),
                            hint="pip install 'tracedsl[numba]'") from error
    return numba


@cache
def _helpers() -> dict[str, Any]:
    """The functions of `semantics`, compiled for whatever they are called with."""
    njit, made = _numba().njit(error_model="numpy"), dict(vars(semantics))
    for name in FUNCTIONS:
        plain: FunctionType = getattr(semantics, name)
        made[name] = njit(FunctionType(plain.__code__, made, name))     # they call each other by `made`
    return {name: made[name] for name in FUNCTIONS}


def _names(jit: bool) -> dict[str, Any]:
    """What the source may use."""
    basic = {"__name__": "tracedsl_numba", "np": np, "math": math, "as_strided": as_strided}
    if jit:
        numba = _numba()
        return {**basic, **_helpers(), "njit": numba.njit, "prange": numba.prange}

    def njit(*functions: Any, **_options: Any) -> Any:
        return functions[0] if functions else lambda function: function
    plain = {name: getattr(semantics, name) for name in FUNCTIONS}
    return {**basic, **plain, "njit": njit, "prange": range}


@cache
def _generator() -> str:
    """The generator's version: a digest of its source (and the package's version, where there is no source)."""
    here = Path(__file__).parent
    return digest(__version__, *(path.read_bytes() for path in sorted(here.rglob("*.py"))))
