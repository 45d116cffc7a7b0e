"""Any OpenAI-compatible endpoint, through the `openai` package.

What holds here: the API key stays in one object that never shows it; it is in no key, repr, log or exception text, also
when an endpoint echoes it. Failures of the package are never chained to ours (they carry the request's headers); their
text is, with the key taken out. The package's own retries are off: `LMClient` is the one place that repeats a call.
"""

from __future__ import annotations

import email.utils
import json
import os
import re
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tracedsl.programs.lm.base import Constraint, LMError, LMRequest, LMResponse, LMTransientError, Usage
from tracedsl.programs.lm.client import LMClient
from tracedsl.programs.lm.prices import price_of
from tracedsl.programs.lm.wire import chat_message

DEFAULT_BASE = "https://api.openai.com/v1"
_REASONING = re.compile(r"^(o\d|gpt-5)")
_STRUCTURED = re.compile(r"^(gpt-4o|gpt-4\.1|gpt-5|o[1-9])")
_RETRIED = frozenset({408, 409, 429})


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


class OpenAILM(LMClient):
    """A chat model behind an OpenAI-compatible endpoint.

    Args:
        model: its name there.
        api_key: default `$OPENAI_API_KEY`; not needed for an `api_base` of your own.
        api_base: the endpoint, up to `/v1`; default `$OPENAI_BASE_URL`, else OpenAI's.
        timeout: seconds for one try.
        structured: whether the endpoint keeps to a JSON schema; default: yes for the OpenAI models that do.
        settings: see `LMClient`. `temperature` is 0 by default, and left out for reasoning models, which take none.
    """

    def __init__(self, model: str, *, api_key: str | None = None, api_base: str | None = None, timeout: float = 60.0,
                 structured: bool | None = None, **settings: Any) -> None:
        self._reasoning = bool(_REASONING.match(model))
        settings.setdefault("temperature", None if self._reasoning else 0.0)
        settings["price"] = settings.get("price") or price_of(model)
        super().__init__(model, **settings)
        self._base = checked_base(api_base or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE)
        self._secret = Secret(api_key or os.environ.get("OPENAI_API_KEY") or "")
        self._timeout = timeout
        self._structured = bool(_STRUCTURED.match(model)) if structured is None else structured
        self._client: Any = None
        self._making = threading.Lock()

    @property
    def endpoint(self) -> str:
        return self._base

    @property
    def constraints(self) -> frozenset[Constraint]:
        return frozenset({"json_schema"}) if self._structured else frozenset()

    def dump_state(self) -> dict[str, Any]:
        return {**super().dump_state(), "model": f"openai/{self.model}", "endpoint": self.endpoint}

    def _send(self, request: LMRequest) -> LMResponse:
        import openai

        client = self._connect(openai)
        failure: LMError | None = None
        try:
            answer = client.chat.completions.create(**self._body(request))
        except openai.APIStatusError as error:
            failure = self._refusal(error)
        except openai.APIConnectionError as error:  # also time-outs
            failure = self._unreachable(error)
        except (openai.APIError, ValueError) as error:  # a body that is no JSON, or no chat completion
            failure = self._nonsense(str(error))
        if failure is not None:
            raise failure  # outside the handlers, so that the package's exception is not chained
        return self._read(answer)

    def _connect(self, openai: Any) -> Any:
        with self._making:
            if self._client is None:
                key = self._secret.reveal()
                if not key and self._base == DEFAULT_BASE:
                    raise LMError("L012", f"no API key for {self.model}", why="OPENAI_API_KEY is not set",
                                  hint='set it, pass LM(..., api_key=...), or use the embedded model: '
                                       'LM("local/smollm2-135m")')
                self._client = openai.OpenAI(api_key=key or "none", base_url=self._base, max_retries=0,
                                             timeout=self._timeout)
            return self._client

    def _body(self, request: LMRequest) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "messages": [chat_message(m) for m in request.messages]}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.max_tokens is not None:
            body["max_completion_tokens" if self._reasoning else "max_tokens"] = request.max_tokens
        if request.n > 1:
            body["n"] = request.n
        if request.seed is not None:
            body["seed"] = request.seed
        if request.stop:
            body["stop"] = list(request.stop)
        if request.response_format is not None and request.response_format.kind == "json_schema":
            schema = {"name": "answer", "schema": json.loads(request.response_format.text)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _read(self, answer: Any) -> LMResponse:
        """The texts; raises `LMError` if this is no chat completion (a proxy's page, a body cut off)."""
        choices = getattr(answer, "choices", None)
        if not isinstance(choices, list) or not choices:
            raise self._nonsense(str(answer)[:200])
        texts, finish = [], "stop"
        for choice in choices:
            message = getattr(choice, "message", None)
            if message is None or not isinstance(getattr(message, "content", None), (str, type(None))):
                raise self._nonsense("a choice has no message")
            texts.append(message.content or "")
            finish = "length" if choice.finish_reason == "length" else finish
        usage = getattr(answer, "usage", None)
        spent = Usage(getattr(usage, "prompt_tokens", 0) or 0, getattr(usage, "completion_tokens", 0) or 0, 1)
        return LMResponse(tuple(texts), spent, finish)

    # -- failures ------------------------------------------------------------------------------------------------

    def _refusal(self, error: Any) -> LMError:
        """An answer with an error status."""
        status = error.status_code
        why = f"HTTP {status}: {self._clean(_message(error))}"
        if status in (401, 403):
            return LMError("L002", f"{self.endpoint} refused the API key", why=why,
                           hint="check OPENAI_API_KEY or api_key=...; it may belong to another endpoint")
        if status in _RETRIED or status >= 500:
            passing = LMTransientError("L004", f"{self.endpoint} keeps failing", why=why,
                                       hint="try again later, or send fewer calls at once (num_threads)")
            passing.retry_after = retry_after(error.response.headers)
            return passing
        if "context_length" in why or "maximum context" in why:
            return LMError("L010", f"the prompt is too long for {self.model}", why=why,
                           hint="use fewer or shorter demonstrations")
        hint = "check the model's name and api_base" if status == 404 else "the request itself is at fault"
        return LMError("L003", f"{self.endpoint} refused the request", why=why, hint=hint)

    def _unreachable(self, error: Any) -> LMError:
        cause = getattr(error, "__cause__", None)
        why = self._clean(f"{error} {cause if cause is not None else ''}".strip())
        return LMTransientError("L001", f"cannot reach {self.endpoint}", why=why,
                                hint="is the server running, and is api_base right?")

    def _nonsense(self, text: str) -> LMError:
        return LMError("L005", f"{self.endpoint} sent something that is no chat completion", why=self._clean(text),
                       hint="check api_base: it usually ends in /v1")

    def _clean(self, text: str) -> str:
        """One short line without the key and without credentials from the URL."""
        text = re.sub(r"(?<=://)[^/@\s]+@", "", self._secret.redact(text))
        return " ".join(re.sub(r"\b(?:sk|key)-[\w*-]{6,}", "[api key]", text).split())[:300]


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
