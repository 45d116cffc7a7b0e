"""Convolutions as they are written in NumPy: lowered as windows, scheduled in register tiles, compared with NumPy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensor_graphs import SmallMachine, WideMachine, Writer, check

from tracedsl.ir.graph import Graph, Node
from tracedsl.ir.loops import nest_text
from tracedsl.rewrite.tensor.lower import lower
from tracedsl.schedule import default_schedule, lower_task
from tracedsl.schedule.convolution import default_window, is_window
from tracedsl.schedule.space import schedule_from_point, schedule_space


def windows(w: Writer, x: Node, axes: tuple[int, int], kernel: tuple[int, int], stride: int, dilation: int) -> Node:
    """The windows of two axes, as two further dimensions at the end."""
    shape = list(x.type.shape)  # type: ignore[attr-defined]
    rank, steps = len(shape), []
    for d in range(rank):
        row = [int(j == d) * (stride if d in axes else 1) for j in range(rank)]
        steps.append([*row, *(dilation * int(axis == d) for axis in axes)])
    for axis, k in zip(axes, kernel):
        shape[axis] = (shape[axis] - dilation * (k - 1) - 1) // stride + 1
    return w.window(x, shape=(*shape, *kernel), start=(0,) * rank, steps=steps)


def padded(w: Writer, x: Node, axes: tuple[int, int]) -> Node:
    for axis in axes:
        shape = x.type.shape  # type: ignore[attr-defined]
        side = w.constant(0, shape=(*shape[:axis], 1, *shape[axis + 1:]))
        x = w.concat(side, x, side, axis=axis)
    return x


def convolution(layout: str, size: int = 6, channels: int = 3, out: int = 9, kernel: int = 3, stride: int = 1,
                dilation: int = 1, groups: int = 1) -> Graph:
    w = Writer(layout)
    if layout == "nhwc":
        x = padded(w, w.param("x", (2, size, size + 1, channels)), (1, 2))
        k = w.param("w", (kernel, kernel, channels, out))
        y = w.contract(windows(w, x, (1, 2), (kernel,) * 2, stride, dilation), k, spec="nhwcab,abcf->nhwf")
        return w.build(w.maximum(y, w.constant(0, shape=y.type.shape)))  # type: ignore[attr-defined]
    if layout == "nchw":
        x = padded(w, w.param("x", (2, channels, size, size + 1)), (2, 3))
        k = w.param("w", (out, channels, kernel, kernel))
        return w.build(w.contract(windows(w, x, (2, 3), (kernel,) * 2, stride, dilation), k, spec="nchwab,fcab->nfhw"))
    if layout == "grouped":
        x = w.param("x", (2, size, size + 1, groups, channels))
        k = w.param("w", (kernel, kernel, groups, channels, out))
        y = windows(w, x, (1, 2), (kernel,) * 2, stride, dilation)
        return w.build(w.contract(y, k, spec="nhwgcab,abgcf->nhwgf"))
    x = padded(w, w.param("x", (2, size, size + 1, channels)), (1, 2))
    k = w.param("w", (kernel, kernel, channels))
    return w.build(w.contract(windows(w, x, (1, 2), (kernel,) * 2, stride, dilation), k, spec="nhwcab,abc->nhwc"))


LAYOUTS = st.sampled_from(("nhwc", "nchw", "grouped", "depthwise"))


@st.composite
def convolutions(draw: st.DrawFn) -> Graph:
    kernel, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    size = draw(st.integers(dilation * (kernel - 1) + 1, 7))
    return convolution(draw(LAYOUTS), size, draw(st.integers(1, 6)), draw(st.integers(1, 11)), kernel,
                       draw(st.integers(1, 2)), dilation, draw(st.integers(1, 2)))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(convolutions())
def test_convolutions_agree_with_numpy(graph: Graph) -> None:
    check(graph)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from((convolution("nhwc", 5, 2, 9), convolution("depthwise", 5, 9))), st.data())
def test_points_of_the_space_keep_the_values(graph: Graph, data: st.DataObject) -> None:
    def chosen(task):  # type: ignore[no-untyped-def]
        space = schedule_space(task, SmallMachine())
        if "width" not in space:
            return default_schedule(task, SmallMachine())
        point = {name: data.draw(st.sampled_from(values)) for name, values in space.items()}
        if point["height"] * point["width"] * point["vectors"] + point["vectors"] + 1 > 16:
            point = {}
        return schedule_from_point(task, SmallMachine(), point)

    check(graph, chosen)


@pytest.mark.parametrize("layout", ["nhwc", "depthwise"])
def test_golden_tasks_and_loops(layout: str, golden: Callable[[str, str], None]) -> None:
    program = lower(convolution(layout, 28, 32, 64))
    task = program.tasks[-1]
    schedule = default_schedule(task, WideMachine())
    golden(f"loops/convolution_{layout}.txt", f"{program}\n\n{schedule}\n\n{nest_text(lower_task(task, schedule))}")


@pytest.mark.parametrize(("size", "channels", "out", "kernel", "expected"), [
    (56, 64, 64, 3, (14, 2, True)),      # no rest in either direction, two strips
    (7, 512, 512, 3, (14, 2, False)),    # two rows of seven; the strip is too large for a copy
    (28, 3, 16, 1, (28, 1, False)),      # one vector of channels
])
def test_default_tiles(size: int, channels: int, out: int, kernel: int, expected: tuple[int, int, bool]) -> None:
    w = Writer("tiles")
    x, k = w.param("x", (1, size + kernel - 1, size + kernel, channels)), w.param("w", (kernel, kernel, channels, out))
    y = windows(w, w.slice(x, start=(0,) * 4, step=(1,) * 4, size=(1, size + kernel - 1, size + kernel - 1, channels)),
                (1, 2), (kernel, kernel), 1, 1)
    (task,) = lower(w.build(w.contract(y, k, spec="nhwcab,abcf->nhwf"))).tasks
    (stage,) = task.stages
    assert is_window(stage)
    choice = default_window(stage, WideMachine())
    assert (choice.height * choice.width, choice.vectors, choice.pack) == expected


def test_a_padded_copy_is_one_buffer_and_the_windows_are_none() -> None:
    program = lower(convolution("nhwc"))
    assert [buffer.shape for buffer in program.temps] == [(2, 8, 9, 3)]


def test_a_separable_filter_is_computed_once_an_element() -> None:
    w = Writer("filter")
    x = w.param("x", (40, 32))
    dear = w.add(w.mul(x, x), w.mul(w.sub(x, w.constant(1, shape=(40, 32))), x))
    parts = [w.slice(dear, start=(0, at), step=(1, 1), size=(40, 30)) for at in range(3)]
    program = lower(w.build(w.add(w.add(parts[0], parts[1]), parts[2])))
    assert [len(task.stages) for task in program.tasks] == [2]     # a row of the dear part, then the sum of its shifts
    assert not program.temps
    check(w.build(w.add(w.add(parts[0], parts[1]), parts[2])))


def test_a_stencil_that_is_written_into_an_array_goes_there_directly() -> None:
    w = Writer("stencil")
    x = w.param("x", (16, 16))
    inner = [w.slice(x, start=at, step=(1, 1), size=(14, 14)) for at in ((0, 1), (2, 1), (1, 0), (1, 2))]
    new = w.mul(w.add(w.add(*inner[:2]), w.add(*inner[2:])), w.constant(0.25, shape=(14, 14)))
    columns = [w.slice(x, start=(1, at), step=(1, 1), size=(14, 1)) for at in (0, 15)]
    rows = [w.slice(x, start=(at, 0), step=(1, 1), size=(1, 16)) for at in (0, 15)]
    graph = w.build(w.concat(rows[0], w.concat(columns[0], new, columns[1], axis=1), rows[1], axis=0))
    assert all(stage.out.name == "out" for task in lower(graph).tasks for stage in task.stages)
    check(graph)
