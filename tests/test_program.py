"""The decorator: overlap, fallback, recording, reports, options."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tracedsl import TracedslError, Unsupported, program, pure
from tracedsl.diagnostics import TracedslWarning
from tracedsl.programs import JSONAdapter, LMRequest, Module, OracleLM, Predict, ScriptedLM, context


def load_module(path: Path) -> Any:
    """A module of its own for what stands in golden files, so that its lines stay where they are."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scripted(reply: Callable[[LMRequest], Any]) -> ScriptedLM:
    """A model whose answers are JSON objects."""
    return ScriptedLM(lambda request: json.dumps(reply(request)), adapter=JSONAdapter())


rag_program = load_module(Path(__file__).parent / "capture" / "rag_program.py")
rag = program(rag_program.rag)


def test_independent_calls_are_under_way_together() -> None:
    meeting = threading.Barrier(4, timeout=20)

    def reply(request: LMRequest) -> Any:
        if "last" not in request.messages[-1].content:
            meeting.wait()      # passes only when four calls are here at the same time
        return {"answer": "x"}

    @program
    def fan_out(question: str) -> list[str]:
        parts = [Predict("question -> answer")(question=f"{question} {i}") for i in range(3)]
        other = Predict("question -> answer")(question=question).answer
        text = f"last {other} {parts[0].answer}"
        return [*(p.answer for p in parts), Predict("question -> answer")(question=text).answer]

    lm = scripted(reply)
    with context(lm=lm):
        assert fan_out("q") == ["x"] * 4
    assert lm.calls == 5


def test_dependent_call_gets_the_answer_of_the_other() -> None:
    @program
    def chain(question: str) -> str:
        first = Predict("question -> answer")(question=question)
        return Predict("text -> summary")(text=f"<{first.answer:>5}>").summary

    lm = scripted(lambda r: {"answer": "abc"} if "Question" in r.messages[-1].content else
                  {"summary": str("<  abc>" in r.messages[-1].content)})
    with context(lm=lm):
        assert chain("q") == "True"


def test_result_holds_no_handles() -> None:
    @program
    def everything(question: str) -> Any:
        p = Predict("question -> answer, n: int")(question=question)
        return p, (p.answer, [p.n]), {"k": {"v": p.answer}}

    with context(lm=OracleLM(3)):
        whole, (answer, numbers), table = everything("q")
    assert type(whole).__name__ == "Prediction"
    assert [type(answer), type(numbers[0]), type(table["k"]["v"])] == [str, int, str]


def test_first_error_in_program_order_is_raised() -> None:
    slow = threading.Event()

    def reply(request: LMRequest) -> Any:
        text = request.messages[-1].content
        if "one" in text:
            slow.wait(20)       # fails last
            raise ValueError("one")
        slow.set()
        raise KeyError("two")

    @program
    def two(question: str) -> Any:
        a = Predict("question -> answer")(question="one")
        b = Predict("question -> answer")(question="two")
        return b, a, 1 / 0

    with context(lm=ScriptedLM(reply, adapter=JSONAdapter())), pytest.raises(ValueError, match="one"):
        two("q")


def test_plan_saves_calls_on_the_second_run_and_not_on_another_path() -> None:
    lm = OracleLM(1)
    with context(lm=lm):
        expected = rag.__wrapped__("hello")
        made = [lm.calls]
        for question in ("hello", "hello", "other"):
            result = rag(question)
            made.append(lm.calls)
            assert result == (expected if question == "hello" else rag.__wrapped__("other"))
            made[-1] = made[-1] - made[-2]
            made[-1], lm.calls = made[-1], 0
            made.append(0)
    assert [n for n in made if n] == [5, 5, 2, 2]


def test_golden_graph_and_plan(golden: Callable[[str, str], None]) -> None:
    fresh = program(rag.__wrapped__)
    with context(lm=OracleLM(1)):
        fresh("what is water")
    golden("language/rag_graph.txt", fresh.show("graph"))
    golden("language/rag_plan.txt", fresh.show("plan"))


