"""The graph: text, verification, rewriting; on a dialect made up here, so that no real dialect is assumed."""

from __future__ import annotations

import pytest

from tracedsl.diagnostics import Span
from tracedsl.ir.graph import Builder, Effect, Graph, GraphError, Node, Op, fingerprint, print_graph, verify


class Int:
    def __str__(self) -> str:
        return "int"


def _int(inputs: object, attrs: object) -> Int:
    return Int()


ADD = Op("add", _int, lambda values, attrs: values[0] + values[1])
LOG = Op("log", _int, None, lambda attrs: Effect.ORDERED)


def build(span_line: int = 3) -> Graph:
    b = Builder("f")
    x = b.param("x", Int())
    two = b.constant(2, Int(), "2")
    y = b.add(ADD, [x, two], span=Span("/a/user.py", span_line))
    b.add(LOG, [y], {"to": "here", "levels": (1, 2)})
    return b.build([y])


def test_text_shows_types_attributes_and_lines() -> None:
    assert str(build()).splitlines() == [
        "graph f(%x: int) {",
        "  %0 = add(%x, 2:int) : int".ljust(76) + "  # user.py:3",
        "  %1 = log(%0) {levels=(1, 2), to='here'} : int",
        "  return %0",
        "}",
    ]


def test_fingerprint_ignores_where_the_source_stands() -> None:
    assert fingerprint(build(3)) == fingerprint(build(99))
    assert print_graph(build(3)) != print_graph(build(99))


def test_verify_accepts_what_the_builder_makes() -> None:
    verify(build())


def broken_order() -> Graph:
    g = build()
    return Graph(g.name, g.params, tuple(reversed(g.nodes)), g.results)


def broken_type() -> Graph:
    g = build()
    bad = Node(ADD, g.nodes[2].inputs, {}, _Str())
    return Graph(g.name, g.params, (*g.nodes, bad), (bad,))


def broken_result() -> Graph:
    g = build()
    return Graph(g.name, g.params, g.nodes, build().results)


def broken_params() -> Graph:
    g = build()
    return Graph(g.name, (), g.nodes, g.results)


def broken_twice() -> Graph:
    g = build()
    return Graph(g.name, g.params, (*g.nodes, g.nodes[-1]), g.results)


def broken_attr() -> Graph:
    g = build()
    bad = Node(ADD, g.nodes[2].inputs, {"set": set()}, Int())
    return Graph(g.name, g.params, (*g.nodes, bad), (bad,))


class _Str:
    def __str__(self) -> str:
        return "str"


@pytest.mark.parametrize("make, part", [
    (broken_order, "does not stand before it"), (broken_type, "says str, its inputs give int"),
    (broken_result, "which it does not hold"), (broken_params, "exactly its parameters"),
    (broken_twice, "stands twice"), (broken_attr, "cannot be hashed"),
])
def test_verify_names_each_fault(make: object, part: str) -> None:
    with pytest.raises(GraphError, match=part) as caught:
        verify(make())  # type: ignore[operator]
    assert caught.value.code == "G001"


def test_a_region_is_verified_and_printed_inside_its_node() -> None:
    inner = build()
    b = Builder("outer")
    x = b.param("x", Int())
    node = b.add(ADD, [x, x], regions=[inner])
    text = str(b.build([node]))
    assert "    graph f(%x: int) {" in text
    b2 = Builder("outer")
    y = b2.param("x", Int())
    bad = b2.add(ADD, [y, y], regions=[broken_order()])
    with pytest.raises(GraphError):
        verify(b2.build([bad]))
