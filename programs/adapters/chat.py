"""The chat layout of DSPy: every field under a `[[ ## name ## ]]` marker.

What holds here: parsing accepts markers in any case and spacing, and the first of repeated ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracedsl.programs.adapters.base import NOT_SUPPLIED, Layout, TextAdapter, only_output
from tracedsl.programs.adapters.shapes import MARK, Found, cut_value, mark_name, marked
from tracedsl.programs.adapters.streams import FieldStream, MarkStream
from tracedsl.programs.adapters.writing import Slot, field_lines, written
from tracedsl.programs.lm.base import Constraint, ResponseFormat

if TYPE_CHECKING:
    from tracedsl.programs.fields import Field
    from tracedsl.programs.signature import Signature

_END = "[[ ## completed ## ]]"


@dataclass(frozen=True)
class ChatAdapter(TextAdapter):
    """`[[ ## field ## ]]` markers; suits large models, and free text of many lines."""

    name: str = "chat"

    def layout(self, signature: type[Signature]) -> Layout:
        return Layout(_system(signature), tuple(map(_slot, signature.input_fields.values())),
                      tuple(map(_slot, signature.output_fields.values())), end=f"\n\n{_END}")

    def find(self, signature: type[Signature], text: str) -> Found:
        found = marked(signature, text)
        if not found:
            raise ValueError("it has no [[ ## name ## ]] markers")
        return found

    def unmarked(self, signature: type[Signature], text: str) -> Found:
        return only_output(signature, text) if "[[" not in text else {}

    def cut(self, signature: type[Signature], text: str) -> str | None:
        marks = [(m.end(), name) for m in MARK.finditer(text) if (name := mark_name(m, signature)) is not None]
        return cut_value(signature, marks, text)

    def stream(self, signature: type[Signature]) -> FieldStream:
        return MarkStream(signature)

    def response_format(self, signature: type[Signature],
                        constraints: frozenset[Constraint]) -> ResponseFormat | None:
        if "grammar" not in constraints:
            return None
        from tracedsl.programs.adapters.grammar import chat_grammar

        return signature.memo("chat grammar", lambda s: ResponseFormat("grammar", chat_grammar(s)))


def _slot(field: Field) -> Slot:
    return Slot(field.name, f"[[ ## {field.name} ## ]]\n", written(field), missing=NOT_SUPPLIED)


def _system(signature: type[Signature]) -> str:
    lines = [signature.instructions]
    if described := field_lines(signature.fields.values()):
        lines += ["", "Fields:", *described]
    if not signature.output_fields:
        return "\n".join(lines)
    shape = "\n\n".join(f"[[ ## {name} ## ]]\n{{{name}}}" for name in signature.output_fields)
    return "\n".join([*lines, "", "Answer in exactly this form:", "", shape, "", _END])
