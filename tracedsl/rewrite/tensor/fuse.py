"""Fusion of stages into tasks.

What holds here:
- A stage joins a task if, at each point of some leading axes that they then share, it reads of the task's own buffers
  only what was written at that point. So row-wise chains (softmax, layer norm, variance) become one task over rows.
- What only one task's row needs becomes a local buffer of at most `ROW_BYTES`, else it stays a temp.
- Reductions that run across rows (along a longer stride than the rows themselves) and contractions keep a task of their
  own: their loops want another order.
- Names are given at the end: shared axes i, j, ...; further axes of the stages by position, made unique by a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Affine, Axis, Buffer, Expr, Load, Stage, Task, address, rebuild, substitute, walk

Hints = tuple[tuple[str, tuple[object, ...]], ...]
Apart = Callable[[Stage], bool]  # which stages a target does by themselves

ROW_BYTES = 128 * 1024    # the largest intermediate row that is kept inside a task: on a thread's stack, in its L2
SMALL_WORK = 32 * 1024    # points below which stages share a task although they share no axis
MIN_ROWS = 32             # fewer shared rows than this would leave cores idle


@dataclass
class _Group:
    stages: list[Stage] = field(default_factory=list)
    rank: int = 0
    alone: bool = False

    def writes(self) -> set[str]:
        return {stage.out.name for stage in self.stages}


def nothing_apart(stage: Stage) -> bool:
    return False


def fuse_stages(name: str, stages: Sequence[Stage], hints: Mapping[str, Hints], *, number: int = 0,
                outside: Sequence[Stage] = (), apart: Apart = nothing_apart) -> tuple[Task, ...]:
    """Put stages, which stand in an order that runs, into tasks in an order that runs, named from `number` on. Stages
    `outside` may read or write the same buffers; those that are `apart` get a task of their own."""
    groups: list[_Group] = []
    writer: dict[str, int] = {}
    for stage in stages:
        first = max((writer[b] for b in reads(stage) if b in writer), default=0)
        alone = is_contraction(stage) or stage.scan or stage.name in hints or apart(stage)
        near = range(len(groups) - 1, first - 1, -1) if not alone else ()
        place = next((at for at in near if _joins(groups[at], stage)), None)
        if place is None:
            place = len(groups)
            groups.append(_Group([], _max_rank(stage), alone))
        else:
            groups[place].rank = _joint_rank(groups[place], stage)
        groups[place].stages.append(stage)
        writer[stage.out.name] = max(place, writer.get(stage.out.name, 0))
    others = _Group(list(outside))
    return tuple(_task(f"{name}_{number + at}", group, [*groups, others], hints) for at, group in enumerate(groups))


def loads(stage: Stage) -> list[Load]:
    roots = [e for e in (stage.value, stage.finish) if e is not None]
    return [e for e in walk(*roots) if isinstance(e, Load)]


def reads(stage: Stage) -> dict[str, None]:
    """Names of the buffers that a stage reads, in order."""
    return dict.fromkeys(load.buffer.name for load in loads(stage))


def is_contraction(stage: Stage) -> bool:
    """Whether at least two of its axes are each missing from some operand: its data is used again and again."""
    if stage.combine is None or stage.scan:
        return False
    operands = [e for e in walk(stage.value) if isinstance(e, Load)]
    places = [address(load.index, load.buffer) for load in operands]
    missing = [axis for axis in stage.axes if any(p is not None and not p.coefficient(axis) for p in places)]
    return len(missing) >= 2


def _max_rank(stage: Stage) -> int:
    """How many leading axes others may share: those that are no shorter a stride than what is reduced over."""
    if stage.combine is None:
        return len(stage.axes)
    if is_contraction(stage):
        return 0
    rank = len(stage.axes)
    for load in (e for e in walk(stage.value) if isinstance(e, Load)):
        place = address(load.index, load.buffer)
        if place is None:
            continue
        step = min((abs(c) for axis in stage.reduce if (c := place.coefficient(axis))), default=0)
        for at, axis in enumerate(stage.axes[:rank]):
            if step and 0 < abs(place.coefficient(axis)) < step:
                rank = at
                break
    return rank


def _joins(group: _Group, stage: Stage) -> bool:
    if group.alone:
        return False
    rank = _joint_rank(group, stage)
    work = sum(_work(s) for s in (*group.stages, stage))
    depends = bool(group.writes() & set(reads(stage)))
    if rank == 0:
        return work <= SMALL_WORK and (depends or not stage.axes) and _serial_is_fine(group, stage)
    related = depends or any(set(reads(stage)) & set(reads(other)) for other in group.stages)
    rows = math.prod(axis.extent for axis in stage.axes[:rank])
    same = all(_extents(other.axes) == _extents(stage.axes) for other in group.stages)
    return (related and (rows >= MIN_ROWS or work <= SMALL_WORK)) or (same and rank == len(stage.axes))


def _serial_is_fine(group: _Group, stage: Stage) -> bool:
    return all(_work(s) <= SMALL_WORK for s in (*group.stages, stage))


def _work(stage: Stage) -> int:
    return math.prod(axis.extent for axis in (*stage.axes, *stage.reduce))


def _extents(axes: Sequence[Axis]) -> tuple[int, ...]:
    return tuple(axis.extent for axis in axes)


def _joint_rank(group: _Group, stage: Stage) -> int:
    """How many leading axes the group's stages and this one can share."""
    rank = min(group.rank, _max_rank(stage))
    for other in group.stages:
        same = 0
        while same < min(rank, len(other.axes)) and other.axes[same].extent == stage.axes[same].extent:
            same += 1
        rank = min(rank, same)
        for load in loads(stage):
            if load.buffer.name == other.out.name:
                rank = local_rank(other, stage, load, rank)
    return rank


