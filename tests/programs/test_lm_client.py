"""The path of every call: memory, disk, calls under way, retries, the books."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracedsl.cache import Store
from tracedsl.diagnostics import TracedslWarning
from tracedsl.programs import LMError, LMRequest, ScriptedLM
from tracedsl.programs.lm.base import LMTransientError, Message, ResponseFormat

ASK = [Message("user", "hello")]


def counting(**settings: Any) -> ScriptedLM:
    """Answers with the number of the call."""
    made = ScriptedLM(lambda request: f"{made.calls}", cache=True, **settings)
    return made


def test_equal_requests_are_one_call_in_memory_and_on_disk() -> None:
    lm, other = counting(), counting()
    first = lm.complete(lm.request(ASK))
    again = lm.complete(lm.request(list(ASK)))
    assert (first.texts, again.texts, lm.calls) == (("1",), ("1",), 1)
    assert not first.cached and again.cached
    assert other.complete(other.request(ASK)).texts == ("1",) and other.calls == 0


def test_what_may_be_kept() -> None:
    lm = counting()
    hot = lm.request(ASK, temperature=1.0)
    assert [lm.complete(hot).texts[0] for _ in range(2)] == ["1", "2"]
    seeded = lm.request(ASK, temperature=1.0, seed=5)
    assert lm.complete(seeded).texts == lm.complete(seeded).texts == ("3",)
    rolled = [lm.request(ASK, temperature=1.0, rollout_id=i) for i in (1, 2, 1)]
    assert [lm.complete(r).texts[0] for r in rolled] == ["4", "5", "4"]


requests = st.builds(
    LMRequest, st.lists(st.builds(Message, st.sampled_from(["user", "system"]), st.text()), max_size=3).map(tuple),
    temperature=st.sampled_from([None, 0.0, 1.0]), max_tokens=st.none() | st.integers(1, 9), n=st.integers(1, 2),
    seed=st.none() | st.integers(0, 2), stop=st.lists(st.text(max_size=2), max_size=2).map(tuple),
    response_format=st.none() | st.builds(ResponseFormat, st.sampled_from(["grammar", "json_schema"]), st.text()))


@given(requests, requests)
def test_two_requests_share_a_key_only_if_they_are_equal(one: LMRequest, two: LMRequest) -> None:
    lm = ScriptedLM([])
    same = lm.cache_key(one).digest == lm.cache_key(two).digest
    assert same == (one == two) == (one.fingerprint == two.fingerprint)


def test_a_key_says_what_changed(tmp_path: Path) -> None:
    store = Store(tmp_path / "c")
    lm = counting(store=store)
    lm.complete(lm.request(ASK))
    why = store.why(lm.cache_key(lm.request(ASK, max_tokens=5)))
    assert list(why.changed) == ["max_tokens"]


def test_one_call_for_all_who_ask_at_the_same_time() -> None:
    go = threading.Event()

    def slow(request: LMRequest) -> str:
        go.wait(5)
        return str(lm.calls)

    lm = ScriptedLM(slow, cache=True)
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(lm, "hello") for _ in range(16)]
        others = [pool.submit(lm, "hello", temperature=1.0) for _ in range(3)]
        go.set()
        assert len({a.result()[0] for a in answers}) == 1
        assert [len(o.result()) for o in others] == [1, 1, 1]
    assert lm.calls == 4


def test_all_who_wait_get_the_same_error_and_it_is_not_kept() -> None:
    go, fail = threading.Event(), True

    def answer(request: LMRequest) -> str | Exception:
        go.wait(5)
        return LMError("L003", "refused") if fail else "fine"

    lm = ScriptedLM(answer, cache=True)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(lm, "hello") for _ in range(4)]
        go.set()
        errors = [a.exception() for a in answers]
    assert all(isinstance(e, LMError) for e in errors)
    fail = False
    assert lm(prompt="hello") == ["fine"]


def test_an_interrupted_asker_does_not_leave_the_others_waiting() -> None:
    entered, go = threading.Event(), threading.Event()

    def answer(request: LMRequest) -> str:
        if lm.calls == 1:
            entered.set()
            go.wait(5)
            raise KeyboardInterrupt
        return "fine"

    lm = ScriptedLM(answer, cache=True)

    def interrupted() -> None:
        with pytest.raises(KeyboardInterrupt):
            lm("hello")

    first = threading.Thread(target=interrupted)
    first.start()
    entered.wait(5)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(lm, "hello") for _ in range(2)]
        go.set()
        assert [w.result(5) for w in waiting] == [["fine"], ["fine"]]
    first.join()
    assert lm.calls == 2


def test_only_what_may_pass_is_tried_again() -> None:
    waits: list[float] = []
    passing = LMTransientError("L004", "busy")
    lm = ScriptedLM([passing, passing, "fine"], num_retries=3, sleep=waits.append)
    assert lm(prompt="x") == ["fine"] and len(waits) == 2
    assert 0.25 <= waits[0] <= 0.5 <= waits[1] <= 1.0
    for error in (LMError("L003", "refused"), ValueError("bug")):
        lm = ScriptedLM([error, "fine"], sleep=waits.append)
        with pytest.raises(type(error)):
            lm(prompt="x")
        assert lm.calls == 1


def test_a_damaged_entry_is_asked_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "c")
    lm = counting(store=store)
    lm(prompt="x")
    (entry,) = (tmp_path / "c").rglob("*.entry")
    entry.write_bytes(entry.read_bytes()[:-9] + b"nonsense!")
    other = counting(store=store)
    with pytest.warns(TracedslWarning, match="A001"):
        assert other(prompt="x") == ["1"] and other.calls == 1


def test_an_unusable_disk_only_costs_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    lm = counting(store=Store(tmp_path / "file"))
    with pytest.warns(TracedslWarning, match="A003"):
        assert lm(prompt="x") == ["1"]
    assert lm(prompt="x") == ["1"] and lm.calls == 1


def test_the_books() -> None:
    lm = counting()
    for prompt in ("a b", "a b", "c"):
        lm(prompt)
    assert (lm.usage.calls, lm.usage.cached_calls, lm.usage.prompt_tokens) == (2, 1, 3)
    assert [h.request.messages[0].content for h in lm.history] == ["a b", "a b", "c"]
    assert [h.response.cached for h in lm.history] == [False, True, False]


def test_unknown_settings_are_named() -> None:
    with pytest.raises(LMError, match="did you mean 'max_tokens'"):
        counting().request(ASK, max_token=3)
    with pytest.raises(LMError, match="no answer left"):
        ScriptedLM([])(prompt="x")
