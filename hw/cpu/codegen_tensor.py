"""Loops that an intrinsic does (`intrinsics.TABLE`): matching them, and reading their operands as it wants them.

What holds here: a `tensor` loop inside a vector loop becomes one instruction if its body is the sum of an intrinsic and
its operands lie in memory as the instruction reads them; otherwise nothing is emitted and the loop is an ordinary one.
Operands are any expressions over loads: they are computed for all lanes of the instruction at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracedsl.hw.cpu.codegen_expr import Expressions
from tracedsl.hw.cpu.codegen_memory import Bindings, flat
from tracedsl.hw.cpu.codegen_place import Places
from tracedsl.hw.cpu.emitter import Value
from tracedsl.hw.cpu.intrinsics import Row
from tracedsl.hw.cpu.irtypes import vec
from tracedsl.ir.expr import Affine, Axis, Expr, Load, Position, substitute, walk
from tracedsl.ir.loops import For, Update


@dataclass(frozen=True)
class Operand:
    """What one operand is over `axis`, all lanes of the instruction or (`shared`) one group that every lane takes."""

    expr: Expr
    axis: Axis
    shared: bool


@dataclass(frozen=True)
class Match:
    row: Row
    update: Update
    operands: tuple[Operand, Operand]


class Tensorizer:
    """Finds and emits intrinsics for one function."""

    def __init__(self, rows: tuple[Row, ...], places: Places, bindings: Bindings, expressions: Expressions) -> None:
        self._rows, self._places, self._f = rows, places, places.f
        self._bindings, self._expressions = bindings, expressions
        self._matches: dict[int, Match | None] = {}

    def match(self, step: For) -> Match | None:
        """The intrinsic that does this loop inside the vector loop around it."""
        if id(step) not in self._matches:
            found = (self._matched(step, row) for row in self._rows)
            self._matches[id(step)] = next((match for match in found if match is not None), None)
        return self._matches[id(step)]

    def _matched(self, step: For, row: Row) -> Match | None:
        vector, dot = self._bindings.vector, row.dot
        if vector is None or len(step.body) != 1 or not isinstance(update := step.body[0], Update):
            return None
        if update.combine != "add" or (vector.extent, step.axis.extent) != (dot.lanes, dot.group):
            return None
        if flat(update.buffer, update.index).coefficient(vector) != 1:
            return None
        found = dot.operands(update.value)
        operands = [self._operand(expr, step.axis, vector) for expr in found or ()]
        first, second = operands if len(operands) == 2 else (None, None)
        return Match(row, update, (first, second)) if first is not None and second is not None else None

    def _operand(self, expr: Expr, group: Axis, vector: Axis) -> Operand | None:
        loads = [e for e in walk(expr) if isinstance(e, Load)]
        plain = all(isinstance(at, Affine) for load in loads for at in load.index)
        if not loads or not plain or any(isinstance(e, Position) for e in walk(expr)):
            return None
        steps = {(place.coefficient(vector), place.coefficient(group))
                 for place in (flat(load.buffer, load.index) for load in loads)}
        if steps == {(0, 1)}:
            return Operand(expr, group, True)
        if steps != {(group.extent, 1)}:
            return None
        lanes = Axis(f"{vector.name}.{group.name}", vector.extent * group.extent)
        (wide,) = substitute([expr], {vector: Affine(), group: Affine.of(lanes)})
        return Operand(wide, lanes, False)

    def emit(self, match: Match, sums: Value) -> Value:
        """The sums after the instruction."""
        a, b = (self._vector(operand, match) for operand in match.operands)
        row, f = match.row, self._f
        wide = vec("i8", 4 * row.dot.lanes) if row.bytes else sums.type
        f.module.declare(row.llvm, sums.type, (sums.type, wide, wide))
        if row.bytes:
            a, b = (self._places.once(("bytes", v.name), lambda v: f.bitcast(v, wide), v) for v in (a, b))
        return self._places.place(lambda *args: f.call(row.llvm, sums.type, args), sums, a, b, level=self._places.depth)

    def _vector(self, operand: Operand, match: Match) -> Value:
        """The operand as a vector of i32, one group of elements each."""
        outer, self._bindings.vector = self._bindings.vector, operand.axis
        try:
            value = self._expressions.value(operand.expr)
        finally:
            self._bindings.vector = outer
        lanes, places = match.row.dot.lanes, self._places
        whole = places.splat(value, operand.axis.extent)
        if not operand.shared:
            return places.once(("groups", whole.name), lambda v: self._f.bitcast(v, vec("i32", lanes)), whole)
        one = places.once(("group", whole.name), lambda v: self._f.bitcast(v, "i32"), whole)
        return places.splat(one, lanes)
