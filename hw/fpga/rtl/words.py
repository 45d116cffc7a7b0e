"""The words that the units' queues hold: the fields of `isa.LAYOUT`, without those that a unit does not have.

What holds here: dealing out a word and taking it apart use the same records.
"""

from __future__ import annotations

from tracedsl.hw.fpga.isa import LAYOUT, Field, Gemm, Load, Store
from tracedsl.hw.fpga.rtl.verilog import Record

_NOT_THERE = {Load: {"pop_prev", "push_prev"}, Store: {"pop_next", "push_next"}}


def _record(kind: type, extra: dict[str, Field]) -> dict[str, Field]:
    return {name: field for name, field in {**LAYOUT[kind], **extra}.items() if name not in _NOT_THERE.get(kind, set())}


# GEMM and ALU share a queue: `start` stands where ALU has `operand`, `wgt` where it has `imm`
FIELDS: dict[str, dict[str, Field]] = {
    "load": _record(Load, {}),
    "compute": _record(Gemm, {"op": Field(14, 3), "alu": Field(0, 1)}),
    "store": _record(Store, {}),
}
RECORDS = {unit: Record({name: field.width for name, field in fields.items()}) for unit, fields in FIELDS.items()}


def from_word(unit: str, word: str) -> str:
    """The unit's record, out of the bits of a word."""
    return RECORDS[unit].pack({name: _bits(word, field) for name, field in FIELDS[unit].items()})


def unused(word: str, width: int) -> str:
    """The bits below `width` that no unit reads, for a wire whose name tells the linter so."""
    used = {bit for fields in FIELDS.values() for field in fields.values()
            for bit in range(field.low, field.low + field.width)} | set(range(4))
    return ", ".join(f"{word}[{bit}]" for bit in range(width) if bit not in used)


def _bits(word: str, field: Field) -> str:
    return f"{word}[{field.low + field.width - 1}:{field.low}]" if field.width > 1 else f"{word}[{field.low}]"
