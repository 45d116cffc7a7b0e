"""Vector math: errors in ULP against higher precision, special values against NumPy, equal bits for any lane count."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.special

from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cpu import jit, math
from tracedsl.hw.cpu.emitter import ModuleEmitter, Param, constant, vec
from tracedsl.hw.cpu.machine import host
from tracedsl.hw.cpu.math import exhaust, quotient
from tracedsl.hw.cpu.math.num import Num

Array = np.ndarray[Any, Any]
DTYPES = {"float": np.float32, "double": np.float64}
CASES = sorted(math.METHODS)
UNARY = sorted(case for case, method in math.METHODS.items() if method.arity == 1)
ODD = {"expm1": False, "sinh": True, "tanh": True, "asinh": True, "atanh": True, "sin": True, "tan": True,
       "asin": True, "atan": True, "erf": True, "cbrt": True}


def numpy_sigmoid(x: Array) -> Array:
    power = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + power), power / (1 + power))


NUMPY = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "sigmoid": numpy_sigmoid, "tanh": np.tanh, "sinh": np.sinh,
    "cosh": np.cosh, "log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin,
    "acos": np.arccos, "atan": np.arctan, "erf": scipy.special.erf, "erfc": scipy.special.erfc, "cbrt": np.cbrt,
    "pow": np.power, "atan2": np.arctan2, "hypot": np.hypot,
}
EXACT = {
    "exp2": lambda x: mpmath.power(2, x), "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "log2": lambda x: mpmath.log(x, 2), "log10": lambda x: mpmath.log10(x), "pow": mpmath.power,
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)), "log1p": mpmath.log1p, "expm1": mpmath.expm1,
}


@cache
def compiled(name: str, elem: str, n: int) -> tuple[jit.Loaded, Any]:
    """void f(x, y, out, count): out[i] = name(x[i], y[i]), `n` lanes at a time."""
    module = ModuleEmitter("math", host().feature_names(), host().function_attributes())
    f = module.function("f", params=[Param("x", "ptr"), Param("y", "ptr"), Param("out", "ptr"), Param("n", "i64")],
                        attributes=module.attributes)
    x, y, out, count = f.params
    entry, loop, done = f.here, f.label("loop"), f.label("done")
    f.br(loop)
    f.start(loop)
    i = f.phi("i64", [(constant("i64", 0), entry)])
    sources = (x, y)[:math.method(name, elem).arity]
    args = [f.load(f.gep(p, i.value, elem), vec(elem, n)) for p in sources]
    f.store(math.emit(f, name, args), f.gep(out, i.value, elem))
    assert f.here == loop, "vector math stays in one block"
    after = f.add(i.value, constant("i64", n))
    i.add(after, loop)
    f.cond_br(f.icmp("slt", after, count), loop, done)
    f.start(done)
    f.ret()
    loaded = jit.load(jit.compile_object(module.text()), ["f"])
    return loaded, ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64)(loaded["f"])


def run(name: str, elem: str, n: int, *args: Array) -> Array:
    size = len(args[0])
    padded = [np.concatenate([a.astype(DTYPES[elem]), np.ones(-size % n, DTYPES[elem])]) for a in args]
    out = np.full_like(padded[0], 12345)
    compiled(name, elem, n)[1](padded[0].ctypes.data, padded[-1].ctypes.data, out.ctypes.data, len(out))
    return out[:size]


def specials(dtype: Any) -> Array:
    info = np.finfo(dtype)
    positive = [0.0, np.inf, 1, 2, 3, 0.5, 1.5, 100, 1e4, 2.0 ** 24, info.max, info.tiny, info.smallest_subnormal,
                info.tiny - info.smallest_subnormal, np.pi / 2, np.nextafter(dtype(1), dtype(0))]
    return np.array([np.nan, *positive, *(-np.array(positive))], dtype)


def samples(elem: str, count: int, seed: int) -> Array:
    """All magnitudes, the ordinary range, the whole range of exp, and around the places where methods change."""
    dtype, rng = DTYPES[elem], np.random.default_rng(seed)
    bits = rng.integers(0, 2 ** 32 if elem == "float" else 2 ** 64, count, np.uint64)
    anything = bits.astype(np.uint32).view(np.float32) if elem == "float" else bits.view(np.float64)
    reach = 105 if elem == "float" else 750
    edges = np.array([0.55, 0.975, 0.5, 1, 2 ** 0.5, 0.5 ** 0.5, 0.3465736, 1.0397208, 4, 2.0 ** -30, 2.0 ** 30, 709.78,
                      88.72, 87.33, 103.97, 708.39, 745.13, 9.01, 20, 10.05, 45, 2.0 ** -20], dtype)
    near = np.concatenate([edges, np.nextafter(edges, dtype(0)), np.nextafter(edges, dtype(np.inf))])
    parts = [anything, rng.normal(size=count), rng.uniform(-reach, reach, count), rng.uniform(0.7, 1.5, count),
             rng.normal(size=count) * 2.0 ** -rng.integers(1, 40, count), near, -near]
    return np.concatenate([p.astype(dtype) for p in parts])


def arguments(name: str, elem: str, count: int) -> list[Array]:
    arity = math.method(name, elem).arity
    x = samples(elem, count, 1)
    return [x] if arity == 1 else [x, np.random.default_rng(2).permutation(samples(elem, count, 3))]


def ulp_of(value: Array, dtype: Any) -> Array:
    """The distance of neighbours at these (wider) values."""
    info = np.finfo(dtype)
    exponent = np.frexp(np.maximum(np.abs(value), float(info.tiny)))[1] - 1 - info.nmant
    return np.ldexp(1.0, exponent)


def test_every_function_of_the_expressions_exists() -> None:
    names = {name for name, _ in math.METHODS}
    assert names == set(NUMPY)
    assert {math.METHODS[name, "double"].how for name in names} == {"native"}
    assert math.method("erfc", "<8 x float>").how == "wide"


def test_unknown_function_suggests_the_nearest() -> None:
    with pytest.raises(TracedslError, match=r"H005.*\n.*did you mean 'sigmoid'"):
        math.method("sigmoind", "float")
    with pytest.raises(TracedslError, match="for half"):
        math.method("tanh", "half")


@pytest.mark.parametrize("name", [name for name, elem in CASES if elem == "float"])
def test_float_error(name: str) -> None:
    args = arguments(name, "float", 3000)
    got = run(name, "float", 16, *args)
    with np.errstate(all="ignore"):
        want = NUMPY[name](*(a.astype(np.float64) for a in args))
        rounded = want.astype(np.float32)
    finite = np.isfinite(rounded) & np.isfinite(got)
    assert np.array_equal(np.isnan(got), np.isnan(want))
    error = np.abs(got[finite].astype(np.float64) - want[finite]) / ulp_of(want[finite], np.float32)
    assert finite.sum() > 1000
    assert error.max() <= (0.51 if math.method(name, "float").how == "wide" else 1.0)
    edge = ~finite & ~np.isnan(want)  # at overflow a neighbour of the largest number is as good
    assert np.all((got[edge] == rounded[edge]) | (np.abs(got[edge]) == np.finfo(np.float32).max))


HARD = {
    "cos": [6381956970095103 * 2.0 ** 797, 1e22], "sin": [1e22, 3.14159265358979], "tan": [1.5707963267948966, 1e300],
    "exp": [709.782712893384, -745.1332191019411, -708.3964185322641], "log": [1 - 2 ** -53, 1 + 2 ** -52, 5e-324],
    "expm1": [1e-300, 5e-324, 36.7, -37.0, 0.3465735902799727], "log1p": [-1 + 2 ** -53, 1e-17, 1e308, 2 ** -53],
    "sinh": [710.4758600739439, 5e-324, 1e-9], "cosh": [710.4758600739439], "asinh": [1.7e308, 1e-9, 2 ** -30],
    "acosh": [1 + 2 ** -52, 1.7e308], "atanh": [1 - 2 ** -53, 1e-9, 1.29e-16], "cbrt": [5e-324, 1.7e308, 27.0],
    "log2": [1 - 2 ** -53, 8.0, 5e-324], "log10": [1000.0, 1 + 2 ** -52, 1e-320], "exp2": [1023.9999, -1074.0, 1e-17],
    "tanh": [1e-300, 0.55, 19.06, 22.0], "sigmoid": [-745.1, -36.7, 36.7, 709.8],
}


@pytest.mark.parametrize("name", [name for name, elem in CASES if elem == "double"])
def test_double_error(name: str) -> None:
    args = [a[np.linspace(0, len(a) - 1, 240).astype(int)] for a in arguments(name, "double", 100)]
    if name in HARD:
        args = [np.concatenate([args[0], HARD[name], -np.array(HARD[name])])]
    got = run(name, "double", 8, *args)
    with np.errstate(all="ignore"):
        expected = NUMPY[name](*args)
        judged = np.isfinite(expected) & (expected != 0) & np.all(np.isfinite(args), axis=0)
    function = EXACT.get(name, getattr(mpmath, name, None))
    worst, compared = 0.0, 0
    with mpmath.workprec(1400 if name in ("sin", "cos", "tan") else 300):
        for row in np.flatnonzero(judged):
            values = [mpmath.mpf(float(a[row])) for a in args]
            if values[-1] == 0 or values[0] == 0:
                continue  # zeros are special values
            want = function(*values)
            exponent = max(int(mpmath.mag(want)), -1021) - 53
            worst = max(worst, float(abs(mpmath.mpf(float(got[row])) - want) / mpmath.mpf(2) ** exponent))
            compared += 1
    assert compared > 60
    assert worst <= 1.0


@pytest.mark.parametrize(("name", "elem"), CASES)
def test_special_values_are_numpys(name: str, elem: str) -> None:
    values = specials(DTYPES[elem])
    args = [values] if math.method(name, elem).arity == 1 else [v.ravel() for v in np.meshgrid(values, values)]
    got = run(name, elem, 8, *args)
    with np.errstate(all="ignore"):
        want = NUMPY[name](*(a.astype(np.float64) for a in args)).astype(DTYPES[elem])
        beyond = np.isinf(NUMPY[name](*args)) & ~np.isinf(got)
    assert not beyond.any(), [a[beyond] for a in args]
    singular = np.isnan(want) | np.isinf(want) | (want == 0)
    assert singular.sum() >= 1
    assert np.array_equal(got[singular], want[singular], equal_nan=True), [a[singular] for a in args]
    zero = want == 0
    assert np.array_equal(np.signbit(got[zero]), np.signbit(want[zero])), [a[zero] for a in args]
    assert np.isfinite(got[~singular]).all()


@pytest.mark.parametrize(("name", "elem"), CASES)
def test_lane_count_does_not_change_a_bit(name: str, elem: str) -> None:
    args = arguments(name, elem, 100)
    unsigned = np.uint32 if elem == "float" else np.uint64
    want = run(name, elem, 16, *args)
    number = ~np.isnan(want)
    for n in (1, 7, 8):
        got = run(name, elem, n, *args)
        assert np.array_equal(np.isnan(got), ~number)
        assert np.array_equal(got[number].view(unsigned), want[number].view(unsigned)), n


@pytest.mark.parametrize("elem", DTYPES)
@pytest.mark.parametrize("name", [name for name, odd in ODD.items() if odd])
def test_odd_functions_are_odd(name: str, elem: str) -> None:
    x = samples(elem, 300, 5)
    forth, back = run(name, elem, 8, x), run(name, elem, 8, -x)
    assert np.array_equal(forth, -back, equal_nan=True)
    number = ~np.isnan(forth)
    assert np.array_equal(np.signbit(forth[number]), ~np.signbit(back[number]))


def test_exp_keeps_order_around_its_steps() -> None:
    """Where n changes, neighbours must not be more than the error allows out of order."""
    start = np.float32(0.34657)
    x = np.arange(start.view(np.uint32), start.view(np.uint32) + 4096, dtype=np.uint32).view(np.float32)
    got = run("exp", "float", 16, x)
    assert np.all(np.diff(got) >= -np.spacing(got[1:]))


def test_arguments_are_checked() -> None:
    f = ModuleEmitter("m").function("f", params=[Param("x", "float"), Param("y", "double")])
    with pytest.raises(TypeError, match="one type"):
        math.emit(f, "pow", f.params)
    with pytest.raises(TypeError, match="2 arguments"):
        math.emit(f, "pow", f.params[:1])


def test_tables_are_what_derive_derives() -> None:
    from tracedsl.hw.cpu.math import coefficients, derive

    target = next(t for t in derive.TARGETS if t.name == "LOG_F32")
    assert derive.fit(target)[0] == list(coefficients.LOG_F32)
    assert derive.two_over_pi() == list(coefficients.TWO_OVER_PI)
    assert [tuple(row) for row in derive.exp_table("F32")] == list(coefficients.EXP_TABLE_F32)


@pytest.mark.parametrize("name", sorted({name for name, _ in math.METHODS}))
def test_floats_spread_over_the_whole_format(name: str, request: pytest.FixtureRequest) -> None:
    """A quarter of a million floats (all of them in the long run) against the function of doubles, in machine code."""
    until = exhaust.ALL if request.config.getoption("--long") else 1 << 18
    (worst,) = exhaust.run([name], None, until=until)
    assert worst.done == until
    assert worst.ulp <= 1.0, worst


def test_exhausting_goes_on_where_it_was(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    (first,) = exhaust.run(["exp"], state, until=4096, chunk=1024)
    (same,) = exhaust.run(["exp"], state, until=4096)
    (more,) = exhaust.run(["exp"], state, until=1 << 16)
    (whole,) = exhaust.run(["exp"], None, until=1 << 16)
    assert first == same
    assert more == whole != first


@pytest.mark.parametrize("elem", DTYPES)
@pytest.mark.parametrize("n", [-3, -2, 3, 4, 5, 7, 11, 32])
def test_whole_powers(n: int, elem: str) -> None:
    """By multiplication; special values as NumPy's."""
    dtype = DTYPES[elem]
    x = np.concatenate([specials(dtype), samples(elem, 400, 7)])
    got = run_power(n, elem, x)
    with np.errstate(all="ignore"):
        numpys = x ** dtype(n)
    edge = ~np.isfinite(numpys) | (numpys == 0)
    assert np.array_equal(got[edge], numpys[edge], equal_nan=True)
    assert np.array_equal(np.signbit(got[numpys == 0]), np.signbit(numpys[numpys == 0]))
    for value, power in zip(x[~edge], got[~edge], strict=True):
        with mpmath.workprec(2000):
            want = mpmath.mpf(float(value)) ** n
            info = np.finfo(dtype)
            exponent = max(int(mpmath.mag(want)) - 1, int(info.minexp)) - info.nmant
            assert abs(mpmath.mpf(float(power)) - want) <= mpmath.mpf(2) ** exponent, value


