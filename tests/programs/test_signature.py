"""Signatures in all their forms."""

from __future__ import annotations

import datetime
import decimal
import subprocess
import sys
from typing import Annotated, Any, Literal, TypedDict

import annotated_types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tracedsl.programs import InputField, OutputField, Predict, Signature
from tracedsl.programs.signature import default_instructions, ensure_signature
from tracedsl.programs.types import FieldError, SignatureError, type_name


class Person(BaseModel):
    name: str
    age: int


class QA(Signature):
    """Answer the question.

    Be brief.
    """

    question: str = InputField(desc="what is asked")
    answer: Literal["yes", "no"] = OutputField()


class LongerQA(QA):
    person: Person = OutputField(desc="who said so")


def test_text_form() -> None:
    made = Signature("question, ctx: list[str] -> answer: int, why: Optional[str], p: dict[str, float] | None")
    assert list(made.input_fields) == ["question", "ctx"]
    types = {name: f.type for name, f in made.output_fields.items()}
    assert types == {"answer": int, "why": str | None, "p": dict[str, float] | None}
    assert not made.fields["question"].typed and made.fields["question"].type is str


@pytest.mark.parametrize(("text", "expected"), [
    ("Literal['a, b', 'c -> d', \"it's\"]", Literal["a, b", "c -> d", "it's"]),
    ("Literal[1, -2, None, True]", Literal[1, -2, None, True]),
    ("tuple[int, ...]", tuple[int, ...]),
    ("list[dict[str, int | None]]", list[dict[str, int | None]]),
    ("datetime.date", datetime.date), ("typing.Any", Any), ("Any", Any), ("'list[int]'", list[int]),
    ("List[Dict[str, Person]]", list[dict[str, Person]]),
])
def test_types_in_text(text: str, expected: Any) -> None:
    made = Signature(f"q -> a: {text}", custom_types={"Person": Person})
    assert made.fields["a"].type == expected


@pytest.mark.parametrize(("text", "code", "says"), [
    ("q", "P001", "0 arrows"), ("q -> a -> b", "P001", "2 arrows"), ("-> a", "P001", "no input fields"),
    ("q ->", "P001", "no output fields"), ("q a -> b", "P001", "cannot be read"), ("a -> a", "P001", "twice"),
    ("q -> a: strr", "P002", "did you mean 'str'"), ("q -> a: Persona", "P002", "custom_types"),
    ("q -> a: list[int", "P001", "cannot be read"), ("q -> a: int[str]", "P001", "does not fit"),
    ("q -> a: __import__('os')", "P001", "not a type"), ("q -> a: Literal[x]", "P001", "plain values"),
    ("q -> a: os.system", "P002", "os.system"), ("q, **k -> a", "P001", ""),
])
def test_text_at_fault(text: str, code: str, says: str) -> None:
    with pytest.raises(SignatureError) as caught:
        Signature(text)
    assert caught.value.code == code and says in str(caught.value)


def test_class_form() -> None:
    assert QA.instructions == "Answer the question.\n\nBe brief."
    assert QA.fields["question"].desc == "what is asked" and QA.fields["answer"].type == Literal["yes", "no"]
    assert LongerQA.instructions == QA.instructions
    assert list(LongerQA.output_fields) == ["answer", "person"] and LongerQA.fields["person"].type is Person


def test_a_class_attribute_that_is_no_field_is_an_error() -> None:
    with pytest.raises(SignatureError, match="neither input nor output"):
        class Odd(Signature):
            q: str
            a: str = OutputField()


def test_dictionary_form_equals_the_others() -> None:
    made = Signature({"question": (str, InputField(desc="what is asked")),
                      "answer": (Literal["yes", "no"], OutputField())}, QA.instructions)
    assert made == QA and hash(made) == hash(QA) and made.fingerprint == QA.fingerprint
    assert Signature("a -> b") == Signature("a->b") == ensure_signature("a -> b") != Signature("a: str -> b")


def test_default_instructions_follow_the_fields() -> None:
    made = Signature("question, n: int -> answer")
    assert made.instructions == "Given the fields `question`, `n`, produce the fields `answer`."
    longer = made.prepend("reasoning", OutputField()).append("hint", InputField(), int)
    assert longer.instructions == default_instructions(longer.fields.values())
    assert longer.signature == "question, n: int, hint: int -> reasoning, answer"
    assert longer.delete("hint").delete("reasoning") == made == made.delete("nothing")
    assert made.with_instructions("Do it.").append("x", OutputField()).instructions == "Do it."


@given(st.lists(st.sampled_from("abcdef"), unique=True, max_size=5), st.integers(-1, 5))
def test_insert_puts_a_field_where_a_list_would(names: list[str], index: int) -> None:
    made = Signature("q -> z")
    for name in names:
        made = made.append(name, OutputField())
    expected = ["z", *names]
    expected.insert(len(expected) if index == -1 else index, "new")
    assert list(made.insert(index, "new", OutputField()).output_fields) == expected


