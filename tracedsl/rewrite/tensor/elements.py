"""Nodes to scalar expressions: what one element of a node is, down to the nearest buffers.

What holds here:
- An element-wise node becomes an operation on its inputs' elements, a view moves the index, a node that has a buffer
  becomes a load. Equal (node, index) give the same expression object, so that shared parts are computed once.
- The walk keeps its own stack: chains may be as long as an unrolled loop makes them.
- Where an element cannot be written as an expression, `NeedsBuffer` names the node that must be computed beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tracedsl.diagnostics import Unsupported
from tracedsl.ir.body import Body
from tracedsl.ir.dtypes import REAL_OF
from tracedsl.ir.expr import (
    SCALAR_OPS,
    Affine,
    Axis,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    Index,
    Load,
    Position,
    Reduced,
    rebuild,
    walk,
)
from tracedsl.ir.graph import CONSTANT, Node
from tracedsl.ir.tensor import OPS, TensorType, row_major
from tracedsl.rewrite.tensor.index import (
    flat_position,
    is_row_major,
    scaled,
    seen_as,
    unflatten,
    weighted,
)
from tracedsl.rewrite.tensor.padding import padding
from tracedsl.rewrite.tensor.split_complex import Pair, Value, complex_cast, complex_op, split_complex
from tracedsl.rewrite.tensor.terms import count_of, is_written_out, terms

Key = tuple[Node, tuple[Index, ...]]

_BOOL_MEANING = {"add": "or", "mul": "and", "maximum": "or", "minimum": "and", "fmax": "or", "fmin": "and"}
_SCALAR = {op: name for name, op in OPS.items() if name in SCALAR_OPS or name in ("real", "imag", "conj")}


class NeedsBuffer(Exception):
    """`node` has to be in memory first; with `shape`, other axes for the stage may do as well: refine them by it."""

    def __init__(self, node: Node, shape: tuple[int, ...] | None = None) -> None:
        super().__init__(node.op.name)
        self.node, self.shape = node, shape


def shape_of(node: Node) -> tuple[int, ...]:
    assert isinstance(node.type, TensorType)
    return node.type.shape


def dtype_of(node: Node) -> str:
    assert isinstance(node.type, TensorType)
    return node.type.dtype


def combiner_for(kind: str, dtype: str) -> str:
    """The combiner of a reduction: sums of booleans are `or`, and so on, as in NumPy."""
    return _BOOL_MEANING.get(kind, kind) if dtype == "bool" else kind


class Elements:
    """Elements of nodes, given the buffers that exist. `absorbed` is the reduction that becomes `Reduced`."""

    def __init__(self, buffers: Mapping[Node, Buffer], root: Node | None = None, absorbed: Node | None = None) -> None:
        self.buffers, self.root, self.absorbed = buffers, root, absorbed
        self.reduced_at: tuple[Index, ...] | None = None
        self.hints: dict[Node, None] = {}
        self._known: dict[Key, Value] = {}

    def element(self, node: Node, index: Sequence[Index]) -> Value:
        """The element of `node` at `index`. Raises `NeedsBuffer`, `Unsupported`."""
        stack: list[Key] = [(node, tuple(index))]
        goal = stack[0]
        while stack:
            key = stack[-1]
            if key in self._known:
                stack.pop()
                continue
            needs = self._needs(*key)
            missing = [need for need in needs if need not in self._known]
            if missing:
                stack += missing
            else:
                self._known[key] = self._make(*key, [self._known[need] for need in needs])
                stack.pop()
        return self._known[goal]

    def _in_memory(self, node: Node) -> bool:
        return node in self.buffers and node is not self.root

    def _needs(self, node: Node, index: tuple[Index, ...]) -> list[Key]:
        """The elements that this one is made of."""
        if self._in_memory(node) or node is self.absorbed or node.op is CONSTANT:
            return []
        name = node.op.name.removeprefix("tensor.")
        if node.op in _SCALAR or name in ("cast", "complex", "hint"):
            return [(source, index) for source in node.inputs]
        if name == "contract" and is_product(node):
            spots = dict(zip(node.attr("spec").split("->")[1], index))
            return [(source, tuple(spots[letter] for letter in letters))
                    for source, letters in zip(node.inputs, node.attr("spec").split("->")[0].split(","))]
        if name == "reduce" and not node.attr("axes"):
            return [(node.inputs[0], index)]
        if is_written_out(node):
            return [place for factors in terms(node, index) for place in factors]
        if name == "compute" and not node.attr("body").reduce:
            return self._body_needs(node.attr("body"), node.inputs, index)
        if name in _VIEW_INDEX and not (name == "reshape" and self._seen_through(node, index) is not None):
            return [(node.inputs[0], _VIEW_INDEX[name](node, index))]
        if name in ("reshape", "iota"):
            return []
        if (border := padding(node)) is not None:
            return [(border.source, border.inside(index)), (border.fill, ())]
        raise NeedsBuffer(node)

    def _make(self, node: Node, index: tuple[Index, ...], args: list[Value]) -> Value:
        if self._in_memory(node):
            return load(self.buffers[node], dtype_of(node), index)
        if node is self.absorbed:
            return self._reduced(node, index)
        if node.op is CONSTANT:
            return _constant(node)
        name = node.op.name.removeprefix("tensor.")
        if name == "iota":
            return Position("int64", entry) if isinstance(entry := index[node.attr("axis")], Affine) else entry
        if name == "cast":
            return _cast(args[0], dtype_of(node))
        if name == "complex":
            re, im = args
            assert isinstance(re, Expr) and isinstance(im, Expr)
            return Pair(re, im)
        if name == "hint":
            self.hints[node] = None
        if name == "reshape" and not args:
            seen = self._seen_through(node, index)
            assert seen is not None
            return seen
        if (border := padding(node)) is not None:
            inner, fill = args
            assert isinstance(inner, Expr) and isinstance(fill, Expr)
            return border.select(index, inner, fill)
        if name == "compute":
            return self._body(node.attr("body"), node.inputs, index)
        if is_written_out(node):
            return _written_out(node, args)
        if name == "contract":
            return _scalar("mul", node, args)
        return _scalar(_SCALAR[node.op], node, args) if node.op in _SCALAR else args[0]

    def _reduced(self, node: Node, index: tuple[Index, ...]) -> Expr:
        if self.reduced_at not in (None, index):
            raise NeedsBuffer(node)
        self.reduced_at = index
        if dtype_of(node) == "float16":
            return Cast("float16", Reduced("float32"))
        return Reduced(dtype_of(node))

    def _seen_through(self, node: Node, index: tuple[Index, ...]) -> Value | None:
        """A reshape of a buffer is the buffer seen by another shape, or by its flat position; else None."""
        source = node.inputs[0]
        while source.op is OPS["hint"]:
            source = source.inputs[0]
        if not self._in_memory(source):
            return None
        flat = flat_position(index, row_major(shape_of(node)), shape_of(node))
        if flat is not None and (places := unflatten(flat, shape_of(source))) is not None:
            return load(self.buffers[source], dtype_of(source), places)
        if not is_row_major(self.buffers[source]):
            raise NeedsBuffer(source, shape_of(source))
        return load(seen_as(self.buffers[source], shape_of(node)), dtype_of(source), index)

    # -- bodies of `compute` --

    def _moved(self, body: Body, index: tuple[Index, ...]) -> Expr:
        if not all(isinstance(entry, Affine) for entry in index):
            raise Unsupported("S013", "an element of a `compute` is taken at a position that is not affine")
        places = {axis: entry for axis, entry in zip(body.axes, index) if isinstance(entry, Affine)}
        return body.at(places)

    def _body_needs(self, body: Body, inputs: Sequence[Node], index: tuple[Index, ...]) -> list[Key]:
        needs: list[Key] = []
        for expr in walk(self._moved(body, index)):
            if isinstance(expr, Load):
                source = inputs[body.operand(expr.buffer)]
                if all(isinstance(entry, Affine) for entry in expr.index):
                    needs.append((source, expr.index))
                elif not self._in_memory(source):
                    raise NeedsBuffer(source)
        return list(dict.fromkeys(needs))

    def _body(self, body: Body, inputs: Sequence[Node], index: tuple[Index, ...]) -> Expr:
        return self.body_value(body, inputs, self._moved(body, index))

    def body_value(self, body: Body, inputs: Sequence[Node], value: Expr) -> Expr:
        """A body's expression with its placeholders replaced by the elements of the inputs."""

        def change(expr: Expr) -> Expr:
            if not isinstance(expr, Load):
                return expr
            source = inputs[body.operand(expr.buffer)]
            if all(isinstance(entry, Affine) for entry in expr.index):
                element = self.element(source, expr.index)
            elif self._in_memory(source):
                element = load(self.buffers[source], dtype_of(source), expr.index)
            else:
                raise NeedsBuffer(source)
            if isinstance(element, Pair):
                raise Unsupported("S012", "`compute` of complex numbers is not compiled")
            return element

        return rebuild([value], change)[0]


