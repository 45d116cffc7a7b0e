"""Every simplification rule, fuzzed against NumPy from its own text, bit for bit; the passes as a whole."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensor_graphs import Writer, arguments_for, dense, graphs, softmax

from tracedsl.ir.graph import Graph, Node, fingerprint
from tracedsl.ir.tensor import OPS, TensorType, run_graph
from tracedsl.rewrite.passes import run_passes
from tracedsl.rewrite.tensor import passes
from tracedsl.rewrite.tensor.passes import TENSOR_PASSES
from tracedsl.rewrite.tensor.rules import RULES, Rule, _parsed, lossless

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.1, -2.5, 3.0, math.inf, -math.inf, math.nan, 1e38, 1e-38, 1e-42]
DTYPES = ("float32", "float64", "float16", "int8", "int64", "uint8", "bool", "complex64")


def same_bits(a: Any, b: Any) -> bool:
    """Equal values and equal signs of zeros; NaN equals NaN (its sign and payload are nobody's promise)."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "c":
        return same_bits(a.real, b.real) and same_bits(a.imag, b.imag)
    if a.dtype.kind != "f":
        return bool((a == b).all())
    return bool(((a == b) & (np.signbit(a) == np.signbit(b)) | np.isnan(a) & np.isnan(b)).all())


def values_of(dtype: str, number: int) -> np.ndarray[Any, Any]:
    """Special values, in another order for each variable."""
    kind = np.dtype(dtype).kind
    with np.errstate(all="ignore"):
        if kind == "b":
            line = np.array([True, False] * 8)
        elif kind in "iu":
            limits = np.iinfo(dtype)
            line = np.array([0, 1, 2, 3, 7, limits.max, limits.min, limits.max - 1] * 2, dtype)
        elif kind == "c":
            line = np.array([complex(a, b) for a, b in itertools.product(SPECIAL[:8], repeat=2)], dtype)
        else:
            line = np.array(SPECIAL * 2, dtype)
    return np.random.default_rng(number).permutation(line)


def write(w: Writer, pattern: Any, dtype: str, variables: dict[str, Node], size: int) -> Node:
    if isinstance(pattern, str):
        kind = "bool" if pattern == "m" else dtype
        if pattern == "c":
            return w.constant(0.25, dtype, (size,))
        if pattern not in variables:
            variables[pattern] = w.param(pattern, (size,), kind)
        return variables[pattern]
    if isinstance(pattern, tuple):
        return getattr(w, pattern[0])(*(write(w, part, dtype, variables, size)  # type: ignore[no-any-return]
                                        for part in pattern[1]))
    return w.constant(pattern, "bool" if isinstance(pattern, bool) else dtype, (size,))


SCALAR_RULES = [rule for rule in RULES if isinstance(rule.to, str) or "c)" in rule.pattern]


@pytest.mark.parametrize("rule", SCALAR_RULES, ids=[rule.pattern for rule in SCALAR_RULES])
def test_scalar_rules_keep_every_bit(rule: Rule) -> None:
    fired = 0
    for dtype in DTYPES:
        size = len(values_of(dtype, 0))
        w, variables = Writer(), dict[str, Node]()
        try:
            graph = w.build(write(w, _parsed(rule.pattern), dtype, variables, size))
            arguments = [values_of(v.type.dtype, n)[:size] if v.type.dtype != "bool"  # type: ignore[attr-defined]
                         else np.resize(values_of("bool", n), size) for n, v in enumerate(graph.params)]
            want = run_graph(graph, arguments)
        except (TypeError, KeyError, OverflowError, ValueError):
            continue
        if np.asarray(want[0]).dtype != graph.results[0].type.dtype:  # type: ignore[attr-defined]
            continue  # NumPy works in another dtype, so capture would have cast before
        new = passes.simplify(graph)
        fired += fingerprint(new) != fingerprint(graph)
        assert same_bits(run_graph(new, arguments)[0], want[0]), (rule.pattern, dtype)
    assert fired, "no dtype makes the rule fire"


def test_rules_that_are_almost_right_are_not_there() -> None:
    """x + 0.0 loses the sign of -0.0; x * 0.0 is not 0.0 for inf; x - x is not 0 for NaN; x / 3 is not x * (1/3)."""
    w = Writer()
    x = w.param("x", (26,))
    for node in (w.add(x, w.constant(0.0, shape=(26,))), w.mul(x, w.constant(0.0, shape=(26,))), w.sub(x, x),
                 w.div(x, w.constant(3.0, shape=(26,))), w.div(x, w.constant(2.0 ** -149, shape=(26,)))):
        graph = Graph("f", (x,), tuple(w.builder._nodes), (node,))
        assert passes.simplify(graph).results[0].op is node.op


@pytest.mark.parametrize("first", DTYPES)
@pytest.mark.parametrize("second", DTYPES)
def test_casts_of_casts(first: str, second: str) -> None:
    for third in DTYPES:
        w = Writer()
        x = w.param("x", (len(values_of(first, 0)),), first)
        graph = w.build(w.cast(w.cast(x, dtype=second), dtype=third))
        new = passes.simplify(graph)
        casts = sum(node.op is OPS["cast"] for node in passes.drop_dead(new).nodes)
        assert casts <= 1 or not lossless(first, second)
        values = values_of(first, 1)
        if np.dtype(first).kind in "fc":
            values = values[np.isfinite(values)]  # NaN to integer is nobody's promise
            if np.dtype(third).kind in "iu" or np.dtype(second).kind in "iu":
                values = values[np.abs(values) < 100]
            if np.dtype(third).kind == "u" or np.dtype(second).kind == "u":
                values = np.abs(values).astype(first)
        w = Writer()
        x = w.param("x", values.shape, first)
        graph = w.build(w.cast(w.cast(x, dtype=second), dtype=third))
        got, want = run_graph(passes.simplify(graph), [values])[0], run_graph(graph, [values])[0]
        assert same_bits(got, want), (first, second, third)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(graph=graphs())
def test_passes_keep_random_graphs(graph: Graph) -> None:
    arguments = arguments_for(graph)
    for got, want in zip(run_graph(run_passes(graph, TENSOR_PASSES).graph, arguments), run_graph(graph, arguments)):
        if np.asarray(want).dtype.kind == "f":
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(got, want)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_views_of_views_become_one(data: st.DataObject) -> None:
    w = Writer()
    node = w.param("x", (4, 6), "int32")
    sort = data.draw(st.sampled_from(("transpose", "reshape", "slice", "broadcast")))
    for _ in range(3):
        shape = node.type.shape  # type: ignore[attr-defined]
        match sort:
            case "transpose":
                node = w.transpose(node, perm=tuple(data.draw(st.permutations((0, 1)))))
            case "reshape":
                node = w.reshape(node, shape=data.draw(st.sampled_from([(24,), (2, 12), (4, 6), (1, 24)])))
            case "broadcast":
                node = w.spread(node, (data.draw(st.integers(1, 2)), *shape), tuple(range(1, len(shape) + 1)))
            case _:
                size = tuple(data.draw(st.integers(1, n)) for n in shape)
                node = w.slice(node, start=tuple(n - 1 for n in shape), step=(-1, -1), size=size)
    graph = w.build(node)
    new = passes.drop_dead(passes.simplify(graph))
    assert sum(1 for _ in new.operations()) <= 1
    arguments = arguments_for(graph)
    np.testing.assert_array_equal(run_graph(new, arguments)[0], run_graph(graph, arguments)[0])


def test_folding_is_limited_and_never_writes_a_broadcast_out() -> None:
    w = Writer()
    big = w.constant(2.0, shape=(1000, 1000))
    graph = w.build(w.sqrt(w.mul(big, big)), w.iota(shape=(50,), axis=0))
    new = run_passes(graph, TENSOR_PASSES).graph
    sizes = [n.type.size for n in new.nodes if "value" in n.attrs]  # type: ignore[attr-defined]
    assert max(sizes) == 1
    assert {n.op.name for n in new.operations()} == {"tensor.broadcast", "tensor.iota"}
    w = Writer()
    table = w.array(np.arange(5000.0))
    kept = run_passes(w.build(w.sqrt(table)), TENSOR_PASSES).graph
    assert any(n.op is OPS["sqrt"] for n in kept.nodes)
    w = Writer()
    gone = run_passes(w.build(w.sqrt(w.array(np.arange(50.0)))), TENSOR_PASSES).graph
    assert not list(gone.operations())


def test_a_uniform_array_is_one_number() -> None:
    w = Writer()
    x = w.param("x", (6,), "float64")
    graph = w.build(w.mul(x, w.array(np.ones(6))))
    assert not list(run_passes(graph, TENSOR_PASSES).graph.operations())
    w = Writer()
    x = w.param("x", (2,), "float64")
    signed = w.build(w.add(x, w.array(np.array([0.0, -0.0]))))
    assert list(run_passes(signed, TENSOR_PASSES).graph.operations())


@pytest.mark.parametrize("shape,axes", [((100,), (0,)), ((7, 30), (0, 1)), ((30, 7), (0,)), ((5, 6, 7), (0, 2)),
                                        ((3, 100), (1,)), ((64,), (0,)), ((33, 2), (0, 1)), ((2, 17, 2), (1,))])
@pytest.mark.parametrize("kind", ["add", "maximum"])
def test_blocks_of_long_reductions(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], axes: tuple[int, ...],
                                   kind: str) -> None:
    monkeypatch.setattr(passes, "SUM_BLOCK", 16)
    w = Writer()
    graph = w.build(w.reduce(w.param("x", shape, "int64"), kind=kind, axes=axes))
    new = run_passes(graph, TENSOR_PASSES).graph
    arguments = arguments_for(graph)
    np.testing.assert_array_equal(run_graph(new, arguments)[0], run_graph(graph, arguments)[0])
    for node in new.nodes:
        if node.op is OPS["reduce"]:
            source = node.inputs[0].type
            assert isinstance(source, TensorType)
            assert math.prod(source.shape[a] for a in node.attr("axes")) <= 32
    assert fingerprint(passes.block_reductions(new)) == fingerprint(new)


