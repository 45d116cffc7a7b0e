"""The line to an OpenAI-compatible endpoint: one call or stream of JSON, on a thread or under asyncio.

What holds here: the API key stays in one object that never shows it; it is in no key, repr, log or exception text, also
when an endpoint echoes it. Failures of the client package are never chained to ours (they carry the request's headers);
their text is, with the key taken out. The package's own retries are off: `LMClient` is the one place that repeats a
call. A call has to end within its time, also when the endpoint keeps sending a little.
"""

from __future__ import annotations

import email.utils
import json
import os
import re
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from tracedsl.programs.driving import current_io, running_loop
from tracedsl.programs.lm.accounts import out_of_time, remaining_seconds
from tracedsl.programs.lm.base import LMError, LMTransientError

DEFAULT_BASE = "https://api.openai.com/v1"
_RETRIED = frozenset({408, 409, 429})
_HTTP_PACKAGES = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "h11", "h2", "anyio", "ssl"})
_NEVER_CONNECTED = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})


class Secret:
    """A text that shows itself to nobody who does not ask for it by name."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def redact(self, text: str) -> str:
        """`text` without the secret."""
        return text.replace(self._text, "[api key]") if self._text else text

    def __repr__(self) -> str:
        return "[secret]"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not written anywhere")


class Line:
    """Calls of one endpoint. `model` is named in errors. Raises `LMError` for whatever goes wrong."""

    def __init__(self, model: str, api_key: str | None, api_base: str | None, timeout: float) -> None:
        self.base = checked_base(api_base or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE)
        self._model = model
        self._secret = Secret(api_key or os.environ.get("OPENAI_API_KEY") or "")
        self._timeout = timeout
        self._client: Any = None
        self._of_loop: dict[Any, Any] = {}
        self._kept: dict[Any, AsyncGenerator[None, None]] = {}
        self._making = threading.Lock()

    async def ask(self, resource: Callable[[Any], Any], body: Mapping[str, Any]) -> Any:
        """Post `body` and return the JSON data that comes back. `resource` picks the part of the client."""
        import openai

        seconds = self._seconds()
        deadline = time.monotonic() + seconds
        client, failure, received = await self._connect(openai), None, b""
        try:
            called = resource(client).with_streaming_response.create(**body, timeout=seconds)
            if current_io().blocking:
                with called as answer:
                    for piece in answer.iter_bytes():
                        received += _in_time(piece, deadline)
            else:
                import asyncio

                async with asyncio.timeout(seconds), called as answer:
                    async for piece in answer.iter_bytes():
                        received += piece
        except Exception as error:  # noqa: BLE001 - `_failure` raises what is not of the endpoint's making again
            failure = self._failure(openai, error)
        if failure is None:
            try:
                return json.loads(received)
            except ValueError:
                failure = self.nonsense(received.decode("utf-8", "replace")[:200] or "nothing at all")
        raise failure       # outside the handlers, so that the package's exception is not chained

    async def events(self, resource: Callable[[Any], Any], body: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Post `body` and yield the JSON data of each event that comes back."""
        import openai

        client, failure = await self._connect(openai), None
        try:
            called = resource(client).with_streaming_response.create(**body, timeout=self._seconds())
            if current_io().blocking:
                with called as answer:
                    for line in answer.iter_lines():
                        self._in_budget()
                        if (event := _event(line)) is not None:
                            yield event
            else:
                async with called as answer:
                    async for line in _hurried(answer.iter_lines()):
                        if (event := _event(line)) is not None:
                            yield event
        except GeneratorExit:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            failure = self._failure(openai, error)
        if failure is not None:
            raise failure

    def _seconds(self) -> float:
        """How long a try may take."""
        if (left := remaining_seconds()) <= 0:
            raise out_of_time(0.0)
        return min(self._timeout, left)

    def _in_budget(self) -> None:
        if remaining_seconds() <= 0:
            raise out_of_time(0.0)

    async def _connect(self, openai: Any) -> Any:
        """The client for threads, or for this event loop: connections cannot pass from one loop to another."""
        if current_io().blocking:
            with self._making:
                if self._client is None:
                    self._client = self._make(openai.OpenAI)
                return self._client
        loop = running_loop()
        if (kept := self._kept.get(loop)) is None:
            kept = self._kept[loop] = self._keep(loop, self._make(openai.AsyncOpenAI))
            await anext(kept)
        return self._of_loop[loop]

    async def _keep(self, loop: Any, client: Any) -> AsyncGenerator[None, None]:
        """Keep a client for as long as its loop runs: ending loops close the generators that were begun in them."""
        self._of_loop[loop] = client
        try:
            yield
        finally:
            del self._of_loop[loop], self._kept[loop]
            await client.close()

    def _make(self, kind: Any) -> Any:
        key = self._secret.reveal()
        if not key and self.base == DEFAULT_BASE:
            raise LMError("L012", f"no API key for {self._model}", why="OPENAI_API_KEY is not set",
                          hint='set it, pass LM(..., api_key=...), or use the embedded model: '
                               'LM("local/smollm2-135m")')
        return kind(api_key=key or "none", base_url=self.base, max_retries=0, timeout=self._timeout)

    # -- failures ------------------------------------------------------------------------------------------------

    def _failure(self, openai: Any, error: Exception) -> LMError:
        """What an exception means; raises it again if it is none of the endpoint's."""
        if isinstance(error, LMError):
            raise error
        if isinstance(error, openai.APIStatusError):
            return self._refusal(error)
        package = type(error).__module__.partition(".")[0]
        if isinstance(error, (openai.APIConnectionError, OSError, TimeoutError)) or package in _HTTP_PACKAGES:
            return self._unreachable(error)
        if isinstance(error, (openai.APIError, ValueError)):
            return self.nonsense(str(error))
        raise error

    def _refusal(self, error: Any) -> LMError:
        """An answer with an error status."""
        failure = self._status(error.status_code, error)
        failure.unbilled = error.status_code < 500 or error.status_code == 503
        return failure

    def _status(self, status: int, error: Any) -> LMError:
        why = f"HTTP {status}: {self._clean(_message(error))}"
        if status in (401, 403):
            return LMError("L002", f"{self.base} refused the API key", why=why,
                           hint="check OPENAI_API_KEY or api_key=...; it may belong to another endpoint")
        if status in _RETRIED or status >= 500:
            passing = LMTransientError("L004", f"{self.base} keeps failing", why=why,
                                       hint="try again later, or send fewer calls at once (num_threads)")
            passing.retry_after = retry_after(error.response.headers)
            return passing
        if "context_length" in why or "maximum context" in why:
            return LMError("L010", f"the prompt is too long for {self._model}", why=why,
                           hint="use fewer or shorter demonstrations")
        hint = "check the model's name and api_base" if status == 404 else "the request itself is at fault"
        return LMError("L003", f"{self.base} refused the request", why=why, hint=hint)

    def _unreachable(self, error: Any) -> LMError:
        cause = getattr(error, "__cause__", None)
        why = self._clean(f"{error} {cause if cause is not None else ''}".strip() or type(error).__name__)
        failure = LMTransientError("L001", f"cannot reach {self.base}", why=why,
                                   hint="is the server running, and is api_base right?")
        failure.unbilled = type(cause or error).__name__ in _NEVER_CONNECTED
        return failure

    def nonsense(self, text: str) -> LMError:
        """The error for an answer that is none."""
        return LMError("L005", f"{self.base} sent something that is no chat completion", why=self._clean(text),
                       hint="check api_base: it usually ends in /v1")

    def _clean(self, text: str) -> str:
        """One short line without the key and without credentials from the URL."""
        text = re.sub(r"(?<=://)[^/@\s]+@", "", self._secret.redact(text))
        return " ".join(re.sub(r"\b(?:sk|key)-[\w*-]{6,}", "[api key]", text).split())[:300]


