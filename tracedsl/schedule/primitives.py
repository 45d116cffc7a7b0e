"""Schedules: how a task's loops run, as frozen data apart from what the task computes.

What holds here:
- A schedule names, for the shared axes and for each stage, the leaf axes in loop order. A leaf covers
  `root = ... + stride * leaf + ...` and has a kind. Nothing of the algorithm is in it.
- Primitives are methods Schedule -> Schedule; each is remembered as a step. The steps are the whole state: they
  serialise to JSON, replay on a task of the same structure, and print as Python that is a hint.
- A primitive that cannot be meant raises `ScheduleError` (S***), at the call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tracedsl.diagnostics import TracedslError, nearest
from tracedsl.ir.expr import Task
from tracedsl.ir.loops import Kind

MAX_LANES = 256        # of one vector loop
MAX_UNROLLED = 1024    # copies of one loop body

Step = tuple[str, tuple[object, ...]]


class ScheduleError(TracedslError):
    """A schedule primitive that does not fit the task."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One loop: `extent` steps of `stride` along the task's axis `root`. With `by`, a spatial leaf further inside, a
    step stands for the point `root = leaf - slope * by`, if that is one."""

    name: str
    root: str
    extent: int
    stride: int = 1
    kind: Kind = "serial"
    reduce: bool = False
    by: str = ""
    slope: int = 0

    def __str__(self) -> str:
        word = "" if self.kind == "serial" else f" {self.kind}"
        return f"{self.name}:{self.extent}{f' over {self.by}' if self.by else ''}{word}"


@dataclass(frozen=True, slots=True)
class Copy:
    """A local copy of what the loops inside leaf `at` read of `buffer`."""

    buffer: str
    at: str


@dataclass(frozen=True)
class Schedule:
    """Loop orders of one task: `loops[0]` are the shared leaves, `loops[1 + n]` those of stage n.

        >>> from tracedsl.ir.expr import Affine, Axis, Buffer, Load, Stage, Task
        >>> i, j = Axis("i", 100), Axis("j", 30)
        >>> x, y = (Buffer.row_major(n, "float32", (100, 30), "param") for n in "xy")
        >>> at = (Affine.of(i), Affine.of(j))
        >>> s = Schedule.of(Task("copy", (Stage("y", y, at, (i, j), Load("float32", x, at)),)))
        >>> print(s)
        y: i:100 j:30
    """

    loops: tuple[tuple[Leaf, ...], ...]
    stages: tuple[str, ...]
    roots: tuple[tuple[str, int], ...]
    fused: tuple[tuple[str, str, str], ...] = ()
    copies: tuple[Copy, ...] = ()
    steps: tuple[Step, ...] = ()
    virtual_at: str = ""    # inside of this leaf lies what one virtual thread does at a time
    threads: int = 1

    @staticmethod
    def of(task: Task) -> Schedule:
        """The plain schedule: axes in order, spatial before reduce, all serial."""
        shared = task.stages[0].axes[:task.shared] if task.stages else ()
        loops = [tuple(Leaf(a.name, a.name, a.extent) for a in shared)]
        for stage in task.stages:
            own = (*stage.axes[task.shared:], *stage.reduce)
            loops.append(tuple(Leaf(a.name, a.name, a.extent, reduce=a.reduce) for a in own))
        roots = tuple((leaf.root, leaf.extent) for leaves in loops for leaf in leaves)
        return Schedule(tuple(loops), tuple(stage.name for stage in task.stages), roots)

    # -- primitives --

    def split(self, axis: str, factor: int, outer: str = "", inner: str = "") -> Schedule:
        """Cut an axis into steps of `factor`; what does not divide becomes a tail.

            >>> print(_copy().split("j", 8))
            y: i:100 j_o:4 j_i:8
        """
        level, at, leaf = self._find(axis)
        _whole("split", factor, 1)
        if leaf.kind != "serial":
            raise ScheduleError("S003", f"{axis} is a {leaf.kind} loop and cannot be split",
                                hint="split before annotating")
        factor = min(factor, max(leaf.extent, 1))
        names = (outer or f"{axis}_o", inner or f"{axis}_i")
        self._new_names(names, axis)
        parts = (replace(leaf, name=names[0], extent=-(-leaf.extent // factor), stride=leaf.stride * factor),
                 replace(leaf, name=names[1], extent=factor))
        return self._with(level, _spliced(self.loops[level], at, 1, parts), "split", axis, factor, *names)

    def reorder(self, *axes: str) -> Schedule:
        """Put the named axes, in this order, into the places that they hold together.

            >>> print(_copy().reorder("j", "i"))
            y: j:30 i:100
        """
        if not axes or len(set(axes)) != len(axes):
            raise ScheduleError("S002", f"reorder({', '.join(axes)}) names an axis twice, or none")
        level = self._find(axes[0])[0]
        if any(self._find(a)[0] != level for a in axes):
            raise ScheduleError("S004", f"reorder({', '.join(axes)}) mixes axes of different stages",
                                hint="shared axes stay outside, each stage has an order of its own")
        named = {leaf.name: leaf for leaf in self.loops[level]}
        new = iter(axes)
        loops = tuple(named[next(new)] if leaf.name in axes else leaf for leaf in self.loops[level])
        return self._with(level, loops, "reorder", *axes)

    def fuse(self, outer: str, inner: str, name: str = "") -> Schedule:
        """Make one axis of two neighbours: of the two parts of a split, or of two whole axes along which every buffer
        is contiguous (checked when the task is lowered).

            >>> print(_copy().fuse("i", "j"))
            y: i_j:3000
            >>> print(_copy().split("i", 4).fuse("i_o", "i_i"))
            y: i_o_i_i:100 j:30
        """
        level, at, first = self._find(outer)
        other, next_to, second = self._find(inner)
        new = name or f"{outer}_{inner}"
        self._new_names((new,), outer)
        if level != other or next_to != at + 1 or first.reduce != second.reduce:
            raise ScheduleError("S004", f"{outer} and {inner} are not neighbours of one kind",
                                hint="reorder them first")
        if first.kind != "serial" or second.kind != "serial":
            raise ScheduleError("S003", f"{outer} and {inner} are not both serial", hint="fuse before annotating")
        if first.root == second.root and first.stride == second.stride * second.extent:
            span = self._span(level, second, first)
            merged = Leaf(new, first.root, -(-span // second.stride), second.stride, "serial", first.reduce)
            return self._with(level, _spliced(self.loops[level], at, 2, (merged,)), "fuse", outer, inner, new)
        whole = all(sum(leaf.root == x.root for leaf in self.loops[level]) == 1 for x in (first, second))
        if not whole or first.root == second.root:
            raise ScheduleError("S005", f"{outer} and {inner} cannot be fused: they are parts of different axes",
                                hint="fuse whole axes before splitting")
        merged = Leaf(new, new, first.extent * second.extent, 1, "serial", first.reduce)
        made = self._with(level, _spliced(self.loops[level], at, 2, (merged,)), "fuse", outer, inner, new)
        return replace(made, fused=(*self.fused, (first.root, second.root, new)),
                       roots=(*self.roots, (new, merged.extent)))

    def tile(self, rows: str, columns: str, height: int, width: int) -> Schedule:
        """Walk two axes in tiles of height x width.

            >>> print(_copy().tile("i", "j", 8, 16))
            y: i_o:13 j_o:2 i_i:8 j_i:16
        """
        cut = self.split(rows, height).split(columns, width)
        return cut.reorder(f"{rows}_o", f"{columns}_o", f"{rows}_i", f"{columns}_i")

    def vectorize(self, axis: str, lanes: int = 0) -> Schedule:
        """Run an axis in the lanes of a vector; with `lanes`, cut it first.

            >>> print(_copy().vectorize("j", 16))
            y: i:100 j_o:2 j_i:16 vector
        """
        if lanes:
            _whole("vectorize", lanes, 1)
            return self.split(axis, lanes).vectorize(f"{axis}_i")
        level, _, leaf = self._find(axis)
        if leaf.extent > MAX_LANES:
            raise ScheduleError("S006", f"vectorize({axis!r}) would make {leaf.extent} lanes; {MAX_LANES} is the limit",
                                hint=f"give the lanes: vectorize({axis!r}, 16)")
        for other in self._path(level):
            if other.kind == "vector":
                raise ScheduleError("S003", f"{axis} cannot be a vector loop: {other.name} is one already",
                                    why="a loop over a vector axis holds no other", hint="vectorize one axis a stage")
        return self._marked(axis, "vector", "vectorize")

    def unroll(self, axis: str, factor: int = 0) -> Schedule:
        """Write the steps of an axis out one after the other; with `factor`, cut it first.

            >>> print(_copy().unroll("j", 4))
            y: i:100 j_o:8 j_i:4 unroll
        """
        if factor:
            _whole("unroll", factor, 1)
            return self.split(axis, factor).unroll(f"{axis}_i")
        level, _, leaf = self._find(axis)
        unrolled = [leaf, *(o for o in self._path(level) if o.kind == "unroll")]
        copies = math.prod(dict(self.roots)[o.root] if o.by else o.extent for o in unrolled)
        if copies > MAX_UNROLLED:
            raise ScheduleError("S006", f"unroll({axis!r}) would make {copies} copies; {MAX_UNROLLED} is the limit",
                                hint=f"give a factor: unroll({axis!r}, 4)")
        return self._marked(axis, "unroll", "unroll")

    def parallel(self, axis: str, grain: int = 0) -> Schedule:
        """Hand the steps of an axis to all cores; with `grain`, that many steps at a time. The axis must be outermost.

            >>> print(_copy().parallel("i"))
            y: i:100 parallel j:30
        """
        if grain:
            _whole("parallel", grain, 1)
            return self.split(axis, grain).parallel(f"{axis}_o")
        level, at, leaf = self._find(axis)
        if leaf.reduce:
            raise ScheduleError("S003", f"{axis} is reduced over and cannot run in parallel",
                                hint="split the reduction (rfactor), or run another axis in parallel")
        before = self._path(level)[:at + (len(self.loops[0]) if level else 0)]
        if any(other.kind != "parallel" for other in before):
            raise ScheduleError("S004", f"{axis} is not outermost", hint="reorder it to the front first")
        return self._marked(axis, "parallel", "parallel")

    def skew(self, axis: str, by: str, slope: int = 1) -> Schedule:
        """Run a reduced axis over what it reads, not over where it stands in each window: one step is the position
        `slope * by + axis` for every `by` of a tile further inside, whose windows overlap there. What is read at that
        position is then read once for all of them (skewing: Wolf and Lam, A Loop Transformation Theory and an Algorithm
        to Maximize Parallelism, 1991).

            >>> print(_dot().split("i", 4).reorder("i_o", "k", "i_i").unroll("i_i").skew("k", "i_i"))
            y: i_o:25 k_s:67 over i_i i_i:4 unroll
        """
        level, at, leaf = self._find(axis)
        other, inside, tile = self._find(by)
        _whole("skew", slope, 1)
        if not leaf.reduce or tile.reduce or leaf.extent != dict(self.roots)[leaf.root] or tile.stride != 1:
            raise ScheduleError("S003", f"{axis} cannot be skewed by {by}", why="a whole reduced axis is skewed, by "
                                "the innermost part of a kept one", hint="skew before splitting the reduced axis")
        if level != other or inside < at or leaf.by:
            raise ScheduleError("S004", f"{axis} does not stand outside of {by}", hint="reorder it outside first")
        name = f"{axis}_s"
        self._new_names((name,), axis)
        made = replace(leaf, name=name, extent=leaf.extent + slope * (tile.extent - 1), by=by, slope=slope)
        return self._with(level, _spliced(self.loops[level], at, 1, (made,)), "skew", axis, by, slope)

    def tensorize(self, axis: str, factor: int = 0) -> Schedule:
        """Leave a reduced axis to an instruction that sums a few products at once, together with the vector around it;
        with `factor`, cut it first. Where the target has none, it is a loop like others.

            >>> print(_dot().tensorize("k", 4))
            y: i:100 k_o:16 k_i:4 tensor
        """
        if factor:
            _whole("tensorize", factor, 1)
            return self.split(axis, factor).tensorize(f"{axis}_i")
        if not self._find(axis)[2].reduce:
            raise ScheduleError("S003", f"{axis} is not reduced over and cannot be tensorized",
                                hint="instructions for tensors sum products: name a reduced axis")
        return self._marked(axis, "tensor", "tensorize")

    def cache_read(self, buffer: str, at: str) -> Schedule:
        """Copy what the loops inside axis `at` read of `buffer` to a small local array, in the order they read it.

            >>> _copy().tile("i", "j", 8, 8).cache_read("x", "j_o").copies
            (Copy(buffer='x', at='j_o'),)
        """
        self._find(at)
        if any(copy.buffer == buffer and copy.at == at for copy in self.copies):
            raise ScheduleError("S003", f"{buffer} is cached at {at} already")
        made = replace(self, copies=(*self.copies, Copy(buffer, at)))
        return replace(made, steps=(*self.steps, ("cache_read", (buffer, at))))

    def virtual(self, axis: str, threads: int = 2) -> Schedule:
        """Hand what lies from axis `axis` on inwards to virtual threads in turn, each with its own part of the local
        memories: while one computes, another one loads (Chen et al., TVM, 2018, section 4.4). For targets whose units
        run on their own; elsewhere the loops are loops like others.

            >>> print(_copy().split("i", 8).virtual("i_i"))
            y: i_o:13 i_i:8 j:30
            2 virtual threads at i_i
        """
        self._find(axis)
        _whole("virtual", threads, 1)
        made = replace(self, virtual_at=axis, threads=threads)
        return replace(made, steps=(*self.steps, ("virtual", (axis, threads))))

    # -- the whole --

    def apply(self, steps: Iterable[Sequence[Any]]) -> Schedule:
        """Run steps, such as those of another schedule. Raises `ScheduleError` S001 for an unknown primitive."""
        made = self
        for name, args in steps:
            made = _primitive(made, name)(*args)
        return made

    def as_python(self, value: str = "value") -> str:
        """The steps as a hint that can be pasted into a kernel: `hint(value).split("i", 8)...`."""
        return f"hint({value})" + "".join(f".{name}({', '.join(map(_quoted, args))})" for name, args in self.steps)

    def to_json(self) -> list[list[Any]]:
        """The steps as plain lists, for records and the cache."""
        return [[name, list(args)] for name, args in self.steps]

    @staticmethod
    def from_json(task: Task, steps: Any) -> Schedule:
        """Replay recorded steps on a task. Raises `ScheduleError` (S008 if it is no list of steps)."""
        good = isinstance(steps, list) and all(
            isinstance(s, list) and len(s) == 2 and isinstance(s[0], str) and isinstance(s[1], list) for s in steps)
        if not good:
            raise ScheduleError("S008", "a recorded schedule is no list of [primitive, arguments]")
        return Schedule.of(task).apply([(name, args) for name, args in steps])

    def leaves(self, stage: int) -> tuple[Leaf, ...]:
        """The loops of one stage inside the shared ones."""
        return self.loops[1 + stage]

    @property
    def shared(self) -> tuple[Leaf, ...]:
        return self.loops[0]

    def __str__(self) -> str:
        rows = [("shared", self.loops[0])] if self.loops[0] else []
        rows += list(zip(self.stages, self.loops[1:]))
        lines = [f"{name}: {' '.join(map(str, leaves))}".rstrip() for name, leaves in rows]
        if self.virtual_at:
            lines.append(f"{self.threads} virtual threads at {self.virtual_at}")
        return "\n".join([*lines, *(f"{copy.buffer} cached at {copy.at}" for copy in self.copies)])

    # -- helpers --

    def _find(self, axis: object) -> tuple[int, int, Leaf]:
        for level, leaves in enumerate(self.loops):
            for at, leaf in enumerate(leaves):
                if leaf.name == axis:
                    return level, at, leaf
        known = [leaf.name for leaves in self.loops for leaf in leaves]
        raise ScheduleError("S001", f"there is no axis {axis!r}", hint=nearest(str(axis), known))

    def _path(self, level: int) -> list[Leaf]:
        """The leaves that loops of this level stand among: shared ones and its own (for shared: everybody's)."""
        if level:
            return [*self.loops[0], *self.loops[level]]
        return list(self.loops[0]) + [leaf for leaves in self.loops[1:] for leaf in leaves]

    def _span(self, level: int, inner: Leaf, outer: Leaf) -> int:
        """How much of the root the two parts of a split cover: no more than an outer part leaves them, or the whole."""
        others = [x for x in self.loops[level] if x.root == inner.root and x.stride > outer.stride]
        limit = min((x.stride for x in others), default=dict(self.roots)[inner.root])
        return min(limit, outer.extent * outer.stride)

    def _new_names(self, names: Iterable[str], replaced: str) -> None:
        taken = {leaf.name for leaves in self.loops for leaf in leaves} - {replaced}
        for name in names:
            if name in taken:
                raise ScheduleError("S002", f"an axis {name!r} exists already", hint="give other names")

    def _with(self, level: int, leaves: tuple[Leaf, ...], name: str, *args: object) -> Schedule:
        loops = (*self.loops[:level], leaves, *self.loops[level + 1:])
        return replace(self, loops=loops, steps=(*self.steps, (name, args)))

    def _marked(self, axis: str, kind: Kind, name: str) -> Schedule:
        level, at, leaf = self._find(axis)
        if leaf.kind != "serial":
            raise ScheduleError("S003", f"{axis} is a {leaf.kind} loop already", hint="annotate each axis once")
        return self._with(level, _spliced(self.loops[level], at, 1, (replace(leaf, kind=kind),)), name, axis)


PRIMITIVES = ("split", "reorder", "fuse", "tile", "vectorize", "unroll", "parallel", "skew", "tensorize", "cache_read",
              "virtual")


def _primitive(schedule: Schedule, name: str) -> Callable[..., Schedule]:
    if name not in PRIMITIVES:
        raise ScheduleError("S001", f"there is no schedule primitive {name!r}", hint=nearest(name, PRIMITIVES))
    method: Callable[..., Schedule] = getattr(schedule, name)
    return method


def _spliced(leaves: tuple[Leaf, ...], at: int, count: int, new: tuple[Leaf, ...]) -> tuple[Leaf, ...]:
    return (*leaves[:at], *new, *leaves[at + count:])


def _whole(what: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ScheduleError("S002", f"{what} takes a whole number of at least {least}, not {value!r}")


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _dot() -> Schedule:
    """y[i] = add[k] x[i, k]."""
    leaves = (Leaf("i", "i", 100), Leaf("k", "k", 64, reduce=True))
    return Schedule(((), leaves), ("y",), (("i", 100), ("k", 64)))


def _copy() -> Schedule:
    """The schedule of the examples above: y[i, j] = x[i, j]."""
    leaves = (Leaf("i", "i", 100), Leaf("j", "j", 30))
    return Schedule(((), leaves), ("y",), (("i", 100), ("j", 30)))
