"""Schedules of contractions (matrix products and their like): a tile of the result stays in registers.

What holds here: the tile is `height` steps of one axis times `vectors` vectors of another, or, where both operands are
contiguous along the reduced axis, height x width accumulators that are vectors along that axis. Sizes are chosen from
the shape by counting the steps that the tiles take, rests included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Axis, Stage
from tracedsl.schedule.access import Access, accesses, contiguous, reused, widest
from tracedsl.schedule.primitives import Schedule

if TYPE_CHECKING:
    from tracedsl.schedule.default import MachineFacts

LATENCY = 8              # independent sums that keep the multiply-add units busy
PACK_ROWS = 8            # a panel that serves at least this many tiles is worth copying
STEP_OVERHEAD = 1.5      # cost of one step of the innermost loop, in multiply-adds
LOAD_COST = 0.15         # ... and of each load that hides behind them
TILES = ((6, 4), (5, 5), (9, 3), (8, 2), (4, 4), (12, 2), (14, 2), (4, 3), (6, 2), (5, 2), (4, 2), (3, 4), (2, 6),
         (1, 12), (2, 4), (3, 2), (2, 2), (1, 8), (1, 4), (8, 1), (6, 1), (4, 1), (2, 1), (1, 2), (1, 1))


@dataclass(frozen=True)
class Roles:
    """What the axes of a contraction are for: `column` has the vectors (or the second side of the tile if `along` is
    the reduced axis that has them), `row` the first side of the tile."""

    row: Axis
    column: Axis
    along: Axis | None


@dataclass(frozen=True)
class TileChoice:
    """The choices that the tuner may change; extents in elements."""

    height: int
    vectors: int
    lanes: int
    pack: bool
    rows_first: bool


def roles(stage: Stage) -> Roles:
    """Pick row, column and the axis of the vectors. The stage must reuse its operands along two axes (`reused`)."""
    loads = accesses(stage, finish=False)
    store = accesses(stage)[-1]
    free = reused(stage)
    good = [a for a in free if contiguous(loads, a)]
    column = max(good or free, key=lambda a: (store.stride(a) == 1, a.extent))
    row = max((a for a in free if a is not column), key=lambda a: (_apart(loads, a, column), a.extent))
    along = next((k for k in reversed(stage.reduce) if contiguous(loads, k)), None)
    return Roles(row, column, along if not good else None)


def _apart(loads: list[Access], one: Axis, other: Axis) -> bool:
    """Whether the operands that move with one axis are not those that move with the other."""
    return not any(load.stride(one) and load.stride(other) for load in loads)


def is_tiled(stage: Stage) -> bool:
    """Whether a stage is a contraction that this module schedules."""
    return stage.combine is not None and len(reused(stage)) >= 2


def default_tile(stage: Stage, machine: MachineFacts) -> TileChoice:
    part = roles(stage)
    lanes = max(1, machine.vector_bytes // widest(stage))
    if part.along is not None:
        rows, columns = (6, 4) if machine.vector_registers >= 32 else (2, 3)
        rows, columns = min(rows, part.row.extent), min(columns, part.column.extent)
        return TileChoice(rows, columns, min(lanes, part.along.extent), False, False)
    lanes = min(lanes, part.column.extent)
    strip = math.prod(k.extent for k in stage.reduce) * lanes * BYTES[stage.value.dtype]   # one vector wide
    fitting = [t for t in TILES if registers_of(*t) <= machine.vector_registers]
    panels_fit = [t for t in fitting if t[1] * strip <= machine.l2 // 2]
    whole = -(-part.column.extent // lanes) * strip
    large = whole > machine.l2 // 2 and part.row.extent >= 8 * PACK_ROWS and bool(panels_fit)
    height, vectors = min(panels_fit if large else fitting,
                          key=lambda t: tile_steps(t, part.row.extent, part.column.extent, lanes))
    panels, rows = -(-part.column.extent // (vectors * lanes)), -(-part.row.extent // height)
    pack = large and panels >= 4 * machine.cores and rows >= PACK_ROWS
    return TileChoice(height, vectors, lanes, pack, not pack and (panels == 1 or whole <= machine.l2 // 2))


def registers_of(height: int, vectors: int) -> int:
    """Vector registers that a tile takes: sums, one row of one operand, one element of the other."""
    return height * vectors + vectors + 1


def tile_steps(tile: tuple[int, int], rows: int, columns: int, lanes: int) -> float:
    """Vector instructions for one step along the reduced axis, over all tiles: the larger of multiply-adds and
    loads."""
    height, vectors = tile
    heights = [(height, rows // height), (rows % height, 1)]
    full, rest = divmod(columns, vectors * lanes)
    widths = [(vectors, full), (rest // lanes, 1), (1 if rest % lanes else 0, 1)]
    total = 0.0
    for h, how_often in heights:
        for w, and_often in widths:
            if h and w:
                total += how_often * and_often * (max(h * w, h + w, LATENCY) + STEP_OVERHEAD + LOAD_COST * (h + w))
    return total


def apply_tile(s: Schedule, stage: Stage, number: int, tile: TileChoice) -> Schedule:
    """Lay out the loops: outer axes, tiles, reduced axes, the tile itself."""
    part, level = roles(stage), 1 + number
    row, column = part.row.name, part.column.name
    others = [a.name for a in stage.axes if a.name not in (row, column)]
    reduce = [leaf.name for leaf in s.loops[level] if leaf.reduce]
    s = s.split(row, tile.height)
    if part.along is not None:
        k = part.along.name
        s = s.split(column, tile.vectors).split(k, tile.lanes)
        serial = [n for n in reduce if n != k]
        s = s.reorder(*others, f"{column}_o", f"{row}_o", *serial, f"{k}_o", f"{row}_i", f"{column}_i", f"{k}_i")
        return s.unroll(f"{row}_i").unroll(f"{column}_i").vectorize(f"{k}_i")
    s = s.split(column, tile.vectors * tile.lanes).split(f"{column}_i", tile.lanes, f"{column}_u", f"{column}_v")
    outer = (f"{row}_o", f"{column}_o") if tile.rows_first else (f"{column}_o", f"{row}_o")
    s = s.reorder(*others, *outer, *reduce, f"{row}_i", f"{column}_u", f"{column}_v")
    s = s.unroll(f"{row}_i").unroll(f"{column}_u").vectorize(f"{column}_v")
    panel = _panel_of(stage, part)
    return s.cache_read(panel, f"{column}_o") if tile.pack and panel is not None else s


def tile_parallel(stage: Stage, tile: TileChoice) -> int:
    """How many outer loops may run in parallel: a panel is copied inside the loop over columns, which ends them."""
    packed = tile.pack and _panel_of(stage, roles(stage)) is not None
    return len(stage.axes) - packed


def _panel_of(stage: Stage, part: Roles) -> str | None:
    """The operand that runs along the columns and not along the rows, if it is read at one place."""
    loads = accesses(stage, finish=False)
    found = [load for load in loads if load.stride(part.column) and load.stride(part.row) == 0]
    if len(found) != 1 or sum(load.buffer.name == found[0].buffer.name for load in loads) != 1:
        return None
    return found[0].buffer.name
