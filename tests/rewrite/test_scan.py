"""Scans: partial sums, products and extrema as stages that write every step."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensor_graphs import Writer, check

from tracedsl.ir.graph import Graph
from tracedsl.rewrite.tensor.lower import lower
from tracedsl.schedule import Schedule, ScheduleError, lower_task


def scanned(shape: tuple[int, ...], axis: int, kind: str = "add", dtype: str = "float32") -> Graph:
    """What is read is computed on the way in; what comes out is used on the way out."""
    w = Writer("scanned")
    x = w.param("x", shape, dtype)
    y = w.scan(w.add(x, x), kind=kind, axis=axis)
    return w.build(w.mul(y, y), y)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple), st.data(),
       st.sampled_from(("add", "mul", "maximum", "minimum")), st.sampled_from(("float32", "float64", "int32")))
def test_scans_agree_with_numpy(shape: tuple[int, ...], data: st.DataObject, kind: str, dtype: str) -> None:
    check(scanned(shape, data.draw(st.integers(0, len(shape) - 1)), kind, dtype), tolerance=1e-4)


def test_complex_scans() -> None:
    check(scanned((3, 5), 1, dtype="complex64"))


def test_rows_and_columns() -> None:
    rows, columns = (lower(scanned((40, 50), axis)).tasks[0] for axis in (1, 0))
    assert str(rows.stages[0].index[1]) == "k" and str(columns.stages[0].index[0]) == "k"


@pytest.mark.parametrize("change", [
    lambda s: s.vectorize("k", 4), lambda s: s.split("k", 4).unroll("k_i"),
    lambda s: s.split("k", 4).reorder("k_o", "i", "k_i"),
])
def test_the_steps_of_a_scan_stay_in_order(change) -> None:  # type: ignore[no-untyped-def]
    task = lower(scanned((6, 8), 1)).tasks[0]
    with pytest.raises(ScheduleError, match="scan"):
        lower_task(task, change(Schedule.of(task)))
