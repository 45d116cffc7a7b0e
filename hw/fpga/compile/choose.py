"""Which tile: the choices, the one that a task gets without any trial, and what a choice is guessed to cost.

What holds here: the guess counts cycles of the array and of the memory's port for whole tiles; the timing model, which
is exact, is what a search measures with. Choices follow from shapes and the configuration alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tracedsl.hw.fpga.compile.boxes import Box, box, run_length
from tracedsl.hw.fpga.compile.emit import fits
from tracedsl.hw.fpga.compile.loops import Loop, overview
from tracedsl.hw.fpga.compile.tile import Tile
from tracedsl.hw.fpga.compile.work import Region, Work
from tracedsl.hw.fpga.config import MAX_BURST, WORD_BYTES, Config, Dram, FpgaError
from tracedsl.ir.expr import Axis

PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024)  # into so many tiles an axis may be cut
ROW = 8  # cycles that each burst takes beside its beats, where many are short

GOOD = 4  # tiles of which the timing model says which is the default

Space = dict[str, tuple[int, ...]]
Priced = tuple[float | None, Tile]  # guessed cycles, None if it does not fit


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


def good_tiles(work: Work, config: Config, dram: Dram, threads: int = 2) -> tuple[Tile, ...]:
    """The tiles with the least guessed cycles, at most `GOOD`, that are found by changing one axis after the other:
    from the smallest tile, from one that keeps the sum in one piece, and from one that has all lanes as well. Raises
    FpgaError (H068) if not even single steps fit."""
    block, axes = config.block, axes_of(work)
    smallest = {axis.name: 1 for axis in axes}
    whole = {**smallest, **{axis.name: work.extent(axis, block) for axis in work.reduce}}
    wide = {**whole, **({work.lane.name: work.extent(work.lane, block)} if work.lane else {})}
    seen: dict[tuple[int, ...], Priced] = {}
    for start in (smallest, whole, wide):
        _descend(work, start, seen, lambda tile: guess(work, tile, config, dram) if fits(work, tile, config) else None,
                 lambda point: tile_from(work, {**point, "threads": threads}, block), block)
    fitting = sorted((cost, at) for at, (cost, _) in enumerate(seen.values()) if cost is not None)
    if not fitting:
        raise FpgaError("H068", f"no tile of {work.stage.name} fits the scratchpads",
                        hint="build the accelerator with deeper ones")
    tiles = [tile for _, tile in seen.values()]
    return tuple(tiles[at] for _, at in fitting[:GOOD])


def _descend(work: Work, point: dict[str, int], seen: dict[tuple[int, ...], Priced],
             price: Callable[[Tile], float | None], tile_at: Callable[[dict[str, int]], Tile], block: int) -> None:
    """Walk to the cheapest point that changing single axes leads to; every point on the way is in `seen`."""
    def cost(where: dict[str, int]) -> float:
        key = tuple(where.values())
        if key not in seen:
            tile = tile_at(where)
            seen[key] = price(tile), tile
        found = seen[key][0]
        return math.inf if found is None else found

    best = cost(point)
    moved = best < math.inf
    while moved:
        moved = False
        for axis in axes_of(work):
            for size in sizes_of(work, axis, block):
                other = {**point, axis.name: size}
                if cost(other) < best:
                    best, point, moved = cost(other), other, True


def can_fit(work: Work, config: Config, threads: int) -> bool:
    """Whether there is a tile at all."""
    smallest = {axis.name: 1 for axis in axes_of(work)}
    return fits(work, tile_from(work, {**smallest, "threads": threads}, config.block), config)


def space(work: Work, tile: Tile, block: int) -> Space:
    """The choices, those of the default tile first."""
    made: Space = {}
    for axis in axes_of(work):
        sizes = sizes_of(work, axis, block)
        if len(sizes) > 1:
            made[axis.name] = (tile.sizes[axis], *(n for n in sizes if n != tile.sizes[axis]))
    return {**made, "threads": (tile.threads, 1 if tile.threads == 2 else 2)}


def _moved(part: Box, memory: str, config: Config, dram: Dram) -> float:
    """Cycles to move a box. Short bursts wait for one another: `bursts` of them are under way at a time."""
    beats = config.beats(memory)
    run = min(run_length(part), MAX_BURST // beats)
    return part.elements * max(beats * dram.cycles_per_beat, dram.latency / config.bursts / run)


def guess(work: Work, tile: Tile, config: Config, dram: Dram) -> float:
    """Cycles, about."""
    block, ranges = config.block, tile.largest(work, config.block)
    result = box(work.out, ranges, block)
    tiles = math.prod(-(-work.extent(a, block) // tile.sizes[a]) for a in work.spatial)
    chunks = math.prod(-(-work.extent(a, block) // tile.sizes[a]) for a in work.reduce) if work.kind != "map" else 0
    part = math.prod(work.extent(a, block) / tile.sizes[a] for a in work.spatial) / tiles
    part_sum = part * math.prod(work.extent(a, block) / tile.sizes[a] for a in work.reduce) / max(chunks, 1)

    words, sums, load = 0, 0, 0.0
    if work.data is not None:
        data = box(work.data, ranges, block)
        weights = box(work.weights, ranges, block) if work.weights else None
        loops = [Loop(ranges[a][1], result.steps.get(a, 0), data.steps.get(a, 0),
                      weights.steps.get(a, 0) if weights else 0, reduce=a in work.reduce)
                 for a in (*work.reduce, *work.spatial)]
        words, sums = overview(loops)
        load = _moved(data, work.data.memory, config, dram)
        if weights is not None and work.weights is not None:
            load += _moved(weights, "diag" if work.kind == "diag" else work.weights.memory, config, dram)
    steps = sum(result.elements * (2 if isinstance(s.source, Region) else 1) for s in work.epilogue.steps)
    start = (work.epilogue.start,) if work.epilogue.start else ()
    extra = sum(_moved(box(o, ranges, block), o.memory, config, dram)
                for o in dict.fromkeys((*work.epilogue.operands, *start)))
    store = _moved(result, "acc" if work.out.form.format == "wide" else "inp", config, dram)
    words += 2 + bool(work.weights)
    fetch = words * WORD_BYTES // config.bus_bytes
    compute = tiles * (chunks * sums * part_sum + steps * part)
    port = tiles * (chunks * (load * part_sum + fetch * dram.cycles_per_beat) + (extra + store) * part)
    phases = tiles * (chunks + bool(work.epilogue.operands))
    wait = dram.latency + ROW
    if tile.threads == 1:
        return compute + port + (phases + tiles) * wait
    filling = load + (steps + store) + 3 * wait
    return max(compute, port, phases * wait / 2) + filling + ROW * phases
