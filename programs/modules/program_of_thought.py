"""ProgramOfThought: the model writes a program, the program computes, the model reads the result.

Source: Chen et al., Program of Thoughts Prompting (2022). What holds here: the code runs in a sandbox that is made for
the call and ended after it; code that fails is shown to the model with its error, `max_iters` times in all. Different
from DSPy on purpose: the inputs are there as variables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracedsl.programs.example import Prediction
from tracedsl.programs.field_types.text import Code
from tracedsl.programs.fields import Field
from tracedsl.programs.modules.agents import (
    ModuleError,
    Ran,
    an_interpreter,
    check_free,
    names_of,
    run_code,
    with_fields,
)
from tracedsl.programs.modules.chain_of_thought import ChainOfThought
from tracedsl.programs.modules.module import Module
from tracedsl.programs.sandbox.interpreter import Interpreter
from tracedsl.programs.sandbox.python import PythonInterpreter
from tracedsl.programs.signature import make_signature

_OWN = ("generated_code", "previous_code", "error", "final_generated_code", "code_output")


class ProgramOfThought(Module):
    """`ProgramOfThought("question -> answer: float")(question="...").answer`

    Args:
        signature: as for `Predict`.
        max_iters: how often code is written, at most.
        interpreter_factory: makes the interpreter of each call.

    The predictors are `code_generate.predict`, `code_regenerate.predict` and `generate_output.predict`. An interpreter
    of your own may be the first argument of the call; you then end it yourself.
    """

    def __init__(self, signature: Any, max_iters: int = 3,
                 interpreter_factory: Callable[[], Interpreter] = PythonInterpreter) -> None:
        self.signature = made = make_signature(signature)
        check_free(made, _OWN, "ProgramOfThought")
        self.max_iters = max_iters
        self._interpreter_factory = interpreter_factory
        inputs, outputs = names_of(made.input_fields), names_of(made.output_fields)
        code = Field("generated_code", "output", Code, "Python code that computes the answer")
        self.code_generate = ChainOfThought(with_fields(made, [code], (
            f"{made.instructions}\n\nWrite Python code that computes {outputs}. The variables {inputs} are set. Hand "
            f"in the result with SUBMIT({_keywords(made.output_fields)}), or print it."), "Generate"))
        self.code_regenerate = ChainOfThought(with_fields(made, [
            Field("previous_code", "input", str, "code that failed"), Field("error", "input", str, "how it failed"),
            code,
        ], f"{made.instructions}\n\nThe code for {outputs} failed. Write it anew, without the error. The variables "
           f"{inputs} are set. Hand in the result with SUBMIT({_keywords(made.output_fields)}), or print it.",
            "Regenerate"))
        self.generate_output = ChainOfThought(with_fields(made, [
            Field("final_generated_code", "input", str), Field("code_output", "input", str, "what the code gave"),
            *made.output_fields.values(),
        ], f"{made.instructions}\n\nTell {outputs} from what the code gave.", "Answer"))

    async def aforward(self, interpreter: Interpreter | None = None, /, **inputs: Any) -> Prediction:
        given = self.signature.check_inputs(inputs)
        async with an_interpreter(self._interpreter_factory, interpreter) as running:
            code, ran = await self._write_and_run(running, given)
        made: Prediction = await self.generate_output.acall(**given, final_generated_code=code, code_output=ran.text)
        return made

    async def _write_and_run(self, interpreter: Interpreter, given: dict[str, Any]) -> tuple[str, Ran]:
        """Code that ran, and what came out; raises `ModuleError` P048 with the first error and the last."""
        code, errors = "", list[str]()
        for _ in range(max(1, self.max_iters)):
            if errors:
                said = await self.code_regenerate.acall(**given, previous_code=code, error=errors[-1])
            else:
                said = await self.code_generate.acall(**given)
            code = str(said.generated_code)
            ran = await run_code(interpreter, code, given)
            if ran.error is None and ran.text:
                return code, ran
            errors.append(ran.error or "The code ran and gave nothing: print the result, or SUBMIT it.")
        before = f"; the first one: {errors[0]}" if len(errors) > 1 else ""
        raise ModuleError("P048", f"no code of {len(errors)} ran", why=f"the last error: {errors[-1]}{before}",
                          hint="raise max_iters, give demonstrations, or use a stronger model")


def _keywords(names: Any) -> str:
    return ", ".join(f"{name}=..." for name in names)
