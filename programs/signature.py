"""Signatures: what goes into a language-model call and what comes out, with instructions.

What holds here: a signature is an immutable class. It can be written as text (`"question -> answer: int"`), as a class,
or as a dictionary; changing one (`with_instructions`, `append`, ...) makes another. Two signatures with the same
instructions and fields are equal and have the same `fingerprint`, in every process.

Names and behaviour follow DSPy 3. Different on purpose: an input of the wrong type is an error, and the types in the
text form are looked up and never evaluated.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar, cast

from tracedsl.cache import digest
from tracedsl.diagnostics import nearest
from tracedsl.programs.fields import (
    MISSING,
    Field,
    FieldSpec,
    check_name,
    fields_of_class,
    fields_of_mapping,
    fields_of_text,
    ordered,
)
from tracedsl.programs.types import FieldError, SignatureError, type_fingerprint

T = TypeVar("T")


class SignatureMeta(type):
    """The type of signatures: a signature is a class, and what is asked of it is asked of the class."""

    _fields: dict[str, Field]
    _inputs: Mapping[str, Field]
    _outputs: Mapping[str, Field]
    _instructions: str
    _memo: dict[Any, Any]

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> SignatureMeta:
        specs = {key: value for key, value in namespace.items() if isinstance(value, FieldSpec)}
        cls = super().__new__(mcs, name, bases, {k: v for k, v in namespace.items() if k not in specs})
        if "_fields" in namespace:  # made by `build`, complete
            cls._settle(namespace["_fields"].values(), namespace["_instructions"])
            return cls
        if not any(isinstance(b, SignatureMeta) for b in bases):  # `Signature` itself
            cls._settle((), "")
            return cls
        inherited = next((dict(b._fields) for b in bases if isinstance(b, SignatureMeta)), {})
        fields = {**inherited, **fields_of_class(cls, specs, inherited)}
        doc = namespace.get("__doc__")
        inherited_doc = next((b._instructions for b in bases if isinstance(b, SignatureMeta)), "") if inherited else ""
        cls._settle(fields.values(), _dedent(doc) or inherited_doc or default_instructions(fields.values()))
        return cls

    def _settle(cls, fields: Iterable[Field], instructions: str) -> None:
        cls._fields = ordered(fields)
        cls._inputs = MappingProxyType({n: f for n, f in cls._fields.items() if f.kind == "input"})
        cls._outputs = MappingProxyType({n: f for n, f in cls._fields.items() if f.kind == "output"})
        cls._instructions = instructions
        cls._memo = {}

    def memo(cls, key: Any, make: Callable[[type[Signature]], T]) -> T:
        """What `make` gives for this signature, made once under this key and kept as long as the signature. For what
        depends on the signature alone: prompts' fixed parts, readers, grammars."""
        try:
            kept: T = cls._memo[key]
        except KeyError:
            kept = cls._memo[key] = make(cast("type[Signature]", cls))
        return kept

    def __call__(cls, signature: Any = None, instructions: str | None = None, *,
                 custom_types: Mapping[str, Any] | None = None) -> Any:
        """`Signature("a, b: int -> c", "Instructions.")` makes a new signature."""
        if cls._fields or signature is None:
            raise SignatureError("P001", f"{cls.__name__} is a signature, not something to call",
                                 hint=f"make a predictor: Predict({cls.__name__})(...)")
        return make_signature(signature, instructions, custom_types=custom_types)

    # -- what it says --------------------------------------------------------------------------------------------

    @property
    def instructions(cls) -> str:
        return cls._instructions

    @property
    def fields(cls) -> Mapping[str, Field]:
        """All fields by name, inputs first."""
        return MappingProxyType(cls._fields)

    @property
    def input_fields(cls) -> Mapping[str, Field]:
        return cls._inputs

    @property
    def output_fields(cls) -> Mapping[str, Field]:
        return cls._outputs

    @property
    def signature(cls) -> str:
        """The text form, without descriptions: `question, n: int -> answer`."""
        sides = (cls.input_fields.values(), cls.output_fields.values())
        return " -> ".join(", ".join(_field_text(f) for f in side) for side in sides)

    @property
    def fingerprint(cls) -> str:
        """A digest of instructions and fields, the same in every process: for cache keys."""
        return cls.memo("fingerprint", _fingerprint)

    def check_inputs(cls, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs, complete and of the right types, in the fields' order; raises `FieldError` otherwise."""
        fields = cls._inputs
        for name in inputs:
            if name not in fields:
                raise FieldError("P003", f"{cls.signature!r} has no input {name!r}", hint=nearest(name, fields))
        if missing := [name for name, f in fields.items() if name not in inputs and f.default is MISSING]:
            raise FieldError("P003", f"missing input: {', '.join(missing)}",
                             why=f"the signature is {cls.signature!r}", hint=f"pass {missing[0]}=...")
        return {name: f.check(inputs[name]) if name in inputs else copy.copy(f.default) for name, f in fields.items()}

    # -- changed copies ------------------------------------------------------------------------------------------

    def with_instructions(cls, instructions: str) -> type[Signature]:
        return build(cls._fields.values(), instructions, cls.__name__)

    def with_updated_fields(cls, name: str, type_: Any = None, *, desc: str | None = None,
                            prefix: str | None = None) -> type[Signature]:
        """The signature with one field described otherwise."""
        old = cls._field(name)
        new = replace(old, type=old.type if type_ is None else type_, desc=old.desc if desc is None else desc,
                      prefix=old.prefix if prefix is None else prefix)
        return build([new if f is old else f for f in cls._fields.values()], cls._instructions, cls.__name__)

    def append(cls, name: str, field: Any, type_: Any = None) -> type[Signature]:
        """Add a field after the others of its kind; `field` is `InputField(...)` or `OutputField(...)`."""
        return cls.insert(-1, name, field, type_)

    def prepend(cls, name: str, field: Any, type_: Any = None) -> type[Signature]:
        """Add a field before the others of its kind."""
        return cls.insert(0, name, field, type_)

    def insert(cls, index: int, name: str, field: Any, type_: Any = None) -> type[Signature]:
        """Add a field at `index` among those of its kind (-1: last)."""
        if not isinstance(field, FieldSpec):
            raise SignatureError("P001", f"field {name!r} must be InputField(...) or OutputField(...)",
                                 why=f"got {type(field).__name__}")
        check_name(name, cls._fields)
        new = field.field(name, type_)
        same = [f for f in cls._fields.values() if f.kind == field.kind]
        same.insert(len(same) + index + 1 if index < 0 else index, new)
        others = [f for f in cls._fields.values() if f.kind != field.kind]
        return build([*same, *others], cls._instructions_for([*same, *others]), cls.__name__)

    def delete(cls, name: str) -> type[Signature]:
        """Leave a field out; a name that does not exist changes nothing, as in DSPy."""
        rest = [f for f in cls._fields.values() if f.name != name]
        return build(rest, cls._instructions_for(rest), cls.__name__)

    def _instructions_for(cls, fields: Iterable[Field]) -> str:
        """Default instructions follow the fields; given ones stay."""
        if cls._instructions == default_instructions(cls._fields.values()):
            return default_instructions(ordered(fields).values())
        return cls._instructions

    def _field(cls, name: str) -> Field:
        if name not in cls._fields:
            raise FieldError("P003", f"{cls.signature!r} has no field {name!r}", hint=nearest(name, cls._fields))
        return cls._fields[name]

    # -- saved form ----------------------------------------------------------------------------------------------

    def dump_state(cls) -> dict[str, Any]:
        """What training may change, as plain data: instructions, descriptions and prefixes."""
        return {"instructions": cls._instructions,
                "fields": [{"name": f.name, "desc": f.desc, "prefix": f.prefix} for f in cls._fields.values()]}

    def load_state(cls, state: Mapping[str, Any]) -> type[Signature]:
        """The signature with the saved instructions and descriptions; raises `FieldError` if the fields differ."""
        saved = {f["name"]: f for f in state["fields"]}
        if list(saved) != list(cls._fields):
            raise FieldError("P007", "a saved signature has other fields", hint="save the program again",
                             why=f"saved: {', '.join(saved)}; in the program: {', '.join(cls._fields)}")
        fields = [replace(f, desc=saved[f.name]["desc"], prefix=saved[f.name]["prefix"]) for f in cls._fields.values()]
        return build(fields, state["instructions"], cls.__name__)

    def __eq__(cls, other: object) -> bool:
        if not isinstance(other, SignatureMeta):
            return NotImplemented
        return cls._instructions == other._instructions and cls._fields == other._fields

    def equals(cls, other: Any) -> bool:
        """Whether both say the same."""
        return bool(cls == other)

    def __hash__(cls) -> int:
        return hash((cls._instructions, tuple(cls._fields)))

    def __repr__(cls) -> str:
        return f"{cls.__name__}({cls.signature!r}, {cls._instructions!r})" if cls._fields else cls.__name__


class Signature(metaclass=SignatureMeta):
    """Base of the class form, and maker of the text form.

    >>> Signature("question, n: int -> answers: list[str]").output_fields["answers"].type_name
    'list[str]'
    """


def make_signature(signature: Any, instructions: str | None = None, name: str = "StringSignature", *,
                   custom_types: Mapping[str, Any] | None = None) -> type[Signature]:
    """A signature from any of its forms: text, `{"name": (type, InputField())}` or `{"name": InputField()}`, or a
    signature (returned as it is, or with other instructions)."""
    if isinstance(signature, SignatureMeta):
        made = cast("type[Signature]", signature)
        return made if instructions is None else made.with_instructions(instructions)
    if isinstance(signature, str):
        fields = fields_of_text(signature, custom_types or {})
    elif isinstance(signature, Mapping):
        fields = fields_of_mapping(signature)
    else:
        raise SignatureError("P001", f"a signature cannot be made from {type(signature).__name__}",
                             hint='write it like "question -> answer", or as a class derived from Signature')
    return build(fields, instructions or default_instructions(ordered(fields).values()), name)


def ensure_signature(signature: Any, instructions: str | None = None) -> type[Signature]:
    """As `make_signature`; the name that DSPy uses."""
    return make_signature(signature, instructions)


def build(fields: Iterable[Field], instructions: str, name: str) -> type[Signature]:
    """A signature class from complete fields."""
    namespace = {"_fields": ordered(fields), "_instructions": instructions, "__doc__": instructions,
                 "__module__": __name__}
    return cast("type[Signature]", SignatureMeta(name, (Signature,), namespace))


def default_instructions(fields: Iterable[Field]) -> str:
    fields = list(fields)
    inputs = ", ".join(f"`{f.name}`" for f in fields if f.kind == "input")
    outputs = ", ".join(f"`{f.name}`" for f in fields if f.kind == "output")
    return f"Given the fields {inputs}, produce the fields {outputs}."


def _fingerprint(signature: type[Signature]) -> str:
    parts = [signature.instructions]
    for f in signature.fields.values():
        parts += [f.name, f.kind, type_fingerprint(f.type), f.desc, f.prefix]
        if f.limits or f.default is not MISSING:
            parts += [repr(f.limits), repr(f.default)]
    return digest(*parts)


# -- small helpers -----------------------------------------------------------------------------------------------------


def _field_text(f: Field) -> str:
    return f"{f.name}: {f.type_name}" if f.typed else f.name


def _dedent(doc: str | None) -> str:
    import inspect

    return inspect.cleandoc(doc).strip() if doc else ""
