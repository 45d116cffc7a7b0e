"""Chains of contractions that stay in the cache: a block of rows goes through all stages before the next one starts.

What holds here:
- A chain begins and ends with a contraction; each stage in between works row by row on what the chain wrote (scores,
  the softmax over them, their product with the values: attention). The stages share their leading axes.
- The last shared axis is cut into blocks of equal size: the contractions keep rows to reuse their other operand for,
  and what lies between them becomes local, a block high. Element-wise stages overwrite their operand where nobody
  reads it afterwards.
- A chain is blocked only if what lies between is larger than the operands that each block reads again.
  Source of the idea: Dao et al., FlashAttention, 2022, without its rescaling: whole rows fit the second cache here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Affine, Axis, Buffer, Expr, Load, Stage, Task, rebuild, substitute
from tracedsl.rewrite.tensor.fuse import (
    Apart,
    Hints,
    fuse_stages,
    is_contraction,
    loads,
    local_rank,
    nothing_apart,
    reads,
    renamed_stages,
)

BLOCK_BYTES = 512 * 1024   # what lies between the contractions, for one block of rows
MAX_ROWS, MIN_ROWS = 128, 16
MIN_BLOCKS = 8             # so that all cores have work, where there are rows enough


def tasks_of(name: str, stages: Sequence[Stage], hints: Mapping[str, Hints],
             apart: Apart = nothing_apart) -> tuple[Task, ...]:
    """All stages as tasks: chains in blocks, the others fused, those that are `apart` alone."""
    tasks: list[Task] = []
    start = at = 0
    while at < len(stages):
        found = chain_at(stages, at)
        if found is None or any(stage.name in hints or apart(stage) for stage in stages[at:found[0]]):
            at += 1
            continue
        end, rank = found
        tasks += _fused(name, stages, start, at, hints, len(tasks), apart)
        made, shared = blocked(stages[at:end], rank)
        tasks.append(Task(f"{name}_{len(tasks)}", tuple(renamed_stages(made, shared)), shared))
        start = at = end
    return (*tasks, *_fused(name, stages, start, len(stages), hints, len(tasks), apart))


def _fused(name: str, stages: Sequence[Stage], start: int, end: int, hints: Mapping[str, Hints],
           number: int, apart: Apart) -> tuple[Task, ...]:
    outside = (*stages[:start], *stages[end:])
    return fuse_stages(name, stages[start:end], hints, number=number, outside=outside, apart=apart)


def chain_at(stages: Sequence[Stage], first: int) -> tuple[int, int] | None:
    """The end of the chain that begins with stage number `first`, and how many axes it shares; None if there is none.
    """
    head = stages[first]
    if not is_contraction(head) or head.out.scope != "temp":
        return None
    rank, end, written = len(head.axes) - 1, None, {head.out.name}
    for at in range(first + 1, len(stages)):
        stage = stages[at]
        if stage.scan or not written & set(reads(stage)):
            break
        rank = _rank(stages[first:at], stage, rank)
        if rank < 1:
            break
        if is_contraction(stage):
            end = (at + 1, rank)
            break
        if stage.out.scope != "temp":
            break
        written.add(stage.out.name)
    if end is None or not _pays(stages, first, *end):
        return None
    return end


def _rank(before: Sequence[Stage], stage: Stage, rank: int) -> int:
    """How many of the leading axes `stage` shares with the chain before it."""
    rank = min(rank, len(stage.axes))
    while rank and [a.extent for a in stage.axes[:rank]] != [a.extent for a in before[0].axes[:rank]]:
        rank -= 1
    for other in before:
        for load in loads(stage):
            if load.buffer.name == other.out.name:
                rank = local_rank(other, stage, load, min(rank, len(other.axes)))
    return rank


def _pays(stages: Sequence[Stage], first: int, end: int, rank: int) -> bool:
    """Whether nobody else reads what lies between, the rows divide well, and what lies between is the larger part."""
    chain, inner = stages[first:end], {stage.out.name for stage in stages[first:end - 1]}
    outside = [*stages[:first], *stages[end:]]
    if any(inner & {*reads(stage), stage.out.name} for stage in outside):
        return False
    head = chain[0]
    row = head.axes[rank - 1]
    if rows_of(chain, rank) is None or any(load.buffer.shape != _shape(chain, load.buffer.name, load.buffer)
                                           for stage in chain for load in loads(stage)):
        return False
    rows = math.prod(a.extent for a in head.axes[:rank])
    again = sum(load.buffer.size * BYTES[load.buffer.dtype] for stage in (chain[0], chain[-1]) for load in loads(stage)
                if load.buffer.name not in inner and not _moves_with(load, stage, row, rank))
    return _row_bytes(chain, rank) * rows >= 2 * again


def _shape(chain: Sequence[Stage], name: str, default: Buffer) -> tuple[int, ...]:
    return next((stage.out.shape for stage in chain if stage.out.name == name), default.shape)


def _moves_with(load: Load, stage: Stage, row: Axis, rank: int) -> bool:
    axis = stage.axes[rank - 1]
    return any(isinstance(entry, Affine) and entry.coefficient(axis) for entry in load.index)


def _row_bytes(chain: Sequence[Stage], rank: int) -> int:
    """Bytes of one row of everything that lies between."""
    kept = {stage.out.name: stage for stage in in_place(chain)[:-1]}
    return sum(math.prod(a.extent for a in stage.axes[rank:]) * BYTES[stage.out.dtype] for stage in kept.values())


def rows_of(chain: Sequence[Stage], rank: int) -> int | None:
    """The largest fitting number of rows that divides their count; None if there is none."""
    count, row = chain[0].axes[rank - 1].extent, _row_bytes(chain, rank)
    most = min(MAX_ROWS, max(MIN_ROWS, math.prod(a.extent for a in chain[0].axes[:rank]) // MIN_BLOCKS))
    fitting = [n for n in range(MIN_ROWS, most + 1) if count % n == 0 and n * row <= BLOCK_BYTES]
    return max(fitting, default=None)


def in_place(chain: Sequence[Stage]) -> list[Stage]:
    """The stages, with each element-wise one writing over an operand of the same kind that is not read afterwards."""
    done: list[Stage] = []
    names: dict[str, Buffer] = {}

    def change(expr: Expr) -> Expr:
        if isinstance(expr, Load) and expr.buffer.name in names:
            return Load(expr.dtype, names[expr.buffer.name], expr.index)
        return expr

    for at, given in enumerate(chain):
        value, *finish = rebuild([e for e in (given.value, given.finish) if e is not None], change)
        stage = replace(given, value=value, finish=finish[0] if finish else None)
        later = {name for other in chain[at + 1:] for name in reads(other)}
        for load in loads(stage) if stage.combine is None and at + 1 < len(chain) else ():
            owner = next((s for s in done if s.out.name == load.buffer.name), None)
            old = {name for name, buffer in names.items() if buffer.name == load.buffer.name} | {load.buffer.name}
            only = sum(other.buffer.name == load.buffer.name for other in loads(stage)) == 1
            if owner is not None and only and not old & later and load.index == stage.index \
                    and (owner.out.dtype, owner.out.shape) == (stage.out.dtype, stage.out.shape):
                names[stage.out.name] = owner.out
                stage = replace(stage, out=owner.out)
                break
        done.append(stage)
    return done


def blocked(chain: Sequence[Stage], rank: int) -> tuple[list[Stage], int]:
    """The chain with the last shared axis cut in two: blocks, which are shared, and the rows of a block; also how many
    axes are shared. What lies between has the rows of one block alone."""
    rows = rows_of(chain, rank)
    assert rows is not None
    stages = in_place(chain)
    between = {stage.out.name: stage for stage in reversed(stages[:-1])}
    locals_ = {name: _local(stage, rank, rows) for name, stage in between.items()}
    result = []
    for stage in stages:
        row = stage.axes[rank - 1]
        block, inner = Axis(f"{row.name}.b", row.extent // rows), Axis(f"{row.name}.r", rows)
        within = {axis: Affine() for axis in stage.axes[:rank - 1]} | {row: Affine.of(inner)}
        whole = {row: Affine.of(block, rows) + Affine.of(inner)}

        def change(expr: Expr, within: dict[Axis, Affine] = within) -> Expr:
            if isinstance(expr, Load) and expr.buffer.name in locals_:
                local, dims = locals_[expr.buffer.name]
                places = (expr.index[d] for d in dims)
                return Load(expr.dtype, local, tuple(i.substitute(within) if isinstance(i, Affine) else i
                                                     for i in places))
            return expr

        parts = rebuild([e for e in (stage.value, stage.finish) if e is not None], change)
        value, *finish = substitute(parts, whole)
        out, index = stage.out, tuple(entry.substitute(whole) for entry in stage.index)
        if out.name in locals_:
            out, dims = locals_[out.name]
            index = tuple(stage.index[d].substitute(within) for d in dims)
        axes, end = (*stage.axes[:rank - 1], block, inner, *stage.axes[rank:]), finish[0] if finish else None
        result.append(replace(stage, out=out, index=index, axes=axes, value=value, finish=end))
    return result, rank


def _local(stage: Stage, rank: int, rows: int) -> tuple[Buffer, tuple[int, ...]]:
    """The local buffer for one block of what a stage writes, and the dimensions of the old one that it keeps."""
    row, outer = stage.axes[rank - 1], stage.axes[:rank - 1]
    shape, kept = [], []
    for d, (entry, extent) in enumerate(zip(stage.index, stage.out.shape, strict=True)):
        if entry.coefficient(row):
            shape.append(rows)
            kept.append(d)
        elif extent != 1 and not any(entry.coefficient(axis) for axis in outer):
            shape.append(extent)
            kept.append(d)
    return Buffer.row_major(stage.out.name, stage.out.dtype, shape, "local"), tuple(kept)
