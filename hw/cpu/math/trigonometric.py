"""Circular functions of floats, computed in double (kind WIDE): sin, cos, tan, asin, acos, atan, atan2.

Method: the argument is reduced modulo pi/2 with a table of (2/pi) 2^e mod 4 (Payne and Hanek, SIGNUM 18, 1983): a
float is a whole number of 24 bits times 2^e, and its products with the 29-bit pieces of the table are exact in double,
so every float, up to the largest, is reduced in the same few steps. The inverse functions fold their domain.

What holds here: results are right to within 0.51 ULP of a float before the last rounding; infinities give NaN in
the circular functions.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracedsl.hw.cpu.emitter import Value, constant
from tracedsl.hw.cpu.irtypes import like
from tracedsl.hw.cpu.math import coefficients as table
from tracedsl.hw.cpu.math.kinds import WIDE, Kind
from tracedsl.hw.cpu.math.num import Num

_HALF_PI = 1.5707963267948966
_PI = 3.141592653589793
_NAN = float("nan")
_INF = float("inf")
_FIRST, _LAST = -64, 104  # exponents in the table


@dataclass(frozen=True)
class _Angle:
    """|x| = (quarter + y) pi/2 with |y| <= 1/2 and a bit; r = y pi/2."""

    quarter: Num
    r: Num

    def sin(self) -> Num:
        return self.r * (self.r * self.r).polynomial(table.SIN)

    def cos(self) -> Num:
        return (self.r * self.r).polynomial(table.COS)


def _look_up(index: Num) -> tuple[Num, Num, Num]:
    """The three pieces of (2/pi) 2^e mod 4."""
    f = index.f
    rows = ", ".join(f"{constant('double', v)}" for row in table.TWO_OVER_PI for v in row)
    base = f.module.global_("tracedsl.two_over_pi", f"[{3 * len(table.TWO_OVER_PI)} x double]", f"[{rows}]",
                            constant=True)
    pieces = []
    for piece in range(3):
        at = f.gep(base, (index * 3 + piece).value, "double")
        type_ = like(index.type, "double")
        if index.lanes == 1:
            value: Value = f.load(at, type_)
        else:
            value = f.gather(at, constant(like(index.type, "i1"), True), constant(type_, 0.0))
        pieces.append(Num(f, value))
    return pieces[0], pieces[1], pieces[2]


def _whole(x: Num) -> tuple[Num, Num]:
    shifted = x + WIDE.magic
    return shifted - WIDE.magic, shifted.bits()


def _reduce(x: Num) -> _Angle:
    bits = x.abs().bits()
    exponent = (bits >> WIDE.mantissa) - (WIDE.bias + 23)
    exponent = (exponent < _FIRST).where(exponent.lift(_FIRST), exponent)
    exponent = (exponent > _LAST).where(exponent.lift(_LAST), exponent)
    mantissa = ((bits & ((1 << WIDE.mantissa) - 1)) | ((WIDE.bias + 23) << WIDE.mantissa)).floats()
    high, middle, low = _look_up(exponent - _FIRST)
    first = mantissa * high
    turns, _ = _whole(first * 0.25)
    first = turns.fma(-4.0, first)
    second = mantissa * middle
    quarter, number = _whole(first + second)
    y = mantissa.fma(low, (first - quarter) + second)
    return _Angle(number, y * _HALF_PI)


def _odd(number: Num) -> Num:
    return (number & 1).equals(1)


def sin(x: Num, kind: Kind) -> Num:
    angle = _reduce(x)
    value = _odd(angle.quarter).where(angle.cos(), angle.sin())
    value = ((angle.quarter & 2).equals(2)).where(-value, value)
    value = (x < 0.0).where(-value, value) + (x - x)
    return (x.abs() < 2.0 ** -40).where(x, value)


def cos(x: Num, kind: Kind) -> Num:
    angle = _reduce(x)
    value = _odd(angle.quarter).where(angle.sin(), angle.cos())
    value = (((angle.quarter + 1) & 2).equals(2)).where(-value, value)
    return (x.abs() < 2.0 ** -40).where(1.0, value + (x - x))


def tan(x: Num, kind: Kind) -> Num:
    angle = _reduce(x)
    odd = _odd(angle.quarter)
    s, c = angle.sin(), angle.cos()
    value = odd.where(-c, s) / odd.where(s, c)
    value = (x < 0.0).where(-value, value) + (x - x)
    return (x.abs() < 2.0 ** -40).where(x, value)


def _atan_of_quotient(small: Num, large: Num) -> Num:
    """atan(small / large) for 0 <= small <= large."""
    t = small / large
    return t * (t * t).polynomial(table.ATAN)


def atan(x: Num, kind: Kind) -> Num:
    a = x.abs()
    folded = a > 1.0
    value = _atan_of_quotient(folded.where(1.0, a), folded.where(a, a.lift(1.0)))
    return folded.where(_HALF_PI - value, value).sign_of(x)


def atan2(y: Num, x: Num, kind: Kind) -> Num:
    """The angle of the point (x, y), signs of zero and infinities as in C."""
    a, b = y.abs(), x.abs()
    swapped = a > b
    small, large = swapped.where(b, a), swapped.where(a, b)
    both_infinite = small.equals(_INF)
    small, large = both_infinite.where(1.0, small), both_infinite.where(1.0, large)
    zero = large.equals(0.0)
    value = _atan_of_quotient(small, zero.where(1.0, large))
    value = swapped.where(_HALF_PI - value, value)
    negative = x.bits() < 0
    value = negative.where(_PI - value, value).sign_of(y)
    return (y.is_nan()).where(y, x.is_nan().where(x, value))


def asin(x: Num, kind: Kind) -> Num:
    """Above 1/2 by asin(a) = pi/2 - 2 asin(sqrt((1 - a) / 2))."""
    folded, value = _asin_folded(x)
    return folded.where(value.fma(-2.0, _HALF_PI), value).sign_of(x)


def acos(x: Num, kind: Kind) -> Num:
    folded, value = _asin_folded(x)
    negative = x < 0.0
    near_one = negative.where(value.fma(-2.0, _PI), value * 2.0)
    near_zero = negative.where(value + _HALF_PI, _HALF_PI - value)
    return folded.where(near_one, near_zero)


def _asin_folded(x: Num) -> tuple[Num, Num]:
    """Whether |x| > 1/2, and asin of |x| or, there, of sqrt((1 - |x|) / 2); NaN outside of the domain."""
    a = x.abs()
    folded = a > 0.5
    square = folded.where((1.0 - a) * 0.5, a * a)
    root = folded.where(square.sqrt(), a)
    return folded, root * square.polynomial(table.ASIN)
