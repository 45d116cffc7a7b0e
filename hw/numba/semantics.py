"""Scalar operations that Numba does not do as NumPy does: plain functions, for Numba to compile.

What holds here: each function works on Numba's numbers and on NumPy's scalars alike, so that generated source also runs
without Numba. Integers may come back wider than they came; whoever calls narrows them (`np.int32(...)`). float16 does
not exist in Numba on CPUs: memory holds its bits as uint16, and a value is a float32 that float16 can hold.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# -- integers ---------------------------------------------------------------------------------------------------------


def floordiv(a: Any, b: Any) -> Any:
    """a // b; 0 for b == 0; the smallest integer // -1 wraps around."""
    if b == 0:
        return b
    return -a if b == -1 else a // b


def mod(a: Any, b: Any) -> Any:
    """a % b with the sign of b; 0 for b == 0."""
    if b == 0 or b == -1:
        return b - b
    return a % b


def remainder(a: Any, b: Any) -> Any:
    """What the division towards zero leaves, with the sign of a; 0 for b == 0."""
    if b == 0 or b == -1:
        return b - b
    rest = a % b
    return rest - b if rest != 0 and (rest < 0) != (a < 0) else rest


def unsigned_floordiv(a: Any, b: Any) -> Any:
    """a // b; 0 for b == 0."""
    return b if b == 0 else a // b


def unsigned_mod(a: Any, b: Any) -> Any:
    """a % b; 0 for b == 0."""
    return b if b == 0 else a % b


def power(a: Any, exponent: Any) -> Any:
    """a ** exponent for int64, by squaring, wrapping around; exponents are not negative."""
    result = np.int64(1)
    for _ in range(64):
        if exponent & np.int64(1):
            result = result * a
        a = a * a
        exponent = exponent >> np.int64(1)
    return result


def unsigned_power(a: Any, exponent: Any) -> Any:
    """The same for uint64."""
    result = np.uint64(1)
    for _ in range(64):
        if exponent & np.uint64(1):
            result = result * a
        a = a * a
        exponent = exponent >> np.uint64(1)
    return result


def shift_left(a: Any, count: Any, bits: Any) -> Any:
    """a << count; 0 if the count is negative or too long for `bits` bits."""
    return a << count if 0 <= count < bits else a - a


def shift_right(a: Any, count: Any, bits: Any) -> Any:
    """a >> count; a count that is negative or too long leaves the sign alone: 0 or -1."""
    if 0 <= count < bits:
        return a >> count
    return ~(a - a) if a < 0 else a - a


def unsigned_shift_right(a: Any, count: Any, bits: Any) -> Any:
    """a >> count; 0 if the count is too long."""
    return a >> count if count < bits else a - a


# -- floats -----------------------------------------------------------------------------------------------------------


def float_sign(a: Any) -> Any:
    """-1, 0 or 1 as float64; NaN stays; -0 becomes 0."""
    return 1.0 if a > 0 else -1.0 if a < 0 else 0.0 if a == 0 else math.nan


def float_mod(a: Any, b: Any) -> Any:
    """Python's remainder, as NumPy's `npy_divmod`: the sign is that of the divisor; a divisor of zero gives fmod's."""
    rest = np.fmod(a, b)
    if b == 0:
        return rest
    if rest != 0:
        return rest + b if (b < 0) != (rest < 0) else rest
    return np.copysign(rest, b)


def float_floordiv(a: Any, b: Any) -> Any:
    """As NumPy's `npy_divmod`: the quotient is made integral by subtracting the remainder first; x // 0 is x / 0."""
    plain = a / b
    if b == 0:
        return plain
    rest = np.fmod(a, b)
    quotient = (a - rest) / b
    if rest != 0 and (b < 0) != (rest < 0):
        quotient = quotient - 1
    if quotient == 0:
        return np.copysign(quotient, plain)
    floor = np.floor(quotient)
    return floor + 1 if quotient - floor > 0.5 else floor


def float_power(a: Any, b: Any) -> Any:
    """a ** b as C does it, as float64: NumPy's scalars take the root for b == 0.5."""
    return math.inf if b == 0.5 and a == -math.inf else np.power(a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger one; NaN if either is."""
    if a != a:
        return a
    return a if a > b else b


def minimum(a: Any, b: Any) -> Any:
    """The smaller one; NaN if either is."""
    if a != a:
        return a
    return a if a < b else b


def fmax(a: Any, b: Any) -> Any:
    """The larger one; the other one if one is NaN."""
    if a != a:
        return b
    return b if b > a else a


def fmin(a: Any, b: Any) -> Any:
    """The smaller one; the other one if one is NaN."""
    if a != a:
        return b
    return b if b < a else a


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), in float64."""
    wide = np.float64(x)
    return math.exp(wide) if wide < -40.0 else 1.0 / (1.0 + math.exp(-wide))


# -- conversions ------------------------------------------------------------------------------------------------------


def to_int32(x: Any) -> Any:
    """Towards zero; the smallest integer where the result does not fit or is no number, as x86 does."""
    return np.int32(x) if -2147483649.0 < x < 2147483648.0 else np.int32(-2147483648)


def to_int64(x: Any) -> Any:
    """Towards zero; the smallest integer where the result does not fit or is no number, as x86 does."""
    return np.int64(x) if -9223372036854775808.0 <= x < 9223372036854775808.0 else np.int64(-9223372036854775808)


def to_uint64(x: Any) -> Any:
    """Below 2**63 as signed; from there on 2**63 less, with the top bit flipped."""
    if x >= 9223372036854775808.0:
        return np.uint64(to_int64(x - 9223372036854775808.0)) ^ np.uint64(9223372036854775808)
    return np.uint64(to_int64(x))


def half_bits(x: Any) -> Any:
    """The bits of x (float64) as float16, rounded once to nearest even."""
    sign = np.uint16(32768) if np.signbit(x) else np.uint16(0)
    size = abs(x)
    if size != size:
        return np.uint16(sign | np.uint16(32256))
    if size >= 65520.0:
        return np.uint16(sign | np.uint16(31744))
    if size < 6.103515625e-05:
        return np.uint16(sign | np.uint16(np.rint(size * 16777216.0)))
    part, exponent = math.frexp(size)
    digits = np.int64(np.rint(part * 2048.0)) - 1024        # 1024 more is a carry into the exponent, as it should be
    return np.uint16(sign | np.uint16(((exponent + 14) << 10) + digits))


def half_value(bits: Any) -> Any:
    """The float16 with these bits, as float32."""
    exponent, digits = (np.int64(bits) >> 10) & 31, np.int64(bits) & 1023
    if exponent == 31:
        size = math.inf if digits == 0 else math.nan
    elif exponent == 0:
        size = digits * 5.9604644775390625e-08
    else:
        size = np.ldexp(1024.0 + digits, exponent - 25)
    return np.float32(-size if bits & 32768 else size)


def half(x: Any) -> Any:
    """x rounded to float16, as float32."""
    return half_value(half_bits(np.float64(x)))
