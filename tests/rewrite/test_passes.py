"""The pass manager and the generic passes, on both dialects' kinds of nodes and on a made-up one."""

from __future__ import annotations

import numpy as np
import pytest

from tracedsl.ir.graph import CONSTANT, Builder, Effect, Graph, GraphError, Node, Op, Rewriter
from tracedsl.ir.tensor import OPS, TensorType, constant_text, run_graph
from tracedsl.rewrite.generic import CannotFold, drop_dead, fold_constants, share_common
from tracedsl.rewrite.passes import Pass, run_passes


class Int:
    def __str__(self) -> str:
        return "int"


def _int(inputs: object, attrs: object) -> Int:
    return Int()


ADD = Op("add", _int, lambda values, attrs: values[0] + values[1])
DRAW = Op("draw", _int, lambda values, attrs: 4, lambda attrs: Effect.SAMPLED)
LOG = Op("log", _int, None, lambda attrs: Effect.ORDERED)


def constant(to: Rewriter, value: object, node: Node) -> Node:
    return to.constant(value, node.type, repr(value), node.span)


def evaluate(node: Node, values: object) -> object:
    assert node.op.evaluate is not None
    return node.op.evaluate(values, node.attrs)  # type: ignore[arg-type]


fold = Pass("fold", fold_constants(evaluate, constant))
share = Pass("share", share_common)
drop = Pass("drop", drop_dead)


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.operations()]


def test_fold_chains_of_constants_and_leave_samples_alone() -> None:
    b = Builder("f")
    one, two = b.constant(1, Int(), "1"), b.constant(2, Int(), "2")
    total = b.add(ADD, [b.add(ADD, [one, two]), two])
    drawn = b.add(ADD, [b.add(DRAW), total])
    g = run_passes(b.build([drawn, total]), [fold, drop]).graph
    assert ops(g) == ["draw", "add"]
    assert g.results[1].op is CONSTANT and g.results[1].attr("value").value == 5


def test_fold_leaves_what_an_evaluator_declines() -> None:
    def decline(node: Node, values: object) -> object:
        raise CannotFold

    b = Builder("f")
    one = b.constant(1, Int(), "1")
    g = b.build([b.add(ADD, [one, one])])
    assert ops(fold_constants(decline, constant)(g)) == ["add"]


def test_share_merges_pure_nodes_only() -> None:
    b = Builder("f")
    x = b.param("x", Int())
    a1, a2, d1, d2, l1, l2 = (b.add(op, [x, x]) for op in (ADD, ADD, DRAW, DRAW, LOG, LOG))
    g = run_passes(b.build([a1, a2, d1, d2, l1, l2]), [share]).graph
    assert ops(g) == ["add", "draw", "draw", "log", "log"]
    assert g.results[0] is g.results[1] and g.results[2] is not g.results[3]


def test_share_sees_through_shared_inputs_and_attributes() -> None:
    b = Builder("f")
    x = b.param("x", Int())
    left = b.add(ADD, [b.add(ADD, [x, x]), x])
    right = b.add(ADD, [b.add(ADD, [x, x]), x])
    other = b.add(ADD, [b.add(ADD, [x, x]), x], {"mode": 1})
    g = share_common(b.build([left, right, other]))
    assert g.results[0] is g.results[1] and g.results[2] is not g.results[0]
    assert len(ops(g)) == 3


def test_drop_keeps_ordered_nodes_and_what_they_need() -> None:
    b = Builder("f")
    x = b.param("x", Int())
    b.add(DRAW, [x])
    seen = b.add(ADD, [x, x])
    b.add(LOG, [seen])
    assert ops(drop_dead(b.build([x]))) == ["add", "log"]


def test_the_same_passes_serve_tensors() -> None:
    b = Builder("f")
    x = b.param("x", TensorType("float64", (3,)))
    scalar = TensorType("float64", ())
    two, three = (b.constant(np.float64(v), scalar, constant_text(np.asarray(v))) for v in (2.0, 3.0))
    six = b.add(OPS["mul"], [two, three])
    wide = b.add(OPS["broadcast"], [six], {"shape": (3,), "dims": ()})
    first, second = (b.add(OPS["exp"], [x]) for _ in range(2))
    b.add(OPS["sin"], [x])
    g = b.build([b.add(OPS["mul"], [b.add(OPS["add"], [first, second]), wide])])

    def small(node: Node, values: object) -> object:
        if node.op is not OPS["mul"]:
            raise CannotFold
        return evaluate(node, values)

    def tensor_constant(to: Rewriter, value: object, node: Node) -> Node:
        return to.constant(value, node.type, constant_text(np.asarray(value)))

    new = run_passes(g, [Pass("fold", fold_constants(small, tensor_constant)), share, drop]).graph
    assert ops(new) == ["tensor.broadcast", "tensor.exp", "tensor.add", "tensor.mul"]
    data = np.array([0.5, -1.0, 2.0])
    np.testing.assert_array_equal(run_graph(new, [data])[0], run_graph(g, [data])[0])


def break_it(graph: Graph) -> Graph:
    """return the last node before the first"""
    return Graph(graph.name, graph.params, tuple(reversed(graph.nodes)), graph.results)


def simple() -> Graph:
    b = Builder("f")
    x = b.param("x", Int())
    return b.build([b.add(ADD, [x, x])])


def test_a_pass_that_breaks_the_graph_is_named() -> None:
    with pytest.raises(GraphError, match="break-it") as caught:
        run_passes(simple(), [share, Pass("break-it", break_it)])
    assert caught.value.code == "G002" and "TRACEDSL_DISABLE=break-it" in str(caught.value)


def test_passes_can_be_switched_off_and_printed(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    broken = Pass("break-it", break_it)
    assert [r.name for r in run_passes(simple(), [share, broken], disable=["break-it"]).records] == ["share"]
    monkeypatch.setenv("TRACEDSL_DISABLE", "break-it,share")
    monkeypatch.setenv("TRACEDSL_PRINT", "passes")
    assert [r.name for r in run_passes(simple(), [share, broken, drop]).records] == ["drop"]
    assert "drop" in capsys.readouterr().err


def test_an_unknown_pass_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'share'"):
        run_passes(simple(), [share], disable=["shre"])
