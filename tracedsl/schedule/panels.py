"""Local copies of operands (`cache_read`): how they are laid out, and the loops that fill them.

What holds here: a copy holds what the loops inside one place read of a buffer that the stage reads at one position. Its
last dimension is that of the vectors, which then load whole lines one after the other (a *vector panel*); of an operand
without vectors it is the one along which the buffer is contiguous (a *row copy*), and rows are padded so that
they do not fall into the same sets of a cache. What one instruction sums (`tensorize`) lies side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Affine, Buffer, Load, Stage, address, walk
from tracedsl.ir.loops import Kind
from tracedsl.schedule.cuts import resolved
from tracedsl.schedule.primitives import Copy, Leaf, ScheduleError
from tracedsl.schedule.state import Panel, State

PANEL_BYTES = 512 * 1024   # the largest local copy that a thread makes
LINE = 64                  # bytes of a cache line
UNROLLED_FILL = 8          # vectors of one row of a panel that are copied without a loop


def read_once(stage: Stage, copy: Copy) -> Load:
    """The one load of the copied buffer. Raises `ScheduleError` S005 if there are several, or a gather."""
    reads = [e for e in walk(stage.value) if isinstance(e, Load) and e.buffer.name == copy.buffer]
    indices = {load.index for load in reads}
    if len(indices) != 1 or not all(isinstance(i, Affine) for load in reads for i in load.index):
        raise ScheduleError("S005", f"{copy.buffer} cannot be cached: it is read at {len(indices)} places, not one",
                            hint="leave out this cache_read")
    return reads[0]


def panel_of(stage: Stage, copy: Copy, read: Load, state: State, leaves: Sequence[Leaf]) -> Panel:
    """The copy of what is read from here on. Raises `ScheduleError` S006 if it is too large."""
    place = address(read.index, read.buffer) or Affine()
    axes = {axis.name: axis for axis in place.axes()}
    moving = [root for root in sorted(axes) if state.places[root].span > 1]
    vector = next((leaf.root for leaf in leaves if leaf.kind == "vector"), "")
    nearest = next((root for root in moving if place.coefficient(axes[root]) == 1), vector)
    last = vector if stage.combine is not None and vector in moving else nearest
    tensor = next((leaf for leaf in leaves if leaf.kind == "tensor" and leaf.root in moving and last == vector), None)
    order = sorted(moving, key=lambda root: (root == last, tensor is not None and root == tensor.root,
                                             not axes[root].reduce, root))
    spans = [state.places[root].span for root in order]
    group = tensor.extent if tensor is not None else 1
    if group > 1:
        spans = [*spans[:-2], -(-spans[-2] // group), spans[-1], group]
    buffer = _laid_out(f"{copy.buffer}_{copy.at}", read.dtype, spans, padded=last != vector)
    taken = buffer.strides[0] * spans[0] * BYTES[buffer.dtype] if spans else 0
    if taken > PANEL_BYTES:
        raise ScheduleError("S006", f"a local copy of {copy.buffer} at {copy.at} would take {taken} bytes; "
                            f"{PANEL_BYTES} is the limit", hint="cache it at an axis further inside, or split the axes "
                            "smaller")
    return Panel(buffer, tuple(order), tuple(state.places[root].position for root in order), group)


def _laid_out(name: str, dtype: str, spans: Sequence[int], *, padded: bool) -> Buffer:
    """Row-major; padded rows take an odd number of cache lines."""
    plain = Buffer.row_major(name, dtype, spans, "local")
    lines = -(-spans[-1] * BYTES[dtype] // LINE) if spans else 0
    if not padded or len(spans) < 2 or lines < 2:
        return plain
    row = (lines | 1) * LINE // BYTES[dtype]
    padded_shape = Buffer.row_major(name, dtype, (*spans[:-1], row), "local")
    return replace(padded_shape, shape=tuple(spans))


def fill_leaves(panel: Panel, read: Load, state: State,
                leaves: Sequence[Leaf]) -> Iterator[tuple[list[Leaf], State, tuple[Affine, ...]]]:
    """The loops that fill a panel, for each way in which its last dimension may end: leaves, the state around them, and
    where they are meant. A buffer that is contiguous along another dimension is turned over in square blocks."""
    if not panel.roots:
        yield [], state, ()
        return
    lanes = max((leaf.extent for leaf in leaves if leaf.kind == "vector"), default=1)
    last = panel.roots[-1]
    place = address(read.index, read.buffer) or Affine()
    near = next((axis.name for axis, factor in place.terms if factor == 1 and axis.name in panel.roots[:-1]), None)
    for now, when in resolved(last, state):
        span = now.places[last].span
        outer = [Leaf(f"{root}.f", root, now.places[root].span) for root in panel.roots[:-1] if root != near]
        if panel.group > 1:
            yield _grouped(panel, outer, now, lanes), now, when
            continue
        count = -(-span // lanes)
        kind: Kind = "unroll" if count <= UNROLLED_FILL and near is None else "serial"
        vectors = Leaf(f"{last}.f", last, count, lanes, kind)
        lane = Leaf(f"{last}.fv", last, lanes, 1, "vector")
        if near is None:
            yield [*outer, vectors, lane], now, when
            continue
        for deeper, and_when in resolved(near, now):
            steps = -(-deeper.places[near].span // lanes)
            turned = [Leaf(f"{near}.f", near, steps, lanes), Leaf(f"{near}.fu", near, lanes, 1, "unroll")]
            yield [*outer, vectors, *turned, lane], deeper, (*when, *and_when)


def _grouped(panel: Panel, outer: list[Leaf], state: State, lanes: int) -> list[Leaf]:
    """Leaves that write groups side by side: all elements of a group for one vector of the last dimension."""
    grouped, last = panel.roots[-2:]
    span, count = state.places[grouped].span, -(-state.places[last].span // lanes)
    return [*(leaf for leaf in outer if leaf.root != grouped),
            Leaf(f"{grouped}.f", grouped, -(-span // panel.group), panel.group), Leaf(f"{last}.f", last, count, lanes),
            Leaf(f"{grouped}.fq", grouped, panel.group, 1, "unroll"), Leaf(f"{last}.fv", last, lanes, 1, "vector")]
