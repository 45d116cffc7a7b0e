"""The compact layout: `Field: value`, a line each, and nothing else. Small models understand it best.

What holds here: formatting is pure and short, and everything that stays the same between calls stands first, so that
the model's prompt cache can be used. Parsing accepts headers in any case and emphasis.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tracedsl.programs.adapters.base import (
    AdapterParseError,
    conversation,
    field_lines,
    format_input,
    format_value,
    match_name,
    parse_fields,
    usable_demos,
)
from tracedsl.programs.lm.base import Constraint, Message, ResponseFormat

if TYPE_CHECKING:
    from tracedsl.programs.signature import Signature

_HEADER = re.compile(r"^[ \t>#*_-]*([A-Za-z][\w -]{0,60}?)[ \t*_]*[:：][ \t*_]*", re.MULTILINE)


@dataclass(frozen=True)
class PlainAdapter:
    """`Field: value` lines; demonstrations are earlier turns of the same shape."""

    name: str = "plain"

    def format(self, signature: type[Signature], demos: Sequence[Mapping[str, Any]],
               inputs: Mapping[str, Any]) -> list[Message]:
        return conversation(_system(signature), usable_demos(signature, demos), inputs,
                            ask=lambda values: _lines(signature.input_fields, values, format_input),
                            answer=lambda values: _lines(signature.output_fields, values, format_value))

    def parse(self, signature: type[Signature], text: str) -> dict[str, Any]:
        found = self._sections(signature, text)
        if not found:
            raise AdapterParseError.of(self.name, signature, text, None, "it has no `Field: value` lines")
        return parse_fields(self.name, signature, text, found)

    def response_format(self, signature: type[Signature],
                        constraints: frozenset[Constraint]) -> ResponseFormat | None:
        if "grammar" not in constraints:
            return None
        from tracedsl.programs.adapters.grammar import plain_grammar

        return ResponseFormat("grammar", plain_grammar(signature))

    def _sections(self, signature: type[Signature], text: str) -> dict[str, str]:
        """The text after each header, up to the next output's header. Text before the first header is the first
        output if that has none of its own: models often answer straight away."""
        marks = [(m, name) for m in _HEADER.finditer(text) if (name := match_name(m.group(1), signature))]
        found: dict[str, str] = {}
        for i, (mark, name) in enumerate(marks):
            end = marks[i + 1][0].start() if i + 1 < len(marks) else len(text)
            found.setdefault(name, text[mark.end():end].strip())
        first = next(iter(signature.output_fields))
        before = text[:marks[0][0].start()] if marks else text
        if first not in found and before.strip() and (marks or len(signature.output_fields) == 1):
            found[first] = before.strip()
        return found


def _lines(fields: Mapping[str, Any], values: Mapping[str, Any], write: Any) -> str:
    lines = []
    for name, field in fields.items():
        if name in values:
            text = write(values[name])
            lines.append(f"{field.title}:{chr(10) if chr(10) in text else ' '}{text}")
    return "\n".join(lines)


@lru_cache(maxsize=256)
def _system(signature: type[Signature]) -> str:
    lines = [signature.instructions, *field_lines(signature.fields.values())]
    shape = "\n".join(f"{f.title}: ..." for f in signature.output_fields.values())
    return "\n".join([*lines, "Answer with:", shape])
