"""Calls of the `openai` client that existing code makes, on the one path that every call takes (`client.LMClient`).

What holds here: a request is exactly what the client package would send, and the answer exactly what came back, so
types, errors, retries and timeouts are those of the user's client. In between, `HttpLM` does what it does for all
models: known answers, one call for equal requests under way, budgets, books. Headers, and so credentials, are in no
key. An answer that is no success, and a stream that broke off, are handed on and never kept.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tracedsl.cache import Store
from tracedsl.programs.driving import current_io, drive, drive_each
from tracedsl.programs.lm.base import LMChunk, LMError, LMRequest, LMResponse, Message, Usage
from tracedsl.programs.lm.client import LMClient
from tracedsl.programs.lm.prices import Price, price_of
from tracedsl.programs.lm.responses import usage_of as responses_usage
from tracedsl.programs.lm.wire import usage_of as chat_usage

_DROPPED_HEADERS = frozenset({"content-length", "content-encoding", "transfer-encoding", "connection"})
_STREAM_ENDS = ("[DONE]", "response.completed", "response.incomplete")
_NEVER_CONNECTED = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})


@dataclass(frozen=True)
class HttpRequest(LMRequest):
    """A request whose one message is the body, as it is sent. `send` sends it; it takes no part in comparisons."""

    streaming: bool = False
    send: Any = field(default=None, compare=False, repr=False)

    def as_json(self) -> dict[str, Any]:
        return {**super().as_json(), **({"streaming": True} if self.streaming else {})}


class Carried(BaseException):
    """An error of ours on its way through the client package, which would take an `Exception` for a lost connection."""

    def __init__(self, error: LMError) -> None:
        super().__init__(str(error))
        self.error = error


class Refused(Exception):
    """The endpoint answered, but not with success: what it said."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status, self.headers, self.body = status, headers, body
        self.unbilled = status < 500 or status == 503


class _BrokenOff(Exception):
    """A stream ended before its answer did."""


class HttpLM(LMClient):
    """What stands behind one path of an endpoint: a request's only message is the body, an answer's only text too."""

    def __init__(self, model: str, base: str, path: str, store: Store, price: Price | None) -> None:
        super().__init__(model, temperature=None, num_retries=0, store=store, price=price)
        self._base, self._path = base, path

    @property
    def endpoint(self) -> str:
        return f"{self._base}{self._path}"

    async def _asend(self, request: LMRequest) -> LMResponse:
        assert isinstance(request, HttpRequest)
        try:
            answer = request.send(False) if current_io().blocking else await request.send(False)
        except Exception as error:
            error.unbilled = type(error).__name__ in _NEVER_CONNECTED     # type: ignore[attr-defined]
            raise
        if answer.status_code != 200:
            raise Refused(answer.status_code, _headers(answer), answer.content)
        text = answer.text
        return LMResponse((text,), _usage(text))

    async def _astream(self, request: LMRequest) -> AsyncGenerator[LMChunk, None]:
        assert isinstance(request, HttpRequest)
        blocking, whole = current_io().blocking, ""
        answer = request.send(True) if blocking else await request.send(True)
        try:
            if answer.status_code != 200:
                body = answer.read() if blocking else await answer.aread()
                raise Refused(answer.status_code, _headers(answer), body)
            if blocking:
                for piece in answer.iter_text():
                    whole += piece
                    yield LMChunk(piece)
            else:
                async for piece in answer.aiter_text():
                    whole += piece
                    yield LMChunk(piece)
        finally:
            if blocking:
                answer.close()
            else:
                await answer.aclose()
        if not _ends(whole):
            raise _BrokenOff
        yield LMChunk(response=LMResponse((whole,), _streamed_usage(whole)))


_lms: dict[tuple[str, str, str, str], HttpLM] = {}
_lms_lock = threading.Lock()


def lm_of(url: Any, model: str, store: Store | None) -> HttpLM:
    """The model behind a URL: one object in the process for each endpoint, path, model and store."""
    base, path = f"{url.scheme}://{url.netloc.decode().rpartition('@')[2]}", str(url.path)
    store = store if store is not None else Store()
    key = (base, path, model, str(store.root))
    with _lms_lock:
        if key not in _lms:
            _lms[key] = HttpLM(model, base, path, store, price_of(model))
        return _lms[key]


def read_request(request: Any, send: Callable[[bool], Any]) -> HttpRequest:
    """What an HTTP request of the client package asks, as a value. Raises `ValueError` if its body is no JSON."""
    body = json.loads(request.content)
    text = json.dumps({k: v for k, v in body.items() if k != "model"}, sort_keys=True, ensure_ascii=False)
    most = body.get("max_completion_tokens") or body.get("max_tokens") or body.get("max_output_tokens")
    return HttpRequest((Message("user", text),), body.get("temperature"), most, int(body.get("n") or 1),
                       body.get("seed"), streaming=bool(body.get("stream")), send=send)


def asked_model(request: Any) -> str:
    return str(json.loads(request.content).get("model", ""))


