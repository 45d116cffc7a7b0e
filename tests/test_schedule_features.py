"""Features of schedules: the loops that they are computed from are those of the schedules; small examples by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "rewrite"))

from tensor_graphs import SmallMachine, WideMachine, dense, layer_norm, softmax, sums
from test_convolution import convolution

from tracedsl.ir.expr import Task
from tracedsl.ir.graph import Graph
from tracedsl.rewrite.tensor.lower import lower
from tracedsl.schedule import ScheduleSpace
from tracedsl.schedule.features import _Stage, schedule_features
from tracedsl.schedule.levels import KINDS, Levels, levels
from tracedsl.schedule.space import Point

GRAPHS: dict[str, Graph] = {
    "dense": dense(100, 600, 300), "small": dense(7, 5, 19), "conv": convolution("nhwc", 28, 64, 48),
    "strided": convolution("nhwc", 15, 3, 40, 5, 2), "depthwise": convolution("depthwise", 17, 40),
    "grouped": convolution("grouped", 9, 16, 32, groups=2), "softmax": softmax(50, 60), "sums": sums((1,), (30, 400)),
    "layer_norm": layer_norm(40, 600),
}


def task(name: str) -> Task:
    return lower(GRAPHS[name]).tasks[-1]


def drawn(space: ScheduleSpace, seed: int) -> Point:
    rng = Random(seed)
    for _ in range(1000):
        point = {name: rng.choice(values) for name, values in space.choices.items()}
        if not space.refusal(point):
            return point
    return {}


def rows(found: Levels, n: int) -> list[tuple[str, int, int, int]]:
    names = [name for name, _, _ in found.roots]
    return [(names[r], int(e), int(s), int(k)) for r, e, s, k in
            zip(found.root[n], found.extent[n], found.stride[n], found.kind[n]) if e > 1]


@settings(max_examples=150)
@given(st.sampled_from(sorted(GRAPHS)), st.sampled_from((SmallMachine, WideMachine)), st.integers(0, 10_000))
def test_loops_are_those_of_the_schedule(name: str, machine: type, seed: int) -> None:
    space = ScheduleSpace.of(task(name), machine())
    points = [{}, drawn(space, seed), drawn(space, seed + 1)]
    found = levels(space, points)
    for n, point in enumerate(points):
        schedule = space.schedule(point)
        for one in found:
            number = next(i for i, s in enumerate(space.task.stages) if s.name == one.stage.name)
            leaves = [leaf for leaf in (*schedule.shared, *schedule.leaves(number))
                      if leaf.root in {root for root, _, _ in one.roots}]
            expected = [(x.root, x.extent, x.stride, KINDS[x.kind]) for x in leaves if x.extent > 1]
            assert rows(one, n) == expected, (point, str(schedule))
            copies = {copy.buffer: copy.at for copy in schedule.copies}
            copied = {buffer for buffer, at in one.copied.items() if at[n] >= 0}
            if one.copied:
                assert copied == set(copies), point


@pytest.mark.parametrize("name", GRAPHS)
def test_features_are_finite_and_tell_points_apart(name: str) -> None:
    space = ScheduleSpace.of(task(name), WideMachine())
    points = [drawn(space, seed) for seed in range(40)]
    found = schedule_features(space, points)
    assert found.shape[0] == 40 and found.dtype == np.float32 and np.isfinite(found).all()
    assert np.array_equal(found[:3], schedule_features(space, points[:3]))       # a row depends on its point alone
    assert len(np.unique(found, axis=0)) > 5
    assert schedule_features(space, []).shape[0] == 0


def test_kinds_of_tasks_share_their_columns() -> None:
    def width(name: str) -> int:
        space = ScheduleSpace.of(task(name), WideMachine())
        return schedule_features(space, [{}]).shape[1]

    assert width("dense") == width("small") and width("conv") == width("strided") == width("depthwise")


def test_bytes_and_passes_of_a_product_by_hand() -> None:
    """out[i, j] += x[i, k] w[k, j] with i 100, k 600, j 300, tiles of 4 x 32, nothing blocked or copied."""
    space = ScheduleSpace.of(task("dense"), WideMachine())
    point = {"height": 4, "vectors": 2, "lanes": 16, "pack": False, "pack_rows": False, "depth": 0, "chunk": 0,
             "order": "columns"}
    (loops,) = levels(space, [{name: value for name, value in point.items() if name in space.choices}])
    stage = _Stage(loops, WideMachine())
    out, w, x = (next(b for b in stage.buffers if b.name == name) for name in ("out", "w", "x"))
    assert (out.bytes_all, w.bytes_all, x.bytes_all) == (100 * 300 * 4, 600 * 300 * 4, 100 * 600 * 4)
    tile = int(np.argmax(loops.kind[0] == KINDS["unroll"]))
    assert out.bytes(stage.span)[0, tile] == 4 * 128                # four rows of two lines
    assert w.bytes(stage.span)[0, tile] == 128 and x.bytes(stage.span)[0, tile] == 4 * 64
    assert stage.trips[0, tile] == 10 * 25 * 600                    # strips, tiles, steps of the sum
    assert [float(b.step(stage)[0]) for b in (out, w, x)] == [1, 1, 0]
