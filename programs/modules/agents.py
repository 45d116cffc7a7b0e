"""What modules that work step by step share: signatures made of others, trajectories, prompts that have to fit.

What holds here: a trajectory is kept whole; what is left out is left out of a prompt alone, the oldest step first. The
first thing that went wrong stays visible, whatever fails later.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tracedsl.diagnostics import TracedslError
from tracedsl.programs.driving import current_io
from tracedsl.programs.fields import Field
from tracedsl.programs.lm.base import LMError
from tracedsl.programs.sandbox.interpreter import CodeError, FinalOutput, Interpreter, SandboxError
from tracedsl.programs.signature import Signature, build
from tracedsl.programs.types import to_json

Step = Mapping[str, Any]
"""One step of a trajectory: names as they stand in the prediction, without the step's number."""


class ModuleError(TracedslError, ValueError):
    """A module that is built or called the wrong way, or whose every attempt failed."""


class Ran(NamedTuple):
    """How an execution of generated code ended: what came out of it, or the error as text."""

    output: Any = None
    error: str | None = None

    @property
    def final(self) -> bool:
        return isinstance(self.output, FinalOutput)

    @property
    def text(self) -> str:
        value = self.output.output if isinstance(self.output, FinalOutput) else self.output
        return as_text(value).strip()


def names_of(fields: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in fields)


def with_fields(signature: type[Signature], fields: Iterable[Field], instructions: str, name: str) -> type[Signature]:
    """A signature with the inputs of another one, more fields, and other instructions."""
    return build([*signature.input_fields.values(), *fields], instructions, name)


def check_free(signature: type[Signature], taken: Iterable[str], module: str) -> None:
    """Raise `ModuleError` P047 if the signature has a field that the module uses itself."""
    for name in taken:
        if name in signature.fields:
            raise ModuleError("P047", f"a signature for {module} cannot have a field {name!r}",
                              why="the module has one of this name itself", hint="rename the field")


def as_text(value: Any) -> str:
    """A value as an observation."""
    plain = to_json(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def format_steps(steps: Sequence[Step]) -> str:
    """A trajectory as it stands in a prompt: `Name 1: value`, a line each."""
    lines = [f"{key.replace('_', ' ').capitalize()} {i}: {as_text(value)}"
             for i, step in enumerate(steps, 1) for key, value in step.items()]
    return "\n".join(lines) or "(nothing yet)"


def numbered(steps: Sequence[Step]) -> dict[str, Any]:
    """A trajectory as it stands in a prediction: `{"thought_0": ..., "observation_0": ...}`."""
    return {f"{key}_{i}": value for i, step in enumerate(steps) for key, value in step.items()}


async def fitting(ask: Callable[[str], Awaitable[Any]], steps: Sequence[Step],
                  shorten: Callable[[list[Step]], list[Step]]) -> Any:
    """Ask with the trajectory; if the prompt does not fit into the model's context, with a shorter one. Raises the
    first `LMError` L010 if nothing can be left out any more."""
    shown, first = list(steps), None
    while True:
        try:
            return await ask(format_steps(shown))
        except LMError as error:
            if error.code != "L010":
                raise
            first = first or error
            shorter = shorten(list(shown))
            if len(format_steps(shorter)) >= len(format_steps(shown)):
                raise first from None
            shown = shorter


def drop_oldest(steps: list[Step]) -> list[Step]:
    """Without the oldest step; a single one loses the second half of its longest text."""
    if len(steps) > 1:
        return steps[1:]
    if not steps:
        return steps
    longest = max(steps[0], key=lambda key: len(as_text(steps[0][key])))
    text = as_text(steps[0][longest])
    return [{**steps[0], longest: f"{text[:len(text) // 2]} ..."}] if len(text) > 200 else steps


def remember(error: BaseException, first: BaseException | None) -> None:
    """Let an error say what had gone wrong before it."""
    if first is not None and first is not error:
        error.add_note(f"before that: {type(first).__name__}: {first}")


# -- generated code ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def an_interpreter(factory: Callable[[], Interpreter], given: Interpreter | None) -> AsyncIterator[Interpreter]:
    """The caller's interpreter, or one of its own that is ended afterwards."""
    if given is not None:
        yield given
        return
    made = factory()
    try:
        yield made
    finally:
        await current_io().call(made.shutdown)


async def run_code(interpreter: Interpreter, code: str, variables: Mapping[str, Any] | None = None) -> Ran:
    """Execute, without holding up an event loop. What the code did wrong is a result; that there is no sandbox is an
    error."""
    try:
        return Ran(await current_io().call(interpreter.execute, code, variables))
    except CodeError as error:
        printed = f"{error.output.rstrip()}\n" if error.output else ""
        return Ran(error=f"{printed}{error.text}")
    except SyntaxError as error:
        return Ran(error=f"SyntaxError: {error}")
    except SandboxError as error:
        if error.code != "P046":
            raise
        return Ran(error=f"{error.diagnostic.what}: {error.diagnostic.why}")
