"""The chat layout of DSPy: every field under a `[[ ## name ## ]]` marker.

What holds here: formatting is pure; parsing accepts markers in any case and spacing, and the first of repeated ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from tracedsl.programs.adapters.base import (
    NOT_SUPPLIED,
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

_HEADER = re.compile(r"^[ \t>*]*(?:\[\[[ \t]*)?##[ \t]*([\w -]+?)[ \t]*##[ \t]*(?:\]\])?[*]*[ \t]*:?", re.MULTILINE)


@dataclass(frozen=True)
class ChatAdapter:
    """`[[ ## field ## ]]` markers; suits large models, and free text of many lines."""

    name: str = "chat"

    def format(self, signature: type[Signature], demos: Sequence[Mapping[str, Any]],
               inputs: Mapping[str, Any]) -> list[Message]:
        return conversation(_system(signature), usable_demos(signature, demos), inputs,
                            ask=partial(self._user, signature), answer=partial(self._assistant, signature))

    def parse(self, signature: type[Signature], text: str) -> dict[str, Any]:
        found = self._sections(signature, text)
        if not found:
            outputs = list(signature.output_fields)
            if len(outputs) == 1 and text.strip() and "[[" not in text:
                found = {outputs[0]: text}  # the only answer, without its marker
            else:
                raise AdapterParseError.of(self.name, signature, text, None, "it has no [[ ## name ## ]] markers")
        return parse_fields(self.name, signature, text, found)

    def response_format(self, signature: type[Signature],
                        constraints: frozenset[Constraint]) -> ResponseFormat | None:
        if "grammar" not in constraints:
            return None
        from tracedsl.programs.adapters.grammar import chat_grammar

        return ResponseFormat("grammar", chat_grammar(signature))

    def _user(self, signature: type[Signature], values: Mapping[str, Any]) -> str:
        return "\n\n".join(f"[[ ## {name} ## ]]\n{format_input(values[name]) if name in values else NOT_SUPPLIED}"
                           for name in signature.input_fields)

    def _assistant(self, signature: type[Signature], values: Mapping[str, Any]) -> str:
        parts = [f"[[ ## {name} ## ]]\n{format_value(values[name]) if name in values else NOT_SUPPLIED}"
                 for name in signature.output_fields]
        return "\n\n".join([*parts, "[[ ## completed ## ]]"])

    def _sections(self, signature: type[Signature], text: str) -> dict[str, str]:
        """The text under each marker; unknown markers end a section too."""
        marks = list(_HEADER.finditer(text))
        found: dict[str, str] = {}
        for i, mark in enumerate(marks):
            end = marks[i + 1].start() if i + 1 < len(marks) else len(text)
            name = match_name(mark.group(1), signature)
            if name is not None and name not in found:
                found[name] = text[mark.end():end].strip()
        return found


@lru_cache(maxsize=256)
def _system(signature: type[Signature]) -> str:
    lines = [signature.instructions]
    if described := field_lines(signature.fields.values()):
        lines += ["", "Fields:", *described]
    shape = "\n\n".join(f"[[ ## {name} ## ]]\n{{{name}}}" for name in signature.output_fields)
    return "\n".join([*lines, "", "Answer in exactly this form:", "", shape, "", "[[ ## completed ## ]]"])
