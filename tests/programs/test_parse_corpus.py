"""Answers as models really write them: each is read rightly or is a typed error."""

from __future__ import annotations

import contextlib
import datetime
import enum
import json
import re
import string
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tracedsl.programs import AdapterParseError, Signature
from tracedsl.programs.adapters import NAMES, adapter_by_name
from tracedsl.programs.adapters.values import coerce, parse_value
from tracedsl.programs.adapters.writing import format_value
from tracedsl.programs.types import to_json

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


class Person(BaseModel):
    name: str
    age: int


SIGNATURES = {", ".join(made.output_fields): made for made in (
    Signature("q -> city: str, count: int"), Signature("q -> count: int"), Signature("q -> answer: str"),
    Signature("q -> queue: Queue, urgent: bool"), Signature("q -> items: list[Item], total: float"),
    Signature("q -> when: datetime.date, price: Decimal"), Signature("q -> person: Person"))}
ONE, TWO, TEXT = SIGNATURES["count"], SIGNATURES["city, count"], SIGNATURES["answer"]
CORPUS = Path(__file__).parent / "corpus"


def corpus(adapter: str) -> list[dict[str, Any]]:
    """The answers written for an adapter's layout; BAML's are those of JSON."""
    file = CORPUS / f"{'json' if adapter == 'baml' else adapter}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def plain_data(values: dict[str, Any]) -> dict[str, Any]:
    return {name: to_json(value) for name, value in values.items()}


@pytest.mark.parametrize("adapter", NAMES)
def test_answers_of_the_corpus(adapter: str) -> None:
    """Each is read as the corpus says, or is a typed error; never anything else."""
    wrong = []
    for case in corpus(adapter):
        signature, text = SIGNATURES[case["signature"]], case["text"]
        try:
            got: Any = plain_data(adapter_by_name(adapter).parse(signature, text))
        except AdapterParseError as error:
            assert error.code == "P005" and error.text == text and "what to do" in str(error)
            got = "error"
        if got != case.get("expect", "error"):
            wrong.append(f"{text[:100]!r}: {got}, not {case.get('expect', 'error')}")
    assert not wrong, "\n".join(wrong)


def test_an_error_names_the_field() -> None:
    for adapter, signature, text, field in [
        ("chat", TWO, "[[ ## city ## ]]\nKöln", "count"), ("chat", TWO, "", None), ("chat", ONE, "I can't.", "count"),
        ("json", TWO, '{"city": null, "count": 3}', "city"), ("json", TWO, '{"city": "Köln"', None),
        ("xml", TWO, "<city>Köln</city>", "count"), ("plain", TWO, "City: Köln\nCount: many", "count")]:
        with pytest.raises(AdapterParseError) as caught:
            adapter_by_name(adapter).parse(signature, text)
        assert caught.value.field == field


TRUTH: dict[str, dict[str, Any]] = {
    "city, count": {"city": "Köln", "count": 3}, "answer": {"answer": "It is Paris, of course.\n\nReally."},
    "queue, urgent": {"queue": "technical support", "urgent": False}, "count": {"count": 1200},
    "items, total": {"items": [Item(name="nut M8", price=1.5)], "total": 1.5},
    "when, price": {"when": datetime.date(1999, 5, 4), "price": Decimal("12.50")},
    "person": {"person": Person(name="Ada", age=36)}}
