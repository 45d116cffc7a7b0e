"""Fields as they are written: every adapter, every way to cut an answer into pieces, repairs, several predictors."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncGenerator, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tracedsl.programs import (
    AdapterParseError,
    Code,
    LMRequest,
    LMResponse,
    Module,
    Predict,
    Prediction,
    Reasoning,
    ScriptedLM,
    Signature,
    StatusMessage,
    StatusMessageProvider,
    StreamListener,
    StreamResponse,
    TwoStepAdapter,
    context,
    streamify,
)
from tracedsl.programs.adapters import NAMES, adapter_by_name
from tracedsl.programs.field_streams import AnswerStream, _says
from tracedsl.programs.lm.base import LMChunk
from tracedsl.programs.streaming import apply_sync_streaming, streaming_response
from tracedsl.programs.tools.tool import Tool
from tracedsl.programs.types import FieldError


class PieceLM(ScriptedLM):
    """Streams its answers in pieces of `size` characters."""

    size = 3

    async def _astream(self, request: LMRequest) -> AsyncGenerator[LMChunk, None]:
        response = await self._asend(request)
        text = response.texts[0]
        for i in range(0, len(text), self.size):
            yield LMChunk(text[i:i + self.size])
        yield LMChunk(response=response)


class Item(BaseModel):
    name: str
    price: float


SIGNATURE = Signature("q -> answer: str, count: int, items: list[Item], code: Code, note: str | None")
FIELDS = tuple(SIGNATURE.output_fields)


def streamed(adapter: Any, signature: type[Signature], pieces: Iterable[str], *, fields: Iterable[str] | None = None,
             ) -> tuple[dict[str, str], dict[str, int], list[Any]]:
    """The texts of the last attempts, the number of attempts, all chunks."""
    pieces = list(pieces)
    lm = SimpleNamespace(capabilities=frozenset())
    call = SimpleNamespace(signature=signature, lm=lm, adapter=adapter)
    stream = AnswerStream(call, signature.output_fields if fields is None else fields)
    chunks = [c for piece in pieces for c in stream.feed(call, LMChunk(piece))]
    chunks += stream.feed(call, LMChunk(response=LMResponse(("".join(pieces),))))
    attempts: dict[str, int] = {}
    for c in chunks:
        attempts[c.field] = max(attempts.get(c.field, 1), c.attempt)
    texts = {n: "".join(c.text for c in chunks if c.field == n and c.attempt == a) for n, a in attempts.items()}
    return texts, attempts, chunks


def cut(text: str, places: Iterable[int]) -> list[str]:
    marks = sorted({0, len(text), *(p % (len(text) + 1) for p in places)})
    return [text[a:b] for a, b in itertools.pairwise(marks)]


def check(adapter: Any, signature: type[Signature], text: str, pieces: list[str]) -> None:
    """What was streamed says what was parsed."""
    texts, attempts, chunks = streamed(adapter, signature, pieces)
    try:
        values = adapter.parse(signature, text)
    except AdapterParseError:
        return
    for name, value in values.items():
        kind = signature.output_fields[name].type
        said = texts.get(name, "")
        if kind is str:
            assert said == value, (text, pieces)
        else:
            assert _says(kind, said, value) or said == str(value), (text, pieces, said)
        lasts = [c for c in chunks if c.field == name and c.attempt == attempts.get(name, 1)]
        assert lasts and [c.last for c in lasts].count(True) == 1 and lasts[-1].last


line = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1).map(lambda s: f"it is {s}!")
VALUES = st.fixed_dictionaries({
    "answer": st.lists(line, min_size=1, max_size=3).map("\n".join), "count": st.integers(-5, 10**6),
    "items": st.lists(st.builds(Item, name=line, price=st.integers(0, 9).map(float)), max_size=2),
    "code": st.sampled_from([Code("x = 1"), Code("def f():\n    return [1]")]), "note": st.none() | line})


def good_answer(name: str, values: dict[str, Any]) -> str:
    return str(adapter_by_name(name).format(SIGNATURE, [{"q": "x", **values}], {"q": "y"})[-2].content)


@settings(max_examples=150)
@given(st.sampled_from(NAMES), VALUES, st.lists(st.integers(0, 10**6), max_size=30), st.booleans())
def test_what_is_streamed_is_what_is_parsed(name: str, values: dict[str, Any], places: list[int], every: bool) -> None:
    text = good_answer(name, values)
    check(adapter_by_name(name), SIGNATURE, text, list(text) if every else cut(text, places))


SHORT = Signature("q -> answer: str, count: int")
SHAPES = ["[[ ## answer ## ]]", "[[ ## count ## ]]", "[[ ## completed ## ]]", "Answer:", "Count: 3", "**Count:** 7",
          "<answer>", "</answer>", "<count>3</count>", '{"answer": "', '", "count": 3}', '"count": 4', "<think>",
          "</think>", "\n", "\n\n", " ", "text", "3", "```json\n", "```", "[[", "]]", "## count ##", "**", "\\u00e9",
          "\\ud83d\\ude00", "\\", '"', "<|im_end|>", "</s>", "{", "}", ",", "ü", "<", "[", "Ans", "- "]


@settings(max_examples=400)
@given(st.sampled_from(NAMES), st.lists(st.sampled_from(SHAPES), max_size=12).map("".join),
       st.lists(st.integers(0, 200), max_size=12), st.booleans())
def test_it_also_is_for_answers_that_are_a_mess(name: str, text: str, places: list[int], every: bool) -> None:
    check(adapter_by_name(name), SHORT, text, list(text) if every else cut(text, places))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_good_answers_come_as_they_are_written(name: str, size: int) -> None:
    """One attempt, and the text of a field does not wait for its end."""
    words = " ".join(f"word{i}" for i in range(200))
    text = good_answer(name, {"answer": words, "count": 3, "items": [], "code": Code("x = 1"), "note": None})
    pieces = [text[i:i + size] for i in range(0, len(text), size)]
    texts, attempts, chunks = streamed(adapter_by_name(name), SIGNATURE, pieces)
    assert texts["answer"] == words and set(attempts.values()) == {1}
    if size < 10:
        assert sum(c.field == "answer" for c in chunks) > len(words) / size / 2


@pytest.mark.parametrize("name", NAMES)
def test_a_long_answer_comes_in_single_characters(name: str) -> None:
    """Long enough that time quadratic in it would not end within the test's limit."""
    words = ("[ < # * { a: " * 10_000).strip()
    text = good_answer(name, {"answer": words, "count": 3, "items": [], "code": Code("x"), "note": None})
    texts, attempts, _ = streamed(adapter_by_name(name), SIGNATURE, text)
    assert texts["answer"] == words and attempts["answer"] == 1


