"""Two instructions that touch the same place, one of them writing, must be ordered by tokens.

What holds here: the order that counts is "done before it starts": what a unit does itself comes in its queue's order,
and a token carries what its giver had done or knew of. (A vector clock a unit, after Fidge 1988; each place remembers
who wrote and who read it last.) Fetch is not in it: a program must not write to itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracedsl.hw.fpga.assembly import line
from tracedsl.hw.fpga.config import Config, FpgaError
from tracedsl.hw.fpga.isa import Alu, Finish, Gemm, Instruction, Load, Operand, Program, Start, Store, Unit
from tracedsl.hw.fpga.order import CHANNELS, flow
from tracedsl.hw.fpga.walks import rows, walk

Clock = tuple[int, int, int]
Access = tuple[str, Any, bool]  # memory, indices or a slice, writes


def refuse_races(program: Program, order: list[int], config: Config, vectors: int) -> None:
    """Raises FpgaError (H064) with the two instructions. `order` is one in which the program may run."""
    places = {name: _Places(config.depth(name)) for name in ("inp", "wgt", "acc", "aux")} | {"memory": _Places(vectors)}
    done: dict[Unit, Clock] = dict.fromkeys(Unit, (0, 0, 0))
    carried: dict[tuple[Unit, Unit], deque[Clock]] = {channel: deque() for channel in CHANNELS}
    numbers: dict[Unit, list[int]] = {unit: [] for unit in Unit}
    for at in order:
        instruction = program[at]
        assert not isinstance(instruction, Finish)
        unit, tokens = instruction.unit, flow(instruction)
        clock = list(done[unit])
        for channel in tokens.takes:
            clock = [max(pair) for pair in zip(clock, carried[channel].popleft(), strict=True)]
        numbers[unit].append(at)
        clock[unit] = len(numbers[unit])
        for memory, where, writes in accesses(instruction, config):
            if (found := places[memory].touch(where, unit, (clock[0], clock[1], clock[2]), writes)) is not None:
                raise _race(program, at, numbers[found[0]][found[1] - 1], memory)
        done[unit] = (clock[0], clock[1], clock[2])
        for channel in tokens.gives:
            carried[channel].append(done[unit])


class _Places:
    """For each place and unit, the number of the unit's last write and last read (0: none)."""

    def __init__(self, count: int) -> None:
        self.wrote: NDArray[np.int32] = np.zeros((3, count), np.int32)
        self.read: NDArray[np.int32] = np.zeros((3, count), np.int32)

    def touch(self, where: Any, unit: Unit, clock: Clock, writes: bool) -> tuple[Unit, int] | None:
        """Note an access; the unit and number of an earlier one that is not known to be done, if there is one."""
        for other in Unit:
            if other is unit:
                continue
            for seen in (self.wrote, self.read) if writes else (self.wrote,):
                latest = int(seen[other][where].max())
                if latest > clock[other]:
                    return other, latest
        (self.wrote if writes else self.read)[unit][where] = clock[unit]
        return None


def accesses(instruction: Instruction, config: Config) -> Iterator[Access]:
    """What an instruction reads and writes, element by element (memory: vector by vector)."""
    match instruction:
        case Load():
            name = instruction.target.name.lower()
            cols = instruction.cols * config.element_bytes(name) // config.block
            yield "memory", instruction.dram + rows(instruction.rows, cols, instruction.stride), False
            yield instruction.target.memory, slice(instruction.at, instruction.at + instruction.elements), True
        case Store():
            cols = instruction.cols * (4 if instruction.wide else 1)
            yield "acc", instruction.at + rows(instruction.rows, instruction.cols, instruction.pitch), False
            yield "memory", instruction.dram + rows(instruction.rows, cols, instruction.stride), True
        case Gemm():
            yield "inp", walk(instruction.counts, instruction.inp), False
            yield "wgt", walk(instruction.counts, instruction.wgt), False
            if instruction.start is Start.AUX:
                yield "aux", walk(instruction.counts, instruction.aux), False
            yield "acc", walk(instruction.counts, instruction.acc), True
        case Alu():
            if instruction.operand is not Operand.IMM:
                name = instruction.operand.name.lower()
                yield name, walk(instruction.counts, instruction.src), False
            yield "acc", walk(instruction.counts, instruction.acc), True


def _race(program: Program, at: int, other: int, memory: str) -> FpgaError:
    first, second = sorted((at, other))
    return FpgaError("H064", f"instructions {first} and {second} touch one place in {memory} and no token orders them",
                     why=f"{first}: {line(program[first])}\n       {second}: {line(program[second])}",
                     hint="let the later one pop a token that the earlier one pushes")
