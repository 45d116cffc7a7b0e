"""Tensor expressions: what one element of a tensor is, as a scalar expression over axes.

What holds here:
- Expressions are frozen and shared by identity; whoever builds them memoises, whoever walks them memoises by `id`.
- Positions are `Affine` wherever they can be: a sum of whole multiples of axes and a constant, compared by value. That
  is what strides, bounds and vectorisation are read from. Other positions (gathers) are integer expressions.
- Complex numbers do not occur: a complex buffer is seen as floats with twice the last extent (see `split_complex`).
- A `Task` is one launch: stages that share their outermost axes, each stage one tensor expression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal as OneOf

from tracedsl.ir.dtypes import short

Scope = OneOf["param", "result", "temp", "local", "register"]


@dataclass(frozen=True)
class Axis:
    """A loop variable that runs over 0 .. extent-1. Names are unique within a task."""

    name: str
    extent: int
    reduce: bool = False

    def __str__(self) -> str:
        return f"{self.name} in {self.extent}"


@dataclass(frozen=True)
class Affine:
    """constant + sum of coefficient * axis; terms are sorted by name and none is zero."""

    terms: tuple[tuple[Axis, int], ...] = ()
    constant: int = 0

    @staticmethod
    def of(axis: Axis, coefficient: int = 1, constant: int = 0) -> Affine:
        return Affine(((axis, coefficient),) if coefficient else (), constant)

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.terms, self.constant + other)
        sums = dict(self.terms)
        for axis, factor in other.terms:
            sums[axis] = sums.get(axis, 0) + factor
        kept = sorted(((a, f) for a, f in sums.items() if f), key=lambda term: term[0].name)
        return Affine(tuple(kept), self.constant + other.constant)

    def __mul__(self, factor: int) -> Affine:
        if factor == 0:
            return Affine()
        return Affine(tuple((a, f * factor) for a, f in self.terms), self.constant * factor)

    def coefficient(self, axis: Axis) -> int:
        return next((factor for a, factor in self.terms if a == axis), 0)

    def substitute(self, new: Mapping[Axis, Affine]) -> Affine:
        """Replace axes; those not in `new` stay."""
        result = Affine((), self.constant)
        for axis, factor in self.terms:
            result = result + new.get(axis, Affine.of(axis)) * factor
        return result

    def axes(self) -> frozenset[Axis]:
        return frozenset(axis for axis, _ in self.terms)

    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest value, both reached if the axes are independent."""
        low = self.constant + sum(min(0, f * (a.extent - 1)) for a, f in self.terms)
        high = self.constant + sum(max(0, f * (a.extent - 1)) for a, f in self.terms)
        return low, high

    def __str__(self) -> str:
        parts = [a.name if f == 1 else f"{f}*{a.name}" for a, f in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts).replace("+ -", "- ")


@dataclass(frozen=True)
class Buffer:
    """Memory: `strides` count elements (not bytes); `scope` tells where it lives.

    param, result: given by the caller; temp: workspace between tasks; local: a small array inside a task, one per
    thread; register: values that must stay in registers, indexed by unrolled and vector axes only.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    scope: Scope = "temp"

    @staticmethod
    def row_major(name: str, dtype: str, shape: Iterable[int], scope: Scope = "temp") -> Buffer:
        extents = tuple(shape)
        strides, step = [], 1
        for extent in reversed(extents):
            strides.append(step)
            step *= max(extent, 1)
        return Buffer(name, dtype, extents, tuple(reversed(strides)), scope)

    @property
    def size(self) -> int:
        """Elements."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    def __str__(self) -> str:
        return f"{self.name}: {short(self.dtype)}[{', '.join(map(str, self.shape))}]"


# -- expressions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Expr:
    """A scalar; `dtype` is a NumPy name ("float32", "int64", "bool")."""

    dtype: str


@dataclass(frozen=True, eq=False)
class Const(Expr):
    value: bool | int | float


@dataclass(frozen=True, eq=False)
class Position(Expr):
    """The value of a position as a number (dtype int64)."""

    index: Affine


Index = Affine | Expr


@dataclass(frozen=True, eq=False)
class Load(Expr):
    buffer: Buffer
    index: tuple[Index, ...]


@dataclass(frozen=True, eq=False)
class Call(Expr):
    """A scalar operation of `SCALAR_OPS`; all operands have the dtype that the operation works in."""

    op: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class Cast(Expr):
    """Conversion with C semantics, as NumPy's `astype`."""

    arg: Expr


@dataclass(frozen=True, eq=False)
class Reduced(Expr):
    """In a stage's `finish`: the value that the reduction gave."""


