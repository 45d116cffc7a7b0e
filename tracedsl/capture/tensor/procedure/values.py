"""Values of a function whose statements are captured: typed scalars and array expressions.

What holds here: dtypes are decided by NumPy's own ufuncs (`resolve_dtypes`), with Python numbers as numbers that adapt
(`weak`). Python's integers are int64 with guarded overflow; what may leave 64 bits is marked `exact`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracedsl.ir.dtypes import BYTES, is_float, is_integer
from tracedsl.ir.expr import SCALAR_OPS
from tracedsl.ir.statements import Apply, Const, Convert, Expr, Extent, Var, View
from tracedsl.ir.tensor import numpy_function

BITS_OF_EXTENTS = 40     # arguments that are Python ints, extents, and what `range` counts: checked at the call
DTYPES = frozenset(name for name in BYTES if not name.startswith(("complex", "float16")))
OP_OF = {numpy_function(op): op for op in SCALAR_OPS if op not in ("select", "sigmoid", "erf", "erfc")}
OP_OF |= {np.conjugate: "same", np.positive: "same", np.fabs: "abs"}
OF_MATH: dict[Any, np.ufunc] = {getattr(math, name): getattr(np, as_numpy) for name, as_numpy in {
    **{n: n for n in ("sqrt", "fabs", "exp", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "sinh",
                      "cosh", "tanh", "hypot", "copysign")},
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2"}.items()}


class Refused(Exception):
    """Something that cannot be captured as a statement: what it is, and where (a node of the syntax tree) if known."""

    def __init__(self, what: str, node: Any = None) -> None:
        super().__init__(what)
        self.what, self.node = what, node


@dataclass(frozen=True)
class Kind:
    """The type of a scalar. `weak`: a Python number. `mixed`: in some rounds of a loop a Python int or float, in others
    of this type."""

    dtype: str
    weak: bool = False
    mixed: bool = False

    def joined(self, other: Kind) -> Kind:
        """The type of a variable that gets values of both types. Raises `Refused` if there is none."""
        if self == other:
            return self
        dtypes = {self.dtype, other.dtype}
        if self.weak and other.weak and dtypes <= {"int64", "float64"}:
            return Kind("float64", True, True)
        strong = [k.dtype for k in (self, other) if not k.weak]
        if dtypes == {"int64"}:
            return Kind("int64", False, True)
        if strong and set(strong) == {strong[0]} and is_float(strong[0]) and dtypes <= {strong[0], "int64", "float64"}:
            return Kind(strong[0], False, True)
        raise Refused(f"a variable that is {self.dtype} here and {other.dtype} there")


PYTHON_INT, PYTHON_FLOAT, OF_NUMPY = 0, 1, 2     # what a mixed variable is at a moment: its tag


@dataclass(frozen=True)
class Scalar:
    """`tag`: for mixed ones, an expression of PYTHON_INT, PYTHON_FLOAT, OF_NUMPY."""

    expr: Expr
    weak: bool = False
    mixed: bool = False
    tag: Expr | None = None

    @property
    def kind(self) -> Kind:
        return Kind(self.expr.dtype, self.weak, self.mixed)

    def tagged(self) -> Expr:
        if self.mixed:
            if self.tag is None:
                raise Refused("a value that is a number of Python or of NumPy by turns")
            return self.tag
        return Const(OF_NUMPY if not self.weak else PYTHON_FLOAT if is_float(self.expr.dtype) else PYTHON_INT)


@dataclass(frozen=True)
class Array:
    """An array expression: `at(index)` is its element; `reads` are the views that it reads, `view` is itself if it is
    one."""

    dtype: str
    extents: tuple[Expr, ...]
    at: Callable[[Sequence[Expr]], Expr]
    reads: tuple[View, ...] = ()
    view: View | None = None


@dataclass(frozen=True)
class Known:
    """A value that is known while the function is captured: a module, a function, a text, None."""

    value: Any


@dataclass(frozen=True)
class Several:
    parts: tuple[Any, ...]
    kind: str = "tuple"


Value = Scalar | Array | Known | Several


@dataclass
class Types:
    """What is known of the variables; it grows until nothing changes."""

    scalars: dict[str, Kind] = field(default_factory=dict)
    bits: dict[str, int] = field(default_factory=dict)
    changed: bool = False

    def bound(self, e: Expr) -> int:
        """How many bits the magnitude of an integer can have; 63 stands for any."""
        if isinstance(e, Const):
            return int(e.value).bit_length()
        if isinstance(e, Extent):
            return BITS_OF_EXTENTS
        if isinstance(e, Var):
            return self.bits.get(e.name, 63)
        if isinstance(e, Convert):
            return 8 * BYTES[e.arg.dtype] if is_integer(e.arg.dtype) else 1 if e.arg.dtype == "bool" else 63
        if isinstance(e, Apply):
            sizes = [self.bound(a) for a in e.args]
            if e.op in ("add", "sub"):
                return min(63, max(sizes) + 1)
            if e.op == "mul":
                return min(63, sum(sizes))
            if e.dtype == "bool":
                return 1
            if e.op in ("minimum", "maximum", "select", "neg", "abs"):
                return max(sizes[-2:])
            if e.op == "floordiv":      # only the smallest number by -1 is larger than it was
                return sizes[0] if isinstance(e.args[1], Const) and e.args[1].value > 0 else min(63, sizes[0] + 1)
            if e.op == "mod":
                return sizes[1]
            if e.op == "shr":
                return sizes[0]
        return 63

    def integer(self, op: str, a: Expr, b: Expr) -> Expr:
        """An operation on Python's integers."""
        if isinstance(a, Const) and isinstance(b, Const) and op in ("add", "sub", "mul"):
            x, y = int(a.value), int(b.value)
            folded = x + y if op == "add" else x - y if op == "sub" else x * y
            if folded.bit_length() <= 62:
                return Const(folded)
        if isinstance(b, Const) and b.value == 0 and op in ("add", "sub"):
            return a
        if isinstance(a, Const) and a.value == 0 and op == "add":
            return b
        made = Apply(op, (a, b), "int64", "int64")
        return made if self.bound(made) < 63 else Apply(op, (a, b), "int64", "int64", exact=True)


