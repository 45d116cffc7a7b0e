"""Reading one value of a declared type from what a model wrote.

What holds here: every repair is bounded and depends on the type: it may take off wrapping (quotes, code fences, prose
around the only number), never guess between two readings. What stays ambiguous raises `ValueError` with a reason.
"""

from __future__ import annotations

import ast
import enum
import json
import re
import types
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Literal, Union, get_args, get_origin

from tracedsl.programs.types import type_name, validate

_FENCE = re.compile(r"```[\w+-]*[ \t]*\n?(.*?)```", re.DOTALL)
_NUMBER = re.compile(r"[-+\u2212]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)]|\[\d+\])\s+(.*)$")
_TRAILING_COMMA = re.compile(r",\s*([}\]])")
_NOTHING = frozenset({"", "none", "null", "n/a", "nil"})
_TRUE, _FALSE = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})
_MOST_STARTS = 64  # how many brackets are tried as the start of JSON


def parse_value(annotation: Any, text: str) -> Any:
    """The value that `text` writes down; raises `ValueError` with a one-line reason."""
    text = text.strip()
    if annotation is str or annotation is Any:
        return text
    origin = get_origin(annotation)
    if origin is Literal:
        return _choose({str(v): v for v in get_args(annotation)}, text)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _parse_enum(annotation, text)
    if origin in (Union, types.UnionType):
        return _parse_union(get_args(annotation), text)
    if annotation is bool:
        return _parse_bool(text)
    if annotation in (int, float, Decimal):
        return _parse_number(annotation, text)
    if annotation is None or annotation is type(None):
        if _bare(text).casefold() in _NOTHING:
            return None
        raise ValueError(f"expected nothing, got {text[:60]!r}")
    return parse_structure(annotation, text)


def coerce(annotation: Any, value: Any) -> Any:
    """`value` (from JSON) as the type wants it, with the same repairs for the texts inside; raises `ValueError`."""
    if annotation is Any:
        return value
    if annotation is str:
        if isinstance(value, str):
            return value
        if value is None:
            raise ValueError("expected text, got null")
        return json.dumps(value, ensure_ascii=False)
    origin, args = get_origin(annotation), get_args(annotation)
    if isinstance(value, str):
        return parse_value(annotation, value)
    if origin is list and isinstance(value, list):
        return [coerce(args[0], v) for v in value]
    if origin is dict and isinstance(value, dict):
        return {coerce(args[0], k): coerce(args[1], v) for k, v in value.items()}
    if origin is Literal and isinstance(value, (bool, int, float)):
        return _choose({str(v): v for v in args}, str(value))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _parse_enum(annotation, str(value))
    if annotation is int and isinstance(value, float):
        return _parse_number(int, repr(value))
    return validate(annotation, _known_keys(annotation, value))


def find_json(text: str, fits: Callable[[Any], bool]) -> Any:
    """The JSON value in `text` for which `fits` holds: the whole text, a fenced block, or what stands amid prose.

    Raises `ValueError` if there is none. Python literals, trailing commas and typographic quotes are put right.
    """
    candidates = [text.strip(), *(m.group(1).strip() for m in _FENCE.finditer(text))]
    for candidate in candidates:
        for value in _read_json(candidate):
            if fits(value):
                return value
    start, tried = _opening(text, 0), 0
    while start >= 0 and tried < _MOST_STARTS:
        # What stands inside a bracket that never closes is a part of something, and is not taken for the whole.
        if not (end := _closing(text, start)):
            raise ValueError("no JSON of the right shape: it begins and does not end")
        value = next(_read_json(text[start:end]), None)
        if value is not None and fits(value):
            return value
        start, tried = _opening(text, end), tried + 1
    raise ValueError("no JSON of the right shape: there is none")


def _read_json(text: str) -> Iterator[Any]:
    """The text as JSON, else as JSON with trailing commas or typographic quotes, else as a Python literal."""
    if not text:
        return
    straight = text.translate({0x201C: '"', 0x201D: '"', 0x2018: "'", 0x2019: "'"})
    for attempt in (text, _TRAILING_COMMA.sub(r"\1", text), _TRAILING_COMMA.sub(r"\1", straight)):
        try:
            yield json.loads(attempt, strict=False)
            return
        except (ValueError, RecursionError):
            continue
    if text[0] in "{[(":
        try:
            yield ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return


def _opening(text: str, start: int) -> int:
    """The first bracket from `start` on; -1 if there is none."""
    found = [i for i in (text.find("{", start), text.find("[", start)) if i >= 0]
    return min(found, default=-1)


def _closing(text: str, start: int) -> int:
    """The end of the bracket that opens at `start`, counting brackets outside double quotes; 0 if it never closes."""
    depth, quoted, i = 0, False, start
    while i < len(text):
        c = text[i]
        if c == "\\":
            i += 1
        elif c == '"':
            quoted = not quoted
        elif not quoted and c in "{[":
            depth += 1
        elif not quoted and c in "}]":
            depth -= 1
            if depth == 0:
                return i + 1
        i += 1
    return 0


