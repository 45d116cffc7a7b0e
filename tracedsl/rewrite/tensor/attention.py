"""Attention as it is written in NumPy: the softmax's division moves behind the product with the values.

What holds here: only weights that are provably at most 1 are touched, exp(x - max x) / sum, whose sum is at least 1, so
that nothing overflows that did not before. One rounding less an element: the result is as accurate or better. Online
softmax (Milakov and Gimelshein, 2018) and FlashAttention (Dao et al., 2022) divide there too.
"""

from __future__ import annotations

from tracedsl.ir.dtypes import is_float
from tracedsl.ir.graph import PARAM, Graph, Node, Rewriter
from tracedsl.ir.tensor import OPS
from tracedsl.rewrite.tensor.rules import type_of


def divide_after_product(graph: Graph) -> Graph:
    """softmax(x) @ v   ->   (exp(x - max) @ v) / sum

        %3 = tensor.div(%e, %s)                               %3 = tensor.contract(%e, %v) {spec='ik,kj->ij'}
        %4 = tensor.contract(%3, %v) {spec='ik,kj->ij'}  ->   %4 = tensor.div(%3, %sums)

    with %e = exp(x - broadcast(max of x)), %s = broadcast(sum of %e), both along k; %3 is used once.
    """
    users, olds = graph.users(), iter([node for node in graph.nodes if node.op is not PARAM])

    def rule(to: Rewriter, node: Node) -> Node | None:
        old = next(olds)     # the node as the graph has it, with the users that it has there
        if node.op is not OPS["contract"]:
            return None
        letters, result = node.attr("spec").split("->")
        for place, (part, source) in enumerate(zip(letters.split(","), node.inputs)):
            found, given = _softmax(source), old.inputs[place]
            if found is None or part.endswith(tuple(result)) or len(users[given]) > 1 or given in graph.results:
                continue
            weights, total = found
            kept = [c for c in part[:-1] if c in result]
            places = [result.index(c) for c in kept]
            if len(kept) != len(part) - 1 or places != sorted(places):
                continue
            operands = [weights if at == place else other for at, other in enumerate(node.inputs)]
            product = to.add(OPS["contract"], operands, dict(node.attrs), span=node.span)
            rows = to.add(OPS["broadcast"], [total], {"shape": type_of(node).shape, "dims": tuple(places)},
                          span=source.span)
            return to.add(OPS["div"], [product, rows], span=source.span)
        return None

    return Rewriter(graph).run(rule)


def _softmax(node: Node) -> tuple[Node, Node] | None:
    """(weights, their sums without the last axis), if the node is a softmax along its last axis."""
    if node.op is not OPS["div"] or not is_float(type_of(node).dtype):
        return None
    weights, spread = node.inputs
    total = _row_value(spread, "add")
    if total is None or total.inputs[0] is not weights or weights.op is not OPS["exp"]:
        return None
    shifted = weights.inputs[0]
    if shifted.op is not OPS["sub"]:
        return None
    top = _row_value(shifted.inputs[1], "maximum")
    return (weights, total) if top is not None and top.inputs[0] is shifted.inputs[0] else None


def _row_value(node: Node, kind: str) -> Node | None:
    """The reduction along the last axis that `node` repeats along it."""
    if node.op is not OPS["broadcast"]:
        return None
    source, shape = node.inputs[0], type_of(node).shape
    wide = (*shape[:-1], 1)
    if source.op is OPS["reshape"] and type_of(source).shape == wide and node.attr("dims") == tuple(range(len(shape))):
        source = source.inputs[0]
    elif node.attr("dims") != tuple(range(len(shape) - 1)):
        return None
    last = (len(shape) - 1,)
    if source.op is not OPS["reduce"] or source.attr("kind") != kind or tuple(source.attr("axes")) != last:
        return None
    return source if type_of(source).shape == shape[:-1] else None
