"""The space of schedules of a task, for the tuner: named choices, and the schedule that a point stands for.

What holds here: every choice is a tuple of plain values; the same task gives the same space on the same machine.
Points that cannot be meant (a tile that does not fit the registers) raise `ScheduleError` before anything is generated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tracedsl.diagnostics import nearest
from tracedsl.ir.expr import Stage, Task
from tracedsl.schedule.contraction import TileChoice, default_tile, is_tiled, registers_of
from tracedsl.schedule.convolution import is_window, window_from_point, window_space
from tracedsl.schedule.default import Choices, MachineFacts, draft
from tracedsl.schedule.primitives import Schedule, ScheduleError
from tracedsl.schedule.stencil import is_stencil, stencil_from_point, stencil_space

Value = int | bool | str
Space = dict[str, tuple[Value, ...]]
Point = Mapping[str, Any]


def schedule_space(task: Task, machine: MachineFacts) -> Space:
    """The choices for a task, by name; the first value of each is the default's. A task with hints has none."""
    if task.hints or not task.stages:
        return {}
    main = max(task.stages, key=_work)
    if not task.shared and is_stencil(main):
        return dict(stencil_space(main, machine))
    if not task.shared and is_window(main):
        return window_space(main, machine)
    if not task.shared and is_tiled(main):
        return _tile_space(main, machine)
    space: Space = {"parallel_loops": (3, 1, 2)}
    plain = Choices()
    if any(stage.combine is None for stage in task.stages):
        space |= {"unroll": (0, 1, 2, 4, 8), "rows": (plain.rows, 4, 8, 32)}
    if any(stage.combine is not None for stage in task.stages):
        space |= {"accumulators": (plain.accumulators, 1, 2, 4, 6, 8), "columns": (plain.columns, 1, 2, 4, 8, 16)}
    narrow = machine.vector_bytes // 8
    return {**space, "lanes": tuple(dict.fromkeys((0, narrow, 2 * narrow, 4 * narrow)))}


def schedule_from_point(task: Task, machine: MachineFacts, point: Point) -> Schedule:
    """The schedule of a point; choices that it leaves out are the default's. Raises `ScheduleError` S001 for an unknown
    choice, S006 for a tile that is too large for the registers."""
    known = schedule_space(task, machine)
    for name in point:
        if name not in known:
            raise ScheduleError("S001", f"the task has no choice {name!r}", hint=nearest(name, known))
    full = {name: point.get(name, values[0]) for name, values in known.items()}
    if "tall" in known:
        stencil = stencil_from_point(max(task.stages, key=_work), machine, full)
        return draft(task, machine, Choices(stencil=stencil)).schedule
    if "width" in known:
        window = window_from_point(max(task.stages, key=_work), machine, full)
        return draft(task, machine, Choices(window=window)).schedule
    if "height" not in known:
        return draft(task, machine, Choices(**full)).schedule
    height, vectors = int(full["height"]), int(full["vectors"])
    if registers_of(height, vectors) > machine.vector_registers:
        raise ScheduleError("S006", f"a tile of {height} x {vectors} vectors does not fit "
                            f"{machine.vector_registers} registers", hint="choose a smaller tile")
    tile = TileChoice(height, vectors, int(full["lanes"]), bool(full["pack"]), bool(full["pack_rows"]),
                      int(full.get("depth", 0)), height * int(full["chunk"]), int(full["panels"]),
                      full["order"] == "rows", int(full.get("group", 1)))
    return draft(task, machine, Choices(tile=tile, parallel_loops=int(full["parallel_loops"]))).schedule


def _tile_space(stage: Stage, machine: MachineFacts) -> Space:
    best = default_tile(stage, machine)
    first_order, second_order = ("rows", "columns") if best.rows_first else ("columns", "rows")
    depths = (0, *(n for n in (128, 256, 384, 512, 768) if n < max(k.extent for k in stage.reduce)))
    chunk = best.chunk // best.height
    space: Space = {
        "height": _with_first(best.height, (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16)),
        "vectors": _with_first(best.vectors, (1, 2, 3, 4, 5, 6, 8)),
        "lanes": _with_first(best.lanes, tuple(n for n in (best.lanes // 2, best.lanes * 2) if n)),
        "pack": (best.pack, not best.pack),
        "pack_rows": (best.pack_rows, not best.pack_rows),
        "depth": _with_first(best.depth, depths),
        "chunk": _with_first(chunk, (0, 8, 16, 24, 32, 48, 64)),
        "panels": _with_first(best.panels, (1, 2, 4, 8)),
        "group": tuple(dict.fromkeys((best.group, 1))),
        "order": (first_order, second_order),
        "parallel_loops": (3, 1, 2),
    }
    return {name: values for name, values in space.items() if len(values) > 1}


def _with_first(first: int, others: tuple[int, ...]) -> tuple[int, ...]:
    return (first, *(n for n in others if n != first))


def _work(stage: Stage) -> int:
    return math.prod(axis.extent for axis in (*stage.axes, *stage.reduce))
