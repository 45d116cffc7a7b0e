"""Lists, tables and pairs as people write them in text: bullets, numbers, commas, Markdown, `name: value` lines.

What holds here: a text is either wholly of the shape or it is not; each function gives None for what is not.
"""

from __future__ import annotations

import re

_BULLET = re.compile(r"\s*(?:[-*•+]|\d{1,4}[.)]|\[\d{1,4}\]|[a-z]\))\s+(.*)")
_PAIR = re.compile(r"\s*(?:[-*•]\s+)?[*_`\"']{0,3}([^\W\d][\w -]{0,60}?)[*_`\"']{0,3}\s*[:=](.*)")
_RULE = frozenset(" \t|:+-")


def listed(text: str) -> list[str] | None:
    """The items of a bulleted or numbered list, or of one line with commas or semicolons."""
    lines = [line for line in text.splitlines() if line.strip()]
    items = [m.group(1).strip() for line in lines if (m := _BULLET.fullmatch(line))]
    if items and (len(items) == len(lines) or (len(items) == len(lines) - 1 and not _BULLET.fullmatch(lines[0]))):
        return items
    if len(lines) == 1 and not any(c in lines[0] for c in "[]{}"):
        return [part.strip().strip("\"'") for part in lines[0].split(";" if ";" in lines[0] else ",") if part.strip()]
    return None


def pairs(text: str) -> dict[str, str] | None:
    """`name: value` lines, each name once."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.strip() == "---":
            continue
        match = _PAIR.fullmatch(line)
        value = "" if match is None else match.group(2).strip(" \t*_").removesuffix(",").rstrip()
        if match is None or not value or match.group(1) in found:
            return None
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        found[match.group(1).strip()] = value[1:-1] if quoted else value
    return found or None


def table(text: str) -> list[dict[str, str]] | None:
    """The rows of a Markdown table by the names in its head; a line of prose may stand before and after it."""
    rows = [line.strip() for line in text.splitlines() if "|" in line]
    others = [line for line in text.splitlines() if line.strip() and "|" not in line]
    if len(rows) < 3 or not ("-" in rows[1] and _RULE.issuperset(rows[1])) or len(others) > 2:
        return None
    head, *body = ([cell.strip() for cell in row.strip("|").split("|")] for row in (rows[0], *rows[2:]))
    if any(len(cells) != len(head) for cells in body):
        return None
    return [dict(zip(head, cells)) for cells in body]
