"""Values as they stand in a prompt, and what a prompt says about their types.

What holds here: a value is written in one way (`format_value`), by every adapter, and read back by `values.py`. Media
are parts of a message; wherever they stand in a value, they end up beside the text that mentions them.
"""

from __future__ import annotations

import enum
import json
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from tracedsl.programs.types import bare_type, is_field_type, json_schema, to_json, validate

if TYPE_CHECKING:
    from tracedsl.programs.fields import Field
    from tracedsl.programs.lm.base import MediaPart, Part

Written = Any
"""Text, or a list of texts and media."""

_LIMITS = {"gt": "more than {}", "ge": "at least {}", "lt": "less than {}", "le": "at most {}",
           "multiple_of": "a multiple of {}", "min_length": "at least {} long", "max_length": "at most {} long",
           "pattern": "matching {}"}


@dataclass(frozen=True)
class Slot:
    """A place for a value: what stands before and after it, how it is written, and what stands there if it is missing
    (None: nothing, and no head either). `broken` heads are followed by a line break if the value has one, else by a
    blank."""

    name: str
    head: str
    write: Callable[[Any], Written]
    tail: str = ""
    missing: str | None = None
    broken: bool = False


def fill(slots: Iterable[Slot], values: Mapping[str, Any], between: str) -> str | tuple[Part, ...]:
    """The text with the values in their places; parts if there are media among them."""
    pieces: list[Any] = []
    for slot in slots:
        if slot.name in values:
            value = values[slot.name]
            text = value if type(value) is str else slot.write(value)
        elif slot.missing is not None:
            text = slot.missing
        else:
            continue
        if pieces:
            pieces.append(between)
        pieces.append(slot.head)
        if type(text) is str:
            if slot.broken:
                pieces.append("\n" if "\n" in text else " ")
            pieces.append(text)
        else:
            pieces += ["\n" if slot.broken else "", *text]
        if slot.tail:
            pieces.append(slot.tail)
    try:
        return "".join(pieces)
    except TypeError:
        from tracedsl.programs.field_types.base import joined

        return joined(pieces)


def written(field: Field) -> Callable[[Any], Written]:
    """How values of this field are written: inputs number the items of lists."""
    plain = format_input if field.kind == "input" else format_value
    if is_field_type(bare_type(field.type)):
        return lambda value: plain(value if hasattr(value, "field_role") else _revived(field.type, value))
    if _mentions_field_types(field.type):
        return _rich
    return plain


def format_value(value: Any) -> Written:
    """A value as the text that stands in a prompt: strings as they are, other plain data as JSON."""
    if type(value) is str:
        return value
    if hasattr(type(value), "field_role"):
        return _own(value)
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return str(value)
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, enum.Enum):
        return str(value.value)
    plain = to_json(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def format_input(value: Any) -> Written:
    """As `format_value`, with lists of texts numbered, one a line."""
    if isinstance(value, (list, tuple)) and value:
        if all(isinstance(v, str) for v in value):
            return "\n".join(f"[{i}] {v}" for i, v in enumerate(value, 1))
        if any(hasattr(type(v), "field_role") for v in value):
            return _rich(value)
    return format_value(value)


def _own(value: Any) -> Written:
    """A value that writes itself."""
    from tracedsl.programs.field_types.base import parts_of

    made = value.format()
    return made if type(made) is str else parts_of(made)


def _revived(annotation: Any, value: Any) -> Any:
    """A saved value as what it was; one that does not fit stays as it is."""
    try:
        return validate(annotation, value)
    except ValueError:
        return value


def _rich(value: Any) -> Written:
    """A value with media inside: a list item by item, anything else as JSON that mentions them, followed by them."""
    if hasattr(type(value), "field_role"):
        return _own(value)
    if isinstance(value, (list, tuple)):
        pieces: list[Any] = []
        for i, item in enumerate(value, 1):
            inner = _rich(item)
            pieces += [f"\n[{i}] " if pieces else f"[{i}] ", *([inner] if isinstance(inner, str) else inner)]
        return pieces
    media: list[Any] = []
    text = format_value(_mentioned(value, media))
    return [text, *(piece for i, part in enumerate(media, 1) for piece in (f"\n({part.kind} {i}) ", part))]


def _mentioned(value: Any, media: list[MediaPart]) -> Any:
    """Plain data in which each medium is `(image 1)`; the media are collected."""
    if hasattr(type(value), "field_role"):
        own = _own(value)
        pieces = [own] if isinstance(own, str) else own
        return "".join(p if isinstance(p, str) else _collect(p, media) for p in pieces)
    if isinstance(value, Mapping):
        return {str(k): _mentioned(v, media) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mentioned(v, media) for v in value]
    if hasattr(type(value), "model_fields"):
        return {name: _mentioned(getattr(value, name), media) for name in type(value).model_fields}
    return to_json(value)


def _collect(part: MediaPart, media: list[MediaPart]) -> str:
    media.append(part)
    return f"({part.kind} {len(media)})"


def _mentions_field_types(annotation: Any, depth: int = 0) -> bool:
    if is_field_type(annotation) or depth > 4:
        return is_field_type(annotation)
    inner = [*get_args(annotation), *(f.annotation for f in getattr(annotation, "model_fields", {}).values())]
    return any(_mentions_field_types(a, depth + 1) for a in inner)


# -- types -------------------------------------------------------------------------------------------------------------


def type_hint(field: Field, notation: Callable[[Any], str] | None = None) -> str:
    """What to tell the model about a field's type; empty for plain text. `notation` writes structured types; by default
    it is their JSON schema."""
    hint = _hint_of(field, notation)
    limits = [_LIMITS[name].format(value) for name, value in field.limits]
    return ", ".join([*([hint] if hint else ()), *limits])


def _hint_of(field: Field, notation: Callable[[Any], str] | None) -> str:
    annotation = bare_type(field.type)
    origin = get_origin(annotation)
    if annotation is str or annotation is Any:
        return ""
    if is_field_type(annotation):
        said = annotation.description()
        return said or ("" if issubclass(annotation, str) else _structured(annotation, notation))
    if origin is Literal:
        return "one of: " + ", ".join(map(str, get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "one of: " + ", ".join(str(m.value) for m in annotation)
    names = {int: "an integer", float: "a number", bool: "True or False"}
    if annotation in names:
        return names[annotation]
    if notation is None and (origin in (Union, types.UnionType) or not _is_structured(annotation, origin)):
        return field.type_name
    if origin is list and get_args(annotation) in ((str,), (int,), (float,)):
        return f"JSON, {field.type_name}"
    return _structured(annotation, notation)


def _is_structured(annotation: Any, origin: Any) -> bool:
    return origin is not None or any(hasattr(annotation, mark) for mark in (
        "model_json_schema", "__dataclass_fields__", "__required_keys__"))


def _structured(annotation: Any, notation: Callable[[Any], str] | None) -> str:
    if notation is not None:
        return notation(annotation)
    return "JSON, schema " + json.dumps(json_schema(annotation), ensure_ascii=False)


def field_lines(fields: Iterable[Field], notation: Callable[[Any], str] | None = None) -> list[str]:
    """`- name (type): description` for each field that has something to say."""
    lines = []
    for f in fields:
        hint = type_hint(f, notation) if f.kind == "output" else ""
        if hint or f.desc:
            lines.append(f"- {f.name}{f' ({hint})' if hint else ''}{f': {f.desc}' if f.desc else ''}")
    return lines
