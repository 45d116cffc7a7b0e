"""The programs of the benchmark, on tiny data: every one compiles, and leaves what NumPy leaves."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness.results import Entry
from benchmarks.numpy_programs.program import copied, difference, outcome
from benchmarks.numpy_programs.programs import PROGRAMS
from benchmarks.numpy_programs.report import Report, Row, table
from tracedsl import kernel


@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled_and_right(name: str) -> None:
    program = PROGRAMS[name]
    compiled = kernel(program.function)
    for seed in (1, 2):
        given = program.data(np.random.default_rng(seed), "tiny")
        mine, plain = copied(given), copied(given)
        got = outcome(compiled(*mine), mine)
        assert difference(got, outcome(program.function(*plain), plain)) <= program.tolerance
        assert compiled.compiled, compiled.explain()


@pytest.mark.parametrize("name", [n for n, p in PROGRAMS.items() if p.numba is not None])
def test_the_version_for_numba_does_the_same(name: str) -> None:
    """As plain Python."""
    program = PROGRAMS[name]
    assert program.numba is not None
    given = program.data(np.random.default_rng(1), "tiny")
    mine, plain = copied(given), copied(given)
    got = outcome(program.numba(*mine), mine)
    assert difference(got, outcome(program.function(*plain), plain)) <= 1e-9


def test_differences_are_seen() -> None:
    one = [np.ones(3)]
    assert difference(one, [np.ones(3)]) == 0
    assert difference(one, [np.ones(3, np.float32)]) == difference(one, [np.ones(2)]) == difference(one, []) == np.inf
    assert difference([np.array([1.0, 2.5])], [np.array([1.0, 2.0])]) == 0.25
    assert difference([np.array([np.nan])], one[:1]) == np.inf


def test_the_table_names_the_fastest_rival() -> None:
    def entry(median: float, right: bool = True) -> Entry:
        return Entry(samples=3, median=median, low=median, high=median, right=right, first_call=0.1)

    row = Row(program="p", entries={"numpy": entry(8.0), "tracedsl": entry(1.0), "numba": entry(2.0),
                                    "numba expert": entry(0.5, right=False)})
    text = table(Report(machine="m", versions={}, rows=[row]))
    assert "| 8.00 | 2.00 (numba) |" in text and "500 wrong" in text and "right on 1, native on 1" in text
