"""Timing one workload: all contenders in turns.

What holds here: a turn is short (`SLICE`), each round starts with another contender and goes the other way round than
the one before, and a contender's samples all count. One that is more than `FAR` times slower than the fastest at
preparation gets one turn. Whatever goes wrong with one contender costs its entry alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.kernels.contenders import takes_part
from benchmarks.kernels.results import Entry, Limits, Row
from benchmarks.kernels.session import Contender, Failed
from benchmarks.kernels.workload import Workload

SLICE = 0.03          # seconds of one turn
FAR = 20.0
_PREPARE = 150.0      # seconds in which a contender must have made a workload ready

Tell = Callable[[str], None]


def measure_row(workload: Workload, contenders: Sequence[Contender], limits: Limits, code: str, *, box: float,
                rounds: int, tell: Tell = lambda _: None) -> Row:
    """Prepare, check and time a workload. `box`: seconds of measuring; `rounds`: turns of each contender at most."""
    begin = time.perf_counter()
    taking_part = [c for c in contenders if takes_part(c.peer, workload)]
    entries: dict[str, Entry] = {}
    probes: dict[str, float] = {}
    size = 0
    with TemporaryDirectory() as folder:
        reference = _reference(workload, Path(folder))
        for contender in taking_part:
            tell(f"{workload.name}: {contender.peer}")
            try:
                made = contender.ask("prepare", _PREPARE, workload=workload.name, reference=str(reference), tiny=False)
            except Failed as error:
                entries[contender.peer] = Entry(note=str(error))
                continue
            probes[contender.peer], size = made["once"], max(size, made["bytes"])
            entries[contender.peer] = Entry(first_call=made["first_call"], error=made["error"], right=made["right"],
                                            form=made["name"], note=made["note"])
    times = _rounds(workload, taking_part, probes, box, rounds, tell)
    for peer, found in times.items():
        entries[peer] = entries[peer].with_times(found).model_copy(update={"once": _far(probes, peer)})
    flops = float(workload.flops(*workload.sizes))
    return Row(workload=workload.name, group=workload.group, unit=workload.unit, flops=flops, bytes=size,
               bound=limits.bound(flops, workload.unit, size, _writes(workload)), tolerance=workload.tolerance,
               threads=limits.threads, code=code, seconds=time.perf_counter() - begin, entries=entries)


def _reference(workload: Workload, folder: Path) -> Path:
    path = folder / "reference.npz"
    np.savez(path, *workload.expected(workload.inputs()))
    return path


def _writes(workload: Workload) -> bool:
    """Whether the result is large beside the inputs; sums only read."""
    return not workload.name.startswith("sum ") and workload.name != "logsumexp 4096x4096"


def _far(probes: dict[str, float], peer: str) -> bool:
    return probes[peer] > FAR * min(probes.values())


def _rounds(workload: Workload, contenders: Sequence[Contender], probes: dict[str, float], box: float, rounds: int,
            tell: Tell) -> dict[str, list[float]]:
    """Samples by contender."""
    running = {c.peer: c for c in contenders if c.peer in probes}
    found: dict[str, list[float]] = {peer: [] for peer in running}
    end = time.perf_counter() + box
    for number in range(rounds):
        order = [peer for peer in running if number == 0 or not _far(probes, peer)]
        order = order[number % len(order):] + order[:number % len(order)] if order else order
        tell(f"{workload.name}: round {number + 1}")
        for peer in order if number % 2 == 0 else reversed(order):
            try:
                answer: dict[str, Any] = running[peer].ask("sample", 60 + 20 * probes[peer],
                                                           seconds=0.0 if _far(probes, peer) else SLICE)
            except Failed:
                del running[peer]
                continue
            found[peer] += answer["times"]
        if time.perf_counter() > end:
            break
    return {peer: times for peer, times in found.items() if times}
