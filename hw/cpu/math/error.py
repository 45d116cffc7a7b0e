"""erf and erfc of floats, computed in double (kind WIDE).

Method: erf by two polynomials; erfc as exp(-x^2) times a slowly varying factor, a polynomial in (x - 4) / (x + 4)
(Shepherd and Laframboise, Math. Comp. 36, 1981), so that its small values keep all their digits.

What holds here: x comes from a float, so x^2 is exact.
"""

from __future__ import annotations

from tracedsl.hw.cpu.math import coefficients as table
from tracedsl.hw.cpu.math import exponential
from tracedsl.hw.cpu.math.kinds import Kind
from tracedsl.hw.cpu.math.num import Num


def erf(x: Num, kind: Kind) -> Num:
    a = x.abs().at_most(4.0)
    small = x * (x * x).polynomial(table.ERF_SMALL)
    large = (a - 2.5).polynomial(table.ERF_LARGE)
    return (a > 1.0).where(large.sign_of(x), small)


def erfc(x: Num, kind: Kind) -> Num:
    a = x.abs().at_most(10.4)
    factor = ((a - 4.0) / (a + 4.0)).polynomial(table.ERFCX) / a.fma(2.0, 1.0)
    value = factor * exponential.exp(-(a * a), kind)
    return (x < 0.0).where(2.0 - value, value)
