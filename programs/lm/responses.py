"""Requests and answers as OpenAI's Responses API writes them.

What holds here: pure functions between our values and plain JSON data. What the protocol cannot say (several answers,
`stop`, `seed`) is refused and never left out silently. Nothing is kept at the endpoint (`store` is off).
Source: OpenAI API reference, "Responses", as of 2025.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tracedsl.programs.lm.base import (
    LMChunk,
    LMError,
    LMRequest,
    LMResponse,
    MediaPart,
    Message,
    Part,
    ToolCall,
    Usage,
)
from tracedsl.programs.lm.wire import TOOL_CHOICES, read_logprob, reused_tokens


def responses_body(request: LMRequest) -> dict[str, Any]:
    """What a request says beside the model."""
    for name, given in (("n", request.n > 1), ("stop", request.stop), ("seed", request.seed is not None)):
        if given:
            raise LMError("L003", f"the Responses API has no {name!r}", hint='use LM(..., model_type="chat")')
    body: dict[str, Any] = {"input": [item for m in request.messages for item in _items(m)], "store": False}
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.max_tokens is not None:
        body["max_output_tokens"] = request.max_tokens
    if request.tools:
        body["tools"] = [{"type": "function", "name": t.name, "description": t.description, "strict": False,
                          "parameters": json.loads(t.parameters)} for t in request.tools]
        if (choice := request.tool_choice) is not None:
            body["tool_choice"] = choice if choice in TOOL_CHOICES else {"type": "function", "name": choice}
    if request.logprobs is not None:
        body |= {"include": ["message.output_text.logprobs"], "top_logprobs": request.logprobs}
    if request.response_format is not None and request.response_format.kind == "json_schema":
        schema = json.loads(request.response_format.text)
        body["text"] = {"format": {"type": "json_schema", "name": "answer", "schema": schema}}
    return body


def _items(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": message.text}]
    content: Any = message.content
    if not isinstance(content, str):
        content = [_part(part, message.role) for part in content]
    items = [{"role": message.role, "content": content}] if content or not message.tool_calls else []
    return items + [{"type": "function_call", "call_id": c.id, "name": c.name, "arguments": c.arguments}
                    for c in message.tool_calls]


def _part(part: Part, role: str) -> dict[str, Any]:
    if not isinstance(part, MediaPart):
        return {"type": "output_text" if role == "assistant" else "input_text", "text": part.text}
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    match part.kind:
        case "image":
            return {"type": "input_image", "image_url": url}
        case "audio":
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.media_type.split("/")[-1]}}
        case "file":
            return {"type": "input_file", "filename": part.name, "file_data": url}


def read_response(data: Any) -> LMResponse:
    """A response, as JSON data. Raises `KeyError`, `TypeError` or `ValueError` if it is none."""
    texts, thoughts, calls, logprobs = "", "", [], []
    for item in data["output"]:
        match item["type"]:
            case "message":
                for part in item["content"]:
                    texts += part.get("text") or part.get("refusal") or ""
                    logprobs += [read_logprob(token) for token in part.get("logprobs") or ()]
            case "reasoning":
                thoughts += "".join(part.get("text") or "" for part in item.get("summary") or ())
            case "function_call":
                calls.append(ToolCall(str(item["call_id"]), str(item["name"]), str(item["arguments"])))
    if not data["output"] and data.get("status") != "incomplete":
        raise ValueError("it has no output")
    cut = data.get("status") == "incomplete"
    return LMResponse((texts,), usage_of(data.get("usage")), "length" if cut else "tool_calls" if calls else "stop",
                      tool_calls=(tuple(calls),) if calls else (), reasoning=(thoughts,) if thoughts else (),
                      logprobs=(tuple(logprobs),) if logprobs else ())


class ResponsesStream:
    """The events of a streamed response."""

    def __init__(self) -> None:
        self._response: LMResponse | None = None

    def add(self, data: Any) -> list[LMChunk]:
        """Take the next event; returns what it adds to the answer. Raises as `read_response`, `ValueError` also for an
        event that says the response failed."""
        match data["type"]:
            case "response.output_text.delta" | "response.refusal.delta":
                return [LMChunk(str(data["delta"]))]
            case "response.reasoning_summary_text.delta":
                return [LMChunk("", str(data["delta"]))]
            case "response.completed" | "response.incomplete":
                self._response = read_response(data["response"])
            case "response.failed" | "error":
                failed = data.get("response") or data
                raise ValueError(str((failed.get("error") or failed).get("message", "the response failed")))
        return []

    def finished(self) -> LMResponse | None:
        """The whole response; None if the stream broke off."""
        return self._response


def usage_of(data: Mapping[str, Any] | None) -> Usage:
    data = data or {}
    return Usage(int(data.get("input_tokens") or 0), int(data.get("output_tokens") or 0), 1,
                 reused_tokens=reused_tokens(data.get("input_tokens_details")))

