"""Schedules of contractions (matrix products and their like): a tile of the result stays in registers.

What holds here:
- The tile is `height` steps of one axis times `vectors` vectors of another, or, where both operands are contiguous
  along the reduced axis and there is little to reuse, height x width accumulators that are vectors along that axis.
- Around the tile stand blocks, outermost first: columns as wide as a tile and chunks of rows (in parallel), blocks of
  the reduced axis, tiles of rows. Of the operand with the vectors, one block deep and one tile wide is copied where
  that pays; it stays in the second cache while the rows pass by (Goto and van de Geijn, Anatomy of High-Performance
  Matrix Multiplication, 2008, with the roles of the operands exchanged).
- Sizes follow from shape, strides and the machine by counting the steps that the tiles take, rests included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Axis, Stage
from tracedsl.ir.intrinsics import dot_for
from tracedsl.ir.short import is_short
from tracedsl.schedule.access import Access, accesses, contiguous, reused, widest
from tracedsl.schedule.narrow import long_vector
from tracedsl.schedule.primitives import Schedule

if TYPE_CHECKING:
    from tracedsl.schedule.default import MachineFacts

DEPTH = 384              # longest sum in one register: longer ones lose accuracy and cache
STEP = 16                # the depth of a block is a multiple of this
CHUNK = 48               # tiles of rows in one chunk
SIDE = 4                 # tiles side by side that one copy of rows serves
WAITING = 4              # pieces of work a core at least
BALANCE = 0.95           # share of the time that all cores are busy, at least
FAR = 4096               # bytes between neighbours along the reduced axis from which rows are worth a copy
LATENCY = 8              # independent sums that keep the multiply-add units busy
PACK_ROWS = 16           # a panel that serves at least this many tiles is worth copying
COPY_AGAIN = 8           # ... and again for each chunk of so many
TURN_ROWS = 32           # ... and so many rows if copying turns it over
STEP_OVERHEAD = 0.4      # cost of one step of the innermost loop, in multiply-adds
KIND_COST = 0.01         # ... and of each further kind of tile: code to compile and to fetch
LOAD_COST = 0.10         # ... and of each load that hides behind them
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
    """The choices that the tuner may change; extents in elements. `pack` and `pack_rows`: copy the operand with the
    vectors, and the other one; `depth`, `chunk`: the block of the reduced axis, and of the rows (0: no block);
    `panels`: tiles side by side for which one chunk of rows serves; `group`: products that one instruction sums."""

    height: int
    vectors: int
    lanes: int
    pack: bool = False
    pack_rows: bool = False
    depth: int = 0
    chunk: int = 0
    panels: int = 1
    rows_first: bool = False
    group: int = 1


def roles(stage: Stage) -> Roles:
    """Pick row, column and the axis of the vectors. The stage must reuse its operands along two axes (`reused`)."""
    loads = accesses(stage, finish=False)
    store = accesses(stage)[-1]
    free = reused(stage)
    good = [a for a in free if contiguous(loads, a)]
    column = max(good or free, key=lambda a: (store.stride(a) == 1, a.extent))
    row = max((a for a in free if a is not column), key=lambda a: (_apart(loads, a, column), a.extent))
    along = next((k for k in reversed(stage.reduce) if contiguous(loads, k)), None)
    turned = not good and (row.extent < TURN_ROWS or _panel_of(stage, Roles(row, column, None)) is None)
    return Roles(row, column, along if turned else None)


def _apart(loads: list[Access], one: Axis, other: Axis) -> bool:
    """Whether the operands that move with one axis are not those that move with the other."""
    return not any(load.stride(one) and load.stride(other) for load in loads)


def is_tiled(stage: Stage, machine: MachineFacts) -> bool:
    """Whether a stage is a contraction that this module schedules: one whose tile has an axis worth a vector."""
    if stage.combine is None or len(reused(stage)) < 2:
        return False
    part = roles(stage)
    lanes = max(1, machine.vector_bytes // widest(stage))
    return not is_short((part.along or part.column).extent) or long_vector(
        (stage,), (*stage.axes, *stage.reduce), lanes) is None


def default_tile(stage: Stage, machine: MachineFacts) -> TileChoice:
    part = roles(stage)
    lanes = max(1, machine.vector_bytes // widest(stage))
    if part.along is not None:
        rows, columns = (6, 4) if machine.vector_registers >= 32 else (2, 3)
        rows, columns = min(rows, part.row.extent), min(columns, part.column.extent)
        return TileChoice(rows, columns, min(lanes, part.along.extent))
    lanes = min(lanes, part.column.extent)
    fitting = [t for t in TILES if registers_of(*t) <= machine.vector_registers]
    others = math.prod(a.extent for a in stage.axes) // (part.row.extent * part.column.extent)

    def cost(tile: tuple[int, int]) -> float:
        pieces = others * -(-part.row.extent // tile[0]) * -(-part.column.extent // (tile[1] * lanes))
        idle = machine.cores * -(-pieces // machine.cores) / pieces
        return idle * tile_steps(tile, part.row.extent, part.column.extent, lanes)

    height, vectors = min(fitting, key=cost)
    tiles, panels = -(-part.row.extent // height), -(-part.column.extent // (vectors * lanes))
    dot = dot_for(stage, machine.intrinsics)
    group = dot.group if dot and dot.lanes == lanes and tiles > 1 and group_axis(stage, part, dot.group) else 1
    depth = block_depth(stage, group)
    sums = depth or math.prod(k.extent for k in stage.reduce)
    size = max(BYTES[load.buffer.dtype] for load in accesses(stage, finish=False))
    block = sums * panels * vectors * lanes * size       # of the operand with the vectors
    whole = block <= machine.l2 // 2
    turned = not contiguous(accesses(stage, finish=False), part.column)
    pack = turned or group > 1 or ((not whole or (bool(depth) and panels > 1)) and tiles >= PACK_ROWS)
    rows_first = not pack and (panels == 1 or whole)
    items = others
    pack_rows = bool(depth) and tiles >= PACK_ROWS and _far_apart(stage, part)
    strip, sums_strip = height * sums * size, height * vectors * lanes * BYTES[stage.value.dtype]    # of a tile of rows
    aside = bool(depth) and not rows_first and (pack_rows or tiles * strip > machine.l2 // 2)
    side = max(1, min(SIDE, panels // 2)) if aside else 1
    items *= 1 if rows_first else -(-panels // side)
    most = CHUNK if aside else max(CHUNK, machine.l2 // 2 // sums_strip)
    most = max(1, min(most, machine.l2 // 2 // strip)) if pack_rows else most
    least = COPY_AGAIN if pack or pack_rows else 1
    chunk = height * _chunk_tiles(tiles, most, least, items, machine.cores) if pack or depth else 0
    return TileChoice(height, vectors, lanes, pack, pack_rows, depth, chunk, side, rows_first, group)


def _chunk_tiles(tiles: int, most: int, least: int, items: int, cores: int) -> int:
    """Tiles in each of equal chunks: `least` to `most`, few enough that all cores end about together, each chunk being
    done `items` times."""
    size = -(-tiles // -(-tiles // most))
    while size > least and not _balanced(-(-tiles // size) * items, cores):
        size -= 1
    return size


def _balanced(items: int, cores: int) -> bool:
    return items >= WAITING * cores and items >= BALANCE * cores * -(-items // cores)


def group_axis(stage: Stage, part: Roles, group: int) -> Axis | None:
    """The reduced axis that an instruction may sum `group` steps of: the rows' operand is contiguous along it, the
    other one can be copied."""
    if _panel_of(stage, part) is None:
        return None
    rows = [load for load in accesses(stage, finish=False) if load.stride(part.row)]
    return next((k for k in stage.reduce if k.extent >= group and all(load.stride(k) == 1 for load in rows)), None)


def block_depth(stage: Stage, group: int = 1) -> int:
    """Steps of the longest reduced axis in one block, in blocks of equal size; 0 if the sums are short enough."""
    deepest = max(stage.reduce, key=lambda k: k.extent)
    others = math.prod(k.extent for k in stage.reduce) // max(deepest.extent, 1)
    blocks = -(-deepest.extent // max(1, group * DEPTH // max(others, 1)))
    return 0 if blocks <= 1 else -(-deepest.extent // (blocks * STEP)) * STEP


def _far_apart(stage: Stage, part: Roles) -> bool:
    """Whether the rows' operand jumps along every reduced axis, so that each step takes another page and line."""
    name = _rows_of(stage, part)
    found = [a for a in accesses(stage, finish=False) if a.buffer.name == name]
    return bool(found) and all(abs(a.stride(k) or 0) * BYTES[a.buffer.dtype] >= FAR
                               for a in found for k in stage.reduce)


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
    total, kinds = 0.0, 0
    for h, how_often in heights:
        for w, and_often in widths:
            if h and w and how_often and and_often:
                total += how_often * and_often * (max(h * w, h + w, LATENCY) + STEP_OVERHEAD + LOAD_COST * (h + w))
                kinds += 1
    return total * (1 + KIND_COST * kinds)