def _headers(answer: Any) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.lower() not in _DROPPED_HEADERS}


def _usage(text: str) -> Usage:
    try:
        data = json.loads(text).get("usage")
        return responses_usage(data) if data and "input_tokens" in data else chat_usage(data)
    except (ValueError, AttributeError, TypeError):
        return Usage(calls=1)


def _streamed_usage(text: str) -> Usage:
    """What the last event that tells it says."""
    for line in reversed(text.splitlines()):
        if line.startswith("data:") and '"usage"' in line:
            try:
                data = json.loads(line[5:])
            except ValueError:
                continue
            return _usage(json.dumps(data.get("response") or data))
    return Usage(calls=1)


# -- the transport that the client package is given -------------------------------------------------------------------

# Takes the model behind a request and the request; gives what answers: the model itself, or something around it.
Chooser = Callable[[HttpLM, HttpRequest], Any]


class Traffic:
    """A transport for copies of a user's client: every request goes through `HttpLM`, which sends it as the user's own
    HTTP client would. `http` is the HTTP package that the client package uses."""

    def __init__(self, http: Any, original: Any, store: Callable[[], Store | None], choose: Chooser) -> None:
        self._http, self._original, self._store, self._choose = http, original, store, choose

    def _read(self, request: Any) -> tuple[Any, HttpRequest] | None:
        def send(stream: bool) -> Any:
            return self._original.send(request, stream=stream)

        try:
            made = read_request(request, send)
        except (ValueError, AttributeError, TypeError):     # an upload, or no body at all
            return None
        return self._choose(lm_of(request.url, asked_model(request), self._store()), made), made

    def _answer(self, response: LMResponse) -> Any:
        headers = {"content-type": "application/json"}
        return self._http.Response(200, headers=headers, content=response.texts[0].encode())

    def _stream(self, pieces: Any) -> Any:
        return self._http.Response(200, headers={"content-type": "text/event-stream"}, stream=pieces)

    def _refusal(self, refused: Refused) -> Any:
        return self._http.Response(refused.status, headers=refused.headers, content=refused.body)

    def close(self) -> None:
        """The connections are those of the user's client."""


class SyncTraffic(Traffic):
    def handle_request(self, request: Any) -> Any:
        request.read()
        found = self._read(request)
        if found is None:
            return self._original.send(request)
        lm, made = found
        try:
            if not made.streaming:
                return self._answer(drive(lm.acomplete(made)))
            chunks = drive_each(lm.astream(made))
            return self._stream(sync_pieces(self._http, chunks, next(chunks, None)))
        except Refused as refused:
            return self._refusal(refused)
        except LMError as error:
            raise Carried(error) from error

    def __enter__(self) -> SyncTraffic:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class AsyncTraffic(Traffic):
    async def handle_async_request(self, request: Any) -> Any:
        await request.aread()
        found = self._read(request)
        if found is None:
            return await self._original.send(request)
        lm, made = found
        try:
            if not made.streaming:
                return self._answer(await lm.acomplete(made))
            chunks = lm.astream(made)
            return self._stream(async_pieces(self._http, chunks, await anext(chunks, None)))
        except Refused as refused:
            return self._refusal(refused)
        except LMError as error:
            raise Carried(error) from error

    async def aclose(self) -> None:
        """The connections are those of the user's client."""

    async def __aenter__(self) -> AsyncTraffic:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


def sync_pieces(http: Any, chunks: Iterator[LMChunk], first: LMChunk | None) -> Any:
    """The pieces of a streamed answer as the HTTP package wants them; the first one is there already. Whoever stops
    listening after the last event has heard all of it, so that the answer is kept."""

    class Pieces(http.SyncByteStream):      # type: ignore[misc]
        ended = False

        def __iter__(self) -> Iterator[bytes]:
            try:
                for chunk in itertools.chain((first,) if first is not None else (), chunks):
                    self.ended = self.ended or _ends(chunk.text)
                    yield chunk.text.encode()
            except _BrokenOff:
                return
            except LMError as error:
                raise Carried(error) from error

        def close(self) -> None:
            if self.ended:
                for _ in chunks:
                    pass
            chunks.close()      # type: ignore[attr-defined]

    return Pieces()


def async_pieces(http: Any, chunks: AsyncGenerator[LMChunk, None], first: LMChunk | None) -> Any:
    """As `sync_pieces`, under asyncio."""

    class Pieces(http.AsyncByteStream):     # type: ignore[misc]
        ended = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                if first is not None:
                    self.ended = _ends(first.text)
                    yield first.text.encode()
                async for chunk in chunks:
                    self.ended = self.ended or _ends(chunk.text)
                    yield chunk.text.encode()
            except _BrokenOff:
                return
            except LMError as error:
                raise Carried(error) from error

        async def aclose(self) -> None:
            if self.ended:
                async for _ in chunks:
                    pass
            await chunks.aclose()

    return Pieces()


def _ends(text: str) -> bool:
    return any(end in text for end in _STREAM_ENDS)
