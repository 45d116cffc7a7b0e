"""Answers as models really write them: each is read rightly or is a typed error."""

from __future__ import annotations

import datetime
import enum
import json
import string
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tracedsl.programs import AdapterParseError, ChatAdapter, JSONAdapter, PlainAdapter, Signature
from tracedsl.programs.adapters.values import coerce, parse_value
from tracedsl.programs.adapters.writing import format_value

ADAPTERS = {a.name: a for a in (ChatAdapter(), JSONAdapter(), PlainAdapter())}
ERROR = object()


class Colour(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark blue"


class Item(BaseModel):
    name: str
    price: float


Queue = Literal["billing", "returns", "technical support"]

VALUES: list[tuple[Any, str, Any]] = [
    (Queue, "billing", "billing"), (Queue, "Billing", "billing"), (Queue, " **Billing.** ", "billing"),
    (Queue, '"returns"', "returns"), (Queue, "Technical_Support", "technical support"),
    (Queue, "The queue is billing.", "billing"), (Queue, "```\nbilling\n```", "billing"),
    (Queue, "billing or returns", ERROR), (Queue, "not billing", ERROR), (Queue, "sales", ERROR), (Queue, "", ERROR),
    (Queue, "billings", ERROR),
    (Literal[1, 2], "2", 2), (Literal["1", "10"], "10", "10"),
    (int, "42", 42), (int, "$1,200", 1200), (int, "1,200.00", 1200), (int, "12 apples", 12), (int, "-7", -7),
    (int, "\u22127", -7), (int, "45%", 45), (int, "**8**", 8), (int, "8.", 8), (int, "8.5", ERROR), (int, "1e3", 1000),
    (int, "between 3 and 4", ERROR), (int, "four", ERROR), (int, "", ERROR), (int, "1.200,50", ERROR),
    (int, "1e999999999", ERROR), (int, "9" * 40, int("9" * 40)), (int, "The answer is 8 (8)", 8),
    (float, "3.5", 3.5), (float, "€ 3.50", 3.5), (float, "1e-3", 0.001), (float, "about 2.5 m", 2.5),
    (float, "nan", ERROR),
    (bool, "True", True), (bool, "no", False), (bool, "Yes, it is.", True), (bool, "false.", False), (bool, "1", True),
    (bool, "maybe", ERROR), (bool, "It is true", True), (bool, "it is neither true nor false", ERROR),
    (Colour, "red", Colour.RED), (Colour, "DARK_BLUE", Colour.DARK_BLUE), (Colour, "Colour.RED", Colour.RED),
    (Colour, "Dark blue", Colour.DARK_BLUE), (Colour, "green", ERROR),
    (int | None, "None", None), (int | None, "N/A", None), (int | None, "5", 5), (int | None, "what", ERROR),
    (int | str, "what", "what"), (int | str, "7", 7), (str | None, "null", None),
    (datetime.date, "2020-10-31", datetime.date(2020, 10, 31)), (datetime.date, "2020-02-31", ERROR),
    (list[str], '["a", "b"]', ["a", "b"]), (list[str], "['a', 'b']", ["a", "b"]), (list[str], "- a\n- b", ["a", "b"]),
    (list[str], "1. a\n2. b", ["a", "b"]), (list[str], "a, b", ["a", "b"]), (list[str], "[]", []),
    (list[str], '```json\n["a"]\n```', ["a"]), (list[str], 'Here: ["a", "b",]', ["a", "b"]),
    (list[str], '["a", "b', ERROR),
    (list[int], '["$1,000", 2]', [1000, 2]), (list[int], "3", [3]), (list[Queue], '["Billing"]', ["billing"]),
    (dict[str, int], '{"a": "1"}', {"a": 1}), (dict[str, int], "{'a': 1}", {"a": 1}), (dict[str, int], "a=1", {"a": 1}),
    (Item, '{"name": "x", "price": 2}', Item(name="x", price=2)),
    (Item, '{"Name": "x", "PRICE": 2}', Item(name="x", price=2)),
    (Item, '{"name": "x"}', ERROR), (Item, "x costs 2", ERROR),
    (list[Item], '[{"name": "x", "price": 1}]', [Item(name="x", price=1)]),
    (tuple[int, str], '[1, "a"]', (1, "a")), (set[int], "[1, 1, 2]", {1, 2}),
]


@pytest.mark.parametrize(("annotation", "text", "expected"), VALUES)
def test_value(annotation: Any, text: str, expected: Any) -> None:
    if expected is ERROR:
        with pytest.raises(ValueError):
            parse_value(annotation, text)
    else:
        value = parse_value(annotation, text)
        assert value == expected and type(value) is type(expected)


TWO = Signature("q -> city: str, count: int")
ONE = Signature("q -> count: int")
TEXT = Signature("q -> answer: str")
GOOD = {"city": "Köln", "count": 3}

ANSWERS: list[tuple[str, type[Signature], str, Any]] = [
    # chat
    ("chat", TWO, "[[ ## city ## ]]\nKöln\n\n[[ ## count ## ]]\n3\n\n[[ ## completed ## ]]", GOOD),
    ("chat", TWO, "[[ ## City ## ]] Köln\n[[##COUNT##]] 3", GOOD),
    ("chat", TWO, "Sure!\n\n[[ ## city ## ]]\nKöln\n[[ ## count ## ]]\n3 [[ ## completed ## ]]", GOOD),
    ("chat", TWO, "## city ##\nKöln\n## count ##\n3", GOOD),
    ("chat", TWO, "[[ ## count ## ]]\n3\n[[ ## city ## ]]\nKöln", GOOD),
    ("chat", TWO, "[[ ## city ## ]]\nKöln\n[[ ## count ## ]]\n3\n[[ ## city ## ]]\nBonn", GOOD),
    ("chat", TWO, "[[ ## city ## ]]\nKöln\n[[ ## mood ## ]]\nfine\n[[ ## count ## ]]\n3", GOOD),
    ("chat", TWO, "[[ ## city ## ]]\nKöln", "count"), ("chat", TWO, "", None), ("chat", TWO, "I cannot help.", None),
    ("chat", TWO, "[[ ## city ## ]]\nKöln\n[[ ## count ## ]]\nmany", "count"), ("chat", TWO, "[[ ## ci", None),
    ("chat", ONE, "3", {"count": 3}), ("chat", ONE, "I'm sorry, I can't.", "count"), ("chat", ONE, "   ", None),
    ("chat", TEXT, "Paris", {"answer": "Paris"}), ("chat", TEXT, "[[ ## answer ## ]]\na\n\nb", {"answer": "a\n\nb"}),
    # json
    ("json", TWO, '{"city": "Köln", "count": 3}', GOOD), ("json", TWO, '{"city": "K\\u00f6ln", "count": "3"}', GOOD),
    ("json", TWO, 'Here you are:\n```json\n{"city": "Köln", "count": 3}\n```\nAnything else?', GOOD),
    ("json", TWO, 'The object {x} is {"city": "Köln", "count": 3} I think.', GOOD),
    ("json", TWO, "{'city': 'Köln', 'count': 3}", GOOD), ("json", TWO, '{"city": "Köln", "count": 3,}', GOOD),
    ("json", TWO, "{“city”: “Köln”, “count”: 3}", GOOD), ("json", TWO, '{"City": "Köln", "COUNT": 3}', GOOD),
    ("json", TWO, '{"city": "Köln", "count": 3, "extra": null}', GOOD),
    ("json", TWO, '{"count": 3.0, "city": "Köln"}', GOOD),
    ("json", TWO, '{"city": "Köln", "count": 3', None), ("json", TWO, '{"city": "Köln"}', "count"),
    ("json", TWO, '{"city": null, "count": 3}', "city"), ("json", TWO, "[1, 2]", None), ("json", TWO, "null", None),
    ("json", TWO, "As an AI, I cannot.", None), ("json", TWO, "{" * 5000, None), ("json", TWO, '{"a":' * 5000, None),
    ("json", TEXT, '{"answer": "a\nb"}', {"answer": "a\nb"}), ("json", TEXT, '{"answer": 5}', {"answer": "5"}),
    ("json", TEXT, '{"answer": "{\\"x\\": 1}"}', {"answer": '{"x": 1}'}), ("json", ONE, "3", {"count": 3}),
    ("json", ONE, '{"parts": [{"count": 1}, {"count": 2}], "count": ', None),
    ("json", TWO, '{"city": "Köln", "count": 3} {"city": "Bonn", "count": 4}', GOOD),
    # plain
    ("plain", TWO, "City: Köln\nCount: 3", GOOD), ("plain", TWO, "city:Köln\nCOUNT : 3 pieces", GOOD),
    ("plain", TWO, "**City:** Köln\n**Count**: 3", GOOD), ("plain", TWO, "- City: Köln\n- Count: 3", GOOD),
    ("plain", TWO, "Köln\nCount: 3", GOOD), ("plain", TWO, "Sure:\nCity: Köln\nCount: 3\n", GOOD),
    ("plain", TWO, "City: Köln\nCount: 3\nCity: Bonn\nCount: 4", GOOD), ("plain", TWO, "City: Köln", "count"),
    ("plain", TWO, "Köln, 3", None), ("plain", TWO, "", None), ("plain", ONE, "3", {"count": 3}),
    ("plain", TEXT, "Answer: see: this", {"answer": "see: this"}), ("plain", TEXT, "Answer: a\nb", {"answer": "a\nb"}),
    ("plain", TEXT, "Note: it is Paris", {"answer": "Note: it is Paris"}),
]


@pytest.mark.parametrize(("adapter", "signature", "text", "expected"), ANSWERS)
def test_answer(adapter: str, signature: type[Signature], text: str, expected: Any) -> None:
    if isinstance(expected, dict):
        assert ADAPTERS[adapter].parse(signature, text) == expected
        return
    with pytest.raises(AdapterParseError) as caught:
        ADAPTERS[adapter].parse(signature, text)
    assert caught.value.field == expected and caught.value.text == text
    assert caught.value.code == "P005" and "what to do" in str(caught.value)


@settings(max_examples=200)
@given(st.sampled_from(sorted(ADAPTERS)), st.sampled_from([ONE, TWO, TEXT]),
       st.text(string.printable + "äß[]#{}\":\u2028") | st.text())
def test_nothing_a_model_writes_raises_anything_else(adapter: str, signature: type[Signature], text: str) -> None:
    try:
        made = ADAPTERS[adapter].parse(signature, text)
    except AdapterParseError:
        return
    assert set(made) == set(signature.output_fields) and all(
        isinstance(made[n], f.type) for n, f in signature.output_fields.items())


TYPED = [(int, st.integers()), (bool, st.booleans()), (float, st.floats(-1e6, 1e6).map(lambda x: round(x, 4))),
         (Queue, st.sampled_from(["billing", "returns", "technical support"])), (Colour, st.sampled_from(list(Colour))),
         (datetime.date, st.dates()), (int | None, st.none() | st.integers()), (list[int], st.lists(st.integers())),
         (list[str], st.lists(st.text())), (dict[str, int], st.dictionaries(st.text(), st.integers())),
         (Item, st.builds(Item, name=st.text(), price=st.integers(0, 99).map(float)))]


@settings(max_examples=300)
@given(st.sampled_from(TYPED).flatmap(lambda pair: st.tuples(st.just(pair[0]), pair[1])))
def test_what_is_written_reads_back(pair: tuple[Any, Any]) -> None:
    """`format_value` and `parse_value` agree, and so do JSON and `coerce`."""
    annotation, value = pair
    assert parse_value(annotation, format_value(value)) == value
    from tracedsl.programs.types import to_json

    assert coerce(annotation, json.loads(json.dumps(to_json(value)))) == value
