"""A user's hints, applied to a task.

What holds here: hints are schedule primitives by name. Axes are named as listings name them (i, j, k, ...) or by number
(0 is the first loop of the value, -1 the last); without axes the usual ones are meant: `tile(8, 32)` the last
two, `vectorize(16)` the last, `parallel()` the first; 0 stands for the usual number. A hinted stage is scheduled
by its hints alone, from the plain order. `cache` is no matter of loops: lowering keeps such a value in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from tracedsl.diagnostics import nearest
from tracedsl.ir.expr import Task
from tracedsl.schedule.access import widest
from tracedsl.schedule.primitives import PRIMITIVES, Leaf, Schedule, ScheduleError

if TYPE_CHECKING:
    from tracedsl.schedule.default import MachineFacts

UNROLLED = 4   # copies that a bare `unroll()` makes


def apply_hints(task: Task, machine: MachineFacts) -> Schedule:
    """The schedule that the hints ask for; what they leave open follows the default. Raises `ScheduleError`."""
    schedule = Schedule.of(task)
    for number, stage in enumerate(task.stages):
        lanes = max(1, machine.vector_bytes // widest(stage))
        for name, args in task.hints.get(stage.name, ()):
            if name == "cache":
                continue
            if name not in PRIMITIVES:
                raise ScheduleError("S001", f"there is no schedule primitive {name!r}", hint=nearest(name, PRIMITIVES))
            try:
                if name == "tile" and all(isinstance(a, int) for a in args):
                    schedule = _tiled(schedule, number, args)
                else:
                    schedule = schedule.apply([(name, _named(schedule, number, name, args, lanes))])
            except TypeError as error:
                raise ScheduleError("S002", f"{name}{tuple(args)!r} does not fit: {error}") from error
    return _filled(schedule, task, machine)


def _tiled(schedule: Schedule, number: int, sizes: Sequence[object]) -> Schedule:
    """Walk the last axes in blocks, one size an axis."""
    spatial = [leaf.name for leaf in _leaves(schedule, number) if not leaf.reduce]
    if not 0 < len(sizes) <= len(spatial):
        raise ScheduleError("S007", f"tile{tuple(sizes)!r} on a value with {len(spatial)} axes",
                            hint="give one size an axis, for the last axes at most")
    axes = spatial[-len(sizes):]
    schedule = schedule.apply([("split", (axis, size)) for axis, size in zip(axes, sizes)])
    return schedule.reorder(*(f"{axis}_o" for axis in axes), *(f"{axis}_i" for axis in axes))


def _leaves(schedule: Schedule, number: int) -> list[Leaf]:
    return [*schedule.shared, *schedule.leaves(number)]


def _named(schedule: Schedule, number: int, name: str, args: Sequence[object], lanes: int) -> tuple[object, ...]:
    """The arguments with every axis as the name of a leaf, and the usual number for one that is left out."""
    leaves = _leaves(schedule, number)
    spatial = [leaf.name for leaf in leaves if not leaf.reduce]
    given = list(args)
    numbers = all(isinstance(a, int) for a in given)
    if name in ("vectorize", "unroll") and len(given) <= 1 and numbers:
        last = _last_serial(leaves, name)
        usual = lanes if name == "vectorize" else UNROLLED
        count = int(str(given[0])) if given else 0
        return (last.name, count) if count else (last.name, *([usual] if last.extent > usual else []))
    if name == "parallel" and len(given) <= 1 and numbers:
        first = next((leaf for leaf in leaves if not leaf.reduce), None) or _no_axes(name)
        pieces = int(str(given[0])) if given else 0
        return (first.name, -(-first.extent // pieces)) if pieces else (first.name,)
    axes = {"split": 1, "tile": 2, "fuse": 2, "vectorize": 1, "unroll": 1, "parallel": 1}.get(name, 0)
    if name == "reorder":
        axes = len(given)
    named = [_axis(a, spatial) if n < axes else a for n, a in enumerate(given)]
    return tuple(named)


def _last_serial(leaves: Sequence[Leaf], name: str) -> Leaf:
    free = [leaf for leaf in leaves if leaf.kind == "serial" and not leaf.reduce]
    return free[-1] if free else _no_axes(name)


def _no_axes(name: str) -> NoReturn:
    raise ScheduleError("S007", f"{name} on a value without axes that are free", hint="leave out this hint")


def _axis(axis: object, spatial: Sequence[str]) -> object:
    if not isinstance(axis, int) or isinstance(axis, bool):
        return axis
    if not -len(spatial) <= axis < len(spatial):
        raise ScheduleError("S007", f"axis {axis} of a value with {len(spatial)} axes",
                            hint=f"axes are numbered 0 to {len(spatial) - 1}")
    return spatial[axis]


def _filled(schedule: Schedule, task: Task, machine: MachineFacts) -> Schedule:
    """Tiles inside reductions must be registers; a vector is chosen where the hints name none."""
    for number, stage in enumerate(task.stages):
        if stage.combine is None:
            continue
        leaves = schedule.leaves(number)
        first = next((n for n, leaf in enumerate(leaves) if leaf.reduce), len(leaves))
        inside = [leaf for leaf in leaves[first:] if not leaf.reduce and leaf.kind == "serial"]
        vectors = [leaf for leaf in (*schedule.shared, *leaves) if leaf.kind == "vector"]
        for leaf in reversed(inside):
            schedule = schedule.unroll(leaf.name) if vectors or leaf.extent > 64 else schedule.vectorize(leaf.name)
            vectors.append(leaf)
        moved = _reduce_before_tile(schedule, number)
        schedule = moved
    return schedule


def _reduce_before_tile(schedule: Schedule, number: int) -> Schedule:
    """... i_i vector, k   ->   ... k, i_i vector: vectors and unrolled loops at the end of the kept axes form the
    tile."""
    leaves = schedule.leaves(number)
    kept = [leaf for leaf in leaves if not leaf.reduce]
    reduce = [leaf for leaf in leaves if leaf.reduce]
    if not reduce or any(leaf.reduce for leaf in leaves[:len(kept)]):
        return schedule
    tile = 0
    while tile < len(kept) and kept[-1 - tile].kind in ("vector", "unroll"):
        tile += 1
    if not tile:
        return schedule
    return schedule.reorder(*(leaf.name for leaf in (*kept[:-tile], *reduce, *kept[-tile:])))
