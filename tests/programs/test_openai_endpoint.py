"""The OpenAI-compatible client against a real local server, which also misbehaves."""

from __future__ import annotations

import logging
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tracedsl.programs import LM, LMError, Predict, configure
from tracedsl.programs.lm.base import LMTransientError, Message
from tracedsl.programs.lm.openai_line import retry_after
from tracedsl.programs.lm.openai_lm import OpenAILM

KEY = "sk-verysecret-0123456789abcdef"
HELLO = [Message("user", "hello")]


class Waits(list[float]):
    """Stands in for sleeping: remembers how long it was asked to wait."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def client(endpoint: Any, waits: Waits | None = None, **settings: Any) -> OpenAILM:
    return LM("openai/m", api_key=KEY, api_base=endpoint.base, sleep=waits if waits is not None else Waits(),
              **settings)


def test_a_call_goes_through_and_is_counted(endpoint: Any) -> None:
    endpoint.replies = [endpoint.reply("Paris")]
    lm = client(endpoint)
    response = lm.complete(lm.request(HELLO, max_tokens=5, stop="\n", seed=3))
    assert response.texts == ("Paris",)
    assert endpoint.requests == [{"model": "m", "messages": [{"role": "user", "content": "hello"}], "temperature": 0.0,
                                  "max_tokens": 5, "stop": ["\n"], "seed": 3}]
    assert endpoint.headers[0]["authorization"] == f"Bearer {KEY}"
    assert (lm.usage.prompt_tokens, lm.usage.completion_tokens, lm.usage.calls) == (7, 3, 1)


def test_a_program_runs_on_it(endpoint: Any) -> None:
    endpoint.replies = [endpoint.reply("[[ ## answer ## ]]\n$1,200\n\n[[ ## completed ## ]]")]
    configure(lm=client(endpoint))
    assert Predict("question -> answer: int")(question="how much?").answer == 1200


def test_too_many_requests_waits_as_long_as_told(endpoint: Any) -> None:
    endpoint.replies = [endpoint.error(429, "slow down", **{"Retry-After": "7"}), endpoint.error(500, "oops"),
                        endpoint.reply("done")]
    waits = Waits()
    lm = client(endpoint, waits)
    assert lm(prompt="hello") == ["done"]
    assert 7.0 <= waits[0] <= 7.7 and 0.5 <= waits[1] <= 1.0
    assert len(endpoint.requests) == 3


def test_a_wait_of_an_hour_is_an_error_at_once(endpoint: Any) -> None:
    endpoint.replies = [endpoint.error(429, "come back later", **{"Retry-After": "3600"})]
    waits = Waits()
    with pytest.raises(LMTransientError, match="keeps failing"):
        client(endpoint, waits)(prompt="hello")
    assert waits == [] and len(endpoint.requests) == 1


def test_an_endpoint_that_keeps_failing_is_given_up(endpoint: Any) -> None:
    endpoint.replies = [endpoint.error(503, "overloaded")]
    with pytest.raises(LMError, match="L004") as caught:
        client(endpoint, num_retries=2)(prompt="hello")
    assert "overloaded" in str(caught.value) and len(endpoint.requests) == 3


def test_a_dropped_connection_is_tried_again(endpoint: Any) -> None:
    endpoint.replies = ["drop", "drop", endpoint.reply("there")]
    assert client(endpoint)(prompt="hello") == ["there"]


def test_an_endpoint_that_hangs_is_left_after_the_timeout(endpoint: Any) -> None:
    go = threading.Event()
    endpoint.delay = lambda: go.wait(10)
    endpoint.replies = [endpoint.reply("late")]
    with pytest.raises(LMError, match="L001"):
        client(endpoint, timeout=0.2, num_retries=0)(prompt="hello")
    go.set()


def test_an_answer_cut_off_in_the_middle_never_counts(endpoint: Any) -> None:
    endpoint.replies = ["cut", endpoint.reply("whole")]
    assert client(endpoint)(prompt="hello") == ["whole"]


@pytest.mark.parametrize("body", [b'{"choices": [{"mess', b"<html>proxy</html>", b"[]", b"{}", b'{"choices": []}',
                                  b'{"choices": [{"index": 0}]}', b'{"choices": "x"}', b"null", b""])
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_a_malformed_body_is_a_clear_error_and_not_paid_twice(endpoint: Any, body: bytes, kind: str) -> None:
    endpoint.replies = [(200, {"Content-Type": kind}, body)]
    lm = client(endpoint)
    with pytest.raises(LMError) as caught:
        lm(prompt="hello")
    assert caught.value.code == "L005" and "api_base" in str(caught.value)
    assert len(endpoint.requests) == 1


def test_an_endpoint_that_is_down_says_so(endpoint: Any) -> None:
    endpoint.close()
    with pytest.raises(LMError, match=r"cannot reach http://127\.0\.0\.1") as caught:
        client(endpoint, num_retries=1)(prompt="hello")
    assert caught.value.code == "L001" and "api_base" in str(caught.value)


@pytest.mark.parametrize(("status", "code"), [(400, "L003"), (401, "L002"), (403, "L002"),
                                              (404, "L003"), (422, "L003")])
def test_a_request_at_fault_is_sent_once(endpoint: Any, status: int, code: str) -> None:
    endpoint.replies = [endpoint.error(status, "no")]
    with pytest.raises(LMError) as caught:
        client(endpoint)(prompt="hello")
    assert caught.value.code == code and len(endpoint.requests) == 1


def test_no_key_for_openai_itself_is_said_before_any_call() -> None:
    with pytest.raises(LMError, match="L012"):
        LM("openai/gpt-4o-mini")(prompt="hello")


def test_the_key_is_nowhere(endpoint: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the cache, the repr, the saved state, logs, nor in any exception, even where the endpoint echoes it."""
    caplog.set_level(logging.DEBUG)
    lm = client(endpoint)
    endpoint.replies = [endpoint.reply("fine"), endpoint.error(401, f"Incorrect API key provided: {KEY}"),
                        (200, {}, f"you sent {KEY}".encode())]
    seen = [str(lm(prompt="hello")), repr(lm), repr(vars(lm)), str(lm.dump_state()), repr(lm.history), lm.identity]
    for prompt in ("b", "c"):
        with pytest.raises(LMError) as caught:
            lm(prompt=prompt)
        error: BaseException | None = caught.value
        seen += ["".join(traceback.format_exception(caught.value))]
        while error is not None:
            seen += [str(error), repr(error), repr(vars(error))]
            error = error.__cause__ or error.__context__
    assert "127.0.0.1" in caplog.text
    seen.append(caplog.text)
    files = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert any(p.suffix == ".entry" for p in files)
    seen += [p.read_bytes().decode("utf-8", "replace") for p in files]
    for text in seen:
        assert KEY not in text and KEY[:12] not in text