def test_thoughts_are_not_streamed_as_the_answer() -> None:
    text = "<think>Answer: no, wait</think>\nAnswer: yes\nCount: 3<|im_end|>"
    texts, attempts, _ = streamed(adapter_by_name("plain"), SHORT, text)
    assert texts == {"answer": "yes", "count": "3"} and set(attempts.values()) == {1}


# -- programs ----------------------------------------------------------------------------------------------------------


def said(items: list[Any], field: str) -> str:
    mine = [i for i in items if isinstance(i, StreamResponse) and i.signature_field_name == field]
    return "".join(i.chunk for i in mine if i.attempt == mine[-1].attempt)


async def collected(stream: Any) -> list[Any]:
    return [item async for item in stream]


ANSWER = "[[ ## answer ## ]]\nParis is it\n\n[[ ## count ## ]]\n3\n\n[[ ## completed ## ]]"


@pytest.mark.parametrize("is_async", [True, False])
def test_a_predictor_streams(is_async: bool) -> None:
    lm = PieceLM([ANSWER] * 2)
    listeners = [StreamListener("answer"), StreamListener(signature_field_name="count")]
    program = streamify(Predict(SHORT), stream_listeners=listeners, async_streaming=is_async)
    for _ in range(2):  # listeners can be used again
        with context(lm=lm):
            items = asyncio.run(collected(program(q="x"))) if is_async else list(program(q="x"))
        assert said(items, "answer") == "Paris is it" and said(items, "count") == "3"
        assert isinstance(items[-1], Prediction) and items[-1].count == 3
        assert {i.predict_name for i in items[:-1]} == {"self"}
    assert lm.calls == 2


