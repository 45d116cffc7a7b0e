"""Loops of many schedules of one stage as arrays, for cost models: no schedule object is made for a point.

What holds here: row n of the arrays are the loops of point n, outermost first. Loops of one step stand for those that a
point does not have. The loops of contractions and convolutions follow from the choices by arithmetic, as `apply_tile`
and `apply_window` lay them out (tests hold the two against each other); those of other tasks are read off their
schedules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracedsl.ir.expr import Stage
from tracedsl.schedule.contraction import roles
from tracedsl.schedule.convolution import roles as window_roles
from tracedsl.schedule.default import draft
from tracedsl.schedule.primitives import Leaf, Schedule
from tracedsl.schedule.space import Point, ScheduleSpace, Tiles, Windows

Array = np.ndarray[Any, Any]

KINDS = {"serial": 0, "parallel": 1, "vector": 2, "unroll": 3, "tensor": 4}


@dataclass(frozen=True)
class Levels:
    """`root` (an index into `roots`), `extent`, `stride`, `kind` (a value of `KINDS`): (points, loops). `roots`: name,
    extent, whether it is reduced over. `copied`: for each buffer that some point copies, at which loop (n, its number;
    -1: not copied). `stage`: what the loops are of."""

    stage: Stage
    roots: tuple[tuple[str, int, bool], ...]
    root: Array
    extent: Array
    stride: Array
    kind: Array
    copied: Mapping[str, Array]


class _Table:
    """Loops in the making: each a column, with the place where it stands at each point."""

    def __init__(self, stage: Stage, points: int) -> None:
        self.stage, self.points = stage, points
        self.roots = tuple((a.name, a.extent, a.reduce) for a in (*stage.axes, *stage.reduce))
        self._names = [name for name, _, _ in self.roots]
        self._rows: list[tuple[int, Array, Array, int, Array, Array]] = []

    def add(self, root: str, extent: Any, stride: Any, place: Any, kind: str = "serial", there: Any = True) -> int:
        """A loop that stands at `place` (smaller: further out) where it is `there`; gives its number."""
        full = [np.broadcast_to(np.asarray(v), (self.points,)) for v in (extent, stride, place, there)]
        self._rows.append((self._names.index(root), *full[:2], KINDS[kind], *full[2:]))  # type: ignore[arg-type]
        return len(self._rows) - 1

    def done(self, until: Array, most: Array, target: int, copies: Mapping[str, tuple[Array, Array]]) -> Levels:
        """Sort the loops; run the outer ones in parallel as the default does: at most `until` and at most `most`, until
        there are `target` pieces of work, none inside a copy. `copies`: buffer -> (where, number of the loop)."""
        place = np.stack([row[4] for row in self._rows], 1)
        order = np.argsort(place, axis=1, kind="stable")

        def sort(columns: list[Any]) -> Array:
            full = np.stack([np.broadcast_to(np.asarray(c), (self.points,)) for c in columns], 1)
            return np.take_along_axis(full, order, 1)

        root, extent, stride, kind, there = (sort([row[n] for row in self._rows]) for n in (0, 1, 2, 3, 5))
        position = np.argsort(order, axis=1, kind="stable")     # loop -> where it stands now
        copied = {name: np.where(where, position[np.arange(self.points), loop], -1)
                  for name, (where, loop) in copies.items()}
        kind = kind.copy()
        reduced = np.array([reduce for _, _, reduce in self.roots])[root]
        going, steps = np.ones(self.points, bool), np.ones(self.points)
        seen = np.zeros(self.points, int)
        for at in range(kind.shape[1]):
            here = there[:, at]
            plain = (kind[:, at] == KINDS["serial"]) & ~reduced[:, at]
            going &= ~here | ((seen < np.minimum(until, most)) & plain & (steps < target))
            kind[:, at] = np.where(going & here, KINDS["parallel"], kind[:, at])
            steps = np.where(going & here, steps * extent[:, at], steps)
            seen += here
            for spot in copied.values():
                going &= spot != at
        return Levels(self.stage, self.roots, root, extent, stride, kind, copied)


def levels(space: ScheduleSpace, points: Sequence[Point]) -> list[Levels]:
    """The loops of each point, stage by stage: of contractions and convolutions the main stage alone, else all."""
    family = space.family
    whole = [space.whole(point) for point in points]
    if isinstance(family, Tiles) and family.part.along is None:
        return [_tiles(space, family, whole)]
    if isinstance(family, Windows):
        return [_windows(space, family, whole)]
    return _read_off(space, whole)


def _cut(extent: Any, factor: Any) -> tuple[Array, Array]:
    """What `split` makes of an axis: steps outside and inside."""
    inside = np.minimum(factor, np.maximum(extent, 1))
    return -(-np.asarray(extent) // inside), inside


def _tiles(space: ScheduleSpace, family: Tiles, points: Sequence[Point]) -> Levels:
    made = draft(space.task, space.machine)
    stage = made.task.stages[space.task.stages.index(family.stage)]
    part, many = roles(stage), len(points)
    chosen = [family.tile(point) for point in points]

    def column(name: str) -> Array:
        return np.array([getattr(tile, name) for tile in chosen])

    h, w, lanes = column("height"), column("vectors") * column("lanes"), column("lanes")
    rows_first, depth, chunk, panels = (column(n) for n in ("rows_first", "depth", "chunk", "panels"))
    deepest = max(stage.reduce, key=lambda k: k.extent)
    blocked = (depth > 0) & (depth < deepest.extent)
    side = (panels > 1) & blocked & ~rows_first
    table = _Table(stage, many)
    others = [a for a in stage.axes if a not in (part.row, part.column)]
    for n, axis in enumerate(others):
        table.add(axis.name, axis.extent, 1, n - len(others))
    row, col = part.row, part.column
    chunks, in_chunk = _cut(row.extent, np.where(chunk > 0, chunk, row.extent))
    tiles, high = _cut(in_chunk, h)
    row_c = table.add(row.name, chunks, np.where(chunk > 0, np.minimum(chunk, row.extent), row.extent), 1,
                      there=chunk > 0)
    table.add(row.name, tiles, high, np.where(rows_first, 3, 4))
    strips, in_strip = _cut(col.extent, np.where(side, panels * w, col.extent))
    columns, wide = _cut(in_strip, w)
    vectors, lane = _cut(wide, lanes)
    table.add(col.name, strips, in_strip, 0, there=side)
    col_o = table.add(col.name, columns, wide, np.where(rows_first, 4, np.where(side, 3, 0)))
    blocks, deep = _cut(deepest.extent, np.where(blocked, depth, deepest.extent))
    k_o = table.add(deepest.name, blocks, deep, 2, there=blocked)
    for n, k in enumerate(stage.reduce):
        table.add(k.name, deep if k is deepest else k.extent, 1, 5 + n)
    table.add(row.name, high, 1, 20, "unroll")
    table.add(col.name, vectors, lane, 21, "unroll")
    table.add(col.name, lane, 1, 22, "vector")
    fixed = len(others) + np.where(rows_first, np.where(chunk > 0, 1, 2), np.where((chunk > 0) | ~blocked, 2, 1))
    most = np.array([int(p.get("parallel_loops", 3)) for p in points])
    return table.done(fixed, most, 16 * space.machine.cores,
                      _tile_copies(stage, column, rows_first, (col_o, row_c, k_o), (chunk > 0, blocked, side)))


def _tile_copies(stage: Stage, column: Any, rows_first: Array, loops: tuple[int, int, int],
                 there: tuple[Array, Array, Array]) -> dict[str, tuple[Array, Array]]:
    """Which operand is copied where: as the end of `apply_tile` says."""
    from tracedsl.schedule.contraction import operands

    col_o, row_c, k_o = loops
    chunked, blocked, side = there
    inner = np.where(blocked, k_o, row_c)       # the last of chunks and blocks
    last = np.where(rows_first, inner, np.where(side, col_o, np.where(chunked | blocked, inner, col_o)))
    some = ~rows_first | chunked | blocked
    panel, rows = operands(stage)
    copies = {}
    if panel is not None:
        copies[panel] = (column("pack") & ~rows_first, last)
    if rows is not None:
        copies[rows] = (column("pack_rows") & some, np.where(side, k_o, last))
    return copies


def _windows(space: ScheduleSpace, family: Windows, points: Sequence[Point]) -> Levels:
    made = draft(space.task, space.machine)
    stage = made.task.stages[space.task.stages.index(family.stage)]
    part, many = window_roles(stage), len(points)
    assert part is not None
    chosen = [family.window(point) for point in points]

    def column(name: str) -> Array:
        return np.array([getattr(window, name) for window in chosen])

    table, pack, lanes, depth = _Table(stage, many), column("pack"), column("lanes"), column("depth")
    for n, axis in enumerate(part.others):
        table.add(axis.name, axis.extent, 1, n - len(part.others))
    columns, wide = _cut(part.column.extent, column("vectors") * lanes)
    vectors, lane = _cut(wide, lanes)
    col_o = table.add(part.column.name, columns, wide, np.where(pack, 0, 1))
    chunked, down_c = np.zeros(many, bool), col_o
    fixed = np.full(many, len(part.others) + 1)
    if len(part.rows) > 1:
        down = part.rows[0]
        tiles, high = _cut(down.extent, column("height"))
        chunked = column("chunk") > column("height")
        chunks, in_chunk = _cut(tiles, np.where(chunked, column("chunk") // column("height"), tiles))
        down_c = table.add(down.name, chunks, in_chunk * high, np.where(pack, 1, 0), there=chunked)
        table.add(down.name, in_chunk, high, np.where(pack | chunked, 3, 0))
        table.add(down.name, high, 1, 20, "unroll")
        fixed = len(part.others) + np.where(pack, 1 + chunked, 2)
    across, width = _cut(part.rows[-1].extent, column("width"))
    table.add(part.rows[-1].name, across, width, 4)
    deepest = max(stage.reduce, key=lambda k: k.extent)
    blocked = (depth > 0) & (depth < deepest.extent)
    blocks, deep = _cut(deepest.extent, np.where(blocked, depth, deepest.extent))
    k_o = table.add(deepest.name, blocks, deep, 2, there=blocked)
    orders = [[window.order.index(str(n)) if window.order else n for n in range(len(stage.reduce))]
              for window in chosen]
    for n, k in enumerate(stage.reduce):
        table.add(k.name, deep if k is deepest else k.extent, 1, 5 + np.array([order[n] for order in orders]))
    table.add(part.rows[-1].name, width, 1, 21, "unroll")
    table.add(part.column.name, vectors, lane, 22, "unroll")
    table.add(part.column.name, lane, 1, 23, "vector")
    copies = {}
    if part.weights is not None:
        at = np.where(blocked, k_o, np.where(chunked, down_c, col_o))
        copies[part.weights.buffer.name] = (pack, at)
    most = np.array([int(p.get("parallel_loops", 3)) for p in points])
    return table.done(fixed, most, 4 * space.machine.cores, copies)


def _read_off(space: ScheduleSpace, points: Sequence[Point]) -> list[Levels]:
    """The loops of schedules that are made; equal choices make one."""
    known: dict[str, tuple[Stage, ...]] = {}
    made: dict[str, Schedule] = {}
    names = []
    for point in points:
        names.append(name := str(sorted(point.items())))
        if name not in made:
            found = draft(space.task, space.machine, space.family.meaning(point))
            made[name], known[name] = found.schedule, found.task.stages
    stages = known[names[0]] if names else ()
    result = []
    for number in range(len(stages)):
        stage = stages[number]
        roots = tuple((a.name, a.extent, a.reduce) for a in (*stage.axes, *stage.reduce))
        places = {name: n for n, (name, _, _) in enumerate(roots)}
        rows = [[leaf for leaf in (*made[name].shared, *made[name].leaves(number)) if leaf.root in places]
                for name in names]
        depth = max((len(row) for row in rows), default=0)
        full = [[*(_NOTHING for _ in range(depth - len(row))), *row] for row in rows]
        def column(what: str, of: Sequence[Sequence[Leaf]] = full) -> Array:
            return np.array([[getattr(leaf, what) for leaf in row] for row in of])

        result.append(Levels(
            stage, roots, np.array([[places.get(leaf.root, 0) for leaf in row] for row in full]), column("extent"),
            column("stride"), np.array([[KINDS[leaf.kind] for leaf in row] for row in full]), {}))
    return result


_NOTHING = Leaf("", "", 1)
