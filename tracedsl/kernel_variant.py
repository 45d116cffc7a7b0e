"""A variant: one specialisation of a kernel, ready to be called, kept on disk and loaded from there.

What holds here: a variant loaded from disk traces nothing and compiles nothing. Arrays are passed where they are;
only what machine code cannot read (byte-swapped or misaligned memory) is copied. Results are new arrays, or the
argument or view of it that NumPy would return. A stored entry that does not fit is a miss, never wrong code.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tracedsl.cache import Key, Store
from tracedsl.capture.tensor.arguments import Bound
from tracedsl.capture.tensor.environment import Snapshot
from tracedsl.capture.tensor.outputs import Argument, Interface, Outer
from tracedsl.diagnostics import TracedslError, Unsupported
from tracedsl.hw.target import Artefact, Runnable, Target

if TYPE_CHECKING:
    from tracedsl.kernel import Stages

Array = np.ndarray[Any, Any]
Layout = tuple[str, tuple[int, ...]]     # dtype and shape


@dataclass(frozen=True)
class Origin:
    """Where a variant comes from. `why`: why it had to be compiled; `seconds`: what its stages took when it was."""

    cached: bool
    why: str
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What `explain()` tells of a variant: texts that the stages left."""

    signature: str
    passes: tuple[str, ...]
    tasks: tuple[str, ...]
    schedules: tuple[str, ...]
    places: tuple[str, ...] = ()     # of each task, where a target has more than one
    notes: tuple[str, ...] = ()      # of the target, on the whole

    def to_json(self) -> dict[str, Any]:
        return {"signature": self.signature, "passes": list(self.passes), "tasks": list(self.tasks),
                "schedules": list(self.schedules), "places": list(self.places), "notes": list(self.notes)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Report:
        return Report(str(data["signature"]), tuple(data["passes"]), tuple(data["tasks"]), tuple(data["schedules"]),
                      tuple(data["places"]), tuple(data["notes"]))


@dataclass(frozen=True, eq=False)
class Variant:
    """Machine code with the way in and out. `params` are the graph's parameters, `constants` further arrays that the
    code reads, `results` what it writes. What goes into an argument is written there at once if it is `in_place`."""

    interface: Interface
    params: tuple[Layout, ...]
    results: tuple[Layout, ...]
    constants: tuple[Array, ...]
    runnable: Runnable
    report: Report
    origin: Origin
    in_place: frozenset[int] = frozenset()

    def __call__(self, bound: Bound, snapshot: Snapshot) -> Any:
        """One call. Raises what Python raises while it computes numbers that are arguments."""
        outer = snapshot.leaves
        given = self.interface.gather(bound.leaves, outer)
        copied = self._copied(bound, snapshot) if bound.copies or outer else ()
        inputs = [value if type(value) is np.ndarray and at not in copied else _as_input(value, self.params[at][0])
                  for at, value in enumerate(given)]
        targets = {index: bound.leaves[leaf] for leaf, index in self.interface.writes
                   if index in self.in_place and _can_be_written(bound.leaves[leaf])} if self.in_place else {}
        results = [targets[i] if i in targets else self.runnable.empty(shape, dtype)
                   for i, (dtype, shape) in enumerate(self.results)]
        self.runnable.run([address_of(array) for array in (*inputs, *self.constants, *results)])
        return self.interface.assemble(results, bound.leaves, outer)

    def _copied(self, bound: Bound, snapshot: Snapshot) -> list[int]:
        """The positions of inputs that machine code cannot read where they are."""
        sources = {Argument(i) for i in bound.copies} | {Outer(i) for i in snapshot.copies()}
        return [at for at, source in enumerate(self.interface.inputs) if source in sources]

    def because(self, why: str) -> Variant:
        """The same variant, with the reason why it was compiled."""
        return replace(self, origin=replace(self.origin, why=why))


def _can_be_written(array: Array) -> bool:
    """Whether machine code can write its result straight into the array."""
    return bool(array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative)


def separate(bound: Bound, snapshot: Snapshot, written: Sequence[int]) -> Bound:
    """The call again, with `aliases` if an array that is written is given more than once.

    Raises `Unsupported` C011 where only NumPy knows what happens: a written array is read-only, overlaps itself, or
    overlaps another one without being the same."""
    leaves = bound.leaves
    first = {id(leaf): i for i, leaf in reversed(list(enumerate(leaves)))}
    for leaf in written:
        array = leaves[leaf]
        others = [a for a in (*leaves, *snapshot.leaves) if isinstance(a, np.ndarray) and a is not array]
        if not array.flags.writeable:
            raise Unsupported("C011", "an argument that is written is read-only", why="NumPy says so, too")
        if _overlaps_itself(array):
            raise Unsupported("C011", "an argument that is written overlaps itself", hint="pass a copy")
        if any(np.may_share_memory(array, other) for other in others):
            raise Unsupported("C011", "an argument that is written overlaps another one",
                              why="what is read after the write depends on how", hint="pass a copy of one of them")
    aliases = tuple(first[id(leaf)] if i in written or first[id(leaf)] in written else i
                    for i, leaf in enumerate(leaves))
    return replace(bound, aliases=aliases) if aliases != tuple(range(len(leaves))) else bound


def _overlaps_itself(array: Array) -> bool:
    """Whether two elements may share bytes; views that NumPy's indexing makes never do."""
    reach = array.itemsize - 1
    for stride, extent in sorted((abs(stride), extent) for stride, extent in zip(array.strides, array.shape)):
        if extent > 1:
            if stride <= reach:
                return True
            reach += stride * (extent - 1)
    return False


def _as_input(value: Any, dtype: str) -> Array:
    """A number, a NumPy scalar or an unreadable array as a contiguous array of the dtype that the code reads."""
    with np.errstate(all="ignore"):
        return np.array(value, dtype=dtype, order="C")


def _address_reader() -> Callable[[Array], int]:
    """How to find an array's memory. NumPy keeps the address behind the object's header; where that does not hold,
    which is tried here, NumPy's own slower way is taken."""
    offset, probe = object.__basicsize__, np.arange(3)
    read = ctypes.c_size_t.from_address
    if sys.implementation.name == "cpython" and read(id(probe) + offset).value == probe.ctypes.data:
        return lambda array: read(id(array) + offset).value
    return lambda array: int(array.ctypes.data)


address_of = _address_reader()


def make_variant(made: Stages, artefact: Artefact, on: Target, seconds: Mapping[str, float]) -> Variant:
    """A variant from what the stages made."""
    graph = made.captured.graph
    constants = tuple(np.ascontiguousarray(c) for c in made.tasks.constants)
    return Variant(made.captured.interface, _layouts(graph.params), _layouts(graph.results), constants,
                   on.load(artefact.blobs, artefact.meta), _report(made, artefact), Origin(False, "", dict(seconds)),
                   _in_place(made))


def _in_place(made: Stages) -> frozenset[int]:
    """The results that may be written to where the argument lies that they go to."""
    from tracedsl.rewrite.tensor.memory import may_overwrite

    slots = {source.index: i for i, source in enumerate(made.captured.interface.inputs) if isinstance(source, Argument)}
    tasks = made.tasks
    return frozenset(index for leaf, index in made.captured.interface.writes if leaf not in slots
                     or may_overwrite(tasks, tasks.params[slots[leaf]], tasks.results[index]))


def store_variant(store: Store, key: Key, variant: Variant, artefact: Artefact) -> bool:
    """Keep a variant on disk; False if it cannot be kept (a result of a class without a name, a full disk)."""
    try:
        interface = variant.interface.to_json()
    except Unsupported:
        return False
    constants = {f"constant.{i}": c.tobytes() for i, c in enumerate(variant.constants)}
    meta = {
        "interface": interface, "code": dict(artefact.meta), "params": variant.params, "results": variant.results,
        "constants": [(c.dtype.name, c.shape) for c in variant.constants], "report": variant.report.to_json(),
        "seconds": dict(variant.origin.seconds), "in_place": sorted(variant.in_place),
    }
    return store.put(key, {**artefact.blobs, **constants}, meta, durable=False)


def load_variant(store: Store, key: Key, on: Target) -> Variant | None:
    """The variant on disk; None if there is none, or none that fits."""
    entry = store.get(key)
    if entry is None:
        return None
    meta, blobs = entry.meta, entry.blobs
    try:
        constants = tuple(np.frombuffer(blobs[f"constant.{i}"], dtype).reshape(shape)
                          for i, (dtype, shape) in enumerate(meta["constants"]))
        return Variant(Interface.from_json(meta["interface"]), _from_json(meta["params"]), _from_json(meta["results"]),
                       constants, on.load(blobs, meta["code"]), Report.from_json(meta["report"]),
                       Origin(True, "", dict(meta["seconds"])), frozenset(map(int, meta["in_place"])))
    except (KeyError, TypeError, ValueError, ImportError, AttributeError, TracedslError):
        return None


def _layouts(nodes: Sequence[Any]) -> tuple[Layout, ...]:
    return tuple((node.type.dtype, node.type.shape) for node in nodes)


def _from_json(rows: Sequence[Any]) -> tuple[Layout, ...]:
    return tuple((str(dtype), tuple(map(int, shape))) for dtype, shape in rows)


def _report(made: Stages, artefact: Artefact) -> Report:
    from tracedsl.ir.expr import task_text

    graph = made.captured.graph
    params = ", ".join(f"{p.attr('name')}: {p.type}" for p in graph.params)
    results = ", ".join(str(node.type) for node in graph.results)
    passes = tuple(str(record) for record in made.rewritten.records if record.changed)
    return Report(f"({params}) -> {results or 'nothing computed'}", passes,
                  tuple(map(task_text, made.tasks.tasks)), tuple(map(str, made.schedules)), made.places,
                  tuple(map(str, artefact.meta.get("notes", ()))))
