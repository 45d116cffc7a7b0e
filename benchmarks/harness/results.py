"""What a run gives, as data: one contender's samples of one row, and a report that is kept in a file.

What holds here: times are seconds a call. A file is written in one step, so that whatever stops a run leaves what was
measured.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel


class Entry(BaseModel):
    """One contender in one row. Without samples it failed or was left out, and `note` says why. `once`: it was so much
    slower than the best that it was timed a few times only."""

    samples: int = 0
    median: float = float("inf")
    low: float = float("inf")
    high: float = float("inf")
    least: float = float("inf")
    first_call: float = float("inf")
    error: float = float("inf")
    right: bool = False
    once: bool = False
    form: str = ""
    note: str = ""

    model_config = {"ser_json_inf_nan": "constants"}

    def with_times(self, times: Sequence[float]) -> Entry:
        """The same entry with median, quartiles and minimum of these samples."""
        low, high = (times[0], times[0]) if len(times) == 1 else statistics.quantiles(times, n=4)[::2]
        return self.model_copy(update={"samples": len(times), "median": statistics.median(times), "low": low,
                                       "high": high, "least": min(times)})

    @property
    def counts(self) -> bool:
        return self.samples > 0 and self.right


class Saved(BaseModel):
    """A report that goes to JSON and back."""

    def save(self, path: Path) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(self.model_dump_json(indent=1) + "\n")
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises ValueError if the file holds no such report."""
        return cls.model_validate_json(path.read_text())


def machine_name() -> str:
    """The CPU and how many cores this process may use."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model n")]
        model = names[0] if names else model
    return f"{model}, {len(os.sched_getaffinity(0))} cores"