def apply_tile(s: Schedule, stage: Stage, number: int, tile: TileChoice) -> Schedule:
    """Lay out the loops: outer axes, blocks, tiles, reduced axes, the tile itself."""
    part, level = roles(stage), 1 + number
    row, column = part.row.name, part.column.name
    others = [a.name for a in stage.axes if a.name not in (row, column)]
    reduce = [leaf.name for leaf in s.loops[level] if leaf.reduce]
    if part.along is not None:
        k = part.along.name
        s = s.split(row, tile.height).split(column, tile.vectors).split(k, tile.lanes)
        serial = [n for n in reduce if n != k]
        s = s.reorder(*others, f"{column}_o", f"{row}_o", *serial, f"{k}_o", f"{row}_i", f"{column}_i", f"{k}_i")
        return s.unroll(f"{row}_i").unroll(f"{column}_i").vectorize(f"{k}_i")
    chunks, tiles, blocks, width = [], f"{row}_o", [], tile.vectors * tile.lanes
    if tile.chunk:
        s = s.split(row, tile.chunk, f"{row}_c", f"{row}_t").split(f"{row}_t", tile.height, tiles, f"{row}_i")
        chunks = [f"{row}_c"]
    else:
        s = s.split(row, tile.height)
    outer_columns = [f"{column}_c"] if tile.panels > 1 and blocks_of(stage, tile) and not tile.rows_first else []
    if outer_columns:
        s = s.split(column, tile.panels * width, f"{column}_c", f"{column}_t")
    s = s.split(f"{column}_t" if outer_columns else column, width, f"{column}_o", f"{column}_i")
    s = s.split(f"{column}_i", tile.lanes, f"{column}_u", f"{column}_v")
    if blocks_of(stage, tile):
        deepest = max(stage.reduce, key=lambda k: k.extent).name
        s = s.split(deepest, tile.depth)
        blocks = [f"{deepest}_o"]
        reduce = [f"{deepest}_i" if name == deepest else name for name in reduce]
    if tile.rows_first:
        outer = [*chunks, *blocks, tiles, f"{column}_o"]
    elif outer_columns:
        outer = [*outer_columns, *chunks, *blocks, f"{column}_o", tiles]
    else:
        outer = [f"{column}_o", *chunks, *blocks, tiles]
    grouped = group_axis(stage, part, tile.group) if tile.group > 1 and tile.pack and not tile.rows_first else None
    inner = [f"{row}_i", f"{column}_u", f"{column}_v"]
    if grouped is not None:
        name = next(n for n in reduce if n in (grouped.name, f"{grouped.name}_i"))
        s = s.split(name, tile.group, f"{grouped.name}_g", f"{grouped.name}_q").tensorize(f"{grouped.name}_q")
        reduce = [f"{grouped.name}_g" if n == name else n for n in reduce]
        inner.append(f"{grouped.name}_q")
    s = s.reorder(*others, *outer, *reduce, *inner)
    s = s.unroll(f"{row}_i").unroll(f"{column}_u").vectorize(f"{column}_v")
    before = outer[:outer.index(tiles)]
    if before and tile.pack_rows and (rows := _rows_of(stage, part)) is not None:
        s = s.cache_read(rows, blocks[0] if outer_columns else before[-1])
    if before and tile.pack and not tile.rows_first and (panel := _panel_of(stage, part)) is not None:
        s = s.cache_read(panel, before[-1])
    return s


