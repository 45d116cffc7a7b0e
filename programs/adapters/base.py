"""What an adapter is: it turns a signature, demonstrations and inputs into messages, and an answer back into values.

What holds here: formatting is pure, so the same call always gives the same request. Parsing either gives a value of the
declared type for every output field, or raises `AdapterParseError` with the raw answer, the field and the reason. What
depends on the signature alone is prepared once and kept with it (`Signature.memo`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from tracedsl.diagnostics import TracedslError
from tracedsl.programs.adapters.cleaning import EndlessThought, cleaned, is_placeholder, is_refusal
from tracedsl.programs.adapters.shapes import Found, elsewhere
from tracedsl.programs.adapters.values import Reader, coerce, reader
from tracedsl.programs.adapters.writing import Slot, fill
from tracedsl.programs.fields import MISSING
from tracedsl.programs.lm.base import Message

if TYPE_CHECKING:
    from tracedsl.programs.adapters.streams import FieldStream
    from tracedsl.programs.fields import Field
    from tracedsl.programs.lm.base import Constraint, Part, ResponseFormat
    from tracedsl.programs.signature import Signature

NOT_SUPPLIED = "Not supplied for this example."


@runtime_checkable
class Adapter(Protocol):
    """A prompt layout. `name` goes into cache keys and artefacts. `TextAdapter` is the base that ours share; an adapter
    that also has `stream` (as there) hands out fields while they are written."""

    @property
    def name(self) -> str:
        """A short name, different for each layout."""

    def format(self, signature: type[Signature], demos: Sequence[Mapping[str, Any]],
               inputs: Mapping[str, Any]) -> list[Message]:
        """The messages of one call."""

    def parse(self, signature: type[Signature], text: str) -> dict[str, Any]:
        """The output values by name; raises `AdapterParseError`."""

    def response_format(self, signature: type[Signature],
                        constraints: frozenset[Constraint]) -> ResponseFormat | None:
        """What to hold the answer to, in a form that the model supports; None if it supports none."""


class AdapterParseError(TracedslError, ValueError):
    """An answer that could not be read. `text` is the raw answer, `field` the output that failed (None: all of it);
    `worth_asking_again` is False where the same model was asked again already, or another one failed."""

    text: str
    field: str | None
    reason: str
    worth_asking_again: bool = True

    @classmethod
    def of(cls, adapter: str, signature: type[Signature], text: str, field: str | None, reason: str,
           ) -> AdapterParseError:
        shown = text if len(text) <= 600 else f"{text[:400]} ... {text[-150:]}"
        what = f"the answer has no readable {field!r}" if field else "the answer cannot be read"
        error = cls("P005", f"{what} ({adapter} adapter, {signature.signature})",
                    why=f"{reason}; the model wrote: {shown!r}" if text.strip() else "the model wrote nothing",
                    hint="add demonstrations, loosen the field's type, try another adapter, or raise max_tokens")
        error.text, error.field, error.reason = text, field, reason
        return error


@dataclass(frozen=True)
class Layout:
    """All of a prompt that depends on the signature alone: the system's text, how a question and how an answer is
    written, and which input is an earlier conversation."""

    system: str
    ask: tuple[Slot, ...]
    answer: tuple[Slot, ...]
    between: str = "\n\n"
    end: str = ""
    history: str | None = None


class _Output(NamedTuple):
    name: str
    field: Field
    read: Reader


class TextAdapter(ABC):
    """Base of the adapters: a subclass says how a signature is laid out, where the outputs stand in an answer, and how
    they come one piece after the other."""

    name: str

    @abstractmethod
    def layout(self, signature: type[Signature]) -> Layout:
        """The fixed part of the prompts; asked for once a signature."""

    @abstractmethod
    def find(self, signature: type[Signature], text: str) -> Found:
        """The outputs in an answer, as text or JSON; raises `ValueError` with a reason if it is not of this layout."""

    @abstractmethod
    def stream(self, signature: type[Signature]) -> FieldStream:
        """A reader of answers that come in pieces."""

    def response_format(self, signature: type[Signature],
                        constraints: frozenset[Constraint]) -> ResponseFormat | None:
        return None

    def cut(self, signature: type[Signature], text: str) -> str | None:
        """The output whose value cannot be trusted if the text was cut off at its end; None where parsing finds out."""
        return None

    def format(self, signature: type[Signature], demos: Sequence[Mapping[str, Any]],
               inputs: Mapping[str, Any]) -> list[Message]:
        layout = signature.memo((type(self), self), self._prepared)
        messages = [Message("system", layout.system)]
        for demo in usable_demos(signature, demos):
            self._turn(layout, signature, demo, messages)
        if layout.history is not None:
            for turn in history_turns(inputs.get(layout.history)):
                self._turn(layout, signature, turn, messages)
        messages.append(Message("user", fill(layout.ask, inputs, layout.between)))
        return messages

    def _prepared(self, signature: type[Signature]) -> Layout:
        """The layout, from which an earlier conversation is left out: it becomes turns."""
        history = next((n for n, f in signature.input_fields.items() if f.role == "history"), None)
        if history is None:
            return self.layout(signature)
        return replace(self.layout(signature.delete(history)), history=history)

    def _turn(self, layout: Layout, signature: type[Signature], values: Mapping[str, Any],
              messages: list[Message]) -> None:
        """A question and its answer."""
        messages.append(Message("user", fill(layout.ask, values, layout.between)))
        messages.append(Message("assistant", self.answer(layout, signature, values)))

    def answer(self, layout: Layout, signature: type[Signature], values: Mapping[str, Any]) -> str | tuple[Part, ...]:
        """The outputs of an example as the model should write them."""
        text = fill(layout.answer, values, layout.between)
        return text + layout.end if isinstance(text, str) else text

    def parse(self, signature: type[Signature], text: str) -> dict[str, Any]:
        try:
            shown, thought = cleaned(text, signature.memo("output set", _output_set))
        except EndlessThought as error:
            raise AdapterParseError.of(self.name, signature, text, None, str(error)) from None
        try:
            found, reason = self.find(signature, shown), "it is not in the layout that was asked for"
        except ValueError as error:
            found, reason = {}, str(error)
        found = found or elsewhere(signature, shown) or self.unmarked(signature, shown)
        outputs = signature.memo("outputs", _outputs)
        if not found and outputs:
            raise AdapterParseError.of(self.name, signature, text, None, reason)
        return {output.name: self._read(signature, text, output, found, thought) for output in outputs}

    def unmarked(self, signature: type[Signature], text: str) -> Found:
        """The only output, written without anything around it."""
        return only_output(signature, text)

    def _read(self, signature: type[Signature], text: str, output: _Output, found: Found, thought: str) -> Any:
        name, field, read = output
        raw = found.get(name)
        if raw is None:
            if field.role == "reasoning" and thought:
                return field.type(thought)
            if field.default is not MISSING:
                return field.default
            raise AdapterParseError.of(self.name, signature, text, name, "it is not in the answer")
        try:
            if isinstance(raw, str):
                if is_placeholder(name, field.title, raw):
                    raise ValueError("the model repeated the form instead of filling it in")
                return read(raw)
            return coerce(field.checked_type, raw.value)
        except RecursionError:
            reason = "it nests too deeply"
        except ValueError as error:
            reason = str(error)
        raise AdapterParseError.of(self.name, signature, text, name, reason)


def _output_set(signature: type[Signature]) -> frozenset[str]:
    return frozenset(name.casefold() for name in signature.output_fields)


def _outputs(signature: type[Signature]) -> tuple[_Output, ...]:
    return tuple(_Output(n, f, reader(f.checked_type)) for n, f in signature.output_fields.items())


def only_output(signature: type[Signature], text: str) -> Found:
    """The whole text as the only output, unless it declines to answer."""
    outputs = list(signature.output_fields.values())
    if len(outputs) != 1 or not text.strip() or (outputs[0].type is str and is_refusal(text)):
        return {}
    return {outputs[0].name: text.strip()}


def usable_demos(signature: type[Signature], demos: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Demonstrations with at least one input and one output, the incomplete ones first, as in DSPy: what stands nearest
    to the question is imitated most."""
    if not demos:
        return []
    inputs, outputs = signature.input_fields.keys(), signature.output_fields.keys()
    usable = [d for d in demos if not inputs.isdisjoint(d) and not outputs.isdisjoint(d)]
    names = signature.fields.keys()
    return sorted(usable, key=lambda d: all(name in d for name in names))


def history_turns(history: Any) -> list[Mapping[str, Any]]:
    """The messages of an earlier conversation, whatever it is held in."""
    if history is None:
        return []
    messages = history.get("messages", []) if isinstance(history, Mapping) else getattr(history, "messages", history)
    return list(messages)

