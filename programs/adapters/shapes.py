"""The shapes in which models lay out several values in one text: markers, lines, tags, a JSON object, a table.

What holds here: each function finds the outputs of a signature in a text of its shape, as the piece of text (or the
JSON value) for each name; what it does not find is not there. Of a name that is there twice, the first that is not
empty counts: models that run on repeat themselves. Nothing here knows types.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tracedsl.programs.adapters.jsontext import find_json
from tracedsl.programs.adapters.tables import table

if TYPE_CHECKING:
    from tracedsl.programs.signature import Signature


class Json(NamedTuple):
    """A value that was found as JSON."""

    value: Any


Found = Mapping[str, str | Json]

MARK = re.compile(r"""(?:^[ \t>*]*)?[*_]{0,2}\[{1,2}[ \t]*\#\#[ \t]*([\w][\w -]{0,60}?)
                          [ \t]*\#\#[ \t]*\]{1,2}[*_]{0,2}[ \t]*:?
                      |^[ \t>*]*\#\#[ \t]*([\w][\w -]{0,60}?)[ \t]*\#\#[*_]{0,2}[ \t]*:?""", re.MULTILINE | re.VERBOSE)
_CUT_MARK = re.compile(r"\s*[*_]{0,2}\[\[[ \t]*(?:#[^\n\]]{0,80})?\Z")
HEADER = re.compile(r"^[ \t>#*_-]*([^\W\d_][\w -]{0,60}?)[ \t*_]*[:：][ \t*_]*", re.MULTILINE)
_HEADING = re.compile(r"^[ \t]*(?:#{1,4}|\*\*)[ \t]*([^\W\d_][\w -]{0,60}?)[ \t*:]*$", re.MULTILINE)


def match_name(header: str, signature: type[Signature]) -> str | None:
    """The output that a header means, whatever its case, spaces, dashes or emphasis."""
    return signature.memo("output names", _names).get(fold(header))


def _names(signature: type[Signature]) -> Mapping[str, str]:
    """Folded names and titles of the outputs; a name wins over a later one's title."""
    names: dict[str, str] = {}
    for name, field in signature.output_fields.items():
        names.setdefault(fold(name), name)
        names.setdefault(fold(field.title), name)
    return names


def could_be_name(start: str, signature: type[Signature]) -> bool:
    """Whether a header that begins so may become the name of an output."""
    folded = fold(start)
    return any(name.startswith(folded) for name in signature.memo("output names", _names))


@lru_cache(maxsize=4096)
def fold(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def marked(signature: type[Signature], text: str) -> Found:
    """The text under each `[[ ## name ## ]]`; unknown markers end a section too. Half a marker at the end is
    dropped."""
    if cut := _CUT_MARK.search(text, max(0, len(text) - 100)):
        text = text[:cut.start()]
    marks = [(m, mark_name(m, signature)) for m in MARK.finditer(text)]
    return _sections(text, [(m.start(), m.end(), name) for m, name in marks if name is not None])


def mark_name(mark: re.Match[str], signature: type[Signature]) -> str | None:
    """The output that a marker names; "" for a marker of something else, None for what is no marker after all."""
    if mark.group(1) is not None:
        return match_name(mark.group(1), signature) or ""
    name = match_name(mark.group(2), signature)
    return "" if name is None and fold(mark.group(2)) == "completed" else name


def lines(signature: type[Signature], text: str) -> Found:
    """The text after each `Name:` at the beginning of a line, up to the next output's."""
    marks = [(m.start(), m.end(), name) for m in HEADER.finditer(text) if (name := match_name(m.group(1), signature))]
    return _sections(text, marks)


def before_lines(signature: type[Signature], text: str) -> str:
    """What stands before the first `Name:` line; all of the text if there is none."""
    starts = (m.start() for m in HEADER.finditer(text) if match_name(m.group(1), signature))
    return text[:next(starts, len(text))].strip()


def cut_value(signature: type[Signature], marks: list[tuple[int, str]], text: str) -> str | None:
    """The output whose value was being written when a text was cut off, if it matters: a number may lack its last
    digits; free text is what it is, and more text below a value says that the value was whole."""
    if not marks or not marks[-1][1]:
        return None
    end, name = marks[-1]
    whole = "\n" in text[end:].lstrip()
    return None if whole or signature.output_fields[name].type is str else name


def headed(signature: type[Signature], text: str) -> Found:
    """The text under each Markdown heading or bold line."""
    marks = [(m.start(), m.end(), name) for m in _HEADING.finditer(text) if (name := match_name(m.group(1), signature))]
    return _sections(text, marks)


def _sections(text: str, marks: list[tuple[int, int, str]]) -> Found:
    found: dict[str, str] = {}
    for (_, start, name), (end, _, _) in zip(marks, [*marks[1:], (len(text), 0, "")]):
        if name and not found.get(name):
            found[name] = text[start:end].strip()
    return found


def tagged(signature: type[Signature], text: str) -> Found:
    """What stands between `<name>` and `</name>`. A tag that is not closed ends where the next output's opens; without
    one it was cut off, and is not there."""
    found: dict[str, str] = {}
    position, opening = 0, signature.memo("tags", opening_tags)
    while match := opening.search(text, position):
        name = match_name(match.group(1), signature)
        position = match.end()
        if name is None or found.get(name):
            continue
        if match.group(2):
            found.setdefault(name, "")
            continue
        closing = re.compile(rf"</[ \t]?{re.escape(match.group(1))}[ \t]?>", re.IGNORECASE).search(text, position)
        following = None if closing else opening.search(text, position)
        if closing or following:
            end = closing or following
            assert end is not None
            found[name] = text[position:end.start()].strip()
            position = end.end() if closing else end.start()
    return found


def opening_tags(signature: type[Signature]) -> re.Pattern[str]:
    names = {re.escape(form) for f in signature.output_fields.values() for form in (f.name, f.title.replace(" ", ""))}
    either = "|".join(sorted(names, key=len, reverse=True)) or r"(?!)"
    return re.compile(rf"<[ \t]?({either})(?:\s[^<>/]{{0,80}})?(/?)>", re.IGNORECASE)


def json_object(signature: type[Signature], text: str) -> Found:
    """The values of the JSON object that has outputs among its keys, also if it stands alone inside another or in a
    list. Raises `ValueError` with the reason if there is none."""
    found = find_json(text, lambda v: _outputs_in(signature, v) is not None)
    made: dict[str, str | Json] = {}
    for key, value in (_outputs_in(signature, found) or {}).items():
        if (name := match_name(str(key), signature)) is not None:
            if name in made and made[name] != Json(value):
                raise ValueError(f"the key {name!r} is there twice, with different values")
            made[name] = Json(value)
    return made


def _outputs_in(signature: type[Signature], value: Any) -> dict[Any, Any] | None:
    """The mapping with outputs among its keys: the value, or the only one inside it."""
    for _ in range(2):
        if isinstance(value, dict) and any(match_name(str(k), signature) for k in value):
            return value
        inner = list(value.values()) if isinstance(value, dict) else value
        if not isinstance(inner, list) or len(inner) != 1:
            return None
        value = inner[0]
    return None


def tabled(signature: type[Signature], text: str) -> Found:
    """A Markdown table: with a row of names above a row of values, or a row for each name."""
    rows = table(text)
    if rows is None:
        return {}
    if len(rows) == 1:
        return {name: v for k, v in rows[0].items() if (name := match_name(k, signature))}
    wide = [list(row.values()) for row in rows]
    head = list(rows[0])
    pairs = [cells for cells in (head, *wide) if len(cells) == 2]
    return {name: cells[1] for cells in reversed(pairs) if (name := match_name(cells[0], signature))}


def _or_nothing(find: Callable[[type[Signature], str], Found]) -> Callable[[type[Signature], str], Found]:
    def found(signature: type[Signature], text: str) -> Found:
        try:
            return find(signature, text)
        except ValueError:
            return {}

    return found


SHAPES = (_or_nothing(json_object), marked, tagged, headed, tabled, lines)


def elsewhere(signature: type[Signature], text: str) -> Found:
    """All outputs in another shape than the one that was asked for; empty if no shape has all of them."""
    needed = signature.memo("needed outputs", _needed)
    for shape in SHAPES:
        found = shape(signature, text)
        if found and needed <= found.keys():
            return found
    return {}


def _needed(signature: type[Signature]) -> frozenset[str]:
    from tracedsl.programs.fields import MISSING

    return frozenset(n for n, f in signature.output_fields.items() if f.default is MISSING)
