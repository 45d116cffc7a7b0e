"""Calls of the `openai` client within a trace: what it gives is what it gives without, and nothing is paid twice."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import openai
import pytest
from openai.resources.chat.completions import Completions
from pydantic import BaseModel

from tracedsl import trace
from tracedsl.programs.lm.accounts import BudgetExceeded

KEY = "sk-secret"


@pytest.fixture
def client(endpoint: Any) -> openai.OpenAI:
    endpoint.replies = [endpoint.reply("Paris")]
    return openai.OpenAI(api_key=KEY, base_url=endpoint.base, max_retries=2)


@pytest.fixture
def aclient(endpoint: Any) -> openai.AsyncOpenAI:
    endpoint.replies = [endpoint.reply("Paris")]
    return openai.AsyncOpenAI(api_key=KEY, base_url=endpoint.base, max_retries=0)


def ask(client: Any, text: str = "hi", **settings: Any) -> Any:
    given = {"temperature": 0, **settings}
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], **given)


def chunk(text: str | None, finish: str | None = None) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


RESPONSE = {"id": "r", "object": "response", "created_at": 1, "model": "m", "status": "completed",
            "parallel_tool_calls": False, "tool_choice": "auto", "tools": [],
            "output": [{"type": "message", "id": "x", "role": "assistant", "status": "completed",
                        "content": [{"type": "output_text", "text": "Paris", "annotations": []}]}],
            "usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7,
                      "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}}


def test_outside_of_a_trace_nothing_is_changed(endpoint: Any, client: Any) -> None:
    with trace():
        ask(client)
    for _ in range(2):
        assert ask(client).choices[0].message.content == "Paris"
    assert len(endpoint.requests) == 3


def test_equal_requests_at_temperature_0_are_asked_once(endpoint: Any, client: Any) -> None:
    plain = ask(client)
    with trace() as t:
        found = [ask(client) for _ in range(3)]
    assert found == [plain] * 3 and type(found[2]) is type(plain)
    assert endpoint.requests[0] == endpoint.requests[1] and len(endpoint.requests) == 2
    assert [c.cached for c in t.calls] == [False, True, True]
    assert t.account.spent.prompt_tokens == 7 and t.account.spent.cached_calls == 2
    assert t.calls[0].site.startswith("test_interception.py:")


@pytest.mark.parametrize("settings", [{"temperature": 0.7}, {"temperature": openai.omit}])
def test_sampled_requests_are_asked_each_time(endpoint: Any, client: Any, settings: Any) -> None:
    with trace():
        for _ in range(2):
            ask(client, **settings)
    assert len(endpoint.requests) == 2


def test_a_seed_makes_a_request_repeatable_and_other_settings_another_one(endpoint: Any, client: Any) -> None:
    with trace():
        for settings in ({"seed": 1}, {"seed": 1}, {"seed": 2}, {"seed": 1, "extra_body": {"top_k": 3}}):
            ask(client, temperature=1.0, **settings)
    assert len(endpoint.requests) == 3


def test_answers_last_for_later_traces_and_may_be_switched_off(endpoint: Any, client: Any, tmp_path: Any) -> None:
    for _ in range(2):
        with trace(store=tmp_path / "own"):
            ask(client)
    with trace(store=tmp_path / "other"):
        ask(client)
    with trace(store=tmp_path / "own", cache=False):
        ask(client)
    assert len(endpoint.requests) == 3


def test_equal_requests_at_the_same_time_are_one_call(endpoint: Any, client: Any) -> None:
    with trace(), ThreadPoolExecutor(6) as pool:
        found = [pool.submit(copy_context().run, ask, client) for _ in range(6)]
        assert {f.result().choices[0].message.content for f in found} == {"Paris"}
    assert len(endpoint.requests) == 1


def test_parsed_answers_have_their_type_from_the_cache_too(endpoint: Any, client: Any) -> None:
    class City(BaseModel):
        name: str

    endpoint.replies = [endpoint.reply('{"name": "Paris"}')]
    with trace():
        for _ in range(2):
            made = client.chat.completions.parse(model="m", messages=[{"role": "user", "content": "?"}], temperature=0,
                                                 response_format=City)
            assert made.choices[0].message.parsed == City(name="Paris")
    assert len(endpoint.requests) == 1


def test_responses(endpoint: Any, client: Any) -> None:
    import json

    endpoint.replies = [(200, {}, json.dumps(RESPONSE).encode())]
    with trace() as t:
        for _ in range(2):
            assert client.responses.create(model="m", input="?", temperature=0).output_text == "Paris"
    assert len(endpoint.requests) == 1 and t.account.spent.prompt_tokens == 5


def test_streams_come_as_they_do_and_are_known_the_second_time(endpoint: Any, client: Any) -> None:
    endpoint.replies = [endpoint.streamed(chunk("Pa"), chunk("ris"), chunk(None, "stop"))]
    with trace() as t:
        for _ in range(2):
            pieces = [c.choices[0].delta.content for c in ask(client, stream=True)]
            assert pieces == ["Pa", "ris", None]
        with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "hi"}]) as stream:
            assert stream.get_final_completion().choices[0].message.content == "Paris"
    assert len(endpoint.requests) == 2 and [c.cached for c in t.calls] == [False, True, False]


def test_a_stream_that_breaks_off_is_not_kept(endpoint: Any, client: Any) -> None:
    endpoint.replies = [endpoint.streamed(chunk("Pa"), end=b"")]
    with trace():
        for _ in range(2):
            assert [c.choices[0].delta.content for c in ask(client, stream=True)] == ["Pa"]
    assert len(endpoint.requests) == 2


def test_errors_are_those_of_the_client_and_its_retries_too(endpoint: Any, client: Any) -> None:
    endpoint.replies = [endpoint.error(429, "slow", **{"Retry-After": "0.01"}), endpoint.reply("late")]
    with trace() as t:
        assert ask(client).choices[0].message.content == "late"
        endpoint.replies = [endpoint.error(400, "bad")]
        with pytest.raises(openai.BadRequestError, match="bad"):
            ask(client, "other")
        endpoint.replies = ["drop"]
        with pytest.raises(openai.APIConnectionError):
            ask(client.with_options(max_retries=0), "third")
    assert [bool(c.error) for c in t.calls] == [True, False, True, True]
    assert t.account.spent.calls == 2      # the refused ones cost nothing; the one that was cut off may have


def test_a_failed_answer_is_not_kept(endpoint: Any, client: Any) -> None:
    endpoint.replies = [endpoint.error(400, "bad"), endpoint.reply("good")]
    with trace():
        with pytest.raises(openai.BadRequestError):
            ask(client)
        assert ask(client).choices[0].message.content == "good"


def test_a_budget_is_hard_and_is_not_retried(endpoint: Any, client: Any) -> None:
    with trace(calls=2):
        ask(client, "1")
        ask(client, "2")
        with pytest.raises(BudgetExceeded, match="L014"):
            ask(client, "3")
        ask(client, "1")    # known answers cost nothing
        with pytest.raises(BudgetExceeded):
            list(ask(client, "4", stream=True))
    assert len(endpoint.requests) == 2


def test_a_client_that_was_patched_keeps_its_patch(endpoint: Any, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client.chat.completions.create = lambda **kwargs: "patched"
    with trace():
        assert ask(client) == "patched"
    theirs, seen = Completions.create, []

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["model"])
        return theirs(self, *args, **kwargs)

    monkeypatch.setattr(Completions, "create", wrapped)
    other = openai.OpenAI(api_key=KEY, base_url=endpoint.base)
    with trace() as t:
        ask(other)
        ask(other)
    assert seen == ["m", "m"] and len(t.calls) == 2 and len(endpoint.requests) == 1


def test_asyncio(endpoint: Any, aclient: Any) -> None:
    async def together() -> list[Any]:
        return await asyncio.gather(*(ask(aclient) for _ in range(5)), ask(aclient, "else", temperature=1))

    async def streamed() -> list[Any]:
        return [c.choices[0].delta.content async for c in await ask(aclient, "s", stream=True)]

    async def failing() -> None:
        with pytest.raises(BudgetExceeded):
            await ask(aclient, "more")

    async def everything() -> None:     # connections cannot pass from one event loop to another
        with trace() as t:
            assert len({r.choices[0].message.content for r in await together()}) == 1
            assert len(endpoint.requests) == 2 and sum(c.cached for c in t.calls) == 4
            endpoint.replies = [endpoint.streamed(chunk("Pa"), chunk("ris", "stop"))]
            assert await streamed() == await streamed() == ["Pa", "ris"]
            assert len(endpoint.requests) == 3
        with trace(calls=0):
            await failing()

    asyncio.run(everything())


def test_the_key_is_nowhere(endpoint: Any, client: Any, tmp_path: Any) -> None:
    with trace(store=tmp_path / "own") as t:
        ask(client)
    seen = [repr(t), t.explain(), *(p.read_bytes().decode("utf-8", "replace")
                                    for p in (tmp_path / "own").rglob("*") if p.is_file())]
    assert len(seen) > 2 and not any(KEY in text for text in seen)


def test_a_client_whose_settings_change_is_asked_anew(endpoint: Any, client: Any) -> None:
    with trace():
        ask(client)
        client.api_key = "sk-other"
        ask(client, "second")
    assert [h["authorization"] for h in endpoint.headers] == [f"Bearer {KEY}", "Bearer sk-other"]


def test_explain(endpoint: Any, client: Any) -> None:
    with trace() as t:
        ask(client)
        ask(client)
    text = t.explain()
    assert "1 calls and 1 from the cache" in text and "test_interception.py" in text