def test_an_answer_that_is_asked_for_again_starts_anew() -> None:
    lm = PieceLM(["[[ ## answer ## ]]\nLondon\n\n[[ ## count ## ]]\nmany", ANSWER])
    stream = streamify(Predict(SHORT), stream_listeners=[StreamListener("answer")], async_streaming=False)
    items = list(stream(q="x", lm=lm))
    assert next(i.attempt for i in items[:-1]) == 1 and items[-2].attempt == 2
    assert said(items, "answer") == "Paris is it" and lm.calls == 2


def shout(text: str) -> str:
    return text.upper()


class Two(Module):
    def __init__(self) -> None:
        self.first = Predict("q -> answer")
        self.second = Predict("answer -> judgement, answer_again: str")
        self.tool = Tool(shout)

    def forward(self, q: str) -> Any:
        answer = self.first(q=q).answer
        return self.second(answer=answer)


def test_several_predictors_stream_side_by_side() -> None:
    program = Two()
    lm = PieceLM(["[[ ## answer ## ]]\none", "[[ ## judgement ## ]]\nfine\n[[ ## answer_again ## ]]\ntwo"])
    listeners = [StreamListener("answer"), StreamListener("judgement", predict=program.second, predict_name="judge")]
    with context(lm=lm):
        items = list(streamify(program, stream_listeners=listeners, async_streaming=False)(q="x"))
    assert said(items, "answer") == "one" and said(items, "judgement") == "fine"
    assert {i.predict_name for i in items[:-1]} == {"first", "judge"}


def test_a_field_nobody_or_everybody_writes_is_an_error() -> None:
    both = Two()
    both.second = Predict("answer -> answer_again, judgement")
    both.first = Predict("q -> judgement, answer")
    for field, says in (("judgement", "predict="), ("answr", "did you mean 'answer'")):
        with pytest.raises(FieldError, match=says):
            streamify(both, stream_listeners=[StreamListener(field)])


class Again(Module):
    def __init__(self) -> None:
        self.step = Predict("q -> answer")

    def forward(self, q: str) -> Any:
        self.step(q=q)
        return self.step(q=q)


@pytest.mark.parametrize("reuse", [True, False])
def test_later_calls_of_a_predictor_stream_if_asked_for(reuse: bool) -> None:
    lm = PieceLM(["[[ ## answer ## ]]\none", "[[ ## answer ## ]]\ntwo"])
    listener = StreamListener("answer", allow_reuse=reuse)
    with context(lm=lm):
        items = list(streamify(Again(), stream_listeners=[listener], async_streaming=False)(q="x"))
    assert said(items, "answer") == ("onetwo" if reuse else "one")


class Provider(StatusMessageProvider):
    def module_start_status_message(self, instance: Any, inputs: Any) -> str:
        return f"start {type(instance).__name__} {sorted(inputs)}"

    def module_end_status_message(self, outputs: Any) -> str:
        return "end"

    def lm_start_status_message(self, instance: Any, inputs: Any) -> str:
        return f"ask {instance.model}"

    def lm_end_status_message(self, outputs: Any) -> str:
        return outputs.texts[0]


class WithTool(Two):
    def forward(self, q: str) -> Any:
        return Prediction(answer=self.first(q=self.tool(q)).answer)


@pytest.mark.parametrize("is_async", [True, False])
def test_status_messages_tell_what_goes_on(is_async: bool) -> None:
    lm = PieceLM(["[[ ## answer ## ]]\none"])
    stream = streamify(WithTool(), Provider(), async_streaming=is_async)
    with context(lm=lm):
        items = asyncio.run(collected(stream(q="x"))) if is_async else list(stream(q="x"))
    messages = [i.message for i in items if isinstance(i, StatusMessage)]
    assert messages == ["start WithTool ['q']", "Calling tool shout...",
                        "Tool calling finished! Querying the LLM with tool calling results...", "start Predict ['q']",
                        "ask scripted", "[[ ## answer ## ]]\none", "end", "end"]
    assert "".join(i.text for i in items if isinstance(i, LMChunk)) == "[[ ## answer ## ]]\none"


