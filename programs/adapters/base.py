"""What an adapter is: it turns a signature, demonstrations and inputs into messages, and an answer back into values.

What holds here: formatting is pure, so the same call always gives the same request. Parsing either gives a value of the
declared type for every output field, or raises `AdapterParseError` with the raw answer, the field and the reason.
Values are written in one way (`format_value`), by every adapter.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tracedsl.diagnostics import TracedslError
from tracedsl.programs.adapters.values import parse_value
from tracedsl.programs.lm.base import Message
from tracedsl.programs.types import to_json

if TYPE_CHECKING:
    from tracedsl.programs.fields import Field
    from tracedsl.programs.lm.base import Constraint, ResponseFormat
    from tracedsl.programs.signature import Signature

NOT_SUPPLIED = "Not supplied for this example."


@runtime_checkable
class Adapter(Protocol):
    """A prompt layout. `name` goes into cache keys and artefacts."""

    @property
    def name(self) -> str:
        """A short name, different for each layout."""

    def format(self, signature: type[Signature], demos: Sequence[Mapping[str, Any]],
               inputs: Mapping[str, Any]) -> list[Message]:
        """The messages of one call."""

    def parse(self, signature: type[Signature], text: str) -> dict[str, Any]:
        """The output values by name; raises `AdapterParseError`."""

    def response_format(self, signature: type[Signature],
                        constraints: frozenset[Constraint]) -> ResponseFormat | None:
        """What to hold the answer to, in a form that the model supports; None if it supports none."""


class AdapterParseError(TracedslError, ValueError):
    """An answer that could not be read. `text` is the raw answer, `field` the output that failed (None: all of it)."""

    text: str
    field: str | None
    reason: str

    @classmethod
    def of(cls, adapter: str, signature: type[Signature], text: str, field: str | None, reason: str,
           ) -> AdapterParseError:
        shown = text if len(text) <= 600 else f"{text[:400]} ... {text[-150:]}"
        what = f"the answer has no readable {field!r}" if field else "the answer cannot be read"
        error = cls("P005", f"{what} ({adapter} adapter, {signature.signature})",
                    why=f"{reason}; the model wrote: {shown!r}" if text.strip() else "the model wrote nothing",
                    hint="add demonstrations, loosen the field's type, try another adapter, or raise max_tokens")
        error.text, error.field, error.reason = text, field, reason
        return error


def format_value(value: Any) -> str:
    """A value as the text that stands in a prompt: strings as they are, lists of strings one a line, the rest JSON."""
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return value
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, enum.Enum):
        return str(value.value)
    plain = to_json(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def format_input(value: Any) -> str:
    """As `format_value`, with lists of texts numbered, one a line."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, str) for v in value):
        return "\n".join(f"[{i}] {v}" for i, v in enumerate(value, 1))
    return format_value(value)


def type_hint(field: Field) -> str:
    """What to tell the model about a field's type; empty for plain text."""
    import types
    from typing import Literal, Union, get_args, get_origin

    annotation = field.type
    origin = get_origin(annotation)
    if annotation is str or annotation is Any:
        return ""
    if origin is Literal:
        return "one of: " + ", ".join(map(str, get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "one of: " + ", ".join(str(m.value) for m in annotation)
    names = {int: "an integer", float: "a number", bool: "True or False"}
    if annotation in names:
        return names[annotation]
    if origin in (Union, types.UnionType) or (origin is None and not hasattr(annotation, "model_json_schema")):
        return field.type_name
    from tracedsl.programs.types import json_schema

    if origin is list and get_args(annotation) in ((str,), (int,), (float,)):
        return f"JSON, {field.type_name}"
    return "JSON, schema " + json.dumps(json_schema(annotation), ensure_ascii=False)


def field_lines(fields: Iterable[Field]) -> list[str]:
    """`- name (type): description` for each field that has something to say."""
    lines = []
    for f in fields:
        hint = type_hint(f) if f.kind == "output" else ""
        if hint or f.desc:
            lines.append(f"- {f.name}{f' ({hint})' if hint else ''}{f': {f.desc}' if f.desc else ''}")
    return lines


def usable_demos(signature: type[Signature], demos: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Demonstrations with at least one input and one output, the incomplete ones first, as in DSPy: what stands nearest
    to the question is imitated most."""
    inputs, outputs = signature.input_fields, signature.output_fields
    usable = [d for d in demos if any(n in d for n in inputs) and any(n in d for n in outputs)]
    return sorted(usable, key=lambda d: all(n in d for n in signature.fields))


Say = Callable[[Mapping[str, Any]], str]


def conversation(system: str, demos: Iterable[Mapping[str, Any]], inputs: Mapping[str, Any], *, ask: Say,
                 answer: Say) -> list[Message]:
    """The messages of every layout: the system's text, a question and its answer for each demonstration, the question.
    `ask` writes the inputs of an example, `answer` its outputs."""
    turns = [message for demo in demos
             for message in (Message("user", ask(demo)), Message("assistant", answer(demo)))]
    return [Message("system", system), *turns, Message("user", ask(inputs))]


def parse_fields(adapter: str, signature: type[Signature], text: str, found: Mapping[str, str]) -> dict[str, Any]:
    """Each output from its piece of text."""
    values = {}
    for name, field in signature.output_fields.items():
        if name not in found:
            raise AdapterParseError.of(adapter, signature, text, name, "it is not in the answer")
        try:
            values[name] = parse_value(field.type, found[name])
        except ValueError as error:
            raise AdapterParseError.of(adapter, signature, text, name, str(error)) from None
    return values


def match_name(header: str, signature: type[Signature]) -> str | None:
    """The output that a header means, whatever its case, spaces, dashes or emphasis."""
    return _names(signature).get(_fold(header))


@lru_cache(maxsize=256)
def _names(signature: type[Signature]) -> Mapping[str, str]:
    """Folded names and titles of the outputs; a name wins over a later one's title."""
    names: dict[str, str] = {}
    for name, field in signature.output_fields.items():
        names.setdefault(_fold(name), name)
        names.setdefault(_fold(field.title), name)
    return names


def _fold(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
