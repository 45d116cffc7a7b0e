"""An endpoint that misbehaves in every way: nothing lost, nothing paid twice, no budget exceeded."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tracedsl.programs import LM, Limits, LMError, RecordingLM, budget
from tracedsl.programs.driving import as_done, drive
from tracedsl.programs.lm.accounts import BudgetExceeded
from tracedsl.programs.lm.base import LMRequest, LMTransientError, Message, ToolSpec
from tracedsl.programs.lm.openai_lm import OpenAIEmbedder, OpenAILM

KEY = "sk-verysecret-0123456789abcdef"
RUNS: list[Callable[[Any], Any]] = [drive, asyncio.run]


def client(endpoint: Any, **settings: Any) -> OpenAILM:
    return LM("openai/m", **{"api_key": KEY, "api_base": endpoint.base, "sleep": lambda s: time.sleep(s / 50),
                             "cache": False, "max_tokens": 5, **settings})


def ask(text: str) -> LMRequest:
    return LMRequest((Message("user", text),), max_tokens=5)


def delta(text: str = "", finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text, **more}, "finish_reason": finish}]}


USED = {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}


class Bad:
    """Answers each prompt with itself, after a number of misbehaviours that only its text decides. `paid` counts the
    whole answers that were sent for each prompt."""

    def __init__(self, endpoint: Any, faults: tuple[str, ...], worst: int) -> None:
        self.endpoint, self.faults, self.worst = endpoint, faults, worst
        self.paid: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.lock = threading.Lock()
        endpoint.replies = [self.reply]

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        with self.lock:
            prompt = handler.asked["messages"][0]["content"]    # type: ignore[attr-defined]
            source = random.Random(prompt)
            faults = [source.choice(self.faults) for _ in range(source.randint(0, self.worst))]
            fault = faults[self.seen[prompt]] if self.seen[prompt] < len(faults) else ""
            self.seen[prompt] += 1
            self.paid[prompt] += fault in ("", "wrong type")
        getattr(self, "_" + (fault.replace(" ", "_") or "fine"))(handler, prompt)

    def _send(self, handler: Any, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    def _body(self, prompt: str) -> bytes:
        return json.dumps({"choices": [{"message": {"content": prompt}, "finish_reason": "stop"}],
                           "usage": {"prompt_tokens": 5, "completion_tokens": 5}}).encode()

    def _fine(self, handler: Any, prompt: str) -> None:
        self._send(handler, 200, self._body(prompt), {})

    def _wrong_type(self, handler: Any, prompt: str) -> None:
        self._send(handler, 200, self._body(prompt), {"Content-Type": "text/html"})

    def _busy(self, handler: Any, prompt: str) -> None:
        self._send(handler, 429, b'{"error": {"message": "slow down"}}', {"Retry-After": "0.02"})

    def _broken(self, handler: Any, prompt: str) -> None:
        self._send(handler, random.choice([500, 502, 503]), b"<html>oops</html>", {"Content-Type": "text/html"})

    def _drop(self, handler: Any, prompt: str) -> None:
        handler.connection.close()

    def _cut(self, handler: Any, prompt: str) -> None:
        self._send(handler, 200, self._body(prompt)[:20], {}, 500)

    def _nonsense(self, handler: Any, prompt: str) -> None:
        self._send(handler, 200, b'{"choices": [{"mess', {})


def everything(lm: OpenAILM, prompts: list[str], run: Callable[[Any], Any]) -> dict[str, Any]:
    """Each prompt's answer or error, twelve at the same time."""

    async def collect() -> dict[str, Any]:
        async def one(prompt: str) -> str:
            return (await lm.acomplete(ask(prompt))).texts[0]

        return {prompts[d.position]: d.result if d.error is None else d.error
                async for d in as_done(one, prompts, 12)}

    return dict(run(collect()))


@pytest.mark.parametrize("run", RUNS)
def test_faults_that_pass_cost_nobody_an_answer(endpoint: Any, run: Any) -> None:
    bad = Bad(endpoint, ("busy", "broken", "drop", "cut", "wrong type"), 3)
    prompts = [f"prompt {i}" for i in range(60)]
    with budget(calls=4 * 60) as account:
        answers = everything(client(endpoint, num_retries=4), prompts, run)
    assert answers == {p: p for p in prompts}
    assert set(bad.paid) == set(prompts) and set(bad.paid.values()) == {1}     # none lost, none paid twice
    assert 60 <= account.spent.calls <= 4 * 60


