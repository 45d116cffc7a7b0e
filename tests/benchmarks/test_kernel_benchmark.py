"""The kernel benchmark: workloads are what they say, results survive JSON, a run ends well. Nothing is timed here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("scipy")

from benchmarks.harness.results import Entry
from benchmarks.kernels.__main__ import main
from benchmarks.kernels.contenders import ready
from benchmarks.kernels.plot import draw
from benchmarks.kernels.results import Limits, Report, Row
from benchmarks.kernels.table import geometric, group_means
from benchmarks.kernels.workload import TARGETS, Workload
from benchmarks.kernels.workloads import chosen, every

_SOME = "gemm f32 256,int8,batched,conv C4,depthwise D2,rows,attention,elementwise,sum,loops,stencil"
LIMITS = Limits(threads=2, peak={"f32": 2e11, "f64": 1e11}, caches={"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20},
                bandwidth={"copy L2": 2e11, "read L2": 2e11, "copy L3": 1e11, "read L3": 1e11, "copy DRAM": 5e10,
                           "read DRAM": 6e10})


def entry(*times: float, right: bool = True) -> Entry:
    return Entry(first_call=1.0, error=0.0, right=right).with_times(times)


def row(workload: str = "softmax 4096x1024", group: str = "rows", **entries: Entry) -> Row:
    return Row(workload=workload, group=group, unit="f32", flops=1e6, bytes=1000, bound=1e-3, tolerance=1e-5, threads=2,
               code="abc", seconds=1.0, entries=entries)


def report(*rows: Row) -> Report:
    return Report(machine="a machine", python="3.11", versions={"numpy": "2"}, limits=LIMITS, rows=list(rows))


def test_names_are_unique_and_groups_have_targets() -> None:
    names = [w.name for w in every()]
    assert len(names) == len(set(names)) >= 38
    assert {w.group for w in every()} == set(TARGETS)


@pytest.mark.parametrize("workload", every(), ids=lambda w: w.name)
def test_function_and_reference_agree(workload: Workload) -> None:
    """The NumPy function at a tiny size, in its own dtype, is within the workload's tolerance of float64."""
    inputs = workload.inputs(tiny=True)
    names = workload.function.__code__.co_varnames
    again = [b for b, name in zip(workload.inputs(tiny=True), names) if name != "out"]
    assert all(np.array_equal(a, b) for a, b in zip(inputs, again)), "the seed decides the inputs"
    want = workload.expected(inputs)
    with np.errstate(all="ignore"):
        got = workload.function(*inputs)
    assert workload.difference(got, want) <= workload.tolerance
    first = [np.arange(w.size).reshape(w.shape) <= (w.size if workload.share else 0) for w in want]
    spoilt = [np.where(f, w + 1 + abs(w), w) for f, w in zip(first, want)]
    assert workload.difference(tuple(spoilt), want) > workload.tolerance, "a wrong element shows"
    assert workload.flops(*workload.tiny) > 0


@pytest.mark.parametrize("peer", ["torch", "jax", "numexpr"])
def test_peers_compute_the_same(peer: str) -> None:
    """Every form of a peer gives what the function gives (Numba's take a minute to compile: a run checks them)."""
    module: Any = pytest.importorskip(peer)
    if peer == "jax":
        module.config.update("jax_enable_x64", True)
        pytest.importorskip("jax.scipy.special")
    for workload in chosen(_SOME):
        if peer not in workload.peers:
            continue
        inputs = workload.inputs(tiny=True)
        if peer == "torch" and "int8" in workload.name:
            continue      # _int_mm wants multiples of 8
        want = workload.expected(inputs)
        for form in ready(peer, module, workload, inputs):
            got = form.finish(form.call(*form.args))
            assert workload.difference(got, want) <= workload.tolerance, (workload.name, form.name)


def test_a_report_survives_json(tmp_path: Path) -> None:
    made = report(row(tracedsl=entry(1.0, 1.1, 1.2), numpy=entry(2.0), jax=Entry(note="failed: no such thing")))
    path = tmp_path / "report.json"
    made.save(path)
    assert Report.load(path) == made
    assert json.loads(path.read_text())["rows"][0]["entries"]["numpy"]["median"] == 2.0
    assert not list(tmp_path.glob(".*")), "nothing is left beside it"


def test_ratio_is_to_the_best_peer_that_is_right() -> None:
    made = row(tracedsl=entry(1.0), numpy=entry(3.0), jax=entry(0.1, right=False), torch=entry(2.0))
    assert made.best() == ("torch", 2.0) and made.ratio() == 2.0 and made.misses == ""
    assert made.ratio(against="numpy") == 3.0
    assert row(tracedsl=entry(2.0), torch=entry(2.0)).misses == "< 1.3 x"
    assert row(tracedsl=entry(2.0, right=False), torch=entry(2.0)).misses == "wrong"
    assert row(tracedsl=Entry(note="the process died"), torch=entry(2.0)).misses == "fails"


def test_a_row_of_fewer_contenders_is_measured_again() -> None:
    made = report(row(numpy=entry(1.0))).model_copy(update={"versions": {"numpy": "2", "tracedsl": "0"}})
    assert made.has("softmax 4096x1024", 2, "abc", ["numpy"])
    assert not made.has("softmax 4096x1024", 2, "abc", ["numpy", "tracedsl"])
    assert made.has("softmax 4096x1024", 2, "abc", ["numpy", "tvm"]), "what was not installed is not waited for"
    assert not made.has("softmax 4096x1024", 2, "other code", ["numpy"])


def test_means_are_geometric_and_by_group() -> None:
    assert geometric([1.0, 4.0]) == pytest.approx(2.0)
    rows = [row(tracedsl=entry(1.0), numpy=entry(2.0)), row("logsumexp", tracedsl=entry(1.0), numpy=entry(8.0))]
    mean, least, count = group_means(rows)["rows"]
    assert (mean, least, count) == (pytest.approx(4.0), pytest.approx(4.0), 2)


def test_bounds_follow_from_the_limits() -> None:
    assert LIMITS.bound(2e11, "f32", 8, True) == pytest.approx(1.0)
    assert LIMITS.bound(0, "f32", 10**9, True) == pytest.approx(0.02)
    assert LIMITS.level(1 << 20) == "L2" and LIMITS.level(1 << 24) == "L3" and LIMITS.level(1 << 26) == "DRAM"


def test_a_file_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.json"
    path.write_text('{"mine": 1}')
    result = CliRunner().invoke(main, ["--only", "softmax", "--peers", "numpy", "--json", str(path)])
    assert result.exit_code != 0 and "holds no report" in result.output
    assert path.read_text() == '{"mine": 1}'


def test_an_unknown_peer_or_workload_is_told() -> None:
    assert "no such peer: fortran" in CliRunner().invoke(main, ["--peers", "fortran"]).output
    assert "no workload matches" in CliRunner().invoke(main, ["--only", "quicksort"]).output


def test_one_run_end_to_end(tmp_path: Path) -> None:
    """Two contenders in their own processes; the second run takes the row from the file."""
    path = tmp_path / "report.json"
    arguments = ["--only", "allocating", "--peers", "tracedsl,numpy", "--rounds", "2", "--box", "0.1",
                 "--json", str(path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    first = Report.load(path)
    assert set(first.rows[0].entries) == {"tracedsl", "numpy"} and all(e.counts for e in first.rows[0].entries.values())
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert Report.load(path).rows == first.rows, "nothing is measured twice"


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made = report(row(tracedsl=entry(1.0), numpy=entry(2.0)), row("failed", tracedsl=Entry(), numpy=entry(1.0)))
    draw(made, made.rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000
