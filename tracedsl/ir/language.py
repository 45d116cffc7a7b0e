"""The language dialect: what the nodes of a captured language-model program mean.

What holds here: a node never names its call site, only what decides its answer, so that two equal calls are equal
nodes wherever they stand; `RecordedCall` (which takes no part in comparisons) leads from a node back to the call it was
recorded from. Types are texts: `str`, `Prediction{answer: str}`. Nothing here runs a model.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracedsl.ir.graph import Attrs, Effect, Op, Type


class NoValue(Exception):
    """A node has no value while compiling (the answer was sampled, the field is not there)."""


@dataclass(frozen=True)
class Text:
    """A type that is its own text."""

    text: str

    def __str__(self) -> str:
        return self.text


STR = Text("str")
BOOL = Text("bool")
OBJECT = Text("object")


@dataclass(frozen=True)
class RecordedCall:
    """Where an `lm.call` comes from: its number on the recorded path, its site, and the answer that it got then.

    `prediction` is None if the answer must not be used again (the call was sampled).
    """

    number: int
    site: str
    prediction: Any = None


def prediction_type(fields: Mapping[str, str]) -> Text:
    """`{"answer": "str"}` -> `Prediction{answer: str}`."""
    return Text("Prediction{" + ", ".join(f"{name}: {kind}" for name, kind in fields.items()) + "}")


def plain_type(value: Any) -> Text:
    """The type of a Python value, by name."""
    return Text(type(value).__name__)


def field_type(base: Type, name: str) -> Text:
    """The type of `base.name`, as far as the text of `base` tells it; else `object`."""
    text = str(base)
    if not text.startswith("Prediction{"):
        return OBJECT
    for part in _split_fields(text[len("Prediction{"):-1]):
        key, _, kind = part.partition(": ")
        if key == name:
            return Text(kind)
    return OBJECT


def _split_fields(text: str) -> list[str]:
    """The parts between the commas that stand outside all brackets."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "[{(") - (c in "]})")
        if c == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


# -- types of results ---------------------------------------------------------------------------------------------


def _infer_call(inputs: Sequence[Type], attrs: Attrs) -> Type:
    if len(inputs) != len(attrs["fields"]):
        raise ValueError(f"{len(attrs['fields'])} fields, {len(inputs)} inputs")
    return prediction_type(dict(attrs["outputs"]))


def _infer_field(inputs: Sequence[Type], attrs: Attrs) -> Type:
    _expect(inputs, 1)
    return field_type(inputs[0], attrs["name"])


def _infer_item(inputs: Sequence[Type], attrs: Attrs) -> Type:
    _expect(inputs, 1)
    return OBJECT


def _infer_template(inputs: Sequence[Type], attrs: Attrs) -> Type:
    holes = sum(part[0] == "hole" for part in attrs["parts"])
    if holes != len(inputs):
        raise ValueError(f"{holes} holes, {len(inputs)} inputs")
    return STR


def _infer_stated(inputs: Sequence[Type], attrs: Attrs) -> Type:
    return Text(attrs["result"])


def _infer_look(inputs: Sequence[Type], attrs: Attrs) -> Type:
    if not inputs:
        raise ValueError("nothing is looked at")
    return BOOL if isinstance(attrs["outcome"], bool) else OBJECT


def _infer_build(inputs: Sequence[Type], attrs: Attrs) -> Type:
    if attrs["kind"] == "dict" and len(attrs["keys"]) != len(inputs):
        raise ValueError(f"{len(attrs['keys'])} keys, {len(inputs)} inputs")
    return Text(attrs["kind"])


def _infer_value(inputs: Sequence[Type], attrs: Attrs) -> Type:
    _expect(inputs, 0)
    return Text(attrs["result"])


def _expect(inputs: Sequence[Type], count: int) -> None:
    if len(inputs) != count:
        raise ValueError(f"takes {count} inputs, got {len(inputs)}")


