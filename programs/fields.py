"""Fields of signatures, and the three ways of writing them down: text, mapping, class body.

What holds here: fields are immutable. Reading them from text looks types up and evaluates nothing; what is wrong with a
text is said with the text.
"""

from __future__ import annotations

import ast
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Annotated, Any, Literal

from tracedsl.diagnostics import nearest
from tracedsl.programs.types import (
    FieldError,
    SignatureError,
    caller_names,
    resolve,
    role_of,
    type_name,
    unknown_type,
    validate,
)

Kind = Literal["input", "output"]
LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")


class _Missing:
    """Stands for a default that was not given."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


@dataclass(frozen=True)
class Field:
    """One field. `typed` is False where the user gave no type: the type then is `str`, and inputs are not checked.
    `limits` are those of pydantic (`ge`, `max_length`, ...); `default` stands in for a value that is not there."""

    name: str
    kind: Kind
    type: Any = str
    desc: str = ""
    prefix: str = ""
    typed: bool = True
    default: Any = field(default=MISSING, hash=False)
    limits: tuple[tuple[str, Any], ...] = ()

    @property
    def annotation(self) -> Any:
        """The type, under the name that DSPy has for it."""
        return self.type

    @cached_property
    def checked_type(self) -> Any:
        """The type with its limits."""
        if not self.limits:
            return self.type
        from pydantic import Field as Limited

        return Annotated[self.type, Limited(**dict(self.limits))]

    @cached_property
    def role(self) -> str:
        return role_of(self.type)

    @cached_property
    def title(self) -> str:
        """The name as a heading: `reply_date` -> `Reply Date`."""
        return self.prefix.rstrip(": ") or _title(self.name)

    @cached_property
    def type_name(self) -> str:
        return type_name(self.type)

    def check(self, value: Any) -> Any:
        """The value as the field's type wants it; raises `FieldError` if it does not fit."""
        if not self.typed or (self.type is str and isinstance(value, str) and not self.limits):
            return value
        try:
            return validate(self.checked_type, value)
        except ValueError as error:
            raise FieldError(
                "P004", f"input {self.name!r} must be {self.type_name}, got {type(value).__name__}: {shorten(value)}",
                why=str(error), hint=_fix(self, value)) from None


@dataclass(frozen=True)
class FieldSpec:
    """What `InputField()` and `OutputField()` return in a class body; the class makes a `Field` of it."""

    kind: Kind
    desc: str = ""
    prefix: str = ""
    default: Any = field(default=MISSING, hash=False)
    limits: tuple[tuple[str, Any], ...] = ()

    def field(self, name: str, type_: Any = None, *, typed: bool | None = None) -> Field:
        """The field that is declared so; without a type it is text, and not checked."""
        return Field(name, self.kind, str if type_ is None else type_, self.desc, self.prefix,
                     type_ is not None if typed is None else typed, self.default, self.limits)


def InputField(*, desc: str = "", prefix: str = "", default: Any = MISSING, **limits: Any) -> Any:
    """Declare an input. With a `default` it may be left out; `limits` are checked as pydantic does: gt, ge, lt, le,
    multiple_of, min_length, max_length, pattern."""
    return _spec("input", desc, prefix, default, limits)


def OutputField(*, desc: str = "", prefix: str = "", default: Any = MISSING, **limits: Any) -> Any:
    """Declare an output. A `default` stands in for an output that the answer does not have; an answer outside the
    `limits` (see `InputField`) does not parse."""
    return _spec("output", desc, prefix, default, limits)


def _spec(kind: Kind, desc: str, prefix: str, default: Any, limits: dict[str, Any]) -> FieldSpec:
    desc = desc or limits.pop("description", "")
    for name in limits:
        if name not in LIMITS:
            raise SignatureError("P001", f"a field has no setting {name!r}",
                                 hint=nearest(name, ("desc", "prefix", "default", *LIMITS)))
    return FieldSpec(kind, desc, prefix, default, tuple(limits.items()))


def fields_of_text(text: str, custom: Mapping[str, Any]) -> list[Field]:
    sides = _split_arrow(text)
    if len(sides) != 2:
        raise SignatureError("P001", f"the signature {text!r} has {len(sides) - 1} arrows",
                             why="it needs exactly one", hint='write it like "question -> answer"')
    fields = [*_parse_side(sides[0], "input", custom, text), *_parse_side(sides[1], "output", custom, text)]
    seen: dict[str, Field] = {}
    for f in fields:
        check_name(f.name, seen)
        seen[f.name] = f
    return fields


