"""Prompts as they are sent (golden files), what each adapter writes and reads back, and the grammars."""

from __future__ import annotations

import datetime
import enum
import re
from collections.abc import Callable
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tracedsl.diagnostics import TracedslError
from tracedsl.programs import Adapter, InputField, OutputField, Signature
from tracedsl.programs.adapters import NAMES, adapter_by_name
from tracedsl.programs.adapters.grammar import chat_grammar, json_grammar, plain_grammar, xml_grammar


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Person(BaseModel):
    name: str
    friends: list[Person] = []


class Mail(Signature):
    """Sort the mail."""

    message: str = InputField(desc="as it came in")
    hints: list[str] = InputField()
    queue: Literal["billing", "returns"] = OutputField(desc="where it goes")
    reply_date: datetime.date | None = OutputField()
    people: list[Person] = OutputField()


DEMOS: list[dict[str, Any]] = [
    {"message": "Refund?", "hints": ["a", "b"], "queue": "returns", "reply_date": datetime.date(2020, 1, 2),
     "people": [Person(name="Bo")], "augmented": True},
    {"message": "Half an example", "queue": "billing"},
    {"queue": "no input, so no demonstration"},
]
INPUTS = {"message": "Where is\nmy invoice?", "hints": ["urgent"]}


@pytest.mark.parametrize("name", NAMES)
def test_prompt(name: str, golden: Callable[[str, str], None]) -> None:
    messages = adapter_by_name(name).format(Mail, DEMOS, INPUTS)
    golden(f"prompts/{name}.txt", "\n".join(f"<{m.role}>\n{m.content}" for m in messages))


@pytest.mark.parametrize(("name", "write"), [
    ("chat", chat_grammar), ("json", json_grammar), ("plain", plain_grammar), ("xml", xml_grammar)])
def test_grammar(name: str, write: Callable[[type[Signature]], str], golden: Callable[[str, str], None]) -> None:
    text = write(Mail)
    golden(f"prompts/{name}.gbnf", text)
    defined = set(re.findall(r"^([\w-]+) ::=", text, re.MULTILINE))
    without_terminals = re.sub(r'"(\\.|[^"\\])*"|\[(\\.|[^\]\\])*\]', "", re.sub(r"^[\w-]+ ::=", "", text, flags=re.M))
    assert set(re.findall(r"[a-z][\w-]*", without_terminals)) <= defined


def test_a_grammar_is_asked_for_only_where_it_is_kept() -> None:
    for name in NAMES:
        adapter = adapter_by_name(name)
        assert adapter.response_format(Mail, frozenset()) is None
        asked = adapter.response_format(Mail, frozenset({"grammar", "json_schema"}))
        assert asked is not None and asked.kind == "grammar"
        assert isinstance(adapter, Adapter)
    asked = adapter_by_name("json").response_format(Mail, frozenset({"json_schema"}))
    assert asked is not None and asked.kind == "json_schema" and '"Person"' in asked.text


def test_an_unknown_adapter_is_named() -> None:
    with pytest.raises(TracedslError, match="did you mean 'plain'"):
        adapter_by_name("plane")


OUTPUTS = Signature("q -> text: str, n: int, mood: Mood, ok: bool, when: datetime.date | None, tags: list[str]",
                    custom_types={"Mood": Mood})
line = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1).map(lambda s: f"it is {s}")
outputs = st.fixed_dictionaries({
    "text": line, "n": st.integers(), "mood": st.sampled_from(Mood), "ok": st.booleans(),
    "when": st.none() | st.dates(), "tags": st.lists(st.text())})


@given(st.sampled_from(NAMES), outputs)
def test_a_demonstrations_answer_reads_back(name: str, values: dict[str, Any]) -> None:
    """What an adapter shows as a good answer is what it reads."""
    adapter = adapter_by_name(name)
    answer = adapter.format(OUTPUTS, [{"q": "x", **values}], {"q": "y"})[-2].content
    if "[[" in values["text"] or "##" in values["text"]:
        return  # the chat layout's own markers inside a value
    assert adapter.parse(OUTPUTS, answer) == values


@given(st.sampled_from(NAMES), st.lists(outputs, max_size=3), st.text())
def test_formatting_is_pure_and_constant_parts_come_first(name: str, demos: list[dict[str, Any]], q: str) -> None:
    adapter = adapter_by_name(name)
    shown = [{"q": "x", **d} for d in demos]
    one, two = adapter.format(OUTPUTS, shown, {"q": q}), adapter.format(OUTPUTS, shown, {"q": q + "!"})
    assert one == adapter.format(OUTPUTS, shown, {"q": q})
    assert one[:-1] == two[:-1] and one[-1].role == "user" and len(one) == 2 + 2 * len(demos)
