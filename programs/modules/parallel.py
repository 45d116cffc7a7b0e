"""Parallel: many calls of one or several programs at the same time.

What holds here: results stand in the order of the pairs; no more than `num_threads` are under way; settings and traces
of the caller hold inside. Without `max_errors` the first error is raised, with it so many leave None in place of a
result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import Any

from tracedsl.programs.batch import SLOTS
from tracedsl.programs.driving import as_done, current_io
from tracedsl.programs.example import Example
from tracedsl.programs.modules.agents import ModuleError
from tracedsl.programs.modules.module import Module


class Parallel(Module):
    """`Parallel(num_threads=4)([(module, example), (module, {"question": "..."})])`

    Args:
        num_threads: how many calls at the same time; default 8.
        max_errors: how many calls may fail; one more is raised. Default: none, or all with `return_failed_examples`.
        access_examples: give a module the inputs of an `Example`, not the example itself.
        return_failed_examples: return (results without the failed ones, failed examples, errors).
        disable_progress_bar: do not show progress.
        timeout, straggler_limit, provide_traceback: taken for DSPy's sake; requests have their own time limits, and an
            error is always whole.
    """

    def __init__(self, num_threads: int | None = None, max_errors: int | None = None, access_examples: bool = True,
                 return_failed_examples: bool = False, provide_traceback: bool | None = None,
                 disable_progress_bar: bool = True, timeout: float | None = None,
                 straggler_limit: int | None = None) -> None:
        self.num_threads = num_threads
        self.max_errors = max_errors
        self.access_examples = access_examples
        self.return_failed_examples = return_failed_examples
        self.disable_progress_bar = disable_progress_bar

    async def aforward(self, exec_pairs: Iterable[tuple[Any, Any]], num_threads: int | None = None) -> Any:
        pairs = [self._checked(pair) for pair in exec_pairs]
        results: dict[int, Any] = {}
        errors: dict[int, Exception] = {}
        everything = len(pairs) if self.return_failed_examples else 0
        allowed = everything if self.max_errors is None else self.max_errors
        with _progress(len(pairs), self.disable_progress_bar) as advance:
            slots = min(num_threads or self.num_threads or SLOTS, max(1, len(pairs)))
            async with aclosing(as_done(self._one, pairs, slots)) as outcomes:
                async for done in outcomes:
                    if done.error is None:
                        results[done.position] = done.result
                    elif isinstance(done.error, Exception) and len(errors) < allowed:
                        errors[done.position] = done.error
                    else:
                        raise done.error
                    advance()
        if self.return_failed_examples:
            order = sorted(errors)
            return [results[i] for i in sorted(results)], [pairs[i][1] for i in order], [errors[i] for i in order]
        return [results.get(i) for i in range(len(pairs))]

    async def _one(self, pair: tuple[Any, Any]) -> Any:
        module, given = pair
        args: Sequence[Any] = ()
        inputs: dict[str, Any] = {}
        if isinstance(given, Example) and self.access_examples:
            inputs = dict(given.inputs().items())
        elif isinstance(given, dict):
            inputs = given
        elif isinstance(given, tuple):
            args = given
        else:
            args = (given,)
        io = current_io()
        if isinstance(module, Module):
            return module(*args, **inputs) if io.blocking else await module.acall(*args, **inputs)
        return await io.call(module, *args, **inputs)

    @staticmethod
    def _checked(pair: Any) -> tuple[Any, Any]:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not callable(pair[0]):
            raise ModuleError("P047", "Parallel takes pairs of a program and its inputs",
                              why=f"got a {type(pair).__name__}", hint="write [(module, example), ...]")
        return pair[0], pair[1]


def _progress(total: int, off: bool) -> Any:
    """A bar on the terminal, or nothing; gives the function to call after each result."""
    from contextlib import contextmanager, nullcontext

    if off:
        return nullcontext(lambda: None)

    @contextmanager
    def bar() -> Any:
        from rich.progress import Progress

        with Progress() as shown:
            task = shown.add_task("calls", total=total)
            yield lambda: shown.advance(task)

    return bar()
