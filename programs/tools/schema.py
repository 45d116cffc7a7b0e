"""What a function takes, as a JSON schema, and arguments from a model as what the function wants.

What holds here: the schema comes from the signature, the annotations and the docstring, through pydantic; the same
model checks and converts the arguments of every call. The names of parameters may be any that Python allows.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

_SECTION = re.compile(r"^\s*(?:Args|Arguments|Parameters)\s*:\s*$")
_ENTRY = re.compile(r"^(\s*)\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_SPHINX = re.compile(r":param\s+(?:[^:]*\s)?(\w+)\s*:\s*(.+)")
JSON_TYPES: Mapping[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list,
                                 "object": dict}


def parameters_of(function: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """The parameters that can be given by name, and whether the function takes any others too (`**kwargs`)."""
    found = inspect.signature(function).parameters
    kinds = {p.kind for p in found.values()}
    skipped = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return ({n: p for n, p in found.items() if p.kind not in skipped}, inspect.Parameter.VAR_KEYWORD in kinds)


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, resolved; those that cannot be are left out."""
    inner = inspect.unwrap(getattr(function, "func", function))  # a `functools.partial` hides its function
    target = inner if inspect.isroutine(inner) or isinstance(inner, type) else type(inner).__call__
    target = getattr(target, "__init__") if isinstance(target, type) else target  # noqa: B009 - a class may have its own
    try:
        return get_type_hints(target, include_extras=True)
    except (NameError, TypeError, AttributeError):
        raw = getattr(target, "__annotations__", {})
        return {name: value for name, value in raw.items() if not isinstance(value, str)}


def described(doc: str) -> tuple[str, dict[str, str]]:
    """A docstring's text before its sections, and what it says about each parameter (Google's or Sphinx's way)."""
    lines = inspect.cleandoc(doc).splitlines()
    start = next((i for i, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    text = [line for line in lines[:start] if not line.lstrip().startswith((":param", ":return", ":rtype", ":type"))]
    parts: dict[str, str] = {m.group(1): m.group(2).strip() for line in lines if (m := _SPHINX.search(line))}
    indent, last = None, ""
    for line in lines[start + 1:]:
        if line.strip() and not line[0].isspace():
            break       # the next section
        entry = _ENTRY.match(line)
        if entry and (indent is None or len(entry.group(1)) <= indent):
            indent, last = len(entry.group(1)), entry.group(2)
            parts[last] = entry.group(3).strip()
        elif last and line.strip():
            parts[last] = f"{parts[last]} {line.strip()}".strip()
    return re.split(r"\n\s*(?:Returns|Raises|Yields|Examples?)\s*:\s*\n", "\n".join(text))[0].strip(), parts


def arguments_model(name: str, parameters: Mapping[str, inspect.Parameter], types: Mapping[str, Any],
                    descriptions: Mapping[str, str], more: bool) -> Any:
    """A pydantic model of the arguments. Its fields have made-up names, with the parameters' as aliases, so that a
    parameter may be called `_x`, `copy` or `model_config`."""
    from pydantic import ConfigDict, Field, create_model

    fields: dict[str, Any] = {}
    for i, (parameter, p) in enumerate(parameters.items()):
        default = ... if p.default is inspect.Parameter.empty else p.default
        info = Field(default, alias=parameter, description=descriptions.get(parameter) or None)
        fields[f"a{i}"] = (types.get(parameter, Any), info)
    config = ConfigDict(extra="allow" if more else "forbid", arbitrary_types_allowed=True)
    return create_model(name, __config__=config, **fields)


def properties(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON schema of each argument, and definitions that refer to themselves; other definitions are put in where
    they are referred to."""
    from pydantic.json_schema import GenerateJsonSchema, PydanticJsonSchemaWarning

    class Lenient(GenerateJsonSchema):
        def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
            return {}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PydanticJsonSchemaWarning)  # a default that JSON cannot say is left out
        whole = model.model_json_schema(schema_generator=Lenient)
    return inline(whole.get("properties", {}), whole.get("$defs", {}))


def inline(found: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Properties with their definitions put in, and the definitions that still are referred to (recursive ones)."""
    kept: dict[str, Any] = {}

    def visit(value: Any, inside: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [visit(v, inside) for v in value]
        if not isinstance(value, dict):
            return value
        if isinstance(reference := value.get("$ref"), str):
            name = reference.rsplit("/", 1)[-1]
            if name in inside:
                kept.setdefault(name, definitions[name])
                return dict(value)
            rest = {k: v for k, v in value.items() if k != "$ref"}
            return {**visit(definitions.get(name, {}), (*inside, name)), **rest}
        return {k: visit(v, inside) for k, v in value.items() if not (k == "title" and isinstance(v, str))}

    made = {name: visit(value, ()) for name, value in found.items()}
    return made, kept
