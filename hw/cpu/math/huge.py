"""Angles of any size, one at a time: the argument reduction of Payne and Hanek (SIGNUM 18, 1983).

Method: |x| is a whole number of 53 bits times 2^e. Of the bits of 2/pi, those that give whole turns are left out by
starting at bit e - 2; the next 192 are multiplied by the number in integers, which gives the part of a turn with at
least 2^-75 of its value left even for the double that comes nearest to a multiple of pi/2.

What holds here: numbers below 2^9 do not come here. Infinities and NaN give something that the caller's `x - x` makes
NaN. The code stands once in a module, in a function of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from tracedsl.hw.cpu.emitter import FunctionEmitter, Param, Value, constant
from tracedsl.hw.cpu.irtypes import element
from tracedsl.hw.cpu.math import coefficients as table
from tracedsl.hw.cpu.math.kinds import F64
from tracedsl.hw.cpu.math.num import Num

_RARE = '!{!"branch_weights", i32 1, i32 4000}'


def detour(x: Num, far: Num, usual: Num, name: str, formula: Callable[[Num], Num]) -> Num:
    """`usual`, but in the lanes of `far` what `formula` gives for the lane's value as a double. `name` names it."""
    f = x.f
    function = _function(x, name, formula)
    weights = f"!prof {f.module.metadata(_RARE)}"
    value = f.detour(far.any().value, usual.value, lambda: f.call(function, x.type, [x.value, usual.value]), weights)
    return Num(f, value)


def _function(x: Num, name: str, formula: Callable[[Num], Num]) -> str:
    """The function that goes through the lanes: (x, usual) -> value."""
    module, elem, n = x.f.module, element(x.type), x.lanes
    symbol = f"tracedsl.huge.{name}.{elem}.{n}"
    if module.defines(symbol):
        return symbol
    one = _one(x, name, formula)
    f = module.function(symbol, x.type, [Param("x", x.type), Param("usual", x.type)], linkage="internal",
                        attributes=f"noinline cold {module.attributes}")
    given, usual = f.params
    if n == 1:
        f.ret(f.call(one, elem, [given]))
        return symbol
    source, result = f.alloca(elem, n), f.alloca(elem, n)
    f.store(given, source)
    f.store(usual, result)
    before, loop, done = f.here, f.label("lane"), f.label("done")
    f.br(loop)
    f.start(loop)
    lane = f.phi("i64", [(constant("i64", 0), before)])
    value = f.load(f.gep(source, lane.value, elem), elem)
    place = f.gep(result, lane.value, elem)
    old = f.load(place, elem)
    big = f.fcmp("ugt", f.fabs(value), constant(elem, _from(elem)))
    new = f.detour(big, old, lambda: f.call(one, elem, [value]))
    f.store(new, place)
    following = f.add(lane.value, constant("i64", 1))
    lane.add(following, loop)
    f.cond_br(f.icmp("slt", following, constant("i64", n)), loop, done)
    f.start(done)
    f.ret(f.load(result, x.type))
    return symbol


def _from(elem: str) -> float:
    from tracedsl.hw.cpu.math.kinds import F32

    return F32.turns if elem == "float" else F64.turns


def _one(x: Num, name: str, formula: Callable[[Num], Num]) -> str:
    """The function of one number."""
    module, elem = x.f.module, element(x.type)
    symbol = f"tracedsl.huge.{name}.{elem}"
    if not module.defines(symbol):
        f = module.function(symbol, elem, [Param("x", elem)], linkage="internal",
                            attributes=f"noinline cold {module.attributes}")
        given = Num(f, f.params[0])
        wide = given.double()
        value = formula(wide) + (wide - wide)
        f.ret((value.float() if elem == "float" else value).value)
    return symbol


def reduce(x: Num) -> tuple[Num, Num, Num]:
    """Quarter turns, and the rest of the angle as a value and its error, of one double of at least 2^9."""
    f = x.f
    top, low = _part_of_turn(f, x)
    quarter = Num(f, top) + (1 << 61) >> 62
    turn = f.shl(f.zext(f.sub(top, f.shl((quarter).value, constant("i64", 62))), "i128"), constant("i128", 64))
    high, rest = _as_doubles(f, f.or_(turn, f.zext(low, "i128")))
    r = high * F64.half_pi[0]
    r_low = high.fma(F64.half_pi[0], -r) + high.fma(F64.half_pi[1], rest * F64.half_pi[0])
    negative = x < 0.0
    return negative.where(-quarter, quarter), negative.where(-r, r), negative.where(-r_low, r_low)


def _part_of_turn(f: FunctionEmitter, x: Num) -> tuple[Value, Value]:
    """|x| 2/pi modulo 4 as a fraction of 4, in 128 bits."""
    bits = x.abs().bits()
    place = (bits >> F64.mantissa) - (F64.bias + F64.mantissa + 2) + 64
    place = (place < 0).where(0, place)
    place = (place > 64 * 17 - 1).where(64 * 17 - 1, place)   # infinities and NaN
    number = (bits & ((1 << F64.mantissa) - 1)) | (1 << F64.mantissa)
    words = ", ".join(str(constant("i64", word)) for word in table.TWO_OVER_PI)
    base = f.module.global_("tracedsl.two_over_pi", f"[{len(table.TWO_OVER_PI)} x i64]", f"[{words}]", constant=True)
    word, shift = place >> 6, (place & 63).value
    w = [f.load(f.gep(base, (word + at).value, "i64"), "i64") for at in range(4)]
    high, middle, low = (f.intrinsic("llvm.fshl", (a, b, shift)) for a, b in pairwise(w))
    wide = f.zext(number.value, "i128")
    carry = f.lshr(f.mul(wide, f.zext(low, "i128")), constant("i128", 64))
    inner = f.add(f.mul(wide, f.zext(middle, "i128")), carry)
    top = f.add(f.mul(number.value, high), f.trunc(f.lshr(inner, constant("i128", 64)), "i64"))
    return top, f.trunc(inner, "i64")


def _as_doubles(f: FunctionEmitter, fraction: Value) -> tuple[Num, Num]:
    """A signed number of 128 bits, in units of 2^-126, as a double and what it leaves."""
    negative = f.icmp("slt", fraction, constant("i128", 0))
    size = f.select(negative, f.sub(constant("i128", 0), fraction), fraction)
    zeros = f.call("llvm.ctlz.i128", "i128", [size, constant("i1", False)])
    shifted = f.shl(size, zeros)
    first = f.trunc(f.lshr(shifted, constant("i128", 75)), "i64")
    second = f.trunc(f.lshr(f.shl(shifted, constant("i128", 53)), constant("i128", 75)), "i64")
    lead = Num(f, f.trunc(zeros, "i64"))
    scale = ((F64.bias - 51 - lead) << F64.mantissa).floats()
    high = Num(f, f.uitofp(first, "double")) * scale
    rest = Num(f, f.uitofp(second, "double")) * scale * 2.0 ** -53
    sign = Num(f, negative)
    return sign.where(-high, high), sign.where(-rest, rest)
