"""log and what is made of it: log2, log10, log1p, asinh, acosh, atanh.

Method (as in fdlibm's e_log; Muller, Elementary Functions, ch. 11): x = 2^k m with m between sqrt(1/2) and sqrt(2);
with f = m - 1 and s = f / (2 + f), log(m) = f - (f^2/2 - s (f^2/2 + R(s^2))), where f is exact.

What holds here: the functions are written once for every `Kind`. log(0) is -inf, log of a negative number NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracedsl.hw.cpu.math import coefficients as table
from tracedsl.hw.cpu.math.kinds import WIDE, Kind
from tracedsl.hw.cpu.math.num import Num, fast_two_sum, two_sum

_SQRT_HALF = 0.7071067811865476
_INF = float("inf")
_NAN = float("nan")
_H = float.fromhex

@dataclass(frozen=True)
class _Base:
    """A base b: log_b(e) as a double and the rest of it, and log_b(2), whose first part times an exponent is exact."""

    factor: float
    factor_low: float
    of_two: float
    of_two_low: float


_BINARY = _Base(_H("0x1.71547652b82fep+0"), _H("0x1.777d0ffda0d24p-56"), 1.0, 0.0)
_THIRD = 1.0 / 3.0
_THIRD_LOW = 1.850371707708594e-17   # 1/3 - _THIRD
_DECIMAL = _Base(_H("0x1.bcb7b1526e50ep-2"), _H("0x1.95355baaafad3p-57"),
                 _H("0x1.34413509f6000p-2"), _H("0x1.9fef311f12b36p-42"))


def _split(x: Num, kind: Kind) -> tuple[Num, Num]:
    """k (an integer) and m for a positive normal x."""
    bits = x.bits()
    k = (bits - x.lift(_SQRT_HALF).bits()) >> kind.mantissa
    return k, (bits - (k << kind.mantissa)).floats()


def _split_any(x: Num, kind: Kind) -> tuple[Num, Num]:
    """The same for subnormal numbers too."""
    up = kind.mantissa + 2
    subnormal = x < kind.min_normal
    k, m = _split(subnormal.where(x * 2.0 ** up, x), kind)
    return k - subnormal.where(k.lift(up), k.lift(0)), m


def _log1p_rest(f: Num, kind: Kind) -> Num:
    """f - log(1 + f) for f between sqrt(1/2) - 1 and sqrt(2) - 1."""
    s = f / (f + 2.0)
    square = s * s
    half = f * f * 0.5
    series = square * square.polynomial(kind.log)
    return (-s).fma(half + series, half)


def _specials(x: Num, value: Num) -> Num:
    """log at the edges of its domain."""
    value = (x < _INF).where(value, x)  # inf and NaN are their own logarithms
    value = x.equals(0.0).where(-_INF, value)
    return (x < 0.0).where(_NAN, value)


def log(x: Num, kind: Kind) -> Num:
    k, m = _split_any(x, kind)
    f = m - 1.0
    exponent = k.from_int(kind.elem)
    total, error = fast_two_sum(exponent * kind.ln2_high, f)
    return _specials(x, total + (exponent.fma(kind.ln2_low, error) - _log1p_rest(f, kind)))


def log_parts(x: Num, kind: Kind) -> tuple[Num, Num]:
    """log(x) with about 12 bits more than the format has, as a value and a small summand: with s = f / (2 + f),
    log(1 + f) = 2s + 2s (s^2/3 + s^4 R(s^2)), where s and s^2/3 keep their errors."""
    k, m = _split_any(x, kind)
    f = m - 1.0
    below, below_low = fast_two_sum(f.lift(2.0), f)
    inverse = 1.0 / below
    s = f * inverse
    s_low = ((-s).fma(below, f) - s * below_low) * inverse
    square = s * s
    square_low = s.fma(s, -square) + s * s_low * 2.0
    third = square * _THIRD
    w, w_low = fast_two_sum(third, square * square * square.polynomial(table.LOG_HIGH))
    w_low = w_low + (square.fma(_THIRD, -third) + square.fma(_THIRD_LOW, square_low * _THIRD))
    twice = s * 2.0
    part = twice * w
    twice_low = s_low * 2.0
    low = twice.fma(w, -part) + twice.fma(w_low, twice_low.fma(w, twice_low))
    exponent = k.from_int(kind.elem)
    total, error = fast_two_sum(exponent * kind.ln2_high, twice)
    total, more = fast_two_sum(total, part)
    high, low = fast_two_sum(total, more + (error + exponent.fma(kind.ln2_low, low)))
    return _specials(x, high), low


def _log_base(x: Num, kind: Kind, base: _Base) -> Num:
    """k log(2) + log(m) in another base; the product with the base's constant keeps its error."""
    k, m = _split(x, kind) if kind is WIDE else _split_any(x, kind)  # a float is no subnormal double
    f = m - 1.0
    if kind is WIDE:
        part = (f - _log1p_rest(f, kind)) * base.factor
        return _specials(x, k.from_int(kind.elem).fma(base.of_two, part))
    high, low = fast_two_sum(f, -_log1p_rest(f, kind))
    product = high * base.factor
    error = high.fma(base.factor, -product) + high.fma(base.factor_low, low * base.factor)
    exponent = k.from_int(kind.elem)
    total, last = fast_two_sum(exponent * base.of_two, product)
    return _specials(x, total + (last + exponent.fma(base.of_two_low, error)))


