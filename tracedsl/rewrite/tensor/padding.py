"""Padding: arrays with a number around them, and where such a border needs no memory.

What holds here:
- Padding is a concatenation of one node and copies of one number, however it was written (`np.pad`,
  `np.concatenate`, an array of zeros whose middle was assigned), one axis at a time.
- An element of it is a choice by position alone: the source's element where there is one, else the number. It is
  the same number that NumPy computes with: 0 times infinity is not a number at a border either.
- A border is computed where it is read if it is read by sums over small windows and vectors lie across it, so that all
  lanes choose alike. Others read it so often, or so unevenly, that a padded copy is cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tracedsl.ir.expr import Affine, Call, Const, Expr, Index
from tracedsl.ir.graph import CONSTANT, Graph, Node
from tracedsl.ir.tensor import OPS
from tracedsl.rewrite.tensor.index import as_expr, scaled
from tracedsl.rewrite.tensor.rules import type_of

WINDOW = 64      # elements of the largest window over which a border is worth deciding


@dataclass(frozen=True)
class Padding:
    """`source` begins at `start` of `axis`; `fill` is the constant around it."""

    source: Node
    fill: Node
    axis: int
    start: int

    def inside(self, index: Sequence[Index]) -> tuple[Index, ...]:
        """Where an element of the whole stands in `source`, if it does."""
        return tuple(scaled(at, 1, -self.start) if d == self.axis else at for d, at in enumerate(index))

    def select(self, index: Sequence[Index], inner: Expr, fill: Expr) -> Expr:
        """The element at `index`, for the elements of both."""
        position, extent = self.inside(index)[self.axis], type_of(self.source).shape[self.axis]
        low, high = position.bounds() if isinstance(position, Affine) else (-1, extent)
        tests: list[Expr] = [Call("bool", op, (as_expr(position), Const("int64", limit)))
                             for op, limit, known in (("ge", 0, low >= 0), ("lt", extent, high < extent)) if not known]
        below = padding(self.source)
        same = below is not None and below.fill.attr("value") == self.fill.attr("value")
        if same and isinstance(inner, Call) and inner.op == "select":
            tests.append(inner.args[0])     # several axes are one choice
            inner = inner.args[1]
        if not tests:
            return inner
        whole = tests[0]
        for test in tests[1:]:
            whole = Call("bool", "and", (whole, test))
        return Call(inner.dtype, "select", (whole, inner, fill))


def padding(node: Node) -> Padding | None:
    """The padding that a node is, if it is one of real numbers."""
    if node.op is not OPS["concat"] or type_of(node).dtype.startswith("complex"):
        return None
    fills = [_fill(source) for source in node.inputs]
    places = [at for at, fill in enumerate(fills) if fill is None]
    numbers = list({fill.attr("value"): fill for fill in fills if fill is not None}.values())
    if len(places) != 1 or len(numbers) != 1:
        return None
    start = sum(type_of(source).shape[node.attr("axis")] for source in node.inputs[:places[0]])
    return Padding(node.inputs[places[0]], numbers[0], node.attr("axis"), start)


def _fill(node: Node) -> Node | None:
    """The number that a node repeats."""
    source = node.inputs[0] if node.op is OPS["broadcast"] else node
    return source if source.op is CONSTANT and type_of(source).shape == () and source is not node else None


def open_paddings(graph: Graph, kept: Iterable[Node]) -> frozenset[Node]:
    """The paddings that are computed where they are read; those in `kept` are stored."""
    users, stored = graph.users(), set(kept) | set(graph.results)
    found: set[Node] = set()
    for node in reversed(graph.nodes):
        border = padding(node)
        if border is not None and node not in stored and users[node] and \
                border.axis != len(type_of(node).shape) - 1 and \
                all(user in found if padding(user) else _slides_over(user, node, users) for user in users[node]):
            found.add(node)
    return frozenset(found)


def _slides_over(user: Node, source: Node, users: dict[Node, list[Node]]) -> bool:
    """Whether a node reads small windows of `source` and sums each at once, moving along it with all its axes."""
    while user.op in (OPS["window"], OPS["slice"], OPS["transpose"]) and len(users[user]) == 1:
        source, user = user, users[user][0]
    if user.op is OPS["reduce"]:
        axes: tuple[int, ...] = user.attr("axes")
        return math.prod(type_of(source).shape[a] for a in axes) <= WINDOW
    if user.op is not OPS["contract"]:
        return False
    spec: str = user.attr("spec")
    parts, result = spec.split("->")
    mine = next(part for part, node in zip(parts.split(","), user.inputs) if node is source)
    summed = math.prod(n for letter, n in zip(mine, type_of(source).shape) if letter not in result)
    return set(result) <= set(mine) and summed <= WINDOW
