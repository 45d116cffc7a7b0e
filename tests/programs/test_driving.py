"""One core, two faces: blocking without a loop, awaiting within one."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import pytest

from tracedsl.programs import ChainOfThought, Module, OracleLM, PlainAdapter, Predict, ScriptedLM, context
from tracedsl.programs.driving import WouldSuspend, as_done, current_io, drive, drive_each, gather
from tracedsl.programs.types import FieldError

here: ContextVar[str] = ContextVar("here", default="outside")


async def way() -> bool:
    return current_io().blocking


def test_a_driven_coroutine_blocks_and_an_awaited_one_does_not() -> None:
    assert drive(way()) is True
    assert asyncio.run(way()) is False


def test_a_loop_within_a_driven_coroutine_awaits() -> None:
    async def tool() -> list[bool]:
        return [current_io().blocking, asyncio.run(way()), current_io().blocking]

    async def outer() -> list[Any]:
        with ThreadPoolExecutor(1) as pool:     # a loop is running here, so a blocking call blocks it
            return [drive(way()), current_io().blocking, pool.submit(drive, tool()).result()]

    assert drive(tool()) == [True, False, True]
    assert asyncio.run(outer()) == [True, False, [True, False, True]]


def test_a_task_that_was_started_by_a_driven_coroutine_awaits() -> None:
    async def main() -> bool:
        tasks = []

        async def starts() -> None:
            tasks.append(asyncio.create_task(way()))

        drive(starts())
        return await tasks[0]

    assert asyncio.run(main()) is False


def test_what_needs_a_loop_says_so() -> None:
    class Sleeps(Module):
        async def aforward(self) -> str:
            await asyncio.sleep(0)
            return "done"

    class Yields(Module):
        async def aforward(self) -> None:
            await asyncio.get_running_loop().create_future()

    assert asyncio.run(Sleeps().acall()) == "done"
    with pytest.raises(WouldSuspend, match="acall"):
        Sleeps()()
    with pytest.raises(RuntimeError):
        Yields()()


def test_either_form_of_a_module_gives_the_other() -> None:
    class Plain(Module):
        def forward(self, x: int) -> tuple[int, bool]:
            return x + 1, threading.current_thread() is threading.main_thread()

    class Async(Module):
        async def aforward(self, x: int) -> int:
            return x + 1

    class PlainAgain(Async):
        def forward(self, x: int) -> int:
            return x + 2

    assert Plain()(1) == (2, True) and asyncio.run(Plain().acall(1)) == (2, False)
    assert Async()(1) == asyncio.run(Async().acall(1)) == 2
    assert PlainAgain()(1) == asyncio.run(PlainAgain().acall(1)) == 3
    with pytest.raises(NotImplementedError):
        Module()()
    with pytest.raises(NotImplementedError):
        asyncio.run(Module().acall())


@pytest.mark.parametrize("module", [Predict("q -> a: int"), ChainOfThought("q -> a: int")])
def test_both_faces_of_a_module_answer_the_same(module: Any) -> None:
    with context(lm=OracleLM(1)):
        assert module(q="x") == asyncio.run(module.acall(q="x"))


def test_waiting_for_a_future_leaves_it_alone() -> None:
    async def main() -> int:
        future: Future[int] = Future()
        task = asyncio.create_task(current_io().wait(future))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not future.cancelled()
        threading.Timer(0.01, future.set_result, [3]).start()
        return await current_io().wait(future)

    assert asyncio.run(main()) == 3


def both(work: Any, items: Any, slots: int) -> list[list[Any]]:
    async def collect() -> list[Any]:
        async with aclosing(as_done(work, items() if callable(items) else items, slots)) as outcomes:
            return [done async for done in outcomes]

    return [drive(collect()), asyncio.run(collect())]


def test_no_more_run_than_there_are_slots() -> None:
    lock, now, most = threading.Lock(), [0], [0]

    async def work(i: int) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        await current_io().sleep(0.002)
        with lock:
            now[0] -= 1
        return i * i

    for outcomes in both(work, range(40), 4):
        assert sorted((d.position, d.result) for d in outcomes) == [(i, i * i) for i in range(40)]
    assert most == [4] and both(work, [], 4) == [[], []]


def test_errors_are_outcomes_also_those_of_the_items() -> None:
    async def work(i: int) -> float:
        return 1 / i

    def items() -> Any:
        yield 1
        yield 0
        raise KeyError("no more")

    for outcomes in both(work, items, 1):
        assert [type(d.error) for d in outcomes] == [type(None), ZeroDivisionError, KeyError]


def test_whoever_stops_listening_leaves_the_rest_untouched() -> None:
    begun: list[int] = []
    gate = threading.Event()

    async def work(i: int) -> int:
        begun.append(i)
        while i and not gate.is_set():
            await current_io().sleep(0.001)
        return i

    async def first() -> None:
        async with aclosing(as_done(work, range(10_000), 2)) as outcomes:
            async for _ in outcomes:
                break

    for run in (drive, asyncio.run):
        begun.clear()
        gate.clear()
        run(first())
        gate.set()
        time.sleep(0.02)
        assert len(begun) <= 3      # the one that ended, and one in each slot

    async def fails(i: int) -> None:
        begun.append(i)
        raise ValueError(i)

    for run in (drive, asyncio.run):
        begun.clear()
        with pytest.raises(ValueError, match="0"):
            run(gather(fails, range(1000), 1))
        assert begun == [0]
    assert drive(gather(lambda i: work(i), [3, 4], 2)) == [3, 4]


def test_each_item_has_a_context_of_its_own() -> None:
    async def work(i: int) -> str:
        seen = here.get()
        here.set(str(i))
        return seen

    here.set("caller")
    for outcomes in both(work, range(6), 2):
        assert {d.result for d in outcomes} == {"caller"}


def test_a_generator_is_driven_piece_by_piece_and_closed() -> None:
    log: list[str] = []

    async def pieces() -> Any:
        try:
            for i in range(3):
                assert current_io().blocking
                yield i
        finally:
            log.append("closed")

    assert list(drive_each(pieces())) == [0, 1, 2]
    for piece in drive_each(pieces()):
        assert piece == 0
        break
    assert log == ["closed", "closed"]


def test_many_answers_in_their_order() -> None:
    lm = ScriptedLM(lambda request: "A: " + request.messages[-1].text[-1])
    program = Predict("q -> a")
    with context(lm=lm, adapter=PlainAdapter()):
        questions = [{"q": str(i % 10)} for i in range(50)]
        assert [p.a for p in program.batch(questions)] == [q["q"] for q in questions]
        assert [p.a for p in asyncio.run(program.abatch(questions, 3))] == [q["q"] for q in questions]
        questions[7] = {"x": "7"}   # no such field
        with pytest.raises(FieldError):
            program.batch(questions)
        assert program.batch(questions, max_errors=1)[7] is None
        good, failed, errors = program.batch(questions, return_failed_examples=True)
        assert len(good) == 49 and failed == [{"x": "7"}] and isinstance(errors[0], FieldError)
