"""Tensor expressions: what one element of a tensor is, as a scalar expression over axes.

What holds here:
- Expressions are frozen and shared by identity; whoever builds them memoises, whoever walks them memoises by `id`.
- Positions are `Affine` wherever they can be: a sum of whole multiples of axes and a constant, compared by value. That
  is what strides, bounds and vectorisation are read from. Other positions (gathers) are integer expressions.
- Complex numbers do not occur: a complex buffer is seen as floats with one more dimension of extent 2
  (`split_complex`).
- A load may see a buffer by another shape and other strides than its owner: the name tells the memory, and the address
  is the sum of index * stride of the buffer that stands in the load.
- A `Task` is one launch: stages that share their outermost axes, each stage one tensor expression.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal as OneOf

from tracedsl.ir.dtypes import BYTES, is_float, is_integer, is_unsigned, short

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

    @property
    def length(self) -> int:
        """Elements from the first to the last, gaps included, where no stride is negative."""
        return 1 + sum(max(0, (n - 1) * s) for n, s in zip(self.shape, self.strides)) if self.size else 0

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


def address(index: Iterable[Index], buffer: Buffer) -> Affine | None:
    """The distance from the buffer's first element, in elements; None if a position is not affine (a gather)."""
    total = Affine()
    for entry, stride in zip(index, buffer.strides, strict=True):
        if not isinstance(entry, Affine):
            return None
        total = total + entry * stride
    return total


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


def neutral(combine: str, dtype: str) -> bool | int | float:
    """The element that changes nothing under a combiner."""
    what = COMBINERS[combine]
    if dtype == "bool":
        return combine in ("mul", "and", "minimum", "fmin")
    if combine == "and":
        return (1 << 8 * BYTES[dtype]) - 1 if is_unsigned(dtype) else -1
    if isinstance(what, str):
        if is_float(dtype):
            return -math.inf if what == "low" else math.inf
        bits = 8 * BYTES[dtype]
        if is_unsigned(dtype):
            return 0 if what == "low" else (1 << bits) - 1
        return -(1 << bits - 1) if what == "low" else (1 << bits - 1) - 1
    return int(what) if is_integer(dtype) else float(what)


# -- stages and tasks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Stage:
    """One tensor expression: for all `axes`, out[index] = finish(combine over `reduce` of value).

    Without `reduce`, `combine` and `finish` are None and the element is `value`. The reduction runs in `value`'s dtype.
    A `scan` combines along its one reduce axis in order and writes every partial result: `index` moves with that axis.
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
    scan: bool = False


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


def rebuild(roots: Iterable[Expr], change: Callable[[Expr], Expr]) -> list[Expr]:
    """Rebuild expressions from their leaves up: `change` sees each expression once, with its operands already
    replaced. What does not change keeps its identity, so that shared parts stay shared."""
    given, new = list(roots), dict[int, Expr]()
    for expr in walk(*given):
        moved = expr
        match expr:
            case Call(args=args):
                operands = tuple(new[id(arg)] for arg in args)
                if any(a is not b for a, b in zip(operands, args)):
                    moved = Call(expr.dtype, expr.op, operands)
            case Cast(arg=arg):
                if new[id(arg)] is not arg:
                    moved = Cast(expr.dtype, new[id(arg)])
            case Load(index=index):
                places = tuple(new[id(i)] if isinstance(i, Expr) else i for i in index)
                if any(a is not b for a, b in zip(places, index)):
                    moved = Load(expr.dtype, expr.buffer, places)
        new[id(expr)] = change(moved)
    return [new[id(root)] for root in given]


def substitute(roots: Iterable[Expr], axes: Mapping[Axis, Affine]) -> list[Expr]:
    """Replace axes in every position below the roots; axes not in `axes` stay."""

    def change(expr: Expr) -> Expr:
        match expr:
            case Position(index=index):
                moved = index.substitute(axes)
                return expr if moved == index else Position(expr.dtype, moved)
            case Load(index=index):
                places = tuple(i.substitute(axes) if isinstance(i, Affine) else i for i in index)
                return expr if places == index else Load(expr.dtype, expr.buffer, places)
        return expr

    return rebuild(roots, change)


# -- text ---------------------------------------------------------------------------------------------------------

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%", "and": "&", "or": "|",
          "xor": "^", "shl": "<<", "shr": ">>", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def text(expr: Expr | Affine) -> str:
    """The expression as it stands in a listing, shared parts written out each time (small ones) or named
    (`as_text`)."""
    return str(expr) if isinstance(expr, Affine) else as_text(expr)


def as_text(*roots: Expr) -> str:
    """The expressions, separated by commas; operations that are used more than once come first: `let t0 = ...; `."""
    uses: dict[int, int] = {}
    order = list(walk(*roots))
    for expr in order:
        for child in children(expr):
            uses[id(child)] = uses.get(id(child), 0) + 1
    written: dict[int, str] = {}
    lets: list[str] = []
    for expr in order:
        line = _line(expr, written)
        if uses.get(id(expr), 0) > 1 and isinstance(expr, Call):
            lets.append(f"let t{len(lets)} = {line.removeprefix('(').removesuffix(')') if line[0] == '(' else line}; ")
            line = f"t{len(lets) - 1}"
        written[id(expr)] = line
    return "".join(lets) + ", ".join(written[id(root)] for root in roots)


def _line(expr: Expr, written: Mapping[int, str]) -> str:
    match expr:
        case Const():
            return repr(expr.value)
        case Position():
            return f"({expr.index})"
        case Load():
            places = (str(i) if isinstance(i, Affine) else written[id(i)] for i in expr.index)
            return f"{expr.buffer.name}[{', '.join(places)}]"
        case Cast():
            return f"{short(expr.dtype)}({written[id(expr.arg)]})"
        case Reduced():
            return "reduced"
        case Call(op=op, args=(left, right)) if op in _INFIX:
            return f"({written[id(left)]} {_INFIX[op]} {written[id(right)]})"
        case Call():
            return f"{expr.op}({', '.join(written[id(arg)] for arg in expr.args)})"
    raise TypeError(f"not an expression: {expr!r}")


def stage_text(stage: Stage) -> str:
    axes = ", ".join(map(str, stage.axes))
    value = text(stage.value)
    if stage.combine:
        value = f"{'scan ' if stage.scan else ''}{stage.combine}[{', '.join(map(str, stage.reduce))}] {value}"
    lines = [f"{stage.out.name}[{', '.join(map(str, stage.index))}] = {value}   for {axes}".rstrip()]
    if stage.finish is not None:
        lines.append(f"  then {text(stage.finish)}")
    return "\n".join(lines)


def task_text(task: Task) -> str:
    """The task as it stands in golden files."""
    shared = ", ".join(map(str, task.stages[0].axes[:task.shared])) if task.stages else ""
    lines = [f"task {task.name}({', '.join(map(str, task.buffers()))})" + (f" for {shared}" if shared else "")]
    known: set[str] = set()
    for stage in task.stages:
        if stage.out.scope == "local" and stage.out.name not in known:
            lines.append(f"  local {stage.out}")
        known.add(stage.out.name)
        lines += [f"  {line}" for line in stage_text(stage).split("\n")]
    return "\n".join(lines)
