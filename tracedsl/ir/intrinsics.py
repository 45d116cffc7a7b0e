"""Declared intrinsics: what a target does in one instruction, as a tensor expression. Targets list theirs; schedules
mark loops for them (`tensorize`); code generators match the loops again. The loops mean the same with and without.

What holds here: an intrinsic is plain data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tracedsl.ir.expr import Call, Cast, Expr, Stage


@dataclass(frozen=True)
class DotIntrinsic:
    """sums[l] += add[q in group] result(a[q]) * result(b[l, q])   for l in lanes

    `a` and `b` have the dtypes `pair`, in either order; `group` elements of each lie side by side in memory.
    """

    name: str
    lanes: int
    group: int
    result: str
    pair: tuple[str, str]

    def operands(self, value: Expr) -> tuple[Expr, Expr] | None:
        """The two operands of a product that this is for, the one of the first dtype first; None if it is not."""
        if not isinstance(value, Call) or value.op != "mul" or value.dtype != self.result:
            return None
        inner = [arg.arg for arg in value.args if isinstance(arg, Cast)]
        for a, b in (inner, inner[::-1]) if len(inner) == 2 else ():
            if (a.dtype, b.dtype) == self.pair:
                return a, b
        return None


def dot_for(stage: Stage, intrinsics: Iterable[DotIntrinsic]) -> DotIntrinsic | None:
    """The intrinsic for the products that a stage sums, if there is one."""
    if stage.combine != "add":
        return None
    return next((made for made in intrinsics if made.operands(stage.value) is not None), None)
