"""The JSON layout: inputs as plain lines, the answer as one JSON object.

What holds here: formatting is pure; parsing takes the object out of code fences and prose, and accepts keys in another
case. Where the model can be held to a grammar or a schema, it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from tracedsl.programs.adapters.base import (
    AdapterParseError,
    conversation,
    field_lines,
    format_input,
    match_name,
    usable_demos,
)
from tracedsl.programs.adapters.values import coerce, find_json, parse_value
from tracedsl.programs.lm.base import Constraint, Message, ResponseFormat
from tracedsl.programs.types import json_schema, to_json

if TYPE_CHECKING:
    from tracedsl.programs.signature import Signature


@dataclass(frozen=True)
class JSONAdapter:
    """One JSON object with a key for each output."""

    name: str = "json"

    def format(self, signature: type[Signature], demos: Sequence[Mapping[str, Any]],
               inputs: Mapping[str, Any]) -> list[Message]:
        return conversation(_system(signature), usable_demos(signature, demos), inputs,
                            ask=partial(self._user, signature), answer=partial(self._assistant, signature))

    def parse(self, signature: type[Signature], text: str) -> dict[str, Any]:
        try:
            found = find_json(text, lambda v: isinstance(v, dict) and any(match_name(str(k), signature) for k in v))
        except ValueError as error:
            return self._parse_bare(signature, text, str(error))
        by_name = {match_name(str(k), signature): v for k, v in reversed(list(found.items()))}
        values = {}
        for name, field in signature.output_fields.items():
            if name not in by_name:
                raise AdapterParseError.of(self.name, signature, text, name, "the object has no such key")
            try:
                values[name] = coerce(field.type, by_name[name])
            except ValueError as error:
                raise AdapterParseError.of(self.name, signature, text, name, str(error)) from None
        return values

    def response_format(self, signature: type[Signature],
                        constraints: frozenset[Constraint]) -> ResponseFormat | None:
        if "grammar" in constraints:
            from tracedsl.programs.adapters.grammar import json_grammar

            return ResponseFormat("grammar", json_grammar(signature))
        if "json_schema" in constraints:
            return ResponseFormat("json_schema", outputs_schema(signature))
        return None

    def _parse_bare(self, signature: type[Signature], text: str, reason: str) -> dict[str, Any]:
        """The only output, written without its object; anything else is an error."""
        outputs = list(signature.output_fields.values())
        if len(outputs) == 1 and outputs[0].type is not str and text.strip():
            try:
                return {outputs[0].name: parse_value(outputs[0].type, text)}
            except ValueError:
                pass
        raise AdapterParseError.of(self.name, signature, text, None, reason)

    def _assistant(self, signature: type[Signature], values: Mapping[str, Any]) -> str:
        answer = {name: to_json(values[name]) for name in signature.output_fields if name in values}
        return json.dumps(answer, ensure_ascii=False)

    def _user(self, signature: type[Signature], values: Mapping[str, Any]) -> str:
        return "\n".join(f"{f.title}: {format_input(values[name])}"
                         for name, f in signature.input_fields.items() if name in values)


@lru_cache(maxsize=256)
def outputs_schema(signature: type[Signature]) -> str:
    """The JSON schema of all outputs as one object, as text; definitions are lifted to the top."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for name, field in signature.output_fields.items():
        schema = json_schema(field.type)
        definitions.update(schema.pop("$defs", {}))
        properties[name] = schema
    whole = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return json.dumps({**whole, "$defs": definitions} if definitions else whole, ensure_ascii=False)


@lru_cache(maxsize=256)
def _system(signature: type[Signature]) -> str:
    lines = [signature.instructions]
    if described := field_lines(signature.fields.values()):
        lines += ["", "Fields:", *described]
    shape = ", ".join(f'"{name}": ...' for name in signature.output_fields)
    return "\n".join([*lines, "", f"Answer with one JSON object: {{{shape}}}"])
