"""How a stage is cut for the scratchpads: a `Tile`, and the schedule that says the same.

What holds here: a tile is read from the schedule alone, so that a schedule from the records, from the tuner or from a
hint gives the instructions that it says. The leaves outside of the virtual threads are the loops over tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from tracedsl.hw.fpga.compile.boxes import Ranges
from tracedsl.hw.fpga.compile.work import Work
from tracedsl.ir.expr import Axis, Task
from tracedsl.schedule.primitives import Schedule, ScheduleError


@dataclass(frozen=True)
class Tile:
    """`sizes`: steps of each axis in a tile (blocks along lanes); `order`: the axes whose tiles are walked, outermost
    first, those of the reduction last; `threads`: virtual threads, each with its own part of the scratchpads."""

    sizes: Mapping[Axis, int]
    order: tuple[Axis, ...]
    threads: int = 2

    def outer(self, work: Work, block: int) -> Iterator[Ranges]:
        """The tiles of the result, in order; along the axes of the reduction the whole."""
        return self._walk(work, work.spatial, {axis: (0, work.extent(axis, block)) for axis in work.reduce}, block)

    def chunks(self, work: Work, ranges: Ranges, block: int) -> Iterator[Ranges]:
        """The parts of a tile's reduction."""
        return self._walk(work, work.reduce, ranges, block)

    def _walk(self, work: Work, axes: tuple[Axis, ...], others: Ranges, block: int) -> Iterator[Ranges]:
        order = [axis for axis in self.order if axis in axes] + [axis for axis in axes if axis not in self.order]
        parts = []
        for axis in order:
            extent, size = work.extent(axis, block), self.sizes[axis]
            parts.append([(begin, min(size, extent - begin)) for begin in range(0, extent, size)])
        for chosen in product(*parts):
            yield {**others, **dict(zip(order, chosen))}

    def largest(self, work: Work, block: int) -> Ranges:
        """The first tile: none is larger along any axis."""
        return {axis: (0, min(size, work.extent(axis, block))) for axis, size in self.sizes.items()}


def schedule_of(task: Task, work: Work, tile: Tile, block: int) -> Schedule:
    """The tile as loops: tiles outside, lanes innermost and tensorized."""
    made = Schedule.of(task)
    inside: dict[Axis, list[str]] = {}
    lanes: list[str] = []
    for axis in (*work.spatial, *work.reduce):
        in_lanes = axis in (work.lane, work.inner)
        name, size = axis.name, tile.sizes[axis] * (block if in_lanes else 1)
        inside[axis] = [name]
        if axis in tile.order:
            made = made.split(name, size)
            inside[axis] = [f"{name}_i"]
        if in_lanes:
            made = made.split(inside[axis][0], block, f"{name}_b", f"{name}_l")
            made = made.vectorize(f"{name}_l") if axis is work.lane else made.tensorize(f"{name}_l")
            inside[axis] = [f"{name}_b"]
            lanes.append(f"{name}_l")
    outer = [f"{axis.name}_o" for axis in tile.order]
    inner = [name for names in inside.values() for name in names]
    made = made.reorder(*outer, *inner, *lanes) if inner else made
    return made.virtual(inner[0], tile.threads) if inner else made


def tile_of(work: Work, schedule: Schedule, block: int) -> Tile:
    """The tile that a schedule says. Raises ScheduleError (S004) if the accelerator cannot run such loops."""
    axes = {axis.name: axis for axis in (*work.spatial, *work.reduce)}
    leaves = schedule.leaves(0)
    at = next((n for n, leaf in enumerate(leaves) if leaf.name == schedule.virtual_at), 0)
    sizes = {axis: work.extent(axis, block) for axis in axes.values()}
    order = []
    for leaf in leaves[:at]:
        axis = axes.get(leaf.root)
        unit = block if axis in (work.lane, work.inner) else 1
        if axis is None or axis in order or leaf.stride % unit:
            raise ScheduleError("S004", f"{leaf.name} is no loop over tiles",
                                why=f"the accelerator cuts each axis once, along lanes by whole blocks of {block}",
                                hint="split each axis at most once outside of the virtual threads")
        sizes[axis] = leaf.stride // unit
        order.append(axis)
    return Tile(sizes, tuple(order), schedule.threads)
