"""What some CPUs lack, from what all have: fused multiply-add, and conversions of float16.

What holds here: no branches, so it may stand in any block. Each function takes the machine's own instruction where
there is one (the module does not lack it), and gives the same bits without. One exception: float64's `fma` rounds twice
where the product is near the ends of the range (below 2**-900, above 2**995).
"""

from __future__ import annotations

from tracedsl.hw.cpu.emitter import FunctionEmitter, Param, Value, constant
from tracedsl.hw.cpu.irtypes import element, like, mangle

_SPLIT = float((1 << 27) + 1)       # halves of a float64 (T. Dekker: A floating-point technique, 1971)
_LOW, _HIGH = 2.0 ** -900, 2.0 ** 995


def fma(f: FunctionEmitter, a: Value, b: Value, c: Value) -> Value:
    """a * b + c, rounded once."""
    if "fma" not in f.module.lacks:
        return f.fma(a, b, c)
    name = f"fma.{mangle(a.type)}"
    if not f.module.defines(name):      # a function of its own: it is long, and used a lot
        g = f.module.function(name, a.type, [Param(n, a.type) for n in "abc"], linkage="internal",
                              attributes=f.module.attributes)
        g.ret((_fma_narrow if element(a.type) == "float" else _fma_wide)(g, *g.params))
    return f.call(name, a.type, (a, b, c))


def _fma_narrow(f: FunctionEmitter, a: Value, b: Value, c: Value) -> Value:
    """In float64, where the product is exact; the sum is rounded to odd, so that the last rounding is the only one
    (S. Boldo, G. Melquiond: Emulation of FMA and correctly rounded sums, 2008)."""
    product, addend = f.fmul(f.fpext(a, "double"), f.fpext(b, "double")), f.fpext(c, "double")
    return f.fptrunc(_sum_to_odd(f, product, addend), "float")


def _fma_wide(f: FunctionEmitter, a: Value, b: Value, c: Value) -> Value:
    """The same paper's algorithm 5: exact product, exact sum, and the small parts rounded to odd."""
    product = f.fmul(a, b)
    rest = _product_error(f, a, b, product)
    t_high, t_low = _two_sum(f, c, rest)
    v_high, v_low = _two_sum(f, product, t_high)
    result = f.fadd(v_high, _sum_to_odd(f, t_low, v_low))
    plain = f.fadd(product, c)
    size = f.fabs(product)
    safe = f.and_(f.fcmp("oge", size, constant(a.type, _LOW)), f.fcmp("ole", size, constant(a.type, _HIGH)))
    for x in (a, b, c):
        safe = f.and_(safe, f.fcmp("ole", f.fabs(x), constant(a.type, _HIGH)))
    return f.select(safe, result, plain)


def _two_sum(f: FunctionEmitter, a: Value, b: Value) -> tuple[Value, Value]:
    """The sum and what its rounding lost (D. Knuth: The Art of Computer Programming, 4.2.2)."""
    total = f.fadd(a, b)
    second = f.fsub(total, a)
    return total, f.fadd(f.fsub(a, f.fsub(total, second)), f.fsub(b, second))


def _product_error(f: FunctionEmitter, a: Value, b: Value, product: Value) -> Value:
    def halves(x: Value) -> tuple[Value, Value]:
        scaled = f.fmul(x, constant(x.type, _SPLIT))
        high = f.fsub(scaled, f.fsub(scaled, x))
        return high, f.fsub(x, high)

    (a1, a2), (b1, b2) = halves(a), halves(b)
    error = f.fsub(f.fmul(a1, b1), product)
    error = f.fadd(f.fadd(error, f.fmul(a1, b2)), f.fmul(a2, b1))
    return f.fadd(error, f.fmul(a2, b2))


def _sum_to_odd(f: FunctionEmitter, a: Value, b: Value) -> Value:
    """a + b in float64: what is inexact is cut off and gets an odd last bit."""
    total, error = _two_sum(f, a, b)
    bits = f.bitcast(total, like(total.type, "i64"))
    one, zero = constant(bits.type, 1), constant(bits.type, 0)
    even = f.icmp("eq", f.and_(bits, one), zero)
    inexact = f.fcmp("one", error, constant(error.type, 0))     # false for a NaN
    outwards = f.icmp("sge", f.xor(bits, f.bitcast(error, bits.type)), zero)      # the same sign
    step = f.select(outwards, one, constant(bits.type, -1))
    return f.bitcast(f.select(f.and_(even, inexact), f.add(bits, step), bits), total.type)


def from_half(f: FunctionEmitter, value: Value) -> Value:
    """float16 as float32."""
    if "half" not in f.module.lacks:
        return f.fpext(value, "float")
    bits = f.zext(f.bitcast(value, like(value.type, "i16")), "i32")
    type_ = bits.type

    def number(of: int) -> Value:
        return constant(type_, of)

    size = f.shl(f.and_(bits, number(0x7FFF)), number(13))
    finite = f.fmul(f.bitcast(size, like(type_, "float")), constant(like(type_, "float"), 2.0 ** 112))
    special = f.icmp("uge", size, number(0x7C00 << 13))
    magnitude = f.select(special, f.or_(size, number(0xFF << 23)), f.bitcast(finite, type_))
    sign = f.shl(f.and_(bits, number(0x8000)), number(16))
    return f.bitcast(f.or_(magnitude, sign), like(type_, "float"))


def to_half(f: FunctionEmitter, value: Value) -> Value:
    """float32 as float16, rounded to nearest even."""
    if "half" not in f.module.lacks:
        return f.fptrunc(value, "half")
    bits = f.bitcast(value, like(value.type, "i32"))
    type_ = bits.type

    def number(of: int) -> Value:
        return constant(type_, of)

    size = f.and_(bits, number(0x7FFFFFFF))
    # subnormal: adding 1/2, whose last bit is worth 2**-24, rounds as float16 would
    shifted = f.fadd(f.bitcast(size, value.type), constant(value.type, 0.5))
    small = f.sub(f.bitcast(shifted, type_), number(0x3F000000))
    odd = f.and_(f.lshr(size, number(13)), number(1))
    usual = f.lshr(f.add(f.add(size, number(0xFFF - (112 << 23))), odd), number(13))
    nan = f.or_(number(0x7E00), f.and_(f.lshr(size, number(13)), number(0x3FF)))
    result = f.select(f.icmp("ult", size, number(0x38800000)), small, usual)
    result = f.select(f.icmp("uge", size, number(0x477FF000)), number(0x7C00), result)
    result = f.select(f.icmp("ugt", size, number(0x7F800000)), nan, result)
    sign = f.and_(f.lshr(bits, number(16)), number(0x8000))
    return f.bitcast(f.trunc(f.or_(result, sign), "i16"), like(type_, "half"))
