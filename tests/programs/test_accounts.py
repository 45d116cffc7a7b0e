"""Budgets, books, limits: hard ones, also when many calls go out at once."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracedsl import program
from tracedsl.programs import (
    Example,
    JSONAdapter,
    LMResponse,
    OracleLM,
    Predict,
    ScriptedLM,
    configure,
    estimate,
)
from tracedsl.programs.lm.accounts import BudgetExceeded, budget, most_used, track_usage
from tracedsl.programs.lm.base import LMRequest, LMTransientError, Message, Usage
from tracedsl.programs.lm.limits import Limiter, Limits
from tracedsl.programs.lm.prices import Price, price_of
from tracedsl.programs.lm.rehearsal import rehearse

PRICE = Price(prompt=100.0, completion=1000.0)


class Greedy(ScriptedLM):
    """Uses as many tokens as a model could: one a byte, and all of `max_tokens`."""

    def __init__(self, seconds: float = 0.0, **settings: Any) -> None:
        super().__init__(lambda request: "x", **{"max_tokens": 10, "price": PRICE, "temperature": 1.0, **settings})
        self.seconds, self.under_way, self.most = seconds, 0, 0

    async def _asend(self, request: LMRequest) -> LMResponse:
        from tracedsl.programs.driving import current_io

        with self._lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        await current_io().sleep(self.seconds)
        with self._lock:
            self.under_way -= 1
        text = "".join(m.text for m in request.messages)
        return LMResponse((self._next(request),), Usage(len(text.encode()), request.max_tokens or 0, 1))


@pytest.mark.parametrize("limit", [{"calls": 7}, {"tokens": 500}, {"usd": 0.11}])
def test_calls_at_the_same_time_never_exceed_a_budget(limit: dict[str, float]) -> None:
    lm = Greedy(seconds=0.001)
    with budget(**limit) as account:
        def ask(i: int) -> bool:
            try:
                return bool(lm(f"question {i}"))
            except BudgetExceeded as error:
                assert error.limit in limit and not error.concerns_one_request
                return False

        with ThreadPoolExecutor(16) as pool:
            answered = sum(f.result() for f in [pool.submit(copy_context().run, ask, i) for i in range(60)])

        async def more() -> int:
            return sum(not isinstance(r, Exception) for r in await asyncio.gather(
                *(lm.acomplete(lm.request([Message("user", f"q {i}")])) for i in range(60)), return_exceptions=True))

        answered += asyncio.run(more())
    spent = {"calls": account.spent.calls, "tokens": account.spent.tokens, "usd": account.spent.usd}
    assert answered == lm.calls == account.spent.calls > 2
    for name, allowed in limit.items():
        assert spent[name] <= allowed + 1e-9
        most = {"calls": 1, "tokens": 60, "usd": 0.016}
        assert allowed - spent[name] < most[name]      # and nothing that could have been used is left


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4), st.integers(0, 50), st.integers(1, 3))
def test_what_is_reserved_is_never_too_little(texts: list[str], room: int, n: int) -> None:
    request = LMRequest(tuple(Message("user", t) for t in texts), max_tokens=room, n=n)
    most = most_used(request, PRICE, None)
    assert most.prompt_tokens >= sum(len(t.encode("utf-8", "surrogatepass")) for t in texts)
    assert most.completion_tokens == n * room and most.usd == PRICE.of(most.prompt_tokens, most.completion_tokens)


def test_budgets_within_budgets_all_count() -> None:
    lm = Greedy()
    with budget(calls=3) as outer:
        with budget(calls=2) as inner:
            lm("a"), lm("b")
            with pytest.raises(BudgetExceeded, match=r"2 calls of 2 calls.*\n(.*\n)*.*L014|L014"):
                lm("c")
        lm("d")
        with pytest.raises(BudgetExceeded):
            lm("e")
    assert (inner.spent.calls, outer.spent.calls, lm.calls) == (2, 3, 3)
    lm("f")


def test_cached_answers_are_free() -> None:
    lm = Greedy(cache=True, temperature=0.0)
    with budget(calls=1) as account:
        assert [lm("a") for _ in range(5)] == [["x"]] * 5
    assert (account.spent.calls, account.spent.cached_calls) == (1, 4)


def test_a_price_that_nobody_knows_is_said() -> None:
    lm = Greedy(price=None)
    with budget(usd=1.0), pytest.raises(BudgetExceeded, match="no known price"):
        lm("a")
    with budget(calls=1) as account:
        lm("a")
    assert account.spent.unpriced_calls == 1 and "without a known price" in str(account.spent)
    assert price_of("gpt-4o-mini-2024-07-18") == price_of("gpt-4o-mini") != price_of("gpt-4o")
    assert price_of("llama-3") is None and Price(0.15, 0.6).of(1_000_000, 500_000) == pytest.approx(0.45)


def test_a_try_of_which_nobody_knows_counts_in_full_and_a_refused_one_not_at_all() -> None:
    lost, refused = LMTransientError("L001", "lost"), LMTransientError("L004", "busy")
    refused.unbilled = True
    for error, calls in ((lost, 2), (refused, 1)):
        lm = ScriptedLM([error, "fine"], price=PRICE, max_tokens=10, sleep=lambda s: None)
        with budget(tokens=10_000) as account:
            lm("hello")
        assert account.spent.calls == calls
        lm = ScriptedLM([error, error, "fine"], price=PRICE, max_tokens=10, sleep=lambda s: None)
        with budget(calls=1):
            if error is lost:
                with pytest.raises(BudgetExceeded):
                    lm("hello")
            else:
                assert lm("hello") == ["fine"]


def test_seconds_end_waiting() -> None:
    lm = ScriptedLM([LMTransientError("L004", "busy")] * 9, num_retries=5)
    started = time.monotonic()
    with budget(seconds=0.3), pytest.raises(BudgetExceeded) as caught:
        lm("hello")
    assert caught.value.limit == "seconds" and time.monotonic() - started < 2
    with budget(seconds=-1), pytest.raises(BudgetExceeded):
        ScriptedLM(["x"])("hello")


def test_a_spent_budget_is_not_the_error_of_those_who_wait_with_their_own() -> None:
    go = threading.Event()

    def slow(request: LMRequest) -> Any:
        go.wait(5)
        return LMTransientError("L001", "lost") if lm.calls == 1 else "fine"

    lm = ScriptedLM(slow, cache=True, max_tokens=5, sleep=lambda s: None)

    def poor() -> Any:
        with budget(calls=1), pytest.raises(BudgetExceeded):
            lm("hello")

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(poor)
        while not lm.calls:
            time.sleep(0.001)
        others = [pool.submit(lm, "hello") for _ in range(3)]
        time.sleep(0.01)
        go.set()
        first.result()
        assert [o.result() for o in others] == [["fine"]] * 3


def test_what_was_used_by_call_site_and_model() -> None:
    configure(lm=OracleLM(1, price=PRICE), adapter=JSONAdapter())
    one, two = Predict("q -> a"), Predict("q -> b: int")
    with track_usage() as account:
        one(q="x")
        for _ in range(2):
            two(q="y")
        asyncio.run(two.acall(q="z"))
    calls = [(site.split(" ", 1)[1], spent.calls) for site, spent in account.by_site.items()]
    assert calls == [("q -> a", 1), ("q -> b: int", 2), ("q -> b: int", 1)]
    assert all(site.startswith("test_accounts.py:") for site in account.by_site)
    assert {m: s.calls for m, s in account.by_model.items()} == {"oracle-1": 4}

    @program
    def ask(q: str) -> str:
        return one(q=q).a

    with track_usage() as account:
        ask("x")
    assert len(account.by_site) == 1 and next(iter(account.by_site)).endswith("ask/0:Predict")


def test_a_dry_run_asks_nobody_and_bounds_what_is_used() -> None:
    lm = Greedy(cache=True, temperature=0.0, max_tokens=20)
    lm._function = lambda request: '{"n": 3, "a": "x"}'
    configure(lm=lm, adapter=JSONAdapter())
    first, second = Predict("q -> n: int"), Predict("n: int -> a")

    @program
    def steps(q: str) -> str:
        return second(n=first(q=q).n).a

    devset = [Example(q=q).with_inputs("q") for q in ("x", "y", "z", "x")]
    guess = estimate(steps, devset)
    assert lm.calls == 0 and guess.failures == () and guess.examples == 4
    assert guess.likely.calls == guess.most.calls == 6 and guess.most.cached_calls == 2
    with budget(usd=guess.most.usd, tokens=guess.most.tokens) as account:
        for example in devset:
            steps(**example.inputs())
    assert account.spent.tokens <= guess.most.tokens and guess.likely.usd < guess.most.usd
    asked = lm.calls
    again = estimate(steps, devset)
    assert again.most.calls == 0 and again.most.cached_calls == 8 and lm.calls == asked and "$0.0000" in str(again)
    with rehearse():
        assert lm("hello") == [""] and [c.text for c in lm.stream(lm.request([Message("user", "hi")]))] == [""]
    assert lm.calls == asked
    assert len(estimate(lambda q: 1 / 0, devset).failures) == 4


# -- limits ------------------------------------------------------------------------------------------------------------


def test_no_more_calls_than_slots() -> None:
    lm = Greedy(seconds=0.002, limits=Limits(concurrency=3))
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lm, [str(i) for i in range(24)]))
    assert lm.most == 3

    async def many() -> None:
        await asyncio.gather(*(lm.acomplete(lm.request([Message("user", str(i))])) for i in range(24)))

    lm.most = 0
    asyncio.run(many())
    assert lm.most == 3
    other = Greedy(seconds=0.002, limits=Limits(concurrency=3))     # the same endpoint
    assert other._limiter is None and other("x") and other._limiter is lm._limiter


def test_who_gives_up_waiting_leaves_no_slot_taken() -> None:
    lm = Greedy(seconds=0.01, model="give-up", limits=Limits(concurrency=2))

    async def many() -> None:
        tasks = [asyncio.create_task(lm.acomplete(lm.request([Message("user", str(i))]))) for i in range(20)]
        for round_ in range(6):
            await asyncio.sleep(0.002)
            for task in tasks[round_::7]:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert lm._limiter is not None and lm._limiter._free == 2 and not lm._limiter._queue
        await lm.acomplete(lm.request([Message("user", "again")]))

    asyncio.run(many())


def test_a_slot_is_never_waited_for_by_who_holds_it() -> None:
    lm = Greedy(model="nested", limits=Limits(concurrency=1))
    request = lm.request([Message("user", "a")])
    for chunk in lm.stream(request):
        assert lm.complete(request).texts == ("x",) or chunk

    async def within() -> None:
        async for _ in lm.astream(request):
            await lm.acomplete(request)
        slow = Greedy(0.05, model="nested", limits=Limits(concurrency=1))
        task = asyncio.create_task(slow.acomplete(request))
        await asyncio.sleep(0.01)
        lm.complete(request)        # blocks the loop that the task needs
        await task

    asyncio.run(within())


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@example([(33, 0.0), (24, 0.0), (11, 15.0), (2, 0.0)], 2, 37)     # the tokens hold a request back
@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0, 30)), max_size=30), st.integers(1, 5), st.integers(10, 60))
def test_no_minute_holds_more_than_allowed(calls: list[tuple[int, float]], requests: int, tokens: int) -> None:
    clock = Clock()
    limiter = Limiter(Limits(requests_per_minute=requests, tokens_per_minute=tokens), clock)
    made: list[tuple[float, int]] = []

    async def run() -> None:
        for amount, idle in calls:
            clock.now += idle
            given_pass = await limiter.enter(amount, clock.sleep)
            made.append((clock.now, amount))
            limiter.leave(given_pass)

    asyncio.run(run())
    for start, _ in made:
        window = [a for t, a in made if start <= t < start + 59.999]
        assert len(window) <= requests and (sum(window) <= tokens or len(window) == 1)


def test_what_was_not_used_is_free_again() -> None:
    clock = Clock()
    limiter = Limiter(Limits(tokens_per_minute=100), clock)

    async def run() -> None:
        for _ in range(2):
            limiter.leave(await limiter.enter(90, clock.sleep), 10)

    asyncio.run(run())
    assert clock.now == 100.0


def test_an_endpoint_that_asks_for_a_pause_gets_it_from_all() -> None:
    busy = LMTransientError("L004", "busy")
    busy.retry_after = 0.2
    times: list[float] = []

    def answer(request: LMRequest) -> Any:
        times.append(time.monotonic())
        return busy if len(times) == 1 else "fine"

    lm = ScriptedLM(answer, model="pause")
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(lm, "a")
        while not times:
            time.sleep(0.001)
        time.sleep(0.02)
        others = [pool.submit(lm, str(i)) for i in range(3)]
        assert [f.result() for f in (first, *others)] == [["fine"]] * 4
    assert len(times) == 5 and min(times[1:]) - started >= 0.2
