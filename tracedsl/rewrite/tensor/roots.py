"""Which nodes get memory of their own, and which are computed where they are used.

What holds here: a *root* is a node with a buffer; everything else is inlined into the expressions of the roots. A root
may *absorb* one reduction: what follows the reduction element by element is computed when its sum is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tracedsl.ir.expr import Affine, Load, walk
from tracedsl.ir.graph import CONSTANT, PARAM, Graph, Node
from tracedsl.ir.short import is_short
from tracedsl.ir.tensor import ELEMENTWISE, OPS, VIEWS
from tracedsl.rewrite.tensor.elements import dtype_of, is_product, shape_of
from tracedsl.rewrite.tensor.padding import open_paddings, padding
from tracedsl.rewrite.tensor.terms import count_of, is_written_out

_DEAR = {**dict.fromkeys(("div", "sqrt", "floordiv", "mod", "fmod", "hypot", "cbrt"), 4), "pow": 20}
_PLAIN = frozenset(("add", "sub", "mul", "maximum", "minimum", "fmax", "fmin", "and", "or", "xor", "shl", "shr", "neg",
                    "abs", "sign", "not", "floor", "ceil", "trunc", "rint", "eq", "ne", "lt", "le", "gt", "ge", "isnan",
                    "isinf", "isfinite", "signbit", "select", "copysign", "cast", "real", "imag", "conj", "complex"))
TRANSCENDENTAL = 12   # what a function such as exp costs, where an addition costs 1
WORTH_A_BUFFER = 8    # an element that costs this much is not computed twice
WORTH_SPREADING = 4   # ... nor once for each of its copies in a broadcast


@dataclass(frozen=True)
class Roots:
    nodes: tuple[Node, ...]            # in the graph's order; parameters are among them only to be copied
    absorbs: dict[Node, Node]          # root -> the reduction whose result it finishes


def is_reduction(node: Node) -> bool:
    if is_written_out(node):
        return False
    if node.op is OPS["reduce"]:
        return bool(node.attr("axes"))
    if node.op is OPS["contract"]:
        return not is_product(node)
    return node.op is OPS["compute"] and bool(node.attr("body").reduce)


def own_cost(node: Node) -> int:
    """What one element costs, its inputs left out."""
    if node.op is OPS["compute"]:
        return WORTH_SPREADING
    if node.op not in ELEMENTWISE:
        return 0
    name = node.op.name.removeprefix("tensor.")
    return 1 if name in _PLAIN else _DEAR.get(name, TRANSCENDENTAL)


def choose_roots(graph: Graph, wanted: Iterable[Node]) -> Roots:
    """Decide which nodes get buffers; `wanted` are nodes that need one for reasons found while lowering."""
    users = graph.users()
    roots = set(graph.results) | set(wanted)
    roots |= {node for node in graph.nodes if node.op in (OPS["concat"], OPS["scan"])} - open_paddings(graph, wanted)
    hints = (node for node in graph.nodes if node.op is OPS["hint"])
    roots |= {node for node in hints if any(step[0] == "cache" for step in node.attr("steps"))}
    absorbs: dict[Node, Node] = {}
    for node in graph.nodes:
        if is_reduction(node):
            end = _end_of_epilogue(node, users, roots)
            taken = absorbs.get(end)
            if taken is not None and not (taken.op is OPS["reduce"] and node.op is not OPS["reduce"]):
                end = node
            elif taken is not None:
                roots.add(taken)
                absorbs[taken] = taken
            absorbs[end] = node
            roots.add(end)
    costs = _costs(graph, roots)
    _buffer_operands(graph, roots, costs)
    _buffer_repeated(graph, users, roots, absorbs, costs)
    return Roots(tuple(n for n in graph.nodes if n in roots and not (n.op is PARAM and n not in wanted)), absorbs)


def _end_of_epilogue(reduction: Node, users: dict[Node, list[Node]], roots: set[Node]) -> Node:
    """The last node of the chain of element-wise operations and views that follows a reduction one to one."""
    end = reduction
    if dtype_of(reduction).startswith("complex"):
        return end
    while end not in roots and len(users[end]) == 1:
        (user,) = users[end]
        follows = user.op in ELEMENTWISE or user.op in VIEWS or user.op is OPS["hint"] or _reads_in_place(user, end)
        if not follows or dtype_of(user).startswith("complex") or math.prod(shape_of(user)) != math.prod(shape_of(end)):
            break
        if user.op in (OPS["slice"], OPS["window"]):
            break
        end = user
    return end


def _reads_in_place(user: Node, source: Node) -> bool:
    """Whether a `compute` without reduction reads `source` once, at the position that it writes."""
    if user.op is not OPS["compute"] or user.attr("body").reduce or user.inputs.count(source) != 1:
        return False
    body, number = user.attr("body"), user.inputs.index(source)
    places = {load.index for load in walk(body.value) if isinstance(load, Load) and body.operand(load.buffer) == number}
    return places == {tuple(map(Affine.of, body.axes))}


def _costs(graph: Graph, roots: set[Node]) -> dict[Node, int]:
    """What one element of each node costs with everything above the roots inlined."""
    costs: dict[Node, int] = {}
    for node in graph.nodes:
        free = node.op is PARAM or node.op is CONSTANT or is_reduction(node)
        above = sum(0 if source in roots else costs[source] for source in dict.fromkeys(node.inputs))
        if is_written_out(node):
            above = count_of(node) * (above + len(node.inputs))
        costs[node] = 0 if free else min(own_cost(node) + above, 10**6)
    return costs


def _buffer_operands(graph: Graph, roots: set[Node], costs: dict[Node, int]) -> None:
    """Operands of contractions are read again and again: only views, casts and what is read seldom is inlined."""
    for node in graph.nodes:
        if node.op is OPS["contract"] and is_reduction(node):
            for source in node.inputs:
                reuse = math.prod(shape_of(node)) * _summed(node) // max(1, math.prod(shape_of(source)))
                if costs[source] > 1 and source not in roots and reuse > 4 and not _only_views(source, roots):
                    roots.add(_below_views(_before_widening(source), roots))
        elif node.op is OPS["compute"]:
            roots |= {source for source in node.inputs if costs[source] > 1}


def _before_widening(node: Node) -> Node:
    """What is stored instead of a wider copy of it: the contraction widens what it reads."""
    while node.op is OPS["cast"] and np.dtype(dtype_of(node.inputs[0])).itemsize < np.dtype(dtype_of(node)).itemsize:
        node = node.inputs[0]
    return node


def _summed(node: Node) -> int:
    sources, result = node.attr("spec").split("->")
    extents = {letter: extent for letters, source in zip(sources.split(","), node.inputs)
               for letter, extent in zip(letters, shape_of(source))}
    return math.prod(extent for letter, extent in extents.items() if letter not in result)


def _only_views(node: Node, roots: set[Node]) -> bool:
    while node not in roots and (node.op in VIEWS or node.op is OPS["hint"] or padding(node)):
        node = border.source if (border := padding(node)) else node.inputs[0]
    return node in roots or node.op is PARAM or node.op is CONSTANT


def _buffer_repeated(graph: Graph, users: dict[Node, list[Node]], roots: set[Node], absorbs: dict[Node, Node],
                     costs: dict[Node, int]) -> None:
    """Give a buffer to what is dear and would be computed by several stages, or for every copy that a view makes."""
    reductions = set(absorbs.values())
    stages: dict[Node, set[Node]] = {}
    for node in reversed(graph.nodes):
        stages[node] = set()
        for user in users[node]:
            stages[node] |= {user} if user in roots or user in reductions else stages[user]
        if node in roots or node in reductions or node.op is PARAM or node.op is CONSTANT:
            continue
        spread = _read_again(node, users[node])
        if (len(stages[node]) > 1 and costs[node] >= WORTH_A_BUFFER) or (spread and costs[node] >= WORTH_SPREADING):
            roots.add(_below_views(node, roots))


def _read_again(node: Node, users: list[Node]) -> bool:
    """Whether views read the elements of a node more than once: copies in a broadcast, windows that overlap, slices
    that are shifted against each other (stencils, separable filters). Copies along a short axis do not count: what is
    the same for all its steps is computed once."""
    size = math.prod(shape_of(node))
    sizes = [math.prod(shape_of(user)) for user in users if user.op in VIEWS
             and not (user.op is OPS["broadcast"] and size and is_short(math.prod(shape_of(user)) // size))]
    return max(sizes, default=0) > size or sum(sizes) >= 2 * size > 0


def _below_views(node: Node, roots: set[Node]) -> Node:
    """A view of an element-wise node: what is stored is the node itself."""
    while node not in roots and (border := padding(node)) is not None:
        node = border.source
    while node.op in VIEWS and node.op is not OPS["slice"] and node not in roots \
            and math.prod(shape_of(node.inputs[0])) <= math.prod(shape_of(node)):
        node = node.inputs[0]
        while node not in roots and (border := padding(node)) is not None:
            node = border.source
    return node
