"""What the modules share: how a module is laid out, names of widths, and records packed into a bus.

What holds here: text in, text out; nothing here knows the accelerator.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Port = tuple[str, int, str]  # "input" or "output", width, name


def module(name: str, about: str, ports: Iterable[Port], body: str) -> str:
    """A module with a clock, and a comment that says what it is. Outputs that `body` declares as `reg` are not declared
    again."""
    listed = [("input", 1, "clk"), *ports]
    lines = [f"    {direction} wire {vector(width)}{port}" for direction, width, port in listed]
    comment = "".join(f"// {line}\n" for line in textwrap.wrap(about, 112))
    text = textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
    return f"{comment}module {name} (\n" + ",\n".join(lines) + f"\n);\n{text}\nendmodule\n"


def vector(width: int) -> str:
    """`[7:0] `, or nothing for a single bit."""
    return f"[{width - 1}:0] " if width > 1 else ""


def bits(value: int) -> int:
    """Bits that count up to `value`, at least one."""
    return max(1, value.bit_length())


def log2(value: int) -> int:
    return value.bit_length() - 1


def join(parts: Iterable[str]) -> str:
    """A concatenation, the first part lowest."""
    return "{" + ", ".join(reversed(list(parts))) + "}"


def part_of(bus: str, low: int, width: int) -> str:
    """Bits of a part of a bus: `part_of("head[43:32]", 2, 3)` is `head[36:34]`."""
    name, _, rest = bus.partition("[")
    start = low + (int(rest.rstrip("]").partition(":")[2]) if rest else 0)
    return f"{name}[{start + width - 1}:{start}]"


@dataclass(frozen=True)
class Record:
    """Named fields in one bus, the first lowest."""

    fields: Mapping[str, int]

    @property
    def width(self) -> int:
        return sum(self.fields.values())

    def of(self, bus: str, name: str) -> str:
        """The field's part of a bus."""
        low = 0
        for field, width in self.fields.items():
            if field == name:
                return f"{bus}[{low + width - 1}:{low}]" if width > 1 else f"{bus}[{low}]"
            low += width
        raise KeyError(name)

    def pack(self, values: Mapping[str, str]) -> str:
        return join(values[name] for name in self.fields)
