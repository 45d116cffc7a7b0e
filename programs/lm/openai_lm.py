"""Any OpenAI-compatible endpoint, through the `openai` package: chat completions, responses, embeddings.

What holds here: what goes out and comes in is plain JSON, written and read by `wire` and `responses`; `openai_line`
does the calls. A stream that ends before its answer did is a failure, never a short answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from tracedsl.programs.driving import current_io, drive
from tracedsl.programs.lm.accounts import most_used
from tracedsl.programs.lm.base import (
    Capability,
    Constraint,
    LMChunk,
    LMError,
    LMRequest,
    LMResponse,
    LMTransientError,
    Usage,
)
from tracedsl.programs.lm.client import LMClient
from tracedsl.programs.lm.openai_line import Line
from tracedsl.programs.lm.prices import price_of
from tracedsl.programs.lm.responses import ResponsesStream, read_response, responses_body
from tracedsl.programs.lm.wire import ChatStream, chat_body, read_chat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_REASONING = re.compile(r"^(o\d|gpt-5)")
_STRUCTURED = re.compile(r"^(gpt-4o|gpt-4\.1|gpt-5|o[1-9])")


class OpenAILM(LMClient):
    """A chat model behind an OpenAI-compatible endpoint.

    Args:
        model: its name there.
        api_key: default `$OPENAI_API_KEY`; not needed for an `api_base` of your own.
        api_base: the endpoint, up to `/v1`; default `$OPENAI_BASE_URL`, else OpenAI's.
        timeout: seconds for one try, from its beginning to its end; for a stream, between two pieces.
        model_type: which interface to speak: "chat" (chat completions) or "responses".
        structured: whether the endpoint keeps to a JSON schema; default: yes for the OpenAI models that do.
        capabilities: what the model takes and gives beside text; default: what is known of OpenAI's.
        settings: see `LMClient`. `temperature` is 0 by default, and left out for reasoning models, which take none.
    """

    def __init__(self, model: str, *, api_key: str | None = None, api_base: str | None = None, timeout: float = 60.0,
                 model_type: Literal["chat", "responses"] = "chat", structured: bool | None = None,
                 capabilities: Iterable[Capability] | None = None, **settings: Any) -> None:
        self._reasoning = bool(_REASONING.match(model))
        settings.setdefault("temperature", None if self._reasoning else 0.0)
        settings["price"] = settings.get("price") or price_of(model)
        super().__init__(model, **settings)
        if model_type not in ("chat", "responses"):
            raise LMError("L003", f"model_type {model_type!r} is not known", hint='it is "chat" or "responses"')
        self._responses = model_type == "responses"
        self._structured = bool(_STRUCTURED.match(model)) if structured is None else structured
        self._capabilities = _capabilities(model) if capabilities is None else frozenset(capabilities)
        self._line = Line(model, api_key, api_base, timeout)

    @property
    def endpoint(self) -> str:
        return f"{self._line.base} responses" if self._responses else self._line.base

    @property
    def constraints(self) -> frozenset[Constraint]:
        return frozenset({"json_schema"}) if self._structured else frozenset()

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._capabilities

    def dump_state(self) -> dict[str, Any]:
        kind = {"model_type": "responses"} if self._responses else {}
        return {**super().dump_state(), "model": f"openai/{self.model}", "endpoint": self._line.base, **kind}

    async def _asend(self, request: LMRequest) -> LMResponse:
        data = await self._line.ask(self._resource, self._body(request))
        try:
            response = read_response(data) if self._responses else read_chat(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            failure = self._line.nonsense(f"{error} in {str(data)[:200]}")
        else:
            return _counted(request, response)
        raise failure

    async def _astream(self, request: LMRequest) -> AsyncGenerator[LMChunk, None]:
        body, stream = self._body(request), ResponsesStream() if self._responses else ChatStream()
        body |= {"stream": True} if self._responses else {"stream": True, "stream_options": {"include_usage": True}}
        async with aclosing(self._line.events(self._resource, body)) as events:
            async for event in events:
                failure = None
                try:
                    chunks = stream.add(event)
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    failure = self._line.nonsense(f"{error} in {str(event)[:200]}")
                if failure is not None:
                    raise failure
                for chunk in chunks:
                    yield chunk
        response = stream.finished()
        if response is None:
            raise LMTransientError("L001", f"{self._line.base} broke off in the middle of an answer",
                                   hint="ask again; complete() does so by itself")
        yield LMChunk(response=_counted(request, response))

    def _resource(self, client: Any) -> Any:
        return client.responses if self._responses else client.chat.completions

    def _body(self, request: LMRequest) -> dict[str, Any]:
        if self._responses:
            return {"model": self.model, **responses_body(request)}
        body = {"model": self.model, **chat_body(request)}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.max_tokens is not None:
            body["max_completion_tokens" if self._reasoning else "max_tokens"] = request.max_tokens
        if request.n > 1:
            body["n"] = request.n
        if request.response_format is not None and request.response_format.kind == "json_schema":
            schema = {"name": "answer", "schema": json.loads(request.response_format.text)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body


def _capabilities(model: str) -> frozenset[Capability]:
    """What is known of OpenAI's models; nothing of others."""
    if not _STRUCTURED.match(model):
        return frozenset()
    more: Capability = "reasoning" if _REASONING.match(model) else "logprobs"
    return frozenset({"tools", "images", "files", more})


def _counted(request: LMRequest, response: LMResponse) -> LMResponse:
    """The response; where the endpoint does not say what it used, with the most that it can be: a token a byte."""
    if response.usage.total_tokens:
        return response
    prompt = most_used(request, None, None).prompt_tokens
    written = sum(len(text.encode("utf-8", "surrogatepass")) for text in response.texts)
    return replace(response, usage=Usage(prompt, written, 1))


class OpenAIEmbedder:
    """An embedding model behind an OpenAI-compatible endpoint: `OpenAIEmbedder("text-embedding-3-small")`.

    Args:
        model, api_key, api_base, timeout: as for `OpenAILM`.
        batch_size: texts in one call.
        num_retries: how often a failure that may pass is tried again.
    """

    def __init__(self, model: str, *, api_key: str | None = None, api_base: str | None = None, timeout: float = 60.0,
                 batch_size: int = 128, num_retries: int = 3) -> None:
        self.model = model
        self.num_retries = num_retries
        self._batch_size = batch_size
        self._line = Line(model, api_key, api_base, timeout)

    @property
    def identity(self) -> str:
        return f"{self.model} @ {self._line.base}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Embedder`."""
        return drive(self.aembed(texts))

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Embedder`."""
        import numpy as np

        rows: list[Any] = []
        for start in range(0, len(texts), self._batch_size):
            rows += await self._batch(list(texts[start:start + self._batch_size]))
        return np.array(rows, np.float32) if rows else np.zeros((0, 0), np.float32)

    async def _batch(self, texts: list[str]) -> list[Any]:
        body = {"model": self.model, "input": texts, "encoding_format": "float"}
        for attempt in range(self.num_retries + 1):
            try:
                data = await self._line.ask(lambda client: client.embeddings, body)
                break
            except LMTransientError as error:
                if attempt == self.num_retries:
                    raise
                await current_io().sleep(error.retry_after if error.retry_after is not None else 0.5 * 2**attempt)
        try:
            rows = [row["embedding"] for row in sorted(data["data"], key=lambda row: row["index"])]
            if len(rows) == len(texts) and len({len(row) for row in rows}) == 1:
                return rows
        except (KeyError, TypeError):
            pass
        raise self._line.nonsense(f"not {len(texts)} vectors: {str(data)[:200]}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"
