"""The graph that both dialects share: immutable, typed, printable; every node knows its source line.

What holds here:
- A graph is a tuple of nodes in an order in which inputs stand before their users, and in which nodes with
  `Effect.ORDERED` keep the order of the program. Nodes are compared by identity; `fingerprint` compares graphs.
- What a node means stands in its `Op`: how its type follows from its inputs, what it computes, which effect it has.
  A dialect is a set of ops. This module, the pass manager and the generic passes know no dialect.
- Attributes are hashable and print the same in every process: the text of a graph is its identity.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from tracedsl.diagnostics import Span, TracedslError


class Effect(enum.IntEnum):
    """What may be done with a node, from most to least."""

    PURE = 0      # equal inputs give equal results: may be shared, folded, dropped, moved
    SAMPLED = 1   # each run gives another sample: may be dropped and moved, never shared or folded
    ORDERED = 2   # seen from outside: stays, and keeps its place among its like


@runtime_checkable
class Type(Protocol):
    """The type of a value: its text is its identity (`f32[4, 5]`, `Prediction{answer: str}`)."""

    def __str__(self) -> str: ...


class GraphError(TracedslError):
    """A graph that breaks a rule of this module."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant of any Python type, compared by its text and digest (`repr` for small values, a hash for arrays)."""

    value: Any = field(compare=False, hash=False)
    text: str

    def __str__(self) -> str:
        return self.text


Attrs = Mapping[str, Any]
Infer = Callable[[Sequence[Type], Attrs], Type]
Evaluate = Callable[[Sequence[Any], Attrs], Any]
EffectOf = Callable[[Attrs], Effect]


def _always_pure(attrs: Attrs) -> Effect:
    return Effect.PURE


@dataclass(frozen=True, eq=False)
class Op:
    """What a sort of node means.

    `infer` gives the type of the result, and raises `TypeError`/`ValueError` for inputs that do not fit.
    `evaluate` computes the value from the inputs' values; None if it cannot be computed while compiling.
    `effect` tells, from the attributes, what passes may do with a node.
    """

    name: str
    infer: Infer
    evaluate: Evaluate | None = None
    effect: EffectOf = _always_pure

    def __repr__(self) -> str:
        return f"Op({self.name})"


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One operation. `regions` are graphs inside it (the body of a loop, the arms of a branch)."""

    op: Op
    inputs: tuple[Node, ...]
    attrs: Attrs
    type: Type
    span: Span | None = None
    regions: tuple[Graph, ...] = ()

    @property
    def effect(self) -> Effect:
        return self.op.effect(self.attrs)

    def attr(self, name: str) -> Any:
        return self.attrs[name]

    def __repr__(self) -> str:
        return f"<{self.op.name} : {self.type}>"


def _no_infer(inputs: Sequence[Type], attrs: Attrs) -> Type:
    raise TypeError("parameters and constants carry their own type")


PARAM = Op("param", _no_infer)
CONSTANT = Op("constant", _no_infer)


@dataclass(frozen=True, eq=False)
class Graph:
    """A function: `params` come in, `nodes` (all of them, params and constants too) are computed, `results` go out."""

    name: str
    params: tuple[Node, ...]
    nodes: tuple[Node, ...]
    results: tuple[Node, ...]

    def users(self) -> dict[Node, list[Node]]:
        """node -> the nodes of this graph that take it as an input, in order."""
        table: dict[Node, list[Node]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for source in dict.fromkeys(node.inputs):
                table[source].append(node)
        return table

    def operations(self) -> Iterator[Node]:
        """The nodes that compute something: neither parameters nor constants."""
        return (node for node in self.nodes if node.op is not PARAM and node.op is not CONSTANT)

    def __str__(self) -> str:
        return print_graph(self)


class Builder:
    """Makes a graph node by node."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._params: list[Node] = []
        self._nodes: list[Node] = []

    def param(self, name: str, type: Type, span: Span | None = None, **attrs: Any) -> Node:
        node = Node(PARAM, (), {"name": name, **attrs}, type, span)
        self._params.append(node)
        return self.keep(node)

    def constant(self, value: Any, type: Type, text: str, span: Span | None = None) -> Node:
        """`text` must tell equal values from different ones: a `repr`, or a digest."""
        return self.keep(Node(CONSTANT, (), {"value": Literal(value, text)}, type, span))

    def add(self, op: Op, inputs: Iterable[Node] = (), attrs: Attrs | None = None, *,
            span: Span | None = None, regions: Iterable[Graph] = ()) -> Node:
        """A new node; its type is inferred. Raises what the op's `infer` raises."""
        sources, known = tuple(inputs), dict(attrs or {})
        type = op.infer([source.type for source in sources], known)
        return self.keep(Node(op, sources, known, type, span, tuple(regions)))

    def keep(self, node: Node) -> Node:
        """Append a node that exists already (its inputs must be in this builder)."""
        self._nodes.append(node)
        return node

    def build(self, results: Iterable[Node]) -> Graph:
        return Graph(self.name, tuple(self._params), tuple(self._nodes), tuple(results))


