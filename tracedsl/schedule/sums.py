"""Sums between blocks: where a reduction waits whose reduce axes are cut into blocks outside of spatial loops.

What holds here: a block is summed from nothing in registers and then added to what earlier blocks gave, which keeps
long sums accurate (blocked summation: Higham, Accuracy and Stability of Numerical Algorithms, 4.2). The first block
finds nothing, the last one goes on to the output. Which block is which follows from positions alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Affine, Axis, Buffer, Call, Const, Expr, Load, Position, Stage
from tracedsl.ir.loops import Store
from tracedsl.schedule.primitives import Leaf, ScheduleError
from tracedsl.schedule.state import Panel, State

SUMS_BYTES = 1 << 20    # the largest array of sums that a thread keeps


@dataclass(frozen=True)
class Sums:
    """`panel` has an element for each spatial point inside the blocks; `roots` are the blocked reduce axes, `last` the
    sum of their positions in the last block (0: there is one block only)."""

    panel: Panel
    roots: tuple[str, ...]
    last: int

    @staticmethod
    def of(stage: Stage, state: State, outer: Sequence[Leaf], axes: Mapping[str, Axis]) -> Sums:
        """For the blocks that `outer` begins, at the place of `state`. Raises `ScheduleError` S006 if they are too
        large."""
        moving = [axis.name for axis in stage.axes if state.places[axis.name].span > 1]
        buffer = Buffer.row_major(f"{stage.name}_sums".replace(".", "_"), stage.value.dtype,
                                  [state.places[root].span for root in moving], "local")
        if (taken := buffer.size * BYTES[buffer.dtype]) > SUMS_BYTES:
            raise ScheduleError("S006", f"the sums between blocks would take {taken} bytes; {SUMS_BYTES} is the limit",
                                hint="split the spatial axes, and put their outer parts outside of the reduce axes")
        blocks = [leaf for leaf in outer if leaf.reduce]
        roots = tuple(dict.fromkeys(leaf.root for leaf in blocks))
        last = sum(_last([leaf for leaf in blocks if leaf.root == root], axes[root].extent) for root in roots)
        panel = Panel(buffer, tuple(moving), tuple(state.places[root].position for root in moving))
        return Sums(panel, roots, last)

    def _position(self, state: State) -> Affine:
        return sum((state.places[root].position for root in self.roots), Affine())

    def is_last(self, state: State) -> Affine:
        """Not negative in the last block."""
        return self._position(state) + -self.last

    def is_not_last(self, state: State) -> Affine:
        return self._position(state) * -1 + (self.last - 1)

    def whole(self, value: Expr, state: State, combine: str) -> Expr:
        """The last block's value together with that of the earlier ones."""
        earlier = Load(value.dtype, self.panel.buffer, self.panel.spot(state))
        return Call(value.dtype, combine, (earlier, value))

    def kept(self, value: Expr, state: State, combine: str) -> Store:
        """What is kept behind a block that is not the last; the first one finds nothing that is earlier."""
        later = Call("bool", "gt", (Position("int64", self._position(state)), Const("int64", 0)))
        both = Call(value.dtype, "select", (later, self.whole(value, state, combine), value))
        return Store(self.panel.buffer, self.panel.spot(state), both)


def _last(blocks: Sequence[Leaf], extent: int) -> int:
    """Where the last block of an axis begins."""
    start = 0
    for leaf in sorted(blocks, key=lambda leaf: -leaf.stride):
        start += min(leaf.extent - 1, (extent - 1 - start) // leaf.stride) * leaf.stride
    return start
