"""Requests and answers as the chat-completions protocol writes them: shared by every endpoint that speaks it.

What holds here: pure functions between our values and plain JSON data; what a message does not have is not written.
"""

from __future__ import annotations

import json
from typing import Any

from tracedsl.programs.lm.base import (
    LMChunk,
    LMRequest,
    LMResponse,
    MediaPart,
    Message,
    Part,
    TokenLogprob,
    ToolCall,
    Usage,
)

TOOL_CHOICES = ("auto", "none", "required")


def chat_message(message: Message) -> dict[str, Any]:
    """A message as the protocol has it."""
    content = message.content if isinstance(message.content, str) else [_part(p) for p in message.content]
    data: dict[str, Any] = {"role": message.role, "content": content}
    if message.tool_calls:
        data["tool_calls"] = [{"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                              for c in message.tool_calls]
    if message.tool_call_id:
        data["tool_call_id"] = message.tool_call_id
    return data


def _part(part: Part) -> dict[str, Any]:
    if not isinstance(part, MediaPart):
        return {"type": "text", "text": part.text}
    data_url = part.url or f"data:{part.media_type};base64,{part.data}"
    match part.kind:
        case "image":
            return {"type": "image_url", "image_url": {"url": data_url}}
        case "audio":
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.media_type.split("/")[-1]}}
        case "file":
            return {"type": "file", "file": {"filename": part.name, "file_data": data_url}}


# -- requests ----------------------------------------------------------------------------------------------------------


def chat_body(request: LMRequest) -> dict[str, Any]:
    """What a request says beside model, room, temperature and response format, which endpoints name differently."""
    body: dict[str, Any] = {"messages": [chat_message(m) for m in request.messages]}
    if request.seed is not None:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if request.tools:
        body["tools"] = [{"type": "function", "function": {
            "name": t.name, "description": t.description, "parameters": json.loads(t.parameters)}}
            for t in request.tools]
        if (choice := request.tool_choice) is not None:
            named = choice not in TOOL_CHOICES
            body["tool_choice"] = {"type": "function", "function": {"name": choice}} if named else choice
    if request.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": request.logprobs}
    return body


# -- answers -----------------------------------------------------------------------------------------------------------


def read_chat(data: Any) -> LMResponse:
    """A chat completion, as JSON data. Raises `KeyError`, `TypeError` or `ValueError` if it is none."""
    if not data["choices"]:
        raise ValueError("it has no choices")
    return _assembled([_Answer.of(choice) for choice in data["choices"]], data.get("usage"))


def usage_of(data: Any) -> Usage:
    """One call's usage; zero if the endpoint does not tell."""
    data = data or {}
    return Usage(int(data.get("prompt_tokens") or 0), int(data.get("completion_tokens") or 0), 1,
                 reused_tokens=reused_tokens(data.get("prompt_tokens_details")))


def reused_tokens(details: Any) -> int:
    """The tokens of a prompt that were in the endpoint's prefix cache; zero if it does not tell."""
    return int(details.get("cached_tokens") or 0) if isinstance(details, dict) else 0


class ChatStream:
    """The pieces of a streamed chat completion, put together as they come."""

    def __init__(self) -> None:
        self._answers: dict[int, _Answer] = {}
        self._usage: Any = None

    def add(self, data: Any) -> list[LMChunk]:
        """Take the next event; returns what it adds to the answers. Raises as `read_chat`."""
        self._usage = data.get("usage") or self._usage
        chunks = []
        for choice in data.get("choices") or ():
            index = int(choice.get("index") or 0)
            answer = self._answers.setdefault(index, _Answer())
            text, reasoning = answer.add(choice.get("delta") or {}, choice)
            if text or reasoning:
                chunks.append(LMChunk(text, reasoning, index))
        return chunks

    def finished(self) -> LMResponse | None:
        """The whole response; None if the stream broke off."""
        answers = [self._answers[i] for i in sorted(self._answers)]
        if not answers or not all(answer.finish for answer in answers):
            return None
        return _assembled(answers, self._usage)


class _Answer:
    """One of the answers, whole or so far."""

    def __init__(self) -> None:
        self.text, self.reasoning, self.finish = "", "", ""
        self.calls: dict[int, list[str]] = {}
        self.logprobs: list[TokenLogprob] = []

    @classmethod
    def of(cls, choice: Any) -> _Answer:
        """A choice that came in one piece."""
        made = cls()
        made.add(choice["message"], choice)
        made.finish = made.finish or "stop"
        return made

    def add(self, part: Any, choice: Any) -> tuple[str, str]:
        text, reasoning = part.get("content") or part.get("refusal") or "", ""
        for name in ("reasoning_content", "reasoning"):
            reasoning = reasoning or part.get(name) or ""
        if not (isinstance(text, str) and isinstance(reasoning, str)):
            raise TypeError("the content of a message is no text")
        self.text, self.reasoning = self.text + text, self.reasoning + reasoning
        for i, call in enumerate(part.get("tool_calls") or ()):
            kept = self.calls.setdefault(int(call.get("index", i)), ["", "", ""])
            function = call.get("function") or {}
            for at, piece in enumerate((call.get("id"), function.get("name"), function.get("arguments"))):
                kept[at] += piece or ""
        self.logprobs += map(read_logprob, (choice.get("logprobs") or {}).get("content") or ())
        self.finish = choice.get("finish_reason") or self.finish
        return text, reasoning


def _assembled(answers: list[_Answer], usage: Any) -> LMResponse:
    finish = {answer.finish for answer in answers}
    calls = tuple(tuple(ToolCall(*answer.calls[i]) for i in sorted(answer.calls)) for answer in answers)
    reasoning = tuple(answer.reasoning for answer in answers)
    logprobs = tuple(tuple(answer.logprobs) for answer in answers)
    return LMResponse(
        tuple(answer.text for answer in answers), usage_of(usage),
        "length" if "length" in finish else "tool_calls" if any(calls) else "stop",
        tool_calls=calls if any(calls) else (), reasoning=reasoning if any(reasoning) else (),
        logprobs=logprobs if any(logprobs) else ())


def read_logprob(data: Any) -> TokenLogprob:
    """A token with its probability and the alternatives to it."""
    top = tuple((str(t["token"]), float(t["logprob"])) for t in data.get("top_logprobs") or ())
    return TokenLogprob(str(data["token"]), float(data["logprob"]), top)
