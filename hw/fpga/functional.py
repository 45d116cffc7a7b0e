"""What a program computes, exactly, in NumPy: the meaning of ISA.md.

What holds here: `run` changes the memory that it is given and nothing else; a program is checked before it runs, so it
does not matter in which of the orders that its tokens allow the units run.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracedsl.hw.fpga.checker import check
from tracedsl.hw.fpga.config import Config
from tracedsl.hw.fpga.isa import Alu, Gemm, Instruction, Load, Op, Operand, Program, Start, Store, Target
from tracedsl.hw.fpga.walks import distinct, filled, rows, walk

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int32]


def _multiply(a: Ints, b: Ints) -> Ints:
    product: Ints = a * b.astype(np.int16).astype(np.int32)
    return product


_OPS: dict[Op, Callable[[Any, Any], Any]] = {
    Op.MOV: lambda a, b: b,
    Op.ADD: operator.add,
    Op.SUB: operator.sub,
    Op.MIN: np.minimum,
    Op.MAX: np.maximum,
    Op.MUL: _multiply,
    Op.SHR: lambda a, b: a >> (b & 31),
}


def run(program: Program, config: Config, memory: Bytes) -> None:
    """Run a program on a memory (uint8, a whole number of vectors long), in place. Raises FpgaError if `check` does."""
    machine = Machine(config, memory)
    for at in check(program, config, len(memory) // config.block):
        machine.execute(program[at])


class Machine:
    """The four scratchpads and the memory. Scratchpads start as zeros; the hardware's start as anything."""

    def __init__(self, config: Config, memory: Bytes) -> None:
        block = config.block
        self.config = config
        self.memory = memory.reshape(-1, block)
        self.inp: NDArray[np.int8] = np.zeros((config.inp_depth, block), np.int8)
        self.wgt: NDArray[np.int8] = np.zeros((config.wgt_depth, block, block), np.int8)
        self.acc: Ints = np.zeros((config.acc_depth, block), np.int32)
        self.aux: Ints = np.zeros((config.aux_depth, block), np.int32)

    def execute(self, instruction: Instruction) -> None:
        """One instruction that has been checked."""
        match instruction:
            case Load():
                self._load(instruction)
            case Gemm():
                self._gemm(instruction)
            case Alu():
                self._alu(instruction)
            case Store():
                self._store(instruction)

    def _load(self, load: Load) -> None:
        size, block = self.config.element_bytes(load.target.name.lower()), self.config.block
        data = self.memory[load.dram + rows(load.rows, load.cols * size // block, load.stride)].reshape(-1, size)
        if load.target is Target.DIAG:
            tiles = np.zeros((len(data), block, block), np.uint8)
            tiles[:, range(block), range(block)] = data
            data = tiles.reshape(len(data), -1)
        scratchpad = getattr(self, load.target.memory)
        content, fill = filled(load.rows, load.cols, load.before, load.between, load.after)
        view = scratchpad[load.at:load.at + load.elements].reshape(load.elements, -1).view(np.uint8)
        view[content] = data
        view[fill] = np.uint8(load.value & 255)

    def _store(self, store: Store) -> None:
        data = self.acc[store.at + rows(store.rows, store.cols, store.pitch)]
        if not store.wide:
            half = (1 << store.shift) >> 1
            scaled = (data.astype(np.int64) * store.multiplier + half) >> store.shift
            data = np.clip(scaled, store.low, store.high).astype(np.int8)
        vectors = store.cols * (4 if store.wide else 1)
        where = store.dram + rows(store.rows, vectors, store.stride)
        self.memory[where] = data.view(np.uint8).reshape(len(where), -1)

    # -- compute ------------------------------------------------------------------------------------------------

    def _gemm(self, gemm: Gemm) -> None:
        places = walk(gemm.counts, gemm.acc)
        products = self._products(gemm)
        fresh = len(places) if gemm.start is not Start.ACC and not gemm.once else 0
        if gemm.start is not Start.ACC and gemm.once:
            fresh = gemm.counts[1] * gemm.counts[2]
        if fresh:  # where one place comes twice, the later step counts: NumPy assigns in order
            begin = self.aux[walk(gemm.counts, gemm.aux)[:fresh]] if gemm.start is Start.AUX else np.int32(0)
            self.acc[places[:fresh]] = products[:fresh] + begin
        if fresh == len(places):
            return
        if distinct(gemm.counts, gemm.acc.strides):
            self.acc[places[fresh:]] += products[fresh:]
        elif distinct((1, *gemm.counts[1:]), (0, *gemm.acc.strides[1:])):
            passes = places.reshape(gemm.counts[0], -1)
            for here, addend in zip(passes, products.reshape(*passes.shape, -1), strict=True):
                if fresh:
                    fresh = 0
                else:
                    self.acc[here] += addend
        else:
            np.add.at(self.acc, places[fresh:], products[fresh:])

    def _products(self, gemm: Gemm) -> Ints:
        """wgt[w] @ inp[x] of every step. float32 is exact: a sum of 32 products stays below 2^24."""
        vectors = self.inp[walk(gemm.counts, gemm.inp)].astype(np.float32)
        strides = gemm.wgt.strides
        inner = next((level for level in range(3) if not any(strides[level:])), 3)  # from here on the tile stays
        tiles_of = (*gemm.counts[:inner], *(1,) * (3 - inner))
        tiles = self.wgt[walk((tiles_of[0], tiles_of[1], tiles_of[2]), gemm.wgt)].astype(np.float32)
        grouped = vectors.reshape(len(tiles), -1, self.config.block)
        products: Ints = (grouped @ tiles.transpose(0, 2, 1)).astype(np.int32).reshape(-1, self.config.block)
        return products

    def _alu(self, alu: Alu) -> None:
        places = walk(alu.counts, alu.acc)
        per_pass = alu.counts[1] * alu.counts[2]
        in_step = alu.operand is Operand.ACC and not self._apart(alu)
        if distinct(alu.counts, alu.acc.strides) and not in_step:
            size = len(places) if not alu.once or alu.counts[0] == 1 else per_pass
        elif distinct((1, *alu.counts[1:]), (0, *alu.acc.strides[1:])) and not in_step:
            size = per_pass
        else:
            size = 1
        for first in range(0, len(places), size):
            op = Op.MOV if alu.once and first < per_pass else alu.op
            here = places[first:first + size]
            self.acc[here] = _OPS[op](self.acc[here], self._operand(alu, slice(first, first + size)))

    def _operand(self, alu: Alu, part: slice) -> Ints:
        if alu.operand is Operand.IMM:
            return np.full((1, self.config.block), alu.imm, np.int32)
        memory = getattr(self, alu.operand.name.lower())
        found: Ints = memory[walk(alu.counts, alu.src)[part]].astype(np.int32)
        return found

    def _apart(self, alu: Alu) -> bool:
        """Whether no step reads, as its operand, what another one writes."""
        return not np.isin(walk(alu.counts, alu.src), walk(alu.counts, alu.acc)).any()