Rule = Callable[["Rewriter", Node], Node | None]


class Rewriter:
    """Rebuilds a graph in order. A rule sees each node with its inputs already replaced and returns the node to use in
    its place (made with `add`, `constant`, or one that exists), or None to keep it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._builder = Builder(graph.name)
        self.add = self._builder.add
        self.constant = self._builder.constant

    def run(self, rule: Rule) -> Graph:
        new: dict[Node, Node] = {}
        for old in self.graph.nodes:
            inputs = tuple(new[source] for source in old.inputs)
            moved = old if inputs == old.inputs else Node(old.op, inputs, old.attrs, old.type, old.span, old.regions)
            if old.op is PARAM:
                self._builder._params.append(moved)
                new[old] = self._builder.keep(moved)
                continue
            replaced = rule(self, moved)
            new[old] = self._builder.keep(moved) if replaced is None else replaced
        return self._builder.build(new[node] for node in self.graph.results)


# -- text ---------------------------------------------------------------------------------------------------------


def print_graph(graph: Graph, *, spans: bool = True, indent: str = "") -> str:
    """The graph's text. Without `spans` it depends on the meaning alone."""
    names = _names(graph)
    head = ", ".join(f"{names[p]}: {p.type}" for p in graph.params)
    lines = [f"{indent}graph {graph.name}({head}) {{"]
    for node in graph.operations():
        text = f"{indent}  {names[node]} = {_call(node, names)} : {node.type}"
        if spans and node.span is not None:
            text = f"{text:<76}  # {node.span.short()}"
        lines.append(text)
        lines += [print_graph(region, spans=spans, indent=indent + "    ") for region in node.regions]
    lines.append(f"{indent}  return {', '.join(_ref(node, names) for node in graph.results)}")
    lines.append(indent + "}")
    return "\n".join(lines)


def fingerprint(graph: Graph) -> str:
    """64 hex digits that are equal exactly for graphs of equal text (spans left out)."""
    return hashlib.sha256(print_graph(graph, spans=False).encode()).hexdigest()


def attrs_text(attrs: Attrs) -> str:
    return ", ".join(f"{key}={_value_text(value)}" for key, value in sorted(attrs.items()))


def _names(graph: Graph) -> dict[Node, str]:
    names = {p: f"%{p.attr('name')}" for p in graph.params}
    for node in graph.operations():
        names[node] = f"%{len(names) - len(graph.params)}"
    return names


def _call(node: Node, names: Mapping[Node, str]) -> str:
    attrs = f" {{{attrs_text(node.attrs)}}}" if node.attrs else ""
    return f"{node.op.name}({', '.join(_ref(source, names) for source in node.inputs)}){attrs}"


def _ref(node: Node, names: Mapping[Node, str]) -> str:
    if node.op is CONSTANT:
        return f"{node.attr('value')}:{node.type}"
    return names.get(node, "%?")


def _value_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + attrs_text(value) + "}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(map(_value_text, value)) + ("," if len(value) == 1 else "") + ")"
    return str(value) if isinstance(value, Literal) else repr(value)


# -- verify -------------------------------------------------------------------------------------------------------


def verify(graph: Graph) -> None:
    """Check every rule of this module; raises `GraphError` (G001) that names the node."""
    seen: set[Node] = set()
    for position, node in enumerate(graph.nodes):
        where = f"node {position} ({node.op.name}) of graph {graph.name!r}"
        if node in seen:
            _broken(f"{where} stands twice", node)
        for source in node.inputs:
            if source not in seen:
                _broken(f"{where} takes {source!r}, which does not stand before it", node)
        _check_attrs(node, where)
        _check_type(node, where)
        for region in node.regions:
            verify(region)
        seen.add(node)
    if [n for n in graph.nodes if n.op is PARAM] != list(graph.params):
        _broken(f"graph {graph.name!r} does not hold exactly its parameters, in order", None)
    for node in graph.results:
        if node not in seen:
            _broken(f"graph {graph.name!r} returns {node!r}, which it does not hold", node)


def _check_attrs(node: Node, where: str) -> None:
    try:
        hash(attrs_text(node.attrs))
        for value in node.attrs.values():
            if not isinstance(value, Mapping | list):
                hash(value)
    except TypeError as error:
        _broken(f"{where} has an attribute that cannot be hashed: {error}", node)


def _check_type(node: Node, where: str) -> None:
    if node.op is PARAM or node.op is CONSTANT:
        return
    try:
        expected = node.op.infer([source.type for source in node.inputs], node.attrs)
    except (TypeError, ValueError) as error:
        _broken(f"{where} does not fit its inputs: {error}", node)
    if str(expected) != str(node.type):
        _broken(f"{where} says {node.type}, its inputs give {expected}", node)


def _broken(what: str, node: Node | None) -> None:
    raise GraphError("G001", what, span=node.span if node else None, hint="this is a fault of a pass or of capture")
