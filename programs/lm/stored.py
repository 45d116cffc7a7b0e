"""Answers as JSON data, for the disk.

What holds here: what `to_json` writes, `from_json` reads back equal but for the usage; data that is not ours is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracedsl.programs.lm.base import LMResponse, TokenLogprob, ToolCall, Usage


def to_json(response: LMResponse) -> dict[str, Any]:
    """The answer as JSON data; what it does not have is left out."""
    data: dict[str, Any] = {
        "texts": list(response.texts), "finish_reason": response.finish_reason,
        "prompt_tokens": response.usage.prompt_tokens, "completion_tokens": response.usage.completion_tokens}
    if response.tool_calls:
        data["tool_calls"] = [[[c.id, c.name, c.arguments] for c in calls] for calls in response.tool_calls]
    if response.reasoning:
        data["reasoning"] = list(response.reasoning)
    if response.logprobs:
        data["logprobs"] = [[[t.token, t.logprob, [list(pair) for pair in t.top]] for t in tokens]
                            for tokens in response.logprobs]
    return data


def from_json(data: Mapping[str, Any]) -> LMResponse | None:
    """The answer in JSON data, with what it used when it was made."""
    try:
        return LMResponse(
            tuple(map(str, data["texts"])), Usage(int(data["prompt_tokens"]), int(data["completion_tokens"]), 1),
            str(data["finish_reason"]), tool_calls=_tool_calls(data), reasoning=tuple(data.get("reasoning", ())),
            logprobs=_logprobs(data))
    except (KeyError, TypeError, ValueError):
        return None


def _tool_calls(data: Mapping[str, Any]) -> tuple[tuple[ToolCall, ...], ...]:
    return tuple(tuple(ToolCall(*call) for call in calls) for calls in data.get("tool_calls", ()))


def _logprobs(data: Mapping[str, Any]) -> tuple[tuple[TokenLogprob, ...], ...]:
    return tuple(tuple(TokenLogprob(token, value, tuple((text, p) for text, p in top)) for token, value, top in tokens)
                 for tokens in data.get("logprobs", ()))
