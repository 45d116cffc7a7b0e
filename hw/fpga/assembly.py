"""Programs as text and back: one instruction a line, `name field=value ... flag ...`, without what has its default.

What holds here: `assemble(disassemble(program)) == tuple(program)`. Walks are written `base+stride0,stride1,stride2`;
`#` starts a comment; numbers may be hexadecimal.
"""

from __future__ import annotations

import dataclasses
from enum import IntEnum
from typing import Any

from tracedsl.diagnostics import nearest
from tracedsl.hw.fpga.config import FpgaError
from tracedsl.hw.fpga.isa import ENUMS, LAYOUT, Instruction, Program, Walk, name_of

_KINDS = {kind.__name__.lower(): kind for kind in LAYOUT}


def disassemble(program: Program) -> str:
    """The text of a program."""
    return "".join(line(instruction) + "\n" for instruction in program)


def line(instruction: Instruction) -> str:
    """One instruction as text."""
    words, flags = [name_of(instruction)], []
    for field in dataclasses.fields(instruction):
        value = getattr(instruction, field.name)
        if value == field.default:
            continue
        if isinstance(value, bool):
            flags.append(field.name)
        else:
            words.append(f"{field.name}={_text(value)}")
    return " ".join(words + sorted(flags))


def _text(value: Any) -> str:
    if isinstance(value, IntEnum):
        return value.name.lower()
    if isinstance(value, Walk):
        return f"{value.base}+{','.join(map(str, value.strides))}" if any(value.strides) else str(value.base)
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def assemble(text: str) -> tuple[Instruction, ...]:
    """The program of a text. Raises FpgaError (H061) with the line that is not understood."""
    found = []
    for number, source in enumerate(text.splitlines(), 1):
        words = source.partition("#")[0].split()
        if words:
            found.append(_instruction(words, number))
    return tuple(found)


def _instruction(words: list[str], number: int) -> Instruction:
    kind = _KINDS.get(words[0])
    if kind is None:
        raise _refused(number, f"there is no instruction {words[0]!r}", nearest(words[0], _KINDS))
    known = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if name not in known or name in values:
            why = f"{name!r} is given twice" if name in values else f"{words[0]} has no field {name!r}"
            raise _refused(number, why, nearest(name, known))
        try:
            values[name] = _value(str(known[name].type), value, bool(equals))
        except (ValueError, KeyError):
            raise _refused(number, f"{word!r} is no value of {name}", f"its type is {known[name].type}") from None
    required = [name for name, field in known.items() if field.default is dataclasses.MISSING]
    if missing := [name for name in required if name not in values]:
        raise _refused(number, f"{words[0]} lacks {', '.join(missing)}", "")
    made: Instruction = kind(**values)
    return made


def _value(kind: str, text: str, given: bool) -> Any:
    if kind == "bool":
        if given:
            raise ValueError(text)
        return True
    if kind.lower() in ENUMS:
        return ENUMS[kind.lower()][text.upper()]
    if kind == "int":
        return int(text, 0)
    if kind == "Walk":
        base, plus, strides = text.partition("+")
        return Walk(int(base, 0), _three(strides) if plus else (0, 0, 0))
    return _three(text)


def _three(text: str) -> tuple[int, int, int]:
    first, second, third = (int(part, 0) for part in text.split(","))
    return first, second, third


def _refused(number: int, why: str, hint: str) -> FpgaError:
    return FpgaError("H061", f"line {number} of the program is not understood", why=why, hint=hint)
