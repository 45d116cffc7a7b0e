"""Run loop programs as source for Numba: as plain Python, or compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracedsl.hw.numba.target import Numba
from tracedsl.ir.loops import LoopProgram

Array = np.ndarray[Any, Any]


def run_source(program: LoopProgram, params: Sequence[Array], jit: bool = False) -> list[Array]:
    """The results for these params, in the layouts that the program asks for."""
    target, results = Numba(jit), [np.zeros(r.shape, r.dtype) for r in program.results]
    made = target.compile(program)
    target.load(made.blobs, made.meta).run([a.ctypes.data for a in (*params, *results)])
    return results