MISHAPS: dict[str, Callable[[str], str]] = {
    "as asked": lambda t: t, "prose before": lambda t: f"Sure! Here is the answer you asked for:\n\n{t}",
    "prose after": lambda t: f"{t}\n\nLet me know if you need anything else!",
    "fence": lambda t: f"```\n{t}\n```", "named fence": lambda t: f"```json\n{t}\n```",
    "open fence": lambda t: f"```\n{t}", "thoughts": lambda t: f"<think>\nLet me see. 42?\n</think>\n\n{t}",
    "thoughts that the template opened": lambda t: f"Let me see. 42?\n</think>\n\n{t}",
    "end tokens": lambda t: f"{t}<|im_end|>\n</s>", "blank lines": lambda t: f"\n\n  {t}  \n\n",
    "windows line ends": lambda t: t.replace("\n", "\r\n"), "byte order mark": lambda t: f"\ufeff{t}",
    "twice": lambda t: f"{t}\n\n{t}", "smart quotes": lambda t: t.replace('"', "”"),
    "single quotes": lambda t: t.replace('"', "'"), "upper case": str.upper,
    "indented": lambda t: "    " + t.replace("\n", "\n    "),
    "quoted": lambda t: "> " + t.replace("\n", "\n> "), "cut off": lambda t: t[:len(t) * 2 // 3],
    "half": lambda t: t[:len(t) // 2], "first third": lambda t: t[:len(t) // 3], "nothing": lambda t: "",
    "refusal": lambda t: "I'm sorry, but I can't help with that.",
    "no brackets": lambda t: re.sub(r"[\[\]{}<>]", "", t),
    "colons lost": lambda t: t.replace(":", ""), "commas lost": lambda t: t.replace(",", "")}
TOLERATED = {"cut off", "half", "first third", "upper case", "no brackets", "colons lost", "commas lost", "quoted",
             "indented", "smart quotes", "single quotes", "prose after", "fence", "named fence", "open fence", "twice"}


@pytest.mark.parametrize("adapter", NAMES)
@pytest.mark.parametrize("mishap", MISHAPS)
def test_good_answers_after_a_mishap(adapter: str, mishap: str) -> None:
    """Typed values are right or an error. Free text is too, unless the mishap changed the text itself."""
    layout: Any = adapter_by_name(adapter)
    for key, truth in TRUTH.items():
        signature = SIGNATURES[key]
        good = str(layout.format(signature, [{"q": "x", **truth}], {"q": "y"})[-2].content)
        text = MISHAPS[mishap](good)
        try:
            got = layout.parse(signature, text)
        except AdapterParseError:
            assert mishap not in ("as asked", "prose before", "thoughts", "end tokens", "blank lines")
            continue
        if mishap in ("cut off", "half", "first third"):  # as every answer that ends at max_tokens is looked at
            got.pop(layout.cut(signature, text), None)
        for name, value in got.items():
            changed = isinstance(value, (str, Person, list)) and mishap in TOLERATED
            assert changed or value == truth[name] or mishap in ("windows line ends",), (mishap, name, value)


NONSENSE = ("{", "[", '{"a":', "<", "<city>", "<city", "[[", "[[ ## city ## ]]\n", "[[ ##", "*", "_", "#", "# ", " ",
            "\n", "\n ", "\n#", "\n> ", "```", "```\n", "```a\n", '"', "'", "\\", "/*", "City: ", "city", "|", "|-",
            "\n|a|b|", "<think>", "</think>", "1,", "1 ", "$1,000 ", "-", "a: b\n", "- a\n", '"a": 1,', "\u200b",
            "not ", "billing ", "<|a|>", "é")


@pytest.mark.parametrize("adapter", NAMES)
def test_long_nonsense_is_read_in_time(adapter: str) -> None:
    """Long enough that time quadratic in it would not end within the test's limit."""
    for piece in NONSENSE:
        for signature in (TWO, TEXT, SIGNATURES["items, total"]):
            for text in (piece * (20_000 // len(piece)), '{"city": "' + piece * (10_000 // len(piece))):
                with contextlib.suppress(AdapterParseError):
                    adapter_by_name(adapter).parse(signature, text)


@settings(max_examples=200)
@given(st.sampled_from(NAMES), st.sampled_from([ONE, TWO, TEXT]),
       st.text(string.printable + "äß[]#{}\":\u2028") | st.text())
def test_nothing_a_model_writes_raises_anything_else(adapter: str, signature: type[Signature], text: str) -> None:
    try:
        made = adapter_by_name(adapter).parse(signature, text)
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
    assert coerce(annotation, json.loads(json.dumps(to_json(value)))) == value
