"""Chains of contractions in blocks of rows, and the softmax's division behind the product."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensor_graphs import Writer, check

from tracedsl.ir.expr import Task
from tracedsl.ir.graph import Graph, Node
from tracedsl.ir.tensor import OPS
from tracedsl.rewrite.passes import run_passes
from tracedsl.rewrite.tensor.attention import divide_after_product
from tracedsl.rewrite.tensor.lower import lower
from tracedsl.rewrite.tensor.passes import TENSOR_PASSES


def spread_rows(w: Writer, rows: Node, shape: tuple[int, ...]) -> Node:
    return w.spread(w.reshape(rows, shape=(*shape[:-1], 1)), shape, tuple(range(len(shape))))


def attention(heads: int, rows: int, keys: int, size: int, mask: str = "", shown: bool = False) -> Graph:
    """softmax(q @ k.T / 2) @ v, one head (0) or several; `mask`: causal, given; `shown`: returns the weights too."""
    w = Writer("attention")
    batch, letter = ((heads,), "h") if heads else ((), "")
    q, k, v = (w.param(n, (*batch, m, size)) for n, m in (("q", rows), ("k", keys), ("v", keys)))
    shape = (*batch, rows, keys)
    scores = w.contract(q, k, spec=f"{letter}id,{letter}jd->{letter}ij")
    scores = w.mul(scores, w.constant(0.5, shape=shape))
    rank = len(shape)
    if mask == "causal":
        seen = w.le(w.iota(shape=shape, axis=rank - 1), w.iota(shape=shape, axis=rank - 2))
        scores = w.select(seen, scores, w.constant(-1e30, shape=shape))
    if mask == "given":
        scores = w.add(scores, w.spread(w.param("m", shape[-2:]), shape, (rank - 2, rank - 1)))
    top = w.reduce(scores, kind="maximum", axes=(rank - 1,))
    weights = w.exp(w.sub(scores, spread_rows(w, top, shape)))
    weights = w.div(weights, spread_rows(w, w.sum(weights, rank - 1), shape))
    result = w.contract(weights, v, spec=f"{letter}ij,{letter}je->{letter}ie")
    return w.build(*((result, weights) if shown else (result,)))


def chain(rows: int, middle: int, size: int) -> Graph:
    """tanh(relu(x @ a)) @ b: no softmax between."""
    w = Writer("chain")
    x, a, b = w.param("x", (rows, size)), w.param("a", (size, middle)), w.param("b", (middle, size))
    h = w.contract(x, a, spec="ik,kj->ij")
    h = w.tanh(w.maximum(h, w.constant(0, shape=(rows, middle))))
    return w.build(w.contract(h, b, spec="ik,kj->ij"))


def rewritten(graph: Graph) -> Graph:
    return run_passes(graph, TENSOR_PASSES).graph


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2), st.sampled_from((16, 24, 30, 34, 17)), st.integers(1, 40), st.integers(1, 6),
       st.sampled_from(("", "causal", "given")), st.booleans())
def test_attention_agrees_with_numpy(heads: int, rows: int, keys: int, size: int, mask: str, shown: bool) -> None:
    graph = attention(heads, rows, keys, size, mask, shown)
    check(graph)
    check(rewritten(graph))


@pytest.mark.parametrize("mask", ["", "causal", "given"])
@pytest.mark.parametrize("heads", [0, 3])
def test_attention_is_one_task_without_scores_in_memory(heads: int, mask: str) -> None:
    program = lower(rewritten(attention(heads, 64, 96, 8, mask)))
    assert len(program.tasks) == 1
    assert not program.temps


def test_one_division_a_row_and_only_where_the_weights_are_not_shown(golden: Callable[[str, str], None]) -> None:
    graph = attention(0, 32, 48, 4)
    after = divide_after_product(graph)
    golden("graph/divide_after_product.txt", f"{graph}\n\n->\n\n{after}")
    assert {n.type for n in after.nodes if n.op is OPS["div"]} > {after.results[0].type}
    shown = attention(0, 32, 48, 4, shown=True)
    assert str(divide_after_product(shown)) == str(shown)


def test_only_a_softmax_is_divided_later() -> None:
    w = Writer("norm")
    x, v = w.param("x", (8, 6)), w.param("v", (6, 5))
    total = spread_rows(w, w.sum(x, 1), (8, 6))
    graph = w.build(w.contract(w.div(x, total), v, spec="ik,kj->ij"))
    assert str(divide_after_product(graph)) == str(graph)


def test_golden_tasks(golden: Callable[[str, str], None]) -> None:
    golden("tasks/attention.txt", str(lower(rewritten(attention(3, 256, 256, 32, "causal")))))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from((16, 32, 48, 50)), st.integers(1, 40), st.integers(1, 5))
def test_other_chains_agree_with_numpy(rows: int, middle: int, size: int) -> None:
    check(chain(rows, middle, size))


def test_a_chain_whose_operands_are_larger_than_what_lies_between_is_not_blocked() -> None:
    def names(graph: Graph) -> list[list[str]]:
        return [[stage.out.scope for stage in task.stages] for task in lower(graph).tasks]

    assert names(chain(256, 16, 4)) == [["local", "result"]]
    assert names(chain(16, 16, 64)) == [["temp"], ["result"]]
    assert names(chain(131, 16, 2)) == [["temp"], ["result"]]       # no number of rows that divides


def test_blocks_of_rows_run_in_parallel() -> None:
    from tensor_graphs import WideMachine

    from tracedsl.schedule import default_schedule

    (task,) = lower(rewritten(attention(0, 256, 256, 32))).tasks
    assert isinstance(task, Task) and task.shared == 1
    assert default_schedule(task, WideMachine()).shared[0].kind == "parallel"
