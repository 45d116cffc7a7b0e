"""What all of the capture of statements stands on: the statements so far, temporaries, guards, loops over views.

What holds here: `held` gives a value a name, so that it is computed once and stays what it is; within one statement of
the user's, equal expressions get one name.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from tracedsl.capture.tensor.procedure.values import (
    Array,
    Scalar,
    Types,
    Value,
    converted,
)
from tracedsl.ir.statements import (
    Apply,
    ArrayType,
    Assign,
    Const,
    Expr,
    Guard,
    Loop,
    Stmt,
    Store,
    Var,
    View,
)

ZERO, ONE = Const(0), Const(1)


class Emitting:
    """The base of the capture. Its heirs add arithmetic, indexing, calls, variables, statements."""

    def __init__(self) -> None:
        self.types = Types()
        self.arrays: dict[str, ArrayType] = {}
        self.out: list[Stmt] = []
        self._count = 0
        self._held: dict[tuple[Expr, str], Var] = {}      # within one statement, no value is held twice

    def fresh(self, hint: str) -> str:
        self._count += 1
        return f"{hint}.{self._count}"

    def emit(self, stmt: Stmt) -> None:
        self.out.append(stmt)

    def held(self, e: Expr, hint: str = "t") -> Expr:
        """The value now, as something that may be read later and often."""
        if isinstance(e, Const):
            return e
        key = e, str(e)      # 0.0 and -0.0 are equal
        known = self._held.get(key)
        if known is None:
            name = self.fresh(hint)
            self.types.bits[name] = self.types.bound(e)
            self.emit(Assign(name, e))
            known = self._held[key] = Var(name, e.dtype)
        return known

    def guard(self, condition: Expr) -> None:
        self.emit(Guard(condition))

    def nested(self, emit: Callable[[], Any]) -> tuple[Stmt, ...]:
        """The statements that `emit` emits, apart."""
        outside, self.out, held = self.out, [], dict(self._held)
        try:
            emit()
            return tuple(self.out)
        finally:
            self.out, self._held = outside, held

    def emit_loops(self, target: View, at: Callable[[Sequence[Expr]], Expr], dtype: str) -> None:
        """Store `at(index)` everywhere in a view, axis by axis. It must read nothing that the loops write elsewhere."""
        names = [self.fresh("i") for _ in target.axes]
        self.types.bits.update(dict.fromkeys(names, 41))
        index = [Var(n, "int64") for n in names]
        body: tuple[Stmt, ...] = (Store(target.array, position(target, index), converted(at(index), dtype), False),)
        for number, (name, (_, _, extent)) in enumerate(reversed(list(zip(names, target.axes)))):
            body = (Loop(self.fresh("over"), name, ZERO, extent, 1, body, free=number == 0),)
        self.out.extend(body)

    def value(self, node: ast.expr) -> Value:
        raise NotImplementedError

    def integer(self, node: ast.expr) -> Expr:
        raise NotImplementedError

    def name(self, node: ast.Name) -> Value:
        raise NotImplementedError

    def inlined(self, function: Any, args: Sequence[Value], keywords: dict[str, Value], node: ast.Call) -> Value:
        raise NotImplementedError

    def allocated(self, dtype: str, extents: Sequence[Expr], zero: bool) -> Array:
        raise NotImplementedError

    def fill(self, target: Array, value: Scalar) -> None:
        raise NotImplementedError


def spread(value: Array, index: Sequence[Expr]) -> Expr:
    """The element of an operand at a position of the broadcast shape."""
    own = index[len(index) - len(value.extents):]
    return value.at([ZERO if extent == ONE else i for i, extent in zip(own, value.extents)])


def position(view: View, index: Sequence[Expr]) -> tuple[Expr, ...]:
    """Where element `index` of a view stands in its array."""
    at = list(view.start)
    for i, (axis, step, _) in zip(index, view.axes):
        if axis is None:
            continue
        moved = i if step == 1 else Apply("mul", (i, Const(step)), "int64", "int64")
        at[axis] = moved if at[axis] == ZERO else Apply("add", (at[axis], moved), "int64", "int64")
    return tuple(at)
