"""What an endpoint can do by itself in place of a prompt: tools, reasoning, answers held to a schema.

What holds here: this is the one way from a signature to a request's messages and settings (`prompt_for`) and from an
answer back to values (`read_answer`), for every adapter. A field that the endpoint serves natively is left out of the
prompt; an endpoint without that ability gets the field as text. A demonstration whose only output is served natively
has nothing to show and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tracedsl.programs.adapters.base import Adapter, AdapterParseError, TextAdapter
from tracedsl.programs.fields import Field
from tracedsl.programs.lm.base import Capability, LMResponse, Message

if TYPE_CHECKING:
    from tracedsl.programs.lm.base import LM
    from tracedsl.programs.signature import Signature


@dataclass(frozen=True)
class Plan:
    """Which fields the endpoint serves by itself, and the signature that is left for the prompt."""

    shown: type[Signature]
    tools: tuple[str, ...] = ()
    calls: Field | None = None
    reasoning: Field | None = None


class Prompt(NamedTuple):
    """Messages, and the settings of the request that go with them."""

    messages: list[Message]
    settings: dict[str, Any]


def plan_for(signature: type[Signature], capabilities: frozenset[Capability]) -> Plan:
    """The plan for a signature on a model with these capabilities; made once."""
    return signature.memo(("plan", capabilities), lambda s: _plan(s, capabilities))


def _plan(signature: type[Signature], capabilities: frozenset[Capability]) -> Plan:
    by_role: dict[tuple[str, str], list[Field]] = {}
    for f in signature.fields.values():
        by_role.setdefault((f.kind, f.role), []).append(f)
    tools, calls = by_role.get(("input", "tool"), []), by_role.get(("output", "tool_calls"), [])
    thoughts = by_role.get(("output", "reasoning"), [])
    shown = signature
    native_tools = bool("tools" in capabilities and tools and calls)
    native_thought = bool("reasoning" in capabilities and thoughts)
    for f in [*(tools + calls[:1] if native_tools else []), *(thoughts[:1] if native_thought else [])]:
        shown = shown.delete(f.name)
    return Plan(shown, tuple(f.name for f in tools) if native_tools else (), calls[0] if native_tools else None,
                thoughts[0] if native_thought else None)


def prompt_for(adapter: Adapter, signature: type[Signature], demos: Sequence[Mapping[str, Any]],
               inputs: Mapping[str, Any], lm: LM) -> Prompt:
    """Messages and settings of one call."""
    plan = plan_for(signature, lm.capabilities)
    messages = adapter.format(plan.shown, demos, inputs)
    if plan.tools:
        specs = tuple(tool.spec for name in plan.tools for tool in _each(inputs[name]))
        # An answer that is a tool call has no layout, so the answer is not held to one.
        return Prompt(messages, {"tools": specs} if specs else {})
    form = adapter.response_format(plan.shown, lm.constraints) if plan.shown.output_fields else None
    return Prompt(messages, {} if form is None else {"response_format": form})


def _each(tools: Any) -> list[Any]:
    """The tools in an input, which may be one or several."""
    if isinstance(tools, Mapping):
        return list(tools.values())
    return list(tools) if isinstance(tools, (list, tuple)) else [tools]


async def read_answer(adapter: Adapter, signature: type[Signature], lm: LM, response: LMResponse,
                      index: int = 0) -> dict[str, Any]:
    """The outputs of answer number `index`; raises `AdapterParseError`."""
    plan = plan_for(signature, lm.capabilities)
    text = response.texts[index]
    if response.finish_reason == "length" and len(response.texts) == 1 and isinstance(adapter, TextAdapter):
        name = adapter.cut(plan.shown, text)
        if name is not None:
            raise AdapterParseError.of(adapter.name, signature, text, name, "the answer was cut off at max_tokens")
    if plan.shown is signature:
        return await _parse(adapter, signature, text)
    values: dict[str, Any] = {}
    if plan.reasoning is not None:
        values[plan.reasoning.name] = plan.reasoning.type(_at(response.reasoning, index, ""))
    calls = _at(response.tool_calls, index, ())
    if plan.calls is not None:
        try:
            values[plan.calls.name] = plan.calls.type.from_calls(calls)
        except ValueError as error:
            raise AdapterParseError.of(adapter.name, signature, text, plan.calls.name, str(error)) from None
    if plan.shown.output_fields:
        values |= await _rest(adapter, plan.shown, text, optional=bool(calls))
    elif not calls and not text.strip() and plan.calls is not None:
        raise AdapterParseError.of(adapter.name, signature, text, plan.calls.name, "there is neither text nor a call")
    return {name: values[name] for name in signature.output_fields}


async def _rest(adapter: Adapter, shown: type[Signature], text: str, *, optional: bool) -> dict[str, Any]:
    """The outputs that stand in the text; beside tool calls they may be missing, and then are None."""
    try:
        return await _parse(adapter, shown, text)
    except AdapterParseError:
        if not optional:
            raise
        return dict.fromkeys(shown.output_fields)


async def _parse(adapter: Adapter, signature: type[Signature], text: str) -> dict[str, Any]:
    """By `aparse` where an adapter has it: reading may take another call."""
    aparse = getattr(adapter, "aparse", None)
    made: dict[str, Any] = adapter.parse(signature, text) if aparse is None else await aparse(signature, text)
    return made


def _at(items: Sequence[Any], index: int, otherwise: Any) -> Any:
    return items[index] if index < len(items) else otherwise