# name -> (number of operands, dtype of the result: "same" as the operands', "bool", or "second": as the second's)
SCALAR_OPS: dict[str, tuple[int, str]] = {
    **dict.fromkeys(("add", "sub", "mul", "div", "floordiv", "mod", "fmod", "pow", "maximum", "minimum", "fmax", "fmin",
                     "and", "or", "xor", "shl", "shr", "copysign", "hypot", "atan2"), (2, "same")),
    **dict.fromkeys(("neg", "abs", "sign", "not", "sqrt", "floor", "ceil", "trunc", "rint", "exp", "exp2", "expm1",
                     "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh",
                     "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "cbrt", "sigmoid"), (1, "same")),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), (2, "bool")),
    **dict.fromkeys(("isnan", "isinf", "isfinite", "signbit"), (1, "bool")),
    "select": (3, "second"),
}

# combiner -> its neutral element ("low"/"high": the smallest/largest value of the dtype)
COMBINERS: dict[str, float | str] = {
    "add": 0, "mul": 1, "maximum": "low", "minimum": "high", "or": 0, "and": 1, "fmax": "low", "fmin": "high",
}


# -- stages and tasks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Stage:
    """One tensor expression: for all `axes`, out[index] = finish(combine over `reduce` of value).

    Without `reduce`, `combine` and `finish` are None and the element is `value`. The reduction runs in `value`'s dtype.
    `index` is the position in `out`, over `axes` alone (a plain stage has one axis a dimension; a write into a part
    of a buffer has offsets).
    """

    name: str
    out: Buffer
    index: tuple[Affine, ...]
    axes: tuple[Axis, ...]
    value: Expr
    reduce: tuple[Axis, ...] = ()
    combine: str | None = None
    finish: Expr | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """What runs in one launch. The first `shared` axes are the same axes in every stage: for each point of them, the
    stages run in order (in the terms of Halide and TVM, all stages are computed at the innermost shared axis).
    Buffers of scope "local" live inside one such point. `hints` are the user's schedule hints, by stage."""

    name: str
    stages: tuple[Stage, ...]
    shared: int = 0
    hints: Mapping[str, tuple[tuple[str, tuple[object, ...]], ...]] = field(default_factory=dict)

    def buffers(self) -> tuple[Buffer, ...]:
        """Every buffer that is read or written, in order of first use, locals left out."""
        found: dict[str, Buffer] = {}
        for stage in self.stages:
            for expr in walk(*(e for e in (stage.value, stage.finish) if e is not None)):
                if isinstance(expr, Load):
                    found.setdefault(expr.buffer.name, expr.buffer)
            found.setdefault(stage.out.name, stage.out)
        return tuple(b for b in found.values() if b.scope not in ("local", "register"))


def children(expr: Expr) -> tuple[Expr, ...]:
    match expr:
        case Call():
            return expr.args
        case Cast():
            return (expr.arg,)
        case Load():
            return tuple(i for i in expr.index if isinstance(i, Expr))
        case _:
            return ()


def walk(*roots: Expr) -> Iterable[Expr]:
    """Each expression below the roots once, operands before their users."""
    seen: set[int] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        expr, done = stack.pop()
        if done:
            yield expr
        elif id(expr) not in seen:
            seen.add(id(expr))
            stack.append((expr, True))
            stack += [(child, False) for child in reversed(children(expr))]


# -- text ---------------------------------------------------------------------------------------------------------

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%", "and": "&", "or": "|",
          "xor": "^", "shl": "<<", "shr": ">>", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def text(expr: Expr | Affine) -> str:
    """The expression as it stands in a listing."""
    match expr:
        case Affine():
            return str(expr)
        case Const():
            return repr(expr.value)
        case Position():
            return f"({expr.index})"
        case Load():
            return f"{expr.buffer.name}[{', '.join(map(text, expr.index))}]"
        case Cast():
            return f"{short(expr.dtype)}({text(expr.arg)})"
        case Reduced():
            return "reduced"
        case Call(op=op, args=args) if op in _INFIX:
            return f"({text(args[0])} {_INFIX[op]} {text(args[1])})"
        case Call():
            return f"{expr.op}({', '.join(map(text, expr.args))})"
    raise TypeError(f"not an expression: {expr!r}")


def stage_text(stage: Stage) -> str:
    axes = ", ".join(map(str, stage.axes))
    value = text(stage.value)
    if stage.combine:
        value = f"{stage.combine}[{', '.join(map(str, stage.reduce))}] {value}"
    lines = [f"{stage.out.name}[{', '.join(map(str, stage.index))}] = {value}   for {axes}"]
    if stage.finish is not None:
        lines.append(f"  then {text(stage.finish)}")
    return "\n".join(lines)