def blocks_of(stage: Stage, tile: TileChoice) -> bool:
    """Whether the reduced axis is cut into blocks."""
    return 0 < tile.depth < max(k.extent for k in stage.reduce)


def tile_parallel(stage: Stage, tile: TileChoice) -> int:
    """How many outer loops may run in parallel: those outside of the blocks of the reduced axis and of the copies."""
    others = len(stage.axes) - 2
    if tile.rows_first:
        return others + (1 if tile.chunk else 2)
    return others + (2 if tile.chunk or not blocks_of(stage, tile) else 1)


def operands(stage: Stage) -> tuple[str | None, str | None]:
    """The operands that may be copied: the one with the vectors, and the rows'."""
    part = roles(stage)
    return _panel_of(stage, part), _rows_of(stage, part)


def _panel_of(stage: Stage, part: Roles) -> str | None:
    """The operand that runs along the columns and not along the rows, if it is read at one place."""
    return _only_along(stage, part.column, part.row)


def _rows_of(stage: Stage, part: Roles) -> str | None:
    return _only_along(stage, part.row, part.column)


def _only_along(stage: Stage, one: Axis, other: Axis) -> str | None:
    loads = accesses(stage, finish=False)
    found = [load for load in loads if load.stride(one) and load.stride(other) == 0]
    if len(found) != 1 or sum(load.buffer.name == found[0].buffer.name for load in loads) != 1:
        return None
    return found[0].buffer.name