# -- values, where they can be computed while compiling ---------------------------------------------------------------


def _answer(values: Sequence[Any], attrs: Attrs) -> Any:
    """The answer that was recorded: equal requests to the same model get it again."""
    call = attrs["call"].value
    if call.prediction is None:
        raise NoValue
    return call.prediction


def _field(values: Sequence[Any], attrs: Attrs) -> Any:
    try:
        return getattr(values[0], attrs["name"])
    except AttributeError:
        raise NoValue from None


def _item(values: Sequence[Any], attrs: Attrs) -> Any:
    try:
        return values[0][attrs["key"].value]
    except (LookupError, TypeError):
        raise NoValue from None


def _template(values: Sequence[Any], attrs: Attrs) -> Any:
    rest = iter(values)
    try:
        return "".join(part[1] if part[0] == "text" else format_part(next(rest), part[1], part[2])
                       for part in attrs["parts"])
    except (TypeError, ValueError):
        raise NoValue from None


def _build(values: Sequence[Any], attrs: Attrs) -> Any:
    try:
        if attrs["kind"] == "dict":
            return dict(zip(map(ast.literal_eval, attrs["keys"]), values))
        return {"list": list, "tuple": tuple}[attrs["kind"]](values)
    except (ValueError, SyntaxError, TypeError, LookupError):
        raise NoValue from None


def format_part(value: Any, conversion: str, spec: str) -> str:
    """One replacement field of an f-string: `conversion` is "", "s", "r" or "a"."""
    match conversion:
        case "s":
            value = str(value)
        case "r":
            value = repr(value)
        case "a":
            value = ascii(value)
    return format(value, spec)


# -- effects ------------------------------------------------------------------------------------------------------


def _call_effect(attrs: Attrs) -> Effect:
    return Effect.PURE if attrs["deterministic"] else Effect.SAMPLED


def _python_effect(attrs: Attrs) -> Effect:
    return Effect.PURE if attrs["pure"] else Effect.ORDERED


def _ordered(attrs: Attrs) -> Effect:
    return Effect.ORDERED


def _sampled(attrs: Attrs) -> Effect:
    return Effect.SAMPLED


# -- the ops ------------------------------------------------------------------------------------------------------

# A language-model call. attrs: call (a Literal of a RecordedCall, its text the module's kind), signature (text), state
# (digest of instructions, demonstrations and settings), fields (names of the inputs), outputs (name, type pairs),
# deterministic.
LM_CALL = Op("lm.call", _infer_call, _answer, _call_effect)

# An f-string. attrs: parts, each ("text", text) or ("hole", conversion, format spec); a hole takes the next input.
TEMPLATE = Op("py.template", _infer_template, _template)

# `value.name` and `value[key]` of something that a model answered.
FIELD = Op("py.field", _infer_field, _field)
ITEM = Op("py.item", _infer_item, _item)

# A call of other code. attrs: callee (its name), result (type), pure.
PY_CALL = Op("py.call", _infer_stated, None, _python_effect)

# A guard: Python looked at a value. attrs: kind ("truth", "==", "iterate", "value", ...), outcome (bool, int or None).
LOOK = Op("py.look", _infer_look, None, _ordered)

# A list, tuple, dict or set that holds values of the graph. attrs: kind, keys (of a dict: texts).
BUILD = Op("py.build", _infer_build, _build)

# A Python value that the graph knows nothing about. Never folded or shared: another run may have another value there.
# attrs: result (type), label (tells different values of one path apart).
VALUE = Op("py.value", _infer_value, None, _sampled)

__all__ = [
    "BOOL", "BUILD", "FIELD", "ITEM", "LM_CALL", "LOOK", "OBJECT", "PY_CALL", "STR", "TEMPLATE", "VALUE", "NoValue",
    "RecordedCall", "Text", "field_type", "format_part", "plain_type", "prediction_type",
]
