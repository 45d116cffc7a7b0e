"""Interception of the `openai` client in code as it is: `with trace(): ...`, and within programs.

What holds here: outside of a `trace` (and of a program's run) the client does what it always does. Within one, its
calls for chat completions and responses go through a copy of the user's client whose transport is `traffic`: same
types, same errors, same retries, plus known answers, one call for equal requests, budgets, books and a record of each
call. The client package is touched once, when the first trace begins; what other code put in place of its methods is
called, not replaced. A trace belongs to the thread or task that opened it, and to those that this package starts from
there.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

from tracedsl.cache import Store
from tracedsl.programs.lm.accounts import Account, budget, call_site
from tracedsl.programs.lm.base import LMRequest, LMResponse
from tracedsl.programs.lm.traffic import AsyncTraffic, Carried, HttpLM, HttpRequest, SyncTraffic

# What is intercepted: module below `openai.resources`, class, methods; how a method is called.
_METHODS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("chat.completions.completions", "Completions", {"create": "call", "parse": "call", "stream": "call"}),
    ("chat.completions.completions", "AsyncCompletions", {"create": "await", "parse": "await", "stream": "call"}),
    ("responses.responses", "Responses", {"create": "call", "parse": "call", "stream": "call"}),
    ("responses.responses", "AsyncResponses", {"create": "await", "parse": "await", "stream": "call"}),
)
MARK = "__tracedsl_intercepted__"
_OURS = ("tracedsl", "openai", "httpx", "httpx2", "httpcore")


@dataclass(frozen=True)
class TracedCall:
    """One request of the client and its answer: where in the user's source, which model, how long it took (seconds),
    what it used, whether it was known already, and the error instead of an answer."""

    site: str
    path: str
    model: str
    seconds: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False
    error: str = ""


@dataclass
class Trace:
    """What happened in a `trace`: `calls` in the order in which they ended, `account` with the books."""

    account: Account
    store: Store | None = None
    cache: bool = True
    calls: list[TracedCall] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def note(self, call: TracedCall) -> None:
        with self._lock:
            self.calls.append(call)

    def explain(self) -> str:
        """One line for each call site: calls, how many of them were known already, tokens, seconds."""
        sites: dict[tuple[str, str], list[TracedCall]] = {}
        for call in self.calls:
            sites.setdefault((call.site, call.model), []).append(call)
        lines = [f"{len(self.calls)} calls of the client at {len(sites)} sites: {self.account.spent}"]
        for (site, model), calls in sorted(sites.items()):
            known, failed = sum(c.cached for c in calls), sum(bool(c.error) for c in calls)
            lines.append(f"  {site}  {model}  {len(calls)} calls, {known} from the cache, {failed} failed, "
                         f"{sum(c.prompt_tokens for c in calls)} + {sum(c.completion_tokens for c in calls)} tokens, "
                         f"{sum(c.seconds for c in calls):.2f} s")
        return "\n".join(lines)


_trace: ContextVar[Trace | None] = ContextVar("tracedsl_openai_trace", default=None)
# What a program puts around the model of one call: takes the model, gives what is asked instead.
_line: ContextVar[Callable[[HttpLM, HttpRequest], Any] | None] = ContextVar("tracedsl_openai_line", default=None)


@contextmanager
def trace(*, usd: float = inf, tokens: float = inf, calls: float = inf, seconds: float = inf,
          store: Store | str | Path | None = None, cache: bool = True) -> Iterator[Trace]:
    """Within this block, calls of the `openai` client are traced: `with trace(usd=0.50) as t: ...; print(t.explain())`.

    Args:
        usd, tokens, calls, seconds: hard limits, as for `tracedsl.programs.budget`. A call that could exceed one is not
            made and raises `BudgetExceeded` L014.
        store: where answers are kept, a `Store` or a folder; without it the user's cache folder.
        cache: whether repeatable requests (temperature 0, or a seed) are answered from memory and disk, and equal ones
            at the same time are one call.
    """
    install()
    with budget(usd=usd, tokens=tokens, calls=calls, seconds=seconds) as account:
        made = Trace(account, store if isinstance(store, Store) or store is None else Store(store), cache)
        with tracing(made):
            yield made


@contextmanager
def tracing(made: Trace) -> Iterator[None]:
    """Within this block, calls are noted in `made`."""
    token = _trace.set(made)
    try:
        yield
    finally:
        _trace.reset(token)


@contextmanager
def tracing_by_itself(store: Store | None) -> Iterator[None]:
    """Within this block, calls are traced if there is a client whose calls could be, and nobody traces them already."""
    if not loaded() or _trace.get() is not None:
        yield
        return
    install()
    with tracing(Trace(Account(), store)):
        yield


def current_trace() -> Trace | None:
    return _trace.get()


@contextmanager
def through(line: Callable[[HttpLM, HttpRequest], Any]) -> Iterator[None]:
    """Within this block, requests go to what `line` gives for the model behind them."""
    token = _line.set(line)
    try:
        yield
    finally:
        _line.reset(token)


# -- one request ------------------------------------------------------------------------------------------------------


class _Noted:
    """A model whose answers are noted in a trace."""

    def __init__(self, lm: HttpLM, found: Trace) -> None:
        self._lm, self._trace = lm, found

    async def acomplete(self, request: LMRequest) -> LMResponse:
        started = time.perf_counter()
        try:
            response = await self._lm.acomplete(request)
        except BaseException as error:
            self._note(started, error=f"{type(error).__name__}: {error}")
            raise
        self._note(started, response)
        return response

    async def astream(self, request: LMRequest) -> Any:
        started, response, error = time.perf_counter(), None, "nobody listened to the end"
        place = _site.get()
        try:
            async with aclosing(self._lm.astream(request)) as chunks:
                async for chunk in chunks:
                    if chunk.response is not None:
                        response, error = chunk.response, ""
                    yield chunk
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
            raise
        finally:
            self._note(started, response, error, place)

    def _note(self, started: float, response: LMResponse | None = None, error: str = "", place: str = "") -> None:
        used = response.usage if response is not None else None
        self._trace.note(TracedCall(
            place or _site.get(), self._lm.endpoint, self._lm.model, time.perf_counter() - started,
            used.prompt_tokens if used else 0, used.completion_tokens if used else 0,
            response is not None and response.cached, error))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lm, name)


def _choose(lm: HttpLM, request: HttpRequest) -> Any:
    """What is asked: the model, noted where a trace is open, behind the line that a program put there."""
    found, line = _trace.get(), _line.get()
    chosen: Any = lm if found is None or found.cache else _Uncached(lm)
    if found is not None:
        chosen = _Noted(chosen, found)
    return line(chosen, request) if line is not None else chosen


class _Uncached:
    """A model whose answers are neither known nor kept."""

    def __init__(self, lm: HttpLM) -> None:
        self._lm = HttpLM(lm.model, lm._base, lm._path, lm._store, lm.price)
        self._lm.cache = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lm, name)


def _store() -> Store | None:
    found = _trace.get()
    return found.store if found is not None else None


# -- copies of clients ------------------------------------------------------------------------------------------------

_copies: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()
_ours: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
_copies_lock = threading.RLock()


def copy_of(client: Any) -> Any:
    """The client's twin, whose requests go through `traffic`. Made anew when the client's settings change."""
    settings = (client.api_key, str(client.base_url), client.max_retries, client.timeout, id(client._client))
    with _copies_lock:
        found = _copies.get(client)
        if found is None or found[0] != settings:
            http, theirs = _http_package(), client._client
            carrier: Any
            if hasattr(theirs, "aclose"):
                carrier = http.AsyncClient(transport=AsyncTraffic(http, theirs, _store, _choose), trust_env=False)
            else:
                carrier = http.Client(transport=SyncTraffic(http, theirs, _store, _choose), trust_env=False)
            made = client.copy(http_client=carrier, timeout=client.timeout)
            _ours[made] = True
            _copies[client] = found = (settings, made)
        return found[1]


def _http_package() -> Any:
    """The HTTP package that the client package is built on (its name has changed over the versions)."""
    import openai

    base = next(c for c in openai.DefaultHttpxClient.__mro__ if c.__name__ == "Client")
    return sys.modules[base.__module__.partition(".")[0]]


# -- the methods of the client package --------------------------------------------------------------------------------

_installed = False


def loaded() -> bool:
    """Whether the client package is there to be intercepted."""
    return "openai" in sys.modules


def install() -> None:
    """Put our methods in front of those of the client package, once."""
    global _installed
    with _copies_lock:
        if _installed:
            return
        import importlib

        for module, name, methods in _METHODS:
            owner = getattr(importlib.import_module(f"openai.resources.{module}"), name)
            for method, how in methods.items():
                if (theirs := getattr(owner, method, None)) is not None:
                    setattr(owner, method, (_awaited if how == "await" else _called)(theirs, _reach(name, method)))
        _installed = True


def _reach(owner: str, method: str) -> Callable[[Any], Any]:
    """How to get at the resource of a client."""
    return (lambda client: client.responses) if "Responses" in owner else (lambda client: client.chat.completions)


def _called(theirs: Callable[..., Any], resource: Callable[[Any], Any]) -> Callable[..., Any]:
    @functools.wraps(theirs)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _active():
            return theirs(self, *args, **kwargs)
        with _named(), call_site(_site.get(), complete=True):
            try:
                return theirs(_twin(self, resource), *args, **kwargs)
            except Carried as carried:
                error = carried.error
        raise error

    setattr(method, MARK, theirs)
    return method


def _awaited(theirs: Callable[..., Any], resource: Callable[[Any], Any]) -> Callable[..., Any]:
    @functools.wraps(theirs)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _active():
            return await theirs(self, *args, **kwargs)
        with _named(), call_site(_site.get(), complete=True):
            try:
                return await theirs(_twin(self, resource), *args, **kwargs)
            except Carried as carried:
                error = carried.error
        raise error

    setattr(method, MARK, theirs)
    return method


def _active() -> bool:
    """Whether calls made here are intercepted."""
    return _trace.get() is not None or _line.get() is not None


def _twin(mine: Any, resource: Callable[[Any], Any]) -> Any:
    """The same resource of the client's copy (a streaming manager calls the copy's by itself)."""
    return mine if mine._client in _ours else resource(copy_of(mine._client))


_site: ContextVar[str] = ContextVar("tracedsl_openai_site", default="")


@contextmanager
def _named() -> Iterator[None]:
    """Within this block, the place in the user's source is known."""
    if _site.get():
        yield
        return
    with site(_place()):
        yield


