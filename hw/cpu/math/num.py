"""Arithmetic on emitted values with Python's operators, so that a formula reads as a formula.

What holds here: `Num` wraps a `Value` of any lane count; an operator emits exactly one instruction; numbers become
constants of the same type. Nothing is contracted or reordered: `fma` is written where it is meant. Comparisons of
floats are ordered (false for NaN) and give a `Num` of i1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tracedsl.hw.cpu.emitter import FunctionEmitter, Value, constant
from tracedsl.hw.cpu.irtypes import BITS, element, is_float, lanes, like


@dataclass(frozen=True, eq=False)
class Num:
    f: FunctionEmitter
    value: Value

    @property
    def type(self) -> str:
        return self.value.type

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
        return Num(self.f, self.f.fma(self.value, self.lift(factor).value, self.lift(addend).value))

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

    def equals(self, other: Num | float) -> Num:
        return self._compare("oeq", "eq", other)

    def is_nan(self) -> Num:
        return self._compare("uno", "eq", self)

    def where(self, then: Num | float, otherwise: Num) -> Num:
        """Of a comparison: `then` where it holds. `otherwise` gives the type."""
        return Num(self.f, self.f.select(self.value, otherwise.lift(then).value, otherwise.value))

    # -- bits -----------------------------------------------------------------------------------------------------

    def __and__(self, other: Num | int) -> Num:
        return Num(self.f, self.f.and_(self.value, self.lift(other).value))

    def __or__(self, other: Num | int) -> Num:
        return Num(self.f, self.f.or_(self.value, self.lift(other).value))

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


def fast_two_sum(a: Num, b: Num) -> tuple[Num, Num]:
    """a + b as a rounded sum and its error; |a| >= |b| or a == 0 (Dekker 1971)."""
    total = a + b
    return total, b - (total - a)


def two_sum(a: Num, b: Num) -> tuple[Num, Num]:
    """a + b as a rounded sum and its error (Knuth, TAOCP 4.2.2)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
