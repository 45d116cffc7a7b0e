"""Tools: functions that a language model may ask to have called.

What holds here: a tool checks and converts its arguments before its function sees them, and what does not fit is a
`ToolError` that says what would. Names and arguments are those of DSPy 3; different on purpose: an asynchronous
function can be called from synchronous code, and a missing argument is found before the function runs.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from tracedsl.diagnostics import TracedslError, nearest
from tracedsl.programs.context import current_watcher
from tracedsl.programs.driving import current_io, drive, running_loop
from tracedsl.programs.lm.base import ToolSpec
from tracedsl.programs.tools import schema
from tracedsl.programs.types import one_line, to_json


class ToolError(TracedslError, ValueError):
    """A tool that cannot be made or found, or arguments that do not fit it."""


class Tool:
    """A function with a name, a description and a schema for its arguments.

    >>> def add(a: int, b: int = 1) -> int:
    ...     "Add two numbers."
    ...     return a + b
    >>> Tool(add).args
    {'a': {'type': 'integer'}, 'b': {'default': 1, 'type': 'integer'}}
    >>> Tool(add)(a="2")
    3

    Args:
        func: a function, plain or `async`, or any object that can be called.
        name, desc: in place of the function's own name and docstring.
        args: JSON schemas by argument, in place of those made from the annotations.
        arg_types: types by argument, in place of the annotations.
        arg_desc: descriptions by argument, in place of the docstring's.

    Raises `ToolError` P040 if the function's arguments cannot be found out.
    """

    field_role: ClassVar[str] = "tool"

    def __init__(self, func: Callable[..., Any], name: str | None = None, desc: str | None = None,
                 args: Mapping[str, Any] | None = None, arg_types: Mapping[str, Any] | None = None,
                 arg_desc: Mapping[str, str] | None = None) -> None:
        if not callable(func):
            raise ToolError("P040", f"a {type(func).__name__} is no tool", hint="give a function, or Tool(function)")
        self.func = func
        self.name: str = name or _name(func)
        if self.name == "<lambda>":
            raise ToolError("P040", "a lambda has no name to call it by", hint="write Tool(lambda ..., name='...')")
        text, from_doc = schema.described(inspect.getdoc(_documented(func)) or "")
        self.desc: str = text if desc is None else desc
        self.home: Any = None       # the event loop that the function needs, if it needs a certain one
        try:
            parameters, self.has_kwargs = schema.parameters_of(func)
        except (TypeError, ValueError) as error:
            if args is None:
                raise ToolError("P040", f"the arguments of {self.name!r} cannot be found out", why=str(error),
                                hint="say them: Tool(func, args={'x': {'type': 'string'}})") from None
            parameters, self.has_kwargs = {}, True
        if args is not None:
            parameters = {n: parameters.get(n) or _parameter(n, s) for n, s in args.items()}
        types = {**schema.hints_of(func), **(arg_types or {})}
        self.arg_types: dict[str, Any] = {n: types.get(n, Any) for n in parameters}
        self.arg_desc: dict[str, str] = {**from_doc, **(arg_desc or {})}
        self._parameters = parameters
        self._model = schema.arguments_model(self.name, parameters, self.arg_types, self.arg_desc,
                                             self.has_kwargs and args is None)
        self.args, self._definitions = schema.properties(self._model)
        if args is not None:
            self.args = {n: {**s, **({"description": d} if (d := (arg_desc or {}).get(n)) else {})}
                         for n, s in args.items()}

    # -- what a model is told ------------------------------------------------------------------------------------

    @property
    def required(self) -> list[str]:
        """The arguments that every call has to give."""
        return [n for n, p in self._parameters.items() if p.default is inspect.Parameter.empty]

    @property
    def spec(self) -> ToolSpec:
        """The tool as a request carries it: name, description, JSON schema of the arguments."""
        whole: dict[str, Any] = {"type": "object", "properties": self.args, "required": self.required}
        if self._definitions:
            whole["$defs"] = self._definitions
        return ToolSpec(self.name, self.desc, json.dumps(whole, ensure_ascii=False, default=str))

    def toDict(self) -> dict[str, Any]:
        """The tool as plain data, for prompts."""
        return {"name": self.name, "desc": self.desc, "args": to_json(self.args)}

    def format(self) -> str:
        """The tool as a line of a prompt."""
        return str(self)

    @classmethod
    def description(cls) -> str:
        return ""

    @classmethod
    def parse(cls, text: str) -> Tool:
        raise ValueError("a tool cannot be read from text")

    def __str__(self) -> str:
        desc = f": {' '.join(self.desc.split())}" if self.desc else ""
        return f"{self.name}{desc} Arguments: {json.dumps(self.args, ensure_ascii=False, default=str)}"

    def __repr__(self) -> str:
        return f"Tool({self.name!r}, args={list(self.args)})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        plain = core_schema.plain_serializer_function_ser_schema(lambda tool: tool.toDict())
        return core_schema.is_instance_schema(cls, serialization=plain)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "object"}

    def __deepcopy__(self, memo: dict[int, Any]) -> Tool:
        return self     # nothing about a tool is learned, and what it closes over may not be copied

    # -- calls ---------------------------------------------------------------------------------------------------

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the function wants them; raises `ToolError` P041 with what does not fit."""
        unknown = [n for n in arguments if n not in self._parameters]
        if unknown and self._model.model_config["extra"] == "forbid":
            raise ToolError("P041", f"the tool {self.name!r} has no argument {unknown[0]!r}",
                            hint=nearest(unknown[0], self._parameters) or "it takes no arguments")
        from pydantic import ValidationError

        try:
            checked = self._model.model_validate(dict(arguments))
        except ValidationError as error:
            raise ToolError("P041", f"the arguments do not fit the tool {self.name!r}", why=one_line(error),
                            hint=f"its arguments are {json.dumps(self.args, ensure_ascii=False, default=str)}",
                            ) from None
        given = {n: getattr(checked, f"a{i}") for i, n in enumerate(self._parameters) if n in arguments}
        return {**given, **(checked.model_extra or {})}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Check the arguments and call the function. An asynchronous one is run to its end, in a loop of its own."""
        return drive(self.acall(*args, **kwargs))

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """As a call; an asynchronous function is awaited, any other runs on a thread so that the loop goes on."""
        if (watcher := current_watcher()) is None:
            return await self._run(args, kwargs)
        watcher("tool_start", self, kwargs)
        outputs = await self._run(args, kwargs)
        watcher("tool_end", self, outputs)
        return outputs

    async def _run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        io = current_io()
        if io.blocking and self.home is not None and self.home is running_loop():
            raise ToolError("P043", f"the tool {self.name!r} cannot be waited for here",
                            why="it needs the event loop that this call holds up", hint="await tool.acall(...)")
        started = self._start(args, kwargs) if is_async(self.func) else await io.call(self._start, args, kwargs)
        if not inspect.isawaitable(started):
            return started
        return finish_now(started) if io.blocking else await started

    def _start(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if args:
            kwargs = {**dict(zip(self._parameters, args, strict=False)), **kwargs}
        checked = self.check(kwargs)
        kinds = [(n, p.kind) for n, p in self._parameters.items() if n in checked]
        placed = [checked.pop(n) for n, kind in kinds if kind is inspect.Parameter.POSITIONAL_ONLY]
        return self.func(*placed, **checked)

    # -- tools from elsewhere ------------------------------------------------------------------------------------

    @classmethod
    def from_mcp_tool(cls, session: Any, tool: Any, *, result_mode: str = "text") -> Tool:
        """A tool of an MCP server; see `tracedsl.programs.tools.mcp`."""
        from tracedsl.programs.tools.mcp import tool_from_mcp

        return tool_from_mcp(session, tool, result_mode=result_mode)

    @classmethod
    def from_langchain(cls, tool: Any) -> Tool:
        """A tool made for LangChain; see `tracedsl.programs.tools.langchain`."""
        from tracedsl.programs.tools.langchain import tool_from_langchain

        return tool_from_langchain(tool)


def as_tools(tools: Iterable[Tool | Callable[..., Any]]) -> dict[str, Tool]:
    """Functions and tools by name; raises `ToolError` P040 if two have the same."""
    if isinstance(tools, Mapping):
        raise ToolError("P040", "tools must be a list, not a mapping", hint="write [Tool(function, name='...')]")
    made: dict[str, Tool] = {}
    for tool in tools:
        one = tool if isinstance(tool, Tool) else Tool(tool)
        if one.name in made:
            raise ToolError("P040", f"two tools are called {one.name!r}", hint="rename one: Tool(func, name='...')")
        made[one.name] = one
    return made


def error_text(error: BaseException) -> str:
    """An error as a model is told of it: its kind and what it says, without a traceback."""
    if isinstance(error, TracedslError):
        d = error.diagnostic
        return "; ".join(part for part in (d.what, d.why, d.hint) if part)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


# -- small helpers -----------------------------------------------------------------------------------------------------


def is_async(function: Any) -> bool:
    """Whether calling it gives a coroutine."""
    inner = function.func if isinstance(function, functools.partial) else function
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)


def finish_now(awaitable: Any) -> Any:
    """The result of an awaitable, for synchronous code: in a loop of its own, on another thread if one runs here."""
    import asyncio

    async def whole() -> Any:
        return await awaitable

    if running_loop() is None:
        return asyncio.run(whole())
    box: list[Any] = []
    settings = contextvars.copy_context()

    def work() -> None:
        try:
            box.append((True, settings.run(asyncio.run, whole())))
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            box.append((False, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()
    good, value = box[0]
    if good:
        return value
    raise value


def _name(func: Any) -> str:
    inner = func.func if isinstance(func, functools.partial) else func
    return str(getattr(inner, "__name__", type(inner).__name__))


def _documented(func: Any) -> Any:
    inner = func.func if isinstance(func, functools.partial) else func
    return inner if inspect.isroutine(inner) or isinstance(inner, type) or inner.__doc__ else type(inner).__call__


def _parameter(name: str, its_schema: Any) -> inspect.Parameter:
    """A parameter known by its schema alone."""
    default = its_schema["default"] if isinstance(its_schema, Mapping) and "default" in its_schema else \
        inspect.Parameter.empty
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
