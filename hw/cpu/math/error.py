"""erf and erfc.

Method: erf(x) / x by polynomials around multiples of a width, whose coefficients are looked up in registers; erfc as
exp(-x^2) times a slowly varying factor over 1 + 2x, the factor a polynomial in (x - 4) / (x + 4) (Shepherd and
Laframboise, Math. Comp. 36, 1981), so that its small values keep all their digits. In doubles every step of erfc that
would cost the last bit is a value and its error.
"""

from __future__ import annotations

from tracedsl.hw.cpu.math import coefficients as table
from tracedsl.hw.cpu.math import exponential
from tracedsl.hw.cpu.math.kinds import WIDE, Kind
from tracedsl.hw.cpu.math.num import Num, fast_two_sum
from tracedsl.hw.cpu.math.pieces import odd_by_pieces


def erf(x: Num, kind: Kind) -> Num:
    assert kind.erf_pieces is not None
    return odd_by_pieces(x, kind.erf_pieces, kind)


def erfc(x: Num, kind: Kind) -> Num:
    if kind is WIDE:
        return _erfc_short(x, kind)
    a = x.abs().at_most(27.5)
    value = _erfc_far(a, kind)
    value = (x < 0.0).where(2.0 - value, value)
    one, error = fast_two_sum(x.lift(1.0), -x)
    near = one + (error - x * (x * x).polynomial(table.ERF_SMALL))
    return (a < 0.5).where(near, value)


def _erfc_far(a: Num, kind: Kind) -> Num:
    """For 1/2 <= a."""
    square = a * a
    power = exponential.power_of(-square, kind, -(a.fma(a, -square)))
    t = (a - 4.0) / (a + 4.0)
    first, *others = table.ERFCX_F64
    factor, factor_low = fast_two_sum(a.lift(first), t * t.polynomial(others))
    factor_low = factor_low + table.ERFCX_F64_REST
    below = a.fma(2.0, 1.0)
    below_low = (a * 2.0 - below) + 1.0
    inverse = 1.0 / below
    quotient = factor * inverse
    rest = ((-quotient).fma(below, factor) + (-quotient).fma(below_low, factor_low)) * inverse
    value = quotient * power.high
    low = quotient.fma(power.high, -value) + quotient.fma(power.low, rest * power.high)
    return (value + low).times_power(power.n)


def _erfc_short(x: Num, kind: Kind) -> Num:
    """For a float as a double, whose square is exact."""
    a = x.abs().at_most(10.4)
    factor = ((a - 4.0) / (a + 4.0)).polynomial(table.ERFCX) / a.fma(2.0, 1.0)
    value = factor * exponential.exp(-(a * a), kind)
    return (x < 0.0).where(2.0 - value, value)
