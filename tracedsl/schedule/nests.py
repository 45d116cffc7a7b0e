"""`lower_task`: a task and a schedule become a loop nest.

What holds here:
- Loops are emitted leaf by leaf. A split that does not divide is cut (`cuts`): blocks of loops run until the end; tiles
  have a rest with smaller constant extents. There are no masks. Loops of one step disappear.
- A reduction keeps its tile, the vector and unrolled spatial leaves behind the last plain spatial loop, in a register
  buffer: set before, updated inside, stored after. A tile with a rest is several tiles, each with its own loops.
- Reduce leaves outside of a plain spatial loop are *blocks* of the reduction: each block is summed in registers and
  added to `sums`, a local array; the last block goes through `finish` to the output.
- Reduce leaves that are vectors, or unrolled behind the tile, have accumulators of their own (`acc`), combined in a
  fixed order after the loops. A rest with fewer lanes goes straight into the tile's result by a horizontal update.
- A skewed leaf runs over the positions that a tile reads; inside the tile's leaf stand the conditions under which such
  a position is one of its window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import (
    Affine,
    Axis,
    Buffer,
    Call,
    Const,
    Expr,
    Load,
    Position,
    Reduced,
    Stage,
    Task,
    neutral,
    rebuild,
    walk,
)
from tracedsl.ir.loops import Alloc, For, Kind, Nest, Stmt, Store, Update, When
from tracedsl.schedule.cuts import PLAIN, Cut, block_leaves, cuts, tile_cuts
from tracedsl.schedule.fusing import fuse_axes
from tracedsl.schedule.panels import fill_leaves, panel_of, read_once
from tracedsl.schedule.primitives import Copy, Leaf, Schedule, ScheduleError
from tracedsl.schedule.registers import Registers, nested
from tracedsl.schedule.state import Local, Panel, Piece, Place, State, exact_roots
from tracedsl.schedule.sums import Sums

Body = tuple[Stmt, ...]
Inside = Callable[[State], Body]


def lower_task(task: Task, schedule: Schedule) -> Nest:
    """The loop nest of a task under a schedule. Raises `ScheduleError` for a schedule that cannot be carried out."""
    given = {b.name: b for b in task.buffers()}
    for first, second, name in schedule.fused:
        task = fuse_axes(task, first, second, name)
    body = _Emitter(task, schedule).body()
    flops, moved = _estimate(task)
    return Nest(task.name, tuple(given.values()), body, flops, moved)


class _Emitter:
    """Emits one task."""

    def __init__(self, task: Task, schedule: Schedule) -> None:
        self.task, self.schedule = task, schedule
        self.roots = {axis.name: axis for stage in task.stages for axis in (*stage.axes, *stage.reduce)}
        self.copies: dict[str, list[Copy]] = {}
        for copy in schedule.copies:
            self._check_copy(copy)
            self.copies.setdefault(copy.at, []).append(copy)
        self.stage: Stage = task.stages[0]
        self.exact = exact_roots(task, schedule, self.roots)
        self.blocks = block_leaves(schedule)
        self.skewed = [leaf for leaves in schedule.loops for leaf in leaves if leaf.by]

    def _check_copy(self, copy: Copy) -> None:
        """A copy is made by plain loops: outside of vectors and of what is summed in registers, inside one stage."""
        for number in range(len(self.task.stages)):
            leaves = self.schedule.leaves(number)
            outer = [*self.schedule.shared, *leaves[:_inner_start(leaves)]]
            spots = [at for at, leaf in enumerate(outer) if leaf.name == copy.at and leaf not in self.schedule.shared]
            if spots and all(leaf.kind != "vector" for leaf in outer[:spots[0] + 1]):
                return
        raise ScheduleError("S004", f"{copy.buffer} cannot be cached at {copy.at}",
                            why="a copy is made outside of vector loops and reductions, by one stage",
                            hint="cache it at an outer axis of the stage")

    # -- loops --

    def loops(self, leaves: Sequence[Leaf], state: State, inside: Inside) -> Body:
        """The loops over `leaves`; leaves that have an axis in the state already (tiles) get exactly that loop."""
        if not leaves:
            return inside(state)
        leaf, rest = leaves[0], leaves[1:]

        def deeper(now: State) -> Body:
            return self._with_copies(leaf, now, lambda later: self.loops(rest, later, inside))

        if leaf.name in state.axes:
            return (For(state.axes[leaf.name], leaf.kind, _when(self._in_window(leaf, state), deeper(state))),)
        done: list[Stmt] = []
        for cut in self._cuts(leaf, state):
            body = deeper(cut.state)
            kind = leaf.kind if cut.until is None else "serial"      # what ends early is one piece of parallel work
            done += _when(cut.when, (For(cut.axis, kind, body, cut.until),) if cut.axis is not None else body)
        return tuple(done)

    def _in_window(self, tile: Leaf, state: State) -> list[Affine]:
        """What is not negative where the positions of the leaves that are skewed by a tile's leaf are of its window."""
        places = [(state.places[leaf.root].position, self.roots[leaf.root].extent) for leaf in self.skewed
                  if leaf.by == tile.name and leaf.name in state.axes]
        return [bound for position, extent in places for bound in (position, position * -1 + (extent - 1))]

    def _skewed(self, leaf: Leaf, state: State) -> Cut:
        """The loop over the positions that the windows of a tile read together, as long as this tile is."""
        tile = state.axes.get(leaf.by)
        if leaf.by not in {other.name for other in self.schedule.leaves(self.task.stages.index(self.stage))
                           if other.kind == "unroll"}:
            raise ScheduleError("S004", f"{leaf.name} is skewed by {leaf.by}, which is no unrolled loop of the tile",
                                hint=f"unroll {leaf.by}, behind the last plain loop")
        last = leaf.slope * (tile.extent - 1) if tile else 0
        axis = Axis(leaf.name, self.roots[leaf.root].extent + last, True)
        position = Affine.of(axis) + (Affine.of(tile, -leaf.slope) if tile else Affine())
        return Cut(axis, state.inside(leaf, axis, Place(position, 1)))

    def _cuts(self, leaf: Leaf, state: State, *, tile: bool = False) -> Iterator[Cut]:
        if leaf.by:
            return iter((self._skewed(leaf, state),))
        if leaf.root in self.exact:
            axis, place = Axis(leaf.name, leaf.extent, leaf.reduce), state.places[leaf.root]
            moved = Place(place.position + Affine.of(axis, leaf.stride), place.span)
            return iter((Cut(axis, state.inside(leaf, axis, moved)),))
        return tile_cuts(leaf, state) if tile else cuts(leaf, state, block=leaf.name in self.blocks)

    def pieces(self, leaves: Sequence[Leaf], state: State) -> Iterator[Piece]:
        """All ways in which a tile's leaves are cut."""
        if not leaves:
            yield Piece((), state)
            return
        for cut in self._cuts(leaves[0], state, tile=True):
            for piece in self.pieces(leaves[1:], cut.state):
                loops = (((leaves[0], cut.axis),) if cut.axis else ()) + piece.loops
                yield Piece(loops, piece.state, (*cut.when, *piece.when))

    # -- task --

    def body(self) -> Body:
        start = State({name: Place(Affine(), axis.extent) for name, axis in self.roots.items()})
        shared = self.schedule.shared
        flat = next((n for n, leaf in enumerate(shared) if leaf.kind in ("vector", "unroll")), len(shared))
        outer, inner = shared[:flat], shared[flat:]

        def at_point(state: State) -> Body:
            return _joined(_when(piece.when, self._point(piece, inner)) for piece in self.pieces(inner, state))

        body = self.loops(outer, start, at_point)
        _check_parallel(body)
        return body

    def _point(self, piece: Piece, inner: Sequence[Leaf]) -> Body:
        """All stages at one point of the shared axes, with the local buffers around them."""
        axes = [axis for _, axis in piece.loops]
        flat = all(leaf.kind in ("vector", "unroll") for leaf, _ in piece.loops)
        made: dict[str, Local] = {}
        owners: list[Buffer] = []
        for stage in self.task.stages:
            if stage.out.scope == "local" and stage.out.name not in made:
                made[stage.out.name] = Local("register" if flat and not stage.out.shape else "local", tuple(axes))
                owners.append(made[stage.out.name].view(stage.out))
        state = replace(piece.state, locals=made)

        def stages(now: State) -> Body:
            return _joined(self._stage(number, now) for number in range(len(self.task.stages)))

        present = {leaf.name for leaf, _ in piece.loops}
        body = self.loops([leaf for leaf in inner if leaf.name in present], state, stages)
        for owner in reversed(owners):
            body = (Alloc(owner, body),)
        return body

    def _stage(self, number: int, state: State) -> Body:
        self.stage = self.task.stages[number]
        leaves = self.schedule.leaves(number)
        if self.stage.combine is None:
            return self.loops(leaves, state, self._store)
        start = _inner_start(leaves)
        outer, inner = leaves[:start], leaves[start:]
        tile = [leaf for leaf in inner if not leaf.reduce]
        blocks = next((n for n, leaf in enumerate(outer) if leaf.reduce), start)
        if self.stage.scan and (blocks != start or any(leaf.reduce and leaf.kind != "serial" for leaf in inner)):
            raise ScheduleError("S004", f"{self.stage.name} is a scan, whose steps have to follow one another",
                                why="each takes up the sum of the one before",
                                hint="keep its reduced axis serial, with unrolled and vector axes alone inside it")

        def tiles(now: State, sums: Sums | None) -> Body:
            return _joined(_when(piece.when, self._reduction(piece, inner, sums)) for piece in self.pieces(tile, now))

        def blocked(now: State) -> Body:
            if blocks == start:
                return tiles(now, None)
            sums = Sums.of(self.stage, now, outer[blocks:], self.roots)
            if not sums.last:
                return self.loops(outer[blocks:], now, lambda deep: tiles(deep, None))
            return (Alloc(sums.panel.buffer, self.loops(outer[blocks:], now, lambda deep: tiles(deep, sums))),)

        return self.loops(outer[:blocks], state, blocked)

    def _store(self, state: State) -> Body:
        return (self._store_to_out(state, self._moved(self.stage.value, state)),)

    def _store_to_out(self, state: State, value: Expr) -> Store:
        new = self._places(state)
        index = tuple(entry.substitute(new) for entry in self.stage.index)
        out = self.stage.out
        if out.name in state.locals:
            local = state.locals[out.name]
            return Store(local.view(out), (*index, *local.lanes), value)
        return Store(out, index, value)

    # -- reductions --

    def _reduction(self, piece: Piece, inner: Sequence[Leaf], sums: Sums | None) -> Body:
        """One tile of a reduction: set the accumulators, loop, combine them, finish (or keep them for the next block).
        """
        stage = self.stage
        present = {leaf.name for leaf, _ in piece.loops}
        behind = max((n for n, leaf in enumerate(inner) if not leaf.reduce), default=-1)
        lanes = [leaf for n, leaf in enumerate(inner)
                 if leaf.reduce and (leaf.kind == "vector" or (leaf.kind == "unroll" and n > behind))]
        registers = Registers.of(stage, [axis for _, axis in piece.loops], lanes)
        used = {"acc": False}

        def update(state: State) -> Body:
            value = self._moved(stage.value, state)
            full = all(leaf.kind != "vector" or state.axes.get(leaf.name, _NO_AXIS).extent == leaf.extent
                       for leaf in lanes)
            if stage.scan:
                total = Load(stage.value.dtype, registers.result, registers.tile)
                return (Update(registers.result, registers.tile, _combine(stage), value), self._finish(state, total))
            if not lanes or not full:
                return (Update(registers.result, registers.tile, _combine(stage), value),)
            used["acc"] = True
            spot = tuple(Affine.of(state.axes[leaf.name]) if leaf.name in state.axes else Affine() for leaf in lanes)
            return (Update(registers.acc, (*registers.tile, *spot), _combine(stage), value),)

        kept = [leaf for leaf in inner if leaf.reduce or leaf.name in present]
        loops = self.loops(kept, piece.state, update)
        around = [(leaf.kind, axis) for leaf, axis in piece.loops]
        empty = Const(stage.value.dtype, neutral(_combine(stage), stage.value.dtype))
        body: Body = (*nested(around, (Store(registers.result, registers.tile, empty),)), *loops)
        if stage.scan:
            return (Alloc(registers.result, body),)
        if used["acc"]:
            body = (*registers.set_acc(empty, around), *body, *registers.combine(_combine(stage), around))
            body = (Alloc(registers.acc, body + self._finished(piece.state, registers, around, sums)),)
        else:
            body = body + self._finished(piece.state, registers, around, sums)
        return (Alloc(registers.result, body),)

    def _finished(self, state: State, registers: Registers, around: Sequence[tuple[Kind, Axis]],
                  sums: Sums | None) -> Body:
        total: Expr = Load(self.stage.value.dtype, registers.result, registers.tile)
        if sums is None:
            return nested(around, (self._finish(state, total),))
        kept, whole = sums.kept(total, state, _combine(self.stage)), sums.whole(total, state, _combine(self.stage))
        return (*_when((sums.is_not_last(state),), nested(around, (kept,))),
                *_when((sums.is_last(state),), nested(around, (self._finish(state, whole),))))

    def _finish(self, state: State, total: Expr) -> Store:
        finish = self.stage.finish
        if finish is not None:
            total = rebuild([finish], lambda e: total if isinstance(e, Reduced) else e)[0]
            total = self._moved(total, state)
        return self._store_to_out(state, total)

    # -- expressions --

    def _places(self, state: State) -> dict[Axis, Affine]:
        return {axis: state.places[name].position for name, axis in self.roots.items()}

    def _moved(self, expr: Expr, state: State) -> Expr:
        """The expression at this place: axes become positions of the loops, copied buffers become their copies."""
        new = self._places(state)

        def change(old: Expr) -> Expr:
            match old:
                case Position(index=index):
                    return Position(old.dtype, index.substitute(new))
                case Load(buffer=buffer) if buffer.scope == "register":
                    return old
                case Load(buffer=buffer) if buffer.name in state.panels:
                    panel = state.panels[buffer.name]
                    return Load(old.dtype, panel.buffer, panel.spot(state))
                case Load(buffer=buffer, index=index):
                    spots = tuple(i.substitute(new) if isinstance(i, Affine) else i for i in index)
                    if buffer.name in state.locals:
                        local = state.locals[buffer.name]
                        return Load(old.dtype, local.view(buffer), (*spots, *local.lanes))
                    return Load(old.dtype, buffer, spots)
            return old

        return rebuild([expr], change)[0]

    # -- copies --

    def _with_copies(self, leaf: Leaf, state: State, inside: Inside) -> Body:
        copies = [c for c in self.copies.get(leaf.name, ()) if c.buffer not in state.panels]
        if not copies:
            return inside(state)
        copy = copies[0]
        panel, fill = self._panel(copy, state)
        body = self._with_copies(leaf, replace(state, panels={**state.panels, copy.buffer: panel}), inside)
        return (Alloc(panel.buffer, (*fill, *body)),)

    def _panel(self, copy: Copy, state: State) -> tuple[Panel, Body]:
        """The local copy of what is read of a buffer from here on, and the loops that fill it."""
        read = read_once(self.stage, copy)
        roots = {axis.name for index in read.index if isinstance(index, Affine) for axis in index.axes()}
        if roots & self.exact:
            raise ScheduleError("S004", f"{copy.buffer} cannot be cached at {copy.at}",
                                why="an inner part of an axis stands outside an outer part of it",
                                hint="keep outer parts outside")
        leaves = self.schedule.leaves(self.task.stages.index(self.stage))
        panel = panel_of(self.stage, copy, read, state, leaves)
        return panel, self._fill(panel, read, state, leaves)

    def _fill(self, panel: Panel, read: Load, state: State, leaves: Sequence[Leaf]) -> Body:
        """Loops that copy into a panel."""
        plain = replace(state, axes={}, panels={name: p for name, p in state.panels.items() if p is not panel})

        def one(now: State) -> Body:
            return (Store(panel.buffer, panel.spot(now), self._moved(read, now)),)

        return _joined(_when(when, self.loops(order, now, one))
                       for order, now, when in fill_leaves(panel, read, plain, leaves))


