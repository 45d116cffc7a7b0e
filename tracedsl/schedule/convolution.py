"""Schedules of convolutions and of other sums whose result has two or more axes that one operand serves as rows.

What holds here:
- The stage is a sum of products as it was written: no copy of windows is made. A tile of the result, some steps of the
  two innermost row axes (height, width) times vectors along one axis, stays in registers over all reduced axes.
- *Dense*: an operand (the weights) moves with the vectors and with none of the rows. One strip of it, a tile wide,
  serves all rows of a chunk; it is copied into a panel where it has several strips, whose rows lie apart in memory.
- *Depthwise*: both operands move with the vectors, so that a step along the rows reuses only the weights, and
  neighbouring windows overlap in the first cache.
- Sizes follow from shape, strides and the machine alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Axis, Stage
from tracedsl.schedule.access import Access, accesses, contiguous, reused, widest
from tracedsl.schedule.contraction import LATENCY, LOAD_COST, STEP_OVERHEAD, registers_of
from tracedsl.schedule.primitives import Schedule

if TYPE_CHECKING:
    from tracedsl.schedule.default import MachineFacts

PANEL = 448 * 1024   # bytes of the largest panel that is copied
PACK_TILES = 8       # a panel that serves at least this many tiles is worth copying
WEIGHTS_COST = 0.5   # a vector of weights, which comes from the second cache, in multiply-adds
STREAMS = 7          # steps along a row that a depthwise tile takes: more would share lines of the first cache
WAITING = 4          # pieces of work a core, so that all cores end together


@dataclass(frozen=True)
class Roles:
    """The axis of the vectors; the innermost row axis, or two, outer before inner; all others; the weights, if nothing
    else moves with the vectors (None: depthwise)."""

    column: Axis
    rows: tuple[Axis, ...]
    others: tuple[Axis, ...]
    weights: Access | None


@dataclass(frozen=True)
class WindowChoice:
    """What the tuner may change: steps of the two innermost row axes and vectors in the tile, elements of a vector,
    whether a strip of the weights is copied, steps of the outermost row axis in one chunk of work, steps of the longest
    reduced axis in one block (0: no blocks), and the order of the reduced axes ("": as written; "10": the second one
    outside)."""

    height: int
    width: int
    vectors: int
    lanes: int
    pack: bool
    chunk: int
    depth: int = 0
    order: str = ""


def roles(stage: Stage) -> Roles | None:
    """What the axes are for; None if the stage is not of this kind."""
    loads = accesses(stage, finish=False)
    if stage.combine is None or len(loads) != 2 or any(load.address is None for load in loads):
        return None
    store = accesses(stage)[-1]
    vectors = [a for a in stage.axes if contiguous(loads, a) and store.stride(a) == 1]
    if not vectors:
        return None
    column = vectors[-1]
    moving = [load for load in loads if load.stride(column)]
    free = [a for a in reused(stage) if a is not column]
    weights = moving[0] if len(moving) == 1 else None
    if weights is not None:
        free = [a for a in free if not weights.stride(a)]
        image = next(load for load in loads if load is not weights)
    else:
        image = max(loads, key=lambda load: sum(bool(load.stride(a)) for a in free))
    rows = sorted((a for a in free if image.stride(a)), key=lambda a: -abs(image.stride(a) or 0))
    if len(rows) < (2 if weights is not None else 1):
        return None
    others = tuple(a for a in stage.axes if a is not column and a not in rows[-2:])
    return Roles(column, tuple(rows[-2:]), others, weights)


def is_window(stage: Stage) -> bool:
    """Whether this module schedules the stage."""
    return roles(stage) is not None


def default_window(stage: Stage, machine: MachineFacts) -> WindowChoice:
    part = roles(stage)
    assert part is not None
    lanes = min(max(1, machine.vector_bytes // widest(stage)), part.column.extent)
    depth = math.prod(k.extent for k in stage.reduce)
    height, width, vectors = _best_tile(part, lanes, machine.vector_registers)
    strips = -(-part.column.extent // (vectors * lanes))
    down = -(-part.rows[-2].extent // height) if len(part.rows) > 1 else 1
    tiles = down * -(-part.rows[-1].extent // width)
    panel = depth * vectors * lanes * BYTES[stage.value.dtype]
    if part.weights is None or strips == 1 or panel > PANEL or tiles < PACK_TILES:
        return WindowChoice(height, width, vectors, lanes, False, height)
    pieces = strips * math.prod(a.extent for a in part.others)
    chunks = max(1, min(-(-WAITING * machine.cores // pieces), tiles // PACK_TILES, down))
    return WindowChoice(height, width, vectors, lanes, True, height * -(-down // chunks))


def _best_tile(part: Roles, lanes: int, registers: int) -> tuple[int, int, int]:
    """The tile with the fewest instructions for the whole result, rests included."""
    width = part.rows[-1].extent
    height = part.rows[-2].extent if len(part.rows) > 1 else 1
    dense = part.weights is not None
    widest_tile = registers if dense else STREAMS
    best, least = (1, 1, 1), math.inf
    for h in (1, 2, 3, 4):
        for w in range(1, min(width, widest_tile) + 1):
            for v in (1, 2, 3, 4):
                if h > height or registers_of(h * w, v) > registers or (v - 1) * lanes >= part.column.extent:
                    continue
                cost = sum(many * _step(rows, v, dense) for rows, many in _pieces(height, h, width, w))
                cost *= -(-part.column.extent // (v * lanes))
                if cost < least - 1e-9:
                    best, least = (h, w, v), cost
    return best


def _pieces(height: int, h: int, width: int, w: int) -> list[tuple[int, int]]:
    """(rows of a tile, how many such tiles)."""
    downs = [(h, height // h), (height % h, 1)]
    acrosses = [(w, width // w), (width % w, 1)]
    return [(a * b, m * n) for a, m in downs for b, n in acrosses if a and b and m and n]


def _step(rows: int, vectors: int, dense: bool) -> float:
    """Instructions of a tile for one step along the reduced axes."""
    loads = rows + vectors if dense else rows * vectors + vectors
    return max(rows * vectors, loads, LATENCY) + STEP_OVERHEAD + LOAD_COST * loads + WEIGHTS_COST * vectors


def apply_window(s: Schedule, stage: Stage, number: int, how: WindowChoice) -> tuple[Schedule, int]:
    """Lay out the loops; also gives how many outer loops may run in parallel."""
    part, level = roles(stage), 1 + number
    assert part is not None
    column, width = part.column.name, part.rows[-1].name
    summed = [leaf for leaf in s.loops[level] if leaf.reduce]
    reduce = [summed[int(n)].name for n in how.order] or [leaf.name for leaf in summed]
    s = s.split(column, how.vectors * how.lanes).split(f"{column}_i", how.lanes, f"{column}_u", f"{column}_v")
    s = s.split(width, how.width)
    blocks, deepest = [], max(summed, key=lambda leaf: leaf.extent)
    if 0 < how.depth < deepest.extent:
        s, blocks = s.split(deepest.name, how.depth), [f"{deepest.name}_o"]
        reduce = [f"{name}_i" if name == deepest.name else name for name in reduce]
    outer, inner, chunk = [], [f"{width}_i"], ""
    if len(part.rows) > 1:
        down = part.rows[0].name
        s = s.split(down, how.height)
        outer, inner = [f"{down}_o"], [f"{down}_i", *inner]
        if how.chunk > how.height:
            chunk, tiles = f"{down}_c", how.chunk // how.height
            s = s.split(outer[0], tiles, chunk, f"{down}_t")
            outer = [f"{down}_t"]
    front = [*(a.name for a in part.others), f"{column}_o", *([chunk] if chunk else [])]
    if not how.pack:
        front = [*(a.name for a in part.others), *([chunk] if chunk else outer[:1]), f"{column}_o"]
        outer = outer if chunk else outer[1:]
    s = s.reorder(*front, *blocks, *outer, f"{width}_o", *reduce, *inner, f"{column}_u", f"{column}_v")
    for name in (*inner, f"{column}_u"):
        s = s.unroll(name)
    s = s.vectorize(f"{column}_v")
    if how.pack and part.weights is not None:
        s = s.cache_read(part.weights.buffer.name, (*front, *blocks)[-1])
    return s, len(front)
