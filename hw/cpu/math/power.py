"""pow, cbrt and hypot of floats, computed in double (kind WIDE).

What holds here: special cases are those of C99 annex F, which NumPy follows.
"""

from __future__ import annotations

from tracedsl.hw.cpu.math import exponential
from tracedsl.hw.cpu.math.kinds import F64, Kind
from tracedsl.hw.cpu.math.logarithm import log
from tracedsl.hw.cpu.math.num import Num

_INF = float("inf")
_NAN = float("nan")
_TWO_TO_23 = 8388608.0


def _is_whole(y: Num) -> Num:
    """Of floats as doubles: from 2^23 on all are whole."""
    a = y.abs()
    return (a >= _TWO_TO_23) | ((a + F64.magic) - F64.magic).equals(a)


def pow_(x: Num, y: Num, kind: Kind) -> Num:
    """exp(y log |x|), with the sign of a negative base to an odd power."""
    a = x.abs()
    exponent = y * log(a, F64)
    value = exponential.exp(exponent, kind)
    whole = _is_whole(y)
    halved = y * 0.5
    odd = whole & ~_is_whole_half(halved)
    negative = x.bits() < 0
    value = (negative & odd).where(-value, value)
    finite_base = a < _INF
    value = ((x < 0.0) & ~whole & finite_base & (y.abs() < _INF)).where(_NAN, value)
    one_to_any = x.equals(1.0) | y.equals(0.0) | (x.equals(-1.0) & y.abs().equals(_INF))
    return one_to_any.where(1.0, value)


def _is_whole_half(half: Num) -> Num:
    """Whether the half of a whole number is whole: from 2^24 on every float is even."""
    a = half.abs()
    return (a >= _TWO_TO_23) | ((a + F64.magic) - F64.magic).equals(a)


def cbrt(x: Num, kind: Kind) -> Num:
    """A guess from a third of the exponent, three steps of Halley's method (cubic convergence), and one of Newton's
    with y^3 - a computed in twice the precision. Very large and very small numbers are scaled by 2^300."""
    a = x.abs()
    large, small = a > 2.0 ** 700, a < 2.0 ** -700
    b = large.where(a * 2.0 ** -300, small.where(a * 2.0 ** 300, a))
    # bits / 3, by way of a product in double, is good enough for a guess; the constant puts the bias right
    third = (b.bits().from_int("double") * (1.0 / 3.0)).to_int("i64")
    y = (third + 0x2A9F7893782DA1CE).floats()
    for _ in range(3):
        cube = y * y * y
        y = y * (cube + b * 2.0) / (cube * 2.0 + b)
    square = y * y
    cube = square * y
    error = y.fma(y, -square).fma(y, square.fma(y, -cube))
    y = y - ((cube - b) + error) / (square * 3.0)
    y = large.where(y * 2.0 ** 100, small.where(y * 2.0 ** -100, y))
    special = a.equals(0.0) | a.equals(_INF) | a.is_nan()
    return special.where(x, y.sign_of(x))


def hypot(x: Num, y: Num, kind: Kind) -> Num:
    """sqrt(x^2 + y^2): squares of floats neither overflow nor underflow in double. An infinity wins over NaN."""
    a, b = x.abs(), y.abs()
    value = a.fma(a, b * b).sqrt()
    return (a.equals(_INF) | b.equals(_INF)).where(_INF, value)
