"""Short axes: sums along them are written out, they are unrolled beside vectors along a long axis, nothing between two
points gets memory of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensor_graphs import SmallMachine, WideMachine, Writer, check

from tracedsl.ir.expr import Stage
from tracedsl.ir.graph import Graph, Node
from tracedsl.ir.loops import nest_text
from tracedsl.rewrite.tensor.lower import lower
from tracedsl.rewrite.tensor.terms import is_written_out
from tracedsl.schedule import default_schedule, lower_task
from tracedsl.schedule.contraction import is_tiled
from tracedsl.schedule.narrow import long_vector

SHORT = st.sampled_from([2, 3, 4, 5, 7])


def bodies(n: int = 40, depth: int = 3) -> Graph:
    """Accelerations of bodies: a sum over the coordinates inside a sum over the other bodies."""
    w = Writer("bodies")
    position, mass, shape = w.param("position", (n, depth)), w.param("mass", (n,)), (n, n, depth)
    apart = w.sub(w.spread(position, shape, (1, 2)), w.spread(position, shape, (0, 2)))
    squared = w.add(w.sum(w.mul(apart, apart), 2), w.constant(0.5, shape=(n, n)))
    weight = w.div(w.spread(mass, (n, n), (1,)), w.mul(squared, w.sqrt(squared)))
    return w.build(w.sum(w.mul(apart, w.spread(weight, shape, (0, 1))), 1))


def distances(n: int = 40, depth: int = 3) -> Graph:
    w = Writer("distances")
    a, b, shape = w.param("a", (n, depth)), w.param("b", (n + 3, depth)), (n, n + 3, depth)
    apart = w.sub(w.spread(a, shape, (0, 2)), w.spread(b, shape, (1, 2)))
    return w.build(w.sqrt(w.sum(w.mul(apart, apart), 2)))


def rotated(n: int = 40, depth: int = 3) -> Graph:
    w = Writer("rotated")
    return w.build(w.contract(w.param("p", (n, depth)), w.param("turn", (depth, depth)), spec="ik,kj->ij"))


def narrow_product(n: int = 40, depth: int = 96) -> Graph:
    w = Writer("narrow_product")
    return w.build(w.contract(w.param("x", (n, depth)), w.param("w", (depth, 3)), spec="ik,kj->ij"))


GOLDEN: dict[str, Callable[[], Graph]] = {
    "bodies": lambda: bodies(100), "distances": lambda: distances(100), "rotated": lambda: rotated(100),
    "narrow_product": narrow_product,
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_tasks_and_loops(name: str, golden: Callable[[str, str], None]) -> None:
    program = lower(GOLDEN[name]())
    schedules = [default_schedule(task, WideMachine()) for task in program.tasks]
    nests = [lower_task(task, schedule) for task, schedule in zip(program.tasks, schedules)]
    parts = [str(program), *(f"{s}\n\n{nest_text(n)}" for s, n in zip(schedules, nests))]
    golden(f"loops/short_{name}.txt", "\n\n".join(parts))


def only_stage(graph: Graph) -> Stage:
    program = lower(graph)
    assert not program.temps
    ((stage,),) = [task.stages for task in program.tasks]
    return stage


def along(stage: Stage, lanes: int = 16) -> int | None:
    """The extent of the axis that gets the vectors."""
    axes = {a.name: a for a in (*stage.axes, *stage.reduce)}
    name = long_vector((stage,), tuple(axes.values()), lanes)
    return None if name is None else axes[name].extent


def test_nothing_between_two_bodies_is_kept_in_memory() -> None:
    for depth in (2, 3, 4, 5, 7):
        stage = only_stage(bodies(100, depth))
        assert [a.extent for a in stage.axes] == [100, depth] and [a.extent for a in stage.reduce] == [100]
        assert not is_tiled(stage, WideMachine()) and along(stage) == 100


def test_vectors_go_where_most_lanes_are_filled() -> None:
    assert along(only_stage(narrow_product(40, 500))) == 500      # along the sum, contiguous in x
    assert along(only_stage(rotated(40))) == 40                   # along the points
    w = Writer()
    few = w.build(w.sum(w.mul(w.param("x", (3, 200)), w.param("y", (3, 200))), 1))
    assert along(only_stage(few)) == 200


def test_a_body_that_would_be_large_is_left_to_short_vectors() -> None:
    w = Writer()
    n = 5
    x, y = (w.param(name, (100, n, n)) for name in "xy")
    stage = only_stage(w.build(w.contract(x, y, spec="nij,njk->nik")))
    assert along(stage) is None


def test_long_sums_windows_and_wide_products_are_no_terms() -> None:
    w = Writer()
    x, m = w.param("x", (20, 9)), w.param("m", (3, 40))
    assert not is_written_out(w.sum(x, 1)) and is_written_out(w.sum(w.param("y", (20, 8)), 1))
    windows = w.window(x, shape=(20, 7, 3), start=(0, 0), steps=((1, 0, 0), (0, 1, 1)))
    assert not is_written_out(w.sum(w.neg(windows), 2))
    points = w.param("p", (20, 3))
    assert not is_written_out(w.contract(points, m, spec="ik,kj->ij"))
    assert is_written_out(w.contract(points, points, spec="ik,ik->i"))
    assert not is_written_out(w.sum(w.param("z", (20, 3), "complex64"), 1))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(short=SHORT, long=st.integers(1, 21), place=st.integers(0, 2), over=st.sets(st.integers(0, 2), min_size=1),
       kind=st.sampled_from(["add", "maximum", "mul"]), finish=st.booleans())
def test_reductions_over_axes_at_any_place(short: int, long: int, place: int, over: set[int], kind: str,
                                           finish: bool) -> None:
    w = Writer()
    shape = [6, long]
    shape.insert(place, short)
    x, y = w.param("x", shape), w.param("y", (short,))
    made: Node = w.reduce(w.mul(x, w.spread(y, shape, (place,))), axes=tuple(sorted(over)), kind=kind)
    check(w.build(w.exp(made) if finish else made))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(short=SHORT, n=st.integers(1, 21), make=st.sampled_from([bodies, distances, rotated]),
       wide=st.booleans())
def test_points_of_any_dimension(short: int, n: int, make: Callable[[int, int], Graph], wide: bool) -> None:
    machine = WideMachine() if wide else SmallMachine()
    check(make(n, short), lambda task: default_schedule(task, machine))
