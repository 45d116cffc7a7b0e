"""Tools made for LangChain.

What holds here: nothing of LangChain is imported; a tool is asked by `name`, `description`, `args_schema`, `invoke` and
`ainvoke` alone.
"""

from __future__ import annotations

from typing import Any

from tracedsl.programs.driving import current_io
from tracedsl.programs.tools.mcp import from_schema
from tracedsl.programs.tools.tool import Tool


def tool_from_langchain(tool: Any) -> Tool:
    """A `Tool` for a LangChain tool: of `@tool`, or of a class derived from `BaseTool`."""
    schema = getattr(tool, "args_schema", None)

    async def call(**arguments: Any) -> Any:
        io = current_io()
        return await (io.call(tool.invoke, arguments) if io.blocking else tool.ainvoke(arguments))

    if isinstance(schema, type) and hasattr(schema, "model_fields"):
        fields = schema.model_fields
        from tracedsl.programs.tools.schema import properties

        args = properties(schema)[0]
        types = {name: f.annotation for name, f in fields.items() if f.annotation is not None}
        return Tool(call, tool.name, tool.description or "", args=args, arg_types=types)
    whole = schema if isinstance(schema, dict) else {"properties": getattr(tool, "args", {})}
    return from_schema(call, tool.name, tool.description or "", whole)
