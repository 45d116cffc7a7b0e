"""Which tile: the choices, the one that a task gets without any trial, and what a choice is guessed to cost.

What holds here: the guess counts cycles of the array and of the memory's port for whole tiles; the timing model, which
is exact, is what a search measures with. Choices follow from shapes and the configuration alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

from tracedsl.hw.fpga.compile.boxes import box
from tracedsl.hw.fpga.compile.emit import fits
from tracedsl.hw.fpga.compile.loops import Loop, overview
from tracedsl.hw.fpga.compile.tile import Tile
from tracedsl.hw.fpga.compile.work import Region, Work
from tracedsl.hw.fpga.config import WORD_BYTES, Config, Dram, FpgaError
from tracedsl.ir.expr import Axis

PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024)  # into so many tiles an axis may be cut
WIDE = 6        # sizes that are tried for an axis
ROW = 8         # cycles that each burst takes beside its beats, where many are short

Space = dict[str, tuple[int, ...]]


def axes_of(work: Work) -> tuple[Axis, ...]:
    return (*work.spatial, *work.reduce)


def sizes_of(work: Work, axis: Axis, block: int) -> tuple[int, ...]:
    """Sizes of a tile along an axis, the whole first: equal parts."""
    extent = work.extent(axis, block)
    return tuple(dict.fromkeys(-(-extent // parts) for parts in PARTS if parts <= extent)) + (
        (1,) if extent > PARTS[-1] else ())


def tile_from(work: Work, point: Mapping[str, Any], block: int) -> Tile:
    """The tile of a point: sizes by the axes' names, and the threads."""
    sizes = {axis: int(point.get(axis.name, work.extent(axis, block))) for axis in axes_of(work)}
    cut = [axis for axis in sizes if sizes[axis] < work.extent(axis, block)]
    order = [axis for axis in (*work.rows, *((work.lane,) if work.lane else ()), *work.reduce) if axis in cut]
    return Tile(sizes, tuple(order), int(point.get("threads", 2)))


def default_tile(work: Work, config: Config, dram: Dram, threads: int = 2) -> Tile:
    """The tile with the least guessed cycles. Raises FpgaError (H068) if not even single steps fit."""
    best: tuple[float, Tile] | None = None
    for sizes in product(*(_few(work, axis, config.block) for axis in axes_of(work))):
        tile = tile_from(work, {**{a.name: n for a, n in zip(axes_of(work), sizes)}, "threads": threads}, config.block)
        if not fits(work, tile, config):
            continue
        cost = guess(work, tile, config, dram)
        if best is None or cost < best[0]:
            best = cost, tile
    if best is None:
        raise FpgaError("H068", f"no tile of {work.stage.name} fits the scratchpads",
                        hint="build the accelerator with deeper ones")
    return best[1]


def _few(work: Work, axis: Axis, block: int) -> tuple[int, ...]:
    """The sizes that the default is chosen from."""
    sizes = sizes_of(work, axis, block)
    if axis in work.taps:
        return tuple(dict.fromkeys((sizes[0], 1)))
    step = max(1, -(-len(sizes) // WIDE))
    return tuple(dict.fromkeys((*sizes[::step], sizes[-1])))


def space(work: Work, config: Config, dram: Dram, threads: int = 2) -> Space:
    """The choices, the default's first."""
    tile = default_tile(work, config, dram, threads)
    made: Space = {}
    for axis in axes_of(work):
        sizes = sizes_of(work, axis, config.block)
        if len(sizes) > 1:
            made[axis.name] = (tile.sizes[axis], *(n for n in sizes if n != tile.sizes[axis]))
    return {**made, "threads": (tile.threads, 1 if tile.threads == 2 else 2)}


def guess(work: Work, tile: Tile, config: Config, dram: Dram) -> float:
    """Cycles, about."""
    block, ranges = config.block, tile.largest(work, config.block)
    result = box(work.out, ranges, block)
    tiles = math.prod(-(-work.extent(a, block) // tile.sizes[a]) for a in work.spatial)
    chunks = math.prod(-(-work.extent(a, block) // tile.sizes[a]) for a in work.reduce) if work.kind != "map" else 0
    part = math.prod(work.extent(a, block) / tile.sizes[a] for a in work.spatial) / tiles
    part_sum = part * math.prod(work.extent(a, block) / tile.sizes[a] for a in work.reduce) / max(chunks, 1)

    words, sums, load = 0, 0, 0
    if work.data is not None:
        data = box(work.data, ranges, block)
        weights = box(work.weights, ranges, block) if work.weights else None
        loops = [Loop(ranges[a][1], result.steps.get(a, 0), data.steps.get(a, 0),
                      weights.steps.get(a, 0) if weights else 0, reduce=a in work.reduce)
                 for a in (*work.reduce, *work.spatial)]
        words, sums = overview(loops)
        load = data.elements * config.beats(work.data.memory)
        if work.weights is not None:
            load += box(work.weights, ranges, block).elements * config.beats(
                "diag" if work.kind == "diag" else work.weights.memory)
    steps = sum(result.elements * (2 if isinstance(s.source, Region) else 1) for s in work.epilogue.steps)
    start = (work.epilogue.start,) if work.epilogue.start else ()
    extra = sum(box(o, ranges, block).elements * config.beats(o.memory)
                for o in dict.fromkeys((*work.epilogue.operands, *start)))
    store = result.elements * config.beats("acc" if work.out.form.format == "wide" else "inp")
    words += 2 + bool(work.weights)
    fetch = words * WORD_BYTES // config.bus_bytes
    compute = tiles * (chunks * sums * part_sum + steps * part)
    port = tiles * (chunks * (load * part_sum + fetch) + (extra + store) * part) * dram.cycles_per_beat
    phases = tiles * (chunks + bool(work.epilogue.operands))
    wait = dram.latency + ROW
    if tile.threads == 1:
        return compute + port + (phases + tiles) * wait
    filling = load + (steps + store) + 3 * wait
    return max(compute, port, phases * wait / 2) + filling + ROW * phases
