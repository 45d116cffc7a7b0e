"""Reading one value of a declared type from what a model wrote.

What holds here: every repair is bounded and depends on the type: it may take off wrapping (quotes, code fences, prose
around the only number), never guess between two readings. What stays ambiguous raises `ValueError` with a reason.
`reader` gives the function for a type once, so that reading itself asks no questions about types.
"""

from __future__ import annotations

import datetime
import enum
import json
import math
import re
import types
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache, partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tracedsl.programs.adapters.jsontext import find_json as find_json
from tracedsl.programs.adapters.tables import listed, pairs, table
from tracedsl.programs.types import bare_type, is_field_type, type_name, validate

Reader = Callable[[str], Any]

_FENCE = re.compile(r"\s*```[\w+-]*[ \t]*\n?(.*?)```\s*", re.DOTALL)
_NUMBER = re.compile(r"[-+\u2212]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_SCALE = re.compile(r"[^\W\d]+\d|(?:[kKMBxX]|bn|mn|[mM]io|[mM]rd|m)\b|\s?(?:hundred|thousand|[mbt]r?illion)")
_CURRENCY = re.compile(r"(?:^|[^A-Za-z])[A-Z]{3}$")
_NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|cannot|isn|aren|wasn|don|doesn|nicht|kein)\b|n['’]t\b")
_NOTHING = frozenset({"", "none", "null", "n/a", "nil"})
_EMPTY_LIST = _NOTHING - {""} | {"nothing", "-", "empty", "[]", "no items"}
_TRUE, _FALSE = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})
_NUMBERS = (int, float, Decimal)
_TIMES = (datetime.datetime, datetime.date, datetime.time)
_WRAPPING = " \t\n\"'`*_“”‘’"


def parse_value(annotation: Any, text: str) -> Any:
    """The value that `text` writes down; raises `ValueError` with a one-line reason."""
    return reader(annotation)(text)


def reader(annotation: Any) -> Reader:
    """The function that reads values of this type: `reader(int)("$1,200") == 1200`."""
    try:
        return _reader(annotation)
    except TypeError:  # a type with an unhashable part, as `Annotated` may have
        return _make_reader(annotation)


def _make_reader(annotation: Any) -> Reader:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = reader(args[0])
        return lambda text: validate(annotation, inner(text))
    if annotation is str or annotation is Any:
        return str.strip
    if is_field_type(annotation):
        parse: Reader = annotation.parse
        return parse
    if origin is Literal:
        return partial(_choose, {str(v): v for v in args})
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return partial(_parse_enum, annotation)
    if origin in (Union, types.UnionType):
        return partial(_parse_union, args)
    if annotation is bool:
        return _parse_bool
    if annotation in _NUMBERS:
        return partial(_parse_number, annotation)
    if annotation in _TIMES:
        return partial(_parse_time, annotation)
    if annotation is None or annotation is type(None):
        return _parse_nothing
    return partial(parse_structure, annotation)


_reader = lru_cache(maxsize=1024)(_make_reader)


def coerce(annotation: Any, value: Any) -> Any:
    """`value` (from JSON) as the type wants it, with the same repairs for the texts inside; raises `ValueError`."""
    annotation, limited = bare_type(annotation), annotation
    if limited is not annotation:
        return validate(limited, coerce(annotation, value))
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if annotation is str:
        return _as_text(value)
    if origin in (Union, types.UnionType):
        return _first_that_fits(args, lambda member: coerce(member, value), exact=value)
    if isinstance(value, str):
        return parse_value(annotation, value)
    if isinstance(value, list) and origin in (list, set, frozenset, tuple):
        return _coerce_items(annotation, value)
    if origin is dict and isinstance(value, dict):
        return {coerce(args[0], k): coerce(args[1], v) for k, v in value.items()}
    if origin is Literal and isinstance(value, (bool, int, float)):
        return _choose({str(v): v for v in args}, str(value))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _parse_enum(annotation, str(value))
    if annotation in _NUMBERS or annotation in _TIMES:
        return _coerce_number(annotation, value)
    return _coerce_record(annotation, value)


def _as_text(value: Any) -> str:
    """Text from JSON; other values as JSON writes them. Raises `ValueError` for null and for a schema in its place."""
    if isinstance(value, str):
        return value
    if value is None:
        raise ValueError("expected text, got null")
    if isinstance(value, dict) and value.get("type") in ("string", "object", "array", "integer", "number", "boolean"):
        raise ValueError("expected text, got a part of the JSON schema")
    return json.dumps(value, ensure_ascii=False)


def _coerce_items(annotation: Any, value: list[Any]) -> Any:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is tuple and not (len(args) == 2 and args[1] is ...):
        if len(args) != len(value):
            raise ValueError(f"expected {len(args)} items, got {len(value)}")
        return tuple(coerce(a, v) for a, v in zip(args, value))
    return origin(coerce(args[0], v) for v in value) if origin is not list else [coerce(args[0], v) for v in value]


