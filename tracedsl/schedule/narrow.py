"""Stages with short axes: which axis gets the vectors, and how the short ones stand inside.

What holds here:
- The axis of the vectors, kept or reduced, is the one for which the stage takes the fewest instructions: by how many
  lanes it fills, by the strides along it, and by what is the same for several steps of other axes.
- Short axes are unrolled inside the vectors' loop, so that their steps share loads and subexpressions, and their
  results leave together, as one run of memory.
- Sums along a reduced axis of vectors are made for a few rows at once, which share what does not depend on the row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from tracedsl.ir.expr import Affine, Axis, Call, Expr, Load, Position, Stage, children, walk
from tracedsl.ir.short import UNROLLED, is_short
from tracedsl.schedule.access import HEAVY, Access, accesses
from tracedsl.schedule.primitives import Leaf, Schedule

BODY = 800           # instructions in one step of the innermost loop: code to make and to fetch
ROWS = 4             # rows of a reduction along the vectors' axis
SIDE = 4             # vectors side by side
SHUFFLED = 8         # the longest steps at which lanes are loaded together and shuffled
JUMP = 1.5           # instructions for each lane that is loaded by itself
REPEAT = 0.5         # ... for a load that all lanes share
ODD = 1.5            # how much slower vectors are that are no whole part of a register
COST = {"div": 6.0, "sqrt": 10.0, "floordiv": 8.0, "mod": 8.0, "fmod": 20.0, **dict.fromkeys(HEAVY, 20.0)}


class Loop(Protocol):
    """An axis, or a leaf of a schedule."""

    @property
    def name(self) -> str: ...
    @property
    def extent(self) -> int: ...


def short_axes(axes: Sequence[Loop]) -> list[str]:
    """The names of the axes to unroll: short ones beside a long one, if they are not too many together."""
    short = [a for a in axes if a.extent > 1 and is_short(a.extent)]
    if all(is_short(a.extent) for a in axes) or math.prod(a.extent for a in short) > UNROLLED:
        return []
    return [a.name for a in short]


def long_vector(stages: Sequence[Stage], leaves: Sequence[Loop], lanes: int) -> str | None:
    """The axis that makes the best vectors for loops with short axes; None if there are none, if that is a short one,
    or if the code would be large."""
    if not short_axes(leaves):
        return None
    names = [leaf.name for leaf in leaves]
    best = min(reversed(leaves), key=lambda leaf: sum(cost(stage, leaf.name, names, lanes) for stage in stages))
    body = sum(_counted(stage, best.name, names, lanes, {n: 1 for n in names if n not in short_axes(leaves)})
               for stage in stages)
    return None if is_short(best.extent) or body > BODY else best.name


def cost(stage: Stage, vector: str, names: Sequence[str], lanes: int) -> float:
    """Instructions of a stage, over all steps of the loops `names`, with vectors along one of them."""
    axes = {a.name: a for a in (*stage.axes, *stage.reduce) if a.name in names}
    along = axes[vector]
    total = _counted(stage, vector, names, lanes, {vector: -(-along.extent // lanes)})
    if along.reduce:
        total += math.prod(a.extent for a in axes.values() if not a.reduce) * 2 * math.log2(min(lanes, along.extent))
    partial = along.extent < lanes and along.extent & (along.extent - 1)
    return total * ODD if partial else total


def _counted(stage: Stage, vector: str, names: Sequence[str], lanes: int, steps: dict[str, int]) -> float:
    """Instructions over the steps of all loops, which `steps` gives where they are not the axes' own."""
    axes = {a.name: a for a in (*stage.axes, *stage.reduce) if a.name in names}
    along = axes[vector]
    short = set(short_axes(list(axes.values()))) - {vector}
    deep = {a.name for a in stage.reduce if a.name in axes and a.name not in short}
    tiled = bool(deep) and (vector in deep or is_short(along.extent))

    def times(on: frozenset[str]) -> float:
        """How often it is computed that depends on these axes."""
        left_out = {n for n in axes if n not in on and (n in short or (n in deep and not on & deep))}
        count = math.prod(steps.get(n, axis.extent) for n, axis in axes.items() if n not in left_out)
        same_in_rows = any(n not in on and n not in deep and n not in short for n in axes)
        return count / ROWS if tiled and same_in_rows else count

    *loads, store = accesses(replace(stage, finish=None))
    total = sum(_load(load, along, lanes) * times(_axes_of(load, axes)) for load in loads)
    on_axes = _depends(stage.value)
    total += sum(COST.get(e.op, 1.0) * times(on_axes[id(e)]) for e in walk(stage.value) if isinstance(e, Call))
    return total + (_load(store, along, lanes) if stage.combine is None else 1) * times(frozenset(axes))


