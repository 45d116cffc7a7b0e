"""Random programs that the checker passes: any instruction, any order of units that the tokens allow.

What holds here: the same seed gives the same program; where two instructions touch one place, tokens order them.
"""

from __future__ import annotations

import dataclasses
from random import Random

import numpy as np
from numpy.typing import NDArray

from tracedsl.hw.fpga.checker import check, check_instruction
from tracedsl.hw.fpga.config import Config, FpgaError
from tracedsl.hw.fpga.isa import (
    Alu,
    Finish,
    Gemm,
    Instruction,
    Load,
    Op,
    Operand,
    Start,
    Store,
    Target,
    Unit,
    Walk,
)
from tracedsl.hw.fpga.races import accesses

VECTORS = 4096
OUTPUT = 2048  # from here on is written
_SIDES = {(Unit.LOAD, Unit.COMPUTE): ("push_next", "pop_prev"), (Unit.COMPUTE, Unit.LOAD): ("push_prev", "pop_next"),
          (Unit.COMPUTE, Unit.STORE): ("push_next", "pop_prev"), (Unit.STORE, Unit.COMPUTE): ("push_prev", "pop_next")}


def memory(config: Config, seed: int) -> NDArray[np.uint8]:
    """Random bytes, VECTORS vectors of them."""
    return np.random.default_rng(seed).integers(0, 256, VECTORS * config.block).astype(np.uint8)


def random_program(config: Config, seed: int, length: int) -> list[Instruction]:
    """About `length` instructions and FINISH."""
    rng = Random(seed)
    program = _covered(config)
    for _ in range(length):
        _append(program, _instruction(config, rng), config, rng)
    program.append(Finish())
    check(program, config, VECTORS)
    return _shuffled(program, config, rng)


def _covered(config: Config) -> list[Instruction]:
    """Every element that is read has been written: the scratchpads of the RTL start with anything."""
    program: list[Instruction] = []
    for target in (Target.INP, Target.WGT, Target.AUX):
        depth = config.depth(target.memory)
        for at in range(0, depth, 4096):
            fill = min(4096, depth - at) - 1
            program.append(Load(target=target, at=at, dram=0, before=min(fill, 4095), value=3))
    steps = config.acc_depth
    program.append(Alu(op=Op.MOV, counts=(1, 1, min(steps, 4095)), acc=Walk(0, (0, 0, 1)), imm=-7))
    if steps > 4095:
        program.append(Alu(op=Op.MOV, counts=(1, 1, 1), acc=Walk(4095), imm=5))
    return program


def _instruction(config: Config, rng: Random) -> Instruction:
    while True:
        kind = rng.choice((_load, _load, _gemm, _gemm, _alu, _alu, _store))
        try:
            made = kind(config, rng)
            check_instruction(made, config, VECTORS)
        except FpgaError:
            continue
        return made


