"""The picture: ratio to the best peer, row by row, and the roofline.

What holds here: matplotlib is loaded when something is drawn; points are fastest samples, as a roofline is a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kernels.results import Report, Row
from benchmarks.kernels.table import geometric
from benchmarks.kernels.workload import TARGETS

_COLOURS = {"f32": "tab:blue", "f64": "tab:green", "int8": "tab:red", "int16": "tab:purple"}


def draw(report: Report, rows: Sequence[Row], path: Path) -> None:
    """Write a picture of the rows; the suffix of `path` decides the format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(17, 1.5 + 0.23 * max(len(rows), 18)), layout="constrained")
    _ratios(left, [r for r in rows if r.ratio() is not None])
    _roofline(right, report, [r for r in rows if r.ours is not None])
    figure.suptitle(f"{report.machine}, {report.limits.threads} threads")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _ratios(axes: Any, rows: Sequence[Row]) -> None:
    ratios = [r.ratio(against=TARGETS[r.group].against) or 0 for r in rows]
    places = np.arange(len(rows))[::-1]
    colours = ["tab:red" if r.misses else "tab:blue" for r in rows]
    axes.barh(places, ratios, color=colours, height=0.7)
    for place, row, ratio in zip(places, rows, ratios, strict=True):
        best = row.best()
        axes.text(ratio, place, f" {ratio:.2f} x {best[0] if best else ''}", va="center", fontsize=7)
    axes.set_yticks(places, [r.workload for r in rows], fontsize=7)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(0.05, max([2.0, *ratios]) * 3)
    axes.set_xlabel(f"time of the best peer / ours (geometric mean {geometric(r.ratio() or 0 for r in rows):.2f}); "
                    "red: below its target")


def _roofline(axes: Any, report: Report, rows: Sequence[Row]) -> None:
    intensity = np.logspace(-2, 3.5, 200)
    limits = report.limits
    for unit in dict.fromkeys(r.unit for r in rows):
        for level, style in (("L2", ":"), ("L3", "--"), ("DRAM", "-")):
            roof = np.minimum(limits.peak[unit], intensity * limits.bandwidth[f"copy {level}"])
            axes.plot(intensity, roof / 1e9, style, color=_COLOURS.get(unit, "grey"), linewidth=1,
                      label=f"{unit}, {level}")
    for row in rows:
        if row.ours:
            x, y = row.flops / max(row.bytes, 1), row.flops / row.ours.least / 1e9
            axes.plot(x, y, "o", color=_COLOURS.get(row.unit, "grey"), markersize=4)
            axes.annotate(row.workload.split(",")[0], (x, y), fontsize=5, xytext=(3, 2), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations a byte that has to move")
    axes.set_ylabel("GFLOP/s, fastest sample")
    axes.legend(fontsize=7)
