"""Expressions: each becomes one value, a scalar where it does not depend on the lane and else a vector.

What holds here:
- The same expression at the same point of the unrolled loops is computed once, as far out as it can be, for as long as
  nothing that it reads is written.
- A branch of a selection that may read outside of a buffer is computed under a guard: the condition.
- A comparison of a position that comes out the same at all steps and lanes is decided here, with what it chooses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tracedsl.hw.cpu.codegen_convert import convert
from tracedsl.hw.cpu.codegen_error import malformed
from tracedsl.hw.cpu.codegen_memory import Bindings, Memory, may_be_outside
from tracedsl.hw.cpu.codegen_place import Places
from tracedsl.hw.cpu.codegen_registers import Registers
from tracedsl.hw.cpu.codegen_scalar import scalar, value_type
from tracedsl.hw.cpu.emitter import Value, constant
from tracedsl.hw.cpu.irtypes import lanes
from tracedsl.ir.expr import Affine, Axis, Call, Cast, Const, Expr, Load, Position, children

_NO_AXES: frozenset[Axis] = frozenset()


@dataclass(frozen=True, slots=True)
class _Facts:
    """What an expression depends on. `risky`: it holds a load that may lie outside of its buffer."""

    axes: frozenset[Axis]
    reads: frozenset[str]
    risky: bool


class Expressions:
    """Computes expressions at the current place of one function."""

    def __init__(self, places: Places, bindings: Bindings, memory: Memory, registers: Registers) -> None:
        self._places, self._f, self._bindings = places, places.f, bindings
        self._memory, self._registers = memory, registers
        self._facts: dict[int, _Facts] = {}
        self._guard: Value | None = None

    def value(self, root: Expr) -> Value:
        """The expression's value here; scalar if it is the same in every lane."""
        stack = [root]
        while stack:
            expr = stack[-1]
            key = self._key(expr)
            if self._places.recall(key) is not None:
                stack.pop()
                continue
            missing = [c for c in self._first(expr) if self._places.recall(self._key(c)) is None]
            if missing:
                stack += reversed(missing)
                continue
            stack.pop()
            self._places.remember(key, self._compute(expr), self._facts[id(expr)].reads)
        return self._known(root)

    def _known(self, expr: Expr) -> Value:
        value = self._places.recall(self._key(expr))
        if value is None:
            raise AssertionError("an operand was not computed")
        return value

    def _key(self, expr: Expr) -> tuple[object, ...]:
        facts, numbers = self._facts.get(id(expr)) or self._look(expr), self._bindings.numbers
        guard = self._guard.name if self._guard and facts.risky else None
        if not numbers:
            return (id(expr), guard)
        return (id(expr), guard, *((axis.name, numbers[axis]) for axis in facts.axes if axis in numbers))

    def _first(self, expr: Expr) -> tuple[Expr, ...]:
        """The operands that are computed before `expr`, whatever the guard: branches with risks wait."""
        if isinstance(expr, Call) and expr.op == "select":
            return (expr.args[0], *(a for a in expr.args[1:] if not self._look(a).risky))
        return children(expr)

    # -- what an expression depends on -----------------------------------------------------------------------------

    def _look(self, root: Expr) -> _Facts:
        stack = [root]
        while stack:
            expr = stack[-1]
            if id(expr) in self._facts:
                stack.pop()
                continue
            missing = [c for c in children(expr) if id(c) not in self._facts]
            if missing:
                stack += missing
                continue
            stack.pop()
            self._facts[id(expr)] = self._combine(expr)
        return self._facts[id(root)]

    def _combine(self, expr: Expr) -> _Facts:
        parts = [self._facts[id(c)] for c in children(expr)]
        axes = _NO_AXES.union(*(p.axes for p in parts))
        reads = frozenset[str]().union(*(p.reads for p in parts))
        risky = any(p.risky for p in parts)
        if isinstance(expr, Position):
            axes |= expr.index.axes()
        if isinstance(expr, Load):
            axes = axes.union(*(at.axes() for at in expr.index if isinstance(at, Affine)))
            reads |= {expr.buffer.name}
            risky |= may_be_outside(expr.buffer, expr.index)
        return _Facts(axes, reads, risky)

    # -- computing -------------------------------------------------------------------------------------------------

    def _compute(self, expr: Expr) -> Value:
        match expr:
            case Call(op="ge" | "lt", args=(Position(index=index), Const(value=limit))) if (
                    answer := self._decided(expr.op, index + -int(limit))) is not None:
                return constant("i1", answer)
            case Call(op="and" | "or", args=(a, b), dtype="bool") if (
                    sure := _settled(expr.op, self._known(a), self._known(b))) is not None:
                return sure
            case Const():
                return constant(value_type(expr.dtype), expr.value)
            case Position():
                return self._as(self._memory.number(self._bindings.spot(expr.index)), "int64", expr.dtype)
            case Load():
                return self._load(expr)
            case Cast():
                return self._as(self._known(expr.arg), expr.arg.dtype, expr.dtype)
            case Call(op="select"):
                return self._select(expr)
            case Call():
                return self.apply(expr.op, expr.args[-1].dtype, *map(self._known, expr.args))
        raise malformed(f"{type(expr).__name__} cannot stand in a loop nest")

    def _decided(self, op: str, position: Affine) -> bool | None:
        """Whether a position is (`ge`) at least 0 or (`lt`) less, if that is so, or not so, at every step and lane."""
        low, high = self._bindings.bounds(position)
        if low < 0 <= high:
            return None
        return (low >= 0) == (op == "ge")

    def apply(self, op: str, dtype: str, *operands: Value) -> Value:
        """A scalar operation, in as many lanes as the widest operand has; the same one on the same values once."""
        n = max(lanes(v.type) for v in operands)
        if op == "div" and n > 1 and dtype in ("float32", "float64") and lanes(operands[1].type) == 1 \
                and operands[1].name.startswith("%"):
            return self._quotient(operands[0], operands[1], n)
        args = [self._places.splat(v, n) for v in operands]
        return self._places.once(("op", op, dtype, *((v.type, v.name) for v in args)),
                                 lambda *same: scalar(self._f, op, dtype, same), *args)

    def _quotient(self, x: Value, y: Value, n: int) -> Value:
        """x / y, where y is the same in all lanes: what can be known of y is found out once."""
        from tracedsl.hw.cpu.math.num import Num  # loaded by kernels that need it: a first call does not wait for it
        from tracedsl.hw.cpu.math.quotient import Divisor, divisor, quotient

        places, f = self._places, self._f
        y_wide = places.splat(y, n)

        def part(which: str) -> Value:
            one = places.once(("divisor", which, y.name), lambda y: getattr(divisor(Num(f, y)), which).value, y)
            return places.splat(one, n)

        def divide(x: Value, y: Value, inverse: Value, span: Value) -> Value:
            return quotient(Num(f, x), Divisor(Num(f, y), Num(f, inverse), Num(f, span))).value

        return places.place(divide, places.splat(x, n), y_wide, part("inverse"), part("span"))

    def _as(self, value: Value, source: str, target: str) -> Value:
        return self._places.place(lambda given: convert(self._f, given, source, target), value)

    def _masked(self, expr: Load) -> bool:
        return self._look(expr).risky and expr.buffer in self._memory and self._memory.masks(expr.buffer, expr.index)

    def _load(self, expr: Load, otherwise: Value | None = None) -> Value:
        if expr.buffer in self._registers:
            return self._registers.read(expr.buffer.name, self._registers.run(expr.buffer, expr.index))
        if expr.buffer not in self._memory:
            raise malformed(f"buffer {expr.buffer.name!r} does not exist here")
        positions = [self._as(self._known(at), at.dtype, "int64") for at in expr.index if isinstance(at, Expr)]
        risky = may_be_outside(expr.buffer, expr.index)
        return self._memory.load(expr.buffer, expr.index, positions, self._guard if risky else None, otherwise)

    def _select(self, expr: Call) -> Value:
        condition, then, otherwise = expr.args
        chosen = self._known(condition)
        if chosen.name in ("true", "false"):
            return self.value(then if chosen.name == "true" else otherwise)
        if isinstance(then, Load) and self._masked(then) and not self._look(otherwise).risky:
            with self._guarded(chosen):
                return self._load(then, self._known(otherwise))
        not_chosen = chosen
        if self._look(otherwise).risky:
            not_chosen = self.apply("not", "bool", chosen)
        return self.apply("select", expr.dtype, chosen, self._branch(then, chosen), self._branch(otherwise, not_chosen))

    def _branch(self, expr: Expr, condition: Value) -> Value:
        if not self._look(expr).risky:
            return self._known(expr)
        with self._guarded(condition):
            return self.value(expr)

    @contextmanager
    def _guarded(self, condition: Value) -> Iterator[None]:
        outer = self._guard
        self._guard = condition if outer is None else self.apply("and", "bool", outer, condition)
        try:
            yield
        finally:
            self._guard = outer


def _settled(op: str, a: Value, b: Value) -> Value | None:
    """`a` and `b`, `a` or `b`, where one of them is known."""
    idle, sure = ("true", "false") if op == "and" else ("false", "true")
    for one, other in ((a, b), (b, a)):
        if one.name == sure or other.name == idle:
            return one
    return None
