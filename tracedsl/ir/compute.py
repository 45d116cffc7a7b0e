"""`compute`, `axis`, `reduce_axis`: tensor expressions that a user writes element by element.

    k = reduce_axis(a.shape[1])
    c = compute((n, m), lambda i, j: k.sum(a[i, k] * b[k, j]))

What holds here:
- Under plain NumPy the axes are index grids, so the same text gives the right array. Output axes are the last
  dimensions of a grid, each reduce axis gets one dimension before them.
- Under capture the axes are `Scalar`s; the result is one `tensor.compute {body}` node, and one more for each reduction
  whose value is used further. A `Body` is immutable; its text is its identity.
- Capture hands over an array's `[...]` through `is_index(obj)` and `element(node, indices)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from tracedsl.diagnostics import TracedslError, Unsupported
from tracedsl.ir.body import Body
from tracedsl.ir.bounds import bounds
from tracedsl.ir.expr import SCALAR_OPS, Affine, Axis, Buffer, Call, Cast, Const, Expr, Index, Load, Position
from tracedsl.ir.graph import Builder, Node
from tracedsl.ir.tensor import OPS, TensorType, numpy_function

Grid = np.ndarray[Any, Any]


@dataclass(frozen=True)
class NamedAxis:
    """An output axis with a name, for use in the `shape` of `compute`."""

    extent: int
    name: str = ""


def axis(extent: int, name: str = "") -> NamedAxis:
    """An output axis of `extent` steps: `compute((axis(n, "row"), m), ...)` names it for schedules and listings."""
    return NamedAxis(_extent(extent), name)


def reduce_axis(extent: int, name: str = "") -> ReduceAxis:
    """An axis to sum (`.sum`), multiply (`.prod`) or compare (`.max`, `.min`) over, inside a `compute`."""
    return ReduceAxis(_extent(extent), name)


def compute(shape: Sequence[int | NamedAxis] | int, element_at: Callable[..., Any]) -> Any:
    """The array whose element at (i, j, ...) is `element_at(i, j, ...)`.

    Shape: `shape`; dtype: what NumPy gives for the expression. Under plain NumPy the expression is evaluated on index
    grids, which takes memory for all points of output and reduce axes at once. Raises IndexError as NumPy does.
    """
    active = _MODE.get()
    if isinstance(active, _Symbolic):
        raise Unsupported("S014", "a `compute` inside the expression of another one",
                          hint="compute the inner array first and index it")
    axes = _named(shape)
    mode = _Plain(tuple(a.extent for a in axes))
    with _entered(mode):
        value = np.asarray(element_at(*mode.outputs()))
    extra = value.ndim - len(axes)
    if extra > 0:
        if any(n != 1 for n in value.shape[:extra]):
            raise TracedslError("S014", "the expression of a `compute` still depends on a reduce axis",
                                hint="wrap it in k.sum(...), k.prod(...), k.max(...) or k.min(...)")
        value = value.reshape(value.shape[extra:])
    return np.array(np.broadcast_to(value, mode.shape))


class ReduceAxis(NDArrayOperatorsMixin):
    """What `reduce_axis` returns. In an index or in arithmetic it stands for its own value, 0 .. extent-1."""

    def __init__(self, extent: int, name: str = "") -> None:
        self.extent, self.name = extent, name

    def __repr__(self) -> str:
        return f"reduce_axis({self.extent}{f', {self.name!r}' if self.name else ''})"

    def sum(self, value: Any) -> Any:
        """The sum over this axis; small integers and booleans are summed as 64-bit ones, as in `np.sum`."""
        return _mode().reduce(self, value, "add")

    def prod(self, value: Any) -> Any:
        """The product over this axis."""
        return _mode().reduce(self, value, "mul")

    def max(self, value: Any) -> Any:
        """The largest value; NaN if there is one."""
        return _mode().reduce(self, value, "maximum")

    def min(self, value: Any) -> Any:
        """The smallest value; NaN if there is one."""
        return _mode().reduce(self, value, "minimum")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Grid:
        return np.asarray(_mode().grid(self), dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        mode = _mode()
        return getattr(ufunc, method)(*(mode.stand_in(i) if isinstance(i, ReduceAxis) else i for i in inputs), **kwargs)


# -- plain NumPy --------------------------------------------------------------------------------------------------


@dataclass
class _Plain:
    """One evaluation on grids: which dimension each reduce axis has got."""

    shape: tuple[int, ...]
    dims: dict[int, tuple[int, ReduceAxis]] = field(default_factory=dict)

    def outputs(self) -> list[Grid]:
        rank = len(self.shape)
        return [np.arange(n).reshape([-1 if d == dim else 1 for d in range(rank)]) for dim, n in enumerate(self.shape)]

    def _dim(self, over: ReduceAxis) -> int:
        return self.dims.setdefault(id(over), (len(self.shape) + 1 + len(self.dims), over))[0]

    def grid(self, over: ReduceAxis) -> Grid:
        return np.arange(over.extent).reshape([-1] + [1] * (self._dim(over) - 1))

    stand_in = grid

    def reduce(self, over: ReduceAxis, value: Any, kind: str) -> Any:
        given, dim = np.asarray(value), self._dim(over)
        wide = given.reshape((1,) * max(0, dim - given.ndim) + given.shape)
        place = wide.ndim - dim
        spread = np.broadcast_to(wide, (*wide.shape[:place], over.extent, *wide.shape[place + 1:]))
        return numpy_function(kind).reduce(spread, axis=place, keepdims=True)  # type: ignore[attr-defined]


# -- capture ------------------------------------------------------------------------------------------------------


class _Symbolic:
    """One `compute` under capture: the axes and operands met so far."""

    def __init__(self, builder: Builder, axes: tuple[Axis, ...]) -> None:
        self.builder, self.axes = builder, axes
        self.operands: dict[Node, Buffer] = {}
        self.reduce_axes: dict[int, tuple[Axis, ReduceAxis]] = {}

    def grid(self, over: ReduceAxis) -> Grid:
        raise Unsupported("S014", "an array that capture does not know is indexed inside a `compute`",
                          hint="pass the array as an argument of the kernel")

    def axis_of(self, over: ReduceAxis) -> Axis:
        taken = {a.name for a in self.axes} | {a.name for a, _ in self.reduce_axes.values()}
        name = next(n for n in (over.name, *"kqr", *(f"k{i}" for i in range(1, 99))) if n and n not in taken) \
            if id(over) not in self.reduce_axes else ""
        return self.reduce_axes.setdefault(id(over), (Axis(name, over.extent, True), over))[0]

    def stand_in(self, over: ReduceAxis) -> Scalar:
        return Scalar(Position("int64", Affine.of(self.axis_of(over))))

    def reduce(self, over: ReduceAxis, value: Any, kind: str) -> Scalar:
        given = _scalar(value)
        axes: tuple[Axis, ...] = (self.axis_of(over),)
        if given.pending is not None and given.pending[1] == kind:
            axes, inner = (*axes, *given.pending[0]), given.expr_of_pending
        else:
            loop = numpy_function(kind).resolve_dtypes(  # type: ignore[attr-defined]
                (None, np.dtype(given.expr.dtype), None), reduction=True)
            inner = _as(given.expr, loop[2].name)
        return Scalar(inner, (axes, kind))

    def placeholder(self, node: Node) -> Buffer:
        assert isinstance(node.type, TensorType)
        known = self.operands.get(node)
        if known is None:
            name = f"${len(self.operands)}"
            known = self.operands[node] = Buffer.row_major(name, node.type.dtype, node.type.shape, "param")
        return known

    def force(self, value: Scalar) -> Expr:
        """The value of a reduction, as an element of a node of its own."""
        assert value.pending is not None
        node = self.node(value.expr_of_pending, *value.pending)
        return Load(value.expr_of_pending.dtype, self.placeholder(node), tuple(map(Affine.of, self.axes)))

    def node(self, expr: Expr, reduce: tuple[Axis, ...] = (), combine: str | None = None) -> Node:
        body, used = Body.make(self.axes, list(self.operands.values()), expr, reduce, combine)
        nodes = list(self.operands)
        return self.builder.add(OPS["compute"], [nodes[i] for i in used], {"body": body})


class Scalar(NDArrayOperatorsMixin):
    """One element under capture: what an index or an array's element is while `compute` traces its function."""

    def __init__(self, expr: Expr, pending: tuple[tuple[Axis, ...], str] | None = None) -> None:
        self.expr_of_pending, self.pending = expr, pending
        self._forced: Expr | None = None

    @property
    def expr(self) -> Expr:
        if self.pending is None:
            return self.expr_of_pending
        if self._forced is None:
            self._forced = _symbolic().force(self)
        return self._forced

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.expr_of_pending.dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs or ufunc.nout != 1:
            return NotImplemented
        return _apply(ufunc, inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function is np.where and len(args) == 3 and not kwargs:
            test, a, b = map(_scalar, args)
            wide = np.result_type(*(x if isinstance(_weak(x), type) else _weak(x) for x in args[1:])).name
            return Scalar(Call(wide, "select", (_as(test.expr, "bool"), _as(a.expr, wide), _as(b.expr, wide))))
        return NotImplemented

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Grid:
        return _symbolic().grid(ReduceAxis(1))

    def astype(self, dtype: Any) -> Scalar:
        return Scalar(_as(self.expr, np.dtype(dtype).name))

    def __bool__(self) -> bool:
        raise Unsupported("S014", "a branch on an element inside a `compute`", hint="use np.where(test, a, b)")


def symbolic_compute(builder: Builder, shape: Sequence[int | NamedAxis] | int, element_at: Callable[..., Any]) -> Node:
    """`compute` under capture: adds the nodes and returns the one that holds the result. Raises `Unsupported`
    (S014)."""
    named = _named(shape)
    letters = iter(_free_names({a.name for a in named}))
    axes = tuple(Axis(a.name or next(letters), a.extent) for a in named)
    mode = _Symbolic(builder, axes)
    with _entered(mode):
        value = _scalar(element_at(*(Scalar(Position("int64", Affine.of(a))) for a in axes)))
        if value.pending is not None:
            return mode.node(value.expr_of_pending, *value.pending)
        return mode.node(value.expr)


def is_index(value: Any) -> bool:
    """Whether an index of an array contains a position of a running `compute`."""
    parts = value if isinstance(value, tuple) else (value,)
    return any(isinstance(part, ReduceAxis | Scalar) for part in parts)


def element(node: Node, indices: Any) -> Scalar:
    """The element of a captured array at the given positions; one position a dimension, no slices."""
    mode, parts = _symbolic(), indices if isinstance(indices, tuple) else (indices,)
    buffer = mode.placeholder(node)
    if len(parts) != len(buffer.shape):
        raise Unsupported("S014", f"{len(parts)} positions for an array of {len(buffer.shape)} dimensions",
                          why="inside a `compute` every dimension takes one position", span=node.span)
    index = tuple(_position(part, extent, node) for part, extent in zip(parts, buffer.shape))
    return Scalar(Load(buffer.dtype, buffer, index))


def _position(part: Any, extent: int, node: Node) -> Index:
    """A position that is in bounds for sure; one that may be negative counts from the end, as in NumPy."""
    expr = _scalar(part).expr
    if isinstance(expr, Const):
        expr = Position("int64", Affine((), int(expr.value)))
    limits = bounds(expr)
    if limits is None:
        raise Unsupported("S014", "a position inside a `compute` that depends on data", span=node.span,
                          why="it cannot be checked against the bounds beforehand")
    low, high = limits
    if low < -extent or high >= extent:
        raise IndexError(f"index {low if low < -extent else high} is out of bounds for an axis with size {extent}")
    if isinstance(expr, Position):
        if low >= 0:
            return expr.index
        if high < 0:
            return expr.index + extent
    if low >= 0:
        return expr
    wrapped = Call("int64", "add", (expr, Const("int64", extent)))
    return Call("int64", "select", (Call("bool", "lt", (expr, Const("int64", 0))), wrapped, expr))


# -- helpers ------------------------------------------------------------------------------------------------------

_MODE: ContextVar[_Plain | _Symbolic | None] = ContextVar("compute", default=None)
_OF_UFUNC = {numpy_function(op).__name__: op for op in SCALAR_OPS if op not in ("sigmoid", "select", "erf", "erfc")}


@contextmanager
def _entered(mode: _Plain | _Symbolic) -> Iterator[None]:
    token = _MODE.set(mode)
    try:
        yield
    finally:
        _MODE.reset(token)


def _mode() -> _Plain | _Symbolic:
    mode = _MODE.get()
    if mode is None:
        raise TracedslError("S014", "a reduce axis is used outside of `compute`",
                            hint="use it inside the function that is given to compute(shape, function)")
    return mode


def _symbolic() -> _Symbolic:
    mode = _mode()
    if not isinstance(mode, _Symbolic):
        raise TracedslError("S014", "a position of a `compute` is used after it has ended")
    return mode


def _apply(ufunc: np.ufunc, inputs: Sequence[Any]) -> Any:
    op = _OF_UFUNC.get(ufunc.__name__)
    if op is None:
        raise Unsupported("S014", f"np.{ufunc.__name__} inside a `compute` is not compiled")
    args = [_scalar(i).expr for i in inputs]
    if op in ("add", "sub", "mul") and (moved := _affine(op, args)) is not None:
        return Scalar(moved)
    if op == "pow" and isinstance(args[1], Const) and args[1].value == 2 and isinstance(inputs[1], int | float) \
            and args[0].dtype != "bool":
        return Scalar(Call(args[0].dtype, "mul", (args[0], args[0])))   # as NumPy's ** does; exact
    loop = ufunc.resolve_dtypes((*(_weak(i) for i in inputs), None))
    operands = tuple(_as(arg, dtype.name) for arg, dtype in zip(args, loop))
    return Scalar(Call(loop[-1].name, op, operands))


def _affine(op: str, args: list[Expr]) -> Expr | None:
    """Sums of positions and whole multiples stay affine."""
    places = [a.index if isinstance(a, Position) else
              Affine((), int(a.value)) if isinstance(a, Const) and a.dtype == "int64" else None for a in args]
    one, other = places
    if one is None or other is None:
        return None
    if op == "mul":
        if one.terms and other.terms:
            return None
        return Position("int64", one * other.constant if one.terms else other * one.constant)
    return Position("int64", one + other if op == "add" else one + other * -1)


def _weak(value: Any) -> Any:
    """The dtype for promotion; Python numbers are weak (NEP 50)."""
    if isinstance(value, bool | np.bool_):
        return np.dtype(bool)
    if isinstance(value, ReduceAxis):
        return np.dtype("int64")
    return type(value) if isinstance(value, int | float) and not isinstance(value, np.generic) else value.dtype


def _scalar(value: Any) -> Scalar:
    if isinstance(value, Scalar):
        return value
    if isinstance(value, ReduceAxis):
        return _symbolic().stand_in(value)
    if isinstance(value, bool | int | float | np.generic) and np.asarray(value).dtype.kind in "biuf":
        return Scalar(Const(np.asarray(value).dtype.name, value.item() if isinstance(value, np.generic) else value))
    raise Unsupported("S014", f"a {type(value).__name__} inside the expression of a `compute`",
                      hint="use elements a[i, j], numbers and NumPy functions of them")


def _as(expr: Expr, dtype: str) -> Expr:
    if expr.dtype == dtype:
        return expr
    if isinstance(expr, Const):
        return Const(dtype, np.asarray(expr.value).astype(dtype).item())
    return Cast(dtype, expr)


def _named(shape: Sequence[int | NamedAxis] | int | NamedAxis) -> tuple[NamedAxis, ...]:
    entries = (shape,) if isinstance(shape, int | NamedAxis | np.integer) else tuple(shape)
    return tuple(e if isinstance(e, NamedAxis) else NamedAxis(_extent(e)) for e in entries)


def _extent(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise TracedslError("S014", f"an axis needs a number of steps, not {value!r}",
                            hint="give a whole number of 0 or more, such as x.shape[0]")
    return int(value)


def _free_names(taken: set[str]) -> Iterator[str]:
    names = (*"ijlmnop", *(f"i{n}" for n in range(1, 99)))
    return (name for name in names if name not in taken)
