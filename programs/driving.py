"""One core, two faces: what waits is written once as `async def` and runs under asyncio or on the calling thread.

What holds here: `drive` runs a coroutine to its end on this thread, without an event loop, a background thread or
any state that other threads could see. That works because everything in this package that has to wait (for an
answer, for time to pass, for another call, for a free slot) asks `current_io` for the way to do it: within `drive` it
blocks the thread and the coroutine never suspends, otherwise it awaits. An event loop that is started within a driven
coroutine (a tool that calls `asyncio.run`) gets the asyncio way again.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from tracedsl.diagnostics import TracedslError
from tracedsl.programs.workers import Crew, Done, Gang, Item, T, Work

THREADS_OF_A_LOOP = 256


class IO(Protocol):
    """How to wait."""

    @property
    def blocking(self) -> bool:
        """Whether waiting blocks the thread."""

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""

    async def wait(self, future: Future[T]) -> T:
        """The result of a future that some thread or task will settle. Giving up waiting leaves the future alone."""

    async def call(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Call a function that may block: here and now, or on a thread while the event loop goes on."""

    def map(self, work: Work[Item, T], items: Iterable[Item], slots: int,
            ) -> AsyncGenerator[Done[T], None]:
        """See `as_done`."""


class WouldSuspend(TracedslError, RuntimeError):
    """A coroutine that needs an event loop was called without one."""


class _Drive:
    """One running `drive`: the event loop around it, if there is one, and whether it goes on."""

    __slots__ = ("active", "loop")

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.active = True


_drive: ContextVar[_Drive | None] = ContextVar("tracedsl_drive", default=None)


def running_loop() -> Any:
    """The event loop that runs in this thread, or None. Does not import asyncio: without it, there is none."""
    events = sys.modules.get("asyncio.events")
    return None if events is None else events._get_running_loop()


def who_runs() -> Any:
    """What runs here and could wait: the asyncio task, or the thread."""
    if running_loop() is not None:
        import asyncio

        if (task := asyncio.current_task()) is not None:
            return task
    return threading.get_ident()


