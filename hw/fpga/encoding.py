"""Instructions to words of 256 bits and back.

What holds here: `decode(encode(program)) == tuple(program)`; a word that is not exactly what `encode` writes for some
instruction is refused (H061).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tracedsl.hw.fpga.config import CHUNK, WORD_BYTES, FpgaError
from tracedsl.hw.fpga.isa import (
    ENUMS,
    LAYOUT,
    OPCODE,
    OPCODES,
    SOURCE_WALK,
    Alu,
    Field,
    Finish,
    Gemm,
    Instruction,
    Load,
    Operand,
    Program,
    Store,
    Walk,
    name_of,
)

_TYPES = {code: kind for kind, code in OPCODES.items()}


def encode(program: Program) -> bytes:
    """The program as it lies in memory: a whole number of chunks, zeros behind the last word. Raises FpgaError (H062)
    if a field does not hold its value."""
    data = b"".join(encode_word(instruction, at) for at, instruction in enumerate(program))
    return data + bytes(-len(data) % (CHUNK * WORD_BYTES))


def encode_word(instruction: Instruction, at: int = 0) -> bytes:
    """One word; `at` is named in errors."""
    layout = LAYOUT[type(instruction)]
    word = OPCODES[type(instruction)]
    for name, value in fields(instruction).items():
        field = layout[name]
        low, high = field.range
        if not low <= value <= high:
            what = f"instruction {at} ({name_of(instruction)}): {name} = {value} does not fit its field"
            raise FpgaError("H062", what, why=f"it holds {low} to {high}", hint="cut the work into smaller pieces")
        word |= (value & (1 << field.width) - 1) << field.low
    body = word.to_bytes(WORD_BYTES - 1, "little")
    return body + bytes((crc8(body),))


def fields(instruction: Instruction) -> dict[str, int]:
    """The values of a word's fields, walks and counts taken apart."""
    found: dict[str, int] = {}
    for name, value in vars(instruction).items():
        if name == "counts":
            found.update(zip(("count0", "count1", "count2"), value, strict=True))
        elif name == "src":
            if instruction.operand in SOURCE_WALK:  # type: ignore[union-attr]
                found.update(_walk_fields(SOURCE_WALK[instruction.operand], value))  # type: ignore[union-attr]
        elif isinstance(value, Walk):
            found.update(_walk_fields(name, value))
        elif name != "imm" or instruction.operand is Operand.IMM:  # type: ignore[union-attr]
            found[name] = int(value)
    return found


def _walk_fields(name: str, walk: Walk) -> dict[str, int]:
    return {name: walk.base, **{f"{name}_stride{level}": stride for level, stride in enumerate(walk.strides)}}


def decode(image: bytes) -> tuple[Instruction, ...]:
    """The instructions up to FINISH. Raises FpgaError (H061) if the image is damaged."""
    found: list[Instruction] = []
    for at in range(len(image) // WORD_BYTES):
        found.append(decode_word(image[at * WORD_BYTES:(at + 1) * WORD_BYTES], at))
        if isinstance(found[-1], Finish):
            if any(image[(at + 1) * WORD_BYTES:]):
                raise _damaged(at + 1, "something follows the end of the program")
            return tuple(found)
    raise _damaged(len(found), "the program has no end (finish)")


def decode_word(data: bytes, at: int = 0) -> Instruction:
    """One instruction; `at` is named in errors."""
    word = int.from_bytes(data, "little")
    if len(data) != WORD_BYTES or crc8(data[:-1]) != data[-1]:
        raise _damaged(at, "its checksum does not fit")
    kind = _TYPES.get(_take(word, OPCODE))
    if kind is None:
        raise _damaged(at, f"there is no instruction with opcode {_take(word, OPCODE)}")
    values = {name: _take(word, field) for name, field in LAYOUT[kind].items()}
    try:
        instruction = _build(kind, values)
        again = encode_word(instruction, at)
    except (ValueError, FpgaError) as error:
        raise _damaged(at, f"a field has no such value ({error.args[0]})") from error
    if again != data:
        raise _damaged(at, "bits are set that belong to no field")
    return instruction


def _build(kind: type, values: dict[str, int]) -> Instruction:
    parts: dict[str, Any] = {}
    flags = {name for name, field in LAYOUT[kind].items() if field.width == 1}
    for name, value in values.items():
        if name in ENUMS:
            parts[name] = ENUMS[name](value)
        elif name in flags:
            parts[name] = bool(value)
        else:
            parts[name] = value
    if kind in (Load, Store, Finish):
        return kind(**parts)  # type: ignore[no-any-return]
    walks: dict[str, Any] = {name: _walk(name, values) for name in ("acc", "inp", "wgt", "aux")}
    common: dict[str, Any] = {name: parts[name] for name in flags}
    common |= {"counts": tuple(values[f"count{level}"] for level in range(3)), "interval": values["interval"]}
    if kind is Gemm:
        return Gemm(**common, **walks, start=parts["start"])
    operand = parts["operand"]
    source = walks[SOURCE_WALK[operand]] if operand in SOURCE_WALK else Walk()
    imm = values["imm"] if operand is Operand.IMM else 0
    return Alu(**common, op=parts["op"], acc=walks["acc"], operand=operand, src=source, imm=imm)


def _walk(name: str, values: dict[str, int]) -> Walk:
    return Walk(values[name], (values[f"{name}_stride0"], values[f"{name}_stride1"], values[f"{name}_stride2"]))


def _take(word: int, field: Field) -> int:
    value = word >> field.low & (1 << field.width) - 1
    return value - (1 << field.width) if field.signed and value >> field.width - 1 else value


def _damaged(at: int, why: str) -> FpgaError:
    what = f"the instruction stream is damaged at word {at}"
    return FpgaError("H061", what, why=why, hint="compile the program again")


def crc8(data: bytes) -> int:
    """CRC-8 with polynomial 0x07, start 0: finds every error of up to two bits in a word."""
    value, table = 0, _crc_table()
    for byte in data:
        value = table[value ^ byte]
    return value


@cache
def _crc_table() -> bytes:
    table = bytearray()
    for byte in range(256):
        for _ in range(8):
            byte = byte << 1 ^ (0x107 if byte & 0x80 else 0)
        table.append(byte)
    return bytes(table)
