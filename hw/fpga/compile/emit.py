"""The instructions of one task, phase by phase: what is loaded, what is computed with it, what is stored.

What holds here: a phase uses one slot of `inp`, `wgt` and `aux`; the phases of a tile share a slot of `acc`. Slots are
taken in turn by virtual threads. Tokens are not set here (`stream`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tracedsl.hw.fpga.compile.boxes import Box, Ranges, box, bursts
from tracedsl.hw.fpga.compile.loops import Loop, instructions
from tracedsl.hw.fpga.compile.tile import Tile
from tracedsl.hw.fpga.compile.work import Form, Operand, Region, Step, Work
from tracedsl.hw.fpga.config import MAX_BURST, Config, FpgaError
from tracedsl.hw.fpga.isa import Alu, Gemm, Load, Op, Start, Store, Target, Walk
from tracedsl.hw.fpga.isa import Operand as From
from tracedsl.ir.expr import Axis

AddressOf = Callable[[Form], int]  # where a tensor lies, in vectors
_FROM = {"inp": From.INP, "aux": From.AUX}


@dataclass
class Phase:
    """`slot` is what the phase's loads are for; `tile` counts the tiles of results, `stores` end one."""

    tile: int
    loads: list[Load] = field(default_factory=list)
    computes: list[Gemm | Alu] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)


def phases(work: Work, tile: Tile, config: Config, address: AddressOf) -> Iterator[Phase]:
    """The phases of a task, in the order in which they compute."""
    emitter = _Emitter(work, tile, config, address)
    number = 0
    for count, ranges in enumerate(tile.outer(work, config.block)):
        for phase in emitter.tile_phases(ranges, count, number):
            number += 1
            yield phase


def footprint(work: Work, tile: Tile, config: Config) -> dict[str, int]:
    """The most elements of each scratchpad that one slot needs."""
    block, ranges = config.block, tile.largest(work, config.block)
    first = [o for o in (work.data, work.weights, work.epilogue.start) if o is not None]
    sizes = dict.fromkeys(("inp", "wgt", "aux"), 0)
    for part in (first, work.epilogue.operands):
        for memory in sizes:
            needed = sum(box(o, ranges, block).elements for o in dict.fromkeys(part) if _memory(work, o) == memory)
            sizes[memory] = max(sizes[memory], needed)
    return {**sizes, "acc": box(work.out, ranges, block).elements * work.epilogue.regions}


