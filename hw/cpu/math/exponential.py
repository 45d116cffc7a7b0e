"""exp and what is made of it: exp2, expm1, sigmoid, tanh, sinh, cosh.

Method (Tang, ACM TOMS 15, 1989; Muller, Elementary Functions, ch. 11): x = n ln 2 + r with |r| <= ln(2)/2, then a
polynomial for e^r, then 2^n. Where one rounding too many would cost the last bit, sums are carried as a value and its
error.

What holds here: the functions are written once for every `Kind`. NaN gives NaN, overflow inf, underflow rounds once
into the subnormals; odd functions keep the sign of zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracedsl.hw.cpu.math.kinds import F32, WIDE, Kind
from tracedsl.hw.cpu.math.num import Num, fast_two_sum, two_sum

_LOG2_E = 1.4426950408889634
_LN2 = 0.6931471805599453
_LN2_REST = 2.3190468138462996e-17  # ln 2 - _LN2


@dataclass(frozen=True)
class _Reduced:
    """x = n ln 2 + r + rest, with whole `n` (an integer) and |rest| far below |r|."""

    n: Num
    r: Num
    rest: Num

    def tail(self, kind: Kind) -> Num:
        """e^(r + rest) - 1 - r."""
        return (self.r * self.r).fma(self.r.polynomial(kind.exp), self.rest)

    def sum(self, kind: Kind) -> tuple[Num, Num]:
        """e^(r + rest) as two summands, the second one small."""
        one, error = fast_two_sum(self.r.lift(1.0), self.r)
        return one, error + self.tail(kind)

    def parts(self, kind: Kind) -> tuple[Num, Num]:
        """e^(r + rest) as a rounded value and its error."""
        return fast_two_sum(*self.sum(kind))


def _whole(x: Num, kind: Kind) -> tuple[Num, Num]:
    """x rounded to a whole number, as a float and as an integer."""
    shifted = x + kind.magic
    return shifted - kind.magic, shifted.bits() - shifted.lift(kind.magic).bits()


def _reduce(x: Num, kind: Kind) -> _Reduced:
    shifted = x.fma(_LOG2_E, kind.magic)
    n = shifted - kind.magic
    high = n.fma(-kind.ln2_high, x)
    r = n.fma(-kind.ln2_low, high)
    return _Reduced(shifted.bits() - shifted.lift(kind.magic).bits(), r, n.fma(-kind.ln2_low, high - r))


def power_of_two(n: Num, kind: Kind) -> Num:
    """2^n for an exponent of a normal number."""
    return ((n + kind.bias) << kind.mantissa).floats()


def scale(x: Num, n: Num, kind: Kind) -> Num:
    """x * 2^n, rounded once; n may go twice as far as the exponents do."""
    half = n >> 1
    return x * power_of_two(half, kind) * power_of_two(n - half, kind)


def exp(x: Num, kind: Kind) -> Num:
    x = x.at_most(kind.log_overflow).at_least(kind.log_zero)
    reduced = _reduce(x, kind)
    if kind is WIDE:
        value = reduced.r + reduced.tail(kind) + 1.0
    else:
        high, low = reduced.sum(kind)
        value = high + low
    return scale(value, reduced.n, kind)


def exp2(x: Num, kind: Kind) -> Num:
    x = x.at_most(2.0 * kind.bias).at_least(-2.0 * kind.bias)
    n, whole = _whole(x, kind)
    y = x - n
    r = y * _LN2
    rest = y.fma(_LN2, -r) + y * _low_of_ln2(kind)
    high, low = _Reduced(whole, r, rest).sum(kind)
    return scale(high + low, whole, kind)


def _low_of_ln2(kind: Kind) -> float:
    """ln 2 minus the constant `_LN2` as it is rounded to the kind's format."""
    if kind.elem == "double":
        return _LN2_REST
    import numpy as np

    return _LN2 - float(np.float32(_LN2))


def expm1(x: Num, kind: Kind) -> Num:
    value, error = _expm1_parts(x.at_most(kind.log_overflow), 1, kind)
    return (x.abs() < kind.tiny).where(x, ((value + error) * 2.0).sign_of(x))


def _expm1_parts(x: Num, down: int, kind: Kind) -> tuple[Num, Num]:
    """(e^x - 1) / 2^down as a value and its error: with p = 2^(n - down), the sum of p - 2^-down, p r, p r^2/2 and
    small terms, where every large sum keeps its error. `down` keeps p in range for results near overflow."""
    reduced = _reduce(x.at_least(-50.0), kind)
    r = reduced.r
    square, half_r = r * r, r * 0.5
    second = r * half_r
    second_error = r.fma(half_r, -second)
    higher = square.fma(r.polynomial((kind.exp[0] - 0.5, *kind.exp[1:])), reduced.rest)
    power = power_of_two(reduced.n - down, kind)
    base, error = two_sum(power, power.lift(-(0.5 ** down)))
    value, rest = two_sum(base, power * r)
    value, last = fast_two_sum(value, power * second)
    return value, power.fma(higher + second_error, last + (rest + error))


