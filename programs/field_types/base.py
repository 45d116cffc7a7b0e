"""What a field type of one's own is: a class that says how its values stand in a prompt and how they are read.

What holds here: adapters, signatures and clients know such a class by its attribute `field_role` alone, so a class that
derives from nothing here may take part. Values are plain data for pydantic: they are checked, saved and loaded like any
other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from pydantic import BaseModel

from tracedsl.programs.lm.base import MediaPart, Part, TextPart


@runtime_checkable
class FieldType(Protocol):
    """The whole protocol.

    `field_role` is "" for ordinary data, "media" for what a prompt holds as a part of its own, "history" for an earlier
    conversation, "reasoning" for a model's thoughts, "tool" for a tool that may be called (it has `spec: ToolSpec`) and
    "tool_calls" for the calls that a model wants made (its class has `from_calls(calls)`, see `adapters/native.py`).
    """

    field_role: ClassVar[str]

    def format(self) -> Any:
        """The value in a prompt: text, a part, or a list of both."""

    @classmethod
    def parse(cls, text: str) -> Any:
        """The value that a model wrote; raises `ValueError` with a one-line reason."""

    @classmethod
    def description(cls) -> str:
        """What to tell the model about such a field; empty for nothing."""


class Type(BaseModel):
    """Base of field types: write `format`, and `description` and `parse` where the defaults do not do.

    >>> class Point(Type):
    ...     x: int
    ...     y: int
    ...     def format(self): return f"{self.x}/{self.y}"
    >>> Point.parse('{"x": 1, "y": 2}').format()
    '1/2'

    `format` returns text, a `TextPart` or `MediaPart`, or a list of them; content parts as the chat-completions
    protocol writes them (`{"type": "image_url", ...}`) are taken too.
    """

    field_role: ClassVar[str] = ""

    def format(self) -> Any:
        return self.model_dump_json()

    @classmethod
    def description(cls) -> str:
        return ""

    @classmethod
    def parse(cls, text: str) -> Self:
        from tracedsl.programs.adapters.values import parse_structure

        made: Self = parse_structure(cls, text)
        return made


def parts_of(formatted: Any) -> list[str | MediaPart]:
    """What a `format` returned, as texts and media in order. Raises `ValueError` for what is neither."""
    if isinstance(formatted, (str, MediaPart)):
        return [formatted]
    if isinstance(formatted, TextPart):
        return [formatted.text]
    if isinstance(formatted, Mapping):
        return [_part_of_json(formatted)]
    if isinstance(formatted, Iterable):
        return [piece for item in formatted for piece in parts_of(item)]
    raise ValueError(f"a field type's format() returned {type(formatted).__name__}; it has to be text or parts")


def _part_of_json(data: Mapping[str, Any]) -> str | MediaPart:
    """A content part of the chat-completions protocol."""
    match data:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return media("image", url)
        case {"type": "input_audio", "input_audio": {"data": str(encoded), "format": str(form)}}:
            return MediaPart("audio", f"audio/{form}", encoded)
        case {"type": "file", "file": {"file_data": str(url)} as file}:
            return media("file", url, str(file.get("filename") or ""))
    raise ValueError(f"a field type's format() returned a part that is not known: {data.get('type', 'no type')!r}")


def media(kind: Any, url: str, name: str = "") -> MediaPart:
    """A part from an address; a data URL is taken apart."""
    if url.startswith("data:"):
        head, _, data = url[5:].partition(",")
        return MediaPart(kind, head.split(";")[0], data, name=name)
    return MediaPart(kind, url=url, name=name)


def joined(pieces: Iterable[str | MediaPart]) -> str | tuple[Part, ...]:
    """A message's content from pieces: text if there is only text."""
    pieces = list(pieces)
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(str(piece) for piece in pieces)
    parts: list[Part] = []
    for piece in pieces:
        if isinstance(piece, MediaPart):
            parts.append(piece)
        elif parts and isinstance(last := parts[-1], TextPart):
            parts[-1] = TextPart(last.text + piece)
        elif piece:
            parts.append(TextPart(piece))
    return tuple(parts)
