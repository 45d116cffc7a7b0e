"""One answer as a stream of its fields: what an adapter finds while it is written, put right when it is whole.

What holds here: per field, the chunks of the last attempt put together are its value (see `streaming.py`). Feeding
takes time linear in the answer; the whole answer is read once more at its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tracedsl.programs.adapters.base import AdapterParseError
from tracedsl.programs.adapters.native import plan_for
from tracedsl.programs.adapters.streams import FieldStream, NoStream, ThoughtFilter
from tracedsl.programs.adapters.values import coerce, parse_value
from tracedsl.programs.adapters.writing import format_value
from tracedsl.programs.lm.base import LMChunk
from tracedsl.programs.types import bare_type


class FieldChunk(NamedTuple):
    """A piece of a field's text; an `attempt` that is higher than the last one starts it anew."""

    field: str
    text: str
    last: bool
    attempt: int


@dataclass
class _State:
    """What was given out for a field."""

    attempt: int = 1
    pieces: list[str] = field(default_factory=list)
    ended: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class AnswerStream:
    """The stream of one call's answer, and of the second one if the first cannot be read."""

    def __init__(self, call: Any, fields: Iterable[str]) -> None:
        self._signature = call.signature
        self._states = {name: _State() for name in fields}
        self._done = False
        self._begin(call)

    def _begin(self, call: Any) -> None:
        self._call = call
        self._plan = plan_for(call.signature, call.lm.capabilities)
        shown = self._plan.shown
        self._filter = ThoughtFilter(frozenset(name.casefold() for name in shown.output_fields))
        make = getattr(call.adapter, "stream", None)
        self._fields: FieldStream = NoStream() if make is None else make(shown)

    def feed(self, call: Any, chunk: LMChunk) -> Iterator[FieldChunk]:
        """More of the answer; the last chunk settles it."""
        if call is not self._call:  # asked again
            self._begin(call)
            for state in self._states.values():
                state.attempt += bool(state.pieces or state.ended)
                state.pieces, state.ended = [], False
        thought = self._plan.reasoning
        if chunk.reasoning and thought is not None and thought.name in self._states:
            yield self._more(thought.name, chunk.reasoning)
        for name, text in self._fields.feed(self._filter.feed(chunk.text)) if chunk.text else ():
            if name in self._states and text:
                yield self._more(name, text)
        for name in self._fields.closed:
            if name in self._states and not self._states[name].ended:
                yield self._end(name)
        if chunk.response is not None and not hasattr(call.adapter, "aparse"):
            yield from self._settle(chunk)

    def finish(self, prediction: Mapping[str, Any]) -> Iterator[FieldChunk]:
        """The prediction is there: whatever was not said is said now."""
        if not self._done:
            self._done = True
            yield from self._put_right(dict(prediction.items()))

    def _settle(self, chunk: LMChunk) -> Iterator[FieldChunk]:
        """The answer is whole: where it can be read, what was given out is completed or put right."""
        response = chunk.response
        if response is None or not response.texts or not self._plan.shown.output_fields:
            return
        try:
            values = self._call.adapter.parse(self._plan.shown, response.texts[0])
        except AdapterParseError:
            return
        yield from self._put_right(values)

    def _put_right(self, values: Mapping[str, Any]) -> Iterator[FieldChunk]:
        for name, state in self._states.items():
            if name not in values:
                continue
            field, value, given = self._signature.output_fields[name], values[name], state.text
            if (state.ended or given) and _says(bare_type(field.type), given, value):
                if not state.ended:
                    yield self._end(name)
                continue
            whole = value if type(value) is str else str(format_value(value))
            if state.ended or not whole.startswith(given):
                state.attempt, state.pieces, state.ended, given = state.attempt + 1, [], False, ""
            if whole[len(given):]:
                yield self._more(name, whole[len(given):])
            yield self._end(name)

    def _more(self, name: str, text: str) -> FieldChunk:
        state = self._states[name]
        state.pieces.append(text)
        return FieldChunk(name, text, False, state.attempt)

    def _end(self, name: str) -> FieldChunk:
        state = self._states[name]
        state.ended = True
        return FieldChunk(name, "", True, state.attempt)


def _says(annotation: Any, text: str, value: Any) -> bool:
    """Whether the text reads as the value."""
    if isinstance(value, str) and text == value:
        return True
    if annotation is str:
        return False
    for read in (parse_value, coerce):
        try:
            if read(annotation, text) == value:
                return True
        except (ValueError, TypeError, RecursionError):
            continue
    return False
