"""All workloads, in the order of the table."""

from __future__ import annotations

from fnmatch import fnmatch

from benchmarks.kernels.workload import Workload


def every() -> list[Workload]:
    from benchmarks.kernels.workloads import calls, convolutions, elementwise, loops, points, products, reductions, rows

    parts = (products, convolutions, rows, elementwise, reductions, loops, points, calls)
    return [workload for part in parts for workload in part.WORKLOADS]


def chosen(patterns: str) -> list[Workload]:
    """The workloads whose name or group matches one of the comma-separated patterns (`conv*`, `gemm`)."""
    wanted = [p.strip() for p in patterns.split(",") if p.strip()] or ["*"]

    def matches(workload: Workload) -> bool:
        return any(fnmatch(text, p) or p in text for p in wanted for text in (workload.name, workload.group))

    return [w for w in every() if matches(w)]
