"""What `explain()` and `show("timeline")` tell of the accelerator's part.

What holds here: texts only; every number is the timing model's or counted from the instructions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tracedsl.hw.fpga.config import Config, Dram
from tracedsl.hw.fpga.isa import Unit
from tracedsl.hw.fpga.timing import Timeline

WIDTH = 96
_SHADES = " .:-=#"  # of a column's time


def notes(steps: Sequence[Mapping[str, Any]], config: Config, dram: Dram) -> Iterator[str]:
    """Lines on a compiled program: the accelerator, then each of its launches and each part of the host, in order."""
    b = config.block
    yield (f"accelerator: {b} x {b} multipliers, {config.bus_bytes} bytes a beat, memory latency {dram.latency}; "
           f"{sum(step.get('cycles', 0) for step in steps):,} cycles in all")
    for step in steps:
        tasks = ", ".join(step["tasks"])
        if "host" in step:
            yield f"  host: {tasks}"
            continue
        share = step["steps"] / step["cycles"]
        yield (f"  accelerator: {tasks}: {step['cycles']:,} cycles, array used {share:.1%}, {step['loaded']:,} bytes "
               f"loaded, {step['stored']:,} stored, {step['instructions']:,} instructions")


def gantt(timeline: Timeline, width: int = WIDTH) -> str:
    """When each unit worked, as a picture of three rows: the darker, the larger a part of a column's cycles."""
    cycles = timeline.cycles
    width = min(width, cycles)
    lines = [f"{cycles:,} cycles; one column is {cycles / width:.1f} cycles"]
    for unit in Unit:
        busy = timeline.busy(unit)
        shares = _shares(busy, cycles, width)
        total = sum(end - begin for begin, end in busy)
        row = "".join(_SHADES[-(-round(share * 100) * (len(_SHADES) - 1) // 100)] for share in shares)
        lines.append(f"{unit.name.lower():>8} |{row}| {total / cycles:.1%}")
    return "\n".join(lines) + "\n"


def _shares(busy: Sequence[tuple[int, int]], cycles: int, width: int) -> list[float]:
    """The part of each column in which the unit worked."""
    found = [0.0] * width
    for begin, end in busy:
        first, last = begin * width // cycles, min((end - 1) * width // cycles, width - 1)
        for column in range(first, last + 1):
            low, high = column * cycles / width, (column + 1) * cycles / width
            found[column] += max(0.0, min(end, high) - max(begin, low)) / (high - low)
    return [min(share, 1.0) for share in found]
