"""The schedule that a task gets without any trial.

What holds here: choices follow from shapes, strides and the machine's numbers alone (vector_bytes, vector_registers,
l1, l2, l3, cores, intrinsics), so that equal tasks get equal schedules. Contiguous axes become vectors; reductions keep
several accumulators; contractions keep a tile in registers; outer loops run in parallel, and what is too short for that
the runtime decides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tracedsl.ir.expr import Axis, Stage, Task
from tracedsl.ir.intrinsics import DotIntrinsic
from tracedsl.schedule.access import accesses, contiguous, heavy_calls, widest
from tracedsl.schedule.contraction import TileChoice, apply_tile, default_tile, is_tiled, tile_parallel
from tracedsl.schedule.convolution import WindowChoice, apply_window, default_window, is_window
from tracedsl.schedule.fusing import can_fuse, fuse_axes
from tracedsl.schedule.narrow import apply_narrow, long_vector, repeated_rows, short_axes, unroll_inside
from tracedsl.schedule.primitives import Leaf, Schedule
from tracedsl.schedule.stencil import StencilChoice, apply_stencil, default_stencil, is_stencil

SCAN_ROWS = 8   # rows of a scan that are walked together


class MachineFacts(Protocol):
    """What a schedule wants to know of a machine: bytes and counts."""

    @property
    def vector_bytes(self) -> int: ...
    @property
    def vector_registers(self) -> int: ...
    @property
    def l1(self) -> int: ...
    @property
    def l2(self) -> int: ...
    @property
    def l3(self) -> int: ...
    @property
    def cores(self) -> int: ...
    @property
    def intrinsics(self) -> tuple[DotIntrinsic, ...]: ...


@dataclass(frozen=True)
class Choices:
    """What may be chosen for a task; the defaults are what a task gets without any trial (0: by shape)."""

    lanes: int = 0              # elements of a vector
    unroll: int = 0             # vectors in the body of an element-wise loop
    accumulators: int = 0       # vectors that a reduction along its contiguous axis adds into
    columns: int = 0            # vectors side by side in a reduction across rows
    rows: int = 16              # rows of a tile in which rows and columns are exchanged
    parallel_loops: int = 3     # at most so many outer loops run in parallel
    tile: TileChoice | None = None
    window: WindowChoice | None = None
    stencil: StencilChoice | None = None


@dataclass(frozen=True)
class Draft:
    """A schedule in the making, with the task as its fused axes have left it."""

    task: Task
    schedule: Schedule
    machine: MachineFacts
    how: Choices

    def then(self, change: Callable[[Schedule], Schedule]) -> Draft:
        return replace(self, schedule=change(self.schedule))

    def fuse(self, outer: str, inner: str) -> Draft:
        name = f"{outer}_{inner}"
        return replace(self, task=fuse_axes(self.task, outer, inner, name),
                       schedule=self.schedule.fuse(outer, inner, name))

    def lanes(self, *stages: Stage) -> int:
        """Elements of a vector that fit the widest element of the stages."""
        return self.how.lanes or max(1, self.machine.vector_bytes // max(map(widest, stages)))


def default_schedule(task: Task, machine: MachineFacts) -> Schedule:
    """A good schedule at once; the user's hints on the task are applied over it (see `hints`)."""
    from tracedsl.schedule.hints import apply_hints

    if task.hints:
        return apply_hints(task, machine)
    return draft(task, machine).schedule


def draft(task: Task, machine: MachineFacts, how: Choices | None = None) -> Draft:
    """The schedule for given choices, hints left out."""
    made = Draft(task, Schedule.of(task), machine, how or Choices())
    if task.shared and all(len(s.axes) == task.shared and s.combine is None for s in task.stages):
        return _elementwise(made, 0)
    for number, stage in enumerate(task.stages):
        made = _stage(made, number, stage)
    return _parallel(made, 0) if task.shared else made


