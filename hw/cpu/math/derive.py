"""Derives the polynomials of `coefficients`: `python hw/cpu/math/derive.py > hw/cpu/math/coefficients.py`.

What holds here: every polynomial interpolates its target at the Chebyshev nodes of its interval, computed with 60
digits (Trefethen, Approximation Theory and Approximation Practice, ch. 4 and 16: within a small factor of the best
polynomial), and the largest error found on a fine grid is written beside it. Needs mpmath; nothing else imports this.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DIGITS = 60


@dataclass(frozen=True)
class Target:
    """`name`: polynomial of this degree, near `function` on [low, high]; `formula` says what it is."""

    name: str
    formula: str
    low: str
    high: str
    degree: int
    function: Callable[[Any, Any], Any]


def _exp_tail(mp: Any, r: Any) -> Any:
    return (mp.expm1(r) - r) / r ** 2 if abs(r) > mp.mpf("1e-20") else mp.mpf(1) / 2 + r / 6


def _log_tail(mp: Any, z: Any) -> Any:
    s = mp.sqrt(z)
    return (2 * mp.atanh(s) / s - 2) / z


def _tanh_tail(mp: Any, u: Any) -> Any:
    x = mp.sqrt(u)
    return (mp.tanh(x) / x - 1) / u


def _scaled_erfcx(mp: Any, t: Any) -> Any:
    """x is where t = (x - 4) / (x + 4)."""
    x = 4 * (1 + t) / (1 - t)
    return (1 + 2 * x) * mp.erfc(x) * mp.exp(x * x)


def _ratio_tail(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """(f(x) / x - 1) / x^2 of an odd function with slope 1, as a function of x^2."""
    def tail(mp: Any, u: Any) -> Any:
        x = mp.sqrt(u)
        return (function(mp, x) / x - 1) / u
    return tail


_EXP = "(exp(r) - 1 - r) / r^2"
_LOG = "(2 atanh(s) / s - 2) / s^2, in s^2"
_TANH = "(tanh(x) / x - 1) / x^2, in x^2"
_SIN = "(sin(x) / x - 1) / x^2, in x^2"
_COS = "(cos(x) - 1 + x^2 / 2) / x^4, in x^2"
_ATAN = "(atan(x) / x - 1) / x^2, in x^2"
_ASIN = "(asin(x) / x - 1) / x^2, in x^2"

_sin_tail = _ratio_tail(lambda mp, x: mp.sin(x))
_atan_tail = _ratio_tail(lambda mp, x: mp.atan(x))
_asin_tail = _ratio_tail(lambda mp, x: mp.asin(x))


def _cos_tail(mp: Any, u: Any) -> Any:
    return (mp.cos(mp.sqrt(u)) - 1 + u / 2) / (u * u)


def _erf_ratio(mp: Any, x: Any) -> Any:
    return mp.erf(x) / x if x else 2 / mp.sqrt(mp.pi)


def _tanh_ratio(mp: Any, x: Any) -> Any:
    return mp.tanh(x) / x if x else mp.mpf(1)


TARGETS = (
    Target("EXP_F32", _EXP, "-0.3467", "0.3467", 5, _exp_tail),
    Target("EXP_WIDE", _EXP, "-0.3467", "0.3467", 6, _exp_tail),
    Target("EXP_F64", _EXP, "-0.3467", "0.3467", 10, _exp_tail),
    Target("EXP_SIXTEENTH_F32", _EXP, "-0.0218", "0.0218", 1, _exp_tail),
    Target("EXP_SIXTEENTH_WIDE", _EXP, "-0.0218", "0.0218", 2, _exp_tail),
    Target("EXP_SIXTEENTH_F64", _EXP, "-0.0218", "0.0218", 4, _exp_tail),
    Target("LOG_F32", _LOG, "0", "0.0295", 3, _log_tail),
    Target("LOG_WIDE", _LOG, "0", "0.0295", 5, _log_tail),
    Target("LOG_F64", _LOG, "0", "0.0295", 7, _log_tail),
    Target("LOG_HIGH", "((2 atanh(s) / s - 2) / s^2 - 2/3) / (2 s^2), in s^2", "0", "0.0295", 7,
           lambda mp, z: (_log_tail(mp, z) - mp.mpf(2) / 3) / (2 * z)),
    Target("TANH_F32", _TANH, "0", "0.96", 7, _tanh_tail),
    Target("TANH_F64", _TANH, "0", "0.31", 10, _tanh_tail),
    Target("ERF_SMALL", "(erf(x) / x - 1), in x^2", "0", "0.27", 9, lambda mp, u: mp.erf(mp.sqrt(u)) / mp.sqrt(u) - 1),
    Target("ERFCX", "(1 + 2x) exp(x^2) erfc(x), in (x - 4) / (x + 4)", "-1", "0.45", 16, _scaled_erfcx),
    Target("ERFCX_F64", "(1 + 2x) exp(x^2) erfc(x), in (x - 4) / (x + 4)", "-0.7778", "0.745", 23, _scaled_erfcx),
    Target("ATAN_F32", _ATAN, "0", "0.1717", 4, _atan_tail),
    Target("ATAN_F64", _ATAN, "0", "0.1717", 10, _atan_tail),
    Target("ASIN_F32", _ASIN, "0", "0.25", 5, _asin_tail),
    Target("ASIN_F64", _ASIN, "0", "0.25", 13, _asin_tail),
    Target("SIN_F32", _SIN, "0", "0.618", 3, _sin_tail),
    Target("SIN_F64", _SIN, "0", "0.618", 5, _sin_tail),
    Target("COS_F32", _COS, "0", "0.618", 2, _cos_tail),
    Target("COS_F64", _COS, "0", "0.618", 5, _cos_tail),
)


REST_OF_FIRST = ("ERFCX_F64",)   # polynomials whose constant term is wanted in two parts


@dataclass(frozen=True)
class Piecewise:
    """`count` polynomials of this degree near `function`, each around one of the centres 0, width, 2 width, ..."""

    name: str
    formula: str
    count: int
    width: str
    degree: int
    function: Callable[[Any, Any], Any]


PIECEWISE = (
    Piecewise("ERF_PIECES_F32", "erf(x) / x", 16, "0.2578125", 5, _erf_ratio),
    Piecewise("ERF_PIECES_F64", "erf(x) / x", 8, "0.796875", 15, _erf_ratio),
    Piecewise("TANH_PIECES_F32", "tanh(x) / x", 16, "0.59375", 7, _tanh_ratio),
)

def _arithmetic(digits: int) -> Any:
    """mpmath's functions at a precision of their own."""
    import mpmath  # type: ignore[import-untyped]

    mp = mpmath.mp.clone()
    mp.dps = digits
    return mp