def _split_arrow(text: str) -> list[str]:
    """The text split at each `->` that stands outside quotes."""
    sides, start, quote, i = [], 0, "", 0
    while i < len(text):
        c = text[i]
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif text.startswith("->", i):
            sides.append(text[start:i])
            start = i = i + 2
            continue
        i += 1
    return [*sides, text[start:]]


def _parse_side(text: str, kind: Kind, custom: Mapping[str, Any], whole: str) -> list[Field]:
    """The fields of one side, read as the parameters of a Python function would be."""
    try:
        function = ast.parse(f"def _({text.strip()}): pass").body[0]
    except SyntaxError as error:
        raise SignatureError("P001", f"the signature {whole!r} cannot be read", why=f"{text.strip()!r}: {error.msg}",
                             hint='fields look like "name" or "name: type", with commas between') from None
    if not isinstance(function, ast.FunctionDef) or not function.args.args or _has_more(function.args):
        raise SignatureError("P001", f"the signature {whole!r} has no {kind} fields",
                             why="fields are plain names, each with a type or without",
                             hint='write it like "question -> answer"')
    return [Field(a.arg, kind, resolve(a.annotation, custom, whole) if a.annotation else str,
                  typed=a.annotation is not None) for a in function.args.args]


def _has_more(arguments: ast.arguments) -> bool:
    """Whether there is anything but names and types: defaults, stars, slashes."""
    a = arguments
    return bool(a.vararg or a.kwarg or a.kwonlyargs or a.posonlyargs or a.defaults)


def fields_of_mapping(mapping: Mapping[str, Any]) -> list[Field]:
    fields = []
    for name, value in mapping.items():
        type_, spec = value if isinstance(value, tuple) and len(value) == 2 else (None, value)
        if not isinstance(name, str) or not isinstance(spec, FieldSpec):
            raise SignatureError("P001", f"field {name!r} must be (type, InputField()) or (type, OutputField())",
                                 why=f"got {shorten(value)}")
        check_name(name, ())
        fields.append(spec.field(name, type_))
    return fields


def fields_of_class(cls: type, specs: Mapping[str, FieldSpec], inherited: Mapping[str, Field]) -> dict[str, Field]:
    own = _own_annotations(cls)
    for name in own:
        if name not in specs and not name.startswith("_"):
            raise SignatureError("P001", f"{cls.__name__}.{name} is neither input nor output",
                                 hint=f"write {name}: ... = InputField() or OutputField()")
    fields = {}
    for name, spec in specs.items():
        check_name(name, ())
        old = inherited.get(name)
        type_ = own.get(name, old.type if old else str)
        fields[name] = spec.field(name, type_, typed=name in own or bool(old and old.typed))
    return fields


def _own_annotations(cls: type) -> dict[str, Any]:
    """The annotations in this class body, resolved (they are text under `from __future__ import annotations`)."""
    raw = dict(getattr(cls, "__annotations__", {})) if "__annotations__" in cls.__dict__ or sys.version_info >= (
        3, 14) else {}
    raw = {name: value for name, value in raw.items() if "ClassVar" not in str(value)}
    if not any(isinstance(value, str) for value in raw.values()):
        return raw
    module = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    try:
        return typing.get_type_hints(SimpleNamespace(__annotations__=raw), module, {**caller_names()[0], **vars(cls)},
                                     include_extras=True)
    except NameError as error:
        raise unknown_type(error.name or str(error), module, f"class {cls.__name__}") from None
    except (SyntaxError, TypeError, AttributeError) as error:
        raise SignatureError("P001", f"an annotation in class {cls.__name__} is not a type", why=str(error)) from None


def ordered(fields: Iterable[Field]) -> dict[str, Field]:
    fields = list(fields)
    return {f.name: f for kind in ("input", "output") for f in fields if f.kind == kind}


def check_name(name: str, taken: Iterable[str]) -> None:
    if not name.isidentifier():
        raise SignatureError("P001", f"{name!r} is no name for a field", hint="use a Python identifier")
    if name in taken:
        raise SignatureError("P001", f"field {name!r} is there twice", hint="give each field its own name")


def _title(name: str) -> str:
    """`reply_date` and `replyDate` become `Reply Date`; `RAG` stays."""
    spaced = "".join(f" {c}" if c.isupper() and i and name[i - 1].islower() else c for i, c in enumerate(name))
    return " ".join(w if w.isupper() else w.capitalize() for w in spaced.replace("_", " ").split())


def shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _fix(f: Field, value: Any) -> str:
    if f.type is str:
        return f"pass {f.name}=str(...), or declare the field as {f.name}: {type(value).__name__}"
    return f"pass a value of type {f.type_name}, or change the field's type in the signature"
