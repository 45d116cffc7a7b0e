"""ReAct: think, call a tool, look at what came back, and again, until the question can be answered.

Source: Yao et al., ReAct: Synergizing Reasoning and Acting in Language Models (2023). What holds here: `max_iters`
bounds the number of steps; a tool that raises is an observation; a trajectory that no longer fits is shortened in the
prompt alone. A model that calls tools natively is asked to do so; what is learned (instructions, demonstrations) has
the same form for both, so that it serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from tracedsl.programs.adapters.base import AdapterParseError
from tracedsl.programs.context import current_lm, record_call
from tracedsl.programs.example import Prediction
from tracedsl.programs.fields import Field, InputField, OutputField
from tracedsl.programs.lm.base import LMError
from tracedsl.programs.modules.agents import (
    ModuleError,
    Step,
    as_text,
    check_free,
    drop_oldest,
    fitting,
    names_of,
    numbered,
    remember,
    with_fields,
)
from tracedsl.programs.modules.chain_of_thought import ChainOfThought
from tracedsl.programs.modules.module import Module
from tracedsl.programs.modules.predict import Predict
from tracedsl.programs.signature import Signature, make_signature
from tracedsl.programs.tools.calls import ToolCalls
from tracedsl.programs.tools.tool import Tool, as_tools, error_text

FINISH = "finish"
_OWN = ("trajectory", "next_thought", "next_tool_name", "next_tool_args", "available_tools", "next_tool_calls")


class _Choice(NamedTuple):
    """What the model wants done next."""

    thought: str
    calls: list[tuple[str, dict[str, Any]]]


class ReAct(Module):
    """`ReAct("question -> answer", tools=[search])(question="...")`; the prediction has `answer`, the `reasoning` that
    led to it and the `trajectory`.

    Args:
        signature: as for `Predict`.
        tools: functions or `Tool`s.
        max_iters: how many steps at most; also an argument of the call.

    The predictors are `react` (chooses the next tool) and `extract.predict` (answers from the trajectory).
    """

    def __init__(self, signature: Any, tools: Sequence[Callable[..., Any] | Tool], max_iters: int = 20) -> None:
        self.signature = make_signature(signature)
        check_free(self.signature, _OWN, "ReAct")
        self.max_iters = max_iters
        self.tools = as_tools(tools)
        if FINISH in self.tools:
            raise ModuleError("P047", f"a tool cannot be called {FINISH!r}", hint="rename it: Tool(func, name='...')",
                              why="this name says that no more tools are needed")
        self.tools[FINISH] = Tool(lambda: "Completed.", FINISH, args={}, desc=(
            f"No more tools are needed: {names_of(self.signature.output_fields)} can be told."))
        choices: Any = Literal.__getitem__(tuple(self.tools))
        self.react = Predict(with_fields(self.signature, [
            Field("trajectory", "input", str), Field("next_thought", "output", str),
            Field("next_tool_name", "output", choices),
            Field("next_tool_args", "output", dict[str, Any], "the tool's arguments, as a JSON object"),
        ], self._instructions(), "ReAct"))
        self.extract = ChainOfThought(self.signature.append("trajectory", InputField(), str).with_instructions(
            self.signature.instructions))

    def _instructions(self) -> str:
        tools = "\n".join(f"({i}) {tool}" for i, tool in enumerate(self.tools.values(), 1))
        inputs, outputs = names_of(self.signature.input_fields), names_of(self.signature.output_fields)
        return (f"{self.signature.instructions}\n\nYou are given {inputs} and the trajectory so far. Use the tools "
                f"below to find out what you need for {outputs}: in each step write a thought, then the name of one "
                f"tool and its arguments; you get its result as an observation. The tools:\n{tools}")

    async def aforward(self, **inputs: Any) -> Prediction:
        limit = self.max_iters if "max_iters" in self.signature.fields else inputs.pop("max_iters", self.max_iters)
        steps: list[Step] = []
        first: Exception | None = None
        for _ in range(limit):
            try:
                choice = await self._choose(steps, inputs)
            except (AdapterParseError, LMError) as error:
                if isinstance(error, LMError) and error.code != "L010":
                    raise
                first = first or error
                break       # what was found so far may do
            for name, args in choice.calls:
                observation, failed = await self._act(name, args)
                first = first or failed
                steps.append({"thought": choice.thought, "tool_name": name, "tool_args": args,
                              "observation": observation})
            if any(name == FINISH for name, _ in choice.calls):
                break
        return await self._answer(steps, inputs, first)

    async def _answer(self, steps: list[Step], inputs: dict[str, Any], first: Exception | None) -> Prediction:
        try:
            found = await fitting(lambda shown: self.extract.acall(**inputs, trajectory=shown), steps,
                                  self.truncate_trajectory)
        except Exception as error:
            remember(error, first)
            raise
        return Prediction(found, trajectory=numbered(steps))

    async def _act(self, name: str, args: dict[str, Any]) -> tuple[str, Exception | None]:
        """The observation, and the tool's error if it raised."""
        if name not in self.tools:
            return f"There is no tool {name!r}; there are {', '.join(self.tools)}.", None
        try:
            return as_text(await self.tools[name].acall(**args)), None
        except Exception as error:  # noqa: BLE001 - users' code; the model sees it and may do better
            return f"Error in {name}: {error_text(error)}", error

    def truncate_trajectory(self, steps: list[Step]) -> list[Step]:
        """What is left of a trajectory that does not fit into the prompt; override it for another rule."""
        return drop_oldest(steps)

    # -- the next step -------------------------------------------------------------------------------------------

    async def _choose(self, steps: list[Step], inputs: dict[str, Any]) -> _Choice:
        native = "tools" in (self.react.lm or current_lm()).capabilities
        ask = self._ask_natively if native else self._ask
        made: _Choice = await fitting(lambda shown: ask({**inputs, "trajectory": shown}), steps,
                                      self.truncate_trajectory)
        return made

    async def _ask(self, inputs: dict[str, Any]) -> _Choice:
        said = await self.react.acall(**inputs)
        return _Choice(said.next_thought, [(said.next_tool_name, said.next_tool_args)])

    async def _ask_natively(self, inputs: dict[str, Any]) -> _Choice:
        """As a request with tools; an answer without a call means that none is needed any more."""
        call = self.react.prepare({**inputs, "available_tools": list(self.tools.values())}, signature=self._native(),
                                  demos=[_natively(dict(demo.items())) for demo in self.react.demos])
        said = await self.react.aexecute(call)
        calls = [(c.name, c.args) for c in said.next_tool_calls.tool_calls] or [(FINISH, {})]
        thought = said.get("next_thought") or ""
        record_call(self.react, inputs, Prediction(next_thought=thought, next_tool_name=calls[0][0],
                                                   next_tool_args=calls[0][1]))
        return _Choice(thought, calls)

    def _native(self) -> type[Signature]:
        """The signature of `react` as it is now, with tools and calls in place of a name and arguments."""
        changed = self.react.signature.delete("next_tool_name").delete("next_tool_args")
        return changed.append("available_tools", InputField(), list[Tool]).append(
            "next_tool_calls", OutputField(), ToolCalls)


def _natively(demo: dict[str, Any]) -> dict[str, Any]:
    """A demonstration with a call in place of a name and arguments."""
    name, args = demo.pop("next_tool_name", None), demo.pop("next_tool_args", None)
    if name is not None:
        demo["next_tool_calls"] = ToolCalls.from_dict_list([{"name": name, "args": args or {}}])
    return demo