def fit(target: Target) -> tuple[list[float], float]:
    """The coefficients, lowest first, rounded to double, and the largest error of the polynomial so rounded."""
    mp = _arithmetic(DIGITS)
    low, high = mp.mpf(target.low), mp.mpf(target.high)
    coefficients = [float(c) for c in _interpolate(mp, lambda x: target.function(mp, x), low, high, target.degree)]
    return coefficients, _error(mp, coefficients, lambda x: target.function(mp, x), low, high)


def rest_of_first(target: Target, first: float) -> float:
    """What rounding leaves of the constant term."""
    mp = _arithmetic(DIGITS)
    low, high = mp.mpf(target.low), mp.mpf(target.high)
    return float(_interpolate(mp, lambda x: target.function(mp, x), low, high, target.degree)[0] - first)


def fit_pieces(target: Piecewise) -> tuple[list[list[float]], float]:
    """A row for each power, lowest first, with an entry for each centre; the constant terms take two rows, the second
    one what the first, rounded to the function's format, leaves. The error is the largest of all pieces."""
    mp = _arithmetic(DIGITS)
    width, half = mp.mpf(target.width), mp.mpf(target.width) * mp.mpf("0.502")
    pieces, worst = [], 0.0
    for number in range(target.count):
        centre = number * width

        def near(d: Any, centre: Any = centre) -> Any:
            return target.function(mp, centre + d)

        exact = _interpolate(mp, near, -half, half, target.degree)
        first = _rounded(float(exact[0]), target.name)
        pieces.append([first, float(exact[0] - first), *map(float, exact[1:])])
        worst = max(worst, _error(mp, [exact[0], *map(float, exact[1:])], near, -half, half))
    return [list(row) for row in zip(*pieces)], worst


def exp_table(name: str) -> tuple[list[float], list[float]]:
    """2^(j/16) for j = 0 .. 15, rounded to the format, and what that leaves."""
    mp = _arithmetic(DIGITS)
    exact = [mp.mpf(2) ** (mp.mpf(j) / 16) for j in range(16)]
    first = [_rounded(float(v), name) for v in exact]
    return first, [float(v - f) for v, f in zip(exact, first)]


