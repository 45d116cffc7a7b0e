"""RLM: a model that explores a long input by writing code, and asks itself about the pieces.

Source: Zhang, Kraska, Khattab, Recursive Language Models (2025). What holds here: the inputs are variables in a sandbox
and never stand in a prompt as a whole; the code reads them, asks models about pieces (`llm_query`,
`llm_query_batched`), and may hand a piece that is itself too long to another such explorer (`rlm_query`). All of them
share one limit of calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tracedsl.programs.adapters.base import AdapterParseError
from tracedsl.programs.context import current_lm
from tracedsl.programs.driving import drive, gather
from tracedsl.programs.example import Prediction
from tracedsl.programs.field_types.text import Code
from tracedsl.programs.fields import Field
from tracedsl.programs.lm.base import LM, Message
from tracedsl.programs.modules.agents import (
    ModuleError,
    Ran,
    Step,
    an_interpreter,
    as_text,
    check_free,
    drop_oldest,
    fitting,
    names_of,
    remember,
    run_code,
)
from tracedsl.programs.modules.module import Module
from tracedsl.programs.modules.predict import Predict
from tracedsl.programs.sandbox.interpreter import FinalOutput, Interpreter
from tracedsl.programs.sandbox.python import PythonInterpreter
from tracedsl.programs.signature import Signature, build, make_signature
from tracedsl.programs.tools.tool import Tool, as_tools
from tracedsl.programs.types import validate

_FUNCTIONS = ("llm_query", "llm_query_batched", "rlm_query", "SUBMIT", "print")
_PREVIEW = 500
_SLOTS = 8


class CallLimit:
    """How many calls of models generated code may still make; shared by all that run for one call."""

    def __init__(self, limit: int) -> None:
        self._limit, self._made, self._lock = limit, 0, threading.Lock()

    def take(self, n: int = 1) -> None:
        with self._lock:
            if self._made + n > self._limit:
                raise RuntimeError(f"the limit of {self._limit} model calls is reached ({self._made} were made): go on "
                                   "with what you have")
            self._made += n


class RLM(Module):
    """`RLM("document, question -> answer")(document=a_very_long_text, question="...")`; the prediction has `answer`,
    the `trajectory` and `final_reasoning`.

    Args:
        signature: as for `Predict`.
        max_iters: how many pieces of code at most; then `extract` answers from what was seen.
        max_llm_calls: how many calls of models the code may make, those of inner explorers included.
        max_output_chars: how much of each output the model is shown.
        verbose: print each step.
        tools: more functions that the code may call.
        sub_lm: the model that the code asks (default: the one in force).
        interpreter_factory: makes the interpreter of each call.
        max_depth: how deep explorers may stand inside of each other.

    The predictors are `generate_action` and `extract`.
    """

    def __init__(self, signature: Any, max_iters: int = 20, max_llm_calls: int = 50, max_output_chars: int = 10_000,
                 verbose: bool = False, tools: Sequence[Callable[..., Any] | Tool] | None = None,
                 sub_lm: LM | None = None, interpreter_factory: Callable[[], Interpreter] = PythonInterpreter,
                 max_depth: int = 1) -> None:
        self.signature = made = make_signature(signature)
        check_free(made, (*_FUNCTIONS, "trajectory", "final_reasoning", "variables_info", "repl_history", "iteration"),
                   "RLM")
        self.max_iters, self.max_llm_calls, self.max_output_chars = max_iters, max_llm_calls, max_output_chars
        self.verbose, self.sub_lm, self.max_depth = verbose, sub_lm, max_depth
        self._interpreter_factory = interpreter_factory
        self._tools = as_tools(tools or ())
        for name in self._tools:
            if name in _FUNCTIONS or name in made.fields:
                raise ModuleError("P047", f"a tool of RLM cannot be called {name!r}",
                                  why="the code has something else of this name", hint="Tool(func, name='...')")
        shown = [Field("variables_info", "input", str), Field("repl_history", "input", str)]
        self.generate_action = Predict(build(
            [*shown, Field("iteration", "input", str), Field("reasoning", "output", str),
             Field("code", "output", Code)],
            self._instructions(), "RLMAction"))
        self.extract = Predict(build(
            [*shown, *made.output_fields.values()],
            f"{made.instructions}\n\nTell {names_of(made.output_fields)} from what the exploration has found.",
            "RLMExtract"))

    def _instructions(self) -> str:
        made = self.signature
        submit = ", ".join(f"{name}=<{f.type_name}>" for name, f in made.output_fields.items())
        more = "".join(f"\n- {tool}" for tool in self._tools.values())
        return f"""{made.instructions}

Work towards {names_of(made.output_fields)} by writing Python code; you see what it prints, then write more. Variables stay from one piece to the next. There are:
- the variables {names_of(made.input_fields)}: the inputs, which may be very long; look at them with code
- llm_query(prompt): asks a language model about a text that you put into the prompt
- llm_query_batched(prompts): the same for a list of prompts, at the same time
- rlm_query(query, context): explores a text that is too long for one prompt, as you do here
- SUBMIT({submit}): hands in the answer and ends the work{more}

