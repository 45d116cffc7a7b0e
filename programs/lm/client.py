"""The one path that every call takes: memory, disk, calls under way, the model itself, retries, the books.

What holds here: `acomplete` is the only way to a model; `complete` drives the same coroutine on the calling thread, and
`astream` and `stream` hand out what the model says as it comes. A request that may be cached is answered by the model
once, also when many threads and tasks ask at the same time. A call is repeated only after a failure that may pass, at
most `num_retries` times, and never after a programming error.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

from tracedsl.cache import Key, Store, digest
from tracedsl.diagnostics import nearest
from tracedsl.programs.driving import current_io, drive, drive_each, who_runs
from tracedsl.programs.lm.accounts import (
    Account,
    Spent,
    current_site,
    most_used,
    open_accounts,
    out_of_time,
    remaining_seconds,
    used_by,
)
from tracedsl.programs.lm.answers import Answers
from tracedsl.programs.lm.base import (
    REQUEST_SETTINGS,
    Capability,
    Constraint,
    LMChunk,
    LMError,
    LMRequest,
    LMResponse,
    LMTransientError,
    Message,
    Usage,
)
from tracedsl.programs.lm.limits import Limiter, Limits, Pass, limiter_of
from tracedsl.programs.lm.prices import Price
from tracedsl.programs.lm.rehearsal import Rehearsal, current_rehearsal

if TYPE_CHECKING:
    from tracedsl.programs.adapters.base import Adapter

_HISTORY_ENTRIES = 1000
_LIKELY_ANSWER = 512
_LONGEST_WAIT = 60.0


class HistoryEntry(NamedTuple):
    """One call as it happened: `seconds` it took, `when` it ended (Unix time)."""

    request: LMRequest
    response: LMResponse
    seconds: float
    when: float


class LMClient:
    """Base of the language models: everything but the call itself.

    An implementation writes `_asend`, or `_send` if it can only block; `_astream` if it can hand out pieces.

    Args:
        model: the model's name, as the endpoint or the registry knows it.
        temperature, max_tokens: defaults of the requests; `temperature=None` leaves it to the endpoint.
        cache: whether repeatable requests are answered from memory and disk.
        cache_ttl: how many seconds a known answer counts; None: for ever.
        num_retries: how often a failure that may pass is tried again.
        limits: what the endpoint allows; shared by all clients of an endpoint with the same limits.
        price: what the model costs; None: what the price table says.
        store: where answers are kept; None is the user's cache folder.
        sleep: how to wait, in seconds; None: `time.sleep`, or asyncio's.
    """

    def __init__(self, model: str, *, temperature: float | None = 0.0, max_tokens: int | None = None,
                 cache: bool = True, cache_ttl: float | None = None, num_retries: int = 3,
                 limits: Limits | None = None, price: Price | None = None, store: Store | None = None,
                 sleep: Callable[[float], None] | None = None) -> None:
        self.model = model
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.cache = cache
        self.num_retries = num_retries
        self.price = price
        self._limits = limits or Limits()
        self._limiter: Limiter | None = None
        self._store = store if store is not None else Store()
        self._sleep = sleep
        self._lock = threading.Lock()
        self._known = Answers(self._store, self.cache_key, cache_ttl)
        self._usage = Usage()
        self._history: deque[HistoryEntry] = deque(maxlen=_HISTORY_ENTRIES)

    # -- what an implementation says -----------------------------------------------------------------------------

    async def _asend(self, request: LMRequest) -> LMResponse:
        """Ask the model once. Raises `LMTransientError` for what may pass, `LMError` for the rest. Waits only by
        `current_io()`, so that it never suspends when it is driven."""
        return await current_io().call(self._send, request)

    def _send(self, request: LMRequest) -> LMResponse:
        """The same for a model that can only block."""
        raise NotImplementedError(f"{type(self).__name__} has neither _asend() nor _send()")

    async def _astream(self, request: LMRequest) -> AsyncGenerator[LMChunk, None]:
        """Ask the model once and yield pieces as they come; the last chunk holds the whole response."""
        response = await self._asend(request)
        for chunk in _in_one_piece(response):
            yield chunk
        yield LMChunk(response=response)

    @property
    def endpoint(self) -> str:
        """Where the model runs: part of the cache's key. Never holds a credential."""
        return ""

    @property
    def constraints(self) -> frozenset[Constraint]:
        return frozenset()

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset()

    @property
    def default_adapter(self) -> Adapter:
        from tracedsl.programs.adapters.chat import ChatAdapter

        return ChatAdapter()

    # -- what all of them do -------------------------------------------------------------------------------------

    @property
    def identity(self) -> str:
        return f"{self.model} @ {self.endpoint}" if self.endpoint else self.model

    def request(self, messages: Iterable[Message], **config: Any) -> LMRequest:
        for name in config:
            if name not in REQUEST_SETTINGS:
                raise LMError("L003", f"unknown setting {name!r} for a call", hint=nearest(name, REQUEST_SETTINGS))
        settings = {"temperature": self.temperature, "max_tokens": self.max_tokens, **config}
        stop = settings.get("stop") or ()
        settings["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        return LMRequest(tuple(messages), **settings)

    async def acomplete(self, request: LMRequest) -> LMResponse:
        """Answer a request; raises `LMError`. Safe from any number of threads and tasks."""
        if (rehearsal := current_rehearsal()) is not None:
            return self._rehearsed(request, rehearsal)
        started = time.perf_counter()
        if self.cache and request.cacheable:
            response = self._known.in_memory(request)
            if response is None:
                response = await self._known.answer(request, self._ask)
        else:
            response = await self._ask(request)
        self._book(request, response, time.perf_counter() - started)
        return response

    def complete(self, request: LMRequest) -> LMResponse:
        """As `acomplete`, on the calling thread."""
        return drive(self.acomplete(request))

    async def astream(self, request: LMRequest) -> AsyncGenerator[LMChunk, None]:
        """The answer in pieces as they come, then a chunk with the whole response. A known answer, and that of a model
        which cannot stream, comes in one piece. A call that fails is tried again only before its first piece."""
        if (rehearsal := current_rehearsal()) is not None:
            yield LMChunk(response=self._rehearsed(request, rehearsal))
            return
        started = time.perf_counter()
        caching = self.cache and request.cacheable
        response = self._known.look_up(request) if caching else None
        if response is not None:
            for chunk in _in_one_piece(response):
                yield chunk
        else:
            async with aclosing(self._stream(request)) as pieces:
                async for chunk in pieces:
                    if chunk.response is None:
                        yield chunk
                    response = chunk.response
            if response is None:
                raise LMError("L005", f"{self.model} ended its answer without saying so")
            if caching:
                await self._known.keep(request, response)
        self._book(request, response, time.perf_counter() - started)
        yield LMChunk(response=response)

    def stream(self, request: LMRequest) -> Iterator[LMChunk]:
        """As `astream`, on the calling thread."""
        return drive_each(self.astream(request))

    def __call__(self, prompt: str | None = None, messages: Iterable[Mapping[str, str]] | None = None,
                 **config: Any) -> list[str]:
        """Ask with plain text or with chat messages, as in DSPy; returns the answers' texts."""
        chat = [Message(m["role"], m["content"]) for m in messages or ()] or [Message("user", prompt or "")]
        return list(self.complete(self.request(chat, **config)).texts)

    @property
    def usage(self) -> Usage:
        """The sum over all calls of this object so far."""
        return self._usage

    @property
    def history(self) -> list[HistoryEntry]:
        """The latest calls, oldest first."""
        with self._lock:
            return list(self._history)

    def dump_state(self) -> dict[str, Any]:
        return {"model": self.model, "temperature": self.temperature, "max_tokens": self.max_tokens}

    def cache_key(self, request: LMRequest) -> Key:
        """The key of an answer on disk; messages go in as a digest, so that the key stays short."""
        whole = request.as_json()
        messages = whole.pop("messages")
        parts = {name: str(value) for name, value in whole.items()}
        parts["messages"] = digest(json.dumps(messages, ensure_ascii=False))
        return Key("lm", self.model, {**parts, "endpoint": self.endpoint})

    def __deepcopy__(self, memo: dict[int, Any]) -> LMClient:
        return self  # programs are copied, models are shared

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"  # `identity` may have to read a file

    # -- the path ------------------------------------------------------------------------------------------------

    def _rehearsed(self, request: LMRequest, rehearsal: Rehearsal) -> LMResponse:
        """The known answer, else an empty one."""
        known = self._known.look_up(request) if self.cache and request.cacheable else None
        usual = self._usage.completion_tokens / self._usage.calls if self._usage.calls else None
        rehearsal.note(self.identity, request, self.price, usual, known is not None)
        return known if known is not None else LMResponse(("",) * request.n)

    async def _ask(self, request: LMRequest) -> LMResponse:
        """Ask the model, again after failures that may pass."""
        for attempt in range(self.num_retries + 1):
            held = await self._admit(request)
            try:
                response = await self._asend(request)
            except BaseException as error:
                if held is not None:
                    held.failed(error)
                if not isinstance(error, LMTransientError):
                    raise
                await self._wait_after(error, attempt)
                continue
            if held is not None:
                held.answered(response)
            return response
        raise AssertionError("unreachable")

    async def _stream(self, request: LMRequest) -> AsyncGenerator[LMChunk, None]:
        """As `_ask`, in pieces. What has been handed out cannot be taken back, so after it nothing is repeated."""
        for attempt in range(self.num_retries + 1):
            held, begun, response = await self._admit(request), False, None
            try:
                async with aclosing(self._astream(request)) as pieces:
                    async for chunk in pieces:
                        begun, response = True, chunk.response
                        yield chunk
            except BaseException as error:
                if held is not None:
                    held.failed(error)
                if begun or not isinstance(error, LMTransientError):
                    raise
                await self._wait_after(error, attempt)
                continue
            if held is not None:
                held.answered(response)
            return

    async def _admit(self, request: LMRequest) -> _Held | None:
        """Reserve what a try can use and wait for its turn; None if there is nothing to keep to."""
        limiter = self._limiter
        if limiter is None:
            limiter = self._limiter = limiter_of(self.identity, self._limits)
        accounts = open_accounts()
        if not accounts and limiter.open:
            return None
        price = self.price
        most = most_used(request, price, None)
        site = current_site() if accounts else ""
        held = _Held(limiter, accounts, most, site, self.model, price)
        await held.reserve()
        try:
            likely = most.prompt_tokens // 4 + (request.n * (request.max_tokens or _LIKELY_ANSWER))
            held.slot = await limiter.enter(likely, self._pause)
            held.check_time()
        except BaseException:
            held.give_back()
            raise
        return held

    async def _wait_after(self, error: LMTransientError, attempt: int) -> None:
        """Wait 0.5, 1, 2, ... seconds with a random part, or let nobody call for as long as the endpoint says; raises
        the error if there is no next time."""
        asked = error.retry_after
        wait = 0.5 * 2**attempt * random.uniform(0.5, 1.0) if asked is None else asked
        if attempt == self.num_retries or wait > _LONGEST_WAIT:
            raise error
        if asked is not None and self._limiter is not None:
            self._limiter.pause(asked)
        else:
            await self._pause(wait)

    async def _pause(self, seconds: float) -> None:
        """Wait; raises `BudgetExceeded` at once if the time is not left."""
        if seconds > remaining_seconds():
            raise out_of_time(seconds)
        if self._sleep is not None:
            await current_io().call(self._sleep, seconds)
        else:
            await current_io().sleep(seconds)

    def _book(self, request: LMRequest, response: LMResponse, seconds: float) -> None:
        if response.cached:
            for account in open_accounts():
                account.note_cached(current_site(), self.model)
        with self._lock:
            self._usage += response.usage
            self._history.append(HistoryEntry(request, response, seconds, time.time()))


class _Held:
    """What one try holds: reservations in the accounts, and a slot of the endpoint."""

    def __init__(self, limiter: Limiter, accounts: tuple[Account, ...], most: Spent, site: str, model: str,
                 price: Price | None) -> None:
        self.slot: Pass | None = None
        self._who = who_runs()
        self._limiter, self._accounts, self._most, self._price = limiter, accounts, most, price
        self._site, self._model = site, model

    async def reserve(self) -> None:
        """In all accounts or none."""
        done: list[Account] = []
        try:
            for account in self._accounts:
                await account.reserve(self._most, self._who)
                done.append(account)
        except BaseException:
            for account in done:
                account.settle(self._most, Spent(), self._who, self._site, self._model)
            raise

    def check_time(self) -> None:
        """Raise if the time ran out while the call waited for its turn."""
        if self._accounts and remaining_seconds() <= 0:
            raise out_of_time(0.0)

    def answered(self, response: LMResponse | None) -> None:
        self._settle(self._most if response is None else used_by(response, self._price))

    def failed(self, error: BaseException) -> None:
        """What was refused used nothing; of everything else nobody knows, so it counts in full."""
        self._settle(Spent() if getattr(error, "unbilled", False) else self._most)

    def give_back(self) -> None:
        self._settle(Spent())

    def _settle(self, used: Spent) -> None:
        for account in self._accounts:
            account.settle(self._most, used, self._who, self._site, self._model)
        if self.slot is not None:
            self._limiter.leave(self.slot, used.tokens)


def _in_one_piece(response: LMResponse) -> Iterator[LMChunk]:
    """The whole of each answer as one chunk."""
    for i, text in enumerate(response.texts):
        yield LMChunk(text, response.reasoning[i] if response.reasoning else "", i)
