"""Schedules: every primitive keeps the values, random schedules too; errors say what to do; golden loop nests."""

from __future__ import annotations

import doctest
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "rewrite"))

from nest_interpreter import check_rules, run_program
from tensor_graphs import (
    SmallMachine,
    WideMachine,
    Writer,
    arguments_for,
    assert_same,
    chain,
    check,
    dense,
    graphs,
    layer_norm,
    softmax,
    sums,
    transposed,
)

from tracedsl.ir.compute import element, reduce_axis, symbolic_compute
from tracedsl.ir.expr import Task
from tracedsl.ir.graph import Graph
from tracedsl.ir.loops import nest_text
from tracedsl.ir.tensor import run_graph
from tracedsl.rewrite.tensor.lower import lower
from tracedsl.schedule import (
    Schedule,
    ScheduleError,
    default_schedule,
    lower_task,
    schedule_from_point,
    schedule_space,
)


def compute_product() -> Graph:
    w = Writer("user_compute")
    a, b, k = w.param("a", (40, 25)), w.param("b", (25, 70)), reduce_axis(25)
    return w.build(symbolic_compute(w.builder, (40, 70), lambda i, j: k.sum(element(a, (i, k)) * element(b, (k, j)))))


def bytes_product(m: int, k: int, n: int) -> Graph:
    w = Writer("bytes")
    wide = [w.cast(w.param(name, shape, dtype), dtype="int32")
            for name, shape, dtype in (("x", (m, k), "uint8"), ("w", (k, n), "int8"))]
    return w.build(w.contract(*wide, spec="ik,kj->ij"))


