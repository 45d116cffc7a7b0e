"""Features of schedules for cost models, from the loops alone: no code is generated, all points at once.

What holds here: the number of columns depends on the kind of task alone, so that what was learned of one task can be
asked about another of its kind: sizes are logarithms and ratios. What a cache must hold and what passes into it is
counted as in Wolf and Lam (A data locality optimizing algorithm, 1991): the loops from some level inwards reuse what
they touch if it fits; every step of the loops outside fetches it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Affine, Load, Stage, walk
from tracedsl.schedule.access import heavy_calls, widest
from tracedsl.schedule.default import MachineFacts
from tracedsl.schedule.levels import KINDS, Array, Levels, levels
from tracedsl.schedule.space import Point, ScheduleSpace

LINE = 64           # bytes of a cache line
BUFFERS = 4         # buffers of a stage that have columns of their own: the result and the largest operands
DEPTH = 8           # innermost loops that have columns of their own
STAGES = 2          # stages of a task that have columns: those with the most steps


def schedule_features(space: ScheduleSpace, points: Sequence[Point]) -> Array:
    """One row of float32 a point: extents, kinds and top-down products of the inner loops; for each cache and buffer
    bytes touched and fetched again; registers, vector efficiency, rests, and how evenly cores are busy."""
    if not points:
        return np.zeros((0, 1), np.float32)
    found = sorted(levels(space, points), key=lambda one: -float(np.prod([extent for _, extent, _ in one.roots])))
    blocks = [_Stage(one, space.machine).columns() for one in found[:STAGES]]
    return np.concatenate(blocks, 1).astype(np.float32)


class _Stage:
    """One stage under many schedules."""

    def __init__(self, loops: Levels, machine: MachineFacts) -> None:
        self.loops, self.machine, self.stage = loops, machine, loops.stage
        self.points, self.depth = loops.extent.shape
        self.root_extents = np.array([extent for _, extent, _ in loops.roots], float)
        self.hot = loops.root[:, :, None] == np.arange(len(loops.roots))            # (points, loops, roots)
        extent = loops.extent.astype(float)
        moved = np.where(self.hot, ((extent - 1) * loops.stride)[:, :, None], 0.0)
        inner = np.concatenate([np.cumsum(moved[:, ::-1], 1)[:, ::-1], np.zeros((self.points, 1, len(loops.roots)))], 1)
        self.span = np.minimum(1 + inner, self.root_extents)                        # (points, loops + 1, roots)
        self.trips = np.concatenate([np.ones((self.points, 1)), np.cumprod(extent, 1)], 1)
        self.buffers = _buffers(self.stage, [name for name, _, _ in loops.roots])
        self.steps = float(np.prod(self.root_extents))
        self.lanes = self._extent("vector")

    def columns(self) -> Array:
        compute = self._compute()
        memory, traffic = self._memory()
        parts = [compute, memory, self._balance(), self._inner(), self._task()]
        cycles = np.maximum(2 ** compute[:, 0], 2 ** traffic)
        parts.append(np.log2(np.stack([cycles, 2 ** compute[:, 0] + 2 ** traffic], 1)))
        return np.concatenate(parts, 1)

    def _extent(self, *kinds: str, reduce: bool | None = None) -> Array:
        """Product of the extents of the loops of some kinds."""
        wanted = np.isin(self.loops.kind, [KINDS[kind] for kind in kinds])
        if reduce is not None:
            reduced = np.array([r for _, _, r in self.loops.roots])[self.loops.root]
            wanted &= reduced == reduce
        return np.asarray(np.prod(np.where(wanted, self.loops.extent, 1), axis=1), float)

    def _compute(self) -> Array:
        """Instructions of the innermost tile: multiply-adds, loads, registers, lanes that do work."""
        native = max(1, self.machine.vector_bytes // widest(self.stage))
        per_vector = np.ceil(self.lanes / native)
        vectors = self._extent("unroll") * per_vector
        sums = self._extent("unroll", reduce=False) * per_vector
        tile = np.isin(self.loops.kind, [KINDS["vector"], KINDS["unroll"]])
        lane = self.loops.kind == KINDS["vector"]
        loads = np.zeros(self.points)
        for buffer in self.buffers[1:]:
            moving = buffer.moves[self.loops.root]                                  # (points, loops)
            once = np.prod(np.where(tile & moving & ~lane, self.loops.extent, 1), axis=1)
            wide = np.any(lane & moving, axis=1)
            loads += once * np.where(wide, per_vector, 1)
        work = self.steps / (self.lanes * self._extent("unroll")) * np.maximum(vectors, loads)
        rest = np.prod(self._covered(), axis=1)
        used = np.minimum(1, self.lanes / native)
        registers = (sums + per_vector + 1) / self.machine.vector_registers         # at least
        return np.stack([np.log2(work * rest), np.log2(vectors), np.log2(loads + 1), loads / vectors, registers,
                         np.maximum(0, registers - 1), used, np.log2(rest), np.log2(sums)], 1)

    def _covered(self) -> Array:
        """For each root, the steps of its loops over its extent: more than one if the last parts are not full."""
        product = np.prod(np.where(self.hot, self.loops.extent[:, :, None], 1.0), axis=1)
        return np.asarray(product / np.maximum(1, self.root_extents))

    def _memory(self) -> tuple[Array, Array]:
        """For each cache: what passes into it, from which loop inwards it suffices, and how much of it that takes."""
        unique = np.stack([b.bytes(self.span) for b in self.buffers], 2)           # (points, loops + 1, buffers)
        total = unique.sum(2)
        least = total[:, 0]
        rows, columns, cost = np.arange(self.points), [], np.zeros(self.points)
        caches = ((self.machine.l1, 1 / 64), (self.machine.l2, 1 / 32), (self.machine.l3, 1 / 8))
        for size, cycles in caches:
            fits = total <= size
            at = np.where(fits.any(1), np.argmax(fits, axis=1), self.depth)
            fetched = self.trips[rows, at][:, None] * unique[rows, at]
            fetched = np.maximum(fetched, unique[:, 0])
            cost += fetched.sum(1) * cycles
            columns += [np.log2(fetched.sum(1) / least), np.log2(fetched.sum(1) / self.steps),
                        np.log2(total[rows, at] / size), np.log2(self.trips[rows, at])]
            columns += list(self._padded(np.log2(fetched / unique[:, 0])).T)
        tile = np.argmax(np.isin(self.loops.kind, [KINDS["vector"], KINDS["unroll"]]), axis=1)
        columns += list(self._padded(np.log2(unique[rows, tile])).T)
        for buffer in self.buffers[:BUFFERS]:
            columns += list(self._copied(buffer.name, unique[:, :, self.buffers.index(buffer)]).T)
        columns += [np.zeros(self.points)] * (3 * (BUFFERS - min(BUFFERS, len(self.buffers))))
        columns += list(self._padded(np.stack([b.step(self) for b in self.buffers], 1)).T)
        return np.stack(columns, 1), np.log2(cost)

    def _padded(self, each: Array) -> Array:
        """Columns of the first buffers; zeros for those that there are not."""
        return np.pad(each[:, :BUFFERS], ((0, 0), (0, max(0, BUFFERS - each.shape[1]))))

    def _copied(self, name: str, unique: Array) -> Array:
        """Whether a buffer is copied, how large the copy is (of L2), and what copying costs beside the work."""
        at = self.loops.copied.get(name)
        if at is None:
            return np.zeros((self.points, 3))
        rows, inside = np.arange(self.points), np.maximum(at, 0) + 1
        size = unique[rows, inside]
        share = self.trips[rows, inside] * size / self.steps
        return np.where((at >= 0)[:, None], np.stack([np.ones(self.points), np.log2(size / self.machine.l2),
                                                      np.log2(share)], 1), 0.0)

    def _balance(self) -> Array:
        """Pieces of parallel work, and the share of the time in which cores wait for the last piece."""
        pieces, cores = self._extent("parallel"), self.machine.cores
        idle = cores * np.ceil(pieces / cores) / pieces
        return np.stack([np.log2(pieces), np.log2(idle), np.log2(self.steps / pieces)], 1)

    def _inner(self) -> Array:
        """The innermost loops that have more than one step, from the inside: extent, product of those outside, kind."""
        count = self.loops.extent > 1
        order = np.argsort(~count, axis=1, kind="stable")                           # those with steps first, in order
        many = count.sum(1)
        columns = []
        rows = np.arange(self.points)
        reduced = np.array([r for _, _, r in self.loops.roots])[self.loops.root]
        for n in range(1, DEPTH + 1):
            there = many >= n
            at = order[rows, np.maximum(many - n, 0)]
            columns += [np.where(there, np.log2(self.loops.extent[rows, at]), 0),
                        np.where(there, np.log2(self.trips[rows, at]), 0),
                        np.where(there, self.loops.kind[rows, at], -1), np.where(there, reduced[rows, at], -1)]
        return np.stack(columns, 1).astype(float)

    def _task(self) -> Array:
        """What is the same for all points of a task."""
        reduce = float(np.prod([extent for _, extent, r in self.loops.roots if r]))
        numbers = [np.log2(self.steps), np.log2(reduce), heavy_calls(self.stage), widest(self.stage),
                   self.machine.cores]
        return np.broadcast_to(np.array(numbers, float), (self.points, len(numbers)))


class _Buffer:
    """One place where a stage reads or writes: its index as coefficients of the roots."""

    def __init__(self, load: Load | Stage, roots: Sequence[str]) -> None:
        buffer = load.buffer if isinstance(load, Load) else load.out
        self.name, self.size = buffer.name, BYTES[buffer.dtype]
        self.shape = np.array(buffer.shape or (1,), float)
        self.strides = np.array(buffer.strides or (1,), float)
        self.factors = np.zeros((len(self.shape), len(roots)))
        for d, place in enumerate(load.index):
            if isinstance(place, Affine):
                for axis, factor in place.terms:
                    self.factors[d, roots.index(axis.name)] = factor
        self.per_step = np.abs(self.strides @ self.factors)                         # elements that a root's step moves
        self.moves = self.per_step > 0
        self.bytes_all = float(np.prod(self.shape)) * self.size

    def bytes(self, span: Array) -> Array:
        """Bytes of the lines that are touched while each root covers its span: (points, loops + 1)."""
        reach = 1 + (span - 1) @ np.abs(self.factors).T                             # (points, loops + 1, dimensions)
        reach = np.minimum(reach, np.maximum(self.shape, 1))
        dense = int(np.argmin(np.where(self.shape > 1, np.abs(self.strides), np.inf))) if len(self.shape) else 0
        run = reach[..., dense] * self.size
        lines = np.ceil(run / LINE) * LINE if self.strides[dense] == 1 else reach[..., dense] * LINE
        return np.asarray(np.prod(np.delete(reach, dense, axis=-1), axis=-1) * lines)

    def step(self, stage: _Stage) -> Array:
        """How the lanes of a vector lie: 0 one element for all, 1 side by side, 2 apart."""
        lane = stage.loops.kind == KINDS["vector"]
        moved = np.where(lane, (self.per_step[stage.loops.root] * stage.loops.stride), 0).max(1)
        return np.asarray(np.minimum(moved, 2))


def _buffers(stage: Stage, roots: Sequence[str]) -> list[_Buffer]:
    """The result, then what is read, the largest first; each distinct place once."""
    places: dict[Any, _Buffer] = {}
    for expr in walk(*(e for e in (stage.value, stage.finish) if e is not None)):
        if isinstance(expr, Load):
            name = (expr.buffer.name, tuple(map(str, expr.index)))
            places.setdefault(name, _Buffer(expr, roots))
    return [_Buffer(stage, roots), *sorted(places.values(), key=lambda b: -b.bytes_all)]