@contextmanager
def site(name: str) -> Iterator[None]:
    """Within this block, calls belong to this call site."""
    token = _site.set(name)
    try:
        yield
    finally:
        _site.reset(token)


def _place() -> str:
    """The nearest line of the stack that is neither ours, nor the client's, nor Python's own."""
    frame = sys._getframe(2)
    while frame is not None:
        root = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if root == "__main__" or (root not in _OURS and root not in sys.stdlib_module_names):
            return f"{frame.f_code.co_filename.replace(chr(92), '/').rsplit('/', 1)[-1]}:{frame.f_lineno}"
        frame = frame.f_back    # type: ignore[assignment]
    return "unknown"


# -- recognising a method ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClientMethod:
    """A method of a user's client that asks a model. `name` is "chat.completions.create" or the like."""

    name: str
    resource: Any
    theirs: Callable[..., Any]


def client_method(callee: Any) -> ClientMethod | None:
    """The method of a synchronous client behind a bound method, if it is the client package's own: one that other code
    put there (a mock, an instrumentation) is None, and so is whatever streams."""
    if type(callee) is not MethodType or type(callee.__func__) is not FunctionType:
        return None
    resource: Any = callee.__self__
    kind = type(resource)
    name = _ASKING.get((kind.__module__, kind.__name__, callee.__func__.__name__))
    if name is None:
        return None
    install()
    theirs: Any = getattr(callee.__func__, MARK, None)
    current = getattr(kind, callee.__func__.__name__, None)
    if theirs is None:      # taken before the first trace began
        theirs = callee.__func__
        if getattr(current, MARK, None) is not theirs:
            return None
    elif current is not callee.__func__:
        return None
    if not _of_the_package(theirs) or not hasattr(resource._client, "copy"):
        return None
    return ClientMethod(name, resource, theirs)


_ASKING = {(f"openai.resources.{module}", name, method):
           f"{'responses' if name == 'Responses' else 'chat.completions'}.{method}"
           for module, name, methods in _METHODS if not name.startswith("Async")
           for method in methods if method != "stream"}


_PARTS = frozenset({"chat", "completions", "responses", "beta", "create", "parse", "stream"})


def is_part_of_client(value: Any, name: str) -> bool:
    """Whether `value.name` leads from a client of the package to one of its methods, without code of anybody else."""
    kind = type(value)
    if name not in _PARTS or kind.__module__.partition(".")[0] != "openai":
        return False
    if name in vars(value):     # read before, or put there by other code: no code runs
        return True
    found = inspect.getattr_static(kind, name, None)
    reader = getattr(found, "func", None) or getattr(found, "fget", None) or found
    return _of_the_package(getattr(reader, MARK, reader))


def _of_the_package(function: Any) -> bool:
    import openai

    folder = str(Path(openai.__file__).parent)
    return isinstance(function, FunctionType) and function.__code__.co_filename.startswith(folder)

