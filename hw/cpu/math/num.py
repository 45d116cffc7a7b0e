"""Arithmetic on emitted values with Python's operators, so that a formula reads as a formula.

What holds here: `Num` wraps a `Value` of any lane count; an operator emits exactly one instruction; numbers become
constants of the same type. Nothing is contracted or reordered: `fma` is written where it is meant. Comparisons of
floats are ordered (false for NaN) and give a `Num` of i1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracedsl.cache import digest
from tracedsl.hw.cpu import soft
from tracedsl.hw.cpu.emitter import FunctionEmitter, Value, constant, constant_vector, undefined
from tracedsl.hw.cpu.irtypes import BITS, element, is_float, lanes, like, vec

_REGISTER = 512  # bits of the vectors that the intrinsics of AVX-512 take
_WHOLE = (_REGISTER, 2 * _REGISTER, 4 * _REGISTER, 8 * _REGISTER)


@dataclass(frozen=True, eq=False)
class Num:
    f: FunctionEmitter
    value: Value

    @property
    def type(self) -> str:
        return self.value.type

    @property
    def elem(self) -> str:
        return element(self.type)

    def lift(self, other: Num | float | int) -> Num:
        """A number as a constant of this type."""
        return other if isinstance(other, Num) else Num(self.f, constant(self.type, other))

    def _do(self, float_op: str, int_op: str, a: Num, b: Num) -> Num:
        op = float_op if is_float(a.type) else int_op
        return Num(self.f, self.f._binary(op, a.value, b.value))

    def __add__(self, other: Num | float) -> Num:
        return self._do("fadd", "add", self, self.lift(other))

    def __radd__(self, other: float) -> Num:
        return self._do("fadd", "add", self.lift(other), self)

    def __sub__(self, other: Num | float) -> Num:
        return self._do("fsub", "sub", self, self.lift(other))

    def __rsub__(self, other: float) -> Num:
        return self._do("fsub", "sub", self.lift(other), self)

    def __mul__(self, other: Num | float) -> Num:
        return self._do("fmul", "mul", self, self.lift(other))

    def __rmul__(self, other: float) -> Num:
        return self._do("fmul", "mul", self.lift(other), self)

    def __truediv__(self, other: Num | float) -> Num:
        return self._do("fdiv", "sdiv", self, self.lift(other))

    def __rtruediv__(self, other: float) -> Num:
        return self._do("fdiv", "sdiv", self.lift(other), self)

    def __neg__(self) -> Num:
        return Num(self.f, self.f.fneg(self.value)) if is_float(self.type) else self.lift(0) - self

    def fma(self, factor: Num | float, addend: Num | float) -> Num:
        """self * factor + addend, rounded once."""
        return Num(self.f, soft.fma(self.f, self.value, self.lift(factor).value, self.lift(addend).value))

    # -- comparing ------------------------------------------------------------------------------------------------

    def _compare(self, float_predicate: str, int_predicate: str, other: Num | float | int) -> Num:
        b = self.lift(other).value
        if is_float(self.type):
            return Num(self.f, self.f.fcmp(float_predicate, self.value, b))
        return Num(self.f, self.f.icmp(int_predicate, self.value, b))

    def __lt__(self, other: Num | float) -> Num:
        return self._compare("olt", "slt", other)

    def __le__(self, other: Num | float) -> Num:
        return self._compare("ole", "sle", other)

    def __gt__(self, other: Num | float) -> Num:
        return self._compare("ogt", "sgt", other)

    def __ge__(self, other: Num | float) -> Num:
        return self._compare("oge", "sge", other)

    def not_below(self, other: Num) -> Num:
        """Of integers, taken as unsigned."""
        return Num(self.f, self.f.icmp("uge", self.value, other.value))

    def equals(self, other: Num | float) -> Num:
        return self._compare("oeq", "eq", other)

    def is_nan(self) -> Num:
        return self._compare("uno", "eq", self)

    def unless_nan(self, other: Num) -> Num:
        """`other` where it is NaN, else this."""
        return other.is_nan().where(other, self)

    def where(self, then: Num | float, otherwise: Num) -> Num:
        """Of a comparison: `then` where it holds. `otherwise` gives the type."""
        return Num(self.f, self.f.select(self.value, otherwise.lift(then).value, otherwise.value))

    # -- bits -----------------------------------------------------------------------------------------------------

    def __and__(self, other: Num | int) -> Num:
        return Num(self.f, self.f.and_(self.value, self.lift(other).value))

    def __or__(self, other: Num | int) -> Num:
        return Num(self.f, self.f.or_(self.value, self.lift(other).value))

    def __xor__(self, other: Num | int) -> Num:
        return Num(self.f, self.f.xor(self.value, self.lift(other).value))

    def __invert__(self) -> Num:
        return Num(self.f, self.f.not_(self.value))

    def __lshift__(self, count: int) -> Num:
        return Num(self.f, self.f.shl(self.value, self.lift(count).value))

    def __rshift__(self, count: int) -> Num:
        """Arithmetic: the sign is kept."""
        return Num(self.f, self.f.ashr(self.value, self.lift(count).value))

    def bits(self) -> Num:
        """The float's bits as integers."""
        return Num(self.f, self.f.bitcast(self.value, like(self.type, f"i{BITS[element(self.type)]}")))

    def floats(self) -> Num:
        """Bits as floats."""
        return Num(self.f, self.f.bitcast(self.value, like(self.type, {32: "float", 64: "double"}[
            BITS[element(self.type)]])))

    # -- functions ------------------------------------------------------------------------------------------------

    def abs(self) -> Num:
        return Num(self.f, self.f.fabs(self.value))

    def sqrt(self) -> Num:
        return Num(self.f, self.f.sqrt(self.value))

    def sign_of(self, other: Num) -> Num:
        """This magnitude with the sign of `other`."""
        return Num(self.f, self.f.copysign(self.value, other.value))

    def at_most(self, limit: float) -> Num:
        """NaN stays."""
        return (self > limit).where(limit, self)

    def at_least(self, limit: float) -> Num:
        """NaN stays."""
        return (self < limit).where(limit, self)

    def polynomial(self, coefficients: Sequence[float]) -> Num:
        """Horner's scheme; lowest coefficient first."""
        result = self.lift(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            result = result.fma(self, c)
        return result

    def whole(self) -> Num:
        """Rounded to the nearest whole number, ties to even."""
        return Num(self.f, self.f.intrinsic("llvm.roundeven", (self.value,)))

    def times_power(self, n: Num) -> Num:
        """self * 2^floor(n), rounded once; n may go about twice as far as the exponents do."""
        if self._fills_registers("avx512f"):
            return self._by_registers(_scalef, n)
        bits, mantissa, bias = self.bits(), *_LAYOUT[element(self.type)]
        count = n.floor().to_int(element(bits.type))
        half = count >> 1
        return self * ((half + bias) << mantissa).floats() * ((count - half + bias) << mantissa).floats()

    def floor(self) -> Num:
        return Num(self.f, self.f.intrinsic("llvm.floor", (self.value,)))

    def look_up(self, table: Sequence[float]) -> Num:
        """Of integers as wide as the floats: the entry of `table` (8 or 16 of them) at this number modulo its length.

        A table of up to two vector registers is looked up there by AVX-512, else in memory.
        """
        elem = {32: "float", 64: "double"}[BITS[element(self.type)]]
        if self._fills_registers("avx512f") and (elem, len(table)) in _PERMUTE:
            return self._by_registers(lambda index: _permute(index, elem, table))
        f = self.f
        name = f"tracedsl.table.{elem}.{hash_of(table)}"
        entries = ", ".join(str(constant(elem, entry)) for entry in table)
        base = f.module.global_(name, f"[{len(table)} x {elem}]", f"[{entries}]", constant=True)
        at = f.gep(base, (self & (len(table) - 1)).value, elem)
        type_ = like(self.type, elem)
        if self.lanes == 1:
            return Num(f, f.load(at, type_))
        return Num(f, f.gather(at, constant(like(self.type, "i1"), True), constant(type_, 0.0)))

    def any(self) -> Num:
        """Of truth values: whether one holds."""
        if self.lanes == 1:
            return self
        return Num(self.f, self.f.intrinsic("llvm.vector.reduce.or", (self.value,), "i1", (self.type,)))

    def _fills_registers(self, feature: str) -> bool:
        return feature in self.f.module.features and self.lanes * BITS[element(self.type)] in _WHOLE

    def _by_registers(self, emit: Callable[..., Num], *others: Num) -> Num:
        """`emit(self, *others)` for each vector register of values that fill several."""
        n = _REGISTER // BITS[element(self.type)]
        if self.lanes == n:
            return emit(self, *others)
        parts = [emit(*(Num(self.f, self.f.shuffle(v.value, undefined(v.type), range(start, start + n)))
                        for v in (self, *others))) for start in range(0, self.lanes, n)]
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2])
            joined = [Num(a.f, a.f.shuffle(a.value, b.value, range(2 * a.lanes))) for a, b in pairs]
            parts = joined + parts[len(joined) * 2:]
        return parts[0]

    # -- types ----------------------------------------------------------------------------------------------------

    @property
    def lanes(self) -> int:
        return lanes(self.type)

    def double(self) -> Num:
        return Num(self.f, self.f.fpext(self.value, "double"))

    def float(self) -> Num:
        """A double rounded to float."""
        return Num(self.f, self.f.fptrunc(self.value, "float"))

    def from_int(self, elem: str) -> Num:
        """An integer as a float of type `elem`."""
        return Num(self.f, self.f.sitofp(self.value, elem))

    def to_int(self, elem: str) -> Num:
        """Towards zero; for values that fit."""
        return Num(self.f, self.f.fptosi(self.value, elem))


