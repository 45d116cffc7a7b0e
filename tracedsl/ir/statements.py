"""Statements: what has loops, branches and writes of its own, beside the pure graph.

What holds here:
- A `Procedure` is a list of statements over scalar variables and array variables. An array variable is a descriptor:
  address, extents, strides; its dtype and rank are fixed, its extents are known at the call. So no shape and no trip
  count is part of a procedure.
- Expressions are pure: they read variables and elements. Whatever may go wrong (an index out of range, shapes that do
  not agree, a number too large) is guarded. A guard that fails leaves the procedure; the caller restores what was
  written and lets NumPy do the call.
- Every operation works in one dtype; conversions are explicit. Integers that stand for Python's have `exact`
  operations, which are guarded against overflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from textwrap import indent

from tracedsl.ir.dtypes import SHORT


class Expr:
    """Base of expressions; `dtype` is that of the value."""

    dtype: str


@dataclass(frozen=True)
class Const(Expr):
    value: bool | int | float
    dtype: str = "int64"

    def __str__(self) -> str:
        return str(self.value) if self.dtype in ("int64", "float64", "bool") else f"{SHORT[self.dtype]}({self.value})"


@dataclass(frozen=True)
class Var(Expr):
    name: str
    dtype: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Extent(Expr):
    array: str
    axis: int
    dtype: str = "int64"

    def __str__(self) -> str:
        return f"{self.array}.shape[{self.axis}]"


@dataclass(frozen=True)
class Element(Expr):
    """`array[index]`. `checked`: negative positions count from the end, and what is out of range is guarded."""

    array: str
    index: tuple[Expr, ...]
    dtype: str
    checked: bool = True

    def __str__(self) -> str:
        return f"{self.array}{'' if self.checked else '!'}[{_listed(self.index)}]"


@dataclass(frozen=True)
class Apply(Expr):
    """A scalar operation of `SCALAR_OPS` on operands of dtype `of`. `exact`: its overflow is guarded."""

    op: str
    args: tuple[Expr, ...]
    of: str
    dtype: str
    exact: bool = False

    def __str__(self) -> str:
        if self.op in _INFIX:
            return f"({self.args[0]} {_INFIX[self.op]} {self.args[1]})"
        return f"{self.op}({_listed(self.args)})"


@dataclass(frozen=True)
class Convert(Expr):
    arg: Expr
    dtype: str

    def __str__(self) -> str:
        return f"{SHORT[self.dtype]}({self.arg})"


@dataclass(frozen=True)
class View:
    """A part of an array: position `start[d] + step * i` along axis d, with one i for each of `axes`
    (axis of the array or None, step, extent); axes that are not named stay at their start."""

    array: str
    start: tuple[Expr, ...]
    axes: tuple[tuple[int | None, int, Expr], ...]

    def __str__(self) -> str:
        at: list[str] = list(map(str, self.start))
        for axis, step, extent in self.axes:
            if axis is not None:
                at[axis] += f" + {step}*[{extent}]"
        order = [axis for axis, _, _ in self.axes]
        return f"{self.array}[{', '.join(at)}]" + (f" as {order}" if order != sorted(order, key=str) else "")


@dataclass(frozen=True)
class Overlap(Expr):
    """Whether two views may share memory: the ranges of their addresses meet."""

    a: View
    b: View
    dtype: str = "bool"

    def __str__(self) -> str:
        return f"overlap({self.a}, {self.b})"


class Stmt:
    """Base of statements."""


Body = tuple[Stmt, ...]


@dataclass(frozen=True)
class Assign(Stmt):
    name: str
    value: Expr

    def __str__(self) -> str:
        return f"{self.name}: {SHORT[self.value.dtype]} = {self.value}"


@dataclass(frozen=True)
class Store(Stmt):
    array: str
    index: tuple[Expr, ...]
    value: Expr
    checked: bool = True

    def __str__(self) -> str:
        return f"{self.array}{'' if self.checked else '!'}[{_listed(self.index)}] = {self.value}"


@dataclass(frozen=True)
class Guard(Stmt):
    """Leave the procedure to NumPy unless the condition holds."""

    condition: Expr

    def __str__(self) -> str:
        return f"guard {self.condition}"


@dataclass(frozen=True)
class Loop(Stmt):
    """`for index in range(start, stop, step)`; the bounds are read once. `free`: no round touches elements that another
    one writes."""

    label: str
    index: str
    start: Expr
    stop: Expr
    step: int
    body: Body
    free: bool = False

    def __str__(self) -> str:
        head = f"{'free ' if self.free else ''}for {self.index} in range({self.start}, {self.stop}, {self.step}):"
        return f"{head}  # {self.label}\n{_text(self.body)}"


@dataclass(frozen=True)
class Block(Stmt):
    """Statements that `Leave(label)` leaves. `repeats`: after the last one the first follows; `Leave(label, True)`
    goes there at once."""

    label: str
    body: Body
    repeats: bool = False

    def __str__(self) -> str:
        return f"{'repeat' if self.repeats else 'block'}:  # {self.label}\n{_text(self.body)}"


@dataclass(frozen=True)
class Leave(Stmt):
    """Leave a loop or block; `again`: go on with its next round."""

    label: str
    again: bool = False

    def __str__(self) -> str:
        return f"{'continue' if self.again else 'leave'} {self.label}"


@dataclass(frozen=True)
class If(Stmt):
    condition: Expr
    then: Body
    otherwise: Body = ()

    def __str__(self) -> str:
        tail = f"\nelse:\n{_text(self.otherwise)}" if self.otherwise else ""
        return f"if {self.condition}:\n{_text(self.then)}{tail}"


@dataclass(frozen=True)
class Allocate(Stmt):
    """A new array. A `scratch` array lives until `Free`; what is `reused` is the procedure's own, and gone with the
    next but one array from here; others belong to the caller. `zero`: filled with zeros."""

    array: str
    extents: tuple[Expr, ...]
    zero: bool = False
    scratch: bool = False
    reused: bool = False

    def __str__(self) -> str:
        kind = "scratch" if self.scratch else "zeros" if self.zero else "empty"
        return f"{self.array} = {'own ' if self.reused else ''}{kind}({_listed(self.extents)})"


@dataclass(frozen=True)
class Free(Stmt):
    array: str

    def __str__(self) -> str:
        return f"free {self.array}"


@dataclass(frozen=True)
class Bind(Stmt):
    """The array variable becomes another name of a view."""

    array: str
    view: View

    def __str__(self) -> str:
        return f"{self.array} = view {self.view}"


@dataclass(frozen=True)
class Sum(Stmt):
    """`name` = the sum of `value` for each index in range(extent), the last one fastest; at least as accurate as by
    pairs (floats: blocks, whose sums are added with compensation)."""

    name: str
    indices: tuple[str, ...]
    extents: tuple[Expr, ...]
    value: Expr

    def __str__(self) -> str:
        loops = " ".join(f"for {i} in range({n})" for i, n in zip(self.indices, self.extents))
        return f"{self.name}: {SHORT[self.value.dtype]} = sum({self.value} {loops})"


@dataclass(frozen=True)
class Return(Stmt):
    """Hand out scalars and arrays (names) and leave. `form` says which of the procedure's forms of a result this is."""

    form: int
    scalars: tuple[Expr, ...]
    arrays: tuple[str, ...]

    def __str__(self) -> str:
        return f"return form {self.form}: {_listed((*self.scalars, *self.arrays))}"