def test_golden_explain(golden: Callable[[str, str], None]) -> None:
    fresh = program(rag.__wrapped__)
    with context(lm=OracleLM(1)):
        fresh("what is water")
        fresh("what is water")
    golden("language/rag_explain.txt", fresh.explain())
    assert "facts" in fresh.show("prompts") and "call(0, search" in fresh.show("source")
    with pytest.raises(TracedslError, match="did you mean 'graph'"):
        fresh.show("grahp")


def test_switched_off_pass_does_nothing() -> None:
    lm = OracleLM(1)
    fresh = program(disable=["drop-dead", "share-common", "fold-constants"])(rag.__wrapped__)
    with context(lm=lm):
        fresh("q")
        fresh("q")
    assert lm.calls == 10
    with pytest.raises(TracedslError, match="drop-dead"):
        program(disable=["drop-daed"])(rag.__wrapped__)


def test_folded_answer_is_asked_again_for_another_model() -> None:
    fresh = program(rag.__wrapped__)
    for seed in (1, 2):
        with context(lm=OracleLM(seed)):
            assert fresh("q") == rag.__wrapped__("q")
            assert fresh("q") == rag.__wrapped__("q")


def test_saved_program_does_not_carry_answers_to_another_model(tmp_path: Any) -> None:
    first = program(rag.__wrapped__)
    with context(lm=OracleLM(1)):
        first("q")
        first.save(tmp_path / "rag.json")
        first.load(tmp_path / "rag.json")
        assert first("q") == rag.__wrapped__("q")
    with context(lm=OracleLM(2)):
        assert first("q") == rag.__wrapped__("q")


def test_sampled_calls_are_never_shared_or_folded() -> None:
    @program
    def sampled(question: str) -> list[str]:
        draw = Predict("question -> answer", temperature=1.0)
        return [draw(question="constant").answer for _ in range(3)]

    lm = OracleLM(1)
    with context(lm=lm):
        for _ in range(3):
            sampled("q")
    assert lm.calls == 9


async def _async_program(question: str) -> str:
    return question


def _generator_program(question: str) -> Any:
    yield Predict("question -> answer")(question=question).answer


def _locals_program(question: str) -> Any:
    answer = Predict("question -> answer")(question=question).answer
    return sorted(locals()), answer


@pytest.mark.parametrize("function", [_generator_program, _locals_program], ids=lambda f: f.__name__)
def test_what_is_not_captured_runs_as_plain_python(function: Callable[..., Any]) -> None:
    with context(lm=OracleLM(1)):
        decorated = program(function)
        with pytest.warns(TracedslWarning, match="P102"):
            result = decorated("q")
        expected = function("q")
        assert (list(result) == list(expected)) if function is _generator_program else result == expected
    assert "runs as plain Python" in decorated.explain()
    with pytest.raises(Unsupported, match="P102") as caught:
        program(strict=True)(function)
    assert "^" in str(caught.value) and "test_program.py" in str(caught.value)


def test_async_function_stays_a_coroutine() -> None:
    import asyncio

    with context(lm=OracleLM(1)), pytest.warns(TracedslWarning):
        assert asyncio.run(program(_async_program)("q")) == "q"


def test_function_without_source() -> None:
    from types import CodeType, FunctionType

    code = next(c for c in compile("def made(question):\n    return question * 2", "<nowhere>", "exec").co_consts
                if isinstance(c, CodeType))
    with context(lm=OracleLM(1)), pytest.warns(TracedslWarning, match="C001"):
        decorated = program(FunctionType(code, {}))
        assert decorated("ab") == "abab"
    assert "C001" in decorated.show("source")


def test_wrong_arguments_are_pythons_error() -> None:
    with context(lm=OracleLM(1)), pytest.raises(TypeError, match=r"missing 1 required positional argument: 'question'"):
        rag()


def test_method_and_recursion() -> None:
    class Agent:
        name = "agent"

        @program
        def ask(self, question: str, depth: int = 2) -> list[str]:
            found = Predict("question -> answer")(question=f"{self.name} {question}")
            return [found.answer, *(self.ask(found.answer, depth - 1) if depth else [])]

    with context(lm=OracleLM(1)):
        assert Agent().ask("q") == Agent.ask.__wrapped__(Agent(), "q")


