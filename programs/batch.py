"""A program on many examples at the same time.

What holds here: answers stand in the order of the examples; no more than `slots` are under way; what has not begun
when the first error ends it is never begun.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Any

from tracedsl.programs.driving import as_done, current_io
from tracedsl.programs.example import Example
from tracedsl.programs.modules.module import Module

SLOTS = 8


async def call_program(program: Callable[..., Any], inputs: dict[str, Any]) -> Any:
    """Call a module, a coroutine function or a plain function: on this thread if it is driven, without holding up the
    event loop otherwise."""
    io = current_io()
    if isinstance(program, Module):
        return program(**inputs) if io.blocking else await program.acall(**inputs)
    if inspect.iscoroutinefunction(program):
        return await program(**inputs)
    return await io.call(program, **inputs)


async def run_batch(program: Callable[..., Any], examples: Iterable[Any], slots: int | None, max_errors: int | None,
                    return_failed: bool) -> Any:
    """See `Module.abatch`."""
    given = list(examples)
    answers: dict[int, Any] = {}
    errors: dict[int, Exception] = {}
    allowed = len(given) if max_errors is None and return_failed else max_errors or 0

    async def one(example: Any) -> Any:
        return await call_program(program, dict(example.inputs() if isinstance(example, Example) else example))

    async with aclosing(as_done(one, given, min(slots or SLOTS, len(given)))) as outcomes:
        async for done in outcomes:
            if done.error is None:
                answers[done.position] = done.result
            elif not isinstance(done.error, Exception) or len(errors) >= allowed:
                raise done.error
            else:
                errors[done.position] = done.error
    if return_failed:
        order = sorted(errors)
        return [answers[i] for i in sorted(answers)], [given[i] for i in order], [errors[i] for i in order]
    return [answers.get(i) for i in range(len(given))]
