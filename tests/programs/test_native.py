"""What endpoints do by themselves: tools, reasoning, schemas; media and conversations in prompts; two steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from tracedsl.programs import (
    AdapterParseError,
    BAMLAdapter,
    ChatAdapter,
    Example,
    History,
    Image,
    InputField,
    JSONAdapter,
    LMError,
    LMRequest,
    LMResponse,
    OutputField,
    PlainAdapter,
    Predict,
    Reasoning,
    ScriptedLM,
    Signature,
    TwoStepAdapter,
    Type,
    context,
)
from tracedsl.programs.adapters import NAMES, adapter_by_name
from tracedsl.programs.adapters.baml import notation
from tracedsl.programs.lm.base import Capability, Constraint, MediaPart, TextPart, ToolCall
from tracedsl.programs.tools.calls import ToolCalls
from tracedsl.programs.tools.tool import Tool


class NativeLM(ScriptedLM):
    """Answers with whole responses, and can do what it is told that it can."""

    def __init__(self, responses: list[LMResponse], *capabilities: Capability, **settings: Any) -> None:
        super().__init__([], **settings)
        self.responses, self._can = list(responses), frozenset(capabilities)

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._can

    @property
    def constraints(self) -> frozenset[Constraint]:
        return frozenset({"json_schema"})

    def _send(self, request: LMRequest) -> LMResponse:
        self.calls += 1
        self.requests.append(request)
        return self.responses.pop(0)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


AGENT = Signature("question, tools: list[Tool] -> calls: ToolCalls, remark: str")
CALL = ToolCall("c1", "add", '{"a": 1, "b": 2}')


def test_tools_are_called_natively_where_the_endpoint_can() -> None:
    lm = NativeLM([LMResponse(("",), tool_calls=((CALL,),)), LMResponse(('{"remark": "none needed"}',))], "tools",
                  adapter=JSONAdapter())
    predict = Predict(AGENT)
    called = predict(question="1 + 2?", tools=[Tool(add)], lm=lm)
    assert called.calls.tool_calls[0].name == "add" and called.calls.tool_calls[0].args == {"a": 1, "b": 2}
    assert called.remark is None
    said = predict(question="hello", tools=[Tool(add)], lm=lm)
    assert said.remark == "none needed" and len(said.calls) == 0
    request = lm.requests[0]
    assert [t.name for t in request.tools] == ["add"] and request.response_format is None
    assert "add" not in "".join(m.text for m in request.messages)


def test_tools_are_text_where_it_cannot() -> None:
    text = '{"calls": {"tool_calls": [{"name": "add", "args": {"a": 1, "b": 2}}]}, "remark": "so"}'
    lm = NativeLM([LMResponse((text,))], adapter=JSONAdapter())
    called = Predict(AGENT)(question="1 + 2?", tools=[Tool(add)], lm=lm)
    assert called.calls.execute([Tool(add)]).tool_call_results[0].value == 3
    assert lm.requests[0].tools == () and "add" in lm.requests[0].messages[-1].text


def test_broken_arguments_of_a_call_are_asked_for_again_once() -> None:
    broken = LMResponse(("",), tool_calls=((ToolCall("c", "add", '{"a": 1, "b"'),),))
    lm = NativeLM([broken, LMResponse(("",), tool_calls=((CALL,),))], "tools")
    assert len(Predict(AGENT)(question="x", tools=[Tool(add)], lm=lm).calls) == 1 and lm.calls == 2
    lm = NativeLM([LMResponse(("",))] * 2, "tools")
    with pytest.raises(AdapterParseError):
        Predict("question, tools: list[Tool] -> calls: ToolCalls")(question="x", tools=[Tool(add)], lm=lm)


def test_reasoning_comes_from_the_endpoint_or_the_text() -> None:
    signature = Signature("q -> why: Reasoning, answer")
    lm = NativeLM([LMResponse(('{"answer": "4"}',), reasoning=("2 + 2",))], "reasoning", adapter=JSONAdapter())
    made = Predict(signature)(q="x", lm=lm)
    assert made.why == Reasoning("2 + 2") and made.answer == "4" and "why" not in lm.requests[0].messages[0].text
    lm = NativeLM([LMResponse(("<think>2 + 2</think>Answer: 4",)), LMResponse(("Why: so\nAnswer: 4",))],
                  adapter=PlainAdapter())
    assert Predict(signature)(q="x", lm=lm).why == "2 + 2" and Predict(signature)(q="x", lm=lm).why == "so"


@pytest.mark.parametrize("name", NAMES)
def test_media_are_parts_of_the_message(name: str) -> None:
    one, two = Image("https://x.org/1.png"), Image("https://x.org/2.png")
    adapter = adapter_by_name(name)
    made = Signature("image: Image, more: list[Image], untyped, nested: dict[str, Image], q -> answer")
    inputs = {"image": one, "more": [one, two], "untyped": two, "nested": {"a": one}, "q": "what?"}
    content = adapter.format(made, [], made.check_inputs(inputs))[-1].content
    assert not isinstance(content, str)
    assert [p.url[-5] for p in content if isinstance(p, MediaPart)] == ["1", "1", "2", "2", "1"]
    text = "".join(p.text for p in content if isinstance(p, TextPart))
    assert "[1] " in text and "[2] " in text and '{"a": "(image 1)"}' in text and "what?" in text
    demos = [{**inputs, "image": {"url": one.url}, "answer": "yes"}]  # as it comes back from a saved program
    demo = adapter.format(made, demos, inputs)[1].content
    assert [p for p in demo if isinstance(p, MediaPart)] == [p for p in content if isinstance(p, MediaPart)]


@pytest.mark.parametrize("name", NAMES)
def test_a_conversation_becomes_turns(name: str) -> None:
    made = Signature("question, history: History -> answer")
    past = History(messages=[{"question": "Capital of France?", "answer": "Paris"},
                             {"question": "Of Italy?", "answer": "Rome"}])
    adapter = adapter_by_name(name)
    demos = [{"question": "d", "answer": "e"}]
    messages = adapter.format(made, demos, {"question": "Are you sure?", "history": past})
    assert [m.role for m in messages] == ["system", *["user", "assistant"] * 3, "user"]
    assert "Paris" in messages[4].text and "Are you sure?" in messages[-1].text
    assert "history" not in "".join(m.text for m in messages).casefold()
    assert adapter.parse(made, messages[4].text) == {"answer": "Paris"}


class Point(Type):
    x: int
    y: int

    def format(self) -> str:
        return f"{self.x}/{self.y}"

    @classmethod
    def parse(cls, text: str) -> Point:
        x, y = text.strip().split("/")
        return cls(x=int(x), y=int(y))

    @classmethod
    def description(cls) -> str:
        return "x/y"


def test_a_type_of_ones_own_writes_and_reads_itself() -> None:
    lm = ScriptedLM(["To: 3/4"], adapter=PlainAdapter())
    predict = Predict({"at": (Point, InputField()), "to": (Point, OutputField())})
    predict.demos = [Example({"at": Point(x=0, y=0), "to": Point(x=9, y=9)})]
    assert predict(at={"x": 1, "y": 2}, lm=lm).to == Point(x=3, y=4)
    texts = [m.text for m in lm.requests[0].messages]
    assert "x/y" in texts[0] and texts[1:] == ["At: 0/0", "To: 9/9", "At: 1/2"]


def test_limits_and_defaults_of_outputs() -> None:
    made = Signature({"q": (str, InputField()), "score": (float, OutputField(ge=0, le=1)),
                      "note": (str, OutputField(default="none"))})
    adapter = PlainAdapter()
    assert "at least 0, at most 1" in adapter.format(made, [], {"q": "x"})[0].text
    assert adapter.parse(made, "Score: 0.5") == {"score": 0.5, "note": "none"}
    with pytest.raises(AdapterParseError, match="less than or equal to 1"):
        adapter.parse(made, "Score: 5")
    with pytest.raises(AdapterParseError, match="less than or equal to 1"):
        JSONAdapter().parse(made, '{"score": 5}')


# -- two steps, other paths --------------------------------------------------------------------------------------------

TWO = Signature("q -> city: str, count: int")


def test_two_steps_extract_with_another_model() -> None:
    first, second = ScriptedLM(["It is Köln, thrice."]), ScriptedLM(["City: Köln\nCount: 3"], adapter=PlainAdapter())
    adapter = TwoStepAdapter(second)
    with context(lm=first, adapter=adapter):
        made = Predict(TWO)(q="x")
    assert (made.city, made.count) == ("Köln", 3) and "It is Köln, thrice." in second.requests[0].messages[-1].text
    assert "Count (an integer)" in first.requests[0].messages[0].text and "two_step" in adapter.name


def test_an_extraction_that_fails_costs_no_second_answer() -> None:
    first, second = ScriptedLM(["hm"]), ScriptedLM(["what?", "what?"])
    with context(lm=first, adapter=TwoStepAdapter(second)), pytest.raises(AdapterParseError, match="extraction"):
        Predict(TWO)(q="x")
    assert (first.calls, second.calls) == (1, 2)


@pytest.mark.parametrize("name", NAMES)
def test_a_programming_error_costs_no_second_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only an answer that cannot be read is asked for again; a fault of the code is raised as it is."""
    adapter = adapter_by_name(name)
    lm = ScriptedLM(["whatever"] * 9, adapter=adapter)

    def broken(*_: Any) -> Any:
        raise KeyError("a fault in the adapter")

    monkeypatch.setattr(type(adapter), "find", broken)
    with pytest.raises(KeyError):
        Predict(TWO)(q="x", lm=lm)
    assert lm.calls == 1


