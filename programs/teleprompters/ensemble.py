"""Ensemble: several compiled programs that answer together.

Source: Khattab et al., DSPy (2023), section 4, stage 3. What holds here: the programs run at the same time; which of
them are asked follows from `deterministic` and the inputs, or from chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tracedsl.cache import digest
from tracedsl.programs.batch import call_program
from tracedsl.programs.driving import gather
from tracedsl.programs.modules.module import Module
from tracedsl.programs.teleprompters.base import CompileError, Configured


@dataclass(frozen=True, kw_only=True)
class Ensemble(Configured):
    """`Ensemble(reduce_fn=majority).compile([one, two, three])`

    Args:
        reduce_fn: makes one answer of the list of answers; None: the list itself.
        size: how many programs are asked each time; None: all.
        deterministic: draw the same programs for the same inputs; otherwise a new draw each time.
    """

    reduce_fn: Callable[[list[Any]], Any] | None = None
    size: int | None = None
    deterministic: bool = False

    def compile(self, programs: Sequence[Module]) -> EnsembledProgram:
        """A program that asks these programs."""
        if not programs:
            raise CompileError("P007", "there are no programs to put together", hint="give at least one program")
        if self.size is not None and not 1 <= self.size <= len(programs):
            raise CompileError("P007", f"size is {self.size}, there are {len(programs)} programs",
                               hint=f"choose 1 to {len(programs)}")
        return EnsembledProgram(programs, self)


class EnsembledProgram(Module):
    """The programs of an `Ensemble`, as a program."""

    def __init__(self, programs: Sequence[Module], settings: Ensemble) -> None:
        self.programs = list(programs)
        self._settings = settings

    async def aforward(self, *args: Any, **inputs: Any) -> Any:
        chosen = self._draw(inputs)

        async def one(program: Module) -> Any:
            return await call_program(program, inputs)

        answers = await gather(one, chosen, len(chosen))
        reduce = self._settings.reduce_fn
        return answers if reduce is None else reduce(answers)

    def _draw(self, inputs: Any) -> list[Module]:
        size = self._settings.size
        if size is None:
            return self.programs
        seed = digest(repr(sorted(inputs.items()))) if self._settings.deterministic else None
        source = random.Random(seed)
        return source.sample(self.programs, size)
