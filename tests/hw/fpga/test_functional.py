"""The functional model beside ISA.md read literally: one step, one lane at a time, in Python's whole numbers."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tracedsl.hw.fpga.checker import check_instruction
from tracedsl.hw.fpga.config import Config, FpgaError
from tracedsl.hw.fpga.functional import Machine
from tracedsl.hw.fpga.isa import Alu, Gemm, Instruction, Load, Op, Operand, Start, Store, Target, Walk

CONFIG = Config(block=4, bus_bytes=4, inp_depth=32, wgt_depth=16, acc_depth=32, aux_depth=16, tree_stages=1)
B, VECTORS = CONFIG.block, 64


def _wrap(value: int, bits: int = 32) -> int:
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


OPS = {
    Op.MOV: lambda a, b: b, Op.ADD: lambda a, b: a + b, Op.SUB: lambda a, b: a - b, Op.MIN: min, Op.MAX: max,
    Op.MUL: lambda a, b: a * _wrap(b, 16), Op.SHR: lambda a, b: a >> (b & 31),
}


class Literal:
    """The machine of ISA.md. Scratchpads and memory are nested lists."""

    def __init__(self, machine: Machine) -> None:
        self.memory = machine.memory.tolist()
        self.pads: dict[str, Any] = {name: getattr(machine, name).tolist() for name in ("inp", "wgt", "acc", "aux")}

    def load(self, i: Load) -> None:
        values: list[Any] = [None] * i.before
        size = CONFIG.element_bytes(i.target.name.lower()) // B
        for row in range(i.rows):
            first = i.dram + row * i.stride
            values += [[byte for vector in self.memory[first + c * size:first + (c + 1) * size] for byte in vector]
                       for c in range(i.cols)]
            values += [None] * (i.between if row < i.rows - 1 else i.after)
        for at, data in enumerate(values, i.at):
            fill = data is None
            width = CONFIG.element_bytes(i.target.memory)
            data = [i.value & 255] * width if fill else data
            if i.target is Target.DIAG and not fill:
                data = [data[a] if a == b else 0 for a in range(B) for b in range(B)]
            numbers = np.array(data, np.uint8).view(np.int32 if i.target is Target.AUX else np.int8)
            self.pads[i.target.memory][at] = numbers.reshape(np.shape(self.pads[i.target.memory][at])).tolist()

    def store(self, i: Store) -> None:
        for row, col in product(range(i.rows), range(i.cols)):
            lanes = self.pads["acc"][i.at + row * i.pitch + col]
            if i.wide:
                data = np.array(lanes, np.int32).view(np.uint8)
            else:
                half = (1 << i.shift) // 2
                scaled = [min(max((a * i.multiplier + half) >> i.shift, i.low), i.high) for a in lanes]
                data = np.array(scaled, np.int8).view(np.uint8)
            for part, vector in enumerate(data.reshape(-1, B)):
                self.memory[i.dram + row * i.stride + col * len(data) // B + part] = vector.tolist()

    def compute(self, i: Gemm | Alu) -> None:
        for counters in product(*map(range, i.counts)):
            def at(walk: Walk, counters: tuple[int, ...] = counters) -> int:
                return walk.base + sum(c * s for c, s in zip(counters, walk.strides, strict=True))
            old = self.pads["acc"][at(i.acc)]
            if isinstance(i, Gemm):
                start = Start.ACC if i.once and counters[0] else i.start
                begin = {Start.ACC: old, Start.ZERO: [0] * B, Start.AUX: self.pads["aux"][at(i.aux)]}[start]
                x, w = self.pads["inp"][at(i.inp)], self.pads["wgt"][at(i.wgt)]
                new = [begin[o] + sum(x[j] * w[o][j] for j in range(B)) for o in range(B)]
            else:
                op = Op.MOV if i.once and not counters[0] else i.op
                b = [i.imm] * B if i.operand is Operand.IMM else self.pads[i.operand.name.lower()][at(i.src)]
                new = [OPS[op](*pair) for pair in zip(old, b, strict=True)]
            self.pads["acc"][at(i.acc)] = [_wrap(value) for value in new]


def _walks() -> st.SearchStrategy[Walk]:
    return st.builds(Walk, st.integers(0, 7), st.tuples(*[st.integers(0, 5)] * 3))


LOOPS = {"counts": st.tuples(*[st.integers(1, 3)] * 3), "acc": _walks(), "once": st.booleans(),
         "interval": st.integers(1, 7)}
ROWS = {"rows": st.integers(1, 3), "cols": st.integers(1, 3), "at": st.integers(0, 7), "dram": st.integers(0, 20),
        "stride": st.integers(0, 12)}
GAPS = {name: st.integers(0, 3) for name in ("before", "between", "after")}
INSTRUCTIONS: dict[str, st.SearchStrategy[Instruction]] = {
    "load": st.builds(Load, target=st.sampled_from(Target), value=st.integers(-128, 127), **ROWS, **GAPS),
    "gemm": st.builds(Gemm, inp=_walks(), wgt=_walks(), aux=_walks(), start=st.sampled_from(Start), **LOOPS),
    "alu": st.builds(Alu, op=st.sampled_from(Op), operand=st.sampled_from([Operand.INP, Operand.AUX, Operand.ACC]),
                     src=_walks(), **LOOPS),
    "alu_imm": st.builds(Alu, op=st.sampled_from(Op), imm=st.integers(-2**31, 2**31 - 1), **LOOPS),
    "store": st.builds(Store, wide=st.booleans(), pitch=st.integers(0, 8), multiplier=st.integers(0, 32767),
                       shift=st.integers(0, 46), low=st.integers(-128, 0), high=st.integers(0, 127), **ROWS),
}


@pytest.mark.parametrize("kind", INSTRUCTIONS)
@settings(max_examples=200)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_an_instruction_does_what_the_page_says(kind: str, data: st.DataObject, seed: int) -> None:
    instruction = data.draw(INSTRUCTIONS[kind])
    try:
        check_instruction(instruction, CONFIG, VECTORS)
    except FpgaError:
        assume(False)
    if isinstance(instruction, Store):  # vectors of one store must not lie on each other: their order is the hardware's
        assume(instruction.rows == 1 or instruction.stride >= instruction.cols * (4 if instruction.wide else 1))
    rng = np.random.default_rng(seed)
    machine = Machine(CONFIG, rng.integers(0, 256, VECTORS * B).astype(np.uint8))
    for name in ("inp", "wgt"):
        getattr(machine, name)[:] = rng.integers(-128, 128, getattr(machine, name).shape)
    for name in ("acc", "aux"):
        shape = getattr(machine, name).shape       # numbers of every size, so that not all are clipped or shifted out
        getattr(machine, name)[:] = rng.integers(-2**31, 2**31, shape) >> rng.integers(0, 32, shape)
    literal = Literal(machine)
    machine.execute(instruction)
    match instruction:
        case Load():
            literal.load(instruction)
        case Store():
            literal.store(instruction)
        case Gemm() | Alu():
            literal.compute(instruction)
    assert machine.memory.tolist() == literal.memory
    for name, pad in literal.pads.items():
        assert getattr(machine, name).tolist() == pad, name


def test_padding_stands_around_the_rows() -> None:
    memory = np.arange(1, 1 + 6 * B).astype(np.uint8)
    machine = Machine(CONFIG, memory)
    load = Load.padded(Target.INP, 0, 0, 2, 3, 3, pad=(1, 2, 1, 1), value=-5)
    check_instruction(load, CONFIG, 6)
    machine.execute(load)
    image = np.pad(memory.reshape(2, 3, B).view(np.int8), ((1, 2), (1, 1), (0, 0)), constant_values=-5)
    assert load.elements == 25 and (machine.inp[:25] == image.reshape(25, B)).all()
