"""The tool calls that a model asked for, and what they gave.

What holds here: executing never raises for a call that fails. Each call has one result, in order, and its exception
stays at hand. Calls are read from every form in which they come; arguments that are no JSON object are an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from pydantic import BaseModel, Field, PrivateAttr, model_serializer, model_validator

from tracedsl.diagnostics import nearest
from tracedsl.programs.driving import gather
from tracedsl.programs.field_types.base import Type
from tracedsl.programs.lm.base import ToolCall as WireCall
from tracedsl.programs.tools.tool import Tool, ToolError, as_tools, error_text
from tracedsl.programs.types import to_json

if TYPE_CHECKING:
    from tracedsl.programs.lm.base import LMResponse


class ToolCalls(Type):
    """The tool calls in an answer. As the type of an output field: `"question, tools: list[Tool] -> calls: ToolCalls"`.

    Read from `{"tool_calls": [{"name": ..., "args": {...}}]}`, from a list of calls, from one call, and from calls as
    the chat-completions protocol writes them.
    """

    class ToolCall(BaseModel):
        """One call: the tool's name, its arguments, and the id by which a protocol refers to it."""

        name: str
        args: dict[str, Any] = {}
        id: str | None = None

        @model_validator(mode="before")
        @classmethod
        def _normalised(cls, data: Any) -> Any:
            return _call_data(data) if isinstance(data, Mapping) else data

        @model_serializer
        def _plain(self) -> dict[str, Any]:
            return {"name": self.name, "args": to_json(self.args)}

        @classmethod
        def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
            args = {"type": "object", "additionalProperties": True}
            return {"type": "object", "properties": {"name": {"type": "string"}, "args": args},
                    "required": ["name", "args"]}

        def execute(self, functions: Mapping[str, Any] | Iterable[Any]) -> Any:
            """Call the tool; raises what it raises, and `ToolError` P042 if there is none of this name."""
            return _find(self.name, functions)(**self.args)

        async def aexecute(self, functions: Mapping[str, Any] | Iterable[Any]) -> Any:
            """As `execute`, awaited."""
            return await _find(self.name, functions).acall(**self.args)

    field_role: ClassVar[str] = "tool_calls"
    tool_calls: list[ToolCall] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _normalised(cls, data: Any) -> Any:
        if isinstance(data, (list, tuple)):
            return {"tool_calls": list(data)}
        if isinstance(data, Mapping) and "tool_calls" not in data and _looks_like_a_call(data):
            return {"tool_calls": [data]}
        return data

    @classmethod
    def description(cls) -> str:
        return ('JSON: {"tool_calls": [{"name": ..., "args": {...}}, ...]}, with the name of a tool and its arguments; '
                "no calls: an empty list")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From what a model wrote: one call, a list of calls, or the whole."""
        from tracedsl.programs.adapters.values import find_json

        return cls.model_validate(find_json(text, lambda value: isinstance(value, (dict, list))))

    @classmethod
    def from_dict_list(cls, tool_calls_dicts: Iterable[Mapping[str, Any]]) -> Self:
        """From calls as plain data."""
        return cls.model_validate(list(tool_calls_dicts))

    @classmethod
    def from_calls(cls, calls: Iterable[WireCall]) -> Self:
        """From the calls of an answer (`LMResponse.tool_calls[i]`); raises `ValueError` for arguments that are no
        JSON object."""
        return cls.model_validate([{"id": c.id, "name": c.name, "arguments": c.arguments} for c in calls])

    @classmethod
    def from_response(cls, response: LMResponse, index: int = 0) -> Self:
        """From answer number `index` of a response; no calls if it has none."""
        return cls.from_calls(response.tool_calls[index] if index < len(response.tool_calls) else ())

    def to_wire(self) -> tuple[WireCall, ...]:
        """The calls as a message carries them; a call without an id gets one."""
        return tuple(WireCall(c.id or f"call_{i}", c.name, json.dumps(to_json(c.args), ensure_ascii=False))
                     for i, c in enumerate(self.tool_calls))

    def execute(self, tools: Mapping[str, Any] | Iterable[Any]) -> ToolCallResults:
        """Make all calls, one after the other. A call that fails has its error as its result."""
        return ToolCallResults(tool_call_results=[_outcome(call, tools) for call in self.tool_calls])

    async def aexecute(self, tools: Mapping[str, Any] | Iterable[Any]) -> ToolCallResults:
        """Make all calls at the same time; results stand in the order of the calls."""
        async def one(call: ToolCalls.ToolCall) -> ToolCallResults.ToolCallResult:
            return await _aoutcome(call, tools)

        return ToolCallResults(tool_call_results=await gather(one, self.tool_calls, len(self)))

    def __len__(self) -> int:
        return len(self.tool_calls)


class ToolCallResults(BaseModel):
    """What the calls of a `ToolCalls` gave, one result a call."""

    class ToolCallResult(BaseModel):
        """The value of one call, or (`is_error`) what went wrong as text; `error` is the exception itself."""

        call_id: str | None = None
        name: str
        value: Any = None
        is_error: bool = False
        _error: Exception | None = PrivateAttr(None)

        @property
        def error(self) -> Exception | None:
            return self._error

        @property
        def text(self) -> str:
            """The result as a model is told of it."""
            plain = to_json(self.value)
            return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)

    tool_call_results: list[ToolCallResult] = []

    def raise_first(self) -> None:
        """Raise the first error, if there is one."""
        for result in self.tool_call_results:
            if result.error is not None:
                raise result.error

    def __len__(self) -> int:
        return len(self.tool_call_results)


def _outcome(call: ToolCalls.ToolCall, tools: Any) -> ToolCallResults.ToolCallResult:
    try:
        return ToolCallResults.ToolCallResult(call_id=call.id, name=call.name, value=call.execute(tools))
    except Exception as error:  # noqa: BLE001 - users' code; it is the result of this call
        return _failed(call, error)


async def _aoutcome(call: ToolCalls.ToolCall, tools: Any) -> ToolCallResults.ToolCallResult:
    try:
        return ToolCallResults.ToolCallResult(call_id=call.id, name=call.name, value=await call.aexecute(tools))
    except Exception as error:  # noqa: BLE001 - users' code; it is the result of this call
        return _failed(call, error)


def _failed(call: ToolCalls.ToolCall, error: Exception) -> ToolCallResults.ToolCallResult:
    made = ToolCallResults.ToolCallResult(call_id=call.id, name=call.name, value=error_text(error), is_error=True)
    made._error = error
    return made


def _find(name: str, functions: Mapping[str, Any] | Iterable[Any]) -> Tool:
    known: dict[str, Tool]
    if isinstance(functions, Mapping):
        known = {n: f if isinstance(f, Tool) else Tool(f, name=n) for n, f in functions.items()}
    else:
        known = as_tools(cast("Iterable[Any]", functions))
    if name not in known:
        raise ToolError("P042", f"there is no tool {name!r}", hint=nearest(name, known))
    return known[name]


def _looks_like_a_call(data: Mapping[str, Any]) -> bool:
    return "function" in data or ("name" in data and ("args" in data or "arguments" in data))


def _call_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """One call as `{name, args, id}`, from this form or the protocol's."""
    inner = data["function"] if isinstance(data.get("function"), Mapping) else data
    args = inner.get("args", inner.get("arguments", {}))
    if isinstance(args, str):
        try:
            args = json.loads(args) if args.strip() else {}
        except ValueError as error:
            raise ValueError(f"the arguments of {inner.get('name')!r} are no JSON: {error}") from None
    return {"name": inner.get("name"), "args": {} if args is None else args,
            "id": data.get("id") or data.get("call_id")}
