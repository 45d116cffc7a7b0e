"""Programs that call the `openai` client: existing code, one line more."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tracedsl import Unsupported, program, trace
from tracedsl.programs.lm.accounts import BudgetExceeded, budget


def _http() -> Any:
    """The HTTP package that the client package is built on."""
    import sys

    base = next(c for c in openai.DefaultHttpxClient.__mro__ if c.__name__ == "Client")
    return sys.modules[base.__module__.partition(".")[0]]


class Model:
    """A model behind the client's own HTTP package: answers `reply(prompt)`, or fails as told; counts what it is
    asked, and how many asked at the same time."""

    def __init__(self, name: str, reply: Callable[[str], Any] = lambda text: f"<{text}>") -> None:
        self.reply, self.asked, self.most, self._now = reply, Counter[str](), 0, 0
        self._lock = threading.Lock()
        self.client = openai.OpenAI(api_key="k", base_url=f"http://{name}.test/v1", max_retries=0, http_client=_http(
        ).Client(transport=_http().MockTransport(self.answer)))
        self.aclient = openai.AsyncOpenAI(api_key="k", base_url=f"http://{name}.test/v1", max_retries=0, http_client=(
            _http().AsyncClient(transport=_http().MockTransport(self.answer))))

    def answer(self, request: Any) -> Any:
        body = json.loads(request.content)
        text = body["messages"][-1]["content"]
        with self._lock:
            self.asked[text] += 1
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            said = self.reply(text)
        finally:
            with self._lock:
                self._now -= 1
        if isinstance(said, int):
            return _http().Response(said, json={"error": {"message": f"no {text}"}})
        choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}]
        return _http().Response(200, json={
            "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices,
            "usage": {"prompt_tokens": len(text), "completion_tokens": len(said), "total_tokens": 9}})


@pytest.fixture
def model(request: pytest.FixtureRequest) -> Model:
    return Model(f"m{abs(hash(request.node.nodeid))}")


MODEL: Model


@pytest.fixture(autouse=True)
def _model(model: Model) -> None:
    global MODEL
    MODEL = model


def ask(text: str, temperature: float = 0.0) -> str:
    response = MODEL.client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": text}], temperature=temperature)
    return response.choices[0].message.content.strip()


def together(calls: int) -> Callable[[str], str]:
    """Answers once so many calls are under way at the same time, and not before."""
    meeting = threading.Barrier(calls, timeout=20)

    def reply(text: str) -> str:
        if text.startswith("part"):
            meeting.wait()
        return f" {text}! "

    return reply


def test_calls_in_helpers_overlap_on_the_first_run() -> None:
    MODEL.reply = together(8)

    @program
    def fan_out(question: str) -> str:
        parts = [ask(f"part {i} of {question}", 1.0) for i in range(8)]
        return ask("join " + ", ".join(parts), 1.0)

    assert fan_out("q") == "join " + ", ".join(f"part {i} of q!" for i in range(8)) + "!"
    assert MODEL.most == 8


def test_methods_of_texts_and_sums_of_texts_do_not_wait() -> None:
    MODEL.reply = together(4)

    @program
    def chains() -> list[str]:
        first = [ask(f"part {i}").upper() + "?" for i in range(4)]
        MODEL.reply = together(4)
        return [ask("part " + text.replace("PART", "") + text) for text in first]

    assert chains() == [f"part  {i}!?PART {i}!?!" for i in range(4)]


class Agent:
    def __init__(self, client: Any) -> None:
        self.client, self.log = client, list[str]()

    def one(self, text: str) -> Any:
        return self.client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}],
                                                   temperature=0).choices[0].message.content

    def run(self, texts: list[str]) -> list[str]:
        found = [self.one(f"part {text}") for text in texts]
        self.log.append("asked")
        return found


def test_methods_of_objects_are_helpers() -> None:
    MODEL.reply = together(3)
    agent = Agent(MODEL.client)

    @program
    def work(texts: list[str]) -> list[str]:
        return agent.run(texts)

    assert work(["a", "b", "c"]) == [" part a! ", " part b! ", " part c! "] and agent.log == ["asked"]


def test_equal_and_unused_and_constant_calls_are_saved() -> None:
    @program
    def wasteful(question: str) -> str:
        ask(f"unused {question}")
        rules = ask("What are the rules?")
        return ask(f"{rules} {question}") + ask(f"{rules} {question}")

    for expected in (3, 0, 0):
        before = sum(MODEL.asked.values())
        assert wasteful("q") == "<<What are the rules?> q>" * 2
        assert sum(MODEL.asked.values()) - before == expected
    before = sum(MODEL.asked.values())
    assert wasteful("other") == "<<What are the rules?> other>" * 2
    assert sum(MODEL.asked.values()) - before == 1      # folded, dropped, shared
    assert "fold" in wasteful.show("plan"), wasteful.show("graph") + wasteful.show("plan")


def test_the_first_error_in_program_order_is_raised_and_the_rest_is_asked_once() -> None:
    slow = threading.Event()

    def reply(text: str) -> Any:
        if text == "one":
            slow.wait(20)
            return 400
        slow.set()
        return 401

    MODEL.reply = reply

    @program
    def two() -> Any:
        a, b = ask("one"), ask("two")
        return b, a, 1 / 0

    with pytest.raises(openai.BadRequestError, match="no one"):
        two()
    assert MODEL.asked == {"one": 1, "two": 1}


def test_errors_are_caught_where_the_plain_program_catches_them() -> None:
    MODEL.reply = lambda text: 400 if "bad" in text else text

    @program
    def careful(texts: list[str]) -> list[Any]:
        found: list[Any] = []
        for text in texts:
            try:
                found.append(ask(text))
            except openai.BadRequestError as error:
                found.append(error.status_code)
        return found

    assert careful(["a", "bad", "c"]) == ["a", 400, "c"]


def test_a_budget_that_ends_half_way_leaves_paid_answers_for_the_next_time() -> None:
    @program
    def six() -> list[str]:
        return [ask(f"question {i}") for i in range(6)]

    with budget(calls=3), pytest.raises(BudgetExceeded):
        six()
    assert sum(MODEL.asked.values()) == 3
    assert six() == [f"<question {i}>" for i in range(6)] and set(MODEL.asked.values()) == {1}


def test_a_patched_client_is_unknown_code_that_runs_in_order() -> None:
    log: list[str] = []

    def patched(**kwargs: Any) -> Any:
        log.append(kwargs["messages"][0]["content"])
        return openai.types.chat.ChatCompletion.model_validate({
            "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": log[-1]}}]})

    MODEL.client.chat.completions.create = patched      # type: ignore[method-assign]

    @program
    def three() -> list[str]:
        return [ask(text) for text in "abc"]

    assert three() == ["a", "b", "c"] and log == ["a", "b", "c"] and not MODEL.asked


def test_wrong_arguments_raise_what_the_client_raises() -> None:
    @program
    def wrong() -> Any:
        return MODEL.client.chat.completions.create(messages=[])    # type: ignore[call-overload]

    with pytest.raises(TypeError) as plain:
        wrong.__wrapped__()
    with pytest.raises(TypeError) as ours:
        wrong()
    assert str(ours.value) == str(plain.value)


def test_code_without_source_runs_as_it_is_and_is_traced() -> None:
    space = {"client": MODEL.client}
    exec("def bare():\n return client.chat.completions.create(model='m', temperature=0, "     # noqa: S102
         "messages=[{'role': 'user', 'content': 'x'}]).choices[0].message.content", space)
    with pytest.warns(UserWarning, match="P101|C001"):
        assert program(space["bare"])() == "<x>" == program(space["bare"])()    # type: ignore[operator]
    assert MODEL.asked == {"x": 1}
    with pytest.raises(Unsupported):
        program(strict=True)(space["bare"])     # type: ignore[arg-type]


def test_an_async_program_runs_as_it_is_and_nothing_is_paid_twice() -> None:
    @program
    async def together_() -> list[Any]:
        asked = [MODEL.aclient.chat.completions.create(
            model="m", temperature=0, messages=[{"role": "user", "content": "same"}]) for _ in range(4)]
        return [r.choices[0].message.content for r in await asyncio.gather(*asked)]

    assert asyncio.run(together_()) == ["<same>"] * 4 and MODEL.asked == {"same": 1}


def test_streams_and_conversations() -> None:
    @program
    def talk(question: str) -> list[str]:
        messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
        for _ in range(3):
            response = MODEL.client.chat.completions.create(model="m", messages=messages, temperature=0)
            messages.append({"role": "assistant", "content": response.choices[0].message.content})
            messages.append({"role": "user", "content": f"and {len(messages)}?"})
        return [m["content"] for m in messages]

    assert talk("q") == talk.__wrapped__("q")


def test_ctrl_c_ends_the_program_and_keeps_what_was_answered() -> None:
    def reply(text: str) -> str:
        if text == "stop":
            raise KeyboardInterrupt
        return text

    MODEL.reply = reply

    @program
    def stopped() -> Any:
        done = ask("done")
        if done:
            return ask("stop")
        return None

    with pytest.raises(KeyboardInterrupt):
        stopped()
    MODEL.reply = lambda text: text
    assert stopped() == "stop" and MODEL.asked == {"done": 1, "stop": 2}


def test_calls_of_code_that_is_not_captured_are_traced_and_counted() -> None:
    def opaque(**more: str) -> str:
        return ask(more["text"])

    @program
    def outer() -> str:
        return opaque(text="x") + opaque(text="x")

    with trace() as t:
        assert outer() == "<x><x>"
    assert [c.cached for c in t.calls] == [False, True] and "calls models by itself" in outer.explain()


def test_a_value_taken_late_is_as_it_was() -> None:
    """What was made of an answer that nobody needed so far is made before anybody can change the answer."""
    MODEL.reply = lambda text: "a b"

    @program
    def late(flag: bool, log: list[str]) -> Any:
        words = ask("words").split()
        shown = f"{words}"
        log.append("x")
        if flag:
            words.append("more")
            return shown
        return None

    assert late(False, []) is None and late(False, []) is None
    time.sleep(0)
    assert late(True, []) == "['a', 'b']"


def test_a_wrong_guess_that_calls_are_equal_costs_no_wait() -> None:
    """Shared on one input, different on the next: then both are under way together."""
    @program
    def two(first: str, second: str) -> list[str]:
        return [ask(f"part {first}"), ask(f"part {second}")]

    with trace(cache=False):
        two("same", "same")
        assert two("same", "same") == ["<part same>"] * 2 and MODEL.asked["part same"] == 3
        MODEL.reply = together(2)
        assert two("a", "b") == ["part a!", "part b!"]


def test_the_cost_of_each_call_site_is_shown() -> None:
    @program
    def three(question: str) -> str:
        return ask(question) + ask("end") + MODEL.client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "own"}], temperature=1).choices[0].message.content

    three("question")
    lines = three.show("sites").splitlines()
    assert len(lines) == 2 and "2 call sites of models" in three.explain()
    assert "/2:chat.completions.create: 1 asked; 3 + 5 tokens" in lines[0]
    assert ">ask/0:chat.completions.create: 2 asked; 11 + 15 tokens" in lines[1]
