"""JSON as models write it: amid prose and code fences, with quotes, commas and literals that JSON does not have.

What holds here: reading takes time linear in the text (a bounded number of starts is tried) and never guesses what is
not there: JSON that ends too early raises `Unfinished`, NaN, and keys that are there twice with different values, raise
`ValueError`. Put right are: Python's and JavaScript's literals and quotes, typographic quotes, comments, trailing
commas, a comma missing at the end of a line, keys and one-word values without quotes, line breaks and wrong escapes
inside texts, double quotes inside texts that cannot be their end.

`json_repair`, which DSPy uses, closes what was cut off and takes prose for values, so that wrong values go unnoticed;
beside this on the parse corpus: `benchmarks/results`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

_FENCE = re.compile(r"```[\w+-]*[ \t]*\n?(.*?)```", re.DOTALL)
_SPACE = re.compile(r"(?:[\s\ufeff]+|//[^\n]*|/\*.*?\*/|#[^\n]*)*", re.DOTALL)
_PLAIN_SPACE = re.compile(r"[\s\ufeff]*")
_NUMBER = re.compile(r"[-+]?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d{1,4})?(?=\s*(?:[,}\])\n#/]|$))")
_GROUPED = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?=\s*(?:\}|\n|,\s*[\"'“}]))")
_INTEGER = re.compile(r"-?\d{1,40}")
_WORD = re.compile(r"[^\W\d][\w.-]{0,80}")
_AFTER_KEY = re.compile(r"\s*:")
_AFTER_COMMA = re.compile(r"""\s*(?:[}#/]|(?:["'“‘][^"'”’\n]{1,80}["'”’]|[^\W\d][\w -]{0,60})\s*:)""")
_CLOSERS = {'"': '"', "'": "'", "“": "”", "‘": "’", "”": "”", "`": "`", "«": "»"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "\\": "\\", "/": "/", "'": "'"}
_LITERALS = {"true": True, "false": False, "null": None, "none": None, "undefined": None}
_DEEPEST = 100
_MOST_STARTS = 64


class Unfinished(ValueError):
    """JSON that begins and does not end."""


def find_json(text: str, fits: Callable[[Any], bool]) -> Any:
    """The JSON value in `text` for which `fits` holds: the whole text, a fenced block, or what stands amid prose.

    Raises `ValueError` if there is none.
    """
    text = text.strip()
    for candidate in (text, *(m.group(1).strip() for m in _FENCE.finditer(text))):
        value = _whole(candidate)
        if value is not None and fits(value):
            return value
    start, reason = 0, "there is none"
    for _ in range(_MOST_STARTS):
        if (start := _opening(text, start)) < 0:
            break
        reader = _Reader(text)
        try:
            value, end = reader.value(start, 0)
        except ValueError as error:
            if isinstance(error, Unfinished) and not reader.prose:
                # What stands inside a bracket that never closes is a part of something, and is not taken for the whole.
                raise ValueError("no JSON of the right shape: it begins and does not end") from None
            start, reason = start + 1, str(error)
            continue
        if fits(value):
            return value
        start, reason = end, "there is none"
    raise ValueError(f"no JSON of the right shape: {reason}")


def read_json(text: str) -> Any:
    """The text, and nothing beside it, as JSON; raises `ValueError`."""
    text = text.strip()
    try:
        return json.loads(text, strict=False, object_pairs_hook=_object, parse_constant=_no_constant)
    except (json.JSONDecodeError, RecursionError):
        pass
    reader = _Reader(text)
    value, end = reader.value(reader.space(0), 0)
    if reader.space(end) != len(text):
        raise ValueError(f"more text after the JSON: {text[end:end + 40]!r}")
    return value


def _whole(text: str) -> Any:
    """The text as one JSON value, also if it is a JSON text inside a JSON text; None if it is not."""
    if not text.startswith(("{", "[", '"{', '"[')):
        return None
    try:
        value = read_json(text)
        return read_json(value) if isinstance(value, str) else value
    except ValueError:
        return None


def _opening(text: str, start: int) -> int:
    """The first bracket from `start` on; -1 if there is none."""
    return min((i for i in (text.find("{", start), text.find("[", start)) if i >= 0), default=-1)


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping from pairs; raises `ValueError` if a key is there twice and does not say the same."""
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made and made[key] != value:
            raise ValueError(f"the key {key!r} is there twice, with different values")
        made[key] = value
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number that can be taken")


class _Reader:
    """Reads one value from a position on and says where it ends. Each method returns (value, end)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.prose = False  # whether there were values without quotes: then this may be no JSON at all

    def space(self, i: int) -> int:
        """The next position that is neither white space nor comment."""
        match = _SPACE.match(self.text, i)
        return match.end() if match else i

    def value(self, i: int, depth: int, ends: str = "") -> tuple[Any, int]:
        """`ends`: the brackets that end a bare text here."""
        if depth > _DEEPEST:
            raise ValueError("brackets nest too deeply")
        if i >= len(self.text):
            raise Unfinished("the text ends where a value should stand")
        c = self.text[i]
        if c == "{":
            return self.mapping(i, depth)
        if c == "[" or (c == "(" and depth):
            return self.sequence(i, depth)
        if c in _CLOSERS and c != "”":
            return self.string(i)
        if ends == "}" and (grouped := _GROUPED.match(self.text, i)):
            return _number(grouped.group().replace(",", "")), grouped.end()
        if number := _NUMBER.match(self.text, i):
            return _number(number.group()), number.end()
        return self.bare(i, ends)

    def mapping(self, i: int, depth: int) -> tuple[dict[str, Any], int]:
        pairs: list[tuple[str, Any]] = []
        i = self.space(i + 1)
        while True:
            if i >= len(self.text):
                raise Unfinished("an object does not end")
            if self.text[i] == "}":
                return _object(pairs), i + 1
            key, i = self.key(i)
            value, end = self.value(self.space(i), depth + 1, "}")
            pairs.append((key, value))
            i = self.comma(end, "}")

    def sequence(self, i: int, depth: int) -> tuple[list[Any], int]:
        close = "]" if self.text[i] == "[" else ")"
        items: list[Any] = []
        i = self.space(i + 1)
        while True:
            if i >= len(self.text):
                raise Unfinished("a list does not end")
            if self.text[i] == close:
                return items, i + 1
            value, end = self.value(i, depth + 1, close)
            items.append(value)
            i = self.comma(end, close)

    def comma(self, i: int, close: str) -> int:
        """The position after the comma, or of the closing bracket; a line break may stand for the comma."""
        after = self.space(i)
        if after >= len(self.text):
            raise Unfinished("the text ends where a comma or a bracket should stand")
        if self.text[after] == ",":
            return self.space(after + 1)
        if self.text[after] == close or "\n" in self.text[i:after]:
            return after
        raise ValueError(f"expected a comma or {close!r} at {self.text[after:after + 20]!r}")

    def key(self, i: int) -> tuple[str, int]:
        if self.text[i] in _CLOSERS:
            name, end = self.string(i, key=True)
        elif word := _WORD.match(self.text, i):
            name, end = word.group(), word.end()
        elif number := _INTEGER.match(self.text, i):
            name, end = number.group(), number.end()
        else:
            raise ValueError(f"expected a key at {self.text[i:i + 20]!r}")
        if colon := _AFTER_KEY.match(self.text, end):
            return name, colon.end()
        if _PLAIN_SPACE.fullmatch(self.text, end):
            raise Unfinished("the text ends after a key")
        raise ValueError(f"expected a colon after the key {name[:40]!r}")

    def string(self, i: int, *, key: bool = False) -> tuple[str, int]:
        """A text in quotes. A quote that cannot be the end, because no comma, bracket or colon follows, is a part."""
        open_, close = self.text[i], _CLOSERS[self.text[i]]
        if open_ in "\"'" and self.text.startswith(open_ * 3, i):  # Python's long form
            end = self.text.find(open_ * 3, i + 3)
            if end < 0:
                raise Unfinished("a text does not end")
            return self.text[i + 3:end], end + 3
        out, i, size = [], i + 1, len(self.text)
        while i < size:
            c = self.text[i]
            if c == "\\":
                piece, i = self.escape(i)
                out.append(piece)
            elif c == close and self.ends(i + 1, key):
                return "".join(out), i + 1
            else:
                stop = i + 1
                while stop < size and self.text[stop] != close and self.text[stop] != "\\":
                    stop += 1
                out.append(self.text[i:stop])
                i = stop
        raise Unfinished("a text does not end")

    def ends(self, i: int, key: bool) -> bool:
        """Whether a quote before `i` may end a text."""
        match = _PLAIN_SPACE.match(self.text, i)
        after = match.end() if match else i
        if after >= len(self.text):
            return True
        c = self.text[after]
        return c in (":" if key else ",}])") or (not key and ("\n" in self.text[i:after] or c in "/#"))

    def escape(self, i: int) -> tuple[str, int]:
        """The meaning of a backslash at `i`; one that means nothing stays."""
        c = self.text[i + 1:i + 2]
        if c == "u" and re.fullmatch(r"[0-9a-fA-F]{4}", self.text[i + 2:i + 6]):
            code = int(self.text[i + 2:i + 6], 16)
            low = re.match(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})", self.text[i + 6:i + 12])
            if 0xD800 <= code < 0xDC00 and low:
                return chr(0x10000 + ((code - 0xD800) << 10) + int(low.group(1), 16) - 0xDC00), i + 12
            return ("\ufffd" if 0xD800 <= code < 0xE000 else chr(code)), i + 6
        if c == "\n":
            return "", i + 2
        return (_ESCAPES[c], i + 2) if c in _ESCAPES else ("\\", i + 1)

    def bare(self, i: int, ends: str) -> tuple[Any, int]:
        """A literal, or a text without quotes up to the line's end, the bracket, or a comma with a key after it."""
        if not ends:
            raise ValueError(f"expected a value at {self.text[i:i + 20]!r}")
        stop = i
        while stop < len(self.text) and self.text[stop] not in "\n\"“”{[" + ends:
            if self.text[stop] == "," and (ends != "}" or _AFTER_COMMA.match(self.text, stop + 1)):
                break
            stop += 1
        if stop >= len(self.text):
            raise ValueError("a value without quotes does not end")  # prose in brackets rather than JSON cut off
        said = self.text[i:stop].strip()
        if not said or said in ("NaN", "Infinity", "-Infinity", "...", "…") or self.text[stop] in "\"“”{[":
            raise ValueError(f"expected a value at {self.text[i:i + 20]!r}")
        if said.casefold() in _LITERALS:
            return _LITERALS[said.casefold()], stop
        self.prose = True
        return said, stop


def _number(text: str) -> int | float:
    if not text.lstrip("+-").isdigit():
        return float(text)
    if len(text) > 4000:
        raise ValueError("the number is too long")
    return int(text)
