"""What a run gives: rows, the table as Markdown, the means."""

from __future__ import annotations

import math
from collections.abc import Iterable

from benchmarks.harness.results import Entry, Saved

OURS = "tracedsl"
PEERS = ("numpy", OURS, "numba", "numba expert", "jax")


class Row(Saved):
    """One program. Contenders that have no version of it have no entry."""

    program: str
    entries: dict[str, Entry]

    def best(self) -> tuple[str, float] | None:
        """The fastest rival that is right."""
        found = [(peer, e.median) for peer, e in self.entries.items() if peer not in (OURS, "numpy") and e.counts]
        return min(found, key=lambda pair: pair[1]) if found else None

    def ratio(self, peer: str) -> float | None:
        """How many times faster than a contender ours is."""
        ours, other = self.entries.get(OURS), self.entries.get(peer)
        return other.median / ours.median if ours and other and ours.counts and other.counts else None


class Report(Saved):
    machine: str
    versions: dict[str, str]
    rows: list[Row]


def geometric(values: Iterable[float]) -> float:
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs)) if logs else float("nan")


def table(report: Report) -> str:
    """Medians in ms; quartiles of ours; ratios to NumPy and to the fastest rival."""
    lines = ["| program | " + " | ".join(PEERS) + " | ours, quartiles | first call, s | x NumPy | x best rival |",
             "| --- |" + " ---: |" * (len(PEERS) + 4)]
    for row in report.rows:
        ours, best = row.entries.get(OURS, Entry()), row.best()
        numpy, rival = row.ratio("numpy"), row.ratio(best[0]) if best else None
        lines.append(" | ".join([f"| {row.program}", *(_cell(row.entries.get(peer)) for peer in PEERS),
                                 f"{ours.low * 1e3:.3g} - {ours.high * 1e3:.3g}", f"{ours.first_call:.2f}",
                                 f"{numpy:.2f}" if numpy else "", f"{rival:.2f} ({best[0]})" if rival and best else "",
                                 ]) + " |")
    return "\n".join([*lines, "", *_means(report)])


def _cell(entry: Entry | None) -> str:
    if entry is None:
        return ""
    if not entry.samples:
        return "fails"
    return f"{entry.median * 1e3:.3g}" + ("" if entry.right else " wrong") + (" N" if "NumPy" in entry.note else "")


def _means(report: Report) -> Iterable[str]:
    ours = [row.entries[OURS] for row in report.rows if OURS in row.entries]
    native = sum(e.counts and not e.note for e in ours)
    yield f"{len(ours)} programs, right on {sum(e.right for e in ours)}, native on {native}."
    beside = [r for row in report.rows if (r := row.ratio("numpy"))]
    rivals = [r for row in report.rows if (b := row.best()) and (r := row.ratio(b[0]))]
    yield f"Beside NumPy: geometric mean {geometric(beside):.1f} x, least {min(beside, default=0):.2f} x."
    yield f"Beside the fastest rival of each row: geometric mean {geometric(rivals):.2f} x over {len(rivals)} rows."
    first = sorted(e.first_call for e in ours)
    yield f"First call: median {first[len(first) // 2] if first else 0:.2f} s."