@pytest.mark.parametrize("run", RUNS)
def test_a_storm_of_refusals_is_waited_out(endpoint: Any, run: Any) -> None:
    left = [40]

    def reply(handler: Any) -> None:
        with endpoint._lock:
            left[0] -= 1
            refused = left[0] >= 0
        status, _, body = endpoint.error(429, "slow down") if refused else endpoint.reply("fine")
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        if refused:
            handler.send_header("Retry-After", "0.05")
        handler.end_headers()
        handler.wfile.write(body)

    endpoint.replies = [reply]
    lm = client(endpoint, num_retries=20, limits=Limits(concurrency=6), sleep=None)
    answers = everything(lm, [str(i) for i in range(30)], run)
    assert set(answers.values()) == {"fine"} and len(endpoint.requests) == 70


@pytest.mark.parametrize("run", RUNS)
def test_whatever_happens_no_budget_is_exceeded(endpoint: Any, run: Any) -> None:
    bad = Bad(endpoint, ("busy", "broken", "drop", "cut", "nonsense"), 2)
    prompts = [f"prompt {i}" for i in range(80)]
    most = 60 + 16 * 2 + 5
    with budget(tokens=20 * most) as account:
        answers = everything(client(endpoint, num_retries=3), prompts, run)
    assert account.spent.tokens <= 20 * most
    wrong = [a for p, a in answers.items() if a != p]
    assert all(isinstance(a, LMError) for a in wrong) and any(isinstance(a, BudgetExceeded) for a in wrong)
    assert max(bad.paid.values()) == 1 and sum(bad.paid.values()) == sum(a == p for p, a in answers.items())
    # each whole answer was 10 tokens; what was cut off or lost counts as reserved
    assert account.spent.tokens >= 10 * sum(bad.paid.values())


@pytest.mark.parametrize("run", RUNS)
def test_a_drip_and_a_hang_end_in_time(endpoint: Any, run: Any) -> None:
    body = endpoint.reply("slow")[2]
    go = threading.Event()
    for reply in (endpoint.dripping(body, 0.05), lambda handler: go.wait(5) and None):
        endpoint.replies = [reply]
        started = time.monotonic()
        with pytest.raises(LMTransientError, match="L001"):
            run(client(endpoint, timeout=0.3, num_retries=0).acomplete(ask("hello")))
        with budget(seconds=0.3), pytest.raises((BudgetExceeded, LMTransientError)):
            run(client(endpoint, num_retries=0).acomplete(ask("hello")))
        assert time.monotonic() - started < 3
    go.set()


def test_a_cancelled_call_counts_and_leaves_nothing_behind(endpoint: Any) -> None:
    go = threading.Event()
    endpoint.replies = [lambda handler: go.wait(5) and None]
    lm = client(endpoint, limits=Limits(concurrency=2))

    async def main() -> None:
        with budget(calls=10) as account:
            tasks = [asyncio.create_task(lm.acomplete(ask(str(i)))) for i in range(5)]
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(e, asyncio.CancelledError) for e in ends)
            assert account.spent.calls == 2     # those that were sent
            go.set()
            endpoint.replies = [endpoint.reply("fine")]
            assert (await lm.acomplete(ask("again"))).texts == ("fine",)

    asyncio.run(main())


# -- streams ----------------------------------------------------------------------------------------------------------


async def pieces(lm: OpenAILM) -> list[Any]:
    return [chunk async for chunk in lm.astream(ask("hello"))]


