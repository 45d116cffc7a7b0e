"""Fusing two axes of a task into one: the only primitive that touches the task's positions.

What holds here: two axes can be fused where every access that depends on one of them is contiguous over both: its
address grows by extent-of-inner times as much along the outer axis. Such an access then sees its buffer as one flat
line.
"""

from __future__ import annotations

from dataclasses import replace

from tracedsl.ir.expr import Affine, Axis, Buffer, Expr, Index, Load, Position, Stage, Task, address, rebuild, walk
from tracedsl.schedule.primitives import ScheduleError


def fuse_axes(task: Task, outer: str, inner: str, name: str) -> Task:
    """The same task with axes `outer` and `inner` as one axis `name`. Raises `ScheduleError` S005 where that cannot be.

        y[i, j] = x[i, j]  for i in 4, j in 5    ->    y[i_j] = x[i_j]  for i_j in 20
    """
    stages = tuple(_fused(stage, outer, inner, name) for stage in task.stages)
    lost = any(axis.name == inner for stage in task.stages for axis in stage.axes[:task.shared])
    return Task(task.name, stages, task.shared - lost, task.hints)


def can_fuse(stage: Stage, outer: Axis, inner: Axis) -> bool:
    """Whether every access of a stage is contiguous over the two axes."""
    accesses: list[tuple[Buffer, tuple[Index, ...]]] = [(stage.out, stage.index)]
    for expr in walk(*(e for e in (stage.value, stage.finish) if e is not None)):
        if isinstance(expr, Position) and expr.index.axes() & {outer, inner}:
            return False
        if isinstance(expr, Load):
            accesses.append((expr.buffer, expr.index))
    return all(_contiguous(buffer, index, outer, inner) for buffer, index in accesses)


def _contiguous(buffer: Buffer, index: tuple[Index, ...], outer: Axis, inner: Axis) -> bool:
    place = address(index, buffer)
    return place is not None and place.coefficient(outer) == place.coefficient(inner) * inner.extent


def _fused(stage: Stage, outer: str, inner: str, name: str) -> Stage:
    axes = {axis.name: axis for axis in (*stage.axes, *stage.reduce)}
    if outer not in axes and inner not in axes:
        return stage
    first, second = axes[outer], axes[inner]
    if not can_fuse(stage, first, second):
        raise ScheduleError("S005", f"{outer} and {inner} cannot be fused in stage {stage.name}",
                            why="a buffer is not contiguous over both", hint="leave them apart")
    both = Axis(name, first.extent * second.extent, first.reduce)
    new = {first: Affine(), second: Affine.of(both)}

    def flat(buffer: Buffer, index: tuple[Index, ...]) -> tuple[Buffer, tuple[Index, ...]]:
        place = address(index, buffer)
        if place is None or not place.axes() & {first, second}:
            return buffer, index
        line = Buffer(buffer.name, buffer.dtype, (buffer.length,), (1,), buffer.scope)
        return line, (place.substitute(new),)

    def change(expr: Expr) -> Expr:
        return Load(expr.dtype, *flat(expr.buffer, expr.index)) if isinstance(expr, Load) else expr

    value, *finish = rebuild([e for e in (stage.value, stage.finish) if e is not None], change)
    out, index = flat(stage.out, stage.index)
    place = tuple(i for i in index if isinstance(i, Affine))
    return replace(stage, out=out, index=place, axes=_merged(stage.axes, first, second, both), value=value,
                   reduce=_merged(stage.reduce, first, second, both), finish=finish[0] if finish else None)


def _merged(axes: tuple[Axis, ...], first: Axis, second: Axis, both: Axis) -> tuple[Axis, ...]:
    return tuple(both if axis == first else axis for axis in axes if axis != second)
