"""The layout of BAML (boundaryml.com): types in a compact notation in place of JSON schemas, the answer as JSON.

What holds here: the notation says all that a model needs and no more; what is read back is read as in the JSON layout.
"""

from __future__ import annotations

import datetime
import enum
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tracedsl.programs.adapters.json import JSONAdapter
from tracedsl.programs.adapters.writing import type_hint
from tracedsl.programs.types import bare_type, type_name

if TYPE_CHECKING:
    from tracedsl.programs.fields import Field
    from tracedsl.programs.signature import Signature

_PLAIN = {str: "string", int: "int", float: "float", bool: "bool", Decimal: "number", Any: "any", type(None): "null",
          None: "null", datetime.date: "date (YYYY-MM-DD)", datetime.datetime: "datetime (ISO 8601)",
          datetime.time: "time (HH:MM:SS)"}


@dataclass(frozen=True)
class BAMLAdapter(JSONAdapter):
    """JSON answers, their types in compact notation."""

    name: str = "baml"

    def system(self, signature: type[Signature]) -> str:
        lines = [signature.instructions]
        lines += [f"- {f.name}: {f.desc}" for f in signature.input_fields.values() if f.desc]
        if not signature.output_fields:
            return "\n".join(lines)
        shape = [_entry(f.name, notation(f.type, "  "), _remark(f)) for f in signature.output_fields.values()]
        return "\n".join([*lines, "", "Answer with one JSON object of this type:", "{", *shape, "}"])


def _remark(field: Field) -> str:
    limits = type_hint(field, lambda _: "") if field.limits else ""
    return ", ".join(part for part in (field.desc, limits) if part)


def _entry(name: str, type_: str, remark: str, indent: str = "  ") -> str:
    return f"{indent}{json.dumps(name, ensure_ascii=False)}: {type_}," + (f"  // {remark}" if remark else "")


def notation(annotation: Any, indent: str = "", seen: tuple[Any, ...] = ()) -> str:
    """The type as BAML would write it.

    >>> notation(list[int] | None), notation(dict[str, Literal["a", 2]])
    ('int[] or null', 'map<string, "a" or 2>')
    """
    if get_origin(annotation) is Annotated:
        annotation = bare_type(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if origin is Literal:
        return " or ".join(json.dumps(a, ensure_ascii=False) for a in args)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(json.dumps(m.value, ensure_ascii=False, default=str) for m in annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(notation(a, indent, seen) for a in args)
    if origin in (list, set, frozenset) or (origin is tuple and args[1:] == (...,)):
        item = notation(args[0], indent, seen)
        return f"({item})[]" if " or " in item.split("\n")[0] else f"{item}[]"
    if origin is tuple:
        return f"[{', '.join(notation(a, indent, seen) for a in args)}]"
    if origin is dict:
        return f"map<{', '.join(notation(a, indent, seen) for a in args)}>"
    return _record(annotation, indent, seen)


def _record(annotation: Any, indent: str, seen: tuple[Any, ...]) -> str:
    """A model, dataclass or typed mapping with its fields; a type inside itself is named alone."""
    members = record_members(annotation)
    if not members or annotation in seen:
        return type_name(annotation)
    inner, seen = indent + "  ", (*seen, annotation)
    rows = [_entry(name, notation(type_, inner, seen), remark, inner) for name, (type_, remark) in members.items()]
    return "\n".join(["{", *rows, indent + "}"])


def record_members(annotation: Any) -> Mapping[str, tuple[Any, str]]:
    """The fields of a record: type and description by the name that JSON has for them; empty for what is none."""
    models = getattr(annotation, "model_fields", None)
    if isinstance(models, dict):
        return {f.alias or name: (f.annotation, f.description or "") for name, f in models.items()}
    if isinstance(annotation, type) and (is_dataclass(annotation) or hasattr(annotation, "__required_keys__")):
        hints = get_type_hints(annotation)
        names = [f.name for f in fields(annotation)] if is_dataclass(annotation) else list(hints)
        return {name: (hints[name], "") for name in names}
    return {}