GOLDEN: dict[str, Callable[[], Graph]] = {
    "elementwise_chain": lambda: chain(30, 100), "row_softmax": lambda: softmax(50, 200),
    "sum_axis_0": lambda: sums((0,), (50, 300)), "full_sum": lambda: sums((0, 1), (30, 50)),
    "matmul_bias_relu": lambda: dense(50, 70, 150), "transpose": lambda: transposed(100, 70),
    "user_compute": compute_product, "blocked_matmul": lambda: dense(1000, 800, 1100),
    "bytes_product": lambda: bytes_product(100, 70, 90),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_loops_of_the_default(name: str, golden: Callable[[str, str], None]) -> None:
    tasks = lower(GOLDEN[name]()).tasks
    schedules = [default_schedule(task, WideMachine()) for task in tasks]
    nests = [lower_task(task, schedule) for task, schedule in zip(tasks, schedules)]
    for nest in nests:
        check_rules(nest.body)
    golden(f"loops/{name}.txt", "\n\n".join(f"{s}\n\n{nest_text(n)}" for s, n in zip(schedules, nests)))


@pytest.mark.parametrize("module", ["tracedsl.schedule.primitives"])
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 10 and not result.failed


# -- every primitive ----------------------------------------------------------------------------------------------


def task_of(graph: Graph) -> Task:
    (task,) = lower(graph).tasks
    return task


PRIMITIVE_CASES: list[tuple[str, Callable[[], Graph], Callable[[Schedule], Schedule]]] = [
    ("split", chain, lambda s: s.split("j", 4).split("i", 5)),
    ("split of a split", chain, lambda s: s.split("j", 7).split("j_i", 3).split("j_i_i", 2)),
    ("split beyond the extent", chain, lambda s: s.split("j", 100)),
    ("reorder", chain, lambda s: s.reorder("j", "i")),
    ("inner outside of outer", chain, lambda s: s.split("j", 5).reorder("j_i", "i", "j_o")),
    ("fuse", lambda: sums((), (6, 10)), lambda s: s.fuse("i", "j").split("i_j", 16)),
    ("fuse a split", chain, lambda s: s.split("j", 3).fuse("j_o", "j_i").split("j_o_j_i", 4)),
    ("fuse an inner split", chain, lambda s: s.split("j", 7).split("j_i", 4).fuse("j_i_o", "j_i_i")),
    ("fuse reduced", lambda: sums((0, 1)), lambda s: s.fuse("k", "r").split("k_r", 16).vectorize("k_r_i")),
    ("tile", transposed, lambda s: s.tile("i", "j", 4, 8).vectorize("j_i")),
    ("vectorize", chain, lambda s: s.vectorize("j", 4)),
    ("vectorize outside", chain, lambda s: s.reorder("j", "i").vectorize("j")),
    ("unroll", chain, lambda s: s.unroll("j", 3)),
    ("parallel", chain, lambda s: s.parallel("i").parallel("j", 4)),
    ("parallel grain", chain, lambda s: s.parallel("i", 4)),
    ("reduce vector", lambda: sums((1,)), lambda s: s.vectorize("k", 4)),
    ("reduce unroll", lambda: sums((1,)), lambda s: s.unroll("k", 4)),
    ("reduce both", lambda: sums((1,)), lambda s: s.split("k", 12).split("k_i", 4).unroll("k_i_o").vectorize("k_i_i")),
    ("reduce three", lambda: sums((1,)), lambda s: s.split("k", 9).split("k_i", 3).unroll("k_i_o").unroll("k_i_i")),
    ("columns", lambda: sums((0,)), lambda s: s.split("i", 8).reorder("i_o", "k", "i_i").vectorize("i_i")),
    ("register tile", dense, lambda s: s.tile("i", "j", 4, 4).reorder("i_o", "j_o", "k", "i_i", "j_i").unroll("i_i")
        .vectorize("j_i").parallel("i_o")),
    ("tile inside a cut reduction", dense, lambda s: s.tile("i", "j", 3, 4).split("k", 4)
        .reorder("i_o", "j_o", "k_o", "i_i", "k_i", "j_i").unroll("i_i").vectorize("j_i")),
    ("reduced lanes in a tile", dense, lambda s: s.tile("i", "j", 3, 2).split("k", 4)
        .reorder("i_o", "j_o", "k_o", "i_i", "j_i", "k_i").unroll("i_i").unroll("j_i").vectorize("k_i")),
    ("cache_read", dense, lambda s: s.split("j", 4).reorder("j_o", "i", "k", "j_i").vectorize("j_i")
        .cache_read("w", "j_o")),
    ("cache_read twice", dense, lambda s: s.tile("i", "j", 4, 4).reorder("j_o", "i_o", "k", "i_i", "j_i").unroll("i_i")
        .vectorize("j_i").cache_read("w", "j_o").cache_read("x", "i_o")),
    ("blocks of a reduction", dense, lambda s: s.split("k", 4).reorder("k_o", "i", "j", "k_i")),
    ("blocks outside of a tile", lambda: dense(13, 11, 30), lambda s: s.split("i", 8).split("i_i", 4, "i_t", "i_u")
        .split("j", 8).split("k", 4).reorder("j_o", "i_o", "k_o", "i_t", "k_i", "i_u", "j_i").parallel("j_o")
        .parallel("i_o").unroll("i_u").vectorize("j_i").cache_read("w", "k_o").cache_read("x", "k_o")),
    ("blocks of two reduced axes", lambda: sums((0, 2), (7, 5, 6)), lambda s: s.split("k", 3).split("r", 4)
        .reorder("k_o", "r_o", "i", "k_i", "r_i")),
    ("blocks that do not divide", lambda: dense(4, 30, 5), lambda s: s.split("k", 7).split("k_i", 3)
        .reorder("k_o", "k_i_o", "i", "j", "k_i_i")),
    ("tensorize", dense, lambda s: s.split("j", 4).reorder("i", "j_o", "k", "j_i").vectorize("j_i").tensorize("k", 4)
        .reorder("i", "j_o", "k_o", "j_i", "k_i")),
    ("groups side by side", lambda: bytes_product(9, 14, 10), lambda s: s.split("j", 4).split("k", 8).split("k_i", 4)
        .reorder("j_o", "k_o", "i", "k_i_o", "j_i", "k_i_i").vectorize("j_i").tensorize("k_i_i")
        .cache_read("w", "k_o")),
    ("one block", dense, lambda s: s.split("k", 99).reorder("k_o", "i", "j", "k_i")),
    ("parallel grain of a tile", lambda: dense(50, 6, 20), lambda s: s.parallel("i", 12).split("i_i", 4)
        .reorder("i_o", "i_i_o", "j", "k", "i_i_i").unroll("i_i_i")),
    ("shared", softmax, lambda s: s.parallel("i", 2).vectorize("j", 4).unroll("k", 3).vectorize("k1", 4)),
    ("shared vector", softmax, lambda s: s.vectorize("i", 4)),
    ("shared unroll", layer_norm, lambda s: s.unroll("i", 3)),
]


@pytest.mark.parametrize("graph,change", [case[1:] for case in PRIMITIVE_CASES], ids=[c[0] for c in PRIMITIVE_CASES])
def test_primitives_keep_the_values(graph: Callable[[], Graph], change: Callable[[Schedule], Schedule]) -> None:
    check(graph(), lambda task: change(Schedule.of(task)))


def test_steps_replay_from_json_and_print_as_a_hint() -> None:
    for _, graph, change in PRIMITIVE_CASES:
        task = task_of(graph())
        made = change(Schedule.of(task))
        again = Schedule.from_json(task, json.loads(json.dumps(made.to_json())))
        assert again == made
        assert made.as_python("x").startswith("hint(x).") and str(made.steps[0][1][0]) in made.as_python("x")
    made = Schedule.of(task_of(chain())).split("j", 4).vectorize("j_i")
    assert made.as_python("y") == 'hint(y).split("j", 4, "j_o", "j_i").vectorize("j_i")'


def _random_step(draw: st.DrawFn, schedule: Schedule, buffers: list[str]) -> tuple[str, tuple[Any, ...]]:
    names = [leaf.name for leaves in schedule.loops for leaf in leaves]
    axis = st.sampled_from(names)
    match draw(st.sampled_from(("split", "split", "reorder", "fuse", "vectorize", "unroll", "parallel", "tensorize",
                                "cache_read"))):
        case "reorder":
            level = [leaf.name for leaf in draw(st.sampled_from([x for x in schedule.loops if x]))]
            return "reorder", tuple(draw(st.permutations(level)))
        case "fuse":
            level = [leaf.name for leaf in draw(st.sampled_from([x for x in schedule.loops if x]))]
            at = draw(st.integers(0, len(level) - 1))
            return "fuse", (level[at], level[min(at + 1, len(level) - 1)])
        case "cache_read":
            return "cache_read", (draw(st.sampled_from(buffers)), draw(axis))
        case "split":
            return "split", (draw(axis), draw(st.integers(1, 6)))
        case kind:
            return kind, (draw(axis), draw(st.integers(0, 4)))


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_schedules_keep_the_values(data: st.DataObject) -> None:
    """What the primitives and the lowering accept computes what NumPy does."""
    graph = data.draw(st.one_of(graphs(), st.sampled_from([dense(5, 6, 7), softmax(5, 6), sums((1,), (3, 11)),
                                                           transposed(5, 7), dense(4, 9, 6, "int32")])))
    program = lower(graph)
    nests = []
    for task in program.tasks:
        schedule = Schedule.of(task)
        if any(schedule.loops):
            for _ in range(data.draw(st.integers(0, 6))):
                step = _random_step(data.draw, schedule, [b.name for b in task.buffers()])
                try:
                    schedule = schedule.apply([step])
                except ScheduleError:
                    continue
        try:
            nests.append(lower_task(task, schedule))
        except ScheduleError as error:
            assert error.code in ("S004", "S005", "S006"), error
            nests.append(lower_task(task, Schedule.of(task)))
    given_arrays = arguments_for(graph)
    for got, want in zip(run_program(program, nests, given_arrays), run_graph(graph, given_arrays)):
        assert_same(got, want)


# -- space --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_points_of_the_space_keep_the_values(data: st.DataObject) -> None:
    graph = data.draw(st.sampled_from([dense(7, 6, 19), softmax(5, 18), sums((1,), (3, 40)), sums((0,), (9, 21)),
                                       transposed(9, 12), chain(5, 21), layer_norm(40, 6)]))
    program, nests = lower(graph), []
    for task in program.tasks:
        space = schedule_space(task, SmallMachine())
        point = {name: data.draw(st.sampled_from(values)) for name, values in space.items()}
        try:
            nests.append(lower_task(task, schedule_from_point(task, SmallMachine(), point)))
        except ScheduleError as error:
            assert error.code == "S006"
            return
    given_arrays = arguments_for(graph)
    for got, want in zip(run_program(program, nests, given_arrays), run_graph(graph, given_arrays)):
        assert_same(got, want)


def test_the_first_point_is_the_default() -> None:
    for graph in (dense(50, 60, 200), softmax(50, 60), sums((1,), (30, 400)), chain(5, 210)):
        (task,) = lower(graph).tasks
        space = schedule_space(task, WideMachine())
        first = {name: values[0] for name, values in space.items()}
        assert schedule_from_point(task, WideMachine(), first) == default_schedule(task, WideMachine())
        assert schedule_from_point(task, WideMachine(), {}) == default_schedule(task, WideMachine())
        assert all(len(set(values)) == len(values) > 1 for values in space.values())
    with pytest.raises(ScheduleError, match="no choice 'heigth'") as caught:
        schedule_from_point(lower(dense()).tasks[0], WideMachine(), {"heigth": 3})
    assert "height" in caught.value.diagnostic.hint


def test_default_tiles() -> None:
    def tile(graph: Graph) -> dict[str, Any]:
        return {name: values[0] for name, values in schedule_space(task_of(graph), WideMachine()).items()}

    square = tile(dense(1024, 1024, 1024))
    assert square["pack"] and square["height"] * square["vectors"] >= 24
    small = tile(dense(256, 256, 256))
    assert not small["pack"] and (small["height"], small["vectors"]) == (6, 4)
    assert tile(dense(1024, 32, 32))["vectors"] == 2


# -- hints --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [
    (("tile", (4, 8)),), (("tile", (4, 8)), ("vectorize", ())), (("vectorize", (4,)),), (("unroll", (2,)),),
    (("parallel", ()),), (("split", (0, 4)), ("vectorize", ("j", 4))), (("reorder", (1, 0)),),
    (("tile", (4, 8)), ("vectorize", ()), ("unroll", ()), ("parallel", ())), (("cache_read", ("w", "i")),),
    (("vectorize", (0,)), ("parallel", (4,))), (("tile", (4,)), ("unroll", (0,))),
    (("cache", ("local",)), ("parallel", (0,))),
])
def test_hints_are_followed_and_keep_the_values(calls: tuple[tuple[str, tuple[object, ...]], ...]) -> None:
    w = Writer()
    x, weights = w.param("x", (9, 6)), w.param("w", (6, 21))
    graph = w.build(w.hint(w.contract(x, weights, spec="ik,kj->ij"), steps=calls))
    (task,) = check(graph).tasks
    made = default_schedule(task, SmallMachine())
    assert {"split" if name == "tile" else name for name, _ in calls} - {"cache"} <= {name for name, _ in made.steps}
    assert not schedule_space(task, SmallMachine())


