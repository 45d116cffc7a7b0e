"""exp and what is made of it: exp2, expm1, sigmoid, tanh, sinh, cosh.

Method (Tang, ACM TOMS 15, 1989; Muller, Elementary Functions, ch. 11): x = n ln 2 + r with |r| <= ln(2)/2, then a
polynomial for e^r, then 2^n. Where one rounding too many would cost the last bit, sums are carried as a value and its
error.

What holds here: the functions are written once for every `Kind`. NaN gives NaN, overflow inf, underflow rounds once
into the subnormals; odd functions keep the sign of zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracedsl.hw.cpu.math.kinds import WIDE, Kind
from tracedsl.hw.cpu.math.num import Num, fast_two_sum, two_sum
from tracedsl.hw.cpu.math.pieces import odd_by_pieces

_LOG2_E = 1.4426950408889634
_LN2 = 0.6931471805599453


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


@dataclass(frozen=True)
class Power:
    """e^x = (high + low) 2^floor(n): `high` is one of 16 powers of two between 1 and 2, |low| < high / 40."""

    high: Num
    low: Num
    n: Num

    def value(self) -> Num:
        return (self.high + self.low).times_power(self.n)


def power_of(x: Num, kind: Kind, rest: Num | None = None) -> Power:
    """e^(x + rest), where |rest| is about the last bit of x: x = k ln(2)/16 + r, 2^(k/16) from a table."""
    first, second, _ = kind.exp_step
    shifted = x.fma(16.0 * _LOG2_E, kind.magic)
    k = shifted - kind.magic
    r = k.fma(-second, k.fma(-first, x))
    return _table_power(r, rest, shifted.bits(), k, kind)


def _table_power(r: Num, rest: Num | None, index: Num, k: Num, kind: Kind) -> Power:
    """2^(k/16) e^(r + rest)."""
    tail = r * r
    series = r.polynomial(kind.exp_short)
    grown = tail.fma(series, r) if rest is None else r + tail.fma(series, rest.fma(r, rest))
    high, low = (index.look_up(row) for row in kind.exp_table)
    return Power(high, high * grown if kind is WIDE else high.fma(grown, low), k * 0.0625)


def exp(x: Num, kind: Kind) -> Num:
    return power_of(x.at_most(kind.log_overflow).at_least(kind.log_zero), kind).value()


def exp2(x: Num, kind: Kind) -> Num:
    x = x.at_most(2.0 * kind.bias).at_least(-2.0 * kind.bias)
    shifted = x.fma(16.0, kind.magic)
    k = shifted - kind.magic
    r = k.fma(-0.0625, x) * _LN2
    return _table_power(r, None, shifted.bits(), k, kind).value()


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
    power = power_of((-x.abs()).at_least(kind.log_zero), kind)
    high, low = fast_two_sum(power.high, power.low)
    negative = x < 0.0
    one = high.lift(1.0)
    # the denominator 1 + 2^n (high + low) as a value and its error; the numerator still without its 2^n
    n = power.n.at_least(1.0 - kind.bias)  # less adds nothing to 1
    total, error = fast_two_sum(one, high.times_power(n))
    error = error + low.times_power(n)
    top, rest = negative.where(high, one), negative.where(low, one.lift(0.0))
    reciprocal = 1.0 / total
    quotient = top * reciprocal
    remainder = (-quotient).fma(total, top) + (-quotient).fma(error, rest)
    return remainder.fma(reciprocal, quotient).times_power(negative.where(power.n, power.n.lift(0.0)))


def tanh(x: Num, kind: Kind) -> Num:
    """By pieces; else a polynomial near zero and 1 - 2e / (1 + e) with e = e^(-2|x|)."""
    if kind.tanh_pieces is not None:
        return odd_by_pieces(x, kind.tanh_pieces, kind)
    magnitude = x.abs()
    square = x * x
    small = (x * square).fma(square.polynomial(kind.tanh), x)
    large = _tanh_far(power_of(magnitude.at_most(kind.tanh_one) * -2.0, kind))
    return (magnitude > kind.tanh_from).where(large, small.abs()).sign_of(x)


def _tanh_far(power: Power) -> Num:
    high, low = fast_two_sum(power.high.times_power(power.n), power.low.times_power(power.n))
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
