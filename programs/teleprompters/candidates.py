"""Candidates: what a program may become, as points of a `Space`.

What holds here: a candidate says for each predictor which instructions and which demonstrations it gets; what it does
not say stays as it is in the student. The same point of the same space is the same candidate.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from tracedsl.autotune import Parameter, Point, Space
from tracedsl.programs.example import Example
from tracedsl.programs.teleprompters.base import P

Demos = tuple[Example, ...]
ORDERS = ("as found", "reversed", "shuffled")


@dataclass(frozen=True)
class Part:
    """What one predictor gets; None: what it has."""

    instructions: str | None = None
    demos: Demos | None = None


@dataclass(frozen=True)
class Candidate:
    """A name for reports, and the parts by predictor."""

    name: str
    parts: Mapping[str, Part] = field(default_factory=dict)

    def program(self, student: P) -> P:
        """A copy of the student with these parts."""
        made = student.deepcopy()
        for name, predictor in made.named_predictors():
            part = self.parts.get(name, Part())
            if part.instructions is not None:
                predictor.signature = predictor.signature.with_instructions(part.instructions)
            if part.demos is not None:
                predictor.demos = list(part.demos)
        return made

    def with_part(self, name: str, predictor: str, part: Part) -> Candidate:
        """This candidate, under another name, with one part otherwise."""
        return Candidate(name, {**self.parts, predictor: part})


@dataclass(frozen=True)
class PromptSpace:
    """The choices by predictor; a program's default stands first. `joint`: sets of demonstrations belong together, the
    first of each predictor, the second of each, ...: they come from the same runs."""

    instructions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    demos: Mapping[str, tuple[Demos, ...]] = field(default_factory=dict)
    joint: bool = False
    orders: int = 1

    def space(self) -> Space:
        """The space of `autotune` that a strategy walks. Points hold the numbers of the choices."""
        made = [Parameter(f"{name}: instructions", tuple(range(len(choices))))
                for name, choices in self.instructions.items()]
        if self.joint and self.demos:
            made.append(Parameter("demos", tuple(range(len(next(iter(self.demos.values())))))))
        for name, sets in self.demos.items():
            if not self.joint:
                made.append(Parameter(f"{name}: demos", tuple(range(len(sets)))))
            if self.orders > 1 and any(len(demos) > 1 for demos in sets):
                made.append(Parameter(f"{name}: order", tuple(range(min(self.orders, len(ORDERS))))))
        return Space(tuple(made), default={p.name: 0 for p in made})

    def candidate(self, point: Point) -> Candidate:
        """The candidate at a point."""
        parts = {}
        for name in {**self.instructions, **self.demos}:
            demos: Demos | None = None
            if name in self.demos:
                demos = self.demos[name][int(point["demos" if self.joint else f"{name}: demos"] or 0)]
                demos = ordered(demos, int(point.get(f"{name}: order") or 0))
            said = None
            if name in self.instructions:
                said = self.instructions[name][int(point[f"{name}: instructions"] or 0)]
            parts[name] = Part(said, demos)
        return Candidate(", ".join(f"{name} {value}" for name, value in point.items()) or "the student", parts)


def ordered(demos: Demos, how: int) -> Demos:
    """Demonstrations in one of the `ORDERS`."""
    if how == 1:
        return demos[::-1]
    return tuple(random.Random(0).sample(demos, len(demos))) if how == 2 else demos