def test_the_prediction_may_be_left_out_if_something_was_said() -> None:
    def run(field: str) -> list[Any]:
        stream = streamify(Two(), stream_listeners=[StreamListener(field)], async_streaming=False,
                           include_final_prediction_in_output_stream=False)
        with context(lm=PieceLM(["[[ ## answer ## ]]\none", "[[ ## judgement ## ]]\na\n[[ ## answer_again ## ]]\nb"])):
            return list(stream(q="x"))

    assert all(isinstance(i, StreamResponse) for i in run("answer"))


def test_what_the_program_raises_the_stream_raises() -> None:
    for program in (Two(), lambda q: 1 / 0):
        with context(lm=ScriptedLM([])), pytest.raises((RuntimeError, ZeroDivisionError)):
            list(streamify(program, async_streaming=False)(q="x"))
        with context(lm=ScriptedLM([])), pytest.raises((RuntimeError, ZeroDivisionError)):
            asyncio.run(collected(streamify(program)(q="x")))


def test_a_stream_that_nobody_reads_on_ends_the_program() -> None:
    ended = threading.Event()

    class Slow(PieceLM):
        async def _astream(self, request: LMRequest) -> AsyncGenerator[LMChunk, None]:
            try:
                while True:
                    yield LMChunk("x")
            finally:
                ended.set()

    stream = streamify(Predict(SHORT), async_streaming=False)(q="x", lm=Slow([]))
    next(stream)
    stream.close()
    assert ended.wait(10)


def test_two_steps_stream_what_was_extracted() -> None:
    second = ScriptedLM(['{"answer": "Paris", "count": 3}'], adapter=adapter_by_name("json"))
    with context(lm=PieceLM(["It is Paris, three times."]), adapter=TwoStepAdapter(second)):
        stream = streamify(Predict(SHORT), stream_listeners=[StreamListener("answer")], async_streaming=False)
        items = list(stream(q="x"))
    assert said(items, "answer") == "Paris" and second.calls == 1 and items[-1].count == 3


class Thinking(PieceLM):
    capabilities = frozenset({"reasoning"})

    async def _astream(self, request: LMRequest) -> AsyncGenerator[LMChunk, None]:
        yield LMChunk(reasoning="be")
        yield LMChunk(reasoning="cause")
        yield LMChunk("[[ ## answer ## ]]\nParis")
        yield LMChunk(response=LMResponse(("[[ ## answer ## ]]\nParis",), reasoning=("because",)))


def test_native_reasoning_streams_as_a_field() -> None:
    program = Predict(Signature("q -> why: Reasoning, answer"))
    listeners = [StreamListener("why"), StreamListener("answer")]
    items = list(streamify(program, stream_listeners=listeners, async_streaming=False)(q="x", lm=Thinking([])))
    assert said(items, "why") == "because" and said(items, "answer") == "Paris"
    assert items[-1].why == Reasoning("because") and items[-2].is_last_chunk


def test_functions_stream_and_streams_become_events() -> None:
    predict = Predict("q -> answer")

    async def program(q: str) -> Any:
        return await predict.acall(q=q)

    stream = streamify(program, stream_listeners=[StreamListener("answer", predict=predict, predict_name="p")])
    with context(lm=PieceLM(["[[ ## answer ## ]]\none"] * 2)):
        events = asyncio.run(collected(streaming_response(stream(q="x"))))
        items = list(apply_sync_streaming(stream(q="x")))
    assert said(items, "answer") == "one"
    parsed = [json.loads(e.removeprefix("data: ")) for e in events[:-1]]
    assert events[-1] == "data: [DONE]\n\n" and parsed[-1] == {"prediction": {"answer": "one"}}
    assert "".join(e["chunk"]["chunk"] for e in parsed[:-1]) == "one"


def test_a_hundred_streams_at_once_keep_apart() -> None:
    program = streamify(Predict("q -> answer"), stream_listeners=[StreamListener("answer")])
    lm = PieceLM(lambda request: f"[[ ## answer ## ]]\nabout {request.messages[-1].text[-3:]}")

    async def one(i: int) -> None:
        items = await collected(program(q=f"{i:03}", lm=lm))
        assert said(items, "answer") == f"about {i:03}"

    async def everything() -> None:
        await asyncio.gather(*(one(i) for i in range(100)))

    asyncio.run(everything())
