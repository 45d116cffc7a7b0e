"""Field types: reading them from text, naming them, checking values against them.

What holds here: text is never evaluated; it is parsed and its names are looked up: in the types that the caller gave,
in a fixed table, in the code that wrote the signature. Pydantic does the checking and is loaded on first use; the plain
types that most fields have are checked without it. A class with an attribute `field_role` writes and reads its own
values (`field_types/base.py`); it is known by that attribute alone.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import enum
import functools
import json
import operator
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

from tracedsl.diagnostics import TracedslError, nearest

_NAMES: Mapping[str, Any] = types.MappingProxyType({
    "str": str, "int": int, "float": float, "bool": bool, "bytes": bytes, "object": Any, "Any": Any, "None": None,
    "list": list, "dict": dict, "tuple": tuple, "set": set, "frozenset": frozenset,
    "List": list, "Dict": dict, "Tuple": tuple, "Set": set, "FrozenSet": frozenset,
    "Optional": Optional, "Union": Union, "Literal": Literal,
    "date": datetime.date, "datetime": datetime.datetime, "time": datetime.time, "timedelta": datetime.timedelta,
    "Decimal": decimal.Decimal,
})
_FIELD_TYPES: Mapping[str, str] = types.MappingProxyType({
    "Image": "field_types.media", "Audio": "field_types.media", "File": "field_types.media",
    "History": "field_types.history", "Code": "field_types.text", "Reasoning": "field_types.text",
    "Tool": "tools.tool", "ToolCalls": "tools.calls",
})
_MODULES: Mapping[str, Any] = types.MappingProxyType({
    "datetime": {"date": datetime.date, "datetime": datetime.datetime, "time": datetime.time,
                 "timedelta": datetime.timedelta},
    "decimal": {"Decimal": decimal.Decimal},
    "typing": _NAMES,
})


class SignatureError(TracedslError, ValueError):
    """A signature that is not well formed."""


class FieldError(TracedslError, TypeError):
    """A field that does not exist or is missing, or a value that does not fit its field."""


def resolve(node: ast.expr, custom: Mapping[str, Any], text: str) -> Any:
    """The type that an annotation's syntax tree denotes. `custom` are the caller's own types by name; `text` is the
    whole signature, for the error message."""
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str() as quoted):  # a forward reference, as in `x: "list[int]"`
            return resolve(_parse(quoted, text), custom, text)
        case ast.Name() | ast.Attribute():
            return _named(ast.unparse(node), custom, text)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[resolve(left, custom, text), resolve(right, custom, text)]  # noqa: UP007 - built at run time
        case ast.Subscript(value=base, slice=inner):
            return _subscript(resolve(base, custom, text), inner, custom, text)
    raise SignatureError("P001", f"{ast.unparse(node)!r} is not a type", why=f"in the signature {text!r}",
                         hint="use names like str, int, list[str], Literal['a', 'b'], or the class form of Signature")


def _subscript(origin: Any, inner: ast.expr, custom: Mapping[str, Any], text: str) -> Any:
    items = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
    if origin is Literal:
        try:
            values = tuple(ast.literal_eval(item) for item in items)
        except ValueError:
            raise SignatureError("P001", "Literal takes plain values only", why=f"in the signature {text!r}",
                                 hint="write them out, as in Literal['yes', 'no']") from None
        return Literal.__getitem__(values)
    try:
        if is_field_type(origin):  # Code["python"]: what stands in the brackets is no type
            return origin[ast.literal_eval(inner)]
        args = tuple(... if isinstance(i, ast.Constant) and i.value is ... else resolve(i, custom, text) for i in items)
        return origin[args if len(args) > 1 else args[0]]
    except (TypeError, ValueError) as error:
        if isinstance(error, SignatureError):
            raise
        raise SignatureError("P001", f"{ast.unparse(inner)!r} does not fit into the brackets of {type_name(origin)}",
                             why=str(error), hint=f"correct it in the signature {text!r}") from None


def _named(dotted: str, custom: Mapping[str, Any], text: str) -> Any:
    """The type of this name, which may have dots: the caller's own, a known one, or one that the code that wrote the
    signature knows by it."""
    head, _, tail = dotted.partition(".")
    if dotted in custom:
        return custom[dotted]
    if dotted in _NAMES:
        return _NAMES[dotted]
    if tail in _MODULES.get(head, {}):
        return _MODULES[head][tail]
    known = tail if head == "dspy" else dotted
    found = custom.get(head)
    if found is None:
        found = _in_callers(head)
    for part in tail.split(".") if tail else ():
        found = getattr(found, part, None)
    if found is not None and _is_type(found):
        return found
    if known in _FIELD_TYPES:
        return getattr(import_module("tracedsl.programs." + _FIELD_TYPES[known]), known)
    raise unknown_type(dotted, {*_NAMES, *_FIELD_TYPES, *custom}, text)


def _in_callers(name: str) -> Any:
    return next((names[name] for names in caller_names() if name in names), None)


def caller_names() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The local and the global names of the code that writes the signature: the first frame outside this package."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith("tracedsl.programs"):
        frame = frame.f_back
    return ({}, {}) if frame is None else (frame.f_locals, frame.f_globals)


def _is_type(value: Any) -> bool:
    return isinstance(value, (type, types.UnionType, types.GenericAlias)) or get_origin(value) is not None


def _parse(text: str, whole: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        raise SignatureError("P001", f"{text!r} is not a type", why=f"in the signature {whole!r}") from None


def unknown_type(name: str, known: Iterable[str], text: str) -> SignatureError:
    hint = nearest(name, known)
    if not hint.startswith("did you mean"):
        hint = "give it as Signature(text, custom_types={'Name': Type}) or use the class form of Signature"
    return SignatureError("P002", f"unknown type {name!r} in the signature {text!r}", hint=hint)


def is_field_type(annotation: Any) -> bool:
    """Whether the class writes and reads its own values (`field_types/base.py`)."""
    return isinstance(annotation, type) and hasattr(annotation, "field_role")


def role_of(annotation: Any) -> str:
    """What a field of this type is to an adapter: "history", "reasoning", "tool", "tool_calls", "media", or "" for
    ordinary data. A list of tools is "tool", an optional image "media"."""
    if is_field_type(annotation):
        return str(annotation.field_role)
    if get_origin(annotation) in (list, tuple, Union, types.UnionType, Annotated):
        return next((role for arg in get_args(annotation) if (role := role_of(arg))), "")
    return ""


def bare_type(annotation: Any) -> Any:
    """The type without its `Annotated` wrapping."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def type_name(annotation: Any) -> str:
    """How a person would write the type: `list[str]`, `Literal['a', 'b']`, `int | None`."""
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is Any:
        return "Any"
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(args[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    if origin in (Union, types.UnionType):
        return " | ".join(map(type_name, args))
    if origin is not None:
        inner = ", ".join("..." if a is ... else type_name(a) for a in args)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def type_fingerprint(annotation: Any) -> str:
    """A text that changes whenever the set of values that fit the type changes."""
    name = type_name(annotation)
    if _only_plain(annotation):
        return name
    schema = json_schema(annotation)
    return f"{name} {json.dumps(schema, sort_keys=True)}"


def _only_plain(annotation: Any) -> bool:
    if get_origin(annotation) is Literal or annotation is ...:
        return True
    args = get_args(annotation)
    base = get_origin(annotation) or annotation
    return (base in (*_NAMES.values(), type(None), types.UnionType)) and all(map(_only_plain, args))


@functools.lru_cache(maxsize=512)
def adapter_for(annotation: Any) -> Any:
    """Pydantic's `TypeAdapter` for the type (building one is slow, so they are kept)."""
    from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

    annotation = _checkable(annotation)
    try:
        return TypeAdapter(annotation)
    except PydanticUserError:
        pass
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise SignatureError("P002", f"{type_name(annotation)} cannot be used as a field's type",
                             why=str(error).splitlines()[0], hint="use a type that pydantic understands") from None


def _checkable(annotation: Any) -> Any:
    """The type with `typing.TypedDict` replaced by that of `typing_extensions` where pydantic asks for it (before
    Python 3.12)."""
    if sys.version_info >= (3, 12):
        return annotation
    import typing_extensions

    if isinstance(annotation, typing._TypedDictMeta) and type(annotation).__module__ == "typing":  # type: ignore[attr-defined]
        required, hints = annotation.__required_keys__, typing.get_type_hints(annotation, include_extras=True)
        fields = {name: _checkable(hint) if name in required else typing_extensions.NotRequired[_checkable(hint)]
                  for name, hint in hints.items()}
        return typing_extensions.TypedDict(annotation.__name__, fields)  # type: ignore[operator]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (list, dict, tuple, set, frozenset, Union, types.UnionType):
        made = tuple(map(_checkable, args))
        if made != args:
            return union(made) if origin in (Union, types.UnionType) else origin[made]
    return annotation


def json_schema(annotation: Any) -> dict[str, Any]:
    """The JSON schema of the values that fit; the schema of anything if pydantic has none for this type."""
    from pydantic import PydanticInvalidForJsonSchema, PydanticUserError

    try:
        return dict(adapter_for(annotation).json_schema())
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        return {}


def validate(annotation: Any, value: Any) -> Any:
    """`value` as the type wants it. Raises `ValueError` with a one-line reason."""
    if annotation is Any or (annotation in (str, bool) and type(value) is annotation):
        return value
    if annotation in (int, float) and type(value) is annotation:
        return value
    from pydantic import ValidationError

    try:
        return adapter_for(annotation).validate_python(value)
    except ValidationError as error:
        raise ValueError(one_line(error)) from None


def one_line(error: Any) -> str:
    """A pydantic error as one sentence, without links."""
    parts = []
    for item in error.errors(include_url=False)[:3]:
        where = ".".join(map(str, item["loc"]))
        parts.append(f"{where}: {item['msg']}" if where else item["msg"])
    return "; ".join(parts)


def to_json(value: Any) -> Any:
    """`value` as something `json.dumps` takes: models, dates, enums, sets and tuples become plain data."""
    if value is None or (isinstance(value, (str, int, float, bool)) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted((to_json(v) for v in value), key=repr)
    if hasattr(value, "toDict"):
        return to_json(value.toDict())
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, ValueError):
        return str(value)


def union(members: tuple[Any, ...]) -> Any:
    """The union of some types."""
    return functools.reduce(operator.or_, members)