def sigmoid(x: Num, kind: Kind) -> Num:
    """1 / (1 + e^-x); for negative x as e^x / (1 + e^x), so that small results keep all their digits."""
    reduced = _reduce((-x.abs()).at_least(kind.log_zero), kind)
    high, low = reduced.parts(kind)
    negative = x < 0.0
    one = high.lift(1.0)
    # the denominator 1 + 2^n (high + low) as a value and its error; the numerator still without its 2^n
    lowest = 1 - kind.bias  # less adds nothing to 1
    power = power_of_two((reduced.n < lowest).where(lowest, reduced.n), kind)
    below, above = high * power, low * power
    total, error = fast_two_sum(one, below)
    error = error + above
    top, rest = negative.where(high, one), negative.where(low, one.lift(0.0))
    reciprocal = 1.0 / total
    quotient = top * reciprocal
    remainder = (-quotient).fma(total, top) + (-quotient).fma(error, rest)
    n = negative.where(reduced.n, reduced.n.lift(0))
    return scale(remainder.fma(reciprocal, quotient), n, kind)


def tanh(x: Num, kind: Kind) -> Num:
    """A polynomial near zero, else 1 - 2e / (1 + e) with e = e^(-2|x|)."""
    magnitude = x.abs()
    square = x * x
    small = (x * square).fma(square.polynomial(kind.tanh), x)
    reduced = _reduce(magnitude.at_most(kind.tanh_one) * -2.0, kind)
    large = (_tanh_short if kind is F32 else _tanh_long)(reduced, kind)
    return (magnitude > kind.tanh_from).where(large, small.abs()).sign_of(x)


def _tanh_short(reduced: _Reduced, kind: Kind) -> Num:
    """Where the quotient is this small, it is enough to undo what the denominator lost: q (1 - error / (1 + e)), with
    6/7 in place of 1 / (1 + e), which it is where the error counts most."""
    high, low = reduced.sum(kind)
    power = (high + low) * power_of_two(reduced.n, kind)
    total, error = fast_two_sum(power.lift(1.0), power)
    quotient = (power * 2.0) / total
    return 1.0 - (quotient * (-6.0 / 7.0)).fma(error, quotient)


def _tanh_long(reduced: _Reduced, kind: Kind) -> Num:
    high, low = reduced.parts(kind)
    power = power_of_two(reduced.n, kind)
    high, low = high * power, low * power
    total, error = fast_two_sum(high.lift(1.0), high)
    error = error + low
    reciprocal = 1.0 / total
    quotient = high * 2.0 * reciprocal
    remainder = (-quotient).fma(total, high * 2.0) + (-quotient).fma(error, low * 2.0)
    value, rest = fast_two_sum(high.lift(1.0), -quotient)
    return value + (-remainder).fma(reciprocal, rest)


def sinh(x: Num, kind: Kind) -> Num:
    """With m = e^|x| - 1: (m + m / (m + 1)) / 2. Computed for m / 16, so that nothing overflows early; far out the
    quotient is far below the last bit."""
    if kind is WIDE:
        grown = expm1(x.abs(), kind)
        return ((grown + grown / (grown + 1.0)) * 0.5).sign_of(x)
    a = x.abs().at_most(kind.log_overflow + 2.0)
    m, m_error = fast_two_sum(*_expm1_parts(a, 4, kind))
    total, error = two_sum(m, m.lift(0.0625))
    error = error + m_error
    quotient = m / total
    rest = ((-quotient).fma(total, m) + (-quotient).fma(error, m_error)) / total
    far = a > 45.0
    quotient, rest = far.where(0.0, quotient * 0.0625), far.where(0.0, rest * 0.0625)
    value, last = fast_two_sum(m, quotient)
    value = (value + (last + (m_error + rest))) * 8.0
    return (x.abs() < kind.tiny).where(x, value.sign_of(x))


def cosh(x: Num, kind: Kind) -> Num:
    """(e^|x| + e^-|x|) / 2, computed for e^|x| / 16."""
    if kind is WIDE:
        grown = exp(x.abs(), kind)
        return (grown + 1.0 / grown) * 0.5
    reduced = _reduce(x.abs().at_most(kind.log_overflow + 2.0), kind)
    high, low = reduced.parts(kind)
    power = power_of_two(reduced.n - 4, kind)
    high, low = high * power, low * power
    unit = high.lift(2.0 ** -8)
    inverse = unit / high
    rest = ((-inverse).fma(high, unit) - inverse * low) * (inverse * 2.0 ** 8)
    value, last = fast_two_sum(high, inverse)
    return (value + (last + (low + rest))) * 8.0
