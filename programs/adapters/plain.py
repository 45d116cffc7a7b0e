"""The compact layout: `Field: value`, a line each, and nothing else. Small models understand it best.

What holds here: prompts are short, and everything that stays the same between calls stands first, so that the model's
prompt cache can be used. Parsing accepts headers in any case and emphasis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracedsl.programs.adapters.base import Layout, TextAdapter, only_output
from tracedsl.programs.adapters.shapes import HEADER, Found, before_lines, cut_value, elsewhere, lines, match_name
from tracedsl.programs.adapters.streams import FieldStream, LineStream
from tracedsl.programs.adapters.writing import Slot, field_lines, written
from tracedsl.programs.lm.base import Constraint, ResponseFormat

if TYPE_CHECKING:
    from tracedsl.programs.fields import Field
    from tracedsl.programs.signature import Signature


@dataclass(frozen=True)
class PlainAdapter(TextAdapter):
    """`Field: value` lines; demonstrations are earlier turns of the same shape."""

    name: str = "plain"

    def layout(self, signature: type[Signature]) -> Layout:
        return Layout(_system(signature), tuple(map(_slot, signature.input_fields.values())),
                      tuple(map(_slot, signature.output_fields.values())), between="\n")

    def find(self, signature: type[Signature], text: str) -> Found:
        """The text after each header. Text before the first header is the first output if that has none of its own:
        models often answer straight away."""
        found = dict(lines(signature, text))
        first = next(iter(signature.output_fields), "")
        if found and not found.get(first) and (before := before_lines(signature, text)):
            found[first] = before
        if not found:
            raise ValueError("it has no `Field: value` lines")
        return found if len(found) == len(signature.output_fields) else elsewhere(signature, text) or found

    def unmarked(self, signature: type[Signature], text: str) -> Found:
        return only_output(signature, text)

    def cut(self, signature: type[Signature], text: str) -> str | None:
        marks = [(m.end(), name) for m in HEADER.finditer(text) if (name := match_name(m.group(1), signature))]
        return cut_value(signature, marks, text)

    def stream(self, signature: type[Signature]) -> FieldStream:
        return LineStream(signature)

    def response_format(self, signature: type[Signature],
                        constraints: frozenset[Constraint]) -> ResponseFormat | None:
        if "grammar" not in constraints:
            return None
        from tracedsl.programs.adapters.grammar import plain_grammar

        return signature.memo("plain grammar", lambda s: ResponseFormat("grammar", plain_grammar(s)))


def _slot(field: Field) -> Slot:
    return Slot(field.name, f"{field.title}:", written(field), broken=True)


def _system(signature: type[Signature]) -> str:
    lines = [signature.instructions, *field_lines(signature.fields.values())]
    if not signature.output_fields:
        return "\n".join(lines)
    shape = "\n".join(f"{f.title}: ..." for f in signature.output_fields.values())
    return "\n".join([*lines, "Answer with:", shape])