_NO_AXIS = Axis("", 1)


def _joined(bodies: Iterable[Body]) -> Body:
    return tuple(itertools.chain.from_iterable(bodies))


def _inner_start(leaves: Sequence[Leaf]) -> int:
    """Where the part of a reduction begins that is one tile of registers: behind the last plain spatial loop. Vectors
    and unrolled loops in front of all reduce leaves stand outside of it."""
    plain = max((n + 1 for n, leaf in enumerate(leaves) if not leaf.reduce and leaf.kind in PLAIN), default=0)
    first = next((n for n, leaf in enumerate(leaves) if leaf.reduce), len(leaves))
    for leaf in leaves[first:plain]:
        if leaf.kind not in PLAIN:
            raise ScheduleError("S004", f"{leaf.name} is a {leaf.kind} loop outside of a plain loop inside a reduction",
                                why="blocks of a reduction are plain loops",
                                hint=f"reorder {leaf.name} inside, behind the last plain loop")
    return max(first, plain)


def _when(positions: Sequence[Affine | None], body: Body) -> Body:
    """`body` under conditions (None: always); nothing, if one of them cannot hold."""
    for position in reversed(positions):
        low, high = position.bounds() if position is not None else (0, 0)
        if high < 0:
            return ()
        if position is not None and low < 0:
            body = (When(position, body),)
    return body


