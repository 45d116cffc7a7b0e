"""Search spaces: named parameters with finite choices, and a constraint that refuses points cheaply.

What holds here: a point is a plain dict from parameter names to JSON values; `key` is its identity in records. A space
is enumerated in one fixed order, so the same seed walks the same way everywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

from tracedsl.diagnostics import TracedslError

Choice = str | int | float | bool | None
Point = Mapping[str, Choice]
Constraint = Callable[[Point], bool]


class SpaceError(TracedslError, ValueError):
    """A space without a valid point."""


def key(point: Point) -> str:
    """The point as canonical JSON."""
    return json.dumps(dict(sorted(point.items())), ensure_ascii=False)


@dataclass(frozen=True)
class Parameter:
    """A name and its choices. `ordered` says that neighbours in `choices` behave alike (tile sizes, not names)."""

    name: str
    choices: tuple[Choice, ...]
    ordered: bool = False

    def __post_init__(self) -> None:
        if not self.choices:
            raise SpaceError("T001", f"parameter {self.name!r} has no choices", hint="give it at least one")


@dataclass(frozen=True)
class Space:
    """All combinations of the parameters' choices that satisfy `valid`. `default` is where a search starts."""

    parameters: tuple[Parameter, ...]
    valid: Constraint | None = None
    default: Point | None = None

    def __len__(self) -> int:
        """Combinations, refused ones included."""
        return math.prod(len(p.choices) for p in self.parameters)

    def allows(self, point: Point) -> bool:
        return self.valid is None or self.valid(point)

    def points(self) -> Iterator[Point]:
        """Every valid point, the last parameter running fastest."""
        for number in range(len(self)):
            point = self._decode(number)
            if self.allows(point):
                yield point

    def sample(self, rng: Random, attempts: int = 1000) -> Point:
        """A valid point, uniform over them. Raises `SpaceError` (T001) if none is found."""
        for _ in range(attempts):
            point = self._decode(rng.randrange(len(self)))
            if self.allows(point):
                return point
        if (first := next(iter(self.points()), None)) is not None:
            return first
        raise SpaceError("T001", "the search space is empty", why="no combination satisfies the constraint",
                         hint="loosen the hints or the constraint")

    def neighbours(self, point: Point, name: str) -> Iterator[Point]:
        """Valid points that differ in the parameter `name` alone: the adjacent choices if it is ordered, else all."""
        parameter = next(p for p in self.parameters if p.name == name)
        here = parameter.choices.index(point[name])
        for index, choice in enumerate(parameter.choices):
            if index != here and (not parameter.ordered or abs(index - here) == 1):
                moved = {**point, name: choice}
                if self.allows(moved):
                    yield moved

    def _decode(self, number: int) -> Point:
        point: dict[str, Choice] = {}
        for parameter in reversed(self.parameters):
            number, index = divmod(number, len(parameter.choices))
            point[parameter.name] = parameter.choices[index]
        return {p.name: point[p.name] for p in self.parameters}
