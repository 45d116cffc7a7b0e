"""Register buffers: every element, or vector of elements, is one SSA value.

What holds here: an entry is a run of lanes `offset, offset + step, ...` of a buffer; entries never share an element.
Reading what was written as it was written costs nothing; any other way of reading or writing takes lanes apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tracedsl.hw.cpu.codegen_error import malformed
from tracedsl.hw.cpu.codegen_memory import Bindings, flat
from tracedsl.hw.cpu.codegen_place import Places
from tracedsl.hw.cpu.emitter import Value, undefined, vec
from tracedsl.ir.expr import Affine, Buffer, Index


@dataclass(frozen=True, slots=True)
class Run:
    """Elements of a buffer: `lanes` of them, `step` apart."""

    offset: int
    lanes: int = 1
    step: int = 0

    def elements(self) -> range:
        step = self.step or 1
        return range(self.offset, self.offset + self.lanes * step, step)


class Registers:
    """The content of the register buffers at the current place of one function."""

    def __init__(self, places: Places, bindings: Bindings) -> None:
        self._places, self._f, self._bindings = places, places.f, bindings
        self._values: dict[str, dict[Run, Value]] = {}
        self._owner: dict[str, dict[int, Run]] = {}

    def add(self, buffer: Buffer) -> None:
        """From here on the buffer exists; its content is undefined."""
        self._values[buffer.name], self._owner[buffer.name] = {}, {}

    def remove(self, buffer: Buffer) -> None:
        del self._values[buffer.name], self._owner[buffer.name]

    def __contains__(self, buffer: Buffer) -> bool:
        return buffer.name in self._values

    def run(self, buffer: Buffer, index: Sequence[Index]) -> Run:
        """The elements that an index means here."""
        if not all(isinstance(at, Affine) for at in index):
            raise malformed(f"register buffer {buffer.name!r} is indexed by a computed value")
        spot = self._bindings.spot(flat(buffer, index))
        if spot.terms:
            raise malformed(f"register buffer {buffer.name!r} is indexed by the loop {spot.terms[0][0].name!r}")
        return Run(spot.constant, self._bindings.lanes, spot.step) if spot.step else Run(spot.constant)

    def read(self, name: str, run: Run) -> Value:
        values = self._values[name]
        if run in values:
            return values[run]
        parts = [self._element(name, at) for at in run.elements()]
        if run.lanes == 1:
            return parts[0]
        result = undefined(vec(parts[0].type, run.lanes))
        for lane, part in enumerate(parts):
            result = self._places.with_lane(result, part, lane)
        return result

    def write(self, name: str, run: Run, value: Value) -> None:
        values, owner = self._values[name], self._owner[name]
        if run not in values:
            self._clear(name, run)
        values[run] = value
        owner.update(dict.fromkeys(run.elements(), run))
        self._places.forget(name)

    def entries(self, names: frozenset[str]) -> list[tuple[str, Run, Value]]:
        """What the buffers of these names hold."""
        return [(name, run, value) for name in self._values if name in names
                for run, value in self._values[name].items()]

    def replace(self, name: str, run: Run, value: Value) -> None:
        """Put a phi in the place of an entry."""
        self._values[name][run] = value
        self._places.forget(name)

    def reset(self, names: frozenset[str], entries: Sequence[tuple[str, Run, Value]]) -> None:
        """Let the buffers of these names hold these entries and nothing else."""
        for name in names & self._values.keys():
            self._values[name], self._owner[name] = {}, {}
        for name, run, value in entries:
            self.write(name, run, value)

    def _element(self, name: str, at: int) -> Value:
        run = self._owner[name].get(at)
        if run is None:
            raise malformed(f"element {at} of register buffer {name!r} is read before it is written")
        value = self._values[name][run]
        lane = run.elements().index(at)
        return self._places.lane(value, lane)

    def _clear(self, name: str, run: Run) -> None:
        """Take apart the entries that share elements with `run`, and drop those elements."""
        values, owner = self._values[name], self._owner[name]
        meant = set(run.elements())
        for other in {owner[at]: None for at in run.elements() if at in owner}:
            kept = {at: self._element(name, at) for at in other.elements() if at not in meant}
            del values[other]
            for at in other.elements():
                del owner[at]
            for at, value in kept.items():
                values[Run(at)] = value
                owner[at] = Run(at)