def load(buffer: Buffer, dtype: str, index: Sequence[Index]) -> Value:
    """The element of a buffer (of the graph's dtype) at `index`; complex ones as a pair."""
    if dtype in REAL_OF:
        split = split_complex(buffer)
        re, im = (Load(split.dtype, split, (*index, Affine((), part))) for part in (0, 1))
        return Pair(re, im)
    return Load(dtype, buffer, tuple(index))


def is_product(node: Node) -> bool:
    """Whether a contraction sums over nothing."""
    sources, result = node.attr("spec").split("->")
    return set(sources) - {","} == set(result)


def summed_axes(node: Node, prefix: str) -> tuple[tuple[Axis, ...], tuple[str, ...]]:
    """The reduce axes of a contraction and the letters that they stand for."""
    sources, result = node.attr("spec").split("->")
    extents = {letter: extent for letters, source in zip(sources.split(","), node.inputs)
               for letter, extent in zip(letters, shape_of(source))}
    letters = tuple(letter for letter in extents if letter not in result)
    return tuple(Axis(f"{prefix}{n}", extents[letter], True) for n, letter in enumerate(letters)), letters


def _constant(node: Node) -> Value:
    value: Any = node.attr("value").value
    if math.prod(shape_of(node)) != 1:
        raise NeedsBuffer(node)
    value = value.item() if hasattr(value, "item") else value
    if dtype_of(node) in REAL_OF:
        real = REAL_OF[dtype_of(node)]
        return Pair(Const(real, float(value.real)), Const(real, float(value.imag)))
    return Const(dtype_of(node), value)


