"""Workers that share a list of items: threads (`Crew`) or tasks of an event loop (`Gang`).

What holds here: workers fetch their next item themselves, so that no slot waits for whoever listens. Each item runs in
a copy of one context. A worker whose item failed takes no further one before the listener has seen the failure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")
Work = Callable[[Item], Coroutine[Any, Any, T]]


class Done(NamedTuple, Generic[T]):
    """How the work on one item ended: with a result, or with an error."""

    position: int
    result: T | None
    error: BaseException | None


class Crew:
    """Threads that work on items until there are none left."""

    def __init__(self, work: Callable[[Any], Any], items: Iterable[Any], context: Context) -> None:
        self._work = work
        self._todo = enumerate(items)
        self._context = context
        self._outcomes: SimpleQueue[tuple[Done[Any] | None, threading.Event | None]] = SimpleQueue()
        self._held: threading.Event | None = None
        self._lock = threading.Lock()
        self._running = 0
        self._stopped = False

    def start(self, slots: int) -> None:
        """As many threads as there are slots, or items if those are fewer."""
        for _ in range(slots):
            with self._lock:
                if (item := next(self._todo, None)) is None:
                    break
                self._running += 1
            threading.Thread(target=self._run, args=(item,), name="tracedsl-worker", daemon=True).start()
        if not self._running:
            self._outcomes.put((None, None))

    def next(self) -> Done[Any] | None:
        """The next outcome; None after the last one. Whoever waits for the latest one to be seen goes on."""
        if self._held is not None:
            self._held.set()
        done, self._held = self._outcomes.get()
        return done

    def stop(self) -> None:
        self._stopped = True
        if self._held is not None:
            self._held.set()
        while not self._outcomes.empty():
            _, held = self._outcomes.get()
            if held is not None:
                held.set()

    def _run(self, item: tuple[int, Any] | None) -> None:
        while item is not None:
            index, value = item
            try:
                result = self._context.copy().run(self._work, value)
                self._outcomes.put((Done(index, result, None), None))
            except BaseException as error:  # noqa: BLE001 - handed to whoever listens
                held = threading.Event()
                self._outcomes.put((Done(index, None, error), held))
                if not self._stopped:
                    held.wait()
            item = self._take()

    def _take(self) -> tuple[int, Any] | None:
        with self._lock:
            item = None
            try:
                item = None if self._stopped else next(self._todo, None)
            except BaseException as error:  # noqa: BLE001 - the iterable is somebody else's code
                self._stopped = True
                self._outcomes.put((Done(-1, None, error), None))
            if item is None:
                self._running -= 1
                if self._running == 0:
                    self._outcomes.put((None, None))
            return item


class Gang:
    """Tasks that work on items until there are none left."""

    def __init__(self, work: Work[Any, Any], items: Iterable[Any], context: Context, outcomes: Any) -> None:
        self.outcomes = outcomes
        self._work = work
        self._todo = enumerate(items)
        self._context = context
        self._runners: list[Any] = []
        self._held: dict[int, Any] = {}
        self._running = 0

    def start(self, slots: int) -> None:
        import asyncio

        for _ in range(slots):
            if (item := next(self._todo, None)) is None:
                break
            self._running += 1
            self._runners.append(asyncio.create_task(self._run(item)))
        if not self._running:
            self.outcomes.put_nowait(None)

    async def stop(self) -> None:
        """Cancel what is under way, and wait until it has ended."""
        import asyncio

        for task in self._runners:
            task.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)

    def seen(self, done: Done[Any]) -> None:
        """The listener has come back after this outcome."""
        held = self._held.pop(done.position, None)
        if held is not None:
            held.set_result(None)

    async def _run(self, item: tuple[int, Any] | None) -> None:
        import asyncio

        try:
            while item is not None:
                done = await self._outcome(*item)
                self.outcomes.put_nowait(done)
                if done.error is not None:
                    held = self._held[done.position] = asyncio.get_running_loop().create_future()
                    await held
                item = self._take()
        finally:
            self._running -= 1
            if self._running == 0:
                self.outcomes.put_nowait(None)

    async def _outcome(self, index: int, value: Any) -> Done[Any]:
        import asyncio

        mine = asyncio.current_task()
        try:
            return Done(index, await asyncio.create_task(self._work(value), context=self._context.copy()), None)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and mine is not None and mine.cancelling():
                raise
            return Done(index, None, error)

    def _take(self) -> tuple[int, Any] | None:
        try:
            return next(self._todo, None)
        except Exception as error:  # noqa: BLE001 - the iterable is somebody else's code
            self.outcomes.put_nowait(Done(-1, None, error))
            return None