Look before you compute: print lengths, samples, structure. Search with code, understand with llm_query, count and combine with code. Print little. Do not retype long values, use variables. Call SUBMIT only after you have seen that the values are right. There are at most {self.max_llm_calls} model calls."""  # noqa: E501

    async def aforward(self, interpreter: Interpreter | None = None, /, **inputs: Any) -> Prediction:
        return await self._explore(interpreter, inputs, CallLimit(self.max_llm_calls), 0)

    async def _explore(self, interpreter: Interpreter | None, inputs: Mapping[str, Any], limit: CallLimit,
                       depth: int) -> Prediction:
        given = self.signature.check_inputs(inputs)
        variables = "\n".join(_described(name, value) for name, value in given.items())
        steps: list[Step] = []
        first: Exception | None = None
        async with an_interpreter(self._interpreter_factory, interpreter) as running:
            running.tools.update(self._functions(limit, depth))
            for i in range(self.max_iters):
                try:
                    said = await fitting(lambda shown, i=i: self.generate_action.acall(  # type: ignore[misc]
                        variables_info=variables, repl_history=shown, iteration=f"{i + 1}/{self.max_iters}"), steps,
                        drop_oldest)
                except AdapterParseError as error:
                    first = error
                    break       # what was found so far may do
                ran = await run_code(running, str(said.code), given)
                answer, wrong = self._answer(ran)
                if answer is not None:
                    steps.append(self._step(said, as_text(answer)))
                    return Prediction(**answer, trajectory=[dict(s) for s in steps], final_reasoning=said.reasoning)
                steps.append(self._step(said, f"Error: {wrong or ran.error}" if wrong or ran.error else ran.text))
        try:
            found = await fitting(lambda shown: self.extract.acall(variables_info=variables, repl_history=shown), steps,
                                  drop_oldest)
        except Exception as error:
            remember(error, first)
            raise
        return Prediction(found, trajectory=[dict(s) for s in steps], final_reasoning="told from what had been found")

    def _step(self, said: Prediction, output: str) -> Step:
        limit = self.max_output_chars
        more = f"\n... ({len(output) - limit} more characters)" if len(output) > limit else ""
        step = {"reasoning": said.reasoning, "code": str(said.code),
                "output": (output[:limit] + more) or "(nothing was printed)"}
        if self.verbose:
            print(*(f"{name}: {text}" for name, text in step.items()), sep="\n")
        return step

    def _answer(self, ran: Ran) -> tuple[dict[str, Any] | None, str]:
        """The outputs that the code handed in, of their declared types; or what is wrong with them."""
        if not isinstance(ran.output, FinalOutput):
            return None, ""
        fields = self.signature.output_fields
        value = ran.output.output
        if not isinstance(value, Mapping) or (len(fields) == 1 and not set(value) & set(fields)):
            row = value if isinstance(value, list) and len(fields) > 1 else [value]
            value = dict(zip(fields, row))
        if missing := [name for name in fields if name not in value]:
            return None, f"SUBMIT lacks {', '.join(missing)}; write SUBMIT({', '.join(f'{n}=...' for n in fields)})"
        made = {}
        for name, field in fields.items():
            try:
                made[name] = validate(field.type, value[name])
            except ValueError as error:
                return None, f"SUBMIT: {name} must be {field.type_name}: {error}"
        return made, ""

    # -- what the code may call ----------------------------------------------------------------------------------

    def _functions(self, limit: CallLimit, depth: int) -> dict[str, Callable[..., Any]]:
        """The tools, and the ways to ask a model; they run in this process, on the thread that waits for the code."""
        lm = self.sub_lm or current_lm()

        async def ask(prompt: Any) -> str:
            return (await lm.acomplete(lm.request([Message("user", str(prompt))]))).texts[0]

        def llm_query(prompt: str) -> str:
            limit.take()
            return drive(ask(prompt))

        def llm_query_batched(prompts: list[str]) -> list[str]:
            limit.take(len(prompts))
            return drive(gather(ask, prompts, _SLOTS))

        def rlm_query(query: str, context: str) -> str:
            if depth >= self.max_depth:
                limit.take()
                return drive(ask(f"{context}\n\n{query}"))
            inner = RLM(_Explore, max_iters=self.max_iters, max_llm_calls=self.max_llm_calls,
                        max_output_chars=self.max_output_chars, tools=list(self._tools.values()), sub_lm=self.sub_lm,
                        interpreter_factory=self._interpreter_factory, max_depth=self.max_depth)
            for predictor in inner.predictors():
                predictor.lm = _Counted(self.sub_lm or self.generate_action.lm or lm, limit)
            return str(drive(inner._explore(None, {"context": context, "query": query}, limit, depth + 1)).answer)

        return {"llm_query": llm_query, "llm_query_batched": llm_query_batched, "rlm_query": rlm_query, **self._tools}


_Explore: type[Signature] = make_signature("context, query -> answer", "Answer the query from the context.")


class _Counted:
    """A model whose calls count against a limit."""

    def __init__(self, lm: LM, limit: CallLimit) -> None:
        self._lm, self._limit = lm, limit

    async def acomplete(self, request: Any) -> Any:
        self._limit.take()
        return await self._lm.acomplete(request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lm, name)


def _described(name: str, value: Any) -> str:
    """A variable as the model is told of it: name, type, length, and how it begins."""
    text = as_text(value)
    length = f", {len(value)} items" if isinstance(value, (list, dict, tuple, set)) else ""
    more = " ..." if len(text) > _PREVIEW else ""
    return f"{name}: {type(value).__name__}{length}, {len(text)} characters, begins: {text[:_PREVIEW]}{more}"
