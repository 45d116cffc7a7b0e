"""Fused multiply-add and float16 on a CPU that has neither, against exact arithmetic."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tracedsl.hw.cpu import jit, soft
from tracedsl.hw.cpu.emitter import FunctionEmitter, ModuleEmitter, Param, Value, vec

Array = np.ndarray[Any, Any]
_LANES = 4


def run(formula: Callable[..., Value], inputs: list[Array], types: tuple[str, ...], out: str, kind: str) -> Array:
    """`formula` over arrays, four lanes at a time, as code that uses no instruction for it."""
    module = ModuleEmitter("soft", lacks=("fma", "half"))
    f = module.function("run", params=[Param(f"p{i}", "ptr") for i in range(len(inputs) + 1)] + [Param("n", "i64")])
    before, loop, done = f.here, f.label("loop"), f.label("done")
    f.br(loop)
    f.start(loop)
    at = f.phi("i64", [(Value("0", "i64"), before)])
    loaded = [f.load(f.gep(p, at.value, t), vec(t, _LANES)) for p, t in zip(f.params, types)]
    f.store(formula(f, *loaded), f.gep(f.params[len(inputs)], at.value, out))
    after = f.add(at.value, Value(str(_LANES), "i64"))
    at.add(after, f.here)
    f.cond_br(f.icmp("slt", after, f.params[-1]), loop, done)
    f.start(done)
    f.ret()
    text = module.text()
    assert "llvm.fma" not in text and "fptrunc <4 x float>" not in text
    code = jit.load(jit.compile_object(text), ["run"])
    result = np.zeros(inputs[0].size, kind)
    pointers = [a.ctypes.data for a in (*inputs, result)]
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(pointers), ctypes.c_int64)(code["run"])(*pointers, result.size)
    return result


def exact(a: float, b: float, c: float, kind: type) -> Any:
    """a * b + c rounded once (by Python's division of integers, which rounds to nearest even)."""
    if not np.isfinite([a, b, c]).all():
        with np.errstate(all="ignore"):
            return kind(kind(a) * kind(b) + kind(c))
    value = Fraction(a) * Fraction(b) + Fraction(c)
    if kind is np.float64:
        try:
            return value.numerator / value.denominator
        except OverflowError:
            return np.inf if value > 0 else -np.inf
    with np.errstate(over="ignore"):
        near = np.float32(value.numerator / value.denominator)
        options = [near, *(np.nextafter(near, np.float32(to)) for to in (-np.inf, np.inf))]
    finite = [o for o in options if np.isfinite(o)]
    best = min(finite, key=lambda o: (abs(Fraction(float(o)) - value), int(o.view(np.uint32)) & 1))
    return near if np.isinf(near) else best


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_fma(kind: type) -> None:
    """Random, cancelling, halfway, special operands."""
    rng = np.random.default_rng(5)
    n, info = 4000, np.finfo(kind)
    spread = 120 if kind is np.float64 else 30
    a, b, c = (np.ldexp(rng.standard_normal(n), rng.integers(-spread, spread, n)).astype(kind) for _ in range(3))
    c[: n // 2] = (-a * b)[: n // 2] * (1 + rng.integers(-3, 4, n // 2) * info.eps)     # what is left is rounding
    a[-8:] = [np.inf, np.nan, 0.0, -0.0, 1.0, info.max, info.tiny, 1.0]
    b[-8:] = [1.0, 1.0, np.inf, 1.0, np.nan, 0.5, 2.0, 0.0]
    c[-8:] = [1.0, 1.0, 1.0, 0.0, 1.0, -1.0, info.tiny, -0.0]
    a, b, c = (np.ascontiguousarray(x) for x in (a, b, c))
    name = "float" if kind is np.float32 else "double"
    got = run(soft.fma, [a, b, c], (name,) * 3, name, np.dtype(kind).name)
    want = np.array([exact(float(x), float(y), float(z), kind) for x, y, z in zip(a, b, c)], kind)
    np.testing.assert_array_equal(got, want)


def test_every_half_becomes_a_float() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    got = run(soft.from_half, [bits], ("half",), "float", "float32")
    np.testing.assert_array_equal(got, bits.view(np.float16).astype(np.float32))


def test_floats_become_halves() -> None:
    """Every half, the points halfway between two, and their neighbours."""
    halves = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (halves[:-2] + halves[1:-1]) / 2
    x = np.concatenate([halves, middle, np.nextafter(middle, np.float32(np.inf)), np.nextafter(middle, np.float32(0)),
                        np.array([65519.996, 65520, 1e30, np.nan, 1e-30, 0], np.float32)])
    x = np.ascontiguousarray(np.resize(np.concatenate([x, -x]), 2 * x.size // 4 * 4 + 4))
    got = run(soft.to_half, [x], ("float",), "half", "uint16").view(np.float16)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got, x.astype(np.float16))


def test_the_machines_own_instruction_is_taken() -> None:
    module = ModuleEmitter("own")
    f: FunctionEmitter = module.function("f", params=[Param("x", "float"), Param("h", "half")])
    x, h = f.params
    soft.fma(f, x, x, x)
    soft.to_half(f, soft.from_half(f, h))
    f.ret()
    text = module.text()
    assert "llvm.fma.f32" in text and "fpext half" in text and "fptrunc float" in text