def _stage(made: Draft, number: int, stage: Stage) -> Draft:
    if stage.combine is None:
        return _elementwise(made, 1 + number)
    made = _fuse_neighbours(made, 1 + number)
    stage = made.task.stages[number]
    if stage.scan:
        return _scan(made, number)
    if not made.task.shared and is_stencil(stage):
        stencil = made.how.stencil or default_stencil(stage, made.machine)
        schedule, outer = apply_stencil(made.schedule, stage, number, stencil)
        return _parallel(replace(made, schedule=schedule), 1 + number, until=outer, items=16)
    if not made.task.shared and is_window(stage):
        window = made.how.window or default_window(stage, made.machine)
        schedule, outer = apply_window(made.schedule, stage, number, window)
        return _parallel(replace(made, schedule=schedule), 1 + number, until=outer)
    if not made.task.shared and is_tiled(stage, made.machine):
        tile = made.how.tile or default_tile(stage, made.machine)
        made = made.then(lambda s: apply_tile(s, stage, number, tile))
        return _parallel(made, 1 + number, until=tile_parallel(stage, tile), items=16)
    inner = replace(stage, axes=stage.axes[made.task.shared:])   # one block of rows; copies, cores: a matter of blocks
    if made.task.shared and is_tiled(inner, made.machine):
        tile = replace(default_tile(inner, made.machine), chunk=0, panels=1)
        return made.then(lambda s: apply_tile(s, inner, number, tile))
    return _reduction(made, number)


# -- element-wise -------------------------------------------------------------------------------------------------


def _elementwise(made: Draft, level: int) -> Draft:
    """Vectorise the axis along which most accesses are contiguous; tile where some are along another one."""
    made = _fuse_neighbours(made, level)
    leaves = made.schedule.loops[level]
    if not leaves:
        return made
    stages = made.task.stages if level == 0 else (made.task.stages[level - 1],)
    axes = {axis.name: axis for stage in stages for axis in stage.axes}
    lanes = made.lanes(*stages)
    if (name := long_vector(stages, leaves, lanes)) is not None:
        made = _with_short_axes(made, level, stages, name)
        return _parallel(made, level) if level == 0 or not made.task.shared else made
    best = max(leaves, key=lambda leaf: (_score(stages, axes[leaf.name]), leaves.index(leaf)))
    across = _across(stages, axes, leaves, best)
    unroll = _unroll(made, stages, plain=across is None)
    schedule = _vector_last(made.schedule, level, best.name, lanes, unroll)
    if across is not None and across.extent > 1:
        schedule = _tile_across(schedule, level, across, made.how.rows)
        crossed = _crossed(stages[0], axes[across.name], axes[best.name])
        if level and crossed is not None and best.extent > lanes:
            schedule = schedule.cache_read(crossed, f"{best.name}_o")
    elif (row := repeated_rows(stages, leaves, axes, best.name)) is not None:
        schedule = _rows_inside(schedule, level, row.name, best.name, made.how.rows)
    made = replace(made, schedule=schedule)
    return _parallel(made, level) if level == 0 or not made.task.shared else made


def _unroll(made: Draft, stages: Sequence[Stage], *, plain: bool = True) -> int:
    """Vectors in the body of a loop."""
    many = 1 if not plain or any(map(heavy_calls, stages)) else 4 if sum(len(accesses(s)) for s in stages) < 6 else 2
    return made.how.unroll or many


