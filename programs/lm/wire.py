"""Requests and answers as the chat-completions protocol writes them: shared by every endpoint that speaks it.

What holds here: pure functions between our values and plain JSON data; what a message does not have is not written.
"""

from __future__ import annotations

from typing import Any

from tracedsl.programs.lm.base import MediaPart, Message, Part


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