def may_wait() -> bool:
    """Whether waiting for others is safe here: not if it blocks an event loop that they may need to go on."""
    return running_loop() is None or not current_io().blocking


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on this thread and return what it returns.

    Raises `WouldSuspend` P012 if it awaits something that only an event loop can provide.
    """
    mine = _Drive(running_loop())
    token = _drive.set(mine)
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        mine.active = False
        _drive.reset(token)
    coroutine.close()
    raise WouldSuspend("P012", f"{getattr(coroutine, '__qualname__', 'a coroutine')} waits for an event loop",
                       why="it was called without await",
                       hint="await module.acall(...), or asyncio.run(module.acall(...)) outside of asyncio")


def drive_each(source: AsyncGenerator[T, None]) -> Iterator[T]:
    """The items of an asynchronous generator, each driven on the thread that asks for it."""
    try:
        while True:
            try:
                yield drive(source.__anext__())
            except StopAsyncIteration:
                return
    finally:
        drive(source.aclose())


def current_io() -> IO:
    """The way to wait here: blocking within `drive`, unless an event loop was started inside of it."""
    mine = _drive.get()
    if mine is not None and mine.active and mine.loop is running_loop():
        return _BLOCKING
    return _ASYNCIO


def as_done(work: Work[Item, T], items: Iterable[Item], slots: int) -> AsyncGenerator[Done[T], None]:
    """Work on items, at most `slots` at the same time, each in a copy of the caller's context; yields each outcome as
    it comes. Items are taken one by one, as slots become free; whoever stops listening leaves the rest untouched
    (close the generator: `contextlib.aclosing`). Errors are outcomes too, also `KeyboardInterrupt`; the slot of an
    error stays empty until the listener has come back for more, so that it decides whether to go on."""
    return current_io().map(work, items, max(1, slots))


async def gather(work: Work[Item, T], items: Iterable[Item], slots: int) -> list[T]:
    """The results for all items, in their order. The first error ends it and is raised; what has not begun is not
    begun any more."""
    from contextlib import aclosing

    results: dict[int, Any] = {}
    async with aclosing(as_done(work, items, slots)) as outcomes:
        async for done in outcomes:
            if done.error is not None:
                raise done.error
            results[done.position] = done.result
    return [results[i] for i in range(len(results))]


async def pushed(function: Callable[[Callable[[Any], bool]], object]) -> AsyncGenerator[Any, None]:
    """What `function(push)` pushes, as it comes. The function runs on a thread of its own; `push` returns True once
    nobody listens any more. What it raises is raised here, after everything that it pushed."""
    pipe = _Pipe()
    threading.Thread(target=copy_context().run, args=(pipe.fill, function), name="tracedsl-pushed", daemon=True).start()
    try:
        while (items := pipe.take()) is not None:
            for item in items:
                yield item
            await current_io().wait(pipe.more)
    finally:
        pipe.closed = True
    if pipe.error is not None:
        raise pipe.error


class _Pipe:
    """Items from a thread to whoever listens, in either way of waiting."""

    def __init__(self) -> None:
        self.more: Future[None] = Future()
        self.closed = False
        self.error: BaseException | None = None
        self._items: list[Any] = []
        self._done = False
        self._lock = threading.Lock()

    def fill(self, function: Callable[[Callable[[Any], bool]], object]) -> None:
        try:
            function(self.push)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever listens
            self.error = error
        with self._lock:
            self._done = True
            self._tell()

    def push(self, item: Any) -> bool:
        with self._lock:
            self._items.append(item)
            self._tell()
        return self.closed

    def take(self) -> list[Any] | None:
        """What is there; None after the last."""
        with self._lock:
            items, self._items = self._items, []
            if not items and self._done:
                return None
            if not self._done:
                self.more = Future()
            return items

    def _tell(self) -> None:
        if not self.more.done():
            self.more.set_result(None)


# -- on the calling thread ---------------------------------------------------------------------------------------------


class _Blocking:
    blocking = True

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def wait(self, future: Future[T]) -> T:
        return future.result()

    async def call(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return function(*args, **kwargs)

    async def map(self, work: Work[Item, T], items: Iterable[Item], slots: int,
                  ) -> AsyncGenerator[Done[T], None]:
        """Threads that fetch their next item themselves, so that no slot waits for whoever listens. They are daemons:
        after Ctrl-C the process may end although a call is still under way."""
        crew = Crew(functools.partial(_drive_work, work), items, copy_context())
        try:
            crew.start(slots)
            while (done := crew.next()) is not None:
                yield done
        finally:
            crew.stop()


def _drive_work(work: Work[Any, T], item: Any) -> T:
    return drive(work(item))


# -- under asyncio -----------------------------------------------------------------------------------------------------


class _Asyncio:
    """Imports asyncio where it is used: whoever comes here has an event loop, and has loaded it."""

    blocking = False

    def __init__(self) -> None:
        self._pools: WeakKeyDictionary[Any, ThreadPoolExecutor] = WeakKeyDictionary()
        self._lock = threading.Lock()

    async def sleep(self, seconds: float) -> None:
        import asyncio

        await asyncio.sleep(seconds)

    async def wait(self, future: Future[T]) -> T:
        import asyncio

        if not future.done():
            loop = asyncio.get_running_loop()
            settled = loop.create_future()

            def tell() -> None:
                if not settled.done():
                    settled.set_result(None)

            def wake(_: Future[T]) -> None:
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(tell)

            future.add_done_callback(wake)
            await settled
        return future.result()

    async def call(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        import asyncio

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool(loop), functools.partial(copy_context().run, function, *args,
                                                                              **kwargs))

    def _pool(self, loop: Any) -> ThreadPoolExecutor:
        """Each loop has threads of its own, so that a loop within a thread of another never waits for its parent's."""
        with self._lock:
            if (pool := self._pools.get(loop)) is None:
                pool = self._pools[loop] = ThreadPoolExecutor(THREADS_OF_A_LOOP, thread_name_prefix="tracedsl-call")
            return pool

    async def map(self, work: Work[Item, T], items: Iterable[Item], slots: int,
                  ) -> AsyncGenerator[Done[T], None]:
        import asyncio

        gang = Gang(work, items, copy_context(), asyncio.Queue())
        try:
            gang.start(slots)
            while (done := await gang.outcomes.get()) is not None:
                yield done
                gang.seen(done)
        finally:
            await gang.stop()


_BLOCKING = _Blocking()
_ASYNCIO = _Asyncio()
