"""Conversions between dtypes as LLVM instructions: what C does, and what NumPy's `astype` gives where C leaves it open.

What holds here: no result is poison. A float that does not fit an integer type gives what x86 compilers make of it (and
so NumPy on x86), on every machine: the conversion goes through a 32- or 64-bit signed integer, whose "does not fit" is
its smallest value. Each float conversion rounds once, to nearest even.
"""

from __future__ import annotations

from tracedsl.hw.cpu.codegen_scalar import value_type
from tracedsl.hw.cpu.emitter import FunctionEmitter, Value, constant
from tracedsl.hw.cpu.irtypes import BITS, like
from tracedsl.hw.cpu.soft import from_half, to_half
from tracedsl.ir.dtypes import BYTES, is_float, is_integer, is_signed


def convert(f: FunctionEmitter, value: Value, source: str, target: str) -> Value:
    """`value` of dtype `source` as dtype `target`, in every lane."""
    if source == target:
        return value
    if target == "bool":
        return _to_bool(f, value, source)
    if source == "bool":
        type_ = like(value.type, value_type(target))
        return f.select(value, constant(type_, 1), constant(type_, 0))
    if is_integer(source) and is_integer(target):
        return _resize(f, value, source, target)
    if is_integer(source):
        return _int_to_float(f, value, source, target)
    if is_integer(target):
        return _float_to_int(f, value, source, target)
    return _float_to_float(f, value, source, target)


def _to_bool(f: FunctionEmitter, value: Value, source: str) -> Value:
    if is_float(source):
        wide = from_half(f, value) if source == "float16" else value
        return f.fcmp("une", wide, constant(wide.type, 0))
    return f.icmp("ne", value, constant(value.type, 0))


def _resize(f: FunctionEmitter, value: Value, source: str, target: str) -> Value:
    to = value_type(target)
    if BYTES[target] <= BYTES[source]:
        return f.trunc(value, to)
    return f.sext(value, to) if is_signed(source) else f.zext(value, to)


def _int_to_float(f: FunctionEmitter, value: Value, source: str, target: str) -> Value:
    to = "float" if target == "float16" else value_type(target)
    result = f.sitofp(value, to) if is_signed(source) else f.uitofp(value, to)
    return to_half(f, result) if target == "float16" else result


def _float_to_float(f: FunctionEmitter, value: Value, source: str, target: str) -> Value:
    if source == "float64" and target == "float16":
        return to_half(f, _round_to_odd(f, value))
    if source == "float16":
        return f.fpext(from_half(f, value), value_type(target))
    if target == "float16":
        return to_half(f, value)
    to = value_type(target)
    return f.fptrunc(value, to) if BYTES[target] < BYTES[source] else f.fpext(value, to)


def _round_to_odd(f: FunctionEmitter, value: Value) -> Value:
    """float64 to float32 such that rounding on to float16 is as if rounded once: inexact results are cut off and get
    an odd last bit (S. Boldo, G. Melquiond: Emulation of FMA and correctly rounded sums: proved algorithms using
    rounding to odd, 2008)."""
    near = f.fptrunc(value, "float")
    back = f.fpext(near, "double")
    bits = f.bitcast(near, like(value.type, "i32"))
    too_far = f.fcmp("ogt", f.fabs(back), f.fabs(value))
    cut = f.sub(bits, f.zext(too_far, "i32"))
    odd = f.or_(cut, f.zext(f.fcmp("one", back, value), "i32"))
    return f.bitcast(odd, near.type)


def _float_to_int(f: FunctionEmitter, value: Value, source: str, target: str) -> Value:
    if source == "float16":
        value = from_half(f, value)
    if target == "uint64":
        return _float_to_uint64(f, value)
    middle = "i64" if target in ("int64", "uint32") else "i32"
    return f.trunc(_float_to_signed(f, value, middle), value_type(target))


def _float_to_signed(f: FunctionEmitter, value: Value, to: str) -> Value:
    """Towards zero; the smallest integer where the result does not fit or is no number."""
    bits = BITS[to]
    type_ = like(value.type, to)
    limit = float(1 << (bits - 1))
    # float64 holds the fractions below -2**31 that still truncate to -2**31; for the others the bound is exact
    above = (f.fcmp("ogt", value, constant(value.type, -limit - 1)) if bits == 32 and "double" in value.type
             else f.fcmp("oge", value, constant(value.type, -limit)))
    fits = f.and_(above, f.fcmp("olt", value, constant(value.type, limit)))
    safe = f.select(fits, value, constant(value.type, 0))
    return f.select(fits, f.fptosi(safe, to), constant(type_, -(1 << (bits - 1))))


def _float_to_uint64(f: FunctionEmitter, value: Value) -> Value:
    """Below 2**63 as signed; from there on 2**63 less, with the top bit flipped."""
    half = constant(value.type, float(1 << 63))
    high = f.fcmp("oge", value, half)
    signed = _float_to_signed(f, f.select(high, f.fsub(value, half), value), "i64")
    top = constant(signed.type, 1 << 63)
    return f.select(high, f.xor(signed, top), signed)
