"""The JSON layout: inputs as plain lines, the answer as one JSON object.

What holds here: parsing takes the object out of code fences and prose, and accepts keys in another case. Where the
model can be held to a grammar or a schema, it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracedsl.programs.adapters.base import Layout, TextAdapter, only_output
from tracedsl.programs.adapters.shapes import Found, json_object
from tracedsl.programs.adapters.streams import FieldStream, ObjectStream
from tracedsl.programs.adapters.values import parse_value
from tracedsl.programs.adapters.writing import Slot, field_lines, written
from tracedsl.programs.lm.base import Constraint, Part, ResponseFormat
from tracedsl.programs.types import json_schema, to_json

if TYPE_CHECKING:
    from tracedsl.programs.signature import Signature


@dataclass(frozen=True)
class JSONAdapter(TextAdapter):
    """One JSON object with a key for each output."""

    name: str = "json"

    def layout(self, signature: type[Signature]) -> Layout:
        ask = tuple(Slot(f.name, f"{f.title}: ", written(f)) for f in signature.input_fields.values())
        return Layout(self.system(signature), ask, (), between="\n")

    def system(self, signature: type[Signature]) -> str:
        """The system's text."""
        lines = [signature.instructions]
        if described := field_lines(signature.fields.values()):
            lines += ["", "Fields:", *described]
        if not signature.output_fields:
            return "\n".join(lines)
        shape = ", ".join(f'"{name}": ...' for name in signature.output_fields)
        return "\n".join([*lines, "", f"Answer with one JSON object: {{{shape}}}"])

    def answer(self, layout: Layout, signature: type[Signature], values: Mapping[str, Any]) -> str | tuple[Part, ...]:
        made = {name: to_json(values[name]) for name in signature.output_fields if name in values}
        return json.dumps(made, ensure_ascii=False)

    def find(self, signature: type[Signature], text: str) -> Found:
        return json_object(signature, text)

    def unmarked(self, signature: type[Signature], text: str) -> Found:
        """The only output, written without its object; free text has to stand in one."""
        for name, raw in only_output(signature, text).items():
            field = signature.output_fields[name]
            try:
                value = None if field.type is str else parse_value(field.checked_type, str(raw))
            except (ValueError, RecursionError):
                value = None
            # A plain value out of an object of something else would be a guess.
            return {} if value is None or ("{" in text and isinstance(value, (str, int, float))) else {name: raw}
        return {}

    def stream(self, signature: type[Signature]) -> FieldStream:
        return ObjectStream(signature)

    def response_format(self, signature: type[Signature],
                        constraints: frozenset[Constraint]) -> ResponseFormat | None:
        if "grammar" in constraints:
            from tracedsl.programs.adapters.grammar import json_grammar

            return signature.memo("json grammar", lambda s: ResponseFormat("grammar", json_grammar(s)))
        if "json_schema" in constraints:
            return signature.memo("json schema", lambda s: ResponseFormat("json_schema", outputs_schema(s)))
        return None


def outputs_schema(signature: type[Signature]) -> str:
    """The JSON schema of all outputs as one object, as text; definitions are lifted to the top."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for name, field in signature.output_fields.items():
        schema = json_schema(field.checked_type)
        definitions.update(schema.pop("$defs", {}))
        properties[name] = schema
    whole = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return json.dumps({**whole, "$defs": definitions} if definitions else whole, ensure_ascii=False)
