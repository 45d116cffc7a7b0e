"""CodeAct: the model acts by writing code in which the tools are functions.

Source: Wang et al., Executable Code Actions Elicit Better LLM Agents (2024). What holds here: code runs in a sandbox
that is made for the call; the tools run in this process and are reached through its pipe, so any function will do
(DSPy takes plain functions alone, and runs their source inside). Variables last from one step to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracedsl.programs.adapters.base import AdapterParseError
from tracedsl.programs.example import Prediction
from tracedsl.programs.field_types.text import Code
from tracedsl.programs.fields import Field, InputField
from tracedsl.programs.modules.agents import (
    Step,
    an_interpreter,
    check_free,
    drop_oldest,
    fitting,
    names_of,
    numbered,
    remember,
    run_code,
    with_fields,
)
from tracedsl.programs.modules.chain_of_thought import ChainOfThought
from tracedsl.programs.modules.module import Module
from tracedsl.programs.modules.predict import Predict
from tracedsl.programs.sandbox.interpreter import Interpreter
from tracedsl.programs.sandbox.python import PythonInterpreter
from tracedsl.programs.signature import make_signature
from tracedsl.programs.tools.tool import Tool, as_tools


class CodeAct(Module):
    """`CodeAct("n -> factorial: int", tools=[factorial])(n=5)`; the prediction has the outputs, `reasoning` and the
    `trajectory`.

    Args:
        signature: as for `Predict`.
        tools: functions or `Tool`s; the code calls them by name.
        max_iters: how many pieces of code at most; also an argument of the call.
        interpreter_factory: makes the interpreter of each call.

    The predictors are `codeact` and `extractor.predict`.
    """

    def __init__(self, signature: Any, tools: Sequence[Callable[..., Any] | Tool], max_iters: int = 5,
                 interpreter_factory: Callable[[], Interpreter] = PythonInterpreter) -> None:
        self.signature = made = make_signature(signature)
        check_free(made, ("trajectory", "generated_code", "finished"), "CodeAct")
        self.tools = as_tools(tools)
        self.max_iters = max_iters
        self._interpreter_factory = interpreter_factory
        self.codeact = Predict(with_fields(made, [
            Field("trajectory", "input", str), Field("generated_code", "output", Code, "the next piece of code"),
            Field("finished", "output", bool, f"whether {names_of(made.output_fields)} can be told after this code"),
        ], self._instructions(), "CodeAct"))
        self.extractor = ChainOfThought(made.append("trajectory", InputField(), str).with_instructions(
            made.instructions))

    def _instructions(self) -> str:
        made = self.signature
        tools = "\n".join(f"({i}) {tool}" for i, tool in enumerate(self.tools.values(), 1)) or "(none)"
        return (f"{made.instructions}\n\nWork towards {names_of(made.output_fields)} by writing Python code, one piece "
                f"a step; you see what it printed. The variables {names_of(made.input_fields)} are set, what a piece "
                "defines stays, and the standard library can be imported. These functions can be called:\n" + tools)

    async def aforward(self, interpreter: Interpreter | None = None, /, **inputs: Any) -> Prediction:
        limit = self.max_iters if "max_iters" in self.signature.fields else inputs.pop("max_iters", self.max_iters)
        given = self.signature.check_inputs(inputs)
        steps: list[Step] = []
        first: Exception | None = None
        async with an_interpreter(self._interpreter_factory, interpreter) as running:
            running.tools.update(self.tools)
            for _ in range(limit):
                try:
                    said = await fitting(lambda shown: self.codeact.acall(**given, trajectory=shown), steps,
                                         drop_oldest)
                except AdapterParseError as error:
                    first = error
                    break       # what was found so far may do
                ran = await run_code(running, str(said.generated_code), given)
                came = {"code_output": ran.text} if ran.error is None else {"observation": f"Error: {ran.error}"}
                steps.append({"generated_code": str(said.generated_code), **came})
                if ran.final or (said.finished and ran.error is None):
                    break
        try:
            found = await fitting(lambda shown: self.extractor.acall(**given, trajectory=shown), steps, drop_oldest)
        except Exception as error:
            remember(error, first)
            raise
        return Prediction(found, trajectory=numbered(steps))
