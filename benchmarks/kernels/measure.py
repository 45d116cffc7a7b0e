"""Measuring one workload: every contender makes it ready, then all take turns.

What holds here: whatever goes wrong with one contender costs its entry alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.harness.results import Entry
from benchmarks.harness.session import Contender, Failed
from benchmarks.harness.turns import Tell, is_far, silent, take_turns
from benchmarks.kernels.contenders import takes_part
from benchmarks.kernels.results import Limits, Row
from benchmarks.kernels.workload import Workload

_PREPARE = 150.0      # seconds in which a contender must have made a workload ready


def measure_row(workload: Workload, contenders: Sequence[Contender], limits: Limits, code: str, *, box: float,
                rounds: int, tell: Tell = silent) -> Row:
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
    times = take_turns(taking_part, probes, box=box, rounds=rounds, tell=lambda text: tell(f"{workload.name}: {text}"))
    for peer, found in times.items():
        entries[peer] = entries[peer].with_times(found).model_copy(update={"once": is_far(probes, peer)})
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