def unfence(text: str) -> str:
    """The inside of the only code fence, if the text is nothing else."""
    match = _FENCE.fullmatch(text.strip())
    return match.group(1).strip() if match else text.strip()


def _bare(text: str) -> str:
    """Without fences, quotes, emphasis and a full stop around it."""
    text = unfence(text)
    return text.strip(" \t\n\"'`*_“”‘’").rstrip(".!,;").strip(" \t\n\"'`*_“”‘’")


def _choose(options: dict[str, Any], text: str) -> Any:
    """The option that the text names: exactly, in another case, or as the only one mentioned in its first line."""
    if text in options:
        return options[text]
    folded: dict[str, list[Any]] = {}
    for name, value in options.items():
        folded.setdefault(_fold(name), []).append(value)
    if len(same := folded.get(_fold(_bare(text)), [])) == 1:
        return same[0]
    first_line = next(iter(unfence(text).splitlines()), "")
    mentioned = [v for name, v in options.items()
                 if re.search(rf"(?<!\w){re.escape(name.casefold())}(?!\w)", first_line.casefold())]
    if len(mentioned) == 1 and not re.search(r"\b(not|no|never|neither|n't)\b|n't\b", first_line.casefold()):
        return mentioned[0]
    raise ValueError(f"expected one of {', '.join(map(repr, options))}, got {text[:80]!r}")


def _fold(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text.casefold()).strip()


def _parse_enum(annotation: type[enum.Enum], text: str) -> Any:
    try:
        return _choose({str(m.value): m for m in annotation}, text)
    except ValueError:
        return _choose({m.name: m for m in annotation}, text.rsplit(".", 1)[-1])


def _parse_bool(text: str) -> bool:
    words = re.findall(r"\w+", unfence(text).casefold())
    if words and words[0] in _TRUE | _FALSE:
        return words[0] in _TRUE
    said = {w in _TRUE for w in words if w in ("true", "false", "yes", "no")}
    if len(said) == 1:
        return said.pop()
    raise ValueError(f"expected True or False, got {text[:80]!r}")


def _parse_number(annotation: type, text: str) -> Any:
    """The only number in the text; `$1,200`, `12 apples` and `45%` are read, two different numbers are not."""
    bare = _bare(text)
    found = {m.group().replace(",", "").replace("\u2212", "-") for m in _NUMBER.finditer(bare)}
    if len(found) != 1:
        reason = "several numbers" if found else "no number"
        raise ValueError(f"expected {type_name(annotation)}, found {reason} in {text[:80]!r}")
    number = found.pop()
    if annotation is int:
        exact = Decimal(number)
        if exact != exact.to_integral_value():
            raise ValueError(f"expected an integer, got {number}")
        if abs(exact.adjusted()) > 4000:
            raise ValueError("the number is too long")
        return int(exact)
    return annotation(number)


def _parse_union(members: tuple[Any, ...], text: str) -> Any:
    """Nothing if the text says so, then the most particular type that reads it; text comes last."""
    if type(None) in members and _bare(text).casefold() in _NOTHING:
        return None
    reasons = []
    for member in sorted((m for m in members if m is not type(None)), key=lambda m: m is str or m is Any):
        try:
            return parse_value(member, text)
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError("; ".join(reasons))


def parse_structure(annotation: Any, text: str) -> Any:
    """A list, a mapping, a model, a date: from JSON, or from the text itself where pydantic reads that."""
    origin, args = get_origin(annotation) or annotation, get_args(annotation)
    want: type | tuple[type, ...] = (list, tuple, set) if origin in (list, tuple, set, frozenset) else dict
    try:
        value = find_json(text, lambda v: isinstance(v, want))
    except ValueError as error:
        if origin is list and (items := _listed(text)) is not None:
            return [coerce(args[0] if args else Any, item) for item in items]
        try:
            return validate(annotation, _bare(text))
        except ValueError:
            raise ValueError(f"expected {type_name(annotation)}: {error}") from None
    if isinstance(value, (tuple, set)):
        value = list(value)
    if origin is list:
        return [coerce(args[0] if args else Any, item) for item in value]
    if origin is dict and args:
        return coerce(annotation, value)
    return validate(annotation, _known_keys(annotation, value))


def _listed(text: str) -> list[str] | None:
    """The items of a bulleted or numbered list, or of one line with commas; None if the text is neither."""
    lines = [line for line in unfence(text).splitlines() if line.strip()]
    items = [m.group(1).strip() for line in lines if (m := _BULLET.match(line))]
    if items and len(items) >= len(lines) - 1:
        return items
    if len(lines) == 1 and not any(c in lines[0] for c in "[]{}"):
        return [part.strip().strip("\"'") for part in lines[0].split(",") if part.strip()]
    return None


def _known_keys(annotation: Any, value: Any) -> Any:
    """A mapping whose keys differ from a model's fields in case alone, with the fields' own names."""
    fields = getattr(annotation, "model_fields", None)
    if not isinstance(value, dict) or not fields:
        return value
    folded = {_fold(name): name for name in fields}
    return {k if k in fields else folded.get(_fold(str(k)), k): v for k, v in value.items()}
