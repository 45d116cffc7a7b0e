"""Derives the polynomials of `coefficients`: `python -m tracedsl.hw.cpu.math.derive > hw/cpu/math/coefficients.py`.

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


_EXP = "(exp(r) - 1 - r) / r^2"
_LOG = "(2 atanh(s) / s - 2) / s^2, in s^2"
_TANH = "(tanh(x) / x - 1) / x^2, in x^2"

TARGETS = (
    Target("EXP_F32", _EXP, "-0.3467", "0.3467", 5, _exp_tail),
    Target("EXP_WIDE", _EXP, "-0.3467", "0.3467", 6, _exp_tail),
    Target("EXP_F64", _EXP, "-0.3467", "0.3467", 10, _exp_tail),
    Target("LOG_F32", _LOG, "0", "0.0295", 3, _log_tail),
    Target("LOG_WIDE", _LOG, "0", "0.0295", 5, _log_tail),
    Target("LOG_F64", _LOG, "0", "0.0295", 7, _log_tail),
    Target("TANH_F32", _TANH, "0", "0.96", 7, _tanh_tail),
    Target("TANH_F64", _TANH, "0", "0.31", 10, _tanh_tail),
    Target("ERF_SMALL", "erf(x) / x, in x^2", "0", "1", 9, lambda mp, u: mp.erf(mp.sqrt(u)) / mp.sqrt(u)),
    Target("ERF_LARGE", "erf(x), in x - 2.5", "-1.5", "1.5", 19, lambda mp, y: mp.erf(y + mp.mpf("2.5"))),
    Target("ERFCX", "(1 + 2x) exp(x^2) erfc(x), in (x - 4) / (x + 4)", "-1", "0.45", 16, _scaled_erfcx),
    Target("ATAN", "atan(x) / x, in x^2", "0", "1", 14, lambda mp, u: mp.atan(mp.sqrt(u)) / mp.sqrt(u)),
    Target("ASIN", "asin(x) / x, in x^2", "0", "0.25", 11, lambda mp, u: mp.asin(mp.sqrt(u)) / mp.sqrt(u)),
    Target("SIN", "sin(x) / x, in x^2", "0", "0.618", 6, lambda mp, u: mp.sin(mp.sqrt(u)) / mp.sqrt(u)),
    Target("COS", "cos(x), in x^2", "0", "0.618", 6, lambda mp, u: mp.cos(mp.sqrt(u))),
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
    low, high, count = mp.mpf(target.low), mp.mpf(target.high), target.degree + 1
    middle, half = (low + high) / 2, (high - low) / 2
    nodes = [middle + half * mp.cos(mp.pi * (2 * k + 1) / (2 * count)) for k in range(count)]
    powers = mp.matrix([[node ** k for k in range(count)] for node in nodes])
    values = mp.matrix([target.function(mp, node) for node in nodes])
    coefficients = [float(c) for c in mp.lu_solve(powers, values)]
    grid = [low + (high - low) * (mp.mpf(2 * k + 1) / 800) for k in range(400)]
    error = max(abs(sum(mp.mpf(c) * x ** k for k, c in enumerate(coefficients)) - target.function(mp, x)) for x in grid)
    return coefficients, float(error)


def reduction_table() -> list[tuple[float, float, float]]:
    """For `trigonometric`: (2/pi) * 2^e mod 4 for e = -64 .. 104, each as three doubles of at most 29 bits."""
    mp = _arithmetic(DIGITS + 40)
    rows = []
    for e in range(-64, 105):
        rest, row = mp.fmod(2 / mp.pi * mp.mpf(2) ** e, 4), []
        for _ in range(3):
            unit = mp.mpf(2) ** (mp.mag(rest) - 29)
            part = mp.floor(rest / unit) * unit
            row.append(float(part))
            rest -= part
        rows.append((row[0], row[1], row[2]))
    return rows


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
    out.write("\n# (2/pi) * 2^e mod 4 for e = -64 .. 104, as sums of three doubles of at most 29 bits\n")
    out.write("TWO_OVER_PI = (\n")
    for row in reduction_table():
        out.write("    (" + ", ".join(f'_H("{v.hex()}")' for v in row) + "),\n")
    out.write(")\n")


if __name__ == "__main__":
    main()
