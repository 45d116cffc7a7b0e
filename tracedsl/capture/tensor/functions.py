"""The table of NumPy functions that have a symbolic form, by identity.

What holds here: one table, put together from the modules that define the forms. `form(recorder, *args, **kwargs)` takes
the arguments of the NumPy function and returns what it would return, with symbolic arrays in place of arrays.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from tracedsl.capture.tensor import composed, elementwise, linear, reductions, shaping, windows
from tracedsl.capture.tensor.arrays import SETITEM, SymbolicArray
from tracedsl.capture.tensor.hints import hint, symbolic_hint
from tracedsl.capture.tensor.host import OPERATORS
from tracedsl.capture.tensor.numbers import call_extremum, call_math
from tracedsl.capture.tensor.recorder import Implementation, Recorder
from tracedsl.capture.tensor.writes import set_item
from tracedsl.ir.compute import compute, symbolic_compute


def forms() -> dict[Any, Implementation]:
    """NumPy (or math) function -> symbolic form. Built anew each time: SciPy's functions join once SciPy is loaded."""
    names = [name.removeprefix("math.") for name in OPERATORS if name.startswith("math.")]
    numbers: dict[Any, Implementation] = {getattr(math, name): partial(_math, name) for name in names}
    own: dict[Any, Implementation] = {hint: symbolic_hint, compute: _compute, min: partial(_extremum, min),
                                      max: partial(_extremum, max), SETITEM: set_item}
    arrays = elementwise.table() | reductions.table() | linear.table() | shaping.table() | composed.table()
    arrays |= windows.table()
    return arrays | numbers | own


def by_identity() -> dict[int, Implementation]:
    """The table as the recorder takes it."""
    return {id(function): form for function, form in forms().items()}


def always_symbolic() -> frozenset[int]:
    """Functions whose symbolic form is used even when all arguments are known."""
    return frozenset(map(id, (*shaping.CREATION, hint, compute)))


def _math(name: str, recorder: Recorder, *args: Any) -> Any:
    return call_math(recorder, name, args)


def _extremum(function: Any, recorder: Recorder, *args: Any) -> Any:
    return call_extremum(recorder, function, args)


def _compute(recorder: Recorder, shape: Any, element_at: Any) -> SymbolicArray:
    return SymbolicArray(recorder, symbolic_compute(recorder.builder, shape, element_at))
