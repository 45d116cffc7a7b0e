"""Scalar operations as LLVM instructions, with NumPy's semantics in every lane.

What holds here:
- `scalar(f, op, dtype, args)` lowers each operation of `SCALAR_OPS`; all operands have the same number of lanes. It
  emits straight-line code without branches, so it may stand in any block.
- Nothing traps and nothing is poison for any operand: divisors of zero, INT_MIN // -1 and long shifts are steered
  around. Integers wrap around.
- Single basic operations are bit-equal to NumPy (the payload of a NaN and the sign of a zero that `maximum` and its
  kin return are not defined by NumPy either). float16 is computed in float32 and rounded after each operation.
- Values of dtype bool are i1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from tracedsl.hw.cpu.codegen_error import malformed
from tracedsl.hw.cpu.emitter import FunctionEmitter, Value, constant
from tracedsl.hw.cpu.irtypes import BITS, OF_DTYPE, element, lanes, like
from tracedsl.hw.cpu.soft import from_half, to_half
from tracedsl.ir.dtypes import is_float, is_signed, is_unsigned
from tracedsl.ir.expr import SCALAR_OPS

Rule = Callable[..., Value]  # (f, *operands) -> result


def value_type(dtype: str) -> str:
    """The type of one value of this dtype ("i1" for bool, which takes a byte in memory)."""
    return "i1" if dtype == "bool" else OF_DTYPE[dtype]


def scalar(f: FunctionEmitter, op: str, dtype: str, args: Sequence[Value]) -> Value:
    """`op` of operands of `dtype` (for "select": the dtype of the values to choose from).

    Raises TracedslError (H020) for an operation that NumPy does not define for the dtype.
    """
    if op == "select":
        return f.select(*args)
    if dtype == "float16":
        result = scalar(f, op, "float32", [from_half(f, a) for a in args])
        return result if SCALAR_OPS[op][1] == "bool" else to_half(f, result)
    if is_float(dtype) and op in _FUNCTIONS:
        from tracedsl.hw.cpu.math import emit  # loaded by kernels that need it: a first call does not wait for it

        return emit(f, op, tuple(args))
    rule = _rules(dtype).get(op)
    if rule is None:
        raise malformed(f"{op} is not defined for {dtype}")
    return rule(f, *args)


def _rules(dtype: str) -> dict[str, Rule]:
    if is_float(dtype):
        return _FLOAT
    if is_signed(dtype):
        return _SIGNED
    return _UNSIGNED if is_unsigned(dtype) else _BOOL


def _one(a: Value) -> Value:
    return constant(a.type, 1)


def _zero(a: Value) -> Value:
    return constant(a.type, 0)


def _same(_f: FunctionEmitter, a: Value) -> Value:
    return a


def _icmp(predicate: str) -> Rule:
    return lambda f, a, b: f.icmp(predicate, a, b)


def _fcmp(predicate: str) -> Rule:
    return lambda f, a, b: f.fcmp(predicate, a, b)


def _intrinsic(name: str) -> Rule:
    return lambda f, *args: f.intrinsic(name, args)


def _always(answer: bool) -> Rule:
    return lambda f, a: constant(like(a.type, "i1"), answer)


# -- floating point -------------------------------------------------------------------------------------------------


def _maximum(predicate: str) -> Rule:
    """NaN if either operand is: the comparison gives `b` if one is NaN, so only a NaN in `a` needs care."""
    def rule(f: FunctionEmitter, a: Value, b: Value) -> Value:
        return f.select(f.fcmp("uno", a, a), a, f.select(f.fcmp(predicate, a, b), a, b))
    return rule


def _fmax(predicate: str) -> Rule:
    """The other operand if one is NaN."""
    def rule(f: FunctionEmitter, a: Value, b: Value) -> Value:
        return f.select(f.fcmp("uno", a, a), b, f.select(f.fcmp(predicate, b, a), b, a))
    return rule


def _float_sign(f: FunctionEmitter, a: Value) -> Value:
    """-1, 0 or 1; NaN stays; -0 becomes 0."""
    zero, one = _zero(a), _one(a)
    negative = f.select(f.fcmp("olt", a, zero), constant(a.type, -1), f.select(f.fcmp("oeq", a, zero), zero, a))
    return f.select(f.fcmp("ogt", a, zero), one, negative)


def _float_mod(f: FunctionEmitter, a: Value, b: Value) -> Value:
    """Python's remainder, as `npy_divmod`: the sign is that of the divisor; a divisor of zero gives C's fmod."""
    rest = f.frem(a, b)
    zero = _zero(a)
    signs_differ = f.xor(f.fcmp("olt", b, zero), f.fcmp("olt", rest, zero))
    moved = f.select(signs_differ, f.fadd(rest, b), rest)
    floored = f.select(f.fcmp("une", rest, zero), moved, f.copysign(zero, b))
    return f.select(f.fcmp("oeq", b, zero), rest, floored)


def _float_floordiv(f: FunctionEmitter, a: Value, b: Value) -> Value:
    """As `npy_divmod`: the quotient is made integral by subtracting the remainder first; x // 0 is x / 0."""
    zero, one = _zero(a), _one(a)
    plain, rest = f.fdiv(a, b), f.frem(a, b)
    quotient = f.fdiv(f.fsub(a, rest), b)
    signs_differ = f.xor(f.fcmp("olt", b, zero), f.fcmp("olt", rest, zero))
    one_less = f.and_(f.fcmp("une", rest, zero), signs_differ)
    quotient = f.select(one_less, f.fsub(quotient, one), quotient)
    floor = f.intrinsic("llvm.floor", (quotient,))
    snapped = f.select(f.fcmp("ogt", f.fsub(quotient, floor), constant(a.type, 0.5)), f.fadd(floor, one), floor)
    result = f.select(f.fcmp("une", quotient, zero), snapped, f.copysign(zero, plain))
    return f.select(f.fcmp("oeq", b, zero), plain, result)