@dataclass(frozen=True)
class ArrayType:
    """`unit`: neighbours along the last axis are neighbours in memory. `ones`: the axes that are known to have one
    element."""

    dtype: str
    rank: int
    unit: bool = True
    ones: tuple[int, ...] = ()

    def __str__(self) -> str:
        extents = ", ".join("1" if axis in self.ones else "?" for axis in range(self.rank))
        return f"{SHORT[self.dtype]}[{extents}]" + ("" if self.unit else " strided")


@dataclass(frozen=True)
class Procedure:
    """`params`: arrays and scalars in the order of the call; `arrays`: the types of all array variables; `scalars`:
    the dtypes of all scalar variables; `written`: the parameters that may be written."""

    name: str
    params: tuple[str, ...]
    arrays: dict[str, ArrayType]
    scalars: dict[str, str]
    written: tuple[str, ...]
    body: Body

    def __str__(self) -> str:
        listed = ", ".join(f"{p}: {self.arrays.get(p) or SHORT[self.scalars[p]]}" for p in self.params)
        return f"procedure {self.name}({listed})\n{_text(self.body)}"


def walk(part: object) -> Iterator[object]:
    """A statement or expression and all that stands in it."""
    if isinstance(part, tuple):
        for child in part:
            yield from walk(child)
    elif isinstance(part, Expr | Stmt | View):
        yield part
        for field in fields(part):  # type: ignore[arg-type]
            yield from walk(getattr(part, field.name))


def _text(body: Body) -> str:
    return indent("\n".join(map(str, body)) or "pass", "  ")


def _listed(parts: Iterable[object]) -> str:
    return ", ".join(map(str, parts))


_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%", "pow": "**", "and": "&",
          "or": "|", "xor": "^", "shl": "<<", "shr": ">>", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">",
          "ge": ">="}