def number(value: Any) -> Scalar | None:
    """A number that is known."""
    if isinstance(value, bool | int | float):
        if isinstance(value, bool):
            return Scalar(Const(value, "bool"), True)
        if isinstance(value, int):
            return Scalar(Const(value), True) if value.bit_length() < 63 else None
        return Scalar(Const(float(value), "float64"), True)
    if isinstance(value, np.generic) and value.dtype.name in DTYPES:
        return Scalar(Const(value.item(), value.dtype.name))
    return None


def converted(e: Expr, dtype: str) -> Expr:
    if e.dtype == dtype:
        return e
    if isinstance(e, Const) and is_float(dtype):
        return Const(float(np.dtype(dtype).type(e.value)), dtype)
    if isinstance(e, Const) and is_integer(dtype) and not is_float(e.dtype):
        return Const(int(e.value), dtype)
    return Convert(e, dtype)


def loop_dtypes(ufunc: np.ufunc, operands: Sequence[Scalar | Array]) -> tuple[list[str], str]:
    """The dtypes that a ufunc works in and gives for these operands (NEP 50)."""
    kinds: list[Any] = []
    for o in operands:
        if isinstance(o, Scalar) and o.weak and o.expr.dtype != "bool":
            kinds.append(int if o.expr.dtype == "int64" else float)
        else:
            kinds.append(np.dtype(o.dtype if isinstance(o, Array) else o.expr.dtype))
    if all(kind is int or kind is float for kind in kinds):     # numbers alone: as NumPy makes arrays of them
        kinds = [np.dtype("int64" if kind is int else "float64") for kind in kinds]
    try:
        found = [d.name for d in ufunc.resolve_dtypes((*kinds, None))]
    except TypeError as error:
        raise Refused(f"{ufunc.__name__}: {error}") from None
    if not set(found) <= DTYPES:
        raise Refused(f"{ufunc.__name__} works in {', '.join(found)}")
    return found[:-1], found[-1]


def fits_weakly(o: Scalar, dtype: str) -> bool:
    """Whether a Python int is known to fit the dtype that it adapts to."""
    if not (o.weak and o.expr.dtype == "int64" and is_integer(dtype)) or dtype == "int64":
        return True
    info = np.iinfo(dtype)
    return isinstance(o.expr, Const) and int(info.min) <= o.expr.value <= int(info.max)


def index_type(value: Value) -> bool:
    return isinstance(value, Scalar) and is_integer(value.expr.dtype)