def log2(x: Num, kind: Kind) -> Num:
    return _log_base(x, kind, _BINARY)


def log10(x: Num, kind: Kind) -> Num:
    return _log_base(x, kind, _DECIMAL)


def _log_sum(high: Num, low: Num, doublings: Num, kind: Kind) -> Num:
    """log((high + low) 2^doublings) for a positive normal `high` and a small `low`, whose effect on the logarithm,
    low / high, is added to the small terms."""
    k, m = _split(high, kind)
    f = m - 1.0
    near = (k > kind.bias - 30).where(k.lift(kind.bias - 30), k)
    low = low * ((-near + kind.bias) << kind.mantissa).floats() / m
    exponent = (k + doublings).from_int(kind.elem)
    total, error = fast_two_sum(exponent * kind.ln2_high, f)
    return total + (exponent.fma(kind.ln2_low, error) + (low - _log1p_rest(f, kind)))


def _log1p_sum(high: Num, low: Num, kind: Kind) -> Num:
    """log(1 + high + low) for high + low > -1."""
    total, error = two_sum(high.lift(1.0), high)
    return _log_sum(total, error + low, _no(high), kind)


def _no(x: Num) -> Num:
    """Integer zeros as wide as x."""
    bits = x.bits()
    return bits.lift(0)


def log1p(x: Num, kind: Kind) -> Num:
    value = _log1p_sum(x, x.lift(0.0), kind)
    value = (x < _INF).where(value, x)
    value = x.equals(-1.0).where(-_INF, value)
    value = (x < -1.0).where(_NAN, value)
    return (x.abs() < kind.tiny).where(x, value)


def asinh(x: Num, kind: Kind) -> Num:
    """log1p(a + a^2 / (1 + sqrt(1 + a^2))), a = |x|; far out log(2a)."""
    a = x.abs()
    far = a > kind.far
    b = far.where(1.0, a)
    square = b * b
    below = (square + 1.0).sqrt() + 1.0
    quotient = square / below
    missing = ((-quotient).fma(below, square) + b.fma(b, -square)) / below
    value, rest = fast_two_sum(b, quotient)
    total, error = two_sum(value.lift(1.0), value)
    bits = _no(x)
    value = _log_sum(far.where(a, total), far.where(0.0, error + (rest + missing)), far.where(bits.lift(1), bits), kind)
    value = (a < kind.tiny ** 0.5).where(a, value)
    return (a < _INF).where(value, a).sign_of(x)


def acosh(x: Num, kind: Kind) -> Num:
    """log1p(t + sqrt(t (t + 2))), t = x - 1, with the error of the root; far out log(2x)."""
    far = x > kind.far
    t, t_error = two_sum(far.where(1.0, x), x.lift(-1.0))
    t = (t < 0.0).where(0.0, t)
    second, second_error = two_sum(t, t.lift(2.0))
    product = t * second
    product_error = t.fma(second, -product) + t * second_error
    root = product.sqrt()
    safe = product.equals(0.0).where(1.0, root)
    root_error = ((-root).fma(root, product) + product_error) / (safe * 2.0)
    total, error = two_sum(t, root)
    total, more = two_sum(total.lift(1.0), total)
    bits = _no(x)
    value = _log_sum(far.where(x, total), far.where(0.0, more + (error + (root_error + t_error))),
                     far.where(bits.lift(1), bits), kind)
    value = (x < _INF).where(value, x)
    return (x < 1.0).where(_NAN, value)


def atanh(x: Num, kind: Kind) -> Num:
    """log1p(2a / (1 - a)) / 2, a = |x|, with the error of the quotient."""
    a = x.abs()
    b = (a < 1.0).where(a, a.lift(0.5))
    below, error = fast_two_sum(a.lift(1.0), -b)
    twice = b * 2.0
    quotient = twice / below
    rest = ((-quotient).fma(below, twice) - quotient * error) / below
    value = _log1p_sum(quotient, rest, kind) * 0.5
    value = (a < kind.tiny ** 0.5).where(a, value)
    value = a.equals(1.0).where(_INF, value).sign_of(x)
    return (a <= 1.0).where(value, x.lift(_NAN))
