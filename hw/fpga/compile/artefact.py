"""A loop program as what the target keeps: machine code of the host's parts, instruction streams of the accelerator's.

What holds here: plain data (`Plan`, JSON). Every stream has passed the checker. Cycles are those of the timing model,
for the memory that the target was made for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracedsl.hw.cpu.executable import ArrayLayout
from tracedsl.hw.fpga.checker import check
from tracedsl.hw.fpga.compile.emit import phases, refuse_overflow
from tracedsl.hw.fpga.compile.layout import vectors_of
from tracedsl.hw.fpga.compile.segments import Segment, covered, forms_of, segments
from tracedsl.hw.fpga.compile.stream import joined, stream
from tracedsl.hw.fpga.compile.tile import Tile
from tracedsl.hw.fpga.compile.work import Form, Work
from tracedsl.hw.fpga.config import Config, Dram
from tracedsl.hw.fpga.isa import Finish, Gemm, Instruction, Load, Store
from tracedsl.hw.fpga.timing import Timeline, timeline
from tracedsl.ir.expr import Buffer
from tracedsl.ir.loops import LoopProgram

COUNTS = ("cycles", "steps", "loaded", "stored", "instructions")


@dataclass(frozen=True)
class Placed:
    """A tensor in the accelerator's memory: its first vector; whether it is packed before, and unpacked after."""

    form: Form
    at: int
    before: bool
    after: bool

    def to_json(self) -> dict[str, Any]:
        f = self.form
        layout = ArrayLayout.of(f.buffer)
        return {"array": [layout.name, layout.dtype, list(layout.shape), list(layout.strides)], "format": f.format,
                "lanes": list(f.lanes), "spread": f.spread, "at": self.at, "before": self.before, "after": self.after}


@dataclass(frozen=True)
class Launch:
    """A segment of the accelerator, as instructions."""

    program: tuple[Instruction, ...]
    tensors: tuple[Placed, ...]
    vectors: int
    timeline: Timeline

    def counts(self, config: Config) -> dict[str, int]:
        """What the report needs: cycles, steps of the array, bytes moved, instructions."""
        loaded = sum(i.rows * i.cols * config.element_bytes(i.target.name.lower())
                     for i in self.program if isinstance(i, Load))
        stored = sum(i.rows * i.cols * config.element_bytes("acc" if i.wide else "inp")
                     for i in self.program if isinstance(i, Store))
        steps = sum(i.steps for i in self.program if isinstance(i, Gemm))
        return dict(zip(COUNTS, (self.timeline.cycles, steps, loaded, stored, len(self.program))))


def plan(program: LoopProgram, config: Config, dram: Dram) -> list[Segment | tuple[Segment, Launch]]:
    """The segments of a program, those of the accelerator with their instructions."""
    found = segments(program)
    made: list[Segment | tuple[Segment, Launch]] = []
    for at, segment in enumerate(found):
        if not segment.offloads:
            made.append(segment)
            continue
        outside = {b.name for b in (*program.params, *program.results)}
        later = set().union(*(other.reads for other in found[at + 1:]), outside)
        made.append((segment, launch(segment, later, config, dram)))
    return made


def launch(segment: Segment, later: set[str], config: Config, dram: Dram) -> Launch:
    """A segment's instructions; `later` are the buffers that are read after it. Raises FpgaError if it does not fit."""
    written = {offload.work.out.form.key for offload in segment.offloads}
    tensors, at = [], 0
    for form in forms_of(segment):
        before = form.key not in written or not covered(segment, form)
        tensors.append(Placed(form, at, before, form.key in written and form.buffer.name in later))
        at += vectors_of(form, config.block)
    places = {placed.form.key: placed.at for placed in tensors}
    program = instructions([(o.work, o.tile) for o in segment.offloads], config, places)
    check(program, config, at)
    return Launch(program, tuple(tensors), at, timeline(program, config, dram))


def instructions(works: Sequence[tuple[Work, Tile]], config: Config, places: Mapping[tuple[object, ...], int],
                 ) -> tuple[Instruction, ...]:
    """The stream of some tasks, one after the other."""
    tasks = []
    for work, tile in works:
        refuse_overflow(work, tile, config)
        tasks.append(stream(list(phases(work, tile, config, lambda form: places[form.key])), tile.threads))
    return (*joined(tasks), Finish())


def cycles(work: Work, tile: Tile, config: Config, dram: Dram) -> int:
    """What a task takes by itself, by the timing model. Raises FpgaError (H068) if a tile does not fit."""
    places: dict[tuple[object, ...], int] = {}
    at = 0
    for operand in (*work.operands, work.out):
        if operand.form.key not in places:
            places[operand.form.key] = at
            at += vectors_of(operand.form, config.block)
    return timeline(instructions([(work, tile)], config, places), config, dram).cycles


def host_program(segment: Segment, program: LoopProgram, number: int) -> LoopProgram:
    """A run of nests of the host as a program of its own: what it writes are its results."""
    buffers: dict[str, Buffer] = {b.name: b for b in (*program.params, *program.results, *program.temps)}
    writes = segment.writes
    reads = sorted(segment.reads - writes)
    return LoopProgram(f"{program.name}_{number}", tuple(buffers[n] for n in reads),
                       tuple(buffers[n] for n in sorted(writes)), (), segment.nests)
