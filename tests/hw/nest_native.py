"""Compile and run loop programs without the target around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracedsl.hw.cpu import jit
from tracedsl.hw.cpu.codegen import ENTRY, PARALLEL_FOR, emit_program
from tracedsl.hw.cpu.executable import Executable, Layout
from tracedsl.hw.cpu.machine import Machine, host
from tracedsl.ir.loops import LoopProgram

Array = np.ndarray[Any, Any]


def build(program: LoopProgram, machine: Machine | None = None) -> Executable:
    text = emit_program(program, machine or host())
    assert PARALLEL_FOR not in text, "this sample must run on one thread"
    return Executable(jit.load(jit.compile_object(text, machine), [ENTRY]), Layout.of(program))


def run(program: LoopProgram, params: Sequence[Array], machine: Machine | None = None) -> list[Array]:
    """The results for these params, in the layouts that the program asks for."""
    results = [np.zeros(r.shape, r.dtype) for r in program.results]
    build(program, machine)(params, results)
    return results
