"""A plain interpreter of loop nests: what they mean, one element at a time, computed by NumPy's own scalars.

It shares nothing with the code generators. Arrays are given with any strides; a position outside of an array that a
selection does not choose is never looked at.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tracedsl.ir.expr import Affine, Axis, Buffer, Call, Cast, Const, Expr, Load, Position
from tracedsl.ir.loops import Alloc, For, LoopProgram, Stmt, Store, Update, When
from tracedsl.ir.tensor import numpy_function

Array = np.ndarray[Any, Any]
Point = dict[Axis, int]


def interpret(program: LoopProgram, params: Sequence[Array]) -> list[Array]:
    """The results of a loop program; what it does not write stays 0."""
    buffers: dict[str, Array] = {b.name: array for b, array in zip(program.params, params, strict=True)}
    for b in (*program.results, *program.temps):
        buffers[b.name] = np.zeros(b.shape, b.dtype)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for nest in program.nests:
            _run(nest.body, buffers, {}, None)
    return [buffers[b.name] for b in program.results]


def _run(body: Sequence[Stmt], buffers: dict[str, Array], point: Point, lanes: Axis | None) -> None:
    for step in body:
        match step:
            case For(kind="vector"):
                _run(step.body, buffers, point, step.axis)
            case For():
                steps = step.axis.extent if step.until is None else min(step.axis.extent, _affine(step.until, point))
                for number in range(steps):
                    _run(step.body, buffers, {**point, step.axis: number}, lanes)
            case When():
                if _affine(step.position, point) >= 0:
                    _run(step.body, buffers, point, lanes)
            case Alloc():
                empty = np.full(step.buffer.shape, 99, step.buffer.dtype)
                _run(step.body, {**buffers, step.buffer.name: empty}, point, lanes)
            case Store() | Update():
                _write(step, buffers, point, lanes)


def _write(step: Store | Update, buffers: dict[str, Array], point: Point, lanes: Axis | None) -> None:
    """All lanes compute before the first one writes."""
    points = list(_points(point, lanes))
    values = [_value(step.value, buffers, p) for p in points]
    target = buffers[step.buffer.name]
    for p, value in zip(points, values, strict=True):
        at = tuple(_affine(i, p) for i in step.index)
        assert all(0 <= a < extent for a, extent in zip(at, target.shape, strict=True)), "write outside of the buffer"
        if isinstance(step, Update):
            value = numpy_function(step.combine)(target[at], value)
        target[at] = value


def _points(point: Point, lanes: Axis | None) -> Iterator[Point]:
    if lanes is None:
        yield point
    else:
        for lane in range(lanes.extent):
            yield {**point, lanes: lane}


def _affine(index: Affine, point: Point) -> int:
    return index.constant + sum(factor * point[axis] for axis, factor in index.terms)


def _value(expr: Expr, buffers: dict[str, Array], point: Point) -> Any:
    match expr:
        case Const():
            return np.dtype(expr.dtype).type(expr.value)
        case Position():
            return np.int64(_affine(expr.index, point)).astype(expr.dtype)
        case Load():
            at = tuple(_affine(i, point) if isinstance(i, Affine) else int(_value(i, buffers, point))
                       for i in expr.index)
            assert all(0 <= a < extent for a, extent in zip(at, expr.buffer.shape, strict=True)), "read outside"
            return buffers[expr.buffer.name][at]
        case Cast():
            return _value(expr.arg, buffers, point).astype(expr.dtype)
        case Call(op="select", args=(condition, then, otherwise)):
            return _value(then if _value(condition, buffers, point) else otherwise, buffers, point)
        case Call():
            return numpy_function(expr.op)(*(_value(a, buffers, point) for a in expr.args))
    raise TypeError(f"not an expression of a loop nest: {expr!r}")


def laid_out(buffer: Buffer, values: Array) -> Array:
    """An array with these values whose strides are the buffer's; it lies in the middle of memory of its own."""
    reach = [range(extent) for extent in buffer.shape]
    offsets = [sum(s * i for s, i in zip(buffer.strides, at)) for at in itertools.product(*reach)] or [0]
    low, high = min(offsets), max(offsets)
    memory = np.zeros(high - low + 1, buffer.dtype)
    start = memory[-low:]
    strides = tuple(s * memory.itemsize for s in buffer.strides)
    array = np.lib.stride_tricks.as_strided(start, buffer.shape, strides)
    array[...] = values
    return array