def fits(work: Work, tile: Tile, config: Config) -> bool:
    return all(n <= config.depth(memory) // tile.threads for memory, n in footprint(work, tile, config).items())


def refuse_overflow(work: Work, tile: Tile, config: Config) -> None:
    """Raises FpgaError (H068) if a tile does not fit a scratchpad."""
    for memory, needed in footprint(work, tile, config).items():
        room = config.depth(memory) // tile.threads
        if needed > room:
            why = f"{config.depth(memory)} elements, shared by virtual threads: {tile.threads}"
            what = f"a tile of {work.stage.name} needs {needed} elements of {memory}; there are {room}"
            raise FpgaError("H068", what, why=why, hint="make tiles smaller, or take one virtual thread")


def _memory(work: Work, operand: Operand) -> str:
    return "wgt" if work.kind == "diag" and operand is work.weights else operand.memory


class _Emitter:
    def __init__(self, work: Work, tile: Tile, config: Config, address: AddressOf) -> None:
        self.work, self.tile, self.config, self.address = work, tile, config, address
        self.block = config.block

    def tile_phases(self, ranges: Ranges, tile: int, number: int) -> Iterator[Phase]:
        """`number` counts the phases so far."""
        work = self.work
        result = box(work.out, ranges, self.block)
        acc = tile % self.tile.threads * (self.config.acc_depth // self.tile.threads)
        phase: Phase | None = None
        if work.kind != "map":
            for at, chunk in enumerate(self.tile.chunks(work, ranges, self.block)):
                if phase is not None:
                    yield phase
                phase = Phase(tile)
                self._sum(phase, number, chunk, result, acc, at == 0)
                number += 1
        if phase is None or work.epilogue.operands:
            if phase is not None:
                yield phase
            phase = Phase(tile)
        self._epilogue(phase, number if work.epilogue.operands else 0, ranges, result, acc)
        self._stores(phase, result, acc + work.epilogue.result * result.elements)
        yield phase

    # -- the sum --

    def _sum(self, phase: Phase, number: int, ranges: Ranges, result: Box, acc: int, first: bool) -> None:
        work, used = self.work, {"inp": 0, "wgt": 0, "aux": 0}
        assert work.data is not None
        data, at = self._load(phase, work.data, number, ranges, used)
        weights, tiles = self._load(phase, work.weights, number, ranges, used) if work.weights else (None, 0)
        start = work.epilogue.start if first else None
        bias, biases = self._load(phase, start, number, ranges, used) if start else (None, 0)
        loops = [Loop(ranges[axis][1], result.steps.get(axis, 0), _step(data, axis), _step(weights, axis),
                      _step(bias, axis), axis in work.reduce) for axis in (*work.reduce, *work.spatial)]
        for step in instructions(loops, (acc, at, tiles, biases)):
            fresh = first and step.begins
            once = fresh and step.once
            if work.kind == "pool":
                op = Op.MOV if fresh and not once else work.combine
                phase.computes.append(Alu(op=op, operand=_FROM[work.data.memory], counts=step.counts, acc=step.acc,
                                          src=step.first, interval=step.interval, once=once))
                continue
            begin = (Start.AUX if bias else Start.ZERO) if fresh else Start.ACC
            phase.computes.append(Gemm(counts=step.counts, acc=step.acc, inp=step.first, wgt=step.second,
                                       aux=step.third if begin is Start.AUX else Walk(), start=begin, once=once,
                                       interval=step.interval))

    # -- what follows --

    def _epilogue(self, phase: Phase, number: int, ranges: Ranges, result: Box, acc: int) -> None:
        loaded: dict[Operand, tuple[Box, int]] = {}
        used = {"inp": 0, "wgt": 0, "aux": 0}
        for operand in self.work.epilogue.operands:
            if operand not in loaded:
                loaded[operand] = self._load(phase, operand, number, ranges, used)
        for step in self.work.epilogue.steps:
            phase.computes += self._alu(step, loaded, ranges, result, acc)

    def _alu(self, step: Step, loaded: dict[Operand, tuple[Box, int]], ranges: Ranges, result: Box,
             acc: int) -> Iterator[Alu]:
        part, base, source, imm = None, 0, From.IMM, 0
        match step.source:
            case Operand():
                part, base = loaded[step.source]
                source = _FROM[step.source.memory]
            case Region(number=number):
                part, base, source = result, acc + number * result.elements, From.ACC
            case number:
                imm = number
        loops = [Loop(ranges[axis][1], result.steps.get(axis, 0), _step(part, axis)) for axis in self.work.spatial]
        for steps in instructions(loops, (acc + step.target * result.elements, base, 0, 0)):
            yield Alu(op=step.op, operand=source, counts=steps.counts, acc=steps.acc, imm=imm,
                      src=steps.first if part else Walk(), interval=2 if source is From.ACC else 1)

    # -- to and from memory --

    def _load(self, phase: Phase, operand: Operand, number: int, ranges: Ranges,
              used: dict[str, int]) -> tuple[Box, int]:
        """Load what a tile needs of an operand: the box, and where it lies in the scratchpad."""
        memory, form = _memory(self.work, operand), operand.form
        target = Target.DIAG if memory == "wgt" and form.format == "narrow" else Target[memory.upper()]
        part = box(operand, ranges, self.block)
        base = number % self.tile.threads * (self.config.depth(memory) // self.tile.threads) + used[memory]
        used[memory] += part.elements
        unit, start = vectors(form, self.block), self.address(form)
        for burst in bursts(part, MAX_BURST // self.config.beats(target.name.lower())):
            phase.loads.append(Load(target=target, at=base + burst.at, dram=start + burst.first * unit, rows=burst.rows,
                                    cols=burst.cols, stride=burst.stride * unit))
        return part, base

    def _stores(self, phase: Phase, result: Box, at: int) -> None:
        end, form = self.work.epilogue, self.work.out.form
        wide = form.format == "wide"
        unit, start = vectors(form, self.block), self.address(form)
        scaled = {"multiplier": end.multiplier, "shift": end.shift, "low": end.low, "high": end.high}
        kept: dict[str, Any] = {} if wide else scaled
        for burst in bursts(result, MAX_BURST // self.config.beats("acc" if wide else "inp")):
            phase.stores.append(Store(at=at + burst.at, dram=start + burst.first * unit, rows=burst.rows,
                                      cols=burst.cols, pitch=burst.pitch, stride=burst.stride * unit, wide=wide,
                                      **kept))


def _step(part: Box | None, axis: Axis) -> int:
    return part.steps.get(axis, 0) if part is not None else 0


def vectors(form: Form, block: int) -> int:
    """Vectors of one element."""
    return {"narrow": 1, "wide": 4, "tile": block}[form.format]