def _coerce_number(annotation: Any, value: Any) -> Any:
    """A number from a JSON number. A boolean is none, and a time is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or annotation in _TIMES:
        raise ValueError(f"expected {type_name(annotation)}, got {json.dumps(value, ensure_ascii=False)[:60]}")
    if annotation is int and isinstance(value, float):
        return _parse_number(int, repr(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected a number, got {value}")
    return validate(annotation, value)


def _coerce_record(annotation: Any, value: Any) -> Any:
    """A model, a dataclass, a typed mapping: as it stands, else with its fields put right one by one."""
    fields = _record_fields(annotation)
    if not isinstance(value, dict) or not fields:
        return validate(annotation, value)
    folded = {_fold(name): name for name in fields}
    named = {k if k in fields else folded.get(_fold(str(k)), k): v for k, v in value.items()}
    if len(named) != len(value):
        raise ValueError("a key is there twice, in different spellings")
    try:
        return validate(annotation, named)
    except ValueError as first:
        try:
            return validate(annotation, {k: coerce(fields[str(k)], v) if k in fields else v for k, v in named.items()})
        except (ValueError, TypeError, RecursionError):
            raise first from None


@lru_cache(maxsize=256)
def _record_fields(annotation: Any) -> Mapping[str, Any]:
    """The fields of a record with their types, by the names that JSON has for them; empty for what is none."""
    models = getattr(annotation, "model_fields", None)
    if isinstance(models, dict):
        return {f.alias or name: f.annotation for name, f in models.items()}
    if hasattr(annotation, "__dataclass_fields__") or hasattr(annotation, "__required_keys__"):
        try:
            return get_type_hints(annotation)
        except (NameError, TypeError):
            return {}
    return {}


def unfence(text: str) -> str:
    """The inside of the only code fence, if the text is nothing else."""
    match = _FENCE.fullmatch(text) if "```" in text else None
    return match.group(1).strip() if match else text.strip()


def _bare(text: str) -> str:
    """Without fences, quotes, emphasis and a full stop around it."""
    return unfence(text).strip(_WRAPPING).rstrip(".!,;").strip(_WRAPPING)


def _choose(options: Mapping[str, Any], text: str) -> Any:
    """The option that the text names: exactly, in another case, or as the only one mentioned in its first line."""
    text = text.strip()
    if text in options:
        return options[text]
    folded: dict[str, list[Any]] = {}
    for name, value in options.items():
        folded.setdefault(_fold(name), []).append(value)
    if len(same := folded.get(_fold(_bare(text)), [])) == 1:
        return same[0]
    line = next(iter(unfence(text).splitlines()), "")[:400].casefold()
    longest_first = sorted((name.casefold() for name in options), key=len, reverse=True)
    found = re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", line)
    if len(mentioned := set(found)) == 1:
        name = found[0]
        values = [v for option, v in options.items() if option.casefold() == name]
        leads = re.match(rf"[\W_]*{re.escape(name)}\s*(?:[,.;:!—–(]|$)", line)
        if len(values) == 1 and (leads or not _NEGATION.search(line.replace(name, " "))):
            return values[0]
    reason = "several of them" if len(mentioned) > 1 else repr(text[:80])
    raise ValueError(f"expected one of {', '.join(map(repr, options))}, got {reason}")


def _fold(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text.casefold()).strip()


def _parse_enum(annotation: type[enum.Enum], text: str) -> Any:
    try:
        return _choose({str(m.value): m for m in annotation}, text)
    except ValueError:
        return _choose({m.name: m for m in annotation}, text.rsplit(".", 1)[-1])


def _parse_bool(text: str) -> bool:
    line = unfence(text).casefold().split("\n", 1)[0][:400]
    words = re.findall(r"\w+", line)
    said = {w in _TRUE for w in words if w in ("true", "false", "yes", "no") or w == words[0] in ("0", "1")}
    first = bool(words) and words[0] in _TRUE | _FALSE
    if len(said) == 1 and (first or not _NEGATION.search(re.sub(r"\bno\b", " ", line))):
        return said.pop()
    raise ValueError(f"expected True or False, got {text[:80]!r}")


def _parse_nothing(text: str) -> None:
    if _bare(text).casefold() not in _NOTHING:
        raise ValueError(f"expected nothing, got {text[:60]!r}")


def _parse_number(annotation: type, text: str) -> Any:
    """The only number in the text; `$1,200`, `12 apples` and `45%` are read, two different numbers are not, nor what is
    part of a word, has a scale (`3 million`), is only a bound (`> 3`) or may be a fraction (`45%` for a float)."""
    bare = _bare(text[:4000])
    found = set()
    for match in _NUMBER.finditer(bare):
        before, after = bare[:match.start()], bare[match.end():]
        if _SCALE.match(after) or (before[-1:].isalpha() and not _CURRENCY.search(before[-4:])):
            raise ValueError(f"expected {type_name(annotation)}, got {bare[:80]!r}")
        if re.search(r"[<>≤≥]\s*$", before[-3:]) or (annotation is not int and re.match(r"\s?%", after)):
            raise ValueError(f"expected {type_name(annotation)}, and {bare[:80]!r} may mean several")
        found.add(match.group().replace(",", "").replace("\u2212", "-"))
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
    made = annotation(number)
    if annotation is float and not math.isfinite(made):
        raise ValueError("the number is too large")
    return made


_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
           "december")
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_DATES = (  # what a date looks like beside ISO 8601, and where day, month and year stand
    (re.compile(rf"{_DAY}\.? (?:of )?([a-z]{{3,9}})\.?,? (\d{{4}})"), (0, 1, 2)),
    (re.compile(rf"([a-z]{{3,9}})\.? {_DAY},? (\d{{4}})"), (1, 0, 2)),
    (re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})"), (0, 1, 2)),
    (re.compile(r"(\d{4})[/.](\d{1,2})[/.](\d{1,2})"), (2, 1, 0)),
)


def _parse_time(annotation: Any, text: str) -> Any:
    """A date or time in ISO 8601; a date also as `4 May 1999`, `May 4, 1999`, `4.5.1999` and `1999/5/4`. Where day and
    month could be either, as in 4/5/1999, it is an error."""
    bare = _bare(text)
    if annotation is datetime.date:
        for pattern, order in _DATES:
            if match := pattern.fullmatch(bare.casefold()):
                day, month, year = (str(match.group(i + 1)) for i in order)
                number = int(month) if month.isdigit() else _month(month)
                try:
                    return datetime.date(int(year), number, int(day))
                except ValueError:
                    raise ValueError(f"there is no such day: {bare!r}") from None
    if re.fullmatch(r"[-+]?[\d.]+", bare):  # pydantic would take a number for seconds since 1970
        raise ValueError(f"expected {type_name(annotation)}, got the number {bare[:40]}")
    return validate(annotation, bare)


def _month(name: str) -> int:
    fitting = [i for i, month in enumerate(_MONTHS, 1) if month.startswith(name)]
    return fitting[0] if len(fitting) == 1 else 0


def _parse_union(members: tuple[Any, ...], text: str) -> Any:
    """Nothing if the text says so, then the most particular type that reads it; text comes last."""
    if type(None) in members and _bare(text).casefold() in _NOTHING:
        return None
    return _first_that_fits(members, lambda member: parse_value(member, text))


def _first_that_fits(members: tuple[Any, ...], read: Callable[[Any], Any], exact: Any = ...) -> Any:
    """What the first type gives that can be read: that of the value itself first, text last."""
    if exact is None and type(None) in members:
        return None
    if type(exact) in members:
        return read(type(exact))
    if isinstance(exact, str) and type(None) in members and _bare(exact).casefold() in _NOTHING:
        return None
    reasons = []
    for member in sorted((m for m in members if m is not type(None)), key=lambda m: m is str or m is Any):
        try:
            return read(member)
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError("; ".join(reasons))


def parse_structure(annotation: Any, text: str) -> Any:
    """A list, a mapping, a model: from JSON, from a list or table as people write them, or from the text itself where
    pydantic reads that."""
    origin, args = get_origin(annotation) or annotation, get_args(annotation)
    many = origin in (list, tuple, set, frozenset)
    try:
        value = find_json(text, lambda v: isinstance(v, list if many else dict))
    except ValueError as error:
        if (found := _written_out(annotation, text, many)) is not None:
            return found
        if many or origin is dict or _record_fields(annotation):
            raise ValueError(f"expected {type_name(annotation)}: {error}") from None
        try:
            return validate(annotation, _bare(text))
        except ValueError:
            raise ValueError(f"expected {type_name(annotation)}: {error}") from None
    if many and not args:
        return validate(annotation, value)
    return coerce(annotation, value) if not is_field_type(annotation) else _coerce_record(annotation, value)


def _written_out(annotation: Any, text: str, many: bool) -> Any:
    """A value from bullets, a table, commas, or `name: value` lines; None if the text is nothing of this."""
    origin, args = get_origin(annotation) or annotation, get_args(annotation)
    text = unfence(text)
    if many:
        if _bare(text).casefold() in _EMPTY_LIST:
            return coerce(annotation, []) if args and origin is not tuple else None
        if args and _record_fields(args[0]):
            rows = table(text)
            return None if rows is None else coerce(annotation, rows)
        items = listed(text)
        return None if items is None or not args or origin is tuple else coerce(annotation, items)
    if _record_fields(annotation) or (origin is dict and args):
        found = pairs(text)
        return None if found is None else coerce(annotation, found) if origin is dict else _coerce_record(
            annotation, found)
    return None