def _cast(value: Value, dtype: str) -> Value:
    if isinstance(value, Pair) or dtype in REAL_OF:
        return complex_cast(value, dtype)
    return value if value.dtype == dtype else Cast(dtype, value)


def _scalar(op: str, node: Node, args: list[Value]) -> Value:
    if any(isinstance(arg, Pair) for arg in args):
        return complex_op(op, args, node.span)
    plain = tuple(arg for arg in args if isinstance(arg, Expr))
    if op in ("real", "conj"):
        return plain[0]
    if plain[0].dtype == "bool":
        op = _BOOL_MEANING.get(op, op)
    return Call(dtype_of(node), op, plain)


def _written_out(node: Node, args: list[Value]) -> Value:
    """The factors of all terms, multiplied and combined in order."""
    kind, many = node.attr("kind") if node.op is OPS["reduce"] else "add", count_of(node)
    each = len(args) // many
    total: Value | None = None
    for at in range(many):
        term = args[at * each]
        for factor in args[at * each + 1:(at + 1) * each]:
            term = _scalar("mul", node, [term, factor])
        total = term if total is None else _scalar(kind, node, [total, term])
    assert total is not None
    return total


# -- views --------------------------------------------------------------------------------------------------------


def _transposed(node: Node, index: tuple[Index, ...]) -> tuple[Index, ...]:
    places: list[Index] = [Affine()] * len(index)
    for entry, dim in zip(index, node.attr("perm")):
        places[dim] = entry
    return tuple(places)


def _broadcast(node: Node, index: tuple[Index, ...]) -> tuple[Index, ...]:
    source = shape_of(node.inputs[0])
    return tuple(Affine() if extent == 1 else index[dim] for extent, dim in zip(source, node.attr("dims")))


def _sliced(node: Node, index: tuple[Index, ...]) -> tuple[Index, ...]:
    return tuple(scaled(entry, step, start)
                 for entry, start, step in zip(index, node.attr("start"), node.attr("step")))


def _windowed(node: Node, index: tuple[Index, ...]) -> tuple[Index, ...]:
    return tuple(weighted(index, row, first) for first, row in zip(node.attr("start"), node.attr("steps")))


def _reshaped(node: Node, index: tuple[Index, ...]) -> tuple[Index, ...]:
    flat = flat_position(index, row_major(shape_of(node)), shape_of(node))
    places = None if flat is None else unflatten(flat, shape_of(node.inputs[0]))
    if places is None:
        raise NeedsBuffer(node.inputs[0], shape_of(node.inputs[0]))
    return places


_VIEW_INDEX = {"transpose": _transposed, "broadcast": _broadcast, "slice": _sliced, "reshape": _reshaped,
               "window": _windowed}
