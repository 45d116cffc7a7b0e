"""LLVM IR of the expressions of a procedure: variables, elements, addresses, checks.

What holds here: a check that fails goes to the label `bail`. Positions that are known to be `inside` need none.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracedsl.hw.cpu.codegen_convert import convert
from tracedsl.hw.cpu.codegen_scalar import scalar, value_type
from tracedsl.hw.cpu.emitter import FunctionEmitter, Value, constant
from tracedsl.ir.statements import Apply, Const, Convert, Element, Expr, Extent, Overlap, Procedure, Var, View


class Values:
    """Expressions of one procedure."""

    def __init__(self, f: FunctionEmitter, procedure: Procedure) -> None:
        self.f, self.p = f, procedure
        self.variables = {name: f.alloca(value_type(dtype), align=8) for name, dtype in procedure.scalars.items()}
        self.places = {name: f.alloca("ptr", align=8) for name in procedure.arrays}
        self.sizes = {name: [f.alloca("i64", align=8) for _ in range(2 * kind.rank)]
                      for name, kind in procedure.arrays.items()}
        self.bail = f.label("bail")
        self.inside: frozenset[tuple[str, tuple[Expr, ...]]] = frozenset()     # accesses that need no check here
        self.group = ""      # metadata of accesses in a loop whose rounds are free of each other

    def value(self, e: Expr) -> Value:
        f = self.f
        match e:
            case Const():
                return constant(value_type(e.dtype), e.value)
            case Var():
                return f.load(self.variables[e.name], value_type(e.dtype))
            case Extent():
                return f.load(self.sizes[e.array][e.axis], "i64")
            case Convert():
                return convert(f, self.value(e.arg), e.arg.dtype, e.dtype)
            case Element():
                return self.loaded(self.address(e.array, e.index, e.checked), e.dtype)
            case Overlap():
                return self._overlap(e.a, e.b)
            case Apply(exact=True):
                return self._exact(e.op, *map(self.value, e.args))
            case Apply():
                return scalar(f, e.op, e.of, [self.value(a) for a in e.args])
        raise AssertionError(f"not an expression: {e!r}")

    def _exact(self, op: str, a: Value, b: Value) -> Value:
        f = self.f
        name = f"llvm.s{op}.with.overflow.i64"
        f.module.declare(name, "{ i64, i1 }", ("i64", "i64"))
        both = f.instruction(f"call {{ i64, i1 }} @{name}({a}, {b})", "{ i64, i1 }")
        self.unless(f.instruction(f"extractvalue {both}, 1", "i1"))
        return f.instruction(f"extractvalue {both}, 0", "i64")

    def unless(self, wrong: Value) -> None:
        on = self.f.label("on")
        self.f.cond_br(wrong, self.bail, on)
        self.f.start(on)

    def stride(self, array: str, axis: int) -> Value:
        kind = self.p.arrays[array]
        if kind.unit and axis == kind.rank - 1:
            return constant("i64", 1)
        return self.f.load(self.sizes[array][kind.rank + axis], "i64")

    def address(self, array: str, index: Sequence[Expr], checked: bool) -> Value:
        f = self.f
        checked = checked and (array, tuple(index)) not in self.inside
        at = [self.value(i) for i in index]
        if checked:
            at = [self._checked(i, array, axis) for axis, i in enumerate(at)]
        return f.gep(f.load(self.places[array], "ptr"), self.offset(array, at), memory_type(self.p.arrays[array].dtype))

    def _checked(self, at: Value, array: str, axis: int) -> Value:
        f, extent = self.f, self.f.load(self.sizes[array][axis], "i64")
        at = f.select(f.icmp("slt", at, constant("i64", 0)), f.add(at, extent), at)
        self.unless(f.icmp("uge", at, extent))
        return at

    def offset(self, array: str, at: Sequence[Value]) -> Value:
        f, total = self.f, constant("i64", 0)
        for axis, i in enumerate(at):
            stride = self.stride(array, axis)
            moved = i if stride.name == "1" else f.mul(i, stride, "nsw")
            total = moved if total.name == "0" else f.add(total, moved, "nsw")
        return total

    def loaded(self, address: Value, dtype: str) -> Value:
        found = self.f.load(address, memory_type(dtype), metadata=self.group)
        return self.f.icmp("ne", found, constant("i8", 0)) if dtype == "bool" else found

    def stored(self, value: Value, address: Value, dtype: str) -> None:
        self.f.store(self.f.zext(value, "i8") if dtype == "bool" else value, address, metadata=self.group)

    def _overlap(self, a: View, b: View) -> Value:
        (low_a, high_a), (low_b, high_b) = self._range(a), self._range(b)
        return self.f.and_(self.f.icmp("ult", low_a, high_b), self.f.icmp("ult", low_b, high_a))

    def _range(self, view: View) -> tuple[Value, Value]:
        """The addresses of a view: first, and behind the last."""
        f, array = self.f, view.array
        base = f.load(self.places[array], "ptr")
        low = high = self.offset(array, [self.value(e) for e in view.start])
        for axis, step, extent in view.axes:
            if axis is None:
                continue
            last = f.sub(self.value(extent), constant("i64", 1))
            span = f.mul(f.mul(last, constant("i64", step)), self.stride(array, axis))
            up = f.icmp("sgt", span, constant("i64", 0))
            high = f.select(up, f.add(high, span), high)
            low = f.select(up, low, f.add(low, span))
        memory = memory_type(self.p.arrays[array].dtype)
        return tuple(f.ptrtoint(f.gep(base, at, memory, inbounds=False))      # type: ignore[return-value]
                     for at in (low, f.add(high, constant("i64", 1))))


def memory_type(dtype: str) -> str:
    return "i8" if dtype == "bool" else value_type(dtype)