def run_power(n: int, elem: str, x: Array) -> Array:
    module = ModuleEmitter("power", host().feature_names(), host().function_attributes())
    f = module.function("f", params=[Param("x", "ptr"), Param("out", "ptr"), Param("i", "i64")])
    source, out, i = f.params
    value = math.emit(f, "pow", [f.load(f.gep(source, i, elem), elem), constant(elem, n)])
    f.store(value, f.gep(out, i, elem))
    f.ret()
    assert "log" not in module.text()
    loaded = jit.load(jit.compile_object(module.text()), ["f"])
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(loaded["f"])
    result = np.empty_like(x)
    for at in range(len(x)):
        call(x.ctypes.data, result.ctypes.data, at)
    return result


@pytest.mark.parametrize("elem", DTYPES)
def test_quotients_by_a_shared_number_are_divisions(elem: str) -> None:
    """Bit for bit, whatever the numbers: all mantissas of the dividend would be 2^23 a divisor; here, a sample."""
    dtype, n = DTYPES[elem], 16
    module = ModuleEmitter("quotient", host().feature_names(), host().function_attributes())
    f = module.function("f", params=[Param("x", "ptr"), Param("y", elem), Param("out", "ptr")],
                        attributes=module.attributes)
    x_at, y, out = f.params
    one = quotient.divisor(Num(f, y))
    by = quotient.Divisor(*(Num(f, f.splat(part.value, n)) for part in (one.y, one.inverse, one.span)))
    f.store(quotient.quotient(Num(f, f.load(x_at, vec(elem, n))), by).value, out)
    f.ret()
    loaded = jit.load(jit.compile_object(module.text()), ["f"])
    scalar = ctypes.c_float if elem == "float" else ctypes.c_double
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, scalar, ctypes.c_void_p)(loaded["f"])
    rng = np.random.default_rng(3)
    ends = [1 + np.finfo(dtype).eps, 2 - np.finfo(dtype).eps, 2 - 2 * np.finfo(dtype).eps, 4 / 3, 3.0, 1e-20, 1e20]
    divisors = np.concatenate([rng.uniform(1, 2, 200), -rng.uniform(1, 2, 20), ends, specials(dtype)]).astype(dtype)
    fixed = np.concatenate([specials(dtype), samples(elem, 40, 9)])
    for number in divisors:
        given = np.concatenate([fixed, rng.uniform(1, 2, 256 - len(fixed) % 16).astype(dtype)])
        got = np.empty_like(given)
        for at in range(0, len(given), n):
            call(given[at:].ctypes.data, float(number), got[at:].ctypes.data)
        with np.errstate(all="ignore"):
            want = given / number
        real = ~np.isnan(want)
        assert np.array_equal(np.isnan(got), ~real)
        assert got[real].tobytes() == want[real].tobytes(), number
