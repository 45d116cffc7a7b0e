"""Words, text and checks of the accelerator's programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracedsl.hw.fpga import functional
from tracedsl.hw.fpga.assembly import assemble, disassemble
from tracedsl.hw.fpga.checker import check
from tracedsl.hw.fpga.config import Config, FpgaError
from tracedsl.hw.fpga.encoding import decode, decode_word, encode, encode_word
from tracedsl.hw.fpga.isa import (
    ENUMS,
    LAYOUT,
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
    Walk,
)

CONFIG = Config()
PRODUCT: tuple[Instruction, ...] = (
    Load(target=Target.INP, at=0, dram=0, cols=32),
    Load(target=Target.WGT, at=0, dram=32, cols=4, push_next=True),
    Gemm(counts=(2, 2, 16), acc=Walk(0, (0, 16, 1)), inp=Walk(0, (16, 0, 1)), wgt=Walk(0, (1, 2, 0)), start=Start.ZERO,
         once=True, pop_prev=True, push_next=True),
    Store(at=0, dram=100, cols=32, wide=True, pop_prev=True),
    Finish(),
)


@st.composite
def instructions(draw: st.DrawFn) -> Instruction:
    """Any instruction whose fields hold their values; it need not make sense."""
    kind = draw(st.sampled_from([Load, Gemm, Alu, Store, Finish]))
    layout = LAYOUT[kind]

    def number(name: str) -> int:
        return draw(st.integers(*layout[name].range))

    def walk(name: str) -> Walk:
        return Walk(number(name), (number(f"{name}_stride0"), number(f"{name}_stride1"), number(f"{name}_stride2")))

    values: dict[str, object] = {}
    for field in dataclasses.fields(kind):
        name = field.name
        if name == "counts":
            values[name] = (number("count0"), number("count1"), number("count2"))
        elif field.type == "Walk" and name != "src":
            values[name] = walk(name)
        elif field.type == "bool":
            values[name] = draw(st.booleans())
        elif name in ENUMS:
            values[name] = draw(st.sampled_from(ENUMS[name]))
        elif name not in ("src", "imm"):
            values[name] = number(name)
    if kind is Alu:
        immediate = values["operand"] is Operand.IMM
        values["imm" if immediate else "src"] = number("imm") if immediate else walk("inp")
    made: Instruction = kind(**values)
    return made


@given(instructions())
def test_a_word_is_read_as_it_was_written(instruction: Instruction) -> None:
    assert decode_word(encode_word(instruction)) == instruction
    assert assemble(disassemble([instruction])) == (instruction,)


@given(st.integers(0, 4 * 256 - 1), st.integers(0, 4 * 256 - 1))
def test_any_one_or_two_wrong_bits_are_found(first: int, second: int) -> None:
    image = bytearray(encode(PRODUCT))
    for bit in {first, second}:
        image[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FpgaError) as caught:
        decode(bytes(image))
    assert caught.value.code == "H061"


@given(st.binary(min_size=0, max_size=256))
def test_noise_is_no_program(noise: bytes) -> None:
    with pytest.raises(FpgaError):
        decode(noise)


def test_bits_of_no_field_are_refused_though_the_checksum_fits() -> None:
    from tracedsl.hw.fpga.encoding import crc8

    body = bytearray(encode_word(Finish())[:-1])
    body[20] |= 4
    with pytest.raises(FpgaError, match="belong to no field"):
        decode_word(bytes(body) + bytes((crc8(bytes(body)),)))


def test_a_product_is_numpys() -> None:
    rng = np.random.default_rng(0)
    a, w = (rng.integers(-128, 128, (16, 16)).astype(np.int8) for _ in range(2))
    memory = np.zeros(8 * 400, np.uint8)
    memory[:256] = a.reshape(16, 2, 8).transpose(1, 0, 2).reshape(-1).view(np.uint8)
    memory[256:512] = w.reshape(2, 8, 2, 8).transpose(0, 2, 1, 3).reshape(-1).view(np.uint8)
    functional.run(PRODUCT, CONFIG, memory)
    found = memory[800:800 + 1024].view(np.int32).reshape(2, 16, 8).transpose(1, 0, 2).reshape(16, 16)
    assert (found == a.astype(int) @ w.T.astype(int)).all()


@pytest.mark.parametrize("text", [
    "fly", "load target=inp at=0 dram=1 at=2", "gemm counts=1,2 acc=0 inp=0 wgt=0", "finish now",
    "load target=inp at=0", "alu op=max counts=1,1,1 acc=0 once=1"])
def test_text_that_is_no_program_is_refused(text: str) -> None:
    with pytest.raises(FpgaError) as caught:
        assemble(text)
    assert caught.value.code == "H061"


WRONG: dict[str, tuple[str, Callable[[], tuple[Instruction, ...]]]] = {
    "no_end": ("H062", lambda: PRODUCT[:-1]),
    "two_ends": ("H062", lambda: (*PRODUCT, Finish())),
    "scratchpad_overflow": ("H062", lambda: _with(0, at=2017)),
    "beyond_memory": ("H062", lambda: _with(3, dram=500)),
    "long_burst": ("H062", lambda: _with(1, cols=33)),
    "field": ("H062", lambda: _with(0, cols=4096)),
    "reuse": ("H062", lambda: _with(2, counts=(16, 1, 2), acc=Walk(0, (0, 0, 1)))),
    "alu_reuse": ("H062", lambda: _alu(counts=(1, 1, 4), acc=Walk(0), operand=Operand.INP, src=Walk(0, (0, 0, 1)))),
    "alu_two_reads": ("H062", lambda: _alu(counts=(1, 1, 4), acc=Walk(8, (0, 0, 1)), operand=Operand.ACC)),
    "deadlock": ("H063", lambda: (PRODUCT[0], *PRODUCT[2:])),
    "cycle": ("H063", lambda: _with(1, pop_next=True)),
    "left_over": ("H063", lambda: _with(3, pop_prev=False)),
    "no_neighbour": ("H063", lambda: _with(3, pop_next=True)),
    "race": ("H064", lambda: (*PRODUCT[:2], Load(target=Target.INP, at=3, dram=0), *PRODUCT[2:])),
    "memory_race": ("H064", lambda: (*PRODUCT[:2], Load(target=Target.INP, at=40, dram=100), *PRODUCT[2:])),
}


def _with(number: int, /, **changes: object) -> tuple[Instruction, ...]:
    changed = dataclasses.replace(PRODUCT[number], **changes)  # type: ignore[arg-type]
    return (*PRODUCT[:number], changed, *PRODUCT[number + 1:])


def _alu(**fields: object) -> tuple[Instruction, ...]:
    return (*PRODUCT[:3], Alu(op=Op.MAX, **fields), *PRODUCT[3:])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_run_is_refused(name: str, golden: Callable[[str, str], None]) -> None:
    code, make = WRONG[name]
    with pytest.raises(FpgaError) as caught:
        check(make(), CONFIG, 400)
    assert caught.value.code == code
    golden(f"fpga/refused/{name}.txt", str(caught.value))


def test_counters_that_might_overflow_are_refused() -> None:
    many = [Load(target=Target.INP, at=0, dram=0, push_next=True) for _ in range(300)]
    pops = [Alu(op=Op.MOV, counts=(1, 1, 1), acc=Walk(0), pop_prev=True) for _ in range(300)]
    with pytest.raises(FpgaError, match="255 tokens"):
        check([*many, *pops, Finish()], CONFIG, 400)


@pytest.mark.parametrize("wrong", [
    {"block": 6}, {"bus_bytes": 16}, {"inp_depth": 8192}, {"tree_stages": 4}, {"bursts": 1}])
def test_configurations_that_cannot_be_built(wrong: dict[str, int]) -> None:
    with pytest.raises(FpgaError) as caught:
        Config(**wrong)
    assert caught.value.code == "H060"
