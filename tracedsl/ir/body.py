"""The body of a `tensor.compute` node: one tensor expression over placeholder operands.

What holds here: a body is immutable, compared and hashed by its text; operand number n is the placeholder buffer `$n`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracedsl.ir.expr import (
    Affine,
    Axis,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Position,
    as_text,
    rebuild,
    substitute,
    walk,
)
from tracedsl.ir.tensor import numpy_function


@dataclass(frozen=True, eq=False)
class Body:
    """For all `axes`: combine over `reduce` of `value` (without `combine`: `value` alone)."""

    axes: tuple[Axis, ...]
    operands: tuple[Buffer, ...]
    value: Expr
    reduce: tuple[Axis, ...] = ()
    combine: str | None = None

    @staticmethod
    def make(axes: Sequence[Axis], operands: Sequence[Buffer], value: Expr, reduce: Sequence[Axis] = (),
             combine: str | None = None) -> tuple[Body, list[int]]:
        """A body over those operands that `value` reads, renumbered, and their old numbers."""
        read = {e.buffer.name for e in walk(value) if isinstance(e, Load)}
        used = [n for n, buffer in enumerate(operands) if buffer.name in read]
        renamed = {operands[old].name: Buffer(f"${new}", operands[old].dtype, operands[old].shape,
                                              operands[old].strides, "param") for new, old in enumerate(used)}

        def change(expr: Expr) -> Expr:
            return Load(expr.dtype, renamed[expr.buffer.name], expr.index) if isinstance(expr, Load) else expr

        moved = rebuild([value], change)[0]
        return Body(tuple(axes), tuple(renamed.values()), moved, tuple(reduce), combine), used

    @property
    def dtype(self) -> str:
        return self.value.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.extent for axis in self.axes)

    def operand(self, buffer: Buffer) -> int:
        """The number of the input that a placeholder stands for."""
        return int(buffer.name[1:])

    def at(self, places: Mapping[Axis, Affine]) -> Expr:
        """The value with the axes replaced."""
        return substitute([self.value], places)[0]

    def evaluate(self, values: Sequence[Any]) -> Any:
        """The array, by NumPy on index grids."""
        every = (*self.axes, *self.reduce)
        grids = {a: np.arange(a.extent).reshape([-1 if a is b else 1 for b in every]) for a in every}
        with np.errstate(all="ignore"):
            whole = np.broadcast_to(_evaluate(self.value, values, grids), [a.extent for a in every])
            if self.combine is None:
                return np.array(whole)
            dims = tuple(range(len(self.axes), len(every)))
            function: Any = numpy_function(self.combine)
            return np.asarray(function.reduce(whole, axis=dims, dtype=whole.dtype))

    def __repr__(self) -> str:
        value = as_text(self.value)
        if self.combine:
            value = f"{self.combine}[{', '.join(map(str, self.reduce))}] {value}"
        return f"{value} for {', '.join(map(str, self.axes))}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Body) and repr(self) == repr(other) and self.operands == other.operands

    def __hash__(self) -> int:
        return hash(repr(self))


def _evaluate(root: Expr, values: Sequence[Any], grids: Mapping[Axis, Any]) -> Any:
    found: dict[int, Any] = {}

    def place(index: Affine) -> Any:
        return sum((grids[axis] * factor for axis, factor in index.terms), start=np.asarray(index.constant))

    for expr in walk(root):
        match expr:
            case Const(value=value):
                found[id(expr)] = np.asarray(value).astype(expr.dtype)
            case Position(index=index):
                found[id(expr)] = place(index)
            case Load(buffer=buffer, index=index):
                spots = tuple(place(i) if isinstance(i, Affine) else found[id(i)] for i in index)
                found[id(expr)] = np.asarray(values[int(buffer.name[1:])])[spots]
            case Cast(arg=arg):
                found[id(expr)] = found[id(arg)].astype(expr.dtype)
            case Call(op=op, args=args):
                found[id(expr)] = numpy_function(op)(*(found[id(arg)] for arg in args))
    return found[id(root)]