def multiples_of_quarter_pi(name: str) -> tuple[list[float], list[float]]:
    """j pi / 4 for j = 0 .. 4 (the table has 8 entries), rounded to the format, and what that leaves."""
    mp = _arithmetic(DIGITS)
    exact = [mp.pi * j / 4 if j < 5 else mp.mpf(0) for j in range(8)]
    first = [_rounded(float(v), name) for v in exact]
    return first, [float(v - f) for v, f in zip(exact, first)]


def parts(value: Any, name: str, count: int) -> list[float]:
    """A number as a sum of `count` numbers of the format that `name` ends with."""
    found = []
    for _ in range(count):
        found.append(_rounded(float(value), name))
        value -= found[-1]
    return found


def _rounded(value: float, name: str) -> float:
    """To the format that a name ends with."""
    import struct

    return float(struct.unpack("f", struct.pack("f", value))[0]) if name.endswith("F32") else value


def _interpolate(mp: Any, function: Callable[[Any], Any], low: Any, high: Any, degree: int) -> list[Any]:
    middle, half, count = (low + high) / 2, (high - low) / 2, degree + 1
    nodes = [middle + half * mp.cos(mp.pi * (2 * k + 1) / (2 * count)) for k in range(count)]
    powers = mp.matrix([[node ** k for k in range(count)] for node in nodes])
    return list(mp.lu_solve(powers, mp.matrix([function(node) for node in nodes])))


def _error(mp: Any, coefficients: list[Any], function: Callable[[Any], Any], low: Any, high: Any) -> float:
    grid = [low + (high - low) * (mp.mpf(2 * k + 1) / 400) for k in range(200)]
    return float(max(abs(sum(mp.mpf(c) * x ** k for k, c in enumerate(coefficients)) - function(x)) for x in grid))


def two_over_pi() -> list[int]:
    """64 zero bits and the first bits of 2/pi, as words of 64 bits: enough for every double."""
    mp = _arithmetic(500)
    bits = int(mp.floor(2 / mp.pi * mp.mpf(2) ** (64 * 19)))
    return [0, *((bits >> (64 * (18 - word))) & (2 ** 64 - 1) for word in range(19))]


def main() -> None:
    out = sys.stdout
    out.write('"""Polynomials and tables of the vector math, made by `derive`: do not edit.\n\n'
              "What holds here: coefficients stand lowest first, as exact doubles; the error is absolute, over the\n"
              'whole interval.\n"""\n\nfrom __future__ import annotations\n\n')
    out.write("_H = float.fromhex\n")
    for target in TARGETS:
        coefficients, error = fit(target)
        out.write(f"\n# {target.formula}; on [{target.low}, {target.high}], error {error:.1e}\n{target.name} = (\n")
        out.writelines(f'    _H("{c.hex()}"),\n' for c in coefficients)
        out.write(")\n")
        if target.name in REST_OF_FIRST:
            rest = rest_of_first(target, coefficients[0])
            out.write(f'\n# what the first of these leaves\n{target.name}_REST = _H("{rest.hex()}")\n')
    for pieces in PIECEWISE:
        rows, error = fit_pieces(pieces)
        out.write(f"\n# {pieces.formula} around multiples of {pieces.width}, error {error:.1e}:"
                  f" the constant terms in two parts, then each power\n{pieces.name} = (\n")
        _write_rows(out, rows)
    for name in ("EXP_TABLE_F32", "EXP_TABLE_F64"):
        out.write(f"\n# 2^(j/16): rounded, and what is left\n{name} = (\n")
        _write_rows(out, exp_table(name))
    for name in ("QUARTER_PI_F32", "QUARTER_PI_F64"):
        out.write(f"\n# j pi/4: rounded, and what is left\n{name} = (\n")
        _write_rows(out, multiples_of_quarter_pi(name))
    mp = _arithmetic(DIGITS)
    for name, value in (("HALF_PI", mp.pi / 2), ("LN2_SIXTEENTH", mp.log(2) / 16)):
        for kind in ("F32", "F64"):
            out.write(f"\n# a sum of three\n{name}_{kind} = (\n")
            out.writelines(f'    _H("{v.hex()}"),\n' for v in parts(value, kind, 3))
            out.write(")\n")
    out.write("\n# 64 zero bits, then those of 2/pi\nTWO_OVER_PI = (\n")
    out.writelines(f"    {word:#018x},\n" for word in two_over_pi())
    out.write(")\n")


def _write_rows(out: Any, rows: Any) -> None:
    for row in rows:
        out.write("    (\n")
        for start in range(0, len(row), 3):
            out.write("        " + " ".join(f'_H("{v.hex()}"),' for v in row[start:start + 3]) + "\n")
        out.write("    ),\n")
    out.write(")\n")


if __name__ == "__main__":
    main()
