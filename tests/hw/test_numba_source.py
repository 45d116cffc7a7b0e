"""The source for Numba, run as plain Python: readable, and as NumPy computes. Needs no Numba."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import test_codegen_scalar as scalars
from nest_numba import run_source
from nest_oracle import interpret
from nest_samples import at, load, local, matmul, param, program, register, result, row_sum, saxpy

from tracedsl.diagnostics import TracedslError
from tracedsl.hw.numba.target import Numba
from tracedsl.hw.target import target
from tracedsl.ir.expr import SCALAR_OPS, Affine, Axis, Call, Const, Load
from tracedsl.ir.loops import Alloc, For, LoopProgram, Store, Update, When

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("sample", [saxpy(), row_sum(), matmul(12, 64, 40)], ids=["saxpy", "row_sum", "matmul"])
def test_text(sample: LoopProgram, golden: Callable[[str, str], None], request: pytest.FixtureRequest) -> None:
    golden(f"numba/{request.node.callspec.id}.py.txt", Numba(jit=False).text("numba", sample))


@pytest.mark.parametrize("op", SCALAR_OPS)
def test_operation(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All combinations of edge values, every dtype: the CPU target's own test."""
    monkeypatch.setattr(scalars, "run", run_source)
    scalars.test_operation(op)


@pytest.mark.parametrize(("source", "wanted"), list(itertools.product(scalars.DTYPES, scalars.DTYPES)))
def test_conversion(source: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scalars, "run", run_source)
    scalars.test_conversion(source, wanted)


def test_lanes_compute_before_they_write() -> None:
    """r = r shifted by one, within one vector: reads what was there, whatever the direction."""
    x, r, v = param("x", 8, dtype="int64"), result("r", 8, dtype="int64"), Axis("v", 7)
    fill = For(Axis("w", 8), "vector", (Store(r, (at(Axis("w", 8)),), load(x, at(Axis("w", 8)))),))
    for shift in (Store(r, (at(v) + 1,), load(r, at(v))), Store(r, (at(v),), load(r, at(v) + 1))):
        made = program((x,), (r,), fill, For(v, "vector", (shift,)))
        given = [np.arange(8)]
        assert np.array_equal(run_source(made, given)[0], interpret(made, given)[0])


def test_loops_that_end_early_and_conditions() -> None:
    x, r = param("x", 6, 6, dtype="int64"), result("r", 6, 6, dtype="int64")
    i, j = Axis("i", 6), Axis("j", 6)
    body = (For(j, "serial", (Store(r, (at(i), at(j)), load(x, at(i), at(j))),), until=at(i) + 1),
            When(at(i) + -3, (Store(r, (at(i), Affine()), Const("int64", 7)),)))
    made = program((x,), (r,), For(i, "parallel", body))
    given = [np.arange(36).reshape(6, 6)]
    want = np.tril(given[0])
    want[3:, 0] = 7
    assert np.array_equal(run_source(made, given)[0], want)


def test_names_that_python_does_not_take() -> None:
    """Buffers and axes may be called as they like."""
    x, r = param("lambda", 4), result("np", 4)
    i, total = Axis("range", 4), register("0.sum")
    made = program((x,), (r,), Alloc(total, (
        Store(total, (), Const("float32", 1.5)), Update(total, (), "add", Const("float32", 1.0)),
        For(i, "serial", (Store(r, (at(i),), Call("float32", "add", (load(x, at(i)), load(total)))),)))), name="a-b c")
    given = [np.arange(4, dtype=np.float32)]
    assert np.array_equal(run_source(made, given)[0], given[0] + 2.5)


def test_deep_expressions() -> None:
    """Neither the writer nor Python's parser runs out of depth."""
    x, r, i = param("x", 3, dtype="int64"), result("r", 3, dtype="int64"), Axis("i", 3)
    value = load(x, at(i))
    for _ in range(3000):
        value = Call("int64", "add", (value, Const("int64", 1)))  # type: ignore[assignment]
    made = program((x,), (r,), For(i, "serial", (Store(r, (at(i),), value),)))
    assert run_source(made, [np.array([1, 2, 3])])[0].tolist() == [3001, 3002, 3003]


def test_local_memory_seen_in_another_shape() -> None:
    x, r, t = param("x", 6), result("r", 2, 3), local("t", 6)
    i, j, k = Axis("i", 6), Axis("j", 2), Axis("k", 3)
    turned = type(t)(t.name, t.dtype, (2, 3), (1, 2), t.scope)
    made = program((x,), (r,), Alloc(t, (
        For(i, "serial", (Store(t, (at(i),), load(x, at(i))),)),
        For(j, "serial", (For(k, "serial", (Store(r, (at(j), at(k)), Load("float32", turned, (at(j), at(k)))),)),)))))
    given = [np.arange(6, dtype=np.float32)]
    assert np.array_equal(run_source(made, given)[0], given[0].reshape(3, 2).T)


def test_code_of_another_version_is_refused() -> None:
    made = Numba(jit=False).compile(saxpy())
    for meta in ({**made.meta, "fingerprint": "another"}, {}):
        with pytest.raises(TracedslError, match="H022"):
            Numba(jit=False).load(made.blobs, meta)


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking works; running says what to install."""
    monkeypatch.setitem(sys.modules, "numba", None)
    assert "prange(" in target("numba").text("numba", row_sum())
    with pytest.raises(TracedslError, match=r"(?s)H040.*pip install 'tracedsl\[numba\]'"):
        target("numba").compile(saxpy())


