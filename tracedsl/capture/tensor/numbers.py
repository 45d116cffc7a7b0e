"""Python floats and complex numbers that are arguments: NumPy lets them take the dtype of what they meet.

What holds here: arithmetic among such numbers and constants stays Python arithmetic. It is kept as a `HostExpr`, which
Python itself evaluates at each call, so that `ZeroDivisionError` and the like are Python's own; a number enters the
graph as a 0-d input when it meets an array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracedsl.capture.tensor.host import HostExpr
from tracedsl.capture.tensor.recorder import Recorder


class PythonNumber:
    """Stands for a Python float or complex number whose value is not known while the function is captured."""

    __array_priority__ = 1e6
    __slots__ = ("expr", "recorder")

    def __init__(self, recorder: Recorder, expr: HostExpr) -> None:
        self.recorder, self.expr = recorder, expr

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return complex if self.expr.kind == "complex" else float

    def _apply(self, op: str, *args: Any) -> Any:
        operands = [_host(arg) for arg in args]
        if any(operand is None for operand in operands):
            return NotImplemented
        kind = "complex" if any(o.kind == "complex" for o in operands if o) and op != "abs" else "float"
        return PythonNumber(self.recorder, HostExpr(op, tuple(operands), kind))

    def __neg__(self) -> Any:
        return self._apply("neg", self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self._apply("abs", self)

    @property
    def real(self) -> Any:
        return self if self.expr.kind == "float" else self._refuse_value("its real part")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            return NotImplemented
        return apply_by_identity(self.recorder, ufunc, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return apply_by_identity(self.recorder, function, args, kwargs)

    def _refuse_value(self, what: str) -> Any:
        return self.recorder.refuse(
            "C006", f"Python needs {what} of a number that is an argument",
            why="float arguments are not known while the function is captured",
            hint="if there are few values, pass an int, which is compiled in; or choose with np.where")

    def __bool__(self) -> bool:
        return self.recorder.refuse(
            "C005", "this test depends on a float argument", why="float arguments are not compiled in",
            hint="choose with np.where, or pass a bool or an int, which are compiled in")

    def __eq__(self, other: object) -> Any:
        return NotImplemented if _host(other) is None else bool(self)

    __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__
    __hash__ = None  # type: ignore[assignment]

    def __int__(self) -> int:
        return int(self._refuse_value("the whole part"))

    def __float__(self) -> float:
        return float(self._refuse_value("the value"))

    def __repr__(self) -> str:
        return str(self._refuse_value("the text"))

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return str(self._refuse_value("the text"))


def _host(value: Any) -> HostExpr | None:
    """As a host expression; None if it is no Python number."""
    if type(value) is PythonNumber:
        return value.expr
    if type(value) in (int, float, complex, bool):
        return HostExpr("number", (int(value) if type(value) is bool else value,),
                        "complex" if type(value) is complex else "float" if type(value) is float else "int")
    return None


def _binary(op: str) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    return (lambda self, other: self._apply(op, self, other)), (lambda self, other: self._apply(op, other, self))


for _op in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    _forward, _backward = _binary(_op)
    setattr(PythonNumber, f"__{_op}__", _forward)
    setattr(PythonNumber, f"__r{_op}__", _backward)


def apply_by_identity(recorder: Recorder, function: Any, args: Any, kwargs: Any) -> Any:
    """Call the symbolic form of a NumPy function; refused, with its name, if it has none."""
    found = recorder.table.get(id(function))
    if found is None:
        name = getattr(function, "__name__", repr(function))
        recorder.refuse("C007", f"np.{name} has no symbolic form", why="it cannot be compiled yet",
                        hint="leave this part to NumPy, or write it with other NumPy functions")
    return found(recorder, *args, **kwargs)


def call_extremum(recorder: Recorder, function: Callable[..., Any], args: Sequence[Any]) -> Any:
    """Python's `min` and `max`: of numbers, a number; what they do with arrays, they do by comparing."""
    given = args[0] if len(args) == 1 else args
    operands = [_host(arg) for arg in given]
    if any(o is None or o.kind == "complex" for o in operands):
        return function(given)
    return PythonNumber(recorder, HostExpr(function.__name__, tuple(operands), "float"))


def call_math(recorder: Recorder, name: str, args: Sequence[Any]) -> Any:
    """`math.name(...)` of numbers of which one at least is an argument."""
    operands = [_host(arg) for arg in args]
    if any(o is None for o in operands):
        recorder.refuse("C006", f"math.{name} needs the value of an argument",
                        hint=f"use np.{name}, which works on arrays and keeps the value symbolic")
    return PythonNumber(recorder, HostExpr(f"math.{name}", tuple(operands), "float"))