def _load(access: Access, axis: Axis, lanes: int) -> float:
    """Instructions that one vector of an access takes."""
    stride = access.stride(axis)
    if stride == 0:
        return REPEAT
    if stride is None or abs(stride) > SHUFFLED:
        return JUMP * min(lanes, axis.extent)
    return float(abs(stride))


def _axes_of(access: Access, axes: dict[str, Axis]) -> frozenset[str]:
    return frozenset(name for name, axis in axes.items() if access.stride(axis) != 0)


def _depends(root: Expr) -> dict[int, frozenset[str]]:
    """The names of the axes that each part of an expression depends on."""
    found: dict[int, frozenset[str]] = {}
    for expr in walk(root):
        on = frozenset[str]().union(*(found[id(child)] for child in children(expr)))
        places = expr.index if isinstance(expr, Load) else (expr.index,) if isinstance(expr, Position) else ()
        found[id(expr)] = on.union(*(frozenset(a.name for a in p.axes()) for p in places if isinstance(p, Affine)))
    return found


def repeated_rows(stages: Sequence[Stage], leaves: Sequence[Leaf], axes: dict[str, Axis], vector: str) -> Leaf | None:
    """A long axis for whose steps the same elements are taken together from memory, lane by lane or shuffled."""
    for leaf in reversed(leaves):
        if leaf.name != vector and not is_short(leaf.extent) and any(
                access.stride(axes[vector]) not in (0, 1) and access.stride(axes[leaf.name]) == 0
                for stage in stages for access in accesses(stage)):
            return leaf
    return None


def unroll_inside(s: Schedule, level: int, short: Sequence[str]) -> Schedule:
    """..., c, v_o, v_u, v_v   ->   ..., v_o, v_u, c unrolled, v_v"""
    names = [leaf.name for leaf in s.loops[level] if leaf.name not in short]
    s = s.reorder(*names[:-1], *short, names[-1])
    for name in short:
        s = s.unroll(name)
    return s


def apply_narrow(s: Schedule, stage: Stage, number: int, vector: str, lanes: int, registers: int,
                 side: int = 0) -> Schedule:
    """Lay out the loops of a reduction; `side`: vectors side by side (0: as many as registers allow)."""
    level = 1 + number
    leaves = {leaf.name: leaf for leaf in s.loops[level]}
    axes = {a.name: a for a in (*stage.axes, *stage.reduce)}
    short = [n for n in short_axes(list(leaves.values())) if n != vector]
    kept = [n for n in leaves if not leaves[n].reduce and n not in short and n != vector]
    deep = [n for n in leaves if leaves[n].reduce and n not in short and n != vector]
    taken = math.prod(leaves[n].extent for n in short)
    rows: list[str] = []
    if leaves[vector].reduce:
        row, height = _row(stage, kept, axes), max(1, min(ROWS, registers // 2 // taken))
        if row is not None and height > 1:
            s, rows = s.split(row, height), [f"{row}_i"]
            kept[kept.index(row)], taken = f"{row}_o", taken * height
    else:
        taken += _kept(stage, vector, short, deep)
    many = max(1, min(side or min(SIDE, registers // 2 // taken), leaves[vector].extent // lanes))
    s = s.split(vector, lanes * many).split(f"{vector}_i", lanes, f"{vector}_u", f"{vector}_v")
    reduced = [n for n in short if leaves[n].reduce]
    tile = [*reduced, *rows, f"{vector}_u", *(n for n in short if n not in reduced)]
    outer = [*kept, *deep, f"{vector}_o"] if leaves[vector].reduce else [*kept, f"{vector}_o", *deep]
    s = s.reorder(*outer, *tile, f"{vector}_v")
    for name in tile:
        s = s.unroll(name)
    return s.vectorize(f"{vector}_v")


def _row(stage: Stage, kept: Sequence[str], axes: dict[str, Axis]) -> str | None:
    """A kept axis for whose steps something that is summed is the same."""
    found = accesses(stage, finish=False)
    return next((n for n in reversed(kept) if any(load.stride(axes[n]) == 0 for load in found)), None)


def _kept(stage: Stage, vector: str, short: Sequence[str], deep: Sequence[str]) -> int:
    """How many vectors of elements stay the same for all steps of the reduced axes."""
    axes = {a.name: a for a in (*stage.axes, *stage.reduce)}
    found = set()
    for load in accesses(stage, finish=False):
        if load.address is None or not load.stride(axes[vector]) or any(load.stride(axes[n]) for n in deep):
            continue
        for spot in itertools.product(*(range(axes[n].extent) for n in short)):
            at = {axes[n]: Affine((), step) for n, step in zip(short, spot)}
            found.add((load.buffer.name, load.address.substitute(at)))
    return len(found)