@pytest.mark.parametrize("run", RUNS)
def test_a_stream_comes_in_pieces_and_as_a_whole(endpoint: Any, run: Any) -> None:
    endpoint.replies = [endpoint.streamed(
        delta("", role="assistant"), delta("Hel", reasoning_content="hm"), delta("lo"),
        delta("", tool_calls=[{"index": 0, "id": "c1", "function": {"name": "add", "arguments": '{"a"'}}]),
        delta("", tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]), delta("", "tool_calls"), USED)]
    lm = client(endpoint)
    chunks = run(pieces(lm))
    assert [(c.text, c.reasoning) for c in chunks[:-1]] == [("Hel", "hm"), ("lo", "")]
    whole = chunks[-1].response
    assert whole.texts == ("Hello",) and whole.finish_reason == "tool_calls" and whole.reasoning == ("hm",)
    (call,), = whole.tool_calls
    assert (call.id, call.name, call.arguments) == ("c1", "add", '{"a": 1}')
    assert (lm.usage.prompt_tokens, lm.usage.completion_tokens, lm.usage.calls) == (4, 2, 1)
    assert endpoint.requests[0]["stream"] is True and len(endpoint.requests) == 1


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("events", "end", "code"), [
    ([delta("Hel")], b"", "L001"),                                      # cut off before the end
    ([delta("Hel"), b'{"choices": [{"del'], b"", "L005"),               # half an event
    ([delta("Hel"), {"error": {"message": "overloaded"}}], b"", "L005"),
    ([delta("Hel"), b'"text"'], b"", "L005"),
    ([], b"data: [DONE]\n\n", "L001"),                                  # nothing at all
])
def test_a_stream_that_breaks_off_is_an_error(endpoint: Any, run: Any, events: Any, end: bytes, code: str) -> None:
    endpoint.replies = [endpoint.streamed(*events, end=end)]
    lm = client(endpoint, num_retries=0, cache=True, temperature=0.0)
    with pytest.raises(LMError) as caught:
        run(pieces(lm))
    assert caught.value.code == code and len(endpoint.requests) == 1
    endpoint.replies = [endpoint.streamed(delta("Hello", "stop"), USED)]
    assert run(pieces(lm))[-1].response.texts == ("Hello",)             # nothing of the failure was kept
    assert run(pieces(lm))[-1].response.cached and len(endpoint.requests) == 2


@pytest.mark.parametrize("run", RUNS)
def test_a_stream_is_tried_again_before_its_first_piece_alone(endpoint: Any, run: Any) -> None:
    endpoint.replies = [endpoint.error(503, "busy"), "drop", endpoint.streamed(delta("Hello", "stop"), USED)]
    assert run(pieces(client(endpoint)))[0].text == "Hello"
    endpoint.replies = [endpoint.streamed(delta("Hel"), end=b""), endpoint.streamed(delta("Hello", "stop"), USED)]
    with pytest.raises(LMTransientError, match="broke off"):
        run(pieces(client(endpoint)))
    assert len(endpoint.requests) == 4


def test_who_stops_listening_ends_the_stream(endpoint: Any) -> None:
    endpoint.replies = [endpoint.streamed(*[delta("x") for _ in range(200)], pause=0.01)]
    lm = client(endpoint, limits=Limits(concurrency=1))
    with budget(calls=3) as account:
        for chunk in lm.stream(ask("hello")):
            assert chunk.text == "x"
            break
        endpoint.replies = [endpoint.reply("fine")]
        assert lm("again") == ["fine"] and account.spent.calls == 2


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("model_type", ["chat", "responses"])
def test_the_key_is_in_no_error_log_or_recording(endpoint: Any, run: Any, model_type: Any, tmp_path: Path,
                                                 caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    lm = client(endpoint, model_type=model_type, num_retries=0, cache=True, temperature=0.0)
    echo = f"you sent Bearer {KEY}"
    seen = []
    for reply in (endpoint.error(401, echo), endpoint.error(429, echo), (200, {}, echo.encode()), "drop",
                  endpoint.streamed({"error": {"message": echo}}), endpoint.streamed(echo.encode())):
        endpoint.replies = [reply]
        for call in (lm.acomplete(ask("x")), pieces(lm)):
            with budget(calls=9) as account, pytest.raises(LMError) as caught:
                run(call)
            error: BaseException | None = caught.value
            seen += ["".join(traceback.format_exception(caught.value)), repr(account.by_site), repr(vars(account))]
            while error is not None:
                seen += [str(error), repr(error), repr(vars(error))]
                error = error.__cause__ or error.__context__
    fine = RESPONSE if model_type == "responses" else json.loads(endpoint.reply("fine")[2])
    endpoint.replies = [(200, {}, json.dumps(fine).encode())]
    recording = RecordingLM(lm, tmp_path / "answers.jsonl")
    run(recording.acomplete(ask("x")))
    seen += [caplog.text, repr(lm), repr(vars(lm)), repr(vars(lm._line)), repr(recording), lm.identity]
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) >= 2 and "127.0.0.1" in caplog.text
    seen += [p.read_bytes().decode("utf-8", "replace") for p in files]
    for text in seen:
        assert KEY not in text and KEY[:12] not in text


