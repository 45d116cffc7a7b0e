"""Tools of MCP servers (Model Context Protocol).

What holds here: the session is the user's and is asked by `call_tool` alone; a session of the package `mcp`, version 1
or 2, will do. A tool belongs to the event loop in which it was made, where the session lives: called from another
thread it is carried out there, and calling it synchronously on the loop's own thread is an error and not a deadlock. A
failure that the server reports is a `ToolError` P043 with the server's words.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from tracedsl.programs.driving import running_loop
from tracedsl.programs.tools.tool import Tool, ToolError


def tool_from_mcp(session: Any, tool: Any, *, result_mode: Literal["text", "structured"] | str = "text") -> Tool:
    """A `Tool` for `tool`, one of `(await session.list_tools()).tools`.

    `result_mode` "text" gives the text of the result (a list if there are several pieces; what is no text as it is),
    "structured" the structured content where the server sends it.
    """
    if result_mode not in ("text", "structured"):
        raise ToolError("P040", f"there is no result mode {result_mode!r}", hint="'text' or 'structured'")
    home = running_loop()
    name = tool.name

    async def call(**arguments: Any) -> Any:
        result = await _at_home(home, lambda: session.call_tool(name, arguments=arguments), name)
        return _value(result, name, result_mode)

    made = from_schema(call, name, tool.description or "", _field(tool, "input_schema", "inputSchema", {}))
    made.home = home
    return made


async def _at_home(home: Any, ask: Any, name: str) -> Any:
    """The answer of the session, asked in its own loop."""
    here = running_loop()
    if home is None or home is here:
        return await ask()
    if not home.is_running():
        raise ToolError("P043", f"the tool {name!r} cannot be called any more",
                        why="its session's event loop has ended", hint="use it within the session's `async with`")
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ask(), home))


def from_schema(function: Any, name: str, description: str, schema: dict[str, Any]) -> Tool:
    """A tool whose arguments are told by a JSON schema: checked for names and plain types here, the rest by whoever
    made the schema."""
    from tracedsl.programs.tools.schema import JSON_TYPES, inline

    required = set(schema.get("required", ()))
    args, _ = inline(schema.get("properties", {}), schema.get("$defs", {}))
    for argument, its in args.items():
        if argument not in required:
            its.setdefault("default", None)
    types = {argument: JSON_TYPES[kind] for argument, its in args.items()
             if argument in required and isinstance(kind := its.get("type"), str) and kind in JSON_TYPES}
    return Tool(function, name, description, args=args, arg_types=types)


def _value(result: Any, name: str, mode: str) -> Any:
    texts = [piece.text for piece in result.content if hasattr(piece, "text")]
    if _field(result, "is_error", "isError", False):
        raise ToolError("P043", f"the tool {name!r} failed", why="; ".join(texts) or "the server gave no reason")
    structured = _field(result, "structured_content", "structuredContent", None)
    if mode == "structured" and structured is not None:
        return structured
    if not texts:
        return list(result.content)
    return texts[0] if len(texts) == 1 else texts


def _field(thing: Any, *names_and_default: Any) -> Any:
    """An attribute that has another name in another version of the package."""
    *names, default = names_and_default
    return next((getattr(thing, name) for name in names if hasattr(thing, name)), default)
