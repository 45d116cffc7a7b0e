"""The accumulators of a reduction: which registers a tile takes, how they are set and combined.

What holds here: the order in which accumulators are combined follows from the schedule alone, so results never depend
on threads: unrolled ones pairwise, then the lanes of the vector that is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tracedsl.ir.expr import Affine, Axis, Buffer, Expr, Load, Stage
from tracedsl.ir.loops import For, Kind, Stmt, Store, Update
from tracedsl.schedule.primitives import Leaf

Body = tuple[Stmt, ...]


@dataclass(frozen=True)
class Registers:
    """The accumulators of one tile: `result` has an element for each point of the tile, `acc` one more dimension for
    each reduce leaf in `lanes`."""

    result: Buffer
    acc: Buffer
    tile: tuple[Affine, ...]
    lanes: tuple[Leaf, ...]

    @staticmethod
    def of(stage: Stage, axes: Sequence[Axis], lanes: Sequence[Leaf]) -> Registers:
        shape, name, dtype = [axis.extent for axis in axes], stage.name.replace(".", "_"), stage.value.dtype
        result = Buffer.row_major(f"{name}_sum", dtype, shape, "register")
        acc = Buffer.row_major(f"{name}_acc", dtype, [*shape, *(leaf.extent for leaf in lanes)], "register")
        return Registers(result, acc, tuple(map(Affine.of, axes)), tuple(lanes))

    def set_acc(self, neutral: Expr, around: Sequence[tuple[Kind, Axis]]) -> Body:
        axes = [Axis(f"{leaf.name}", leaf.extent, True) for leaf in self.lanes]
        index = (*self.tile, *map(Affine.of, axes))
        inner = [(leaf.kind, axis) for leaf, axis in zip(self.lanes, axes)]
        return nested([*around, *inner], (Store(self.acc, index, neutral),))

    def combine(self, kind: str, around: Sequence[tuple[Kind, Axis]]) -> Body:
        """Combine unrolled accumulators pairwise, then lanes; the order depends on the schedule alone."""
        unrolled = [leaf for leaf in self.lanes if leaf.kind == "unroll"]
        vector = [(Axis(leaf.name, leaf.extent, True), leaf) for leaf in self.lanes if leaf.kind == "vector"]
        spots = [dict(zip([u.name for u in unrolled], p))
                 for p in itertools.product(*(range(u.extent) for u in unrolled))]
        within = [("vector", axis) for axis, _ in vector]

        def at(spot: Mapping[str, int]) -> tuple[Affine, ...]:
            names = {axis.name: axis for axis, _ in vector}
            more = [Affine.of(names[leaf.name]) if leaf.name in names else Affine((), spot[leaf.name])
                    for leaf in self.lanes]
            return (*self.tile, *more)

        def loops(step: Stmt) -> Body:
            return nested([*around, *within], (step,))  # type: ignore[list-item]

        steps: list[Stmt] = []
        while len(spots) > 1:
            half = -(-len(spots) // 2)
            for one, other in zip(spots, spots[half:]):
                steps += loops(Update(self.acc, at(one), kind, Load(self.acc.dtype, self.acc, at(other))))
            spots = spots[:half]
        steps += loops(Update(self.result, self.tile, kind, Load(self.acc.dtype, self.acc, at(spots[0]))))
        return tuple(steps)


def nested(around: Sequence[tuple[Kind, Axis]], body: Body) -> Body:
    """`body` inside loops, the first one outermost."""
    for kind, axis in reversed(around):
        body = (For(axis, kind, body),)
    return body
