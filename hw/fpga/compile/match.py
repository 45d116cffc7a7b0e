"""What the accelerator can do of a stage: contractions of int8, pooling, and integer expressions element by element.

What holds here: `match` looks at the tensor expression alone; what it refuses it refuses with the reason. The products
of bytes are found as for every other target, by the declared intrinsic (`GEMM`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from tracedsl.hw.fpga.compile.epilogue import OperandOf, Refused, epilogue
from tracedsl.hw.fpga.compile.ranges import Range, of_dtype
from tracedsl.hw.fpga.compile.work import Epilogue, Form, Format, Operand, Work
from tracedsl.hw.fpga.isa import Op
from tracedsl.ir.expr import Affine, Axis, Buffer, Cast, Expr, Load, Reduced, Stage, walk
from tracedsl.ir.intrinsics import DotIntrinsic

_POOLS = {"add": Op.ADD, "maximum": Op.MAX, "minimum": Op.MIN, "fmax": Op.MAX, "fmin": Op.MIN}
_SUMS = ("int32", "int64")


def intrinsics(block: int) -> tuple[DotIntrinsic, ...]:
    """One step of GEMM: B sums of B products each."""
    return tuple(DotIntrinsic("gemm", block, block, dtype, ("int8", "int8")) for dtype in _SUMS)


def match(stage: Stage, block: int) -> Work:
    """The stage as work for the accelerator. Raises Refused."""
    if stage.scan:
        raise Refused("partial sums are not done by the accelerator")
    if stage.combine is None:
        return _map(stage)
    if stage.combine == "add":
        for dot in intrinsics(block):
            if (pair := dot.operands(stage.value)) is not None:
                return _contraction(stage, _load_of(pair[0]), _load_of(pair[1]))
    if stage.combine in _POOLS:
        return _pool(stage)
    raise Refused(f"a reduction by {stage.combine} is not done by the accelerator")


def _load_of(expr: Expr) -> Load:
    if not isinstance(expr, Load):
        raise Refused("a factor of the products is not a tensor of int8")
    return expr


# -- the kinds of work ---------------------------------------------------------------------------------------------


def _contraction(stage: Stage, one: Load, other: Load) -> Work:
    first, second = _axes(one), _axes(other)
    lanes = [axis for axis in reversed(stage.axes) if _alone(axis, stage.index) is not None]
    for lane in lanes:
        in_first, in_second = lane in first, lane in second
        if in_first != in_second:
            weights, data = (one, other) if in_first else (other, one)
            if _alone(lane, weights.index) is not None:
                return _gemm(stage, data, weights, lane)
    large, small = (one, other) if len(first) >= len(second) else (other, one)
    for lane in lanes:
        if _alone(lane, one.index) is not None and _alone(lane, other.index) is not None:
            return _diag(stage, large, small, lane)
    return _gemm(stage, large, small, None)  # nothing runs along lanes: one lane works


def _gemm(stage: Stage, data: Load, weights: Load, lane: Axis | None) -> Work:
    both = [axis for axis in stage.reduce if _alone(axis, data.index) is not None
            and _alone(axis, weights.index) is not None]
    inner = max(both, key=lambda axis: axis.extent) if both else None
    taps = tuple(axis for axis in stage.reduce if axis is not inner)
    products = math.prod(axis.extent for axis in stage.reduce)
    return Work("gemm", stage, *_result(stage, lane), _finish(stage, lane, (-products << 14, products << 14)), inner,
                taps, _operand(data, (inner,), "narrow"), _operand(weights, (lane, inner), "tile"))


def _diag(stage: Stage, data: Load, weights: Load, lane: Axis) -> Work:
    products = math.prod(axis.extent for axis in stage.reduce)
    return Work("diag", stage, *_result(stage, lane), _finish(stage, lane, (-products << 14, products << 14)), None,
                stage.reduce, _operand(data, (lane,), "narrow"), _operand(weights, (lane,), "narrow"))


def _pool(stage: Stage) -> Work:
    value = stage.value
    while isinstance(value, Cast) and _widens(value):
        value = value.arg
    if not isinstance(value, Load):
        raise Refused("what is reduced is neither a tensor nor a product of two tensors of int8")
    limits, count = _limits(value), math.prod(axis.extent for axis in stage.reduce)
    if stage.combine == "add":
        limits = min(limits[0] * count, 0), max(limits[1] * count, 0)
    lane = _lane(stage, [value])
    return Work("pool", stage, *_result(stage, lane), _finish(stage, lane, limits), None, stage.reduce,
                _operand(value, (lane,), _format(value.dtype)), combine=_POOLS[stage.combine or "add"])


def _map(stage: Stage) -> Work:
    loads = [e for e in walk(stage.value) if isinstance(e, Load)]
    if not loads or (stage.value is loads[0] and loads[0].buffer.scope == "param"):
        raise Refused("constants and copies of what the host has are left to the host")
    lane = _lane(stage, loads)
    return Work("map", stage, *_result(stage, lane), epilogue(stage.value, stage.out.dtype, _reader(stage, lane)))


def _lane(stage: Stage, loads: Iterable[Load]) -> Axis | None:
    """The axis to lay along lanes: an index by itself wherever it stands. Without one, one lane works."""
    good = [axis for axis in reversed(stage.axes) if _alone(axis, stage.index) is not None
            and all(_alone(axis, load.index) is not None for load in loads if axis in _axes(load))]
    return max(good, key=lambda axis: sum(axis in _axes(load) for load in loads)) if good else None


# -- operands ------------------------------------------------------------------------------------------------------


def _finish(stage: Stage, lane: Axis | None, reduced: Range) -> Epilogue:
    root = stage.finish if stage.finish is not None else Reduced(stage.value.dtype)
    return epilogue(root, stage.out.dtype, _reader(stage, lane), reduced)


def _reader(stage: Stage, lane: Axis | None) -> OperandOf:
    def read(load: Load) -> Operand:
        _limits(load)
        blocks = (lane if lane in _axes(load) else None,)
        return _operand(load, blocks, _format(load.dtype), spread=True)
    return read


def _result(stage: Stage, lane: Axis | None) -> tuple[Operand, Axis | None, tuple[Axis, ...]]:
    """The result's operand, its lane, its other axes in the order of its dimensions."""
    if of_dtype(stage.out.dtype) is None:
        raise Refused(f"the result is of {stage.out.dtype}; the accelerator works on integers")
    out = _touched(stage.out, stage.index, (lane,), _format(stage.out.dtype))
    rows = []
    for place in out.index:
        if len(place.terms) > 1 or any(factor != 1 for _, factor in place.terms):
            raise Refused("the result is not written element after element")
        rows += [axis for axis, _ in place.terms]
    return out, lane, tuple(rows)