def _signbit(f: FunctionEmitter, a: Value) -> Value:
    bits = f.bitcast(a, like(a.type, f"i{BITS[element(a.type)]}"))
    return f.icmp("slt", bits, _zero(bits))


def _isinf(predicate: str) -> Rule:
    return lambda f, a: f.fcmp(predicate, f.fabs(a), constant(a.type, math.inf))


_E = FunctionEmitter
_FLOAT: dict[str, Rule] = {
    "add": _E.fadd, "sub": _E.fsub, "mul": _E.fmul, "div": _E.fdiv, "fmod": _E.frem, "neg": _E.fneg, "abs": _E.fabs,
    "floordiv": _float_floordiv, "mod": _float_mod, "sqrt": _E.sqrt, "copysign": _E.copysign, "sign": _float_sign,
    "floor": _intrinsic("llvm.floor"), "ceil": _intrinsic("llvm.ceil"), "trunc": _intrinsic("llvm.trunc"),
    "rint": _intrinsic("llvm.roundeven"),
    "maximum": _maximum("ogt"), "minimum": _maximum("olt"), "fmax": _fmax("ogt"), "fmin": _fmax("olt"),
    "eq": _fcmp("oeq"), "ne": _fcmp("une"), "lt": _fcmp("olt"), "le": _fcmp("ole"), "gt": _fcmp("ogt"),
    "ge": _fcmp("oge"), "isnan": lambda f, a: f.fcmp("uno", a, a), "isinf": _isinf("oeq"), "isfinite": _isinf("olt"),
    "signbit": _signbit,
}