@pytest.mark.parametrize(("rows", "columns", "spec", "dtype", "blocked"), [
    (128, 512, "k,kj->j", "float32", True), (192, 520, "kj,k->j", "float64", True),
    (128, 64, "k,kj->j", "float32", False),         # short rows
    (64, 512, "k,kj->j", "float32", False),         # few rows
    (512, 128, "k,jk->j", "float32", False),        # the sum runs along the rows
    (128, 512, "k,kj->j", "int64", False)])
def test_a_vector_times_a_matrix_of_long_rows_is_a_sum_of_rows(rows: int, columns: int, spec: str, dtype: str,
                                                               blocked: bool) -> None:
    w = Writer()
    matrix = w.param("m", (rows, columns) if "kj" in spec else (columns, rows), dtype)
    operands = {"k": w.param("v", (rows,), dtype), "kj": matrix, "jk": matrix}
    graph = w.build(w.contract(*(operands[part] for part in spec.split("->")[0].split(",")), spec=spec))
    new = run_passes(graph, TENSOR_PASSES).graph
    assert any(node.op is OPS["contract"] for node in new.nodes) != blocked
    arguments = arguments_for(graph)
    np.testing.assert_allclose(run_graph(new, arguments)[0], run_graph(graph, arguments)[0], rtol=1e-4, atol=1e-4)
    assert fingerprint(passes.block_reductions(new)) == fingerprint(new)


def test_every_pass_has_a_summary_and_is_exact() -> None:
    for step in TENSOR_PASSES:
        assert step.summary and step.kind.value == "exact"
    assert len({step.name for step in TENSOR_PASSES}) == len(TENSOR_PASSES)
    for graph in (softmax(), dense()):
        once = run_passes(graph, TENSOR_PASSES).graph
        assert fingerprint(run_passes(once, TENSOR_PASSES).graph) == fingerprint(once)
