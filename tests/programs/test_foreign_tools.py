"""Tools from MCP servers (a real one, over stdio, that the test starts) and from LangChain."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tracedsl.programs import PlainAdapter, ReAct, ScriptedLM, Tool, ToolCalls, configure
from tracedsl.programs.tools.tool import ToolError

SERVER = '''
try:
    from mcp.server.mcpserver import MCPServer as Server
except ImportError:
    from mcp.server.fastmcp import FastMCP as Server
from pydantic import BaseModel

server = Server("weather")

class Place(BaseModel):
    city: str
    country: str = "DE"

@server.tool()
def weather(place: Place, days: int = 1) -> str:
    """Tell the weather."""
    return f"{place.city}/{place.country}: sun for {days}"

@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b

@server.tool()
def fail() -> str:
    """Always fails."""
    raise RuntimeError("the barometer is broken")

server.run()
'''


@asynccontextmanager
async def session(folder: Path) -> AsyncIterator[Any]:
    """A session with the server above, in a process of its own."""
    from mcp import ClientSession, StdioServerParameters, stdio_client

    (folder / "server.py").write_text(SERVER)
    started = StdioServerParameters(command=sys.executable, args=[str(folder / "server.py")])
    with (folder / "errors").open("w") as errors:
        async with stdio_client(started, errlog=errors) as (read, write), ClientSession(read, write) as made:
            await made.initialize()
            yield made


async def tools_of(made: Any, **options: Any) -> dict[str, Tool]:
    return {t.name: Tool.from_mcp_tool(made, t, **options) for t in (await made.list_tools()).tools}


def test_tools_of_a_real_mcp_server(tmp_path: Path) -> None:
    pytest.importorskip("mcp", reason="the extra `mcp` is not installed")

    async def talk() -> None:
        async with session(tmp_path) as made:
            tools = await tools_of(made)
            weather, add = tools["weather"], tools["add"]
            assert weather.desc == "Tell the weather." and weather.required == ["place"]
            assert weather.args["place"]["properties"]["city"]["type"] == "string"
            assert await weather.acall(place={"city": "Ulm"}, days=2) == "Ulm/DE: sun for 2"
            assert await add.acall(a="1", b=2) == "3"
            with pytest.raises(ToolError, match="Error executing tool fail"):
                await tools["fail"].acall()
            with pytest.raises(ToolError, match="P041"):
                await add.acall(a=1)
            with pytest.raises(ToolError, match="P041"):
                await add.acall(a=1, c=2)
            structured = await tools_of(made, result_mode="structured")
            assert await structured["add"].acall(a=1, b=2) == {"result": 3}
            calls = ToolCalls.from_dict_list([{"name": "add", "args": {"a": 1, "b": 1}}, {"name": "fail"}])
            results = (await calls.aexecute(tools)).tool_call_results
            assert (results[0].value, results[1].is_error) == ("2", True) and "tool fail" in results[1].text
            await _from_elsewhere(add)
            await _in_an_agent(list(tools.values()))
        with pytest.raises(Exception):  # noqa: B017 - the session's own error: it is closed
            await asyncio.wait_for(add.acall(a=1, b=1), 10)

    asyncio.run(asyncio.wait_for(talk(), 60))


async def _from_elsewhere(add: Tool) -> None:
    """Synchronous calls: from another thread they are carried out in the session's loop, on its own thread refused."""
    assert await asyncio.to_thread(lambda: add(a=20, b=1)) == "21"
    with pytest.raises(ToolError, match="holds up"):
        add(a=1, b=1)


async def _in_an_agent(tools: list[Tool]) -> None:
    lm = ScriptedLM(['Next Thought: t\nNext Tool Name: add\nNext Tool Args: {"a": 2, "b": 3}',
                     "Next Thought: t\nNext Tool Name: fail\nNext Tool Args: {}",
                     "Next Thought: t\nNext Tool Name: finish\nNext Tool Args: {}", "Reasoning: r\nAnswer: 5"],
                    adapter=PlainAdapter())
    configure(lm=lm)
    made = await ReAct("question -> answer: int", tools=tools).acall(question="2+3?")
    assert made.answer == 5 and made.trajectory["observation_0"] == "5"
    assert "Error executing tool fail" in made.trajectory["observation_1"]


def test_a_session_whose_loop_has_ended() -> None:
    listed = SimpleNamespace(name="t", description=None, inputSchema={"type": "object", "properties": {}})

    async def make() -> Tool:
        return Tool.from_mcp_tool(SimpleNamespace(), listed)

    tool = asyncio.run(make())
    box: list[BaseException] = []

    def call() -> None:
        try:
            tool()
        except ToolError as error:
            box.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(20)
    assert "loop has ended" in str(box[0])
    with pytest.raises(ToolError, match="result mode"):
        Tool.from_mcp_tool(None, listed, result_mode="xml")


def check_langchain(add: Any, slow: Any) -> None:
    tool = Tool.from_langchain(add)
    assert tool.name == "add" and "Add two" in tool.desc and tool.args["a"]["type"] == "integer"
    assert tool.required == ["a"] and tool(a="2") == 3 and tool(a=2, b=3) == 5
    with pytest.raises(ToolError, match="P041"):
        tool(b=1)
    waiting = Tool.from_langchain(slow)
    assert asyncio.run(waiting.acall(n=4)) == 8

    async def both() -> Any:
        return await tool.acall(a=1)

    assert asyncio.run(both()) == 2


def test_langchains_own_tools() -> None:
    tools = pytest.importorskip("langchain_core.tools")

    @tools.tool
    def add(a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b

    @tools.tool
    async def slow(n: int) -> int:
        """Double it."""
        return 2 * n

    check_langchain(add, slow)


def test_whatever_has_the_shape_of_langchains_tools() -> None:
    """A stand-in of the same shape, for where LangChain is not installed."""
    from pydantic import BaseModel

    class Arguments(BaseModel):
        a: int
        b: int = 1

    class Number(BaseModel):
        n: int

    async def ainvoke(given: dict[str, Any]) -> Any:
        return given["a"] + given.get("b", 1)

    async def double(given: dict[str, Any]) -> Any:
        return 2 * given["n"]

    add = SimpleNamespace(name="add", description="Add two numbers.", args_schema=Arguments, ainvoke=ainvoke,
                          invoke=lambda given: given["a"] + given.get("b", 1))
    check_langchain(add, SimpleNamespace(name="slow", description="Double it.", args_schema=Number, ainvoke=double))
