"""The table on the terminal.

What holds here: texts made of a report; times are medians in ms, the fastest peer is bold, what misses its target is
red and says which.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.harness.results import Entry
from benchmarks.kernels.results import Limits, Report, Row
from benchmarks.kernels.workload import MEAN_AIM, MEAN_AT_LEAST, OURS, PEERS, ROW_FLOOR, TARGETS

_SHORT = {"torch.compile": "compiled", "numexpr": "ne"}


def show_limits(console: Console, limits: Limits) -> None:
    peaks = ", ".join(f"{unit} {value / 1e9:.0f}" for unit, value in limits.peak.items())
    moved = ", ".join(f"{way} {value / 1e9:.0f}" for way, value in limits.bandwidth.items())
    console.print(f"Limits, {limits.threads} threads: {peaks} GFLOP/s; {moved} GB/s", style="dim")


def show(console: Console, report: Report, rows: Sequence[Row]) -> None:
    """The rows, the geometric means of the groups, what misses its target."""
    peers = [p for p in PEERS if any(p in row.entries for row in rows)]
    table = Table("workload", *(_SHORT.get(p, p) for p in peers), "ratio", "best", "roof", "below", header_style="bold",
                  box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for number, column in enumerate(table.columns):
        column.justify, column.no_wrap, column.overflow = ("right" if number else "left"), True, "ignore"
    for row in rows:
        best = row.best()
        fastest = best[0] if best else ""
        cells = [_cell(row.entries.get(peer), bold=peer == fastest) for peer in peers]
        table.add_row(row.workload, *cells, _ratio(row), _SHORT.get(fastest, fastest), _percent(row.fraction),
                      f"[red]{row.misses}[/]" if row.misses else "")
    console.print(table)
    console.print("Median ms a call; compiled: torch.compile, ne: numexpr; ratio: best peer / tracedsl, by medians (by "
                  "minima);\nroof: what the machine allows / our minimum; ~: far behind, timed a few times only; "
                  "!: wrong result; N: runs in plain NumPy.", style="dim")
    _means(console, rows)


def _cell(entry: Entry | None, bold: bool) -> str:
    if entry is None:
        return ""
    if not entry.samples:
        return "[red]fails[/]"
    text = f"{entry.median * 1e3:.3g}" if entry.median < 1e4 else f"{entry.median * 1e3:.0f}"
    if entry.median < 1e-5:
        text = f"{entry.median * 1e3:.5f}"
    text += ("~" if entry.once else "") + ("N" if "plain NumPy" in entry.note else "")
    if not entry.right:
        return f"[red]{text}![/]"
    return f"[bold]{text}[/]" if bold else text


def _ratio(row: Row) -> str:
    against = TARGETS[row.group].against
    ratio, least = row.ratio(against=against), row.ratio("least", against)
    if ratio is None or least is None:
        return ""
    style = "red" if ratio < ROW_FLOOR or row.misses else "green" if ratio >= TARGETS[row.group].aim else ""
    text = f"{ratio:.2f} ({least:.2f})"
    return f"[{style}]{text}[/]" if style else text


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def geometric(values: Iterable[float]) -> float:
    logs = [math.log(v) for v in values if v > 0]
    return math.exp(sum(logs) / len(logs)) if logs else float("nan")


def group_means(rows: Sequence[Row]) -> dict[str, tuple[float, float, int]]:
    """group -> geometric mean of the ratios by medians, by minima, number of rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.ratio() is not None:
            groups.setdefault(row.group, []).append(row)
    return {name: (geometric(r.ratio(against=TARGETS[name].against) or 0 for r in found),
                   geometric(r.ratio("least", TARGETS[name].against) or 0 for r in found), len(found))
            for name, found in groups.items()}


def _means(console: Console, rows: Sequence[Row]) -> None:
    for name, (mean, least, count) in group_means(rows).items():
        target = TARGETS[name]
        if count > 1:
            missed = target.together and mean < target.at_least
            console.print(f"  {name:<14} {count:>2} rows  {mean:.2f} x ({least:.2f})   at least {target.at_least:g}"
                          + ("  [red]missed[/]" if missed else ""))
    ratios = [r.ratio() for r in rows if r.ratio() is not None]
    if ratios:
        mean = geometric(r for r in ratios if r)
        least = geometric(r.ratio("least") or 0 for r in rows if r.ratio() is not None)
        below = [r.workload for r in rows if (r.ratio() or 9) < ROW_FLOOR]
        failed = [r.workload for r in rows if OURS in r.entries and r.ours is None]
        verdict = "[green]reached[/]" if mean >= MEAN_AIM else "" if mean >= MEAN_AT_LEAST else "[red]missed[/]"
        console.print(f"  [bold]everything     {len(ratios):>2} rows  {mean:.2f} x ({least:.2f})[/]   at least "
                      f"{MEAN_AT_LEAST:g}, aim {MEAN_AIM:g}  {verdict}")
        if below:
            console.print(f"  [red]{len(below)} rows below {ROW_FLOOR} x:[/] " + "; ".join(below))
        if failed:
            console.print("  [red]no right result:[/] " + "; ".join(failed))
