"""What is wrong with a program is found before it runs.

What holds here: a program that passes `check` ends on the hardware, touches nothing outside its memories, and computes
the same whatever the memory's speed. Every refusal names the instruction.
"""

from __future__ import annotations

from tracedsl.hw.fpga.assembly import line
from tracedsl.hw.fpga.config import MAX_BURST, REUSE, Config, FpgaError
from tracedsl.hw.fpga.encoding import encode_word
from tracedsl.hw.fpga.isa import (
    MAX_SHIFT,
    Alu,
    Finish,
    Gemm,
    Instruction,
    Load,
    Operand,
    Program,
    Start,
    Store,
    Walk,
)
from tracedsl.hw.fpga.order import steps
from tracedsl.hw.fpga.races import refuse_races
from tracedsl.hw.fpga.walks import nearest_reuse


def check(program: Program, config: Config, vectors: int) -> list[int]:
    """Raises FpgaError (H062, H063, H064) unless the program can run on `config` with a memory of `vectors` vectors.
    Returns the instructions' numbers in an order in which they may run."""
    if not program or not isinstance(program[-1], Finish) or sum(isinstance(i, Finish) for i in program) != 1:
        raise FpgaError("H062", "a program ends with one finish", hint="append Finish() once")
    for at, instruction in enumerate(program):
        check_instruction(instruction, config, vectors, at)
    order = steps(program, config)
    refuse_races(program, order, config, vectors)
    return order


def check_instruction(instruction: Instruction, config: Config, vectors: int, at: int = 0) -> None:
    """One instruction by itself: fields, bounds, bursts, the reuse rule."""
    encode_word(instruction, at)
    try:
        match instruction:
            case Load():
                _load(instruction, config, vectors)
            case Store():
                _store(instruction, config, vectors)
            case Gemm():
                _gemm(instruction, config)
            case Alu():
                _alu(instruction, config)
    except _Wrong as wrong:
        raise FpgaError("H062", f"instruction {at}: {wrong}", why=line(instruction), hint=wrong.hint) from None


class _Wrong(Exception):
    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


def _load(load: Load, config: Config, vectors: int) -> None:
    name = load.target.name.lower()
    element = config.element_bytes(name) // config.block
    _fits(load.target.memory, load.at + load.elements - 1, config)
    _burst(load.cols * config.beats(name))
    _memory(load.dram + (load.rows - 1) * load.stride + load.cols * element - 1, vectors)


def _store(store: Store, config: Config, vectors: int) -> None:
    element = 4 if store.wide else 1
    _fits("acc", store.at + (store.rows - 1) * store.pitch + store.cols - 1, config)
    _burst(store.cols * element * config.block // config.bus_bytes)
    _memory(store.dram + (store.rows - 1) * store.stride + store.cols * element - 1, vectors)
    if store.shift > MAX_SHIFT or store.low > store.high:
        raise _Wrong(f"shift {store.shift} or range {store.low} to {store.high} cannot be",
                     f"shift by 0 to {MAX_SHIFT}, and let low be at most high")


def _gemm(gemm: Gemm, config: Config) -> None:
    for memory, places in (("acc", gemm.acc), ("inp", gemm.inp), ("wgt", gemm.wgt), ("aux", gemm.aux)):
        _fits(memory, places.last(gemm.counts), config)
    if gemm.start is Start.ACC or gemm.once:
        _reuse(gemm, gemm.acc, REUSE)


def _alu(alu: Alu, config: Config) -> None:
    _fits("acc", alu.acc.last(alu.counts), config)
    if alu.operand is not Operand.IMM:
        _fits(alu.operand.name.lower(), alu.src.last(alu.counts), config)
    _reuse(alu, alu.acc, REUSE)
    if alu.operand is Operand.ACC:
        if alu.interval < 2:
            raise _Wrong("operand acc reads two elements a step", "give interval = 2 or more")
        _reuse(alu, alu.src, REUSE + 1)


def _reuse(instruction: Gemm | Alu, read: Walk, cycles: int) -> None:
    reach = -(-cycles // instruction.interval) - 1
    written = instruction.acc
    found = nearest_reuse(instruction.counts, written.strides, read.strides, read.base - written.base, reach)
    if found <= reach:
        raise _Wrong(f"an element of acc is read {found * instruction.interval} cycles after it was written to, which "
                     f"takes {cycles}", f"put another loop innermost, or give interval = {-(-cycles // found)} or more")


def _fits(memory: str, last: int, config: Config) -> None:
    if last >= config.depth(memory):
        raise _Wrong(f"element {last} of {memory} does not exist",
                     f"{memory} has {config.depth(memory)}: make tiles smaller")


def _burst(beats: int) -> None:
    if beats > MAX_BURST:
        raise _Wrong(f"a row has {beats} beats", f"a burst has at most {MAX_BURST}: cut it into rows")


def _memory(last: int, vectors: int) -> None:
    if last >= vectors:
        raise _Wrong(f"vector {last} of the memory does not exist", f"the memory has {vectors}")
