"""What a run gives, as data: limits of the machine, rows, entries. JSON in and out.

What holds here: times are seconds a call.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from benchmarks.harness.results import Entry, Saved
from benchmarks.kernels.workload import OURS, TARGETS


class Limits(BaseModel):
    """What the machine can do with `threads` threads. FLOP/s by unit (an FMA counts as two; int8: multiply-adds count
    as two operations); bytes/s (read and written added) by "copy L2", "read DRAM", ...; cache sizes in bytes."""

    threads: int
    peak: dict[str, float]
    bandwidth: dict[str, float]
    caches: dict[str, int]

    def joined(self, other: Limits) -> Limits:
        """The limits that two measurements of the same machine have seen."""
        def larger(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
            return {name: max(a[name], b.get(name, 0)) for name in a}
        return self.model_copy(update={"peak": larger(self.peak, other.peak),
                                       "bandwidth": larger(self.bandwidth, other.bandwidth)})

    def level(self, size: int) -> str:
        """The memory that a working set of `size` bytes lies in."""
        if size <= 0.75 * self.caches["L2"] * self.threads:
            return "L2"
        return "L3" if size <= 0.75 * self.caches["L3"] else "DRAM"

    def bound(self, flops: float, unit: str, size: int, written: bool = True) -> float:
        """The least seconds in which so much can be computed and moved."""
        way = "copy" if written else "read"
        return max(flops / self.peak[unit], size / self.bandwidth[f"{way} {self.level(size)}"])


class Row(BaseModel):
    """One workload. `bound`: the least seconds that the machine allows; `code`: a digest of the compiler measured."""

    workload: str
    group: str
    unit: str
    flops: float
    bytes: int
    bound: float
    tolerance: float
    threads: int
    code: str
    seconds: float
    entries: dict[str, Entry]

    @property
    def ours(self) -> Entry | None:
        entry = self.entries.get(OURS)
        return entry if entry and entry.counts else None

    def best(self, by: str = "median") -> tuple[str, float] | None:
        """The fastest peer that is right, and its time."""
        found = [(getattr(e, by), name) for name, e in self.entries.items() if name != OURS and e.counts]
        return (min(found)[1], min(found)[0]) if found else None

    def ratio(self, by: str = "median", against: str | None = None) -> float | None:
        """The best peer's time over ours: above 1, we are faster."""
        best = self.best(by)
        if against and against in self.entries:
            best = (against, getattr(self.entries[against], by))
        return best[1] / getattr(self.ours, by) if best and self.ours else None

    @property
    def fraction(self) -> float | None:
        """The part of the roofline that we reach, by our fastest sample."""
        return self.bound / self.ours.least if self.ours else None

    @property
    def misses(self) -> str:
        """Why the row is below what is asked at least; empty if it is not."""
        ours, target = self.entries.get(OURS), TARGETS[self.group]
        if ours is None:
            return ""
        if not ours.counts:
            return "wrong" if ours.samples else "fails"
        ratio = self.ratio(against=target.against)
        if ratio is not None and not target.together and ratio < target.at_least:
            return f"< {target.at_least:g} x"
        if target.roofline and (self.fraction or 0) < target.roofline:
            return f"< {target.roofline:.0%} of peak"
        return ""


class Report(Saved):
    """A whole run."""

    machine: str
    python: str
    versions: dict[str, str]
    limits: Limits
    rows: list[Row]

    def has(self, workload: str, threads: int, code: str, peers: Iterable[str]) -> bool:
        """Whether this row was measured already, with this code and all these contenders (those that were there)."""
        wanted = set(peers) & set(self.versions)
        return any((r.workload, r.threads, r.code) == (workload, threads, code) and wanted <= set(r.entries)
                   for r in self.rows)

    def with_row(self, row: Row) -> Report:
        """With this row in the place of an earlier one."""
        kept = [r for r in self.rows if (r.workload, r.threads) != (row.workload, row.threads)]
        return self.model_copy(update={"rows": [*kept, row]})
