"""Schedules of stencils: reductions over small windows that slide along one or two axes and overlap (depthwise
convolutions, image filters, pooling).

What holds here:
- Vectors run along an axis that the result shares with what it reads: channels, or the last axis of an image. A tile,
  some neighbours along the sliding axes times vectors, stays in registers.
- The loops over the window are unrolled and skewed by the tile, as far as its body does not grow too long: each vector
  that the windows of a tile cover is read once and goes into all of them.
- Tiles follow one another along the vectors, so that lines of the cache are used up soon after they came. Weights that
  follow the vectors are read by each tile anew, which costs less than to walk over the image once for each vector.
- Sizes follow from shape, strides and the machine by counting multiply-adds, loads and lines of the cache, rests
  included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Axis, Stage
from tracedsl.schedule.access import Access, accesses, contiguous, heavy_calls, widest
from tracedsl.schedule.primitives import Schedule

if TYPE_CHECKING:
    from tracedsl.schedule.default import MachineFacts

WINDOW = 128         # steps of the largest window
SLOPE = 4            # steps of the operand from one window to the next, at most
HEIGHTS = (1, 2)     # rows of a tile; more have more borders to look after than they save loads, measured on Zen 4
BODY = 256           # multiply-adds in the body of a tile: code to make and to fetch
SPARE = 4            # registers for what is read beside weights that stay
LINE_COST = 1.5      # a line of the cache under a vector, in multiply-adds: most come from the second cache
FAR = 1024           # bytes between neighbours from which their lines push one another out of the first cache ...
FARTHEST = 3         # ... so that runs of vectors cost up to as many lines more
TILE_COST = 6        # what a tile costs besides
KIND_COST = 0.05     # ... and each further kind of tile, as a share
LATENCY = 8          # independent sums that keep the multiply-add units busy


@dataclass(frozen=True)
class Slide:
    """An axis of the result and the reduced one that walks its windows, which begin `slope` steps apart."""

    axis: Axis
    window: Axis
    slope: int


@dataclass(frozen=True)
class Roles:
    """`column` has the vectors; `slides` are the innermost one or two, outer before inner; `still`: reduced axes that
    nothing slides along; `apart`: bytes from one step of the innermost window to the next; `weighted`: whether there is
    a second operand, and `follows`: whether it runs along the vectors too."""

    column: Axis
    slides: tuple[Slide, ...]
    others: tuple[Axis, ...]
    still: tuple[Axis, ...]
    apart: int
    weighted: bool
    follows: bool

    @property
    def windows(self) -> tuple[Axis, ...]:
        """The reduced axes in the order in which they are worth unrolling."""
        return (*(slide.window for slide in reversed(self.slides)), *reversed(self.still))


@dataclass(frozen=True)
class StencilChoice:
    """What the tuner may change: the tile, in steps of the two sliding axes (outer, inner) and vectors; elements of a
    vector; how many of `Roles.windows` are unrolled."""

    height: int
    width: int
    vectors: int
    lanes: int
    unrolled: int


def roles(stage: Stage) -> Roles | None:
    """What the axes are for; None if the stage is not of this kind."""
    loads = accesses(stage, finish=False)
    if stage.combine is None or stage.scan or not 1 <= len(loads) <= 2 or heavy_calls(stage) \
            or any(load.address is None for load in loads) or math.prod(k.extent for k in stage.reduce) > WINDOW:
        return None
    store = accesses(stage)[-1]
    image = max(loads, key=lambda load: sum(bool(load.stride(a)) for a in stage.axes))
    columns = [a for a in stage.axes if contiguous(loads, a) and image.stride(a) == store.stride(a) == 1]
    if not columns or not all(image.stride(a) for a in stage.axes):
        return None
    column = columns[-1]
    others = [load for load in loads if load is not image]
    slides = [slide for a in stage.axes if a is not column and not any(load.stride(a) for load in others)
              and (slide := _slide(image, a, stage.reduce)) is not None][-2:]
    if not slides or len({slide.window for slide in slides}) < len(slides):
        return None
    sliding = {slide.axis for slide in slides} | {slide.window for slide in slides}
    return Roles(column, tuple(slides), tuple(a for a in stage.axes if a is not column and a not in sliding),
                 tuple(k for k in stage.reduce if k not in sliding),
                 (image.stride(slides[-1].window) or 0) * BYTES[image.buffer.dtype], bool(others),
                 any(load.stride(column) for load in others))


def _slide(image: Access, axis: Axis, reduce: Sequence[Axis]) -> Slide | None:
    """How the windows of an axis lie, if they overlap."""
    for window in reduce:
        step, by = image.stride(axis), image.stride(window)
        if step and by and step % by == 0 and 0 < step // by <= min(SLOPE, window.extent - 1):
            return Slide(axis, window, step // by)
    return None


def is_stencil(stage: Stage) -> bool:
    """Whether this module schedules the stage."""
    return roles(stage) is not None


def default_stencil(stage: Stage, machine: MachineFacts) -> StencilChoice:
    part = roles(stage)
    assert part is not None
    lanes = min(max(1, machine.vector_bytes // widest(stage)), part.column.extent)
    return min(_tiles(part, lanes, machine.vector_registers), key=lambda tile: _cost(part, tile),
               default=StencilChoice(1, 1, 1, lanes, 0))


def _tiles(part: Roles, lanes: int, registers: int) -> Iterator[StencilChoice]:
    """The tiles that fit."""
    high = part.slides[-2].axis.extent if len(part.slides) > 1 else 1
    for unrolled in range(len(part.windows), 0, -1):
        for height in (h for h in HEIGHTS if h <= high):
            for width in range(1, min(part.slides[-1].axis.extent, registers) + 1):
                for vectors in (1, 2, 3, 4):
                    tile = StencilChoice(height, width, vectors, lanes, unrolled)
                    body = height * width * vectors * _taps(part, unrolled)
                    if _fits(part, tile, registers) and body <= BODY and \
                            (vectors - 1) * lanes < part.column.extent:
                        yield tile


def _taps(part: Roles, unrolled: int) -> int:
    return math.prod(k.extent for k in part.windows[:unrolled])


def _fits(part: Roles, tile: StencilChoice, registers: int) -> bool:
    """Whether the sums, the weights that go into them from one row of the image, and what is read fit."""
    weights, spare = _taps(part, tile.unrolled) if part.weighted else 0, SPARE
    if part.follows:
        extents = {slide.window: min(tile.height, -(-slide.window.extent // slide.slope)) for slide in part.slides[:-1]}
        rows = [extents.get(k, 1) for k in part.windows[1:tile.unrolled]]
        weights, spare = part.windows[0].extent * math.prod(rows) * tile.vectors, tile.vectors
    return tile.height * tile.width * tile.vectors + weights + spare <= registers


def _cost(part: Roles, tile: StencilChoice) -> float:
    """Instructions for the whole result."""
    inner = part.slides[-1]
    high = part.slides[-2].axis.extent if len(part.slides) > 1 else 1
    many = -(-part.column.extent // (tile.vectors * tile.lanes))
    pieces = [(a, b, m * n) for a, m in ((tile.height, high // tile.height), (high % tile.height, 1))
              for b, n in ((tile.width, inner.axis.extent // tile.width), (inner.axis.extent % tile.width, 1))
              if a and b and m and n]
    steps = math.prod(k.extent for k in part.windows[tile.unrolled:])
    total = sum(n * (steps * _step(part, tile, a, b) + TILE_COST) for a, b, n in pieces) * many
    return total * (1 + KIND_COST * len(pieces))


def _step(part: Roles, tile: StencilChoice, height: int, width: int) -> float:
    """Instructions of a tile for one step of the windows that are not unrolled."""
    taps, sums = _taps(part, tile.unrolled), height * width * tile.vectors
    spots = math.prod(k.extent for k in part.still if k in part.windows[:tile.unrolled])
    for slide, size in zip(reversed(part.slides), (width, height)):
        unrolled = slide.window in part.windows[:tile.unrolled]
        spots *= slide.slope * (size - 1) + slide.window.extent if unrolled else size
    weights = 0 if not part.weighted else taps * tile.vectors if part.follows else \
        0 if tile.unrolled == len(part.windows) else taps
    lines = spots * (tile.vectors + 1 + min(part.apart / FAR, FARTHEST))
    return max(sums * taps, spots * tile.vectors + weights, LATENCY * taps) + LINE_COST * lines


def apply_stencil(s: Schedule, stage: Stage, number: int, how: StencilChoice) -> tuple[Schedule, int]:
    """Lay out the loops; also gives how many outer loops may run in parallel."""
    part, level = roles(stage), 1 + number
    assert part is not None
    column, rows = part.column.name, [slide.axis.name for slide in part.slides]
    s = s.split(column, how.vectors * how.lanes).split(f"{column}_i", how.lanes, f"{column}_u", f"{column}_v")
    for row, size in zip(rows, (how.height, how.width)[-len(rows):]):
        s = s.split(row, size)
    unrolled = [k.name for k in part.windows[:how.unrolled]]
    reduce = [leaf.name for leaf in s.loops[level] if leaf.reduce]
    serial = [name for name in reduce if name not in unrolled]
    windows = [name for name in reduce if name in unrolled]
    outer = [f"{row}_o" for row in rows]
    front = [*(a.name for a in part.others), *outer]
    tile = [*(f"{row}_i" for row in rows), f"{column}_u"]
    s = s.reorder(*front, f"{column}_o", *serial, *windows, *tile, f"{column}_v")
    for name in tile:
        s = s.unroll(name)
    s = s.vectorize(f"{column}_v")
    for slide in part.slides:
        if (window := slide.window.name) in unrolled:
            s = s.skew(window, f"{slide.axis.name}_i", slide.slope).unroll(f"{window}_s")
    for k in part.still:
        if k.name in unrolled:
            s = s.unroll(k.name)
    return s, len(front) + 1


def stencil_space(stage: Stage, machine: MachineFacts) -> dict[str, tuple[int, ...]]:
    """The choices for the tuner; the first value of each is the default's."""
    best, part = default_stencil(stage, machine), roles(stage)
    assert part is not None
    around = {"tall": (1, 2, 3, 4), "wide": (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14), "side": (1, 2, 3, 4),
              "unrolled": tuple(range(len(part.windows) + 1))}
    first = {"tall": best.height, "wide": best.width, "side": best.vectors, "unrolled": best.unrolled}
    return {name: tuple(dict.fromkeys((first[name], *values))) for name, values in around.items()}


def stencil_from_point(stage: Stage, machine: MachineFacts, point: dict[str, int]) -> StencilChoice:
    """The choice that a point of `stencil_space` stands for."""
    return StencilChoice(point["tall"], point["wide"], point["side"], default_stencil(stage, machine).lanes,
                         point["unrolled"])


def stencil_refusal(stage: Stage, machine: MachineFacts, point: dict[str, int]) -> str:
    """Why there is no such schedule; empty if nothing is known against it."""
    part, tile = roles(stage), stencil_from_point(stage, machine, point)
    assert part is not None
    if _fits(part, tile, machine.vector_registers):
        return ""
    return (f"a tile of {tile.height} x {tile.width} x {tile.vectors} vectors does not fit "
            f"{machine.vector_registers} registers")
