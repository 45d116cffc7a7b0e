"""Stages, changed so that the accelerator can do more of them.

What holds here: the results stay the same, bit for bit. `narrowed` keeps in int8 what is one anyhow; `split_finish`
leaves to the host what the accelerator cannot do after a sum, and that alone; `unflattened` sums over the axes that a
tensor has instead of one that runs over several of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tracedsl.hw.fpga.compile.ranges import Range, of_dtype, values, within
from tracedsl.ir.expr import Affine, Axis, Buffer, Cast, Expr, Load, Reduced, Stage, rebuild, substitute, walk

Does = Callable[[Stage], bool]  # whether the accelerator can do a stage
INT8: Range = (-128, 127)


def reworked(stages: Sequence[Stage], does: Does) -> list[Stage]:
    """All of it."""
    made = [part for stage in narrowed(stages) for part in split_finish(stage, does)]
    owners = {stage.out.name: stage.out for stage in made}
    made = [unflattened(stage, owners, does) for stage in made]
    return sorted(made, key=_reads)  # borders first: what is computed later need not wait for the host


def _reads(stage: Stage) -> bool:
    return any(isinstance(e, Load) for e in walk(*(e for e in (stage.value, stage.finish) if e is not None)))


# -- int8 where that is enough -------------------------------------------------------------------------------------


def narrowed(stages: Sequence[Stage]) -> list[Stage]:
    """Keep temporaries of wider integers in int8 if no value of theirs needs more."""
    small = {stage.out.name for stage in stages if _is_wide_temp(stage)}
    small -= {stage.out.name for stage in stages if stage.out.name in small and not _is_small(stage)}
    return [_narrow(stage, small) for stage in stages]


def _is_wide_temp(stage: Stage) -> bool:
    limits = of_dtype(stage.out.dtype)
    return stage.out.scope == "temp" and limits is not None and limits[0] < INT8[0]


def _is_small(stage: Stage) -> bool:
    root = stage.finish if stage.finish is not None else stage.value
    known = values((root,), _reduced(stage)) if stage.finish is not None or stage.combine is None else {}
    return id(root) in known and within(known[id(root)].wrapped, INT8)


def _reduced(stage: Stage) -> Range | None:
    known = values((stage.value,))
    if id(stage.value) not in known:
        return None
    low, high = known[id(stage.value)].wrapped
    count = math.prod(axis.extent for axis in stage.reduce)
    if stage.combine == "add":
        return min(low * count, low), max(high * count, high)
    return (low, high) if stage.combine in ("maximum", "minimum", "fmax", "fmin") else None


def _narrow(stage: Stage, small: set[str]) -> Stage:
    def change(expr: Expr) -> Expr:
        if isinstance(expr, Load) and expr.buffer.name in small:
            return Cast(expr.dtype, Load("int8", replace(expr.buffer, dtype="int8"), expr.index))
        return expr

    stage = _changed(stage, change)
    if stage.out.name not in small:
        return stage
    root = stage.finish if stage.finish is not None else stage.value
    while isinstance(root, Cast) and of_dtype(root.arg.dtype) is not None and root.arg.dtype == "int8":
        root = root.arg
    root = root if root.dtype == "int8" else Cast("int8", root)
    out = replace(stage.out, dtype="int8")
    if stage.combine is None:
        return replace(stage, out=out, value=root)
    return replace(stage, out=out, finish=None if isinstance(root, Reduced) else root)


def _changed(stage: Stage, change: Callable[[Expr], Expr]) -> Stage:
    value, *finish = rebuild([e for e in (stage.value, stage.finish) if e is not None], change)
    return replace(stage, value=value, finish=finish[0] if finish else None)


# -- what the host must finish -------------------------------------------------------------------------------------


def split_finish(stage: Stage, does: Does) -> Iterator[Stage]:
    """A reduction whose finish the accelerator cannot do as two stages: the sum with the largest part of its finish
    that it can do, kept in memory, and the rest."""
    first = _largest(stage, does) if stage.combine and stage.finish is not None and not does(stage) else None
    if first is None or stage.finish is None:
        yield stage
        return
    done = first.finish
    yield first
    load = Load(first.out.dtype, first.out, first.index)
    rest = rebuild([stage.finish], lambda e: load if e is done or (done is None and isinstance(e, Reduced)) else e)[0]
    yield replace(stage, value=rest, reduce=(), combine=None, finish=None)


def _largest(stage: Stage, does: Does) -> Stage | None:
    """The first of the two stages, if there is one."""
    assert stage.finish is not None
    for part in reversed(list(walk(stage.finish))):
        inside = any(isinstance(e, Reduced) for e in walk(part))
        if not inside or part is stage.finish or not _alone(stage.finish, part):
            continue
        out = Buffer.row_major(f"{stage.out.name}_sum", part.dtype, [axis.extent for axis in stage.axes])
        first = replace(stage, name=f"{stage.name}_sum", out=out, index=tuple(map(Affine.of, stage.axes)),
                        finish=None if isinstance(part, Reduced) else part)
        if does(first):
            return first
    return None


def _alone(root: Expr, part: Expr) -> bool:
    """Whether the sum is used in `part` only."""
    hole = Load(part.dtype, Buffer.row_major("hole", part.dtype, ()), ())
    left = rebuild([root], lambda e: hole if e is part else e)[0]
    return not any(isinstance(e, Reduced) for e in walk(left))


# -- axes that run over several dimensions -------------------------------------------------------------------------


def unflattened(stage: Stage, owners: dict[str, Buffer], does: Does) -> Stage:
    """Sum over the dimensions of a tensor one by one where it is read as if they were one (after a reshape)."""
    for load in walk(stage.value):
        if isinstance(load, Load) and (owner := owners.get(load.buffer.name)) is not None \
                and owner.shape != load.buffer.shape and owner.scope == "temp":
            made = _unflattened(stage, load, owner)
            if made is not None and does(made):
                return made
    return stage


def _unflattened(stage: Stage, load: Load, owner: Buffer) -> Stage | None:
    groups = _grouped(owner.shape, load.buffer.shape)
    if groups is None:
        return None
    new: dict[Axis, Affine] = {}
    parts: dict[Axis, list[Axis]] = {}
    for dims, place in zip(groups, load.index, strict=True):
        sizes = [owner.shape[d] for d in dims if owner.shape[d] > 1]
        axis = next(iter(place.axes()), None) if isinstance(place, Affine) else None
        if len(sizes) < 2 or axis is None:
            continue
        if axis not in stage.reduce or place != Affine.of(axis) or axis.extent != math.prod(sizes):
            return None
        parts[axis] = [Axis(f"{axis.name}.{n}", size, True) for n, size in enumerate(sizes)]
        steps = Buffer.row_major("", "int8", sizes).strides
        total = Affine()
        for part, step in zip(parts[axis], steps):
            total = total + Affine.of(part, step)
        new[axis] = total
    if not new:
        return None
    (value,) = substitute([stage.value], new)
    value = rebuild([value], lambda e: _seen_apart(e, new, parts, load, owner) if isinstance(e, Load) else e)[0]
    reduce = tuple(part for axis in stage.reduce for part in parts.get(axis, [axis]))
    return replace(stage, value=value, reduce=reduce)


def _grouped(fine: Sequence[int], coarse: Sequence[int]) -> list[list[int]] | None:
    """Which dimensions of `fine` make each of `coarse`."""
    groups: list[list[int]] = []
    at = 0
    for extent in coarse:
        group, size = [], 1
        while size < extent and at < len(fine):
            group.append(at)
            size *= fine[at]
            at += 1
        if size != extent:
            return None
        groups.append(group)
    return groups if all(n == 1 for n in fine[at:]) else None


def _seen_apart(load: Load, new: dict[Axis, Affine], parts: dict[Axis, list[Axis]], flat: Load, owner: Buffer) -> Load:
    """The load with one dimension for each part of a split axis."""
    shape, strides, index = [], [], []
    for extent, stride, place in zip(load.buffer.shape, load.buffer.strides, load.index, strict=True):
        axis = next((a for a, total in new.items() if place == total and extent == a.extent), None)
        if axis is None:
            shape.append(extent)
            strides.append(stride)
            index.append(place)
            continue
        for part, (_, step) in zip(parts[axis], ((p, new[axis].coefficient(p)) for p in parts[axis])):
            shape.append(part.extent)
            strides.append(stride * step)
            index.append(Affine.of(part))
    if load.buffer.name == owner.name and math.prod(shape) == math.prod(owner.shape):
        kept = [(n, place) for n, place in zip(shape, index) if n > 1]
        if [n for n, _ in kept] == [n for n in owner.shape if n > 1]:
            places = iter(place for _, place in kept)
            return Load(load.dtype, owner, tuple(next(places) if n > 1 else Affine() for n in owner.shape))
    return Load(load.dtype, replace(load.buffer, shape=tuple(shape), strides=tuple(strides)), tuple(index))
