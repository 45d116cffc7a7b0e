"""Circular functions: sin, cos, tan.

Method (Cody and Waite 1980; Muller, Elementary Functions, ch. 11): x = n pi/2 + r + rest, where pi/2 is a sum of three
numbers of the format. The first product is subtracted exactly by a fused multiply-add, the second one with its error,
so that r is right even where x is as near to a multiple of pi/2 as numbers of the format come. Numbers beyond `turns`
take a detour, lane by lane, that reduces them by Payne and Hanek's method (`huge`).

What holds here: errors are below 1 ULP for every number of the format; infinities give NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tracedsl.hw.cpu.math import huge
from tracedsl.hw.cpu.math.kinds import F64, Kind
from tracedsl.hw.cpu.math.num import Num, fast_two_sum, two_sum

_TWO_OVER_PI = 0.6366197723675814


@dataclass(frozen=True)
class Angle:
    """quarter pi/2 + r + rest: of the integer `quarter` the last two bits count; |r| <= pi/4 and a bit."""

    quarter: Num
    r: Num
    rest: Num

    def sin(self, kind: Kind) -> tuple[Num, Num]:
        """Of r + rest, as a value and a small summand."""
        r, square = self.r, self.r * self.r
        slope = self.rest.fma(square * -0.5, self.rest)
        return r, (r * square).fma(square.polynomial(kind.sin), slope)

    def cos(self, kind: Kind) -> tuple[Num, Num]:
        square = self.r * self.r
        half = square * 0.5
        one, error = fast_two_sum(half.lift(1.0), -half)
        error = self.r.fma(self.r, -square).fma(-0.5, error)  # what rounding the square has lost
        return one, (square * square).fma(square.polynomial(kind.cos), (-self.r).fma(self.rest, error))

    @property
    def odd(self) -> Num:
        return (self.quarter & 1).equals(1)


def reduce(x: Num, kind: Kind) -> Angle:
    first, second, third = kind.half_pi
    shifted = x.fma(_TWO_OVER_PI, kind.magic)
    n = shifted - kind.magic
    high = n.fma(-first, x)
    product = n * second
    r, error = two_sum(high, -product)
    return Angle(shifted.bits(), r, n.fma(-third, error - n.fma(second, -product)))


def _sin(angle: Angle, kind: Kind) -> Num:
    return _turned(angle, angle.odd, angle.quarter, kind)


def _cos(angle: Angle, kind: Kind) -> Num:
    return _turned(angle, ~angle.odd, angle.quarter + 1, kind)


def _turned(angle: Angle, by_cos: Num, quarter: Num, kind: Kind) -> Num:
    """sin or cos of the rest of an angle, with the sign that the half turn gives it."""
    (s, s_low), (c, c_low) = angle.sin(kind), angle.cos(kind)
    value = by_cos.where(c, s) + by_cos.where(c_low, s_low)
    return (quarter & 2).equals(2).where(-value, value)


def _tan(angle: Angle, kind: Kind) -> Num:
    """sin / cos or -cos / sin; the quotient is corrected by what the two leave."""
    s, s_low = fast_two_sum(*angle.sin(kind))
    c, c_low = fast_two_sum(*angle.cos(kind))
    odd = angle.odd
    top, top_low = odd.where(-c, s), odd.where(-c_low, s_low)
    below, below_low = odd.where(s, c), odd.where(s_low, c_low)
    inverse = 1.0 / below
    quotient = top * inverse
    left = (-quotient).fma(below, top) + (-quotient).fma(below_low, top_low)
    return left.fma(inverse, quotient)


Formula = Callable[[Angle, Kind], Num]


def _everywhere(name: str, formula: Formula, x: Num, kind: Kind) -> Num:
    usual = formula(reduce(x, kind), kind)
    return huge.detour(x, x.abs() > kind.turns, usual, name, lambda far: formula(Angle(*huge.reduce(far)), F64))


def sin(x: Num, kind: Kind) -> Num:
    value = _everywhere("sin", _sin, x, kind)
    return (x.abs() < kind.linear).where(x, value)


def cos(x: Num, kind: Kind) -> Num:
    return _everywhere("cos", _cos, x, kind)


def tan(x: Num, kind: Kind) -> Num:
    value = _everywhere("tan", _tan, x, kind)
    return (x.abs() < kind.linear).where(x, value)