def _combine(stage: Stage) -> str:
    assert stage.combine is not None
    return stage.combine


def _check_parallel(body: Body) -> None:
    """Parallel loops are outermost: none may stand inside a loop of another kind."""

    def visit(steps: Body, allowed: bool) -> None:
        for step in steps:
            match step:
                case For(kind="parallel") if not allowed:
                    raise ScheduleError("S004", f"parallel loop {step.axis.name} is not outermost",
                                        hint="reorder it to the front")
                case For():
                    visit(step.body, step.kind == "parallel")
                case Alloc() | When():
                    visit(step.body, False)

    visit(body, True)


def _estimate(task: Task) -> tuple[int, int]:
    """Arithmetic operations and bytes touched (each buffer once) of one launch."""
    flops = 0
    for stage in task.stages:
        spatial = math.prod(axis.extent for axis in stage.axes)
        points = spatial * math.prod(axis.extent for axis in stage.reduce)
        flops += points * (_operations(stage.value) + (stage.combine is not None))
        if stage.finish is not None:
            flops += spatial * _operations(stage.finish)
    return flops, sum(b.size * BYTES[b.dtype] for b in task.buffers())


def _operations(expr: Expr) -> int:
    """Operations on elements; tests of positions are decided beforehand or once for a vector."""
    return sum(isinstance(e, Call) and (e.dtype != "bool" or any(isinstance(part, Load) for part in walk(e)))
               for e in walk(expr))
