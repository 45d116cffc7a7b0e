"""pow, cbrt and hypot; of floats they are computed in double (kind WIDE).

What holds here: special cases are those of C99 annex F, which NumPy follows.
"""

from __future__ import annotations

from tracedsl.hw.cpu.math import exponential
from tracedsl.hw.cpu.math.kinds import WIDE, Kind
from tracedsl.hw.cpu.math.logarithm import log, log_parts
from tracedsl.hw.cpu.math.num import Num, fast_two_sum

_INF = float("inf")
_NAN = float("nan")
_FAR = 2.0 ** 600


def _is_whole(y: Num) -> Num:
    return y.whole().equals(y)


def pow_(x: Num, y: Num, kind: Kind) -> Num:
    """e^(y log|x|), with the sign of a negative base to an odd power."""
    a = x.abs()
    if kind is WIDE:
        value = exponential.exp(y * log(a, WIDE), WIDE)
    else:
        value = _power_of_logarithm(*log_parts(a, kind), y, kind)
    whole = _is_whole(y)
    odd = whole & ~_is_whole(y * 0.5)
    negative = x.bits() < 0
    value = (negative & odd).where(-value, value)
    value = ((x < 0.0) & ~whole & (a < _INF) & (y.abs() < _INF)).where(_NAN, value)
    one_to_any = x.equals(1.0) | y.equals(0.0) | (x.equals(-1.0) & y.abs().equals(_INF))
    return one_to_any.where(1.0, value)


def whole_power(x: Num, n: int) -> Num:
    """x^n for |n| >= 2 by multiplications of values with their errors, for a negative n of 1/x."""
    if n > 0:
        value, rest = _times(x, None, n)
    else:
        inverse = 1.0 / x
        value, rest = _times(inverse, (-inverse).fma(x, 1.0) * inverse, -n)
    # where the value has gone to infinity or zero, its error means nothing
    return (rest.abs() < value.abs()).where(value + rest, value)


def _times(x: Num, x_rest: Num | None, n: int) -> tuple[Num, Num]:
    """(x + x_rest)^n by squaring, as a value and its error."""
    if n == 1:
        return x, x.lift(0.0) if x_rest is None else x_rest
    half, half_rest = _times(x, x_rest, n // 2)
    value = half * half
    rest = half.fma(half, -value)
    if n > 3 or x_rest is not None:
        rest = (half * 2.0).fma(half_rest, rest)
    if n % 2 == 0:
        return value, rest
    odd = value * x
    odd_rest = rest.fma(x, value.fma(x, -odd))
    return odd, odd_rest if x_rest is None else value.fma(x_rest, odd_rest)


def _power_of_logarithm(high: Num, low: Num, y: Num, kind: Kind) -> Num:
    """e^(y (high + low))."""
    exponent = y * high
    rest = y.fma(high, -exponent) + y * low
    inside = exponent.abs() < 2.0 * kind.log_overflow   # beyond it the rest is not needed, and may be NaN
    rest = inside.where(rest, rest.lift(0.0))
    exponent = exponent.at_most(kind.log_overflow).at_least(kind.log_zero)
    return exponential.power_of(exponent, kind, rest).value()


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
    """sqrt(x^2 + y^2), the sum with its error and the root corrected by it. An infinity wins over NaN."""
    a, b = x.abs(), y.abs()
    if kind is WIDE:   # squares of floats neither overflow nor underflow in double
        value = a.fma(a, b * b).sqrt()
    else:
        value = _hypot(a, b, kind)
    return (a.equals(_INF) | b.equals(_INF)).where(_INF, value)


def _hypot(a: Num, b: Num, kind: Kind) -> Num:
    swapped = b > a
    large, small = swapped.where(b, a), swapped.where(a, b)
    down, up = large > kind.scale, large < 1.0 / kind.scale
    one = large.lift(1.0)
    large, small = (v * down.where(1.0 / _FAR, up.where(_FAR, one)) for v in (large, small))
    first, second = large * large, small * small
    total, error = fast_two_sum(first, second)
    error = error + (large.fma(large, -first) + small.fma(small, -second))
    root = total.sqrt()
    safe = root.equals(0.0).where(1.0, root)
    root = root + ((-root).fma(root, total) + error) / (safe * 2.0)
    return root * down.where(_FAR, up.where(1.0 / _FAR, one))
