"""Every scalar operation and every conversion, for every dtype, on edge values: as NumPy, in lanes and one by one."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nest_native import run
from nest_samples import at, load, param, program, result
from scipy.special import expit

from tracedsl.ir.expr import SCALAR_OPS, Affine, Axis, Buffer, Call, Cast, Const, Expr
from tracedsl.ir.loops import For, LoopProgram, Stmt, Store
from tracedsl.ir.tensor import numpy_function

Array = np.ndarray[Any, Any]
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")
DTYPES = ("bool", *INTEGERS, *FLOATS)
# Results of these may differ from NumPy's by rounding, because NumPy's own are not correctly rounded.
ROUNDED = {"exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
           "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "cbrt", "sigmoid", "pow", "hypot", "atan2"}
# These return one of their operands; which zero, NumPy leaves open.
ANY_ZERO = {"maximum", "minimum", "fmax", "fmin"}


def edges(dtype: str) -> Array:
    """Values at which something happens."""
    if dtype == "bool":
        return np.array([True, False])
    if dtype in INTEGERS:
        i = np.iinfo(dtype)
        near = [0, 1, 2, 3, 5, 7, 8, 10, 15, 16, 31, 32, 63, 64, 100, -1, -2, -3, -7, -64]
        far = [i.max, i.max - 1, i.max // 2, i.min, i.min + 1]
        return np.array(sorted({n for n in near + far if i.min <= n <= i.max}), dtype)
    f = np.finfo(dtype)
    magnitudes = [0.0, 1e-3, 0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.5, 3.0, 7.25, 100.7, 255.0, float(f.max), float(f.tiny),
                  float(f.smallest_subnormal), np.inf]
    return np.array([*magnitudes, *(-m for m in magnitudes), np.nan], dtype)


def elementwise(dtypes: Sequence[str], n: int, lanes: int, make: Any) -> LoopProgram:
    """r = make(*params) over n elements: `lanes` at a time, then the rest one by one."""
    params = tuple(param(f"p{i}", n, dtype=d) for i, d in enumerate(dtypes))
    out: list[Buffer] = []

    def store(where: Affine) -> Stmt:
        value: Expr = make(*(load(p, where) for p in params))
        out.append(result("r", n, dtype=value.dtype))
        return Store(out[0], (where,), value)

    i, v, t = Axis("i", n // lanes), Axis("v", lanes), Axis("t", n % lanes)
    body = (For(i, "serial", (For(v, "vector", (store(at(i, lanes) + at(v)),)),)),
            For(t, "serial", (store(at(t) + n // lanes * lanes),)))
    return program(params, (out[0],), *body)


def outcome(op: str, args: Sequence[Array]) -> Array | None:
    """What NumPy gives; None if it computes in another dtype or not at all."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            want: Array = _sigmoid(*args) if op == "sigmoid" else numpy_function(op)(*args)
        except TypeError:
            return None
    dtype = args[-1].dtype.name
    return want if want.dtype.name == ("bool" if SCALAR_OPS[op][1] == "bool" else dtype) else None


def _sigmoid(x: Array) -> Array:
    """SciPy's float32 version flushes small results to zero."""
    if x.dtype.kind != "f":
        raise TypeError("only for floats")
    rounded: Array = expit(x.astype(np.float64)).astype(x.dtype)
    return rounded


def compare(op: str, args: Sequence[Array], got: Array, want: Array) -> None:
    same = got == want
    if want.dtype.kind == "f":
        same |= np.isnan(got) & np.isnan(want)
        if op not in ANY_ZERO:
            same &= (np.signbit(got) == np.signbit(want)) | np.isnan(want)
        if op in ROUNDED:
            with np.errstate(all="ignore"):
                same |= np.abs(got.astype(float) - want.astype(float)) <= 4 * np.spacing(np.abs(want)).astype(float)
    wrong = [(tuple(a[j] for a in args), got[j], want[j]) for j in np.flatnonzero(~same)]
    assert not wrong, f"{op} {args[-1].dtype}: {len(wrong)} wrong, (operands), got, want: {wrong[:5]}"


def check_op(op: str, args: Sequence[Array], lanes: int) -> bool:
    want = outcome(op, args)
    if want is None:
        return False
    dtypes = [a.dtype.name for a in args]
    nest = elementwise(dtypes, len(want), lanes, lambda *loads: Call(want.dtype.name, op, loads))
    compare(op, args, run(nest, args)[0], want)
    return True


