"""Fields of an answer while it is still being written.

What holds here: what a stream has given out for a field is the beginning of that field's text, as far as that can be
known: whatever may still turn out to be a marker, the end of the value or white space around it is held back. The time
is linear in the answer, however it is cut into pieces. An answer that turns out otherwise than it looked is given out
again, whole (`streaming.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tracedsl.programs.adapters.shapes import HEADER, MARK, could_be_name, mark_name, match_name, opening_tags

if TYPE_CHECKING:
    from tracedsl.programs.signature import Signature

_HALF = (r"(?:\[{1,2}(?:[ \t]*(?:#{1,2}(?:[ \t]*[\w -]{0,62}[ \t]*#{0,2}[ \t]*\]{0,2}[*_]{0,2}[ \t]*:?)?)?)?)?\Z")
_HALF_MARK = re.compile(rf"[*_]{{0,2}}{_HALF}")
_HALF_LINE_MARK = re.compile(r"[ \t>*]*(?:#(?:#[ \t]*[\w -]{0,62}[ \t]*(?:#{1,2}[*_]{0,2}[ \t]*:?)?)?\Z"
                             rf"|[*_]{{0,2}}{_HALF})")
_LONGEST_MARK = 120
_HALF_TOKEN = re.compile(r"(?:<\|?[\w-]{0,30}\|?>?|</s?>?|<e\w{0,2}>?|<end_\w{0,8}>?)(?:\s*<[|/\w>-]{0,34})*\s*\Z")
_THOUGHTS = ("think", "thinking", "thought")
_FIRST_KEY = re.compile(r'\{\s{0,40}"([^"\\\n]{1,80})"\s{0,40}:')
_KEY = re.compile(r'\s*,\s{0,40}"([^"\\\n]{1,80})"\s{0,40}:')
_SAFE = re.compile(r"""(?:[^"\\]+|\\["\\/bfnrt]|\\u(?:[0-9a-cefA-CEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}
                       |[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))*""", re.VERBOSE)
_HALF_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,4}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)?")


class Piece(NamedTuple):
    """More of a field's text."""

    field: str
    text: str


class FieldStream(Protocol):
    """Takes an answer in pieces, gives the fields in pieces. `closed` are the fields whose end was seen."""

    closed: set[str]

    def feed(self, text: str) -> Iterator[Piece]:
        """More of the answer."""


class NoStream:
    """For answers that say nothing about fields before they are whole."""

    def __init__(self) -> None:
        self.closed: set[str] = set()

    def feed(self, text: str) -> Iterator[Piece]:
        return iter(())


class ThoughtFilter:
    """Takes thoughts away from the beginning of an answer, and holds end tokens back, before a stream sees them."""

    def __init__(self, outputs: frozenset[str]) -> None:
        self._tags = [] if outputs & set(_THOUGHTS) else [f"<{name}>" for name in _THOUGHTS]
        self._held = ""
        self._inside = ""
        self._answering = False

    def feed(self, text: str) -> str:
        self._held += text
        while not self._answering:
            if self._inside:
                end = self._held.lower().find(self._inside)
                if end < 0:
                    return ""
                self._held, self._inside = self._held[end + len(self._inside):], ""
            begin = self._held.lstrip().lower()[:10]
            if tag := next((t for t in self._tags if begin.startswith(t)), ""):
                self._held, self._inside = self._held.lstrip()[len(tag):], f"</{tag[1:]}"
            elif any(t.startswith(begin) for t in self._tags):
                return ""
            else:
                self._answering = True
        half = _HALF_TOKEN.search(self._held, max(0, len(self._held) - 80)) if "<" in self._held[-80:] else None
        cut = half.start() if half else len(self._held)
        out, self._held = self._held[:cut], self._held[cut:]
        return out


class _Trimmed:
    """A field's text without white space around it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.begun = False
        self._held = ""

    def feed(self, text: str) -> Iterator[Piece]:
        if not self.begun:
            text = text.lstrip()
        kept = text.rstrip()
        if kept:
            yield Piece(self.name, self._held + kept)
            self.begun, self._held = True, text[len(kept):]
        else:
            self._held += text


class _Sections:
    """Text that is cut into sections by something at their beginning. `_next` finds the next such thing, `_hold` where
    one may have begun that is not whole."""

    def __init__(self, signature: type[Signature]) -> None:
        self.signature = signature
        self.closed: set[str] = set()
        self._text = ""
        self._position = 0
        self._current: _Trimmed | None = None

    def feed(self, text: str) -> Iterator[Piece]:
        self._text += text
        while (found := self._next(self._position)) is not None:
            start, end, name = found
            if end == len(self._text):  # more of it may come
                yield from self._give(start)
                return
            yield from self._give(start)
            self._close()
            self._position = end
            self._current = _Trimmed(name) if name and name not in self.closed else None
        yield from self._give(self._hold(self._position))

    def _give(self, end: int) -> Iterator[Piece]:
        """The text up to here belongs to the current section."""
        if end > self._position:
            if self._current is not None:
                yield from self._current.feed(self._text[self._position:end])
            self._position = end

    def _close(self) -> None:
        if self._current is not None and self._current.begun:
            self.closed.add(self._current.name)

    def _next(self, position: int) -> tuple[int, int, str] | None:
        raise NotImplementedError

    def _hold(self, position: int) -> int:
        raise NotImplementedError

    def _line_start(self) -> int:
        """Where the last line begins; a place within it if it is longer than any marker."""
        begin = max(0, len(self._text) - _LONGEST_MARK - 1)
        return max(begin, self._text.rfind("\n", begin) + 1)


class MarkStream(_Sections):
    """The chat layout's markers."""

    def _next(self, position: int) -> tuple[int, int, str] | None:
        for mark in MARK.finditer(self._text, position):
            if (name := mark_name(mark, self.signature)) is not None:
                return mark.start(), mark.end(), name
        return None

    def _hold(self, position: int) -> int:
        size = len(self._text)
        half = _HALF_MARK.search(self._text, max(position, size - _LONGEST_MARK))
        hold = half.start() if half else size
        line = self._line_start()
        if position <= line and size - line <= _LONGEST_MARK and _HALF_LINE_MARK.match(self._text, line):
            hold = min(hold, line)
        return hold


class LineStream(_Sections):
    """The plain layout's `Name:` headers."""

    def _next(self, position: int) -> tuple[int, int, str] | None:
        for header in HEADER.finditer(self._text, position):
            if name := match_name(header.group(1), self.signature):
                return header.start(), header.end(), name
        return None

    def _hold(self, position: int) -> int:
        line = self._line_start()
        start = self._text[line:line + _LONGEST_MARK]
        if position <= line and len(start) < _LONGEST_MARK and could_be_name(start, self.signature):
            return line
        return len(self._text)


class TagStream(_Sections):
    """The XML layout's tags. Inside a field nothing but its own closing tag counts."""

    def __init__(self, signature: type[Signature]) -> None:
        super().__init__(signature)
        self._opening = signature.memo("tags", opening_tags)
        self._closing: re.Pattern[str] | None = None

    def _next(self, position: int) -> tuple[int, int, str] | None:
        if self._closing is not None:
            if closing := self._closing.search(self._text, position):
                self._close()
                self._closing = None
                return closing.start(), closing.end(), ""
            return None
        for tag in self._opening.finditer(self._text, position):
            name = match_name(tag.group(1), self.signature)
            if name and name not in self.closed and not tag.group(2):
                self._closing = re.compile(rf"</[ \t]?{re.escape(tag.group(1))}[ \t]?>", re.IGNORECASE)
                return tag.start(), tag.end(), name
        return None

    def feed(self, text: str) -> Iterator[Piece]:
        self._text += text
        while (found := self._next(self._position)) is not None:
            start, end, name = found
            yield from self._give(start)
            self._position = end
            self._current = _Trimmed(name) if name else None
        yield from self._give(self._hold(self._position))

    def _hold(self, position: int) -> int:
        begin = self._text.rfind("<", max(position, len(self._text) - _LONGEST_MARK))
        return len(self._text) if begin < 0 or ">" in self._text[begin:] else begin


class ObjectStream:
    """The JSON layout: the first object with an output among its keys, read strictly. What is not strict JSON comes at
    the end, when the whole answer is read."""

    def __init__(self, signature: type[Signature]) -> None:
        self.signature = signature
        self.closed: set[str] = set()
        self._text = ""
        self._position = 0
        self._step = self._seek
        self._field: str | None = None
        self._value: _Trimmed | None = None  # the field's value, if it is no text
        self._depth = 0
        self._quoted = False

    def feed(self, text: str) -> Iterator[Piece]:
        self._text += text
        before = None
        while before != (self._position, self._step):
            before = self._position, self._step
            yield from self._step()

    def _seek(self) -> Iterator[Piece]:
        """To the first key of an object."""
        if key := _FIRST_KEY.search(self._text, self._position):
            self._enter(key)
        else:
            self._position = max(self._position, len(self._text) - 2 * _LONGEST_MARK)
        return iter(())

    def _next_key(self) -> Iterator[Piece]:
        """After a value: a comma and the next key, or the end of the object."""
        rest = self._text[self._position:].lstrip()
        if rest.startswith("}"):
            self._position, self._step = len(self._text) - len(rest) + 1, self._lost if self.closed else self._seek
        elif key := _KEY.match(self._text, self._position):
            self._enter(key)
        elif rest and (rest[0] != "," or len(rest) > 3 * _LONGEST_MARK):
            self._step = self._lost
        return iter(())

    def _enter(self, key: re.Match[str]) -> None:
        name = match_name(key.group(1), self.signature)
        self._field = None if name in self.closed else name
        self._position, self._step = key.end(), self._begin

    def _begin(self) -> Iterator[Piece]:
        """To the first character of a value."""
        rest = self._text[self._position:]
        begin = len(rest) - len(rest.lstrip())
        if begin < len(rest):
            text = rest[begin] == '"'
            self._position += begin + text
            self._step = self._string if text else self._other
            self._value, self._depth, self._quoted = _Trimmed(self._field) if self._field else None, 0, False
        return iter(())

    def _string(self) -> Iterator[Piece]:
        """Through a text, as far as it can be decoded."""
        safe = _SAFE.match(self._text, self._position)
        end = safe.end() if safe else self._position
        if end > self._position and self._field:
            yield Piece(self._field, json.loads(f'"{self._text[self._position:end]}"', strict=False))
        self._position = end
        rest = self._text[end:end + 12]
        if rest.startswith('"'):
            if self._field:
                self.closed.add(self._field)
            self._position, self._step = end + 1, self._next_key
        elif rest and not _HALF_ESCAPE.fullmatch(rest):
            self._step = self._lost

    def _other(self) -> Iterator[Piece]:
        """Through a value that is no text, to the comma or bracket after it."""
        start = end = self._position
        while end < len(self._text) and not self._is_end(self._text[end]):
            end += 1
        self._position = end
        if self._value is not None:
            yield from self._value.feed(self._text[start:end])
        if end < len(self._text):
            if self._field:
                self.closed.add(self._field)
            self._step = self._next_key

    def _is_end(self, c: str) -> bool:
        if self._quoted:
            self._quoted = c != '"'
        elif c == '"':
            self._quoted = True
        elif c in "{[":
            self._depth += 1
        elif c in "}],":
            if not self._depth:
                return True
            self._depth -= c != ","
        return False

    def _lost(self) -> Iterator[Piece]:
        """Nothing more can be said for certain."""
        return iter(())
