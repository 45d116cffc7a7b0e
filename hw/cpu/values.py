"""The values of LLVM IR as text: SSA values, constants, parameters, phis, and the blocks they stand in.

What holds here: a `Value` is immutable and knows its type. `Blocks` numbers names in order, so the same calls give the
same text.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tracedsl.hw.cpu.irtypes import BITS, element, float_text, is_float, lanes, vec


@dataclass(frozen=True, slots=True)
class Value:
    """An SSA value or a constant: `name` is what stands in the text ("%x.3", "true", "splat (i32 1)")."""

    name: str
    type: str

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a function; `attributes` are LLVM's ("noalias readonly")."""

    name: str
    type: str
    attributes: str = ""


@dataclass(eq=False)
class Phi:
    """A phi instruction that may still get incoming values: `add` as soon as a loop's latch is known."""

    value: Value
    incoming: list[tuple[Value, str]] = field(default_factory=list)

    def add(self, value: Value, label: str) -> None:
        if value.type != self.value.type:
            raise TypeError(f"phi of {self.value.type} cannot take {value}")
        self.incoming.append((value, label))

    def text(self, exits: Mapping[str, str]) -> str:
        """`exits`: where a block that has detours is left."""
        pairs = ", ".join(f"[ {value.name}, %{exits.get(label, label)} ]" for value, label in self.incoming)
        return f"{self.value.name} = phi {self.value.type} {pairs}"


def constant(type_: str, value: bool | int | float) -> Value:
    """A constant of any scalar or vector type (a vector gets it in every lane). Floats are exact: written as their
    bits, rounded once to the type; integers wrap around, as two's complement."""
    base = element(type_)
    if base == "ptr":
        if value:
            raise ValueError("the only constant pointer is null")
        return Value("null" if lanes(type_) == 1 else "zeroinitializer", type_)
    if base == "i1":
        text = "true" if value else "false"
    elif is_float(base):
        text = float_text(base, float(value))
    else:
        bits = BITS[base]
        wrapped = int(value) & ((1 << bits) - 1)
        text = str(wrapped - (1 << bits) if wrapped >> (bits - 1) else wrapped)
    return Value(text if type_ == base else f"splat ({base} {text})", type_)


def constant_bits(type_: str, bits: int) -> Value:
    """A floating-point constant given by its bits, for "float" and "double" and vectors of them."""
    kinds = ("<I", "<f") if element(type_) == "float" else ("<Q", "<d")
    (value,) = struct.unpack(kinds[1], struct.pack(kinds[0], bits))
    return constant(type_, value)


def constant_vector(elem: str, values: Sequence[bool | int | float]) -> Value:
    """A constant vector with its own value in each lane."""
    inner = ", ".join(str(constant(elem, value)) for value in values)
    return Value(f"<{inner}>", vec(elem, len(values))) if len(values) > 1 else constant(elem, values[0])


def undefined(type_: str) -> Value:
    return Value("poison", type_)


class Blocks:
    """The basic blocks of one function under construction. Instructions go to the block that `start` opened last.

    A block may hold detours (`detour`): it still has one entry and one exit, and its label goes on to name it.
    """

    def __init__(self, head: str, params: Iterable[Param]) -> None:
        self._head = head
        self._allocas: list[str] = []
        self._blocks: list[tuple[str, list[str | Phi]]] = []
        self._exits: dict[str, str] = {}  # block -> the label after its last detour
        self._used: dict[str, int] = {p.name: 0 for p in params}
        self.start(self.label("entry"))

    # -- blocks ---------------------------------------------------------------------------------------------------

    def label(self, hint: str = "block") -> str:
        """A new label; nothing is emitted until `start`."""
        return self._unique(hint)

    def start(self, label: str) -> str:
        """Open the block `label`: what follows goes there."""
        self._blocks.append((label, []))
        return label

    @property
    def here(self) -> str:
        """The label of the current block."""
        return self._blocks[-1][0]

    def br(self, label: str, metadata: str = "") -> None:
        self.line(f"br label %{label}" + (f", {metadata}" if metadata else ""))

    def cond_br(self, condition: Value, then: str, otherwise: str, metadata: str = "") -> None:
        tail = f", {metadata}" if metadata else ""
        self.line(f"br {condition}, label %{then}, label %{otherwise}{tail}")

    def phi(self, type_: str, incoming: Iterable[tuple[Value, str]] = (), hint: str = "phi") -> Phi:
        """A phi at this place of the current block; more values may be added later."""
        phi = Phi(Value(f"%{self._unique(hint)}", type_))
        for value, label in incoming:
            phi.add(value, label)
        self._blocks[-1][1].append(phi)
        return phi

    def detour(self, condition: Value, usual: Value, emit: Callable[[], Value], metadata: str = "") -> Value:
        """`usual`, or where `condition` (i1) holds what `emit` gives: its instructions run only then."""
        block, before = self.here, self._exits.get(self.here, self.here)
        aside, after = self.label("aside"), self.label("after")
        self.cond_br(condition, aside, after, metadata)
        self._blocks[-1][1].append(f"{aside}:")
        self._exits[block] = aside
        other = emit()
        end = self._exits[block]
        self.br(after)
        self._blocks[-1][1].append(f"{after}:")
        self._exits[block] = after
        pairs = f"[ {usual.name}, %{before} ], [ {other.name}, %{end} ]"
        return self.instruction(f"phi {usual.type} {pairs}", usual.type)

    def ret(self, value: Value | None = None) -> None:
        self.line("ret void" if value is None else f"ret {value}")

    # -- any instruction ------------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """An instruction without a result."""
        self._blocks[-1][1].append(text)

    def instruction(self, text: str, type_: str, hint: str = "v") -> Value:
        """An instruction with a result of this type."""
        value = Value(f"%{self._unique(hint)}", type_)
        self.line(f"{value.name} = {text}")
        return value

    # -- text -----------------------------------------------------------------------------------------------------

    def text(self) -> str:
        lines = [f"{self._head} {{"]
        for number, (label, body) in enumerate(self._blocks):
            lines.append(f"{label}:")
            lines += [f"  {line}" for line in (self._allocas if number == 0 else [])]
            lines += [f"  {line.text(self._exits) if isinstance(line, Phi) else line}" for line in body]
        return "\n".join([*lines, "}"])

    def _unique(self, hint: str) -> str:
        count = self._used.get(hint)
        self._used[hint] = 0 if count is None else count + 1
        return hint if count is None else f"{hint}.{count + 1}"
