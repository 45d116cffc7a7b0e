"""A dry run: what a program would cost on a data set, without asking any model.

What holds here: nothing is paid, nothing is kept, a `@program` neither compiles nor learns. See `lm.rehearsal` for how
answers are invented.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from tracedsl.programs.batch import SLOTS, call_program
from tracedsl.programs.driving import as_done, drive
from tracedsl.programs.example import Example
from tracedsl.programs.lm.accounts import Spent
from tracedsl.programs.lm.rehearsal import rehearse


@dataclass(frozen=True)
class Estimate:
    """`likely` is a rule of thumb, `most` what a budget would have to allow for the same calls. `failures` are the
    examples for which the program could do nothing with invented answers; their calls up to there are counted."""

    likely: Spent
    most: Spent
    examples: int
    failures: tuple[Exception, ...]

    def __str__(self) -> str:
        failed = f"; {len(self.failures)} failed on invented answers" if self.failures else ""
        return f"{self.examples} examples{failed}\n  likely: {self.likely}\n  at most: {self.most}"


def estimate(program: Callable[..., Any], devset: Sequence[Example]) -> Estimate:
    """What `program` would use on these examples: `print(estimate(program, devset))`."""
    return drive(aestimate(program, devset))


async def aestimate(program: Callable[..., Any], devset: Sequence[Example]) -> Estimate:
    """The same under asyncio."""
    failures: list[Exception] = []

    async def one(example: Example) -> Any:
        return await call_program(program, dict(example.inputs().items()))

    with rehearse() as rehearsal:
        async with aclosing(as_done(one, devset, SLOTS)) as outcomes:
            async for done in outcomes:
                if isinstance(done.error, Exception):
                    failures.append(done.error)
                elif done.error is not None:
                    raise done.error
    return Estimate(rehearsal.likely, rehearsal.most, len(devset), tuple(failures))