@pytest.mark.parametrize("calls,code", [
    ((("tile", (0, 8)),), "S002"), ((("tile", (2, 2, 2)),), "S007"), ((("vectorise", (8,)),), "S001"),
    ((("split", ("z", 8)),), "S001"),
    ((("split", (5, 8)),), "S007"), ((("vectorize", ()), ("vectorize", ())), "S003"), ((("split", ("i",)),), "S002"),
    ((("parallel", ("k",)),), "S003"), ((("vectorize", (4096,)),), "S006"),
])
def test_hints_that_contradict_the_value(calls: tuple[tuple[str, tuple[object, ...]], ...], code: str) -> None:
    w = Writer()
    x, weights = w.param("x", (9, 600)), w.param("w", (600, 5000))
    (task,) = lower(w.build(w.hint(w.contract(x, weights, spec="ik,kj->ij"), steps=calls))).tasks
    with pytest.raises(ScheduleError) as caught:
        default_schedule(task, SmallMachine())
    assert caught.value.code == code


# -- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change,code,words", [
    (lambda s: s.split("jj", 4), "S001", "did you mean 'j'"),
    (lambda s: s.split("j", 0), "S002", "at least 1"),
    (lambda s: s.split("j", 2.5), "S002", "2.5"),
    (lambda s: s.split("j", 4, "i"), "S002", "exists already"),
    (lambda s: s.reorder("i", "i"), "S002", "twice"),
    (lambda s: s.vectorize("j").vectorize("j"), "S003", "j"),
    (lambda s: s.vectorize("j").vectorize("i"), "S003", "holds no other"),
    (lambda s: s.unroll("j").parallel("j"), "S004", "outermost"),
    (lambda s: s.parallel("j"), "S004", "reorder it to the front"),
    (lambda s: s.parallel("i").unroll("i"), "S003", "parallel loop already"),
    (lambda s: s.fuse("j", "i"), "S004", "neighbours"),
    (lambda s: s.split("i", 2).fuse("i_i", "j"), "S005", "parts of different axes"),
    (lambda s: s.cache_read("x", "q"), "S001", "q"),
    (lambda s: s.apply([("vectorise", ("j",))]), "S001", "vectorize"),
])
def test_wrong_primitives(change: Callable[[Schedule], Schedule], code: str, words: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        change(Schedule.of(task_of(chain())))
    assert caught.value.code == code and words in str(caught.value)


def test_too_much_code() -> None:
    plain = Schedule.of(task_of(sums((), (10**6, 10**6))))
    for change in (lambda s: s.unroll("i"), lambda s: s.vectorize("j"),
                   lambda s: s.split("i", 100).unroll("i_i").split("j", 100).unroll("j_i")):
        with pytest.raises(ScheduleError, match="limit") as caught:
            change(plain)
        assert caught.value.code == "S006" and caught.value.diagnostic.hint


@pytest.mark.parametrize("graph,change,code", [
    (dense, lambda s: s.split("k", 4).reorder("k_o", "k_i", "i", "j").vectorize("k_i"), "S004"),
    (lambda: dense(2000, 9, 2000), lambda s: s.reorder("k", "i", "j"), "S006"),
    (chain, lambda s: s.fuse("i", "j"), "S005"),
    (chain, lambda s: s.split("j", 4).reorder("j_i", "j_o"), "S004"),
    (lambda: dense(2000, 2000, 2000), lambda s: s.reorder("j", "i", "k").cache_read("x", "j"), "S006"),
    (lambda: softmax(40, 9), lambda s: s.reorder("i").unroll("i").parallel("j"), "S004"),
])
def test_schedules_that_cannot_be_lowered(graph: Callable[[], Graph], change: Callable[[Schedule], Schedule],
                                          code: str) -> None:
    task = task_of(graph())
    with pytest.raises(ScheduleError) as caught:
        lower_task(task, change(Schedule.of(task)))
    assert caught.value.code == code


@pytest.mark.parametrize("steps", [None, {}, "split", [["split"]], [["split", "i"]], [[1, []]]])
def test_damaged_records(steps: Any) -> None:
    with pytest.raises(ScheduleError) as caught:
        Schedule.from_json(task_of(chain()), steps)
    assert caught.value.code == "S008"