# element -> bits of the mantissa, bias of the exponent
_LAYOUT = {"float": (23, 127), "double": (52, 1023)}

# (element, entries) -> the instruction that looks up a table in registers
_PERMUTE = {("float", 16): "llvm.x86.avx512.permvar.sf.512", ("double", 8): "llvm.x86.avx512.permvar.df.512",
            ("double", 16): "llvm.x86.avx512.vpermi2var.pd.512"}


def _permute(index: Num, elem: str, table: Sequence[float]) -> Num:
    type_ = vec(elem, index.lanes)
    parts = [constant_vector(elem, table[start:start + index.lanes]) for start in range(0, len(table), index.lanes)]
    operands = [parts[0], index.value, *parts[1:]]
    return Num(index.f, index.f.call(_PERMUTE[elem, len(table)], type_, operands))


def _scalef(x: Num, n: Num) -> Num:
    """AVX-512's x * 2^floor(n); all lanes, rounded as the environment says (4)."""
    short, mask = {"float": ("ps", "i16"), "double": ("pd", "i8")}[element(x.type)]
    operands = [x.value, n.value, constant(x.type, 0.0), constant(mask, -1), constant("i32", 4)]
    return Num(x.f, x.f.call(f"llvm.x86.avx512.mask.scalef.{short}.512", x.type, operands))


def hash_of(table: Sequence[float]) -> str:
    """A name for a table: equal for equal content."""
    return digest(*(float(entry).hex() for entry in table))[:12]


def fast_two_sum(a: Num, b: Num) -> tuple[Num, Num]:
    """a + b as a rounded sum and its error; |a| >= |b| or a == 0 (Dekker 1971)."""
    total = a + b
    return total, b - (total - a)


def two_sum(a: Num, b: Num) -> tuple[Num, Num]:
    """a + b as a rounded sum and its error (Knuth, TAOCP 4.2.2)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
