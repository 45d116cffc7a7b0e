"""Timing contenders that have the same work ready: all in turns.

What holds here: a turn is short (`SLICE`), each round starts with another contender and goes the other way round than
the one before, and a contender's samples all count. One that is more than `FAR` times slower than the fastest at
preparation gets one turn. Whatever goes wrong with one contender costs its samples alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.harness.session import Contender, Failed

SLICE = 0.03          # seconds of one turn
FAR = 20.0

Tell = Callable[[str], None]


def silent(_text: str) -> None:
    """Tell nobody."""


def is_far(probes: Mapping[str, float], peer: str) -> bool:
    return probes[peer] > FAR * min(probes.values())


def take_turns(contenders: Sequence[Contender], probes: Mapping[str, float], *, box: float, rounds: int,
               tell: Tell = silent) -> dict[str, list[float]]:
    """Samples (seconds a call) by contender. `probes`: what a call took at preparation; `box`: seconds of measuring;
    `rounds`: turns of each contender at most."""
    running = {c.peer: c for c in contenders if c.peer in probes}
    found: dict[str, list[float]] = {peer: [] for peer in running}
    end = time.perf_counter() + box
    for number in range(rounds):
        order = [peer for peer in running if number == 0 or not is_far(probes, peer)]
        order = order[number % len(order):] + order[:number % len(order)] if order else order
        tell(f"round {number + 1}")
        for peer in order if number % 2 == 0 else reversed(order):
            try:
                answer: dict[str, Any] = running[peer].ask("sample", 60 + 20 * probes[peer],
                                                           seconds=0.0 if is_far(probes, peer) else SLICE)
            except Failed:
                del running[peer]
                continue
            found[peer] += answer["times"]
        if time.perf_counter() > end:
            break
    return {peer: times for peer, times in found.items() if times}