# What the vector math library lowers, for float32 and float64.
_FUNCTIONS = frozenset((
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
    "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "cbrt", "sigmoid", "pow", "hypot", "atan2"))


# -- integers -------------------------------------------------------------------------------------------------------


def _safe_divisor(f: FunctionEmitter, a: Value, b: Value) -> Value:
    """`b`, or 1 where the division would trap: by zero, and INT_MIN / -1 (whose quotient and remainder by 1 are
    those that wrapping around gives)."""
    lowest = constant(a.type, -1 << (BITS[element(a.type)] - 1))
    overflows = f.and_(f.icmp("eq", a, lowest), f.icmp("eq", b, constant(b.type, -1)))
    return f.select(f.or_(f.icmp("eq", b, _zero(b)), overflows), _one(b), b)


def _through_floats(a: Value, b: Value) -> str | None:
    """The float type in which the quotient of integers is exact after truncation, where that is faster: CPUs divide
    vectors of floats, but not of integers. A quotient that is no integer is at least 1/b away from one, which a
    mantissa of twice the integers' bits tells apart. Constant divisors become multiplications anyhow."""
    bits = BITS[element(a.type)]
    if lanes(a.type) == 1 or bits == 64 or _integer_constant(b) is not None:
        return None
    return "double" if bits == 32 else "float"


def _sdiv(f: FunctionEmitter, a: Value, b: Value, safe: Value) -> Value:
    """a / b towards zero; `safe` is `b` made safe."""
    if (wide := _through_floats(a, b)) is None:
        return f.sdiv(a, safe)
    return f.fptosi(f.fdiv(f.sitofp(a, wide), f.sitofp(safe, wide)), element(a.type))


def _udiv(f: FunctionEmitter, a: Value, b: Value, safe: Value) -> Value:
    if (wide := _through_floats(a, b)) is None:
        return f.udiv(a, safe)
    return f.fptoui(f.fdiv(f.uitofp(a, wide), f.uitofp(safe, wide)), element(a.type))


def _signed_floordiv(f: FunctionEmitter, a: Value, b: Value) -> Value:
    safe = _safe_divisor(f, a, b)
    quotient = _sdiv(f, a, b, safe)
    rest = f.sub(a, f.mul(quotient, safe))
    down = f.and_(f.icmp("ne", rest, _zero(a)), f.icmp("slt", f.xor(rest, safe), _zero(a)))
    floored = f.add(quotient, f.sext(down, element(a.type)))
    return f.select(f.icmp("eq", b, _zero(b)), _zero(a), floored)


def _signed_mod(f: FunctionEmitter, a: Value, b: Value) -> Value:
    rest = _signed_fmod(f, a, b)
    up = f.and_(f.icmp("ne", rest, _zero(a)), f.icmp("slt", f.xor(rest, b), _zero(a)))
    return f.select(up, f.add(rest, b), rest)


def _signed_fmod(f: FunctionEmitter, a: Value, b: Value) -> Value:
    safe = _safe_divisor(f, a, b)
    return f.sub(a, f.mul(_sdiv(f, a, b, safe), safe))


def _unsigned_floordiv(f: FunctionEmitter, a: Value, b: Value) -> Value:
    zero = f.icmp("eq", b, _zero(b))
    return f.select(zero, _zero(a), _udiv(f, a, b, f.select(zero, _one(b), b)))


def _unsigned_mod(f: FunctionEmitter, a: Value, b: Value) -> Value:
    safe = f.select(f.icmp("eq", b, _zero(b)), _one(b), b)
    return f.sub(a, f.mul(_udiv(f, a, b, safe), safe))


def _shl(f: FunctionEmitter, a: Value, count: Value) -> Value:
    fits = f.icmp("ult", count, constant(a.type, BITS[element(a.type)]))
    return f.select(fits, f.shl(a, f.select(fits, count, _zero(a))), _zero(a))


def _signed_shr(f: FunctionEmitter, a: Value, count: Value) -> Value:
    """A count that is too long (a negative one counts as such) leaves the sign alone: 0 or -1."""
    width = BITS[element(a.type)]
    fits = f.icmp("ult", count, constant(a.type, width))
    return f.ashr(a, f.select(fits, count, constant(a.type, width - 1)))


def _unsigned_shr(f: FunctionEmitter, a: Value, count: Value) -> Value:
    fits = f.icmp("ult", count, constant(a.type, BITS[element(a.type)]))
    return f.select(fits, f.lshr(a, f.select(fits, count, _zero(a))), _zero(a))


def _signed_sign(f: FunctionEmitter, a: Value) -> Value:
    above, below = f.icmp("sgt", a, _zero(a)), f.icmp("slt", a, _zero(a))
    return f.sub(f.zext(above, element(a.type)), f.zext(below, element(a.type)))


def _signed_abs(f: FunctionEmitter, a: Value) -> Value:
    return f.select(f.icmp("slt", a, _zero(a)), f.sub(_zero(a), a), a)


def _pow(f: FunctionEmitter, a: Value, exponent: Value) -> Value:
    """By squaring, wrapping around. A constant exponent takes the multiplications that it needs; for others, every
    bit is looked at, without a branch. Exponents are not negative."""
    known = _integer_constant(exponent)
    result, power = _one(a), a
    for bit in range(BITS[element(a.type)] if known is None else known.bit_length()):
        power = power if bit == 0 else f.mul(power, power)
        if known is None:
            is_set = f.icmp("ne", f.and_(exponent, constant(a.type, 1 << bit)), _zero(a))
            result = f.select(is_set, f.mul(result, power), result)
        elif known >> bit & 1:
            result = power if result == _one(a) else f.mul(result, power)
    return result


def _integer_constant(value: Value) -> int | None:
    match = re.fullmatch(r"(?:splat \(i\d+ )?(-?\d+)\)?", value.name)
    return int(match[1]) if match else None


def _pick(predicate: str) -> Rule:
    return lambda f, a, b: f.select(f.icmp(predicate, a, b), a, b)


_INTEGER: dict[str, Rule] = {
    "add": _E.add, "sub": _E.sub, "mul": _E.mul, "and": _E.and_, "or": _E.or_, "xor": _E.xor, "not": _E.not_,
    "neg": lambda f, a: f.sub(_zero(a), a), "shl": _shl, "pow": _pow, "eq": _icmp("eq"), "ne": _icmp("ne"),
    "floor": _same, "ceil": _same, "trunc": _same,
    "isnan": _always(False), "isinf": _always(False), "isfinite": _always(True),
}
_SIGNED: dict[str, Rule] = _INTEGER | {
    "floordiv": _signed_floordiv, "mod": _signed_mod, "fmod": _signed_fmod, "shr": _signed_shr, "sign": _signed_sign,
    "abs": _signed_abs, "maximum": _pick("sgt"), "fmax": _pick("sgt"), "minimum": _pick("slt"), "fmin": _pick("slt"),
    "lt": _icmp("slt"), "le": _icmp("sle"), "gt": _icmp("sgt"), "ge": _icmp("sge"),
    "signbit": lambda f, a: f.icmp("slt", a, _zero(a)),
}
_UNSIGNED: dict[str, Rule] = _INTEGER | {
    "floordiv": _unsigned_floordiv, "mod": _unsigned_mod, "fmod": _unsigned_mod, "shr": _unsigned_shr,
    "sign": lambda f, a: f.zext(f.icmp("ne", a, _zero(a)), element(a.type)), "abs": _same,
    "maximum": _pick("ugt"), "fmax": _pick("ugt"), "minimum": _pick("ult"), "fmin": _pick("ult"),
    "lt": _icmp("ult"), "le": _icmp("ule"), "gt": _icmp("ugt"), "ge": _icmp("uge"), "signbit": _always(False),
}
_BOOL: dict[str, Rule] = {
    **dict.fromkeys(("add", "or", "maximum", "fmax"), _E.or_),
    **dict.fromkeys(("mul", "and", "minimum", "fmin"), _E.and_),
    "xor": _E.xor, "not": _E.not_, "abs": _same, "floor": _same, "ceil": _same, "trunc": _same,
    "eq": _icmp("eq"), "ne": _icmp("ne"), "lt": _icmp("ult"), "le": _icmp("ule"), "gt": _icmp("ugt"),
    "ge": _icmp("uge"), "isnan": _always(False), "isinf": _always(False), "isfinite": _always(True),
    "signbit": _always(False),
}
