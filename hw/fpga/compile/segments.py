"""Which tasks run where, and when: runs of tasks on the host and on the accelerator, in turn.

What holds here: a task comes after all that it depends on; within that, tasks of one kind are put together, so that
data changes its layout as seldom as can be. Inside of a segment of the accelerator a tensor lies in one form only: a
task that wants another form of what the segment wrote begins a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tracedsl.hw.fpga.compile.offload import Offload, offload_of
from tracedsl.hw.fpga.compile.work import Form
from tracedsl.ir.expr import Buffer, Load, walk
from tracedsl.ir.loops import LoopProgram, Nest, Store, Update, statements


@dataclass(frozen=True)
class Segment:
    """Nests that run one after the other in one place; `offloads` is empty on the host."""

    nests: tuple[Nest, ...]
    offloads: tuple[Offload, ...] = ()

    @property
    def reads(self) -> set[str]:
        return set().union(*(touched(nest)[0] for nest in self.nests))

    @property
    def writes(self) -> set[str]:
        return set().union(*(touched(nest)[1] for nest in self.nests))


def touched(nest: Nest) -> tuple[set[str], set[str]]:
    """Names of the buffers that a nest reads, and that it writes."""
    if (found := offload_of(nest)) is not None:
        return {o.form.buffer.name for o in found.work.operands}, {found.work.out.form.buffer.name}
    own = {b.name for b in nest.params}
    reads, writes = set(), set()
    for step in statements(*nest.body):
        if isinstance(step, Store | Update):
            writes.add(step.buffer.name)
            reads |= {e.buffer.name for e in walk(step.value) if isinstance(e, Load)}
    return reads & own, writes & own


def segments(program: LoopProgram) -> list[Segment]:
    """The nests of a program, in an order that runs."""
    waiting = list(program.nests)
    found: list[Segment] = []
    while waiting:
        for chosen in (_host(waiting), _accelerator(waiting)):
            if chosen:
                offloads = tuple(o for nest in chosen if (o := offload_of(nest)) is not None)
                found.append(Segment(tuple(chosen), offloads))
                waiting = [nest for nest in waiting if nest not in chosen]
    return found


def _host(waiting: Sequence[Nest]) -> list[Nest]:
    chosen: list[Nest] = []
    for at, nest in enumerate(waiting):
        if offload_of(nest) is None and not _depends(nest, [n for n in waiting[:at] if n not in chosen]):
            chosen.append(nest)
    return chosen


def _accelerator(waiting: Sequence[Nest]) -> list[Nest]:
    chosen: list[Nest] = []
    forms: dict[str, set[tuple[object, ...]]] = {}
    written: set[str] = set()
    for at, nest in enumerate(waiting):
        offload = offload_of(nest)
        if offload is None or _depends(nest, [n for n in waiting[:at] if n not in chosen]):
            continue
        out = offload.work.out.form
        reads = [o.form for o in offload.work.operands]
        fits = all(f.buffer.name not in written or {f.key} == forms[f.buffer.name] for f in reads)
        if not fits or forms.get(out.buffer.name, {out.key}) != {out.key}:
            continue
        chosen.append(nest)
        written.add(out.buffer.name)
        for form in (*reads, out):
            forms.setdefault(form.buffer.name, set()).add(form.key)
    return chosen


def _depends(nest: Nest, earlier: Iterable[Nest]) -> bool:
    reads, writes = touched(nest)
    for other in earlier:
        read, wrote = touched(other)
        if wrote & (reads | writes) or read & writes:
            return True
    return False


def forms_of(segment: Segment) -> tuple[Form, ...]:
    """Every form that a segment of the accelerator needs in memory, once."""
    found: dict[tuple[object, ...], Form] = {}
    for offload in segment.offloads:
        for operand in (*offload.work.operands, offload.work.out):
            found.setdefault(operand.form.key, operand.form)
    return tuple(found.values())


def covered(segment: Segment, form: Form) -> bool:
    """Whether the segment writes all of a tensor before it could read it."""
    for offload in segment.offloads:
        work = offload.work
        if any(o.form.key == form.key for o in work.operands):
            return False
        if work.out.form.key == form.key:
            buffer: Buffer = form.buffer
            extents = {axis.name: axis.extent for axis in work.stage.axes}
            return all((not place.constant and sum(extents[a.name] for a, _ in place.terms) == size) or size == 1
                       for place, size in zip(work.stage.index, buffer.shape))
    return False
