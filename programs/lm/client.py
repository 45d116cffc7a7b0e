"""The one path that every call takes: memory, disk, calls under way, the model itself, retries, the books.

What holds here: `complete` is the only way to a model. A request that may be cached is answered by the model once, also
when many threads ask at the same time; what fails for all of them fails with the same error. A call is repeated only
after a failure that may pass, at most `num_retries` times, and never after a programming error.
"""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tracedsl.cache import Key, Store, digest
from tracedsl.diagnostics import nearest
from tracedsl.programs.lm.base import (
    REQUEST_SETTINGS,
    Capability,
    Constraint,
    LMError,
    LMRequest,
    LMResponse,
    LMTransientError,
    Message,
    Usage,
)

if TYPE_CHECKING:
    from tracedsl.programs.adapters.base import Adapter

_MEMORY_ENTRIES = 4096
_HISTORY_ENTRIES = 1000
_LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class HistoryEntry:
    """One call as it happened: `seconds` it took, `when` it ended (Unix time)."""

    request: LMRequest
    response: LMResponse
    seconds: float
    when: float


class LMClient(ABC):
    """Base of the language models: everything but the call itself.

    Args:
        model: the model's name, as the endpoint or the registry knows it.
        temperature, max_tokens: defaults of the requests; `temperature=None` leaves it to the endpoint.
        cache: whether repeatable requests are answered from memory and disk.
        num_retries: how often a failure that may pass is tried again.
        store: where answers are kept; None is the user's cache folder.
        sleep: how to wait, in seconds.
    """

    def __init__(self, model: str, *, temperature: float | None = 0.0, max_tokens: int | None = None,
                 cache: bool = True, num_retries: int = 3, store: Store | None = None,
                 sleep: Callable[[float], None] = time.sleep) -> None:
        self.model = model
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.cache = cache
        self.num_retries = num_retries
        self._store = store if store is not None else Store()
        self._sleep = sleep
        self._lock = threading.Lock()
        self._memory: OrderedDict[str, LMResponse] = OrderedDict()
        self._under_way: dict[str, Future[LMResponse]] = {}
        self._usage = Usage()
        self._history: deque[HistoryEntry] = deque(maxlen=_HISTORY_ENTRIES)

    # -- what an implementation says -----------------------------------------------------------------------------

    @abstractmethod
    def _send(self, request: LMRequest) -> LMResponse:
        """Ask the model once. Raises `LMTransientError` for what may pass, `LMError` for the rest."""

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

    def complete(self, request: LMRequest) -> LMResponse:
        """Answer a request; raises `LMError`. Safe from any number of threads."""
        started = time.perf_counter()
        if not (self.cache and request.cacheable):
            response = self._ask(request)
        else:
            response = self._complete_once(request)
        self._book(request, response, time.perf_counter() - started)
        return response

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

    def _complete_once(self, request: LMRequest) -> LMResponse:
        """From memory, from a call under way, from disk, or from the model: in this order."""
        key = self.cache_key(request)
        while True:
            with self._lock:
                if (known := self._memory.get(key.digest)) is not None:
                    self._memory.move_to_end(key.digest)
                    return _for_free(known)
                waiting = self._under_way.get(key.digest)
                if waiting is None:
                    mine: Future[LMResponse] = Future()
                    self._under_way[key.digest] = mine
                    break
            try:
                return _for_free(waiting.result())
            except Abandoned:
                continue  # who asked was interrupted; somebody else has to ask
        return self._lead(key, request, mine)

    def _lead(self, key: Key, request: LMRequest, mine: Future[LMResponse]) -> LMResponse:
        """Ask on behalf of all threads that wait for this request."""
        try:
            response = self._from_disk(key)
            if response is None:
                response = self._ask(request)
                self._to_disk(key, response)
        except Exception as error:
            self._leave(key)
            mine.set_exception(error)
            raise
        except BaseException:
            self._leave(key)
            mine.set_exception(Abandoned())
            raise
        with self._lock:
            self._memory[key.digest] = response
            while len(self._memory) > _MEMORY_ENTRIES:
                self._memory.popitem(last=False)
        self._leave(key)
        mine.set_result(response)
        return response

    def _leave(self, key: Key) -> None:
        with self._lock:
            del self._under_way[key.digest]

    def _ask(self, request: LMRequest) -> LMResponse:
        """Ask the model, again after failures that may pass, waiting 0.5, 1, 2, ... seconds or as long as it says."""
        for attempt in range(self.num_retries + 1):
            try:
                return self._send(request)
            except LMTransientError as error:
                if attempt == self.num_retries:
                    raise
                wait = error.retry_after if error.retry_after is not None else 0.5 * 2**attempt
                if wait > _LONGEST_WAIT:
                    raise
            self._sleep(wait)
        raise AssertionError("unreachable")

    def _from_disk(self, key: Key) -> LMResponse | None:
        entry = self._store.get(key)
        if entry is None:
            return None
        meta = entry.meta
        return _for_free(LMResponse(tuple(meta["texts"]), finish_reason=meta["finish_reason"]))

    def _to_disk(self, key: Key, response: LMResponse) -> None:
        self._store.put(key, meta={
            "texts": list(response.texts), "finish_reason": response.finish_reason,
            "prompt_tokens": response.usage.prompt_tokens, "completion_tokens": response.usage.completion_tokens})

    def _book(self, request: LMRequest, response: LMResponse, seconds: float) -> None:
        with self._lock:
            self._usage += response.usage
            self._history.append(HistoryEntry(request, response, seconds, time.time()))


def _for_free(response: LMResponse) -> LMResponse:
    """A known answer as it is given out again: nothing was used for it."""
    return replace(response, usage=Usage(cached_calls=1), cached=True)


class Abandoned(Exception):
    """Whoever asked for all was interrupted (Ctrl-C, a stopped thread) before the answer came."""