def _with_short_axes(made: Draft, level: int, stages: Sequence[Stage], vector: str) -> Draft:
    """... c, j   ->   ... j_o, j_u unrolled, c unrolled, j_v; in tiles, if rows share what is shuffled together."""
    leaves = made.schedule.loops[level]
    axes = {axis.name: axis for stage in stages for axis in stage.axes}
    short, lanes = short_axes(leaves), made.lanes(*stages)
    unroll = max(1, _unroll(made, stages) // math.prod(axes[name].extent for name in short))
    row = repeated_rows(stages, leaves, axes, vector)
    schedule = _vector_last(made.schedule, level, vector, lanes, unroll)
    if row is not None:
        schedule = _rows_inside(schedule, level, row.name, vector, made.how.rows)
    return replace(made, schedule=unroll_inside(schedule, level, short))


def _rows_inside(s: Schedule, level: int, row: str, vector: str, rows: int) -> Schedule:
    """... i, j_o, j_u, j_v   ->   ... i_o, j_o, i_i, j_u, j_v"""
    s = s.split(row, rows)
    names = [leaf.name for leaf in s.loops[level]]
    tile = [n for n in names if n in (f"{row}_i", f"{vector}_u", f"{vector}_v", f"{vector}_i", vector)]
    return s.reorder(*(n for n in names if n not in tile), *tile)


def _score(stages: Sequence[Stage], axis: Axis) -> int:
    """Contiguous accesses count, stores twice; strided ones count against."""
    total = 0
    for stage in stages:
        for access in accesses(stage):
            stride = access.stride(axis)
            weight = 2 if access.is_store else 1
            total += weight if stride == 1 else 0 if stride == 0 else -weight
    return total


def _across(stages: Sequence[Stage], axes: dict[str, Axis], leaves: Sequence[Leaf], best: Leaf) -> Leaf | None:
    """Another axis that some load is contiguous along while it jumps along the vector axis: a transposition."""
    for leaf in leaves:
        if leaf.name != best.name and any(
                access.stride(axes[leaf.name]) == 1 and access.stride(axes[best.name]) not in (0, 1)
                for stage in stages for access in accesses(stage)):
            return leaf
    return None


def _crossed(stage: Stage, across: Axis, vector: Axis) -> str | None:
    """The buffer that is read along the other axis, if it is read at one place: its tile is worth a copy."""
    found = [a for a in accesses(stage)[:-1] if a.stride(across) == 1 and a.stride(vector) not in (0, 1)]
    once = len(found) == 1 and sum(a.buffer.name == found[0].buffer.name for a in accesses(stage)) == 1
    return found[0].buffer.name if once else None


def _vector_last(s: Schedule, level: int, axis: str, lanes: int, unroll: int) -> Schedule:
    """Move an axis innermost; cut it into unrolled vectors."""
    names = [leaf.name for leaf in s.loops[level] if leaf.name != axis]
    if names and s.loops[level][-1].name != axis:
        s = s.reorder(*names, axis)
    extent = next(leaf.extent for leaf in s.loops[level] if leaf.name == axis)
    if extent <= lanes:
        return s.vectorize(axis) if extent > 1 else s
    while unroll > 1 and extent < 2 * lanes * unroll:
        unroll //= 2
    if unroll == 1:
        return s.vectorize(axis, lanes)
    s = s.split(axis, lanes * unroll).split(f"{axis}_i", lanes, f"{axis}_u", f"{axis}_v")
    return s.unroll(f"{axis}_u").vectorize(f"{axis}_v")


def _tile_across(s: Schedule, level: int, across: Leaf, rows: int) -> Schedule:
    """... a, v_o, v_i   ->   ... a_o, v_o, a_i, v_i"""
    s = s.split(across.name, rows)
    names = [leaf.name for leaf in s.loops[level]]
    inner = names[-1]
    others = [n for n in names if n not in (inner, f"{across.name}_i")]
    return s.reorder(*others, f"{across.name}_i", inner)


def _fuse_neighbours(made: Draft, level: int) -> Draft:
    """Fuse neighbouring axes wherever every access is contiguous over both."""
    while True:
        leaves = made.schedule.loops[level]
        stages = made.task.stages if level == 0 else (made.task.stages[level - 1],)
        axes = {axis.name: axis for stage in stages for axis in (*stage.axes, *stage.reduce)}
        for first, second in itertools.pairwise(leaves):
            if first.reduce == second.reduce and all(
                    can_fuse(stage, axes[first.name], axes[second.name]) for stage in stages):
                made = made.fuse(first.name, second.name)
                break
        else:
            return made


# -- reductions ---------------------------------------------------------------------------------------------------


def _reduction(made: Draft, number: int) -> Draft:
    """Vectors along the reduced axis with several accumulators, or side by side along a kept one."""
    stage, level = made.task.stages[number], 1 + number
    loads = accesses(stage, finish=False)
    lanes, how = made.lanes(stage), made.how
    if (name := long_vector((stage,), made.schedule.loops[level], lanes)) is not None:
        registers, side = made.machine.vector_registers, how.columns
        made = made.then(lambda s: apply_narrow(s, stage, number, name, lanes, registers, side))
        return made if made.task.shared else _parallel(made, level)
    shared = {leaf.name for leaf in made.schedule.shared}
    spatial = [a for a in stage.axes if a.name not in shared and contiguous(loads, a) and a.extent > 1]
    reduce = [a for a in stage.reduce if contiguous(loads, a)]
    columns = how.columns or (4 if heavy_calls(stage) else made.machine.vector_registers * 3 // 4)
    if reduce and (reduce[-1].extent >= lanes // 2 or not _wide_axis(stage, lanes, shared)):
        many = how.accumulators or (4 if heavy_calls(stage) or len(loads) > 2 else 8)
        schedule = _along_reduced(made.schedule, level, reduce[-1].name, lanes, many)
    elif spatial:
        schedule = _side_by_side(made.schedule, level, spatial[-1].name, lanes, columns)
    elif (wide := _wide_axis(stage, lanes, shared)) is not None:
        schedule = _side_by_side(made.schedule, level, wide.name, lanes, how.columns or 4)
    else:
        schedule = made.schedule
    made = replace(made, schedule=schedule)
    return made if made.task.shared else _parallel(made, level)


def _scan(made: Draft, number: int) -> Draft:
    """Vectors side by side where the scan runs across them; else a few rows at a time, whose sums do not wait for one
    another."""
    stage, level = made.task.stages[number], 1 + number
    found, lanes = accesses(stage), made.lanes(stage)
    columns = [a for a in stage.axes if contiguous(found, a) and a.extent >= lanes // 2]
    if columns:
        most = made.how.columns or made.machine.vector_registers * 3 // 4
        return _parallel(made.then(lambda s: _side_by_side(s, level, columns[-1].name, lanes, most)), level)
    if not stage.axes:
        return made
    row = max(stage.axes, key=lambda a: a.extent).name
    names = [leaf.name for leaf in made.schedule.loops[level] if leaf.name != row]
    order = [*names[:len(stage.axes) - 1], f"{row}_o", *names[len(stage.axes) - 1:], f"{row}_i"]
    made = made.then(lambda s: s.split(row, SCAN_ROWS).reorder(*order).unroll(f"{row}_i"))
    return _parallel(made, level)


def _wide_axis(stage: Stage, lanes: int, shared: set[str]) -> Axis | None:
    return next((a for a in reversed(stage.axes) if a.extent >= lanes and a.name not in shared), None)


def _along_reduced(s: Schedule, level: int, axis: str, lanes: int, most: int) -> Schedule:
    """... k   ->   ... k_o, k_u unrolled, k_v vector"""
    order = [leaf.name for leaf in s.loops[level] if leaf.name != axis]
    if order and s.loops[level][-1].name != axis:
        s = s.reorder(*order, axis)
    extent = next(leaf.extent for leaf in s.loops[level] if leaf.name == axis)
    if extent < 2 * lanes:
        return s.vectorize(axis, min(lanes, extent)) if extent > 1 else s
    many = min(most, extent // lanes)
    s = s.split(axis, lanes * many).split(f"{axis}_i", lanes, f"{axis}_u", f"{axis}_v")
    return s.unroll(f"{axis}_u").vectorize(f"{axis}_v")


def _side_by_side(s: Schedule, level: int, axis: str, lanes: int, most: int) -> Schedule:
    """... j, k   ->   ... j_o, k, j_u unrolled, j_v vector"""
    leaves = s.loops[level]
    extent = next(leaf.extent for leaf in leaves if leaf.name == axis)
    many = max(1, min(most, extent // lanes))
    lanes = min(lanes, extent)
    s = s.split(axis, lanes * many).split(f"{axis}_i", lanes, f"{axis}_u", f"{axis}_v")
    outside = [leaf.name for leaf in leaves if not leaf.reduce and leaf.name != axis]
    reduce = [leaf.name for leaf in leaves if leaf.reduce]
    s = s.reorder(*outside, f"{axis}_o", *reduce, f"{axis}_u", f"{axis}_v")
    return s.unroll(f"{axis}_u").vectorize(f"{axis}_v")


# -- parallel -----------------------------------------------------------------------------------------------------


def _parallel(made: Draft, level: int, until: int = 99, items: int = 4) -> Draft:
    """Run the outer serial loops in parallel, as many (at most the first `until`) as it takes to occupy the cores with
    `items` pieces of work each."""
    s, steps = made.schedule, 1
    for leaf in s.loops[level][:min(until, made.how.parallel_loops)]:
        if leaf.kind != "serial" or leaf.reduce or steps >= items * made.machine.cores:
            break
        s = s.parallel(leaf.name)
        steps *= leaf.extent
        if any(copy.at == leaf.name for copy in s.copies):
            break   # what is inside runs after the copy
    return replace(made, schedule=s)
