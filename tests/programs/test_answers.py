"""Known answers: one call for all who ask at once, whichever way they wait; kept, fresh, and nobody's to change."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import os
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracedsl.cache import Store
from tracedsl.diagnostics import TracedslWarning
from tracedsl.programs import JSONAdapter, LMError, LMRequest, LMResponse, OracleLM, Predict, ScriptedLM, context
from tracedsl.programs.driving import current_io
from tracedsl.programs.lm.base import LMTransientError, Message, TokenLogprob, ToolCall, Usage
from tracedsl.programs.lm.stored import from_json, to_json

HELLO = [Message("user", "hello")]


class Slow(ScriptedLM):
    """Answers with the number of the call, after a while."""

    def __init__(self, seconds: float = 0.05, **settings: Any) -> None:
        super().__init__(lambda request: str(self.calls), **{"cache": True, **settings})
        self.seconds = seconds

    async def _asend(self, request: LMRequest) -> LMResponse:
        response = self._send(request)
        await current_io().sleep(self.seconds)
        return response


async def tasks(lm: Any, n: int, **config: Any) -> list[Any]:
    request = lm.request(HELLO, **config)
    return await asyncio.gather(*(lm.acomplete(request) for _ in range(n)))


@pytest.mark.parametrize(("config", "calls"), [({}, 1), ({"temperature": 1.0}, 16),
                                               ({"temperature": 1.0, "seed": 1}, 1)])
def test_sixteen_who_ask_at_once(config: dict[str, Any], calls: int) -> None:
    lm = Slow()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: lm.complete(lm.request(HELLO, **config)), range(16)))
    assert lm.calls == calls
    lm = Slow(model="other")
    asyncio.run(tasks(lm, 16, **config))
    assert lm.calls == calls


def test_threads_and_loops_share_one_call() -> None:
    lm = Slow()
    with ThreadPoolExecutor(9) as pool:
        loops = [pool.submit(asyncio.run, tasks(lm, 8)) for _ in range(3)]
        threads = [pool.submit(lm.complete, lm.request(HELLO)) for _ in range(6)]
        answers = [a for f in loops for a in f.result()] + [f.result() for f in threads]
    assert {a.texts for a in answers} == {("1",)} and lm.calls == 1
    assert sum(not a.cached for a in answers) == 1 and lm.usage.cached_calls == 29


def test_a_cancelled_task_leaves_the_call_to_the_others() -> None:
    lm = Slow()

    async def main() -> None:
        request = lm.request(HELLO)
        first = asyncio.create_task(lm.acomplete(request))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(lm.acomplete(request)) for _ in range(4)]
        await asyncio.sleep(0.01)
        first.cancel()
        others[2].cancel()
        ends = await asyncio.gather(first, *others, return_exceptions=True)
        assert [isinstance(e, asyncio.CancelledError) for e in ends] == [True, False, False, True, False]

    asyncio.run(main())
    assert lm.calls == 2


def test_a_blocking_call_within_the_loop_that_makes_the_same_call_does_not_wait_for_it() -> None:
    lm = Slow()

    async def main() -> None:
        request = lm.request(HELLO)
        task = asyncio.create_task(lm.acomplete(request))
        await asyncio.sleep(0.01)
        assert lm.complete(request).texts == ("2",)
        assert (await task).texts == ("1",)

    asyncio.run(asyncio.wait_for(main(), 10))


def test_errors_are_shared_and_not_kept() -> None:
    class Late(Slow):
        async def _asend(self, request: LMRequest) -> LMResponse:
            await asyncio.sleep(0.02)       # the others come before it fails
            return self._send(request)

    lm = Late()
    lm._function = lambda request: LMError("L003", "no") if lm.calls == 1 else "yes"

    async def main() -> None:
        ends = await asyncio.gather(*(lm.acomplete(lm.request(HELLO)) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(e, LMError) for e in ends)
        assert (await lm.acomplete(lm.request(HELLO))).texts == ("yes",)

    asyncio.run(main())
    assert lm.calls == 2


def test_nobody_can_change_what_another_one_gets() -> None:
    with context(lm=OracleLM(1, cache=True), adapter=JSONAdapter()):
        program = Predict("q -> items: list[str], more: dict[str, int]")
        first = program(q="x")
        kept = json.dumps(first.toDict())
        first["items"].append("mine")
        first.more["mine"] = 1
        first.completions.items()[0][1].clear()
        assert json.dumps(program(q="x").toDict()) == kept
    with pytest.raises(dataclasses.FrozenInstanceError):
        LMResponse(("x",)).texts = ()  # type: ignore[misc]


def test_answers_go_stale(tmp_path: Path) -> None:
    store = Store(tmp_path / "c")
    lm = Slow(0, store=store, cache_ttl=0.15)
    assert lm("hello") == lm("hello") == ["1"]
    assert Slow(0, store=store, cache_ttl=60)("hello") == ["1"]
    time.sleep(0.2)
    assert lm("hello") == ["2"]                                             # memory
    time.sleep(0.2)
    other = Slow(0, store=store, cache_ttl=0.15)
    other("hello")
    assert other.calls == 1 and Slow(0, store=store)("hello") == ["1"]      # disk, then for ever


@pytest.mark.skipif(os.name != "posix", reason="folders that cannot be written to")
def test_a_disk_that_cannot_be_written_still_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "c")
    Slow(0, store=store)("hello")

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tracedsl.cache.write_atomic", refuse)
    monkeypatch.setattr(Path, "mkdir", lambda self, *a, **k: None if self.exists() else refuse())
    lm = Slow(0, store=Store(tmp_path / "c"))
    assert lm("hello") == ["1"] and lm.calls == 0
    with pytest.warns(TracedslWarning, match="A003"):
        assert lm("new") == ["1"]
    assert lm("new") == ["1"] and lm.calls == 1


tokens = st.builds(TokenLogprob, st.text(), st.floats(-50, 0),
                   st.lists(st.tuples(st.text(), st.floats(-50, 0)), max_size=2).map(tuple))
calls = st.builds(ToolCall, st.text(), st.text(), st.text())
responses = st.integers(1, 3).flatmap(lambda n: st.builds(
    LMResponse, st.tuples(*[st.text()] * n), st.builds(Usage, st.integers(0, 9), st.integers(0, 9), st.just(1)),
    st.sampled_from(["stop", "length"]), st.just(False),
    st.just(()) | st.tuples(*[st.lists(calls, max_size=2).map(tuple)] * n),
    st.just(()) | st.tuples(*[st.text()] * n),
    st.just(()) | st.tuples(*[st.lists(tokens, max_size=2).map(tuple)] * n)))


@given(responses)
def test_an_answer_comes_back_from_disk_as_it_was(response: LMResponse) -> None:
    assert from_json(json.loads(json.dumps(to_json(response)))) == response


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from(["texts", "finish_reason", "prompt_tokens", "tool_calls", "logprobs"]), x)))
def test_foreign_data_is_a_miss(data: Any) -> None:
    assert not isinstance(data, dict) or isinstance(from_json(data), (LMResponse, type(None)))


# -- many -------------------------------------------------------------------------------------------------------------


def test_a_hundred_threads_and_a_thousand_tasks_at_once() -> None:
    lm = Slow(0.001)
    lm._function = lambda request: json.dumps({"a": request.messages[-1].text[-4:]})
    program = Predict("q -> a")

    def one(i: int) -> bool:
        with context(lm=lm, adapter=JSONAdapter()):
            return bool(program(q=f"q{i % 500:04}").a)

    async def thousand() -> int:
        with context(lm=lm, adapter=JSONAdapter()):
            made = await asyncio.gather(*(program.acall(q=f"q{i % 500:04}") for i in range(1000)))
        return len(made)

    barrier = threading.Barrier(101)

    def thread(i: int) -> bool:
        barrier.wait(30)
        return all(one(10 * i + j) for j in range(10))

    with ThreadPoolExecutor(100) as pool:
        threads = [pool.submit(thread, i) for i in range(100)]
        barrier.wait(30)
        assert asyncio.run(thousand()) == 1000 and all(t.result() for t in threads)
    assert lm.calls == 500 and lm.usage.calls == 500 and lm.usage.cached_calls == 1500


def test_memory_stays_flat(request: pytest.FixtureRequest) -> None:
    """Calls, failures, streams, batches: 10,000 with --long, a tenth of it otherwise."""
    rounds = 20 if request.config.getoption("--long") else 2
    lm = ScriptedLM(lambda request: LMTransientError("L004", "busy") if lm.calls % 7 == 0 else '{"a": "x"}',
                    temperature=1.0, sleep=lambda s: None)
    lm._history = type(lm._history)(maxlen=50)
    program = Predict("q -> a")

    async def some() -> None:
        await asyncio.gather(*(program.acall(q="x" * 500) for _ in range(150)))
        for _ in range(50):
            async for _chunk in lm.astream(lm.request(HELLO)):
                pass

    def one_round() -> None:
        program.batch([{"q": "x" * 500}] * 300, num_threads=16)
        asyncio.run(some())
        lm.requests.clear()
        gc.collect()

    with context(lm=lm, adapter=JSONAdapter()):
        one_round()
        tracemalloc.start()
        one_round()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(rounds):
            one_round()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    assert lm.usage.calls >= 500 * (rounds + 2) and grown < 300_000, f"{grown} bytes more"
    assert not [t for t in threading.enumerate() if t.name.startswith("tracedsl-worker") and t.is_alive()]
