"""Predict and ChainOfThought: one call, prepared purely, repaired at most once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracedsl.programs import (
    AdapterParseError,
    ChainOfThought,
    Example,
    JSONAdapter,
    LMError,
    LMRequest,
    LMResponse,
    OracleLM,
    PlainAdapter,
    Predict,
    ScriptedLM,
    configure,
    context,
    trace_calls,
)
from tracedsl.programs.lm.base import Usage
from tracedsl.programs.modules.predict import PredictError
from tracedsl.programs.types import FieldError

PLAIN = PlainAdapter()


def scripted(*answers: Any, **settings: Any) -> ScriptedLM:
    return ScriptedLM(answers, adapter=PLAIN, **settings)


def test_one_call() -> None:
    lm = scripted("Answer: Paris")
    configure(lm=lm)
    made = Predict("question -> answer")(question="Capital of France?")
    assert made.answer == "Paris" and lm.calls == 1 and made.get_lm_usage().calls == 1
    assert [m.role for m in lm.requests[0].messages] == ["system", "user"]


def test_demonstrations_and_settings_reach_the_model() -> None:
    lm = scripted("A: 1")
    predict = Predict("q -> a: int", temperature=0.7, max_tokens=9)
    predict.demos = [Example(q="x", a=2)]
    predict(q="y", lm=lm, config={"max_tokens": 11})
    sent = lm.requests[0]
    assert (sent.temperature, sent.max_tokens) == (0.7, 11)
    assert [m.content for m in sent.messages[1:]] == ["Q: x", "A: 2", "Q: y"]


def test_preparing_makes_no_call_and_names_equal_calls() -> None:
    lm = OracleLM(3)
    predict = Predict("q -> a")
    with context(lm=lm):
        one, same, other = (predict.prepare({"q": q}) for q in ("x", "x", "y"))
        hot = predict.prepare({"q": "x"}, config={"temperature": 1.0})
    assert lm.calls == 0 and one == same and one.key == same.key != other.key
    assert one.deterministic and not hot.deterministic and hot.key != one.key
    assert predict.execute(one) == predict.execute(same) != predict.execute(other)
    assert one.key != predict.prepare({"q": "x"}, lm=OracleLM(4)).key
    assert one.key != predict.prepare({"q": "x"}, lm=lm, adapter=PLAIN).key


def test_an_unreadable_answer_is_asked_for_once_more() -> None:
    lm = scripted("Answer: many", "Answer: 3")
    configure(lm=lm)
    made = Predict("q -> answer: int")(q="x")
    assert made.answer == 3 and made.get_lm_usage().calls == lm.usage.calls == 2
    again = lm.requests[1].messages
    assert again[:-2] == lm.requests[0].messages and again[-2].content == "Answer: many"
    assert "no number" in again[-1].content


def test_the_first_error_stays_visible_when_both_fail() -> None:
    lm = scripted("Answer: many", "Answer: a lot", "Answer: 3")
    configure(lm=lm)
    with pytest.raises(AdapterParseError) as caught:
        Predict("q -> answer: int")(q="x")
    assert lm.calls == 2 and caught.value.text == "Answer: a lot"
    first = caught.value.__cause__
    assert isinstance(first, AdapterParseError) and first.text == "Answer: many" and first.field == "answer"


class CutOff(ScriptedLM):
    """Cuts off at `max_tokens` words."""

    def _send(self, request: LMRequest) -> LMResponse:
        words = self._next(request).split()
        cut = request.max_tokens is not None and len(words) > request.max_tokens
        return LMResponse((" ".join(words[:request.max_tokens]),), Usage(), "length" if cut else "stop")


def test_a_cut_off_answer_gets_twice_the_room() -> None:
    long = "Reasoning: it is so because Answer: 3".replace(" Answer", "\nAnswer")
    lm = CutOff(lambda request: "A: x 1 2" if request.max_tokens == 4 else long, adapter=JSONAdapter(), max_tokens=2)
    configure(lm=lm)
    with pytest.raises(AdapterParseError):
        Predict("q -> a: int, b: int")(q="x")
    assert [r.max_tokens for r in lm.requests] == [2, 4] and lm.requests[0].messages == lm.requests[1].messages


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), LMError("L003", "refused"), KeyboardInterrupt()])
def test_other_errors_never_cause_a_second_call(error: BaseException) -> None:
    def answer(request: LMRequest) -> str:
        raise error

    lm = ScriptedLM(answer)
    configure(lm=lm)
    with pytest.raises(type(error)):
        Predict("q -> a")(q="x")
    assert lm.calls == 1


def test_a_bug_in_an_adapter_never_causes_a_second_call() -> None:
    class Broken(PlainAdapter):
        def parse(self, signature: Any, text: str) -> dict[str, Any]:
            raise KeyError("bug")

    lm = scripted("A: 1", "A: 1")
    with context(lm=lm, adapter=Broken()), pytest.raises(KeyError):
        Predict("q -> a")(q="x")
    assert lm.calls == 1


def test_wrong_calls_are_said_before_anything_is_paid() -> None:
    lm = scripted("A: 1")
    configure(lm=lm)
    predict = Predict("q: str -> a")
    with pytest.raises(PredictError, match="write q="):
        predict("x")
    with pytest.raises(FieldError, match="P004"):
        predict(q=3)
    with pytest.raises(FieldError, match="did you mean 'q'"):
        predict(qq="x", q="y")
    with pytest.raises(PredictError, match="did you mean 'temperature'"):
        Predict("q -> a", temprature=1)
    with pytest.raises(PredictError, match=r"predictor\.lm"):
        Predict("q -> a", lm=lm)
    assert lm.calls == 0


def test_of_several_answers_the_readable_ones_count() -> None:
    lm = scripted("A: 1", "A: many", "A: 3")
    configure(lm=lm)
    made = Predict("q -> a: int", n=3)(q="x")
    assert made.completions.a == [1, 3] and made.a == 1


def test_a_field_may_be_called_like_an_override() -> None:
    lm = scripted("Signature: x")
    configure(lm=lm)
    assert Predict("demos, config -> signature")(demos="d", config="c").signature == "x"


def test_chain_of_thought_reasons_first() -> None:
    lm = scripted("Reasoning: two and two\nAnswer: 4")
    cot = ChainOfThought("question -> answer: int", max_tokens=50)
    with context(lm=lm):
        made = cot(question="2 + 2?")
    assert (made.reasoning, made.answer) == ("two and two", 4)
    assert list(cot.predict.signature.output_fields) == ["reasoning", "answer"]
    assert [name for name, _ in cot.named_predictors()] == ["predict"]


def test_calls_are_traced_where_they_are_made() -> None:
    configure(lm=OracleLM())
    predict, cot = Predict("q -> a"), ChainOfThought("q -> a")
    with trace_calls() as outer:
        predict(q="x")
        with trace_calls() as inner:
            made = cot(q="y")
    assert [s.predictor for s in outer] == [predict, cot.predict] and len(inner) == 1
    predictor, inputs, prediction = inner[0]
    assert predictor is cot.predict and inputs == {"q": "y"} and prediction is made


def test_contexts_belong_to_their_thread_and_task() -> None:
    lms = [OracleLM(i) for i in range(8)]
    answers: dict[int, str] = {}

    def work(i: int) -> None:
        with context(lm=lms[i]):
            answers[i] = Predict("q -> a")(q="x").a

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()

    async def task(i: int) -> str:
        with context(lm=lms[i]):
            await asyncio.sleep(0)
            return str((await Predict("q -> a").acall(q="x")).a)

    async def tasks() -> list[str]:
        return await asyncio.gather(*(task(i) for i in range(8)))

    assert [answers[i] for i in range(8)] == asyncio.run(tasks()) and len(set(answers.values())) > 4


def test_any_thread_may_configure() -> None:
    lm = OracleLM(1)
    t = threading.Thread(target=lambda: configure(lm=lm))
    t.start()
    t.join()
    Predict("q -> a")(q="x")
    assert lm.calls == 1


@given(st.integers(0, 5), st.text(), st.text())
def test_the_oracle_answers_by_request_alone(seed: int, one: str, two: str) -> None:
    predict = Predict("q -> a: int, names: list[str], ok: bool")
    first, second = OracleLM(seed), OracleLM(seed)
    same = predict(q=one, lm=first) == predict(q=one, lm=second)
    other = predict(q=two, lm=first) == predict(q=one, lm=second)
    assert same and (other == (one == two))
