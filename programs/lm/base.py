"""What a language model is to the rest: requests, responses, usage, and the `LM` protocol.

What holds here: a request is a frozen value that says everything the answer depends on except which model is asked and
where. Equal requests to the same model at temperature 0 (or with the same seed) are the same call: they may be cached,
shared and reordered. Nothing here holds a credential.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from tracedsl.cache import digest
from tracedsl.diagnostics import TracedslError

if TYPE_CHECKING:
    from tracedsl.programs.adapters.base import Adapter

REQUEST_SETTINGS = ("temperature", "max_tokens", "n", "seed", "stop", "response_format", "rollout_id", "tools",
                    "tool_choice", "logprobs")
Constraint = Literal["json_schema", "grammar"]
Capability = Literal["tools", "images", "audio", "files", "reasoning", "logprobs"]


class LMError(TracedslError, RuntimeError):
    """A language model that cannot answer. The text never holds a credential.

    `unbilled` is set where the endpoint refused before it worked, so that nothing was paid. `concerns_asker_alone` is
    set where others who ask the same at the same time may well get an answer.
    """

    unbilled = False
    concerns_asker_alone = False

    @property
    def concerns_one_request(self) -> bool:
        """Whether other requests to the same model may well succeed. If not, going on is pointless."""
        return self.code in ("L003", "L005", "L010")


class LMTransientError(LMError):
    """A failure that may pass: too many requests, a server error, a lost connection.

    `retry_after` is the wait in seconds that the endpoint asked for, if it did.
    """

    retry_after: float | None = None


@dataclass(frozen=True)
class TextPart:
    """A piece of text among other parts of a message."""

    text: str


@dataclass(frozen=True)
class MediaPart:
    """An image, a sound or a file: its bytes as base64 text in `data`, or where it lies in `url`; one of both."""

    kind: Literal["image", "audio", "file"]
    media_type: str = ""
    data: str = ""
    url: str = ""
    name: str = ""


Part = TextPart | MediaPart


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model wants called. `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ToolSpec:
    """A tool as a model is told of it. `parameters` is the JSON schema of its arguments, as text."""

    name: str
    description: str
    parameters: str


class Message(NamedTuple):
    """One message of a chat. `role` is "system", "user", "assistant" or "tool".

    `content` is text, or parts where there is more than text. An assistant's message may hold `tool_calls`; a tool's
    message answers the call `tool_call_id`.
    """

    role: str
    content: str | tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""

    @property
    def text(self) -> str:
        """The text of the message, other parts left out."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    def as_json(self) -> list[Any]:
        """JSON data that says all of the message; role and content alone where there is no more."""
        plain = self.content if isinstance(self.content, str) else [vars(part) for part in self.content]
        more = [[vars(call) for call in self.tool_calls], self.tool_call_id]
        return [self.role, plain, *(more if any(more) else ())]


@dataclass(frozen=True)
class ResponseFormat:
    """What the answer has to look like: a JSON schema (as JSON text) or a GBNF grammar, and which of both."""

    kind: Constraint
    text: str


@dataclass(frozen=True)
class LMRequest:
    """One call, complete. `temperature` None leaves it to the endpoint; `rollout_id` is not sent: it tells apart calls
    that are otherwise equal, so that each has its own cached answer. `tool_choice` is "auto", "none", "required" or a
    tool's name; `logprobs` is how many alternatives to report for each token."""

    messages: tuple[Message, ...]
    temperature: float | None = 0.0
    max_tokens: int | None = None
    n: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    response_format: ResponseFormat | None = None
    rollout_id: int | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str | None = None
    logprobs: int | None = None

    @property
    def deterministic(self) -> bool:
        """Whether the same request may be answered once for all."""
        return self.temperature == 0 or self.seed is not None

    @property
    def cacheable(self) -> bool:
        return self.deterministic or self.rollout_id is not None

    def as_json(self) -> dict[str, Any]:
        """The request as JSON data; what stands under `more` is left out where it is not used."""
        form = self.response_format
        tools = [vars(tool) for tool in self.tools]
        more = {"tools": tools, "tool_choice": self.tool_choice, "logprobs": self.logprobs}
        return {
            "messages": [m.as_json() for m in self.messages], "temperature": self.temperature,
            "max_tokens": self.max_tokens, "n": self.n, "seed": self.seed, "stop": list(self.stop),
            "response_format": None if form is None else [form.kind, form.text], "rollout_id": self.rollout_id,
            **{name: value for name, value in more.items() if value not in (None, [])},
        }

    @property
    def fingerprint(self) -> str:
        """A digest of the whole request, the same in every process."""
        return digest(json.dumps(self.as_json(), ensure_ascii=False))

    def with_(self, **changes: Any) -> LMRequest:
        return replace(self, **changes)


@dataclass(frozen=True)
class Usage:
    """What was used, in tokens and calls; `cached_calls` were answered without asking the model. `reused_tokens` of the
    prompt's tokens were in the model's prefix cache, as far as the endpoint tells."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    cached_calls: int = 0
    reused_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens,
                     self.calls + other.calls, self.cached_calls + other.cached_calls,
                     self.reused_tokens + other.reused_tokens)


@dataclass(frozen=True)
class TokenLogprob:
    """A token, the natural logarithm of its probability, and the likeliest alternatives with theirs."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class LMResponse:
    """The answers (`n` of them). `finish_reason` is "stop", "length" (cut off at `max_tokens`) or "tool_calls"; `usage`
    is what was used for this response: no tokens if it was `cached`. `tool_calls`, `reasoning` (what a reasoning model
    thought) and `logprobs` have an entry for each answer, or none at all."""

    texts: tuple[str, ...]
    usage: Usage = Usage()
    finish_reason: str = "stop"
    cached: bool = False
    tool_calls: tuple[tuple[ToolCall, ...], ...] = ()
    reasoning: tuple[str, ...] = ()
    logprobs: tuple[tuple[TokenLogprob, ...], ...] = ()


@dataclass(frozen=True)
class LMChunk:
    """A piece of an answer as it arrives: text or reasoning of answer `index`. The last chunk of a stream holds the
    whole `response` and no text."""

    text: str = ""
    reasoning: str = ""
    index: int = 0
    response: LMResponse | None = None


class LM(Protocol):
    """Anything that answers requests. `LMClient` is the base that ours share."""

    model: str

    @property
    def identity(self) -> str:
        """Which model, where: a text for keys, without credentials."""

    @property
    def constraints(self) -> frozenset[Constraint]:
        """The kinds of `ResponseFormat` that this model keeps to."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this model takes and gives beside text."""

    @property
    def default_adapter(self) -> Adapter:
        """The prompt layout that this model understands best."""

    def request(self, messages: Iterable[Message], **config: Any) -> LMRequest:
        """A request with this model's defaults where `config` does not say otherwise."""

    async def acomplete(self, request: LMRequest) -> LMResponse:
        """Answer; raises `LMError`."""

    def complete(self, request: LMRequest) -> LMResponse:
        """The same on the calling thread: `driving.drive(self.acomplete(request))`."""

    def astream(self, request: LMRequest) -> AsyncGenerator[LMChunk, None]:
        """The answer in pieces as they come; the last chunk holds the whole response and no text."""

    def dump_state(self) -> Mapping[str, Any]:
        """Model and settings as JSON data, without credentials."""
