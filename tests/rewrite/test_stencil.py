"""Stencils: windows that overlap are skewed by the tile, borders are decided where they are read; values as NumPy's."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nest_interpreter import check_rules
from tensor_graphs import SmallMachine, WideMachine, Writer, check
from test_convolution import convolution, padded, windows

from tracedsl.ir.expr import Stage
from tracedsl.ir.graph import Graph
from tracedsl.rewrite.tensor.lower import lower
from tracedsl.schedule import Schedule, ScheduleError, lower_task, schedule_from_point, schedule_space
from tracedsl.schedule.stencil import default_stencil, is_stencil, roles

QUICK = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


def image(rows: int, columns: int, kernel: tuple[int, int], *, around: bool = True, slope: int = 1) -> Graph:
    """An image filter: vectors run along the second axis, over which windows slide too."""
    w = Writer("image")
    x = w.param("x", (rows, columns))
    if around:
        side = w.constant(0, shape=(kernel[0] // 2, columns)) if kernel[0] > 1 else None
        x = w.concat(side, x, side, axis=0) if side is not None else x
    y = windows(w, x, (0, 1), kernel, slope, 1)
    return w.build(w.contract(y, w.param("k", kernel), spec="ijab,ab->ij"))


def pooling(size: int, channels: int, kernel: int, slope: int, kind: str) -> Graph:
    """The largest, or the sum, of each window, with the smallest number around."""
    w = Writer("pooling")
    x, low = w.param("x", (size, size + 2, channels)), -math.inf if kind == "maximum" else 0.0
    for axis in (0, 1):
        shape = x.type.shape  # type: ignore[attr-defined]
        side = w.constant(low, shape=(*shape[:axis], 1, *shape[axis + 1:]))
        x = w.concat(side, x, side, axis=axis)
    y = windows(w, x, (0, 1), (kernel, kernel), slope, 1)
    return w.build(w.reduce(y, axes=(3, 4), kind=kind))


def moving_sum() -> Graph:
    w = Writer("sum")
    y = w.window(w.param("x", (12,)), shape=(10, 3), start=(0,), steps=((1, 1),))
    return w.build(w.contract(y, w.param("k", (3,)), spec="ia,a->i"))


def only_stage(graph: Graph) -> Stage:
    (task,) = lower(graph).tasks
    (stage,) = task.stages
    return stage


@QUICK
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 2), st.integers(0, 4), st.integers(1, 9))
def test_depthwise_convolutions(kernel: int, stride: int, dilation: int, more: int, channels: int) -> None:
    size = max(1, dilation * (kernel - 1) - 1) + more
    check(convolution("depthwise", size, channels, kernel=kernel, stride=stride, dilation=dilation))


@QUICK
@given(st.integers(1, 9), st.integers(5, 12), st.sampled_from(((1, 3), (3, 1), (3, 3), (5, 3), (2, 5))), st.booleans())
def test_image_filters(rows: int, columns: int, kernel: tuple[int, int], around: bool) -> None:
    check(image(rows + (0 if around else 5), columns, kernel, around=around))


@QUICK
@given(st.integers(2, 8), st.integers(1, 9), st.integers(2, 3), st.integers(1, 3),
       st.sampled_from(("add", "maximum")))
def test_pooling(size: int, channels: int, kernel: int, slope: int, kind: str) -> None:
    check(pooling(size, channels, kernel, slope, kind))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from((convolution("depthwise", 6, 9), convolution("depthwise", 7, 5, stride=2), image(7, 11, (3, 3)),
                        pooling(7, 6, 3, 2, "maximum"))), st.data())
def test_points_of_the_space_keep_the_values(graph: Graph, data: st.DataObject) -> None:
    def chosen(task):  # type: ignore[no-untyped-def]
        space = schedule_space(task, WideMachine())
        assert set(space) == {"tall", "wide", "side", "unrolled"}
        point = {name: data.draw(st.sampled_from(values)) for name, values in space.items()}
        try:
            schedule = schedule_from_point(task, WideMachine(), point)
        except ScheduleError as error:
            assert error.code == "S006"
            return schedule_from_point(task, WideMachine(), {})
        check_rules(lower_task(task, schedule).body)
        return schedule

    check(graph, chosen)


def test_a_border_under_a_stencil_needs_no_memory() -> None:
    program = lower(convolution("depthwise", 9, 16))
    assert len(program.tasks) == 1 and not program.temps
    assert is_stencil(program.tasks[0].stages[0])


def test_a_border_of_a_dense_convolution_is_stored() -> None:
    assert [buffer.shape for buffer in lower(convolution("nhwc", 6, 3, 16)).temps] == [(2, 8, 9, 3)]


def test_a_border_along_the_vectors_is_stored() -> None:
    w = Writer("across")
    x = padded(w, w.param("x", (6, 8)), (0, 1))
    graph = w.build(w.contract(windows(w, x, (0, 1), (3, 3), 1, 1), w.param("k", (3, 3)), spec="ijab,ab->ij"))
    assert lower(graph).temps
    check(graph)


@pytest.mark.parametrize(("channels", "kernel", "stride", "whole"), [
    (32, 3, 1, True), (64, 3, 2, True), (64, 5, 1, False)])
def test_the_default_tile_fits_the_registers(channels: int, kernel: int, stride: int, whole: bool) -> None:
    """Windows of 3 x 3 are unrolled as a whole, larger ones along one side; sums and a row of weights in registers."""
    stage = only_stage(convolution("depthwise", 28, channels, kernel=kernel, stride=stride))
    part, tile = roles(stage), default_stencil(stage, WideMachine())
    assert part is not None and [slide.slope for slide in part.slides] == [stride, stride]
    assert (tile.unrolled == 2) == whole
    rows = min(tile.height, -(-kernel // stride)) if whole else 1
    assert tile.height * tile.width * tile.vectors + kernel * rows * tile.vectors + tile.vectors <= 32
    assert tile.height * tile.width * tile.vectors >= 12


@pytest.mark.parametrize("change", [
    lambda s: s.skew("k", "i"),                                            # i is outside
    lambda s: s.split("k", 2).reorder("k_o", "k_i", "i").skew("k_i", "i"),      # not the whole of k
    lambda s: s.skew("i", "k"),                                            # i is not reduced
    lambda s: s.skew("k", "i", 0)], ids=["outside", "part", "kept", "slope"])
def test_what_cannot_be_skewed(change) -> None:  # type: ignore[no-untyped-def]
    (task,) = lower(moving_sum()).tasks
    with pytest.raises(ScheduleError, match="S00"):
        change(Schedule.of(task))


def test_a_skewed_loop_wants_an_unrolled_tile() -> None:
    (task,) = lower(moving_sum()).tasks
    schedule = Schedule.of(task).split("i", 4).reorder("i_o", "k", "i_i").skew("k", "i_i")
    with pytest.raises(ScheduleError, match="S004"):
        lower_task(task, schedule)
    check(moving_sum(), lambda task: schedule.unroll("i_i"))


def test_random_small_machines_have_a_tile() -> None:
    for graph in (convolution("depthwise", 5, 3), image(6, 9, (5, 5)), pooling(5, 2, 3, 1, "add")):
        tile = default_stencil(lower(graph).tasks[-1].stages[0], SmallMachine())
        assert tile.height * tile.width * tile.vectors + 2 <= 16
