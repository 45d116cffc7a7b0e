"""Numba as a target: what it compiles gives what the CPU target and NumPy give."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="the extra `numba` is not installed")

import test_codegen_scalar as scalars
from nest_numba import run_source
from nest_oracle import interpret
from nest_samples import at, load, matmul, param, program, result, row_sum, saxpy

from tracedsl import kernel
from tracedsl.cache import Store
from tracedsl.ir.expr import SCALAR_OPS, Axis, Call
from tracedsl.ir.loops import For, LoopProgram
from tracedsl.ir.loops import Store as Write

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("sample", [saxpy(), row_sum(), matmul(12, 64, 40)], ids=["saxpy", "row_sum", "matmul"])
def test_nests_on_threads(sample: LoopProgram) -> None:
    """Bit for bit what the interpreter of loop nests gives: Numba reorders and fuses nothing."""
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(p.shape).astype(p.dtype) for p in sample.params]
    for got, want in zip(run_source(sample, params, jit=True), interpret(sample, params), strict=True):
        assert np.array_equal(got, want)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "uint32", "uint64", "float16", "float32", "float64"])
def test_operations(dtype: str) -> None:
    """Every operation that NumPy has for the dtype, on all pairs of edge values, in one function."""
    a, b = (np.ascontiguousarray(g.ravel()) for g in np.meshgrid(scalars.edges(dtype), scalars.edges(dtype)))
    if dtype in scalars.INTEGERS:
        a, b = a[b >= 0], b[b >= 0]      # NumPy raises for negative exponents
    x, y, i = param("x", a.size, dtype=dtype), param("y", a.size, dtype=dtype), Axis("i", a.size)
    wanted, stores, results = {}, [], []
    for op, (arity, _) in SCALAR_OPS.items():
        want = None if op == "select" else scalars.outcome(op, [a, b][:arity])
        if want is None:
            continue
        wanted[op] = want
        results.append(result(f"r_{op}", a.size, dtype=want.dtype.name))
        value = Call(want.dtype.name, op, (load(x, at(i)), load(y, at(i)))[:arity])
        stores.append(Write(results[-1], (at(i),), value))
    made = program((x, y), tuple(results), For(i, "serial", tuple(stores)))
    assert len(wanted) > (15 if dtype == "bool" else 25)
    for (op, want), got in zip(wanted.items(), run_source(made, [a, b], jit=True), strict=True):
        scalars.compare(op, [a, b], got, want)


def test_conversions() -> None:
    """Every dtype from every other one, on edge values, in one function a source."""
    for source in ("bool", "int8", "uint64", "float16", "float32", "float64"):
        numbers = [scalars._numbers(source, target) for target in scalars.DTYPES]
        params = tuple(param(f"x{n}", a.size, dtype=source) for n, a in enumerate(numbers))
        results = tuple(result(f"r{n}", a.size, dtype=t) for n, (a, t) in enumerate(zip(numbers, scalars.DTYPES)))
        loops = []
        for n, (x, r) in enumerate(zip(params, results)):
            i = Axis(f"i{n}", x.shape[0])
            loops.append(For(i, "serial", (Write(r, (at(i),), scalars.Cast(r.dtype, load(x, at(i)))),)))
        got = run_source(program(params, results, *loops), numbers, jit=True)
        with np.errstate(all="ignore"):
            for g, a in zip(got, numbers):
                scalars.compare("cast", [a], g, a.astype(g.dtype))


def softmax(x):  # type: ignore[no-untyped-def]
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_a_kernel_on_numba(tmp_path: Any) -> None:
    """The whole path: compiled, kept as source, loaded by the next one."""
    x = np.random.default_rng(0).standard_normal((6, 40), dtype=np.float32)
    first = kernel(target="numba", strict=True, store=Store(tmp_path / "kept"))(softmax)
    np.testing.assert_allclose(first(x), softmax(x), rtol=1e-6)
    np.testing.assert_array_equal(first(x[::-1]), first(x)[::-1])
    again = kernel(target="numba", strict=True, store=Store(tmp_path / "kept"))(softmax)
    np.testing.assert_array_equal(again(x), first(x))
    assert again.from_cache and "prange(" in again.show("numba")


def test_complex_numbers_and_views(tmp_path: Any) -> None:
    def mixed(x, y):  # type: ignore[no-untyped-def]
        return (x * y + 1j).conj()[::-1], abs(x).T, (x @ y.T).real > 0

    rng = np.random.default_rng(1)
    x, y = (rng.standard_normal((3, 5)) + 1j * rng.standard_normal((3, 5)) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = kernel(target="numba", strict=True)(mixed)(x, y)
    for g, w in zip(got, mixed(x, y), strict=True):
        assert g.dtype == w.dtype
        np.testing.assert_allclose(g, w, rtol=1e-14)