def _in_time(piece: bytes, deadline: float) -> bytes:
    if time.monotonic() > deadline:
        raise TimeoutError("the answer did not end in time")
    return piece


async def _hurried(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """The lines, each within the time that the budget leaves."""
    import asyncio

    while True:
        left = remaining_seconds()
        try:
            async with asyncio.timeout(None if left == float("inf") else max(left, 0.0)):
                line = await anext(lines)
        except StopAsyncIteration:
            return
        except TimeoutError:
            if remaining_seconds() <= 0:
                raise out_of_time(0.0) from None
            raise
        yield line


def _event(line: str) -> Any:
    """The data of a line of a server-sent event stream; None for other lines and for the last event. Raises
    `ValueError` for data that is no JSON object."""
    name, _, value = line.partition(":")
    value = value.strip()
    if name != "data" or not value or value == "[DONE]":
        return None
    data = json.loads(value)
    if not isinstance(data, dict):
        raise ValueError(f"an event that is no object: {value[:100]}")
    if set(data) == {"error"}:
        raise ValueError(f"the endpoint failed in the middle of an answer: {str(data['error'])[:200]}")
    return data


def checked_base(base: str) -> str:
    """The endpoint's address without a slash at its end; raises `LMError` if it is none or holds a credential (HTTP
    clients write addresses into their logs)."""
    url = urlsplit(base)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise LMError("L013", "api_base is not an address" if "@" in base else f"api_base {base!r} is not an address",
                      hint="write it like https://host/v1")
    if url.username or url.password or url.query or url.fragment:
        raise LMError("L013", f"api_base for {url.hostname} holds a user, a password or a query",
                      why="they would end up in logs", hint="leave them out and pass the credential as api_key=...")
    return base.rstrip("/")


def _message(error: Any) -> str:
    """What the endpoint said, out of its usual wrapping."""
    body = error.body
    inner = body.get("error", body) if isinstance(body, Mapping) else body
    said = inner.get("message", inner) if isinstance(inner, Mapping) else inner
    return str(said or error.message)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The wait in seconds that a `Retry-After` header asks for: a number, or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, when.timestamp() - time.time())