def test_changes_leave_the_original() -> None:
    before = QA.fingerprint
    changed = QA.with_instructions("Other.").with_updated_fields("answer", str, desc="short")
    assert QA.fingerprint == before != changed.fingerprint
    assert changed.fields["answer"].desc == "short" and changed.fields["answer"].type is str
    with pytest.raises(FieldError, match="did you mean 'answer'"):
        QA.with_updated_fields("answr", str)


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    text = "q: list[str] -> a: Literal['x', 'y'], b: int | None"
    code = f"from tracedsl.programs import Signature; print(Signature({text!r}).fingerprint)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Signature(text).fingerprint


def test_the_fingerprint_knows_a_models_fields() -> None:
    def made(annotation: Any) -> str:
        one = type("Thing", (BaseModel,), {"__annotations__": {"x": annotation}, "__module__": __name__})
        return Signature({"q": (str, InputField()), "a": (one, OutputField())}).fingerprint

    assert made(int) == made(int) != made(str)


def test_inputs_are_checked() -> None:
    made = Signature("question, names: list[str], n: int -> answer")
    good = {"n": 3, "question": ["anything goes: it has no type"], "names": ["a"]}
    assert list(made.check_inputs(good)) == ["question", "names", "n"]
    with pytest.raises(FieldError) as wrong:
        made.check_inputs({**good, "names": "a"})
    text = str(wrong.value)
    assert "'names'" in text and "list[str]" in text and "str: 'a'" in text and "what to do" in text
    with pytest.raises(FieldError, match="did you mean 'question'"):
        made.check_inputs({**good, "questin": "x"})
    with pytest.raises(FieldError, match="missing input: n"):
        made.check_inputs({"question": "x", "names": []})


def test_a_signature_is_not_called() -> None:
    with pytest.raises(SignatureError, match="Predict"):
        QA("x")
    with pytest.raises(SignatureError, match="cannot be made from int"):
        Predict(3)


def test_state_brings_back_what_training_changed() -> None:
    changed = QA.with_instructions("Other.").with_updated_fields("answer", desc="one word")
    assert QA.load_state(changed.dump_state()) == changed
    with pytest.raises(FieldError, match="P007"):
        LongerQA.load_state(changed.dump_state())


def test_type_names() -> None:
    assert type_name(list[int] | None) == "list[int] | None"
    assert type_name(Literal["a", 2]) == "Literal['a', 2]"
    assert type_name(tuple[int, ...]) == "tuple[int, ...]" and type_name(Person) == "Person"


class Elsewhere(BaseModel):
    x: int


def test_a_text_knows_the_types_of_the_code_that_wrote_it() -> None:
    class Local(BaseModel):
        y: int

    made = Signature("a: datetime.date, b: list[Elsewhere] -> c: Local")
    assert [f.type for f in made.fields.values()] == [datetime.date, list[Elsewhere], Local]


def test_a_class_takes_any_annotation() -> None:
    class Local(TypedDict):
        y: int

    class Wide(Signature):
        """Look at it."""

        data: dict[str, Local] = InputField()
        level: Annotated[int, annotated_types.Ge(0)] = InputField()
        when: datetime.datetime | None = OutputField()
        price: decimal.Decimal = OutputField()
        local: Local = OutputField()

    types = {name: f.type for name, f in Wide.fields.items()}
    assert types == {"data": dict[str, Local], "level": Annotated[int, annotated_types.Ge(0)],
                     "when": datetime.datetime | None, "price": decimal.Decimal, "local": Local}
    with pytest.raises(FieldError, match="level"):
        Wide.check_inputs({"data": {"a": {"y": 1}}, "level": -1})
    with pytest.raises(SignatureError, match="P002"):
        class Wrong(Signature):
            q: Nowhere = InputField()  # type: ignore[name-defined]  # noqa: F821


def test_limits_and_defaults() -> None:
    made = Signature({"n": (int, InputField(ge=0, default=3)), "tags": (list[str], InputField(default=[])),
                      "score": (float, OutputField(ge=0, le=1))})
    first, second = made.check_inputs({}), made.check_inputs({"n": 1})
    assert first == {"n": 3, "tags": []} and first["tags"] is not second["tags"]
    with pytest.raises(FieldError, match="greater than or equal to 0"):
        made.check_inputs({"n": -1})
    plain = Signature({"n": (int, InputField()), "tags": (list[str], InputField()), "score": (float, OutputField())})
    assert made != plain and made.fingerprint != plain.fingerprint and hash(made) == hash(plain)
    with pytest.raises(SignatureError, match="did you mean 'max_length'"):
        InputField(max_len=3)
