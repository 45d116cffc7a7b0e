"""What a run did, as a graph: one node for each step that was taken, in program order.

What holds here: a recording takes no part in running. It refers to steps, parameters and values by `Ref`s that were
made when the operation happened, so that later changes of a container do not change what was recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracedsl.capture.language.handles import Field, Item, Lazy, Step, Template
from tracedsl.capture.language.model_calls import ModelCall, PureCall
from tracedsl.diagnostics import Span
from tracedsl.ir.graph import Builder, Graph, Literal, Node
from tracedsl.ir.language import (
    BUILD,
    FIELD,
    ITEM,
    LM_CALL,
    LOOK,
    PY_CALL,
    STR,
    TEMPLATE,
    VALUE,
    RecordedCall,
    Text,
    plain_type,
)

MOST_EVENTS = 5000


@dataclass(frozen=True)
class Param:
    """A parameter of the program."""

    name: str


@dataclass(frozen=True)
class Known:
    """A constant of the source."""

    value: Any


@dataclass(frozen=True)
class Value:
    """A Python value of unknown origin; equal labels, equal values."""

    label: int
    type: str


@dataclass(frozen=True)
class Built:
    """A container with references in it."""

    kind: str
    items: tuple[Ref, ...]
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PyCall:
    """A call of other code, or a store into something that other code can see."""

    callee: str
    inputs: tuple[Ref, ...]
    result: str
    span: Span | None


@dataclass(frozen=True, eq=False)
class Formatted:
    """An f-string whose parts were all there. `parts` are as in the op `py.template`."""

    parts: tuple[tuple[str, ...], ...]
    inputs: tuple[Ref, ...]
    span: Span | None


@dataclass(frozen=True, eq=False)
class Looked:
    """Python looked at a value."""

    at: Ref
    kind: str
    outcome: bool | int | None
    span: Span | None


Ref = Step | PyCall | Formatted | Param | Known | Value | Built
Event = Step | PyCall | Formatted | Looked


@dataclass
class Recording:
    """The events of one run. `complete` is False if there were too many to keep, or the run raised."""

    name: str
    params: Mapping[str, Any]
    events: list[Event] = field(default_factory=list)
    inputs: dict[Step, Mapping[str, Ref]] = field(default_factory=dict)
    parts: dict[Step, tuple[tuple[tuple[str, ...], ...], tuple[Ref, ...]]] = field(default_factory=dict)
    result: Ref | None = None
    complete: bool = True

    def add(self, event: Event) -> None:
        if len(self.events) < MOST_EVENTS:
            self.events.append(event)
        else:
            self.complete = False

    def calls(self) -> list[ModelCall]:
        """The calls of models, in program order."""
        return [event for event in self.events if isinstance(event, ModelCall)]

    def path(self) -> tuple[str, ...]:
        """What identifies the way that the run took: sites and outcomes of looks, in program order."""
        return tuple(e.site if isinstance(e, ModelCall) else f"{e.kind} {e.outcome}" for e in self.events
                     if isinstance(e, ModelCall) or (isinstance(e, Looked) and e.outcome is not None))

    def graph(self) -> Graph:
        return _GraphMaker(self).make()


class _GraphMaker:
    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._builder = Builder(recording.name)
        self._nodes: dict[Any, Node] = {}
        self._number = 0

    def make(self) -> Graph:
        for name, value in self._recording.params.items():
            self._nodes[Param(name)] = self._builder.param(name, plain_type(value))
        for event in self._recording.events:
            node = self._event(event)
            if node is not None:
                self._nodes[event] = node
        result = self._recording.result
        return self._builder.build([self._ref(Known(None) if result is None else result)])

    def _event(self, event: Event) -> Node | None:
        add = self._builder.add
        match event:
            case ModelCall():
                return self._model_call(event)
            case PureCall() | Lazy():
                refs = self._refs(tuple(self._recording.inputs[event].values()))
                attrs = {"callee": event.callee, "result": type(event.value).__name__, "pure": True}
                return add(PY_CALL, refs, attrs, span=event.span)
            case Field(base=base, name=name):
                return add(FIELD, [self._ref(base)], {"name": name}, span=event.span)
            case Item(base=base, key=key):
                return add(ITEM, [self._ref(base)], {"key": Literal(key, repr(key))}, span=event.span)
            case Template():
                parts, inputs = self._recording.parts[event]
                return add(TEMPLATE, self._refs(inputs), {"parts": parts}, span=event.span)
            case Formatted(parts=parts, inputs=inputs):
                return add(TEMPLATE, self._refs(inputs), {"parts": parts}, span=event.span)
            case PyCall(callee=callee, inputs=inputs, result=result):
                return add(PY_CALL, self._refs(inputs), {"callee": callee, "result": result, "pure": False},
                           span=event.span)
            case Looked(at=at, kind=kind, outcome=outcome):
                return add(LOOK, [self._ref(at)], {"kind": kind, "outcome": outcome}, span=event.span)
        return None

    def _model_call(self, call: ModelCall) -> Node:
        inputs = self._recording.inputs[call]
        recorded = RecordedCall(self._number, call.site, call.value if call.deterministic else None)
        self._number += 1
        attrs = {"call": Literal(recorded, call.kind), "signature": call.signature_text, "state": call.state,
                 "fields": tuple(inputs), "outputs": call.outputs, "deterministic": call.deterministic}
        return self._builder.add(LM_CALL, self._refs(tuple(inputs.values())), attrs, span=call.span)

    def _refs(self, refs: Sequence[Ref]) -> list[Node]:
        return [self._ref(ref) for ref in refs]

    def _ref(self, ref: Ref) -> Node:
        """The node of a reference; made on first use for constants, values and containers."""
        if ref in self._nodes:
            return self._nodes[ref]
        match ref:
            case Known(value=value):
                return self._builder.constant(value, plain_type(value), repr(value))
            case Value(label=label, type=kind):
                node = self._builder.add(VALUE, (), {"result": kind, "label": label})
            case Built(kind=kind, items=items, keys=keys):
                return self._builder.add(BUILD, self._refs(items), {"kind": kind, "keys": keys})
            case _:
                # A step that was left out of the recording (too many events): an unknown value.
                node = self._builder.add(VALUE, (), {"result": "object", "label": -1})
        self._nodes[ref] = node
        return node


__all__ = ["STR", "Built", "Formatted", "Known", "Looked", "Param", "PyCall", "Recording", "Ref", "Text", "Value"]
