"""Examples and predictions."""

from __future__ import annotations

import copy
import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracedsl.programs import Example, Prediction
from tracedsl.programs.types import FieldError

names = st.text("abcdefgh", min_size=1, max_size=4)
json_data = st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
                         lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
                         max_leaves=8)


def test_attributes_and_items_are_the_same() -> None:
    e = Example(question="q", answer=3)
    e.answer = 4
    e["extra"] = 5
    assert e.answer == e["answer"] == 4 and e.extra == 5 and "extra" in e and len(e) == 3
    assert dict(**e.with_inputs("question").inputs()) == {"question": "q"}
    with pytest.raises(AttributeError, match="did you mean 'answer'"):
        _ = e.answr


def test_inputs_and_labels() -> None:
    e = Example(question="q", answer="a", why="w").with_inputs("question")
    assert e.inputs() == Example(question="q") and e.labels() == Example(answer="a", why="w")
    assert e.without("why").labels() == Example(answer="a")
    assert e.copy(question="r").inputs() == Example(question="r")
    with pytest.raises(FieldError, match="with_inputs"):
        Example(question="q").inputs()
    with pytest.raises(FieldError, match="did you mean 'question'"):
        e.with_inputs("questions")


def test_copies_do_not_touch_the_original() -> None:
    e = Example(items=[1]).with_inputs("items")
    e.copy(items=[2]).items_ = 1
    deep = copy.deepcopy(e)
    deep.get("items").append(2)
    assert e == Example(items=[1]) and deep.inputs() == Example(items=[1, 2])


@given(st.dictionaries(names, json_data, max_size=4))
def test_equal_examples_have_equal_hashes_and_survive_json(fields: dict[str, Any]) -> None:
    e = Example(fields)
    back = Example.load(json.loads(json.dumps(e.dump())))
    assert back == e == Example(**fields) and hash(back) == hash(e)


def test_to_dict_is_plain() -> None:
    e = Example(day=datetime.date(2020, 1, 2), tags={"b", "a"}, inner=Example(x=1), pair=(1, 2))
    assert e.toDict() == {"day": "2020-01-02", "tags": ["a", "b"], "inner": {"x": 1}, "pair": [1, 2]}


def test_predictions_know_all_completions() -> None:
    p = Prediction.from_completions([{"a": 1, "b": 2}, {"a": 3, "b": 4}])
    assert (p.a, p.completions.a, p.completions[1].b, len(p.completions)) == (1, [1, 3], 4, 2)
    assert Prediction(x=1).completions.x == [1] and p == Example(a=1, b=2)
