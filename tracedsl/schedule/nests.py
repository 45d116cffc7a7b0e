"""`lower_task`: a task and a schedule become a loop nest.

What holds here:
- Loops are emitted leaf by leaf. A split that does not divide is cut: a main loop over full steps, then the rest with
  smaller constant extents. There are no guards and no masks. Loops of one step disappear.
- A reduction keeps its tile, the spatial leaves inside the outermost reduce leaf, in a register buffer: set before,
  updated inside, stored after. A tile with a rest is several tiles, each with its own reduction loops.
- Reduce leaves that are vectors or unrolled have accumulators of their own (`acc`), combined in a fixed order after the
  loops. A rest with fewer lanes goes straight into the tile's result by a horizontal update.
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
    address,
    neutral,
    rebuild,
    walk,
)
from tracedsl.ir.loops import Alloc, For, Nest, Stmt, Store, Update
from tracedsl.schedule.fusing import fuse_axes
from tracedsl.schedule.primitives import Copy, Leaf, Schedule, ScheduleError
from tracedsl.schedule.registers import Registers, nested
from tracedsl.schedule.state import Local, Panel, Piece, Place, State, exact_roots

PANEL_BYTES = 512 * 1024   # the largest local copy that a thread makes

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

    def _check_copy(self, copy: Copy) -> None:
        """A copy is made by plain loops: outside of vectors and reductions, inside one stage."""
        for number in range(len(self.task.stages)):
            before = [*self.schedule.shared]
            for leaf in self.schedule.leaves(number):
                before.append(leaf)
                if leaf.name == copy.at:
                    if any(other.kind == "vector" or other.reduce for other in before):
                        break
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
            return (For(state.axes[leaf.name], leaf.kind, deeper(state)),)
        done: list[Stmt] = []
        for axis, inner in self._cuts(leaf, state):
            body = deeper(inner)
            done += [For(axis, leaf.kind, body)] if axis is not None else body
        return tuple(done)

    def _cuts(self, leaf: Leaf, state: State) -> Iterator[tuple[Axis | None, State]]:
        """The main loop over full steps of a leaf, and the rest."""
        span = state.places[leaf.root].span
        if leaf.root in self.exact:
            axis = Axis(leaf.name, leaf.extent, leaf.reduce)
            yield axis, state.step(leaf, axis, 0, span)
            return
        count = min(leaf.extent, span // leaf.stride)
        if count == 1:
            yield None, state.step(leaf, None, 0, leaf.stride)
        elif count:
            axis = Axis(leaf.name, count, leaf.reduce)
            yield axis, state.step(leaf, axis, 0, leaf.stride)
        left = span - count * leaf.stride
        if left > 0 and count < leaf.extent:
            yield None, state.step(leaf, None, count, left)

    def pieces(self, leaves: Sequence[Leaf], state: State) -> Iterator[Piece]:
        """All ways in which a tile's leaves are cut."""
        if not leaves:
            yield Piece((), state)
            return
        for axis, inner in self._cuts(leaves[0], state):
            for piece in self.pieces(leaves[1:], inner):
                yield Piece((*(((leaves[0], axis),) if axis else ()), *piece.loops), piece.state)

    # -- task --

    def body(self) -> Body:
        start = State({name: Place(Affine(), axis.extent) for name, axis in self.roots.items()})
        shared = self.schedule.shared
        flat = next((n for n, leaf in enumerate(shared) if leaf.kind in ("vector", "unroll")), len(shared))
        outer, inner = shared[:flat], shared[flat:]

        def at_point(state: State) -> Body:
            return _joined(self._point(piece, inner) for piece in self.pieces(inner, state))

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
        first = next((n for n, leaf in enumerate(leaves) if leaf.reduce), len(leaves))
        outer, inner = leaves[:first], leaves[first:]
        tile = [leaf for leaf in inner if not leaf.reduce]
        for leaf in tile:
            if leaf.kind not in ("unroll", "vector"):
                raise ScheduleError("S004", f"{leaf.name} stands inside a reduction as a {leaf.kind} loop",
                                    why="what stands inside a reduction loop is a tile of registers",
                                    hint=f"unroll({leaf.name!r}), or reorder it outside of the reduce axes")
        return self.loops(outer, state, lambda now: _joined(
            self._reduction(piece, inner) for piece in self.pieces(tile, now)))

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

    def _reduction(self, piece: Piece, inner: Sequence[Leaf]) -> Body:
        """One tile of a reduction: set the accumulators, loop, combine them, finish."""
        stage = self.stage
        present = {leaf.name for leaf, _ in piece.loops}
        lanes = [leaf for leaf in inner if leaf.reduce and leaf.kind in ("vector", "unroll")]
        registers = Registers.of(stage, [axis for _, axis in piece.loops], lanes)
        used = {"acc": False}

        def update(state: State) -> Body:
            value = self._moved(stage.value, state)
            full = all(leaf.kind != "vector" or state.axes.get(leaf.name, _NO_AXIS).extent == leaf.extent
                       for leaf in lanes)
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
        if used["acc"]:
            body = (*registers.set_acc(empty, around), *body, *registers.combine(_combine(stage), around))
            body = (Alloc(registers.acc, body + nested(around, self._finished(piece.state, registers))),)
        else:
            body = body + nested(around, self._finished(piece.state, registers))
        return (Alloc(registers.result, body),)

    def _finished(self, state: State, registers: Registers) -> Body:
        total = Load(self.stage.value.dtype, registers.result, registers.tile)
        finish = self.stage.finish
        if finish is None:
            return (self._store_to_out(state, total),)
        value = self._moved(rebuild([finish], lambda e: total if isinstance(e, Reduced) else e)[0], state)
        return (self._store_to_out(state, value),)

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
                    return Load(old.dtype, panel.buffer, tuple(
                        state.places[root].position + base * -1 for root, base in zip(panel.roots, panel.bases)))
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
        reads = [e for e in walk(self.stage.value) if isinstance(e, Load) and e.buffer.name == copy.buffer]
        indices = {load.index for load in reads}
        if len(indices) != 1 or not all(isinstance(i, Affine) for load in reads for i in load.index):
            raise ScheduleError("S005", f"{copy.buffer} cannot be cached: it is read at {len(indices)} places, not one",
                                hint="leave out this cache_read")
        index = [i for i in reads[0].index if isinstance(i, Affine)]
        read = {axis.name for i in index for axis in i.axes()}
        if read & self.exact:
            raise ScheduleError("S004", f"{copy.buffer} cannot be cached at {copy.at}",
                                why="an inner part of an axis stands outside an outer part of it",
                                hint="keep outer parts outside")
        moving = {root for root in read if state.places[root].span > 1}
        leaves = self.schedule.leaves(self.task.stages.index(self.stage))
        last = self._last_of_panel(moving, reads[0], leaves)
        order = sorted(moving, key=lambda r: (r == last, not self.roots[r].reduce, r))
        spans = [state.places[root].span for root in order]
        buffer = Buffer.row_major(f"{copy.buffer}_{copy.at}", reads[0].dtype, spans, "local")
        if buffer.size * BYTES[buffer.dtype] > PANEL_BYTES:
            raise ScheduleError("S006", f"a local copy of {copy.buffer} at {copy.at} would take "
                                f"{buffer.size * BYTES[buffer.dtype]} bytes; {PANEL_BYTES} is the limit",
                                hint="cache it at an axis further inside, or split the axes smaller")
        lanes = max((leaf.extent for leaf in leaves if leaf.kind == "vector"), default=1)
        panel = Panel(buffer, tuple(order), tuple(state.places[root].position for root in order))
        return panel, self._fill(panel, reads[0], state, lanes)

    def _last_of_panel(self, moving: set[str], read: Load, leaves: Sequence[Leaf]) -> str:
        """The root along which a copy is contiguous: the one of the vectors, which then load whole lines. In stages
        that only move data it is the one that the buffer itself is contiguous along, so that filling is fast."""
        vector = next((leaf.root for leaf in leaves if leaf.kind == "vector"), "")
        if self.stage.combine is not None:
            return vector
        place = address(read.index, read.buffer) or Affine()
        return next((root for root in sorted(moving) if place.coefficient(self.roots[root]) == 1), vector)

    def _fill(self, panel: Panel, read: Load, state: State, lanes: int) -> Body:
        """Loops that copy into a panel, vectorised along its last dimension."""
        leaves = [Leaf(f"{root}_c", root, state.places[root].span) for root in panel.roots]
        if leaves:
            last = leaves.pop()
            leaves += [Leaf(last.name, last.root, -(-last.extent // lanes), lanes),
                       Leaf(f"{last.name}v", last.root, lanes, 1, "vector")]

        def one(now: State) -> Body:
            spots = tuple(now.places[root].position + base * -1 for root, base in zip(panel.roots, panel.bases))
            plain = replace(now, panels={})
            return (Store(panel.buffer, spots, self._moved(read, plain)),)

        return self.loops(leaves, replace(state, axes={}), one)


_NO_AXIS = Axis("", 1)


def _joined(bodies: Iterable[Body]) -> Body:
    return tuple(itertools.chain.from_iterable(bodies))


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
                case Alloc():
                    visit(step.body, False)

    visit(body, True)


def _estimate(task: Task) -> tuple[int, int]:
    """Arithmetic operations and bytes touched (each buffer once) of one launch."""
    flops = 0
    for stage in task.stages:
        spatial = math.prod(axis.extent for axis in stage.axes)
        points = spatial * math.prod(axis.extent for axis in stage.reduce)
        flops += points * (sum(isinstance(e, Call) for e in walk(stage.value)) + (stage.combine is not None))
        if stage.finish is not None:
            flops += spatial * sum(isinstance(e, Call) for e in walk(stage.finish))
    return flops, sum(b.size * BYTES[b.dtype] for b in task.buffers())