def test_learned_state_belongs_to_the_site() -> None:
    @program
    def two_sites(question: str) -> Any:
        return [Predict("question -> answer")(question=question).answer,
                Predict(f"question, k{len(question)} -> answer")(question=question, **{f"k{len(question)}": 1}).answer]

    with context(lm=OracleLM(1)):
        two_sites("a")
        two_sites("bb")
        names = [name for name, _ in two_sites.named_predictors()]
        assert len(names) == 3 and names[0] == f"{_prefix(two_sites)}/0:Predict/predict"
        assert names[1].startswith(names[0].replace("/0:", "/2:")[:-8]) and len({*names}) == 3
        before = two_sites("a")
        predictor = two_sites.named_predictors()[0][1]
        predictor.signature = predictor.signature.with_instructions("Answer in one word.")
        after = two_sites("a")
        assert after[0] != before[0] and after[1] == before[1]
        assert two_sites.uncompiled("a") == before
        assert two_sites.reset_copy().named_predictors()[0][1].demos == []


def _prefix(made: Any) -> str:
    return made.__qualname__.replace("<locals>.", "")


def test_saved_program_is_taken_up_before_its_sites_are_met(tmp_path: Any) -> None:
    with context(lm=OracleLM(1)):
        first = program(rag.__wrapped__)
        first("q")
        for _, predictor in first.named_predictors():
            predictor.signature = predictor.signature.with_instructions("Be brief.")
        first.save(tmp_path / "rag.json")
        second = program(rag.__wrapped__)
        second.load(tmp_path / "rag.json")
        assert second("q") == first("q")
        messages = second.export_messages(question="q")
    assert "Be brief." in json.dumps(messages) and messages[0]["site"].startswith("rag/")
    (tmp_path / "bad.json").write_text('{"format": "tracedsl-program", "version": 1, "state": {"x": 1}}')
    with pytest.raises(TracedslError, match="P007"):
        second.load(tmp_path / "bad.json")


def test_helper_that_cannot_be_captured_and_calls_models_is_named() -> None:
    def inner(question: str, **more: str) -> str:
        return Predict("question -> answer")(question=question).answer

    @program
    def outer(question: str) -> str:
        return inner(question)

    with context(lm=OracleLM(1)):
        outer("q")
    assert "inner calls models by itself" in outer.explain()


def test_pure_module_class_may_overlap() -> None:
    meeting = threading.Barrier(2, timeout=20)

    @pure
    class Waiting(Module):
        def forward(self, question: str) -> str:
            meeting.wait()
            return question + "!"

    waiting = Waiting()

    @program
    def both(question: str) -> list[str]:
        return [waiting(question="a"), waiting(question="b")]

    with context(lm=OracleLM(1)):
        assert both("q") == ["a!", "b!"]


def test_ctrl_c_ends_the_run() -> None:
    def reply(request: LMRequest) -> Any:
        raise KeyboardInterrupt

    @program
    def interrupted(question: str) -> str:
        return Predict("question -> answer")(question=question).answer

    with context(lm=ScriptedLM(reply, adapter=JSONAdapter())), pytest.raises(KeyboardInterrupt):
        interrupted("q")


def test_many_threads_use_one_program() -> None:
    fresh = program(rag.__wrapped__)
    lm = OracleLM(4)

    def one(i: int) -> bool:
        with context(lm=lm):
            return bool(fresh(f"q {i % 5}") == rag.__wrapped__(f"q {i % 5}"))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(40)))
    with context(lm=lm):
        assert "40 run(s)" in fresh.explain() and len(fresh.named_predictors()) == 5


def test_import_is_light() -> None:
    code = "import sys, tracedsl; from tracedsl import program; " \
           "print([m for m in ('numpy', 'openai', 'llvmlite', 'rich', 'pydantic', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_option() -> None:
    with pytest.raises(TracedslError, match="did you mean 'trainset'"):
        program(trainest=[])
