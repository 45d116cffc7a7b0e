"""The loops of one tile as the three loops of an instruction, and what is left over as several instructions.

What holds here: an instruction has at most one loop of the reduction, and that outermost, so that `once` can begin the
sums; the interval obeys the reuse rule (ISA.md). Of the possible ways the one with the fewest cycles is taken.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tracedsl.hw.fpga.config import REUSE
from tracedsl.hw.fpga.isa import Walk

MAX_COUNT = 4095
BETWEEN = 4  # cycles from one instruction to the next
_WALKS = ("acc", "first", "second", "third")


@dataclass(frozen=True)
class Loop:
    """`count` steps; each moves the walks of acc and of the operands (first, second, third) by their strides."""

    count: int
    acc: int
    first: int
    second: int = 0
    third: int = 0
    reduce: bool = False


@dataclass(frozen=True)
class Steps:
    """One instruction's loops: counts, walks, interval. `begins`: no step of the reduction came before. `once`: its
    outermost loop is one of the reduction."""

    counts: tuple[int, int, int]
    acc: Walk
    first: Walk
    second: Walk
    third: Walk
    interval: int
    begins: bool
    once: bool


def instructions(loops: Sequence[Loop], bases: tuple[int, int, int, int]) -> Iterator[Steps]:
    """All steps of the loops (those of the reduction stand outermost), from these elements of acc and operands on."""
    joined = _joined([loop for loop in loops if loop.count > 1])
    inside = _best(joined)
    outside = [loop for at, loop in enumerate(joined) if at not in inside]
    chosen = [joined[at] for at in inside]
    while len(chosen) < 3:
        chosen.insert(0, Loop(1, 0, 0))
    once = chosen[0].reduce
    if not once and any(loop.reduce for loop in chosen):  # one loop of the reduction behind loops of one step
        at = next(n for n, loop in enumerate(chosen) if loop.reduce)
        chosen.insert(0, chosen.pop(at))
        once = True
    counts = (chosen[0].count, chosen[1].count, chosen[2].count)
    for places in itertools.product(*(range(loop.count) for loop in outside)):
        moved = [base + sum(place * getattr(loop, name) for place, loop in zip(places, outside))
                 for base, name in zip(bases, _WALKS)]
        begins = not any(place for place, loop in zip(places, outside) if loop.reduce)
        walks = [_walk(base, chosen, name) for base, name in zip(moved, _WALKS)]
        yield Steps(counts, walks[0], walks[1], walks[2], walks[3], _interval(chosen), begins, once)


def _walk(base: int, loops: Sequence[Loop], name: str) -> Walk:
    strides = [getattr(loop, name) if loop.count > 1 else 0 for loop in loops]
    return Walk(base, (strides[0], strides[1], strides[2]))


def _joined(loops: Sequence[Loop]) -> list[Loop]:
    """Neighbours that are one loop in every walk become one."""
    found: list[Loop] = []
    for loop in loops:
        if found and found[-1].reduce == loop.reduce and found[-1].count * loop.count <= MAX_COUNT and all(
                getattr(found[-1], name) == getattr(loop, name) * loop.count for name in _WALKS):
            found[-1] = Loop(found[-1].count * loop.count, loop.acc, loop.first, loop.second, loop.third,
                             loop.reduce)
        else:
            found.append(loop)
    return found


def _best(loops: Sequence[Loop]) -> tuple[int, ...]:
    """The loops that an instruction takes, by number."""
    ways = (way for size in range(min(3, len(loops)) + 1) for way in itertools.combinations(range(len(loops)), size)
            if sum(loops[at].reduce for at in way) <= 1)
    steps = math.prod(loop.count for loop in loops)

    def cost(way: tuple[int, ...]) -> int:
        inner = math.prod(loops[at].count for at in way)
        return steps * _interval([loops[at] for at in way]) + BETWEEN * (steps // inner)

    return min(ways, key=cost)


def _interval(loops: Sequence[Loop]) -> int:
    """Cycles a step so that an element of acc comes again late enough."""
    if not any(loop.reduce and loop.count > 1 for loop in loops):
        return 1
    apart = math.prod(loop.count for loop in loops if not loop.reduce)
    return max(1, -(-REUSE // apart))


def overview(loops: Sequence[Loop]) -> tuple[int, int]:
    """Instructions that the loops make, and the cycles that these take."""
    joined = _joined([loop for loop in loops if loop.count > 1])
    inside = [joined[at] for at in _best(joined)]
    steps = math.prod(loop.count for loop in joined)
    count = steps // math.prod(loop.count for loop in inside)
    return count, steps * _interval(inside) + BETWEEN * count