def local_rank(writer: Stage, reader: Stage, load: Load, rank: int) -> int:
    """For how many of the first `rank` axes a load finds what was written at the same point."""
    if load.buffer.shape != writer.out.shape or load.buffer.strides != writer.out.strides:
        return 0
    for at in range(rank):
        mine, theirs = writer.axes[at], reader.axes[at]
        dims = [d for d, entry in enumerate(writer.index) if entry.coefficient(mine)]
        if len(dims) != 1 or writer.index[dims[0]].axes() != {mine}:
            return at
        if load.index[dims[0]] != writer.index[dims[0]].substitute({mine: Affine.of(theirs)}):
            return at
    return rank


# -- tasks --------------------------------------------------------------------------------------------------------


def _task(name: str, group: _Group, groups: Sequence[_Group], hints: Mapping[str, Hints]) -> Task:
    shared = group.rank if len(group.stages) > 1 else 0
    renamed = renamed_stages(group.stages, shared)
    locals_ = _locals(group, groups, shared)
    stages = tuple(_localised(stage, locals_) for stage in renamed)
    kept = {stage.name: hints[stage.name] for stage in stages if stage.name in hints}
    return Task(name, stages, shared, kept)


def renamed_stages(stages: Sequence[Stage], shared: int) -> list[Stage]:
    """The stages of one task with short names for their axes; the first `shared` become the same axes in all."""
    taken: set[str] = set()

    def fresh(letter: str, axis: Axis) -> Axis:
        number, name = 0, letter
        while name in taken:
            number += 1
            name = f"{letter}{number}"
        taken.add(name)
        return Axis(name, axis.extent, axis.reduce)

    outer = [fresh(_letter("ijlmnopq", at), axis) for at, axis in enumerate(stages[0].axes[:shared])]
    result = []
    for stage in stages:
        axes = [*outer, *(fresh(_letter("ijlmnopq", at + shared), a) for at, a in enumerate(stage.axes[shared:]))]
        reduce = [fresh(_letter("krs", at), axis) for at, axis in enumerate(stage.reduce)]
        new = {old: Affine.of(axis) for old, axis in zip((*stage.axes, *stage.reduce), (*axes, *reduce))}
        value, *finish = substitute([e for e in (stage.value, stage.finish) if e is not None], new)
        index = tuple(entry.substitute(new) for entry in stage.index)
        result.append(replace(stage, index=index, axes=tuple(axes), value=value, reduce=tuple(reduce),
                              finish=finish[0] if finish else None))
    return result


def _letter(letters: str, at: int) -> str:
    return letters[at] if at < len(letters) else f"{letters[-1]}{at}"


def _locals(group: _Group, groups: Sequence[_Group], shared: int) -> dict[str, tuple[Buffer, tuple[int, ...]]]:
    """name -> (the local buffer, the dimensions of the old one that it keeps)."""
    elsewhere = {b for other in groups if other is not group for stage in other.stages
                 for b in (*reads(stage), stage.out.name)}
    found: dict[str, tuple[Buffer, tuple[int, ...]]] = {}
    for stage in group.stages if shared else ():  # without shared axes every stage has parallel loops of its own
        out = stage.out
        same = [s for s in group.stages if s.out.name == out.name]
        seen = [load.buffer for s in group.stages for load in loads(s) if load.buffer.name == out.name]
        if out.scope != "temp" or out.name in elsewhere or any(b.shape != out.shape for b in seen):
            continue
        if any(s.out.shape != out.shape for s in same):
            continue
        rows = {d for d, entry in enumerate(out.shape) for s in same for axis in s.axes[:shared]
                if s.index[d].coefficient(axis)}
        kept = tuple(d for d, extent in enumerate(out.shape) if d not in rows and extent != 1)
        local = Buffer.row_major(out.name, out.dtype, [out.shape[d] for d in kept], "local")
        if local.size * BYTES[out.dtype] <= ROW_BYTES:
            found[out.name] = (local, kept)
    return found


def _localised(stage: Stage, locals_: Mapping[str, tuple[Buffer, tuple[int, ...]]]) -> Stage:
    def change(expr: Expr) -> Expr:
        if isinstance(expr, Load) and expr.buffer.name in locals_:
            local, kept = locals_[expr.buffer.name]
            return Load(expr.dtype, local, tuple(expr.index[d] for d in kept))
        return expr

    value, *finish = rebuild([e for e in (stage.value, stage.finish) if e is not None], change)
    out, index = stage.out, stage.index
    if out.name in locals_:
        out, kept = locals_[out.name]
        index = tuple(index[d] for d in kept)
    return replace(stage, out=out, index=index, value=value, finish=finish[0] if finish else None)
