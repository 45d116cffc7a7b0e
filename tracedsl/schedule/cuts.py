"""How the steps of a leaf are cut: the loops that it becomes at one place, rests included.

What holds here:
- A place is known (`span` steps are left to the leaves inside) or ragged (`left`, affine in outer loops, may be fewer).
- A *block* is a serial or parallel leaf whose inner leaf is a plain loop too, or a parallel leaf around plain loops:
  one loop over all steps, the last of which may be short. Places inside it are ragged, and plain loops inside run
  `until` the end. Its body therefore exists once, and what is parallel is one launch.
- Tiles (vectors, unrolled loops) have known extents. In a ragged place they are cut twice: for the full span, and for
  the rest, each under its condition. All `left` of one root leave the same rest, since inner strides divide outer ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tracedsl.ir.expr import Affine, Axis
from tracedsl.schedule.primitives import Leaf, Schedule
from tracedsl.schedule.state import Place, State

PLAIN = ("serial", "parallel")


@dataclass(frozen=True)
class Cut:
    """One loop (`axis` is None: a single step without a loop) and what holds inside it. It runs where each position of
    `when` is not negative, and no further than `until`."""

    axis: Axis | None
    state: State
    until: Affine | None = None
    when: tuple[Affine, ...] = ()


def block_leaves(schedule: Schedule) -> frozenset[str]:
    """The names of the leaves that are blocks."""
    found = set()
    for number in range(len(schedule.stages)):
        path = [*schedule.shared, *schedule.leaves(number)]
        for at, leaf in enumerate(path):
            inside = [x for x in path[at + 1:] if x.root == leaf.root]
            plain = [x for x in inside if x.kind in PLAIN]
            loops_inside = any(x.kind in PLAIN for x in path[at + 1:])
            if leaf.kind in PLAIN and all(leaf.stride % x.stride == 0 for x in plain) and inside and (
                    plain or (leaf.kind == "parallel" and loops_inside)):
                found.add(leaf.name)
    return frozenset(found)


def cuts(leaf: Leaf, state: State, *, block: bool) -> Iterator[Cut]:
    """The loops over a leaf at a place: of a known one the full steps, then the rest."""
    place = state.places[leaf.root]
    if place.left is None:
        yield from _block(leaf, state, place) if block and place.span % leaf.stride else _known(leaf, state, place)
    elif leaf.kind not in PLAIN:
        yield from tile_cuts(leaf, state)
    elif block or leaf.stride > place.span:
        yield from _block(leaf, state, place)
    else:
        yield from _ragged(leaf, state, place, place.left)


def _known(leaf: Leaf, state: State, place: Place) -> Iterator[Cut]:
    count = min(leaf.extent, place.span // leaf.stride)
    if count:
        axis = Axis(leaf.name, count, leaf.reduce) if count > 1 else None
        yield Cut(axis, state.inside(leaf, axis, Place(_moved(place, leaf, axis), leaf.stride)))
    rest = place.span - count * leaf.stride
    if rest > 0 and count < leaf.extent:
        yield Cut(None, state.inside(leaf, None, Place(place.position + count * leaf.stride, rest)))


def _block(leaf: Leaf, state: State, place: Place) -> Iterator[Cut]:
    steps = min(leaf.extent, -(-place.span // leaf.stride))
    if steps <= 1:
        yield Cut(None, state.inside(leaf, None, place))
        return
    axis = Axis(leaf.name, steps, leaf.reduce)
    left = (place.left or Affine((), place.span)) + Affine.of(axis, -leaf.stride)
    until = _divided(place.left + (leaf.stride - 1), leaf.stride) if place.left is not None else None
    yield Cut(axis, state.inside(leaf, axis, Place(_moved(place, leaf, axis), leaf.stride, left)), until)


def _ragged(leaf: Leaf, state: State, place: Place, left: Affine) -> Iterator[Cut]:
    """A plain loop over the full steps, which may be none, and the rest, which only the last block has."""
    full, rest = _divided(left, leaf.stride), left.constant % leaf.stride
    axis = Axis(leaf.name, place.span // leaf.stride, leaf.reduce)
    least = (left.constant - 1) % math.gcd(*(factor for _, factor in left.terms)) + 1
    yield Cut(axis, state.inside(leaf, axis, Place(_moved(place, leaf, axis), leaf.stride)), full,
              () if least >= leaf.stride else (full + -1,))
    if rest:
        short = Place(place.position + left + -rest, rest)
        yield Cut(None, state.inside(leaf, None, short), None, (left * -1 + (place.span - 1),))


def tile_cuts(leaf: Leaf, state: State) -> Iterator[Cut]:
    """The loops over a leaf of a tile: their extents are known, whatever the place."""
    for now, when in resolved(leaf.root, state):
        for cut in _known(leaf, now, now.places[leaf.root]):
            yield Cut(cut.axis, cut.state, None, when)


def resolved(root: str, state: State) -> Iterator[tuple[State, tuple[Affine, ...]]]:
    """The state with a known span of a root, and where that is meant: the full span, and the rest if there is one."""
    place = state.places[root]
    if place.left is None:
        yield state, ()
        return
    rest = place.left.constant % place.span
    yield state.at(root, Place(place.position, place.span)), (place.left + -place.span,) if rest else ()
    if rest:
        yield state.at(root, Place(place.position, rest)), (place.left * -1 + (place.span - 1),)


def _moved(place: Place, leaf: Leaf, axis: Axis | None) -> Affine:
    return place.position + (Affine.of(axis, leaf.stride) if axis else Affine())


def _divided(total: Affine, by: int) -> Affine:
    """floor(total / by), where `by` divides every coefficient."""
    return Affine(tuple((axis, factor // by) for axis, factor in total.terms), total.constant // by)