@pytest.mark.parametrize("base", ["http://user:hunter2@127.0.0.1/v1", "http://127.0.0.1/v1?token=hunter2",
                                  "user:hunter2@127.0.0.1/v1", "http://hunter2@/v1"])
def test_an_address_with_a_credential_is_refused_and_not_repeated(base: str) -> None:
    with pytest.raises(LMError, match="L013") as caught:
        LM("openai/m", api_base=base)
    assert "hunter2" not in str(caught.value) and "hunter2" not in repr(caught.value)


def test_many_threads_with_one_request_are_one_call(endpoint: Any) -> None:
    go = threading.Event()
    endpoint.delay = lambda: go.wait(5)
    endpoint.replies = [endpoint.reply("one")]
    lm = client(endpoint)
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(lm, "hello") for _ in range(16)]
        go.set()
        assert [a.result() for a in answers] == [["one"]] * 16
    assert len(endpoint.requests) == 1
    assert (lm.usage.calls, lm.usage.cached_calls) == (1, 15)


def test_at_temperature_one_they_stay_many(endpoint: Any) -> None:
    endpoint.replies = [endpoint.reply("x")]
    lm = client(endpoint, temperature=1.0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lm, ["hello"] * 8))
    assert len(endpoint.requests) == 8


def test_another_process_finds_the_answer_on_disk(endpoint: Any) -> None:
    endpoint.replies = [endpoint.reply("once")]
    assert client(endpoint)(prompt="hello") == client(endpoint)(prompt="hello") == ["once"]
    assert len(endpoint.requests) == 1


def test_another_endpoint_or_model_is_another_call(endpoint: Any) -> None:
    endpoint.replies = [endpoint.reply("x")]
    client(endpoint)(prompt="hello")
    LM("openai/other", api_key=KEY, api_base=endpoint.base)(prompt="hello")
    LM("openai/m", api_key=KEY, api_base=endpoint.base.replace("/v1", "/v2"))(prompt="hello")
    assert len(endpoint.requests) == 3


def test_reasoning_models_get_what_they_take(endpoint: Any) -> None:
    endpoint.replies = [endpoint.reply("x")]
    LM("openai/o4-mini", api_key=KEY, api_base=endpoint.base, max_tokens=9)(prompt="hello")
    assert "temperature" not in endpoint.requests[0] and endpoint.requests[0]["max_completion_tokens"] == 9


def test_a_schema_is_sent_where_the_endpoint_keeps_to_it(endpoint: Any) -> None:
    from tracedsl.programs import JSONAdapter

    endpoint.replies = [endpoint.reply('{"answer": 4}')]
    configure(lm=client(endpoint, structured=True), adapter=JSONAdapter())
    assert Predict("question -> answer: int")(question="2 + 2").answer == 4
    sent = endpoint.requests[0]["response_format"]["json_schema"]["schema"]
    assert sent["properties"] == {"answer": {"type": "integer"}}


def test_several_answers(endpoint: Any) -> None:
    endpoint.replies = [endpoint.reply("[[ ## a ## ]]\n1", "[[ ## a ## ]]\n2")]
    configure(lm=client(endpoint))
    made = Predict("q -> a: int", n=2)(q="x")
    assert endpoint.requests[0]["n"] == 2 and made.completions.a == [1, 2] and made.a == 1


def test_retry_after_reads_numbers_and_dates() -> None:
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({}) is None and retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": formatdate(0, usegmt=True)}) == 0.0
