"""ReAct, CodeAct, ProgramOfThought and RLM: steps, tools, generated code, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tracedsl import program
from tracedsl.programs import (
    RLM,
    AdapterParseError,
    BootstrapFewShot,
    CodeAct,
    Example,
    LMError,
    LMRequest,
    LMResponse,
    Module,
    PlainAdapter,
    Predict,
    ProgramOfThought,
    ReAct,
    ScriptedLM,
    configure,
    trace_calls,
)
from tracedsl.programs.lm.base import ToolCall
from tracedsl.programs.modules.agents import ModuleError

needs_sandbox = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox's walls are Linux's")
PLAIN = PlainAdapter()


def scripted(*answers: Any) -> ScriptedLM:
    lm = ScriptedLM(answers, adapter=PLAIN)
    configure(lm=lm)
    return lm


def asked(lm: ScriptedLM, i: int = -1) -> str:
    return lm.requests[i].messages[-1].text


def step(tool: str, **args: Any) -> str:
    return f"Next Thought: look\nNext Tool Name: {tool}\nNext Tool Args: {json.dumps(args)}"


def capital(country: str) -> str:
    """The capital of a country."""
    return {"France": "Paris"}[country]


DONE = "Reasoning: seen\nAnswer: Paris"
RUN = [step("capital", country="France"), step("finish"), DONE]


def in_function(module: Module) -> Callable[..., Any]:
    """The module called inside `@program`."""
    @program
    def run(question: str) -> Any:
        return module(question=question)

    return run


WAYS: list[Callable[[Module], Callable[..., Any]]] = [
    lambda module: module, lambda module: lambda **inputs: asyncio.run(module.acall(**inputs)), in_function]


# -- ReAct -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=["sync", "async", "program"])
def test_react_calls_tools_until_it_can_answer(way: Any) -> None:
    lm = scripted(*RUN)
    made = way(ReAct("question -> answer", tools=[capital]))(question="Capital of France?")
    assert made.answer == "Paris" and made.reasoning == "seen"
    assert made.trajectory == {
        "thought_0": "look", "tool_name_0": "capital", "tool_args_0": {"country": "France"}, "observation_0": "Paris",
        "thought_1": "look", "tool_name_1": "finish", "tool_args_1": {}, "observation_1": "Completed."}
    assert "Observation 1: Paris" in asked(lm, 1) and "The capital of a country." in lm.requests[0].messages[0].text


def test_react_inside_program_learns_there(tmp_path: Path) -> None:
    train, hard = ([Example(question=f"Capital of {c}?", answer="Paris").with_inputs("question") for c in cs]
                   for cs in ("abcdef", "xyz"))

    def answer(request: LMRequest) -> str:
        text = request.messages[-1].text
        if "Tool name 2" not in text:
            return step("finish") if "Observation 1" in text else step("capital", country="France")
        easy = any(f"Capital of {c}?" in text for c in "abcdef")
        return DONE if easy or len(request.messages) > 2 else "Reasoning: r\nAnswer: x"

    @program(trainset=train, valset=hard, metric=lambda example, got: got == example.answer, store=tmp_path,
             teleprompter=BootstrapFewShot(max_labeled_demos=0))
    def run(question: str) -> str:
        made: str = ReAct("question -> answer", tools=[capital])(question=question).answer
        return made

    configure(lm=ScriptedLM(answer, adapter=PLAIN))
    assert run("Capital of z?") == "Paris"
    assert [(name.split("/")[-1], len(p.demos)) for name, p in run.named_predictors()] == [
        ("react", 4), ("extract.predict", 4)]


def test_a_tool_that_raises_is_an_observation() -> None:
    lm = scripted(step("capital", country="Atlantis"), step("capital", land="France"), step("nothing"),
                  "Next Thought: x\nNext Tool Name: capital\nNext Tool Args: {}", step("finish"), DONE)
    made = ReAct("question -> answer", tools=[capital])(question="?")
    seen = [made.trajectory[f"observation_{i}"] for i in range(3)]
    assert "KeyError: 'Atlantis'" in seen[0] and "no argument 'land'" in seen[1]
    assert lm.calls == 6


def test_max_iters_bounds_the_steps() -> None:
    lm = scripted(*[step("capital", country="France")] * 2, DONE)
    assert ReAct("question -> answer", tools=[capital], max_iters=2)(question="?").answer == "Paris" and lm.calls == 3
    lm = scripted(step("capital", country="France"), DONE)
    ReAct("question -> answer", tools=[capital])(question="?", max_iters=1)
    assert lm.calls == 2
    lm = scripted(DONE)
    assert ReAct("question -> answer", tools=[capital])(question="?", max_iters=0).trajectory == {}


def test_the_first_error_stays_visible() -> None:
    scripted("junk", "junk again", "more junk", "and more")
    with pytest.raises(AdapterParseError) as caught:
        ReAct("question -> answer: int", tools=[capital])(question="?")
    assert "before that: AdapterParseError" in "".join(caught.value.__notes__)
    scripted(step("capital", country="Atlantis"), step("finish"), LMError("L003", "refused"))
    with pytest.raises(LMError, match="refused") as failed:
        ReAct("question -> answer", tools=[capital])(question="?")
    assert "KeyError: 'Atlantis'" in "".join(failed.value.__notes__)


def test_an_unusable_model_is_not_asked_again() -> None:
    lm = scripted(LMError("L002", "wrong key"))
    with pytest.raises(LMError, match="wrong key"):
        ReAct("question -> answer", tools=[capital])(question="?")
    assert lm.calls == 1


def test_a_trajectory_that_does_not_fit_is_shortened_in_the_prompt_alone() -> None:
    answers = iter([step("long", n=i) for i in range(4)] + [step("finish"), DONE])

    def answer(request: LMRequest) -> Any:
        if len(request.messages[-1].text) > 1200:
            return LMError("L010", "too long")
        return next(answers)

    lm = ScriptedLM(answer, adapter=PLAIN)
    configure(lm=lm)
    made = ReAct("question -> answer", tools=[_long])(question="?")
    assert made.answer == "Paris" and made.trajectory["observation_0"] == "0" * 500
    assert "0" * 500 not in asked(lm) and "3" * 500 in asked(lm)


def _long(n: int) -> str:
    return str(n) * 500


_long.__name__ = "long"


def test_one_step_that_does_not_fit_is_cut_and_then_given_up() -> None:
    lm = ScriptedLM(lambda r: LMError("L010", "too long") if len(r.messages[-1].text) > 40 else step("long", n=1),
                    adapter=PLAIN)
    configure(lm=lm)
    with pytest.raises(LMError, match="too long"):
        ReAct("question -> answer", tools=[_long])(question="?" * 100)


def test_asynchronous_tools() -> None:
    async def capital(country: str) -> str:
        await asyncio.sleep(0)
        return "Paris"

    for way in WAYS[:2]:
        scripted(*RUN)
        assert way(ReAct("question -> answer", tools=[capital]))(question="?").trajectory["observation_0"] == "Paris"


class CallingLM(ScriptedLM):
    """A scripted model that calls tools natively: an answer that is a list is a list of calls."""

    @property
    def capabilities(self) -> frozenset[Any]:
        return frozenset({"tools"})

    def _send(self, request: LMRequest) -> LMResponse:
        made = super()._send(request)
        if not made.texts[0].startswith("["):
            return made
        calls = tuple(ToolCall(f"c{i}", c["name"], json.dumps(c["args"]))
                      for i, c in enumerate(json.loads(made.texts[0])))
        return LMResponse(("Next Thought: both",), made.usage, "tool_calls", tool_calls=(calls,))


TWO_CALLS = json.dumps([{"name": "capital", "args": {"country": c}} for c in ("France", "X")])


def test_a_model_that_calls_tools_natively_does_so() -> None:
    lm = CallingLM([TWO_CALLS, "Next Thought: enough", DONE], adapter=PLAIN)
    configure(lm=lm)
    react = ReAct("question -> answer", tools=[capital])
    with trace_calls() as steps:
        made = react(question="Capital of France?")
    assert made.answer == "Paris" and [t.name for t in lm.requests[0].tools] == ["capital", "finish"]
    assert json.loads(lm.requests[0].tools[0].parameters)["required"] == ["country"] and not lm.requests[2].tools
    assert made.trajectory["observation_0"] == "Paris" and "KeyError" in made.trajectory["observation_1"]
    assert made.trajectory["thought_0"] == "both" and made.trajectory["tool_name_2"] == "finish"
    assert [s.predictor for s in steps] == [react.react, react.react, react.extract.predict]
    assert steps[0].prediction.next_tool_args == {"country": "France"} and "available_tools" not in steps[0].inputs


def test_what_is_learned_serves_both_ways_of_calling() -> None:
    demo = Example(question="q", trajectory="(nothing yet)", next_thought="h", next_tool_name="capital",
                   next_tool_args={"country": "France"})
    react = ReAct("question -> answer", tools=[capital])
    react.react.demos = [demo]
    native, text = CallingLM(["Next Thought: enough", DONE], adapter=PLAIN), ScriptedLM(
        [step("finish"), DONE], adapter=PLAIN)
    for lm in (native, text):
        configure(lm=lm)
        assert react(question="?").answer == "Paris"
        assert [m.role for m in lm.requests[0].messages] == ["system", "user", "assistant", "user"]
        assert "Next Thought: h" in lm.requests[0].messages[2].text
    assert react.react.demos == [demo] and "Next Tool Name: capital" in text.requests[0].messages[2].text


def test_bootstrapped_demonstrations_reach_the_inner_predictors() -> None:
    scripted(*RUN)
    train = [Example(question="Capital of France?", answer="Paris").with_inputs("question")]
    made = BootstrapFewShot(max_labeled_demos=0).compile(ReAct("question -> answer", tools=[capital]), trainset=train)
    assert {n: len(p.demos) for n, p in made.named_predictors()} == {"react": 1, "extract.predict": 1}
    assert made.react.demos[0].next_tool_name in ("capital", "finish")


def test_react_saves_and_loads(tmp_path: Path) -> None:
    react = ReAct("question -> answer", tools=[capital])
    react.react.demos = [Example(question="q", trajectory="t", next_thought="h", next_tool_name="finish",
                                 next_tool_args={})]
    react.save(tmp_path / "r.json")
    back = ReAct("question -> answer", tools=[capital]).load(tmp_path / "r.json")
    assert back.react.demos == react.react.demos
    copy = react.deepcopy()
    assert copy.react is not react.react and copy.tools["capital"] is react.tools["capital"]
    lm = scripted(step("finish"), DONE)
    back(question="?")
    assert [m.role for m in lm.requests[0].messages] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize(("signature", "tools"), [
    ("question -> trajectory", [capital]), ("next_thought -> answer", [capital]), ("q -> a", [capital, capital])])
def test_what_does_not_fit_is_said_when_it_is_built(signature: str, tools: Any) -> None:
    with pytest.raises(ValueError):
        ReAct(signature, tools=tools)


def test_batches_run_beside_each_other() -> None:
    def answer(request: LMRequest) -> str:
        text = request.messages[-1].text
        if "Tool name 2" in text:
            return DONE
        return step("finish") if "Observation 1" in text else step("capital", country="France")

    configure(lm=ScriptedLM(answer, adapter=PLAIN))
    react = ReAct("question -> answer", tools=[capital])
    assert [p.answer for p in react.batch([{"question": str(i)} for i in range(20)], num_threads=8)] == ["Paris"] * 20


# -- generated code ----------------------------------------------------------------------------------------------------


@needs_sandbox
@pytest.mark.parametrize("way", WAYS, ids=["sync", "async", "program"])
def test_program_of_thought_computes(way: Any) -> None:
    lm = scripted("Reasoning: r\nGenerated Code: ```python\nprint(len(question) * 2)\n```",
                  "Reasoning: r\nAnswer: 24")
    made = way(ProgramOfThought("question -> answer: int"))(question="twelve chars")
    assert made.answer == 24 and "Code Output: 24" in asked(lm)


@needs_sandbox
def test_program_of_thought_mends_code_that_fails() -> None:
    lm = scripted("Reasoning: r\nGenerated Code: 1/0", "Reasoning: r\nGenerated Code: x = 3",
                  "Reasoning: r\nGenerated Code: SUBMIT(answer=7)", "Reasoning: r\nAnswer: 7")
    assert ProgramOfThought("question -> answer: int")(question="?").answer == 7
    assert "ZeroDivisionError" in asked(lm, 1) and "gave nothing" in asked(lm, 2)
    assert 'Code Output: {"answer": 7}' in asked(lm)
    scripted(*["Reasoning: r\nGenerated Code: 1/0", "Reasoning: r\nGenerated Code: [][0]"])
    with pytest.raises(ModuleError, match=r"(?s)P048.*IndexError.*ZeroDivisionError"):
        ProgramOfThought("question -> answer: int", max_iters=2)(question="?")


@needs_sandbox
@pytest.mark.parametrize("way", WAYS, ids=["sync", "async", "program"])
def test_code_act_reaches_tools_of_this_process(way: Any) -> None:
    seen = []

    def look_up(key: str) -> int:
        """A number by its name."""
        seen.append(key)
        return {"a": 3, "b": 4}[key]

    lm = scripted("Generated Code: ```python\nx = look_up('a')\n```\nFinished: False",
                  "Generated Code: print(look_up('c'))\nFinished: False",
                  "Generated Code: print(x + look_up('b'))\nFinished: True", "Reasoning: r\nAnswer: 7")
    made = way(CodeAct("question -> answer: int", tools=[look_up]))(question="a + b?")
    assert made.answer == 7 and seen == ["a", "c", "b"]
    assert "KeyError: 'c'" in made.trajectory["observation_1"] and made.trajectory["code_output_2"] == "7"
    assert "A number by its name." in lm.requests[0].messages[0].text


@needs_sandbox
def test_generated_code_cannot_reach_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    target = tmp_path / "written"
    scripted(f"Generated Code: open({str(target)!r}, 'w')\nFinished: True",
             "Generated Code: import os; print(os.environ.get('OPENAI_API_KEY'))\nFinished: True",
             "Reasoning: r\nAnswer: none")
    made = CodeAct("question -> answer", tools=[])(question="?")
    assert not target.exists() and "PermissionError" in made.trajectory["observation_0"]
    assert made.trajectory["code_output_1"] == "None"


@needs_sandbox
def test_an_interpreter_of_the_callers_own_is_used_and_not_ended() -> None:
    from tracedsl.programs import PythonInterpreter

    with PythonInterpreter() as own:
        own.execute("known = 5")
        scripted("Reasoning: r\nGenerated Code: print(known)", "Reasoning: r\nAnswer: 5")
        ProgramOfThought("question -> answer: int")(own, question="?")
        assert own.execute("known") == "5\n"


TEXT = "\n".join(f"line {i}" for i in range(5000)) + "\nThe magic number is 4711.\n"


@needs_sandbox
@pytest.mark.parametrize("way", WAYS[:2], ids=["sync", "async"])
def test_rlm_finds_a_needle_without_reading_the_haystack(way: Any) -> None:
    lm = scripted("Reasoning: look\nCode: print(len(document))",
                  "Reasoning: search\nCode: ```python\nimport re\nhit = re.search('magic.*', document).group()\n"
                  "print(llm_query('Which number? ' + hit))\n```", "4711",
                  "Reasoning: sure\nCode: SUBMIT('many')", "Reasoning: sure\nCode: SUBMIT(answer=4711)")
    made = way(RLM("document, question -> answer: int"))(document=TEXT, question="Which number?")
    assert made.answer == 4711 and made.final_reasoning == "sure" and len(made.trajectory) == 4
    assert str(len(TEXT)) in asked(lm, 1) and "must be int" in asked(lm, 4)
    assert all(len(m.text) < 5000 for r in lm.requests for m in r.messages)


@needs_sandbox
def test_rlm_calls_are_limited_and_batched() -> None:
    lm = scripted("Reasoning: r\nCode: print(llm_query_batched(['a', 'b']))", "A", "B",
                  "Reasoning: r\nCode: llm_query('c')", "Answer: given up")
    made = RLM("document -> answer", max_iters=2, max_llm_calls=2)(document="x")
    assert made.answer == "given up" and "['A', 'B']" in asked(lm) and "limit of 2 model calls" in asked(lm)


@needs_sandbox
def test_rlm_explores_within_an_exploration() -> None:
    lm = scripted("Reasoning: r\nCode: SUBMIT(rlm_query('how many?', document[:10]))",
                  "Reasoning: inner\nCode: SUBMIT(str(len(context)))")
    assert RLM("document -> answer")(document=TEXT).answer == "10" and lm.calls == 2
    scripted("Reasoning: r\nCode: SUBMIT(rlm_query('how many?', 'abc'))", "three")
    assert RLM("document -> answer", max_depth=0)(document=TEXT).answer == "three"


@needs_sandbox
def test_rlm_answers_from_what_it_found_when_its_steps_are_over() -> None:
    lm = scripted("Reasoning: r\nCode: print('clue ' * 10)", "Answer: from the clue")
    made = RLM("document -> answer", max_iters=1, max_output_chars=12)(document="x")
    assert made.answer == "from the clue" and "(37 more characters)" in asked(lm)
    with pytest.raises(ModuleError, match="P047"):
        RLM("llm_query -> answer")


@needs_sandbox
def test_learned_parts_of_the_others_are_reached(tmp_path: Path) -> None:
    names = {ProgramOfThought: ["code_generate.predict", "code_regenerate.predict", "generate_output.predict"],
             CodeAct: ["codeact", "extractor.predict"], RLM: ["generate_action", "extract"]}
    for kind, expected in names.items():
        more: dict[str, Any] = {"tools": [capital]} if kind is not ProgramOfThought else {}
        module: Module = kind("question -> answer", **more)
        assert [n for n, _ in module.named_predictors()] == expected
        module.predictors()[0].demos = [Example(question="x")]
        module.save(tmp_path / "m.json")
        again: Module = kind("question -> answer", **more)
        assert again.load(tmp_path / "m.json").dump_state() == module.dump_state()
        assert module.deepcopy().dump_state() == module.dump_state()


@needs_sandbox
def test_traces_and_demonstrations_of_code() -> None:
    scripted("Reasoning: r\nGenerated Code: print(4)", "Reasoning: r\nAnswer: 4")
    pot = ProgramOfThought("question -> answer: int")
    with trace_calls() as steps:
        pot(question="?")
    assert [s.predictor for s in steps] == [pot.code_generate.predict, pot.generate_output.predict]
    assert isinstance(pot.code_generate.predict, Predict)
