"""Errors: what, where with a caret, why, what to do."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

from tracedsl.diagnostics import CODES, Diagnostic, Span, TracedslError, nearest

ROOT = Path(__file__).parent.parent


def test_an_error_shows_its_four_parts(tmp_path: Path) -> None:
    file = tmp_path / "user.py"
    file.write_text("def f(x):\n    return np.fft(x) + 1\n")
    error = TracedslError("G001", "a thing went wrong", why="of a reason", hint="do this",
                          span=Span(str(file), 2, 11, 2, 20))
    assert str(error).splitlines() == [
        "a thing went wrong [G001]",
        f"  at {file}:2",
        "    2 |     return np.fft(x) + 1",
        "      |            ^^^^^^^^^",
        "  why: of a reason",
        "  what to do: do this",
    ]


def test_a_span_without_source_prints_no_excerpt() -> None:
    assert Span("nowhere.py", 7).excerpt() == ""
    assert Diagnostic("G001", "what").render() == "what [G001]"


def test_errors_can_be_copied() -> None:
    error = TracedslError("G001", "what", why="why", span=Span("a.py", 1))
    assert copy.copy(error).diagnostic == error.diagnostic


def test_unknown_codes_are_refused() -> None:
    with pytest.raises(AssertionError):
        Diagnostic("Z999", "what")


def test_nearest_name() -> None:
    assert nearest("vectorise", ["vectorize", "unroll"]) == "did you mean 'vectorize'?"
    assert nearest("xyz", ["b", "a"]) == "known: a, b"


def test_every_code_is_used_and_every_used_code_is_known() -> None:
    used = set()
    for folder in ("tracedsl", "hw", "autotune", "programs"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "diagnostics.py":
                used |= set(re.findall(r'"([A-Z]\d{3})"', path.read_text()))
    assert used - set(CODES) == set()
    assert set(CODES) - used == set(), "codes that nothing raises"
