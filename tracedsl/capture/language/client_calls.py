"""Calls of a user's `openai` client in a program: `client.chat.completions.create(...)` and its like.

What holds here: a call is prepared by letting the client package build the request and catching it before it is sent;
so the request is exactly what the plain call would send, and wrong arguments raise what they raise there. Making the
call lets the package do it again, with its own retries, and read the answer. Only methods of the package itself are
taken: whatever other code put in their place is unknown code to a program.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from tracedsl.cache import digest
from tracedsl.capture.language.handles import Owner, finished
from tracedsl.capture.language.model_calls import Line, ModelCall
from tracedsl.diagnostics import Span
from tracedsl.programs.lm.accounts import call_site
from tracedsl.programs.lm.base import LMRequest, Message
from tracedsl.programs.lm.interception import ClientMethod, client_method, loaded, site, through
from tracedsl.programs.lm.traffic import HttpLM, HttpRequest

# What an answer surely has; reading anything else may fail. That there is a text in it is taken for granted for calls
# whose answer nobody needs: such a call is not made only to see its text missing.
_COMMON = dict.fromkeys(("id", "created", "model", "object", "usage"))
_SHAPES: dict[str, Mapping[str, Any]] = {
    "chat": {**_COMMON, "choices": {0: {"message": {"role": str, "content": str}, "finish_reason": str}}},
    "responses": {**_COMMON, "output": None, "status": None, "output_text": str}}


def method_of(callee: Any, settings: Mapping[str, Any]) -> ClientMethod | None:
    """The client's method behind a call that a program can make lazily; None for every other callee, and for streams,
    which are read as they come."""
    if not loaded() or (settings.get("stream") or None) is not None:
        return None
    return client_method(callee)


class _Caught(BaseException):
    """A request on its way out, caught before it is sent."""

    def __init__(self, lm: HttpLM, request: HttpRequest) -> None:
        self.lm, self.request = lm, request


@dataclass(frozen=True)
class PreparedClientCall:
    """A call that is ready to be made: the arguments, and the request that the client package makes of them."""

    settings: Mapping[str, Any]
    lm: HttpLM
    http: HttpRequest

    @property
    def deterministic(self) -> bool:
        return self.http.deterministic

    @property
    def key(self) -> str:
        return digest(self.lm.identity, self.http.fingerprint)

    @property
    def body(self) -> Mapping[str, Any]:
        """The request as JSON data, without the model."""
        data: Mapping[str, Any] = json.loads(self.http.messages[0].text)
        return data

    @property
    def request(self) -> LMRequest:
        """The request as a chat, for people."""
        given = self.body.get("messages", self.body.get("input", ()))
        rows = [{"role": "user", "content": given}] if isinstance(given, str) else given
        return LMRequest(tuple(Message(str(row.get("role", row.get("type", ""))), _text(row.get("content", row)))
                               for row in rows), self.http.temperature, self.http.max_tokens, self.http.n)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(p, dict) and "text" in p for p in content):
        return "".join(p["text"] for p in content)
    return json.dumps(content, ensure_ascii=False)


class ClientCall(ModelCall):
    """One call of a client's method; the arguments are its keyword arguments."""

    def __init__(self, run: Owner, span: Span | None, arguments: Any, *, site: str, method: ClientMethod) -> None:
        super().__init__(run, span, arguments, site=site, kind=method.name)
        self.method = method
        self.signature_text = method.name
        self.outputs = (("output_text", "str"),) if method.name.startswith("responses") else (("choices", "list"),)

    @property
    def shape(self) -> Any:
        return _SHAPES[self.method.name.partition(".")[0]]

    @property
    def state(self) -> str:
        return digest(self.method.name, str(self.method.resource._client.base_url))[:8]

    def prepare(self) -> PreparedClientCall:
        settings = finished(self.arguments)

        def catch(lm: HttpLM, request: HttpRequest) -> NoReturn:
            raise _Caught(lm, request)

        try:
            with through(catch), site(self.site):
                self._call(settings)
        except _Caught as caught:
            made = self.prepared = PreparedClientCall(settings, caught.lm, caught.request)
            return made
        raise AssertionError("the client answered without sending a request")

    async def ask(self, prepared: PreparedClientCall) -> Any:
        def line(lm: Any, request: HttpRequest) -> Line:
            return Line(lm, self.pinned, self.answers)

        with through(line), site(self.site), call_site(self.site, complete=True):
            return self._call(prepared.settings)

    def _call(self, settings: Mapping[str, Any]) -> Any:
        return getattr(self.method.resource, self.method.name.rpartition(".")[2])(**settings)