@pytest.mark.parametrize("name", NAMES)
def test_an_unreadable_answer_costs_one_more_call_at_most(name: str) -> None:
    lm = ScriptedLM(["whatever, no layout"] * 9, adapter=adapter_by_name(name))
    with pytest.raises(AdapterParseError):
        Predict(TWO)(q="x", lm=lm)
    assert lm.calls == 2


def test_a_number_that_was_cut_off_is_no_number() -> None:
    lm = NativeLM([LMResponse(("City: Köln\nCount: 12",), finish_reason="length"),
                   LMResponse(("City: Köln\nCount: 1234\n\nThe",), finish_reason="length")], adapter=PlainAdapter())
    assert Predict(TWO, max_tokens=8)(q="x", lm=lm).count == 1234
    assert [r.max_tokens for r in lm.requests] == [8, 16]


def test_the_schema_goes_to_endpoints_that_keep_to_one() -> None:
    lm = NativeLM([LMResponse(('{"city": "Köln", "count": 3}',))] * 2)
    for adapter in (JSONAdapter(), BAMLAdapter()):
        Predict(TWO)(q="x", lm=lm, adapter=adapter)
    assert all(r.response_format is not None and r.response_format.kind == "json_schema" for r in lm.requests)
    lm = NativeLM([LMResponse(("[[ ## city ## ]]\nKöln\n[[ ## count ## ]]\n3",))])
    Predict(TWO)(q="x", lm=lm, adapter=ChatAdapter())
    assert lm.requests[0].response_format is None


