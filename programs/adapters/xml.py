"""The XML layout: every field between tags of its name.

What holds here: texts stand between the tags as they are, without escapes; structured values as JSON. Parsing also
takes structured values as nested elements, as models write them unasked.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracedsl.programs.adapters.base import Layout, TextAdapter, only_output
from tracedsl.programs.adapters.shapes import Found, Json, tagged
from tracedsl.programs.adapters.streams import FieldStream, TagStream
from tracedsl.programs.adapters.writing import Slot, field_lines, written
from tracedsl.programs.lm.base import Constraint, ResponseFormat
from tracedsl.programs.types import bare_type, json_schema

if TYPE_CHECKING:
    from tracedsl.programs.fields import Field
    from tracedsl.programs.signature import Signature

_LARGEST = 200_000


@dataclass(frozen=True)
class XMLAdapter(TextAdapter):
    """`<field>...</field>`; models that were trained on tags keep to it well."""

    name: str = "xml"

    def layout(self, signature: type[Signature]) -> Layout:
        return Layout(_system(signature), tuple(map(_slot, signature.input_fields.values())),
                      tuple(map(_slot, signature.output_fields.values())), between="\n")

    def find(self, signature: type[Signature], text: str) -> Found:
        found = tagged(signature, text)
        if not found:
            raise ValueError("it has no <name>...</name> tags")
        return {name: _nested(signature.output_fields[name], raw) if isinstance(raw, str) and "</" in raw else raw
                for name, raw in found.items()}

    def unmarked(self, signature: type[Signature], text: str) -> Found:
        return only_output(signature, text) if not any(f"<{name}" in text for name in signature.output_fields) else {}

    def stream(self, signature: type[Signature]) -> FieldStream:
        return TagStream(signature)

    def response_format(self, signature: type[Signature],
                        constraints: frozenset[Constraint]) -> ResponseFormat | None:
        if "grammar" not in constraints:
            return None
        from tracedsl.programs.adapters.grammar import xml_grammar

        return signature.memo("xml grammar", lambda s: ResponseFormat("grammar", xml_grammar(s)))


def _slot(field: Field) -> Slot:
    return Slot(field.name, f"<{field.name}>\n", written(field), tail=f"\n</{field.name}>")


def _system(signature: type[Signature]) -> str:
    lines = [signature.instructions]
    if described := field_lines(signature.fields.values()):
        lines += ["", "Fields:", *described]
    if not signature.output_fields:
        return "\n".join(lines)
    shape = "\n".join(f"<{name}>\n...\n</{name}>" for name in signature.output_fields)
    return "\n".join([*lines, "", "Answer in exactly this form:", "", shape])


def _nested(field: Field, raw: str) -> str | Json:
    """Elements inside a structured field as data; the text itself where the field is text or the elements are none."""
    annotation = bare_type(field.type)
    if annotation is str or len(raw) > _LARGEST or not raw.lstrip().startswith("<"):
        return raw
    schema = json_schema(annotation)
    try:
        return Json(_data(ElementTree.fromstring(f"<x>{raw}</x>"), schema, schema.get("$defs", {}), 0))
    except (ElementTree.ParseError, ValueError):
        return raw


def _data(element: ElementTree.Element, schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int) -> Any:
    """An element as the data that the schema expects; raises `ValueError` if it nests too deeply."""
    if depth > 50:
        raise ValueError("elements nest too deeply")
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[-1]]
    children = list(element)
    options = [o for o in schema.get("anyOf", ()) if o.get("type") != "null"]
    if options:
        return _data(element, options[0], definitions, depth + 1) if children or (element.text or "").strip() else None
    if schema.get("type") == "array":
        return [_data(child, schema.get("items", {}), definitions, depth + 1) for child in children]
    if not children:
        return (element.text or "").strip()
    properties = schema.get("properties", {})
    made: dict[str, Any] = {}
    for child in children:
        inner = properties.get(child.tag, {})
        if child.tag in made:
            raise ValueError(f"the element {child.tag!r} is there twice")
        made[child.tag] = _data(child, inner, definitions, depth + 1)
    return made
