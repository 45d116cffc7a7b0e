"""The recorder: what is being captured, and where in the user's source capture stands.

What holds here: every node of the graph is made by `Recorder.emit` or `Recorder.constant`, carries the span of the
expression that is being evaluated, and is counted. Known values (those that depend on no argument) are found by
evaluating the graph that leads to them, when Python asks for them, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from tracedsl.diagnostics import Span, Unsupported
from tracedsl.ir.dtypes import SHORT
from tracedsl.ir.graph import CONSTANT, PARAM, Builder, Node
from tracedsl.ir.tensor import OPS, TensorType, constant_text

Array = np.ndarray[Any, Any]
Implementation = Callable[..., Any]

NODE_CAP = 4000          # operations in one graph; unrolled loops beyond that are refused
KNOWN_CAP = 1 << 16      # elements; known values beyond that stay in the graph


class Recorder:
    """State of one capture. `table` maps the identity of a NumPy function to its symbolic form."""

    def __init__(self, name: str, table: dict[int, Implementation]) -> None:
        self.builder = Builder(name)
        self.table = table
        self.span: Span | None = None
        self.last_span: Span | None = None
        self.tensors: dict[Any, Any] = {}     # id of an outer array, or a number -> what stands for it
        self.sources: dict[Node, Any] = {}    # parameter of the graph -> where its value comes from
        self.names: dict[Any, str] = {}       # number that is an argument -> its name
        self.writes = 0                       # into parts of arrays
        self.written: dict[Any, Any] = {}     # where an argument comes from -> what stands for it, if it is written
        self._count = 0
        self._known: dict[Node, Array | None] = {}

    # -- places ---------------------------------------------------------------------------------------------------

    @contextmanager
    def at(self, span: Span) -> Iterator[None]:
        """What is recorded inside belongs to `span`. After an error the innermost place stays in `last_span`."""
        outer, self.span = self.span, span
        self.last_span = span
        yield
        self.span = outer
        self.last_span = outer or span

    def refuse(self, code: str, what: str, *, why: str = "", hint: str = "") -> NoReturn:
        """Raise `Unsupported` at the current place."""
        raise Unsupported(code, what, why=why, hint=hint, span=self.span or self.last_span)

    # -- nodes ----------------------------------------------------------------------------------------------------

    def emit(self, op: str, inputs: Iterable[Node], **attrs: Any) -> Node:
        """A new node of `ir.tensor.OPS`."""
        self._count += 1
        if self._count > NODE_CAP:
            self.refuse("C012", f"the function has more than {NODE_CAP:,} operations when its loops are unrolled",
                        why="Python loops run while the function is captured, once for each turn",
                        hint="write the loop as an operation on whole arrays")
        return self.builder.add(OPS[op], inputs, attrs, span=self.span)

    def constant(self, value: Any, dtype: Any = None) -> Node:
        """A copy of a known value as a node; `dtype` converts Python numbers as NumPy does (OverflowError)."""
        array = np.array(value, dtype=dtype, order="C", subok=False)
        self.check_dtype(array.dtype)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        array.flags.writeable = False
        return self.builder.constant(array, TensorType(array.dtype.name, array.shape), constant_text(array), self.span)

    def check_dtype(self, dtype: np.dtype[Any]) -> None:
        if dtype.name not in SHORT:
            self.refuse("C015", f"arrays of dtype {dtype} are not compiled",
                        why="only booleans, integers, floats and complex numbers of up to 8 bytes a part are",
                        hint="convert the array with astype, or leave this part to NumPy")

    # -- shapes and dtypes ----------------------------------------------------------------------------------------

    def type(self, node: Node) -> TensorType:
        assert isinstance(node.type, TensorType)
        return node.type

    def cast(self, node: Node, dtype: Any) -> Node:
        """The node as `dtype`, itself if it has that dtype already."""
        name = np.dtype(dtype).name
        self.check_dtype(np.dtype(dtype))
        if self.type(node).dtype == name:
            return node
        if node.op is CONSTANT and not self.type(node).shape:
            with np.errstate(all="ignore"):
                return self.constant(node.attr("value").value.astype(name))
        return self.emit("cast", [node], dtype=name)

    def broadcast(self, node: Node, shape: tuple[int, ...]) -> Node:
        """The node in `shape`, its dimensions aligned at the right as in NumPy."""
        own = self.type(node).shape
        if own == shape:
            return node
        first = len(shape) - len(own)
        return self.emit("broadcast", [node], shape=shape, dims=tuple(range(first, len(shape))))

    def reshape(self, node: Node, shape: tuple[int, ...]) -> Node:
        return node if self.type(node).shape == shape else self.emit("reshape", [node], shape=shape)

    def transpose(self, node: Node, perm: tuple[int, ...]) -> Node:
        return node if perm == tuple(range(len(perm))) else self.emit("transpose", [node], perm=perm)

    def full(self, shape: tuple[int, ...], value: Any, dtype: Any) -> Node:
        """`shape` filled with a known number."""
        return self.broadcast(self.constant(value, dtype), shape)

    # -- known values ---------------------------------------------------------------------------------------------

    def known(self, node: Node) -> Array | None:
        """The value of a node that depends on no argument; None if it does, or if it is large."""
        order: list[Node] = []
        stack, seen = [node], set()
        while stack:
            current = stack.pop()
            if current in seen or current in self._known:
                continue
            seen.add(current)
            order.append(current)
            if current.op is PARAM or self.type(current).size > KNOWN_CAP:
                self._known[node] = None
                return None
            stack.extend(current.inputs)
        return self._evaluate(node, order)

    def _evaluate(self, node: Node, order: list[Node]) -> Array | None:
        wanted = set(order)
        for current in [n for n in self.builder.build(()).nodes if n in wanted]:
            values = [self._known.get(source) for source in current.inputs]
            if current.op is CONSTANT:
                self._known[current] = current.attr("value").value
            elif current.op is OPS["hint"]:
                self._known[current] = values[0]
            elif current.op.evaluate is None or any(value is None for value in values):
                self._known[current] = None
            else:
                self._known[current] = np.asarray(current.op.evaluate(values, current.attrs))
        return self._known.get(node)