def _operand(load: Load, blocks: tuple[Axis | None, ...], form: Format, *, spread: bool = False) -> Operand:
    if not all(isinstance(place, Affine) for place in load.index):
        raise Refused(f"{load.buffer.name} is read at positions that are computed")
    places = tuple(place for place in load.index if isinstance(place, Affine))
    if any(factor < 0 for place in places for _, factor in place.terms):
        raise Refused(f"{load.buffer.name} is read backwards")
    return _touched(load.buffer, places, blocks, form, spread=spread)


def _touched(buffer: Buffer, index: tuple[Affine, ...], blocks: tuple[Axis | None, ...], form: Format, *,
             spread: bool = False) -> Operand:
    lanes = tuple(None if axis is None else _alone(axis, index) for axis in blocks)
    made = Form(buffer, form, lanes, spread and lanes == (None,))
    return Operand(made, blocks, tuple(index[d] for d in made.others))


def _format(dtype: str) -> Format:
    return "narrow" if dtype == "int8" else "wide"


def _limits(load: Load) -> Range:
    limits = of_dtype(load.dtype)
    if limits is None or limits[0] < -(1 << 31) or limits[1] >= 1 << 31:
        raise Refused(f"{load.buffer.name} is of {load.dtype}; the accelerator reads integers of at most 32 bits")
    return limits


def _axes(load: Load) -> frozenset[Axis]:
    return frozenset(axis for place in load.index if isinstance(place, Affine) for axis in place.axes())


def _alone(axis: Axis, index: tuple[object, ...]) -> int | None:
    """The dimension of which the axis is the position, if it is one's by itself and in no other."""
    found = [d for d, place in enumerate(index) if isinstance(place, Affine) and axis in place.axes()]
    if len(found) != 1:
        return None
    place = index[found[0]]
    return found[0] if place == Affine.of(axis) else None


def _widens(cast: Cast) -> bool:
    outer, inner = of_dtype(cast.dtype), of_dtype(cast.arg.dtype)
    return outer is not None and inner is not None and outer[0] <= inner[0] and inner[1] <= outer[1]

