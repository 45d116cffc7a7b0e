"""Known answers: in memory, on disk, and those of calls that are under way.

What holds here: a request is answered by the model once for all who ask at the same time, threads and tasks alike. What
fails for the one who asks fails with the same error for those who wait, unless it concerned the asker alone (a spent
budget, Ctrl-C, a cancelled task): then one of them asks. Answers are immutable, so nobody can change what another one
gets. A key holds a digest of the messages, the endpoint and the settings; never a credential.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from tracedsl.cache import Key, Store
from tracedsl.programs.driving import current_io
from tracedsl.programs.lm.base import LMRequest, LMResponse, Usage
from tracedsl.programs.lm.stored import from_json, to_json

MEMORY_ENTRIES = 4096


class Abandoned(Exception):
    """Whoever asked for all was stopped before the answer came."""


@dataclass(frozen=True)
class _Flight:
    """A call under way, and the thread that makes it (or whose event loop does)."""

    future: Future[LMResponse]
    thread: int


@dataclass(frozen=True)
class _Kept:
    """An answer in memory, as it is given out again, and when it goes stale (Unix time)."""

    response: LMResponse
    until: float


class Answers:
    """The known answers of one model. `ttl` is how many seconds an answer counts; None: for ever."""

    def __init__(self, store: Store, key_of: Callable[[LMRequest], Key], ttl: float | None = None,
                 entries: int = MEMORY_ENTRIES) -> None:
        self._store = store
        self._key_of = key_of
        self._ttl = float("inf") if ttl is None else ttl
        self._entries = entries
        self._lock = threading.Lock()
        self._memory: OrderedDict[LMRequest, _Kept] = OrderedDict()
        self._under_way: dict[LMRequest, _Flight] = {}

    def in_memory(self, request: LMRequest) -> LMResponse | None:
        """The answer, if it is in memory and fresh."""
        with self._lock:
            kept = self._memory.get(request)
            if kept is None:
                return None
            if kept.until < time.time():
                del self._memory[request]
                return None
            self._memory.move_to_end(request)
            return kept.response

    def look_up(self, request: LMRequest) -> LMResponse | None:
        """The answer from memory or disk."""
        found = self.in_memory(request)
        return found if found is not None else self._from_disk(request)

    async def answer(self, request: LMRequest,
                     ask: Callable[[LMRequest], Coroutine[Any, Any, LMResponse]]) -> LMResponse:
        """From memory, from a call under way, from disk, or from the model: in this order."""
        while True:
            with self._lock:
                flight = self._under_way.get(request)
                if flight is None and request not in self._memory:
                    mine: Future[LMResponse] = Future()
                    self._under_way[request] = _Flight(mine, threading.get_ident())
                    break
            if flight is None:
                if (found := self.in_memory(request)) is not None:
                    return found
                continue
            io = current_io()
            if io.blocking and flight.thread == threading.get_ident():
                return await ask(request)   # this very thread has to go on for that call to end
            try:
                return for_free(await io.wait(flight.future))
            except Abandoned:
                continue
        return await self._lead(request, mine, ask)

    async def _lead(self, request: LMRequest, mine: Future[LMResponse],
                    ask: Callable[[LMRequest], Coroutine[Any, Any, LMResponse]]) -> LMResponse:
        """Ask on behalf of all who wait for this request."""
        try:
            response = self._from_disk(request)
            if response is None:
                response = await ask(request)
                await self.keep(request, response)
        except BaseException as error:
            with self._lock:
                del self._under_way[request]
            shared = isinstance(error, Exception) and not getattr(error, "concerns_asker_alone", False)
            mine.set_exception(error if shared else Abandoned())
            raise
        with self._lock:
            del self._under_way[request]
        mine.set_result(response)
        return response

    async def keep(self, request: LMRequest, response: LMResponse) -> None:
        """Keep an answer, in memory first: whoever is stopped while it goes to disk has not asked in vain."""
        self._remember(request, response, time.time())
        await current_io().call(self._store.put, self._key_of(request), None, to_json(response))

    def _from_disk(self, request: LMRequest) -> LMResponse | None:
        entry = self._store.get(self._key_of(request))
        if entry is None or entry.created + self._ttl < time.time():
            return None
        response = from_json(entry.meta)
        return None if response is None else self._remember(request, response, entry.created)

    def _remember(self, request: LMRequest, response: LMResponse, created: float) -> LMResponse:
        free = for_free(response)
        with self._lock:
            self._memory[request] = _Kept(free, created + self._ttl)
            while len(self._memory) > self._entries:
                self._memory.popitem(last=False)
        return free


def for_free(response: LMResponse) -> LMResponse:
    """A known answer as it is given out again: nothing was used for it."""
    return response if response.cached else replace(response, usage=Usage(cached_calls=1), cached=True)