@pytest.mark.parametrize("op", SCALAR_OPS)
def test_operation(op: str) -> None:
    """All combinations of edge values."""
    done = 0
    for dtype in DTYPES:
        sets = [edges(dtype)] * SCALAR_OPS[op][0]
        if op == "select":
            sets[0] = edges("bool")
        grid = [g.ravel() for g in np.meshgrid(*sets, indexing="ij")]
        grid = [np.concatenate([g, g[:5]]) for g in grid]  # never a multiple of the lanes
        if op == "pow" and dtype in INTEGERS:
            grid = [g[grid[1] >= 0] for g in grid]  # NumPy raises for others
        done += check_op(op, [np.ascontiguousarray(g) for g in grid], 16)
    assert done, f"{op} was not tested for any dtype"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(op=st.sampled_from(sorted(set(SCALAR_OPS) - ROUNDED - {"select"})), dtype=st.sampled_from(DTYPES),
       lanes=st.integers(1, 19), seed=st.integers(0, 9))
def test_operation_on_any_bits(op: str, dtype: str, lanes: int, seed: int) -> None:
    """Any bit pattern, any number of lanes."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (SCALAR_OPS[op][0], 64 * np.dtype(dtype).itemsize), np.uint8)
    if dtype == "bool":
        raw &= 1
    check_op(op, [np.ascontiguousarray(r).view(dtype) for r in raw], lanes)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 7, 10, 40])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_power_with_a_constant_exponent(dtype: str, exponent: int) -> None:
    x = edges(dtype)
    nest = elementwise([dtype], len(x), 8, lambda a: Call(dtype, "pow", (a, Const(dtype, exponent))))
    want = np.power(x, np.full_like(x, exponent))
    np.testing.assert_array_equal(run(nest, [x])[0], want)


@pytest.mark.parametrize("divisor", [0, 1, 2, 3, 7, -1, -2, -5])
@pytest.mark.parametrize("op", ["floordiv", "mod", "fmod"])
def test_division_by_a_constant(op: str, divisor: int) -> None:
    x = np.concatenate([edges("int32"), np.arange(-20, 20, dtype=np.int32)])
    nest = elementwise(["int32"], len(x), 16, lambda a: Call("int32", op, (a, Const("int32", divisor))))
    compare(op, [x], run(nest, [x])[0], outcome(op, [x, np.full_like(x, divisor)]))  # type: ignore[arg-type]


@pytest.mark.parametrize("op", ["floordiv", "mod", "fmod"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
def test_division_of_vectors_is_exact(dtype: str, op: str) -> None:
    """All pairs of 8-bit numbers; for others, dividends right beside multiples of the divisor."""
    i, rng = np.iinfo(dtype), np.random.default_rng(0)
    if i.bits == 8:
        every = np.arange(256, dtype=np.uint8).view(dtype)
        a, b = (np.ascontiguousarray(g.ravel()) for g in np.meshgrid(every, every))
    else:
        b = rng.integers(i.min, i.max, 1 << 14, dtype, endpoint=True) >> rng.integers(0, i.bits, 1 << 14).astype(dtype)
        q = rng.integers(i.min, i.max, 1 << 14, dtype, endpoint=True) >> rng.integers(0, i.bits, 1 << 14).astype(dtype)
        with np.errstate(over="ignore"):
            a = b * q + rng.integers(0, 3, 1 << 14).astype(dtype) - np.ones(1, dtype)
    assert check_op(op, [a, b], 16)


def _numbers(source: str, target: str) -> Array:
    """Edge values of both dtypes, as `source`."""
    x = edges(source)
    if source in FLOATS and target in INTEGERS:
        i = np.iinfo(target)
        bounds = [float(i.max), float(i.min), i.max / 2 + 0.5, -0.9, 2.0**31, -2.0**31, 2.0**63, -2.0**63, 2.0**32 + 5,
                  3e9, -2147483648.5, -2147483649.0, 1e30, -1e30]
        with np.errstate(over="ignore"):
            x = np.concatenate([x, np.array(bounds, source)])
        if target == "uint32":  # beyond int32, NumPy's vector and scalar code disagree with each other
            x = x[np.abs(x.astype(float)) <= 2.0**31]
    if (source, target) == ("float64", "float16"):  # halfway cases that must be rounded once only
        half = np.spacing(np.float16(1.0)).astype(float) / 2
        x = np.concatenate([x, [1 + half, 1 + half + 1e-12, 1 + half - 1e-12, 1 + 3 * half, 65519.9999999, 65520.0,
                                6e-8, 2.98e-8, 2.9802322387695312e-08, 2.9802322387695316e-08]])
    return x


@pytest.mark.parametrize(("source", "target"), list(itertools.product(DTYPES, DTYPES)))
def test_conversion(source: str, target: str) -> None:
    x = _numbers(source, target)
    with np.errstate(all="ignore"):
        want = x.astype(target)
    nest = elementwise([source], len(x), 16, lambda a: Cast(target, a))
    compare("cast", [x], run(nest, [x])[0], want)


def test_booleans_are_true_for_any_byte_but_zero() -> None:
    x = np.array([0, 1, 2, 255] * 5, np.uint8).view(bool)
    nest = elementwise(["bool"], len(x), 16, lambda a: Call("bool", "not", (a,)))
    got = run(nest, [x])[0]
    assert got.view(np.uint8).tolist() == [1, 0, 0, 0] * 5
