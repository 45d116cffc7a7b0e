"""Search spaces: named parameters with finite choices, and a constraint that refuses points cheaply.

What holds here: a point is a plain dict from parameter names to JSON values; `key` is its identity in records. A space
is enumerated in one fixed order, so the same seed walks the same way everywhere. A parameter may matter only under a
condition; where it does not, it has its first choice (`normal`), so that points that mean the same are the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
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
    """A name and its choices. `ordered` says that neighbours in `choices` behave alike (tile sizes, not names).
    `when`: names of other parameters, each of which must matter and have one of the values beside it; else this one
    does not matter."""

    name: str
    choices: tuple[Choice, ...]
    ordered: bool = False
    when: tuple[tuple[str, tuple[Choice, ...]], ...] = ()

    def __post_init__(self) -> None:
        if not self.choices:
            raise SpaceError("T001", f"parameter {self.name!r} has no choices", hint="give it at least one")


@dataclass(frozen=True)
class Space:
    """All combinations of the parameters' choices that satisfy `valid`. `default` is where a search starts."""

    parameters: tuple[Parameter, ...]
    valid: Constraint | None = None
    default: Point | None = None

    def __post_init__(self) -> None:
        known = {p.name: p for p in self.parameters}
        if len(known) != len(self.parameters):
            raise SpaceError("T001", "two parameters of a search space have the same name")
        for p in self.parameters:
            for name, values in p.when:
                if name not in known or not set(values) & set(known[name].choices):
                    raise SpaceError("T001", f"parameter {p.name!r} can never matter",
                                     why=f"it waits for {name!r} to be one of {values!r}",
                                     hint="name another parameter and some of its choices")
        if self.default is not None and self.normal(self.default) != dict(self.default):
            object.__setattr__(self, "default", self.normal(self.default))

    def __len__(self) -> int:
        """Combinations, refused ones and those that mean the same included."""
        return math.prod(len(p.choices) for p in self.parameters)

    def allows(self, point: Point) -> bool:
        return self.valid is None or self.valid(point)

    @cached_property
    def _by_name(self) -> Mapping[str, Parameter]:
        return {p.name: p for p in self.parameters}

    def matters(self, point: Point, name: str) -> bool:
        """Whether the parameter has an effect at this point."""
        when = self._by_name[name].when
        return all(point[other] in values and self.matters(point, other) for other, values in when)

    def normal(self, point: Point) -> Point:
        """The point with the first choice for every parameter that does not matter."""
        return {p.name: point[p.name] if not p.when or self.matters(point, p.name) else p.choices[0]
                for p in self.parameters}

    def points(self) -> Iterator[Point]:
        """Every valid point once, the last parameter running fastest."""
        for number in range(len(self)):
            point = self._decode(number)
            if self.normal(point) == point and self.allows(point):
                yield point

    def sample(self, rng: Random, attempts: int = 1000) -> Point:
        """A valid point, uniform over the combinations. Raises `SpaceError` (T001) if none is found."""
        for _ in range(attempts):
            point = self.normal(self._decode(rng.randrange(len(self))))
            if self.allows(point):
                return point
        if (first := next(iter(self.points()), None)) is not None:
            return first
        raise SpaceError("T001", "the search space is empty", why="no combination satisfies the constraint",
                         hint="loosen the hints or the constraint")

    def neighbours(self, point: Point, name: str) -> Iterator[Point]:
        """Valid points that differ in the parameter `name` alone: the adjacent choices if it is ordered, else all."""
        parameter = self._by_name[name]
        here = parameter.choices.index(point[name])
        for index, choice in enumerate(parameter.choices):
            if index != here and (not parameter.ordered or abs(index - here) == 1):
                moved = self.normal({**point, name: choice})
                if moved != point and self.allows(moved):
                    yield moved

    def _decode(self, number: int) -> Point:
        point: dict[str, Choice] = {}
        for parameter in reversed(self.parameters):
            number, index = divmod(number, len(parameter.choices))
            point[parameter.name] = parameter.choices[index]
        return {p.name: point[p.name] for p in self.parameters}