# -- what is sent and read --------------------------------------------------------------------------------------------


def test_tools_and_log_probabilities(endpoint: Any) -> None:
    logprobs = {"content": [{"token": "4", "logprob": -0.1, "top_logprobs": [{"token": "4", "logprob": -0.1},
                                                                            {"token": "5", "logprob": -3.0}]}]}
    calls = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
    body = {"choices": [{"message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls",
                         "logprobs": logprobs}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    endpoint.replies = [(200, {}, json.dumps(body).encode())]
    lm = client(endpoint, cache=True)
    request = LMRequest((Message("user", "2 + 2"),), tools=(ToolSpec("add", "adds", '{"type": "object"}'),),
                        tool_choice="add", logprobs=2)
    for answer in (lm.complete(request), client(endpoint, cache=True).complete(request)):      # then from disk
        assert answer.tool_calls[0][0].name == "add" and answer.finish_reason == "tool_calls"
        assert answer.logprobs[0][0].top == (("4", -0.1), ("5", -3.0))
    sent = endpoint.requests[0]
    assert sent["tools"] == [{"type": "function", "function": {"name": "add", "description": "adds",
                                                               "parameters": {"type": "object"}}}]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "add"}} and sent["top_logprobs"] == 2
    assert len(endpoint.requests) == 1


RESPONSE = {"status": "completed", "usage": {"input_tokens": 3, "output_tokens": 2}, "output": [
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
    {"type": "message", "content": [{"type": "output_text", "text": "four"}]},
    {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"}]}


@pytest.mark.parametrize("run", RUNS)
def test_the_responses_interface(endpoint: Any, run: Any) -> None:
    endpoint.replies = [(200, {}, json.dumps(RESPONSE).encode()), endpoint.streamed(
        {"type": "response.created"}, {"type": "response.output_text.delta", "delta": "four"},
        {"type": "response.completed", "response": RESPONSE}, end=b"")]
    lm = client(endpoint, model_type="responses")
    answer = run(lm.acomplete(ask("2 + 2")))
    assert (answer.texts, answer.reasoning, answer.tool_calls[0][0].id) == (("four",), ("hm",), "c1")
    chunks = run(pieces(lm))
    assert [c.text for c in chunks] == ["four", ""] and chunks[-1].response == answer
    assert lm.usage.total_tokens == 10 and endpoint.requests[0]["max_output_tokens"] == 5
    assert "responses" in lm.identity
    with pytest.raises(LMError, match="has no 'seed'"):
        lm.complete(lm.request([Message("user", "x")], seed=1))


@pytest.mark.parametrize("run", RUNS)
def test_embeddings_of_an_endpoint(endpoint: Any, run: Any) -> None:
    def rows(*vectors: Any) -> Any:
        data = [{"index": i, "embedding": v} for i, v in reversed(list(enumerate(vectors)))]
        return 200, {}, json.dumps({"data": data}).encode()

    endpoint.replies = [endpoint.error(429, "busy", **{"Retry-After": "0"}), rows([1, 2], [3, 4]), rows([5, 6])]
    embedder = OpenAIEmbedder("e", api_key=KEY, api_base=endpoint.base, batch_size=2)
    found = run(embedder.aembed(["a", "b", "c"]))
    assert found.tolist() == [[1, 2], [3, 4], [5, 6]] and found.dtype == "float32"
    assert run(embedder.aembed([])).shape == (0, 0)
    endpoint.replies = [rows([1, 2])]
    with pytest.raises(LMError, match="not 2 vectors"):
        run(embedder.aembed(["a", "b"]))
    assert KEY not in repr(vars(embedder)) + repr(embedder) + embedder.identity


def test_each_loop_has_connections_of_its_own(endpoint: Any) -> None:
    endpoint.replies = [endpoint.reply("fine")]
    lm = client(endpoint)
    for _ in range(3):
        assert asyncio.run(lm.acomplete(ask("x"))).texts == lm.complete(ask("y")).texts == ("fine",)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(copy_context().run, asyncio.run, lm.acomplete(ask(str(i)))) for i in range(4)]
        assert [c.result().texts for c in calls] == [("fine",)] * 4
