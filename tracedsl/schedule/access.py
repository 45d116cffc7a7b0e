"""How a stage touches memory: what schedule choices are read from.

What holds here: an access is a load or the store of a stage with its address as an affine sum in elements, or None
for a gather. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Affine, Axis, Buffer, Call, Const, Load, Position, Stage, address, walk

HEAVY = frozenset(("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan",
                   "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "cbrt", "sigmoid", "pow", "atan2",
                   "hypot"))


@dataclass(frozen=True)
class Access:
    buffer: Buffer
    address: Affine | None
    is_store: bool = False

    def stride(self, axis: Axis) -> int | None:
        """Elements from one step of the axis to the next; None for a gather."""
        return None if self.address is None else self.address.coefficient(axis)


def accesses(stage: Stage, *, finish: bool = True) -> list[Access]:
    """Every distinct load, and the store at the end; without `finish` the loads of `value` alone."""
    roots = [e for e in (stage.value, stage.finish if finish else None) if e is not None]
    found: dict[tuple[str, Affine | None], Access] = {}
    for expr in walk(*roots):
        if isinstance(expr, Load):
            place = address(expr.index, expr.buffer)
            found.setdefault((expr.buffer.name, place), Access(expr.buffer, place))
    stored = [Access(stage.out, address(stage.index, stage.out), True)] if finish else []
    return [*found.values(), *stored]


def widest(stage: Stage) -> int:
    """Bytes of the largest element that the stage works with; positions that are compared become masks."""
    exprs = list(walk(*(e for e in (stage.value, stage.finish) if e is not None)))
    compared = {id(part) for e in exprs if isinstance(e, Call) and e.op in ("ge", "lt") for part in e.args
                if all(isinstance(other, Position | Const) for other in e.args)}
    return max([BYTES[e.dtype] for e in exprs if id(e) not in compared] + [BYTES[stage.out.dtype]])


def heavy_calls(stage: Stage) -> int:
    return sum(isinstance(e, Call) and e.op in HEAVY
               for e in walk(*(e for e in (stage.value, stage.finish) if e is not None)))


def reused(stage: Stage) -> list[Axis]:
    """Spatial axes that some operand of a reduction does not depend on: its elements serve several of their steps."""
    loads = accesses(stage, finish=False)
    return [axis for axis in stage.axes if any(load.stride(axis) == 0 for load in loads)]


def contiguous(found: Sequence[Access], axis: Axis) -> bool:
    """Whether every access stays put or moves by one element along the axis, and one does move."""
    strides = [access.stride(axis) for access in found]
    return all(s in (0, 1) for s in strides) and any(s == 1 for s in strides)