def _load(config: Config, rng: Random) -> Instruction:
    target = rng.choice(list(Target))
    short = {Target.WGT: 3}.get(target, 12)
    fills = [rng.choice((0, 0, 1, rng.randrange(20))) for _ in range(3)]
    return Load(target=target, at=rng.randrange(config.depth(target.memory)), dram=rng.randrange(OUTPUT // 2),
                rows=rng.randint(1, rng.choice((1, 4, 30))), cols=rng.randint(1, short), stride=rng.randrange(40),
                before=fills[0], between=fills[1], after=fills[2], value=rng.randint(-128, 127))


def _gemm(config: Config, rng: Random) -> Instruction:
    once = rng.random() < 0.4
    return Gemm(counts=_counts(rng), acc=_walk(config.acc_depth, rng), inp=_walk(config.inp_depth, rng),
                wgt=_walk(config.wgt_depth, rng), aux=_walk(config.aux_depth, rng), start=rng.choice(list(Start)),
                once=once, interval=rng.choice((1, 1, 1, 2, 5, 7)))


def _alu(config: Config, rng: Random) -> Instruction:
    operand = rng.choice(list(Operand))
    source, imm = Walk(), 0
    if operand is Operand.IMM:
        imm = rng.choice((rng.randint(-40, 40), rng.randint(-2**31, 2**31 - 1)))
    else:
        source = _walk(config.depth(operand.name.lower()), rng)
    return Alu(op=rng.choice(list(Op)), counts=_counts(rng), acc=_walk(config.acc_depth, rng), operand=operand,
               src=source, imm=imm, once=rng.random() < 0.4, interval=rng.choice((1, 1, 2, 3, 6)))


def _store(config: Config, rng: Random) -> Instruction:
    low = rng.choice((-128, -128, 0, rng.randint(-128, 127)))
    return Store(at=rng.randrange(config.acc_depth), dram=OUTPUT + rng.randrange(OUTPUT // 2),
                 rows=rng.randint(1, rng.choice((1, 3, 20))), cols=rng.randint(1, 12), pitch=rng.randrange(20),
                 stride=rng.randrange(60), wide=rng.random() < 0.3,
                 multiplier=rng.choice((1, 3, 32767, rng.randrange(32768))),
                 shift=rng.choice((0, 1, 8, rng.randint(0, 46))), low=low, high=rng.randint(low, 127))


def _counts(rng: Random) -> tuple[int, int, int]:
    return rng.randint(1, 3), rng.randint(1, 4), rng.choice((1, rng.randint(1, 12), rng.randint(1, 40)))


def _walk(depth: int, rng: Random) -> Walk:
    def stride() -> int:
        return rng.choice((0, 1, 1, rng.randrange(9), rng.randrange(64)))

    return Walk(rng.randrange(depth), (stride(), stride(), stride()))


# -- tokens -----------------------------------------------------------------------------------------------------


def _append(program: list[Instruction], made: Instruction, config: Config, rng: Random) -> None:
    """Append an instruction, and order it after what it must not meet."""
    rivals = _rivals(program, made, config)
    far = {Unit.LOAD: Unit.STORE, Unit.STORE: Unit.LOAD}.get(_unit(made))
    if far in rivals:  # load and store meet in the memory: a step of compute stands between them
        bridge = Alu(op=Op.MOV, counts=(1, 1, 1), acc=Walk(rng.randrange(config.acc_depth)))
        _tie(program, bridge, {*_rivals(program, bridge, config), far})
        rivals.add(Unit.COMPUTE)
    if rng.random() < 0.2:
        rivals |= {Unit.COMPUTE} if _unit(made) is not Unit.COMPUTE else {Unit.LOAD, Unit.STORE}
    _tie(program, made, rivals - {far})


def _tie(program: list[Instruction], made: Instruction, rivals: set[Unit]) -> None:
    """Append it, after all that the neighbours among `rivals` do so far."""
    for rival in rivals:
        push, pop = _SIDES[rival, _unit(made)]
        last = max((at for at, other in enumerate(program) if _unit(other) is rival), default=None)
        if last is not None and not getattr(program[last], push):
            program[last] = dataclasses.replace(program[last], **{push: True})
            made = dataclasses.replace(made, **{pop: True})
    program.append(made)


def _unit(instruction: Instruction) -> Unit:
    assert not isinstance(instruction, Finish)
    return instruction.unit


def _rivals(program: list[Instruction], made: Instruction, config: Config) -> set[Unit]:
    """The other units that touch what this instruction writes, or write what it touches."""
    mine = [(memory, _places(where), writes) for memory, where, writes in accesses(made, config)]
    found = set()
    for other in program:
        if _unit(other) is _unit(made) or _unit(other) in found:
            continue
        for memory, where, writes in accesses(other, config):
            if any(memory == m and (writes or w) and not places.isdisjoint(_places(where)) for m, places, w in mine):
                found.add(_unit(other))
    return found


def _places(where: slice | NDArray[np.int64]) -> set[int]:
    return set(range(where.start, where.stop)) if isinstance(where, slice) else set(where.tolist())


def _shuffled(program: list[Instruction], config: Config, rng: Random) -> list[Instruction]:
    """The same for each unit, dealt out in another order, as far as the queues allow."""
    other = list(program)
    for _ in range(len(program)):
        at = rng.randrange(len(other) - 2)
        if _unit(other[at]) is not _unit(other[at + 1]):
            other[at], other[at + 1] = other[at + 1], other[at]
    try:
        check(other, config, VECTORS)
    except FpgaError:
        return program
    return other