class Pet(TypedDict):
    name: str
    age: int


@dataclasses.dataclass
class Owner:
    name: str
    pets: list[Pet]


class Household(BaseModel):
    owners: list[Owner]
    parent: Household | None = None


@pytest.mark.parametrize("name", NAMES)
def test_records_of_every_kind_read_back(name: str) -> None:
    made = Signature("q -> pet: Pet, owner: Owner, house: Household")
    truth = {"pet": {"name": "Rex", "age": 3}, "owner": Owner("Bo", [{"name": "Rex", "age": 3}]),
             "house": Household(owners=[Owner("Bo", [])])}
    adapter = adapter_by_name(name)
    assert adapter.parse(made, adapter.format(made, [{"q": "x", **truth}], {"q": "y"})[-2].text) == truth


def test_notation_is_compact(golden: Callable[[str, str], None]) -> None:
    kinds: list[Any] = [Household, Owner, Pet, list[Pet] | None, dict[str, list[int | str]], tuple[int, ...],
                        tuple[int, str]]
    golden("prompts/notation.txt", "\n\n".join(map(notation, kinds)))


def test_a_model_that_is_out_of_answers_says_so() -> None:
    with pytest.raises(LMError, match="no answer left"):
        Predict(TWO)(q="x", lm=ScriptedLM([]))


def test_calls_are_read_from_text() -> None:
    assert ToolCalls.parse('[{"name": "add", "args": {"a": 1}}]').tool_calls[0].args == {"a": 1}
