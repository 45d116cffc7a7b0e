"""Where lowering stands: what is known at one place of a loop nest while it is emitted.

What holds here: a `State` is immutable; entering a loop gives another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tracedsl.ir.expr import Affine, Axis, Buffer, Scope, Task
from tracedsl.schedule.primitives import Leaf, Schedule, ScheduleError


@dataclass(frozen=True)
class Place:
    """Where the loops so far stand on a root axis: the position, and how many steps the leaves inside have at most.
    `left`: how many there are, if that depends on the loops outside (see `cuts`)."""

    position: Affine
    span: int
    left: Affine | None = None


@dataclass(frozen=True)
class Panel:
    """A local copy: dimension n runs along root `roots[n]`, from the position that it had where the copy was made.
    With `group`, the dimension before the last counts groups, whose elements are one more dimension at the end."""

    buffer: Buffer
    roots: tuple[str, ...]
    bases: tuple[Affine, ...]
    group: int = 1

    def spot(self, state: State) -> tuple[Affine, ...]:
        """The index in the copy of what stands at the places of `state`."""
        spots = [state.places[root].position + base * -1 for root, base in zip(self.roots, self.bases)]
        if self.group == 1:
            return tuple(spots)
        *outer, grouped, last = spots
        whole = [(axis, factor // self.group) for axis, factor in grouped.terms if factor % self.group == 0]
        inside = [(axis, factor) for axis, factor in grouped.terms if factor % self.group]
        which, within = divmod(grouped.constant, self.group)
        return *outer, Affine(tuple(whole), which), last, Affine(tuple(inside), within)


@dataclass(frozen=True)
class Local:
    """A local buffer of the task at one point of the shared axes: it has an element of its own for each step of `axes`,
    the vector and unrolled loops over shared axes inside which it is used."""

    scope: Scope
    axes: tuple[Axis, ...]

    @property
    def lanes(self) -> tuple[Affine, ...]:
        """The last entries of every index."""
        return tuple(map(Affine.of, self.axes))

    def view(self, buffer: Buffer) -> Buffer:
        """The buffer as an access sees it, with the lanes as further dimensions."""
        lanes = Buffer.row_major("", buffer.dtype, [axis.extent for axis in self.axes])
        strides = (*(stride * lanes.size for stride in buffer.strides), *lanes.strides)
        return Buffer(buffer.name, buffer.dtype, (*buffer.shape, *lanes.shape), strides, self.scope)


@dataclass(frozen=True)
class State:
    """What holds at one place of the nest."""

    places: Mapping[str, Place]
    axes: Mapping[str, Axis] = field(default_factory=dict)         # leaf -> its loop variable, if it has a loop here
    panels: Mapping[str, Panel] = field(default_factory=dict)     # buffer -> its local copy
    locals: Mapping[str, Local] = field(default_factory=dict)

    def at(self, root: str, place: Place) -> State:
        return replace(self, places={**self.places, root: place})

    def inside(self, leaf: Leaf, axis: Axis | None, place: Place) -> State:
        """Inside the loop over `axis` of a leaf (None: there is no loop), which stands at `place`."""
        axes = {**self.axes, leaf.name: axis} if axis else dict(self.axes)
        return replace(self, places={**self.places, leaf.root: place}, axes=axes)


@dataclass(frozen=True)
class Piece:
    """One way in which tile leaves are cut: their loops, the state inside them, and where it is meant (`Cut.when`)."""

    loops: tuple[tuple[Leaf, Axis], ...]
    state: State
    when: tuple[Affine, ...] = ()


def exact_roots(task: Task, schedule: Schedule, roots: Mapping[str, Axis]) -> set[str]:
    """Roots whose leaves do not stand from the longest stride to the shortest: these must divide without a rest."""
    exact = set()
    for number in range(len(task.stages)):
        leaves = (*schedule.shared, *schedule.leaves(number))
        for root in {leaf.root for leaf in leaves}:
            strides = [(leaf.stride, leaf.extent) for leaf in leaves if leaf.root == root]
            if strides == sorted(strides, reverse=True):
                continue
            covered = 1
            for stride, extent in sorted(strides):
                if stride != covered:
                    covered = -1
                    break
                covered *= extent
            if covered != roots[root].extent:
                raise ScheduleError("S004", f"an inner part of {root} stands outside an outer part of it",
                                    why=f"{roots[root].extent} steps do not divide evenly",
                                    hint="split by a factor that divides, or keep outer parts outside")
            exact.add(root)
    return exact
