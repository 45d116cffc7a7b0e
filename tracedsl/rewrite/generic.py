"""Three passes that work on every dialect: fold constants, share equal nodes, drop dead nodes.

What holds here: nothing is known of tensors or prompts. What may be done with a node is read from its effect, what it
computes from its op. `fold_constants` takes the dialect's way to evaluate and to make a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracedsl.ir.graph import CONSTANT, PARAM, Effect, Graph, Node, Rewriter, attrs_text, print_graph

Evaluator = Callable[[Node, Sequence[Any]], Any]
MakeConstant = Callable[[Rewriter, Any, Node], Node]


class CannotFold(Exception):
    """Raised by an evaluator for a node that is better left to run time."""


def fold_constants(evaluate: Evaluator, constant: MakeConstant) -> Callable[[Graph], Graph]:
    """A pass that computes pure nodes whose inputs are all constants.

        %0 = tensor.mul(2:f64[], 3:f64[])          return 6:f64[]
        return %0                           ->
    """

    def fold(graph: Graph) -> Graph:
        """compute nodes whose inputs are constants"""

        def rule(to: Rewriter, node: Node) -> Node | None:
            if node.op is CONSTANT or node.op.evaluate is None or node.regions or node.effect is not Effect.PURE:
                return None
            if any(source.op is not CONSTANT for source in node.inputs):
                return None
            try:
                value = evaluate(node, [source.attr("value").value for source in node.inputs])
            except CannotFold:
                return None
            return constant(to, value, node)

        return Rewriter(graph).run(rule)

    return fold


def share_common(graph: Graph) -> Graph:
    """compute equal pure nodes once

        %0 = exp(%x)                        %0 = exp(%x)
        %1 = exp(%x)                 ->     %1 = add(%0, %0)
        %2 = add(%0, %1)
    """
    known: dict[tuple[object, ...], Node] = {}

    def rule(to: Rewriter, node: Node) -> Node | None:
        if node.effect is not Effect.PURE:
            return None
        regions = tuple(print_graph(region, spans=False) for region in node.regions)
        key = (node.op, node.inputs, attrs_text(node.attrs), str(node.type), regions)
        first = known.setdefault(key, node)
        return first if first is not node else None

    return Rewriter(graph).run(rule)


def drop_dead(graph: Graph) -> Graph:
    """drop nodes whose result nobody takes, unless they are seen from outside

        %0 = exp(%x)                 ->     return %x
        return %x
    """
    live: set[Node] = set(graph.results)
    for node in reversed(graph.nodes):
        if node in live or node.effect is Effect.ORDERED:
            live.add(node)
            live.update(node.inputs)
    kept = tuple(node for node in graph.nodes if node in live or node.op is PARAM)
    return Graph(graph.name, graph.params, kept, graph.results)
