"""Positions: how the views of the tensor dialect move an index, and how a buffer is seen by another shape.

What holds here: an index has one entry a dimension; an entry is `Affine` wherever that is possible, otherwise an
integer expression (a gather). Nothing here knows graphs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from tracedsl.ir.expr import Affine, Axis, Buffer, Call, Const, Expr, Index, Position
from tracedsl.ir.tensor import row_major


def scaled(index: Index, factor: int, offset: int) -> Index:
    """index * factor + offset."""
    if isinstance(index, Affine):
        return index * factor + offset
    moved: Expr = index if factor == 1 else Call("int64", "mul", (index, Const("int64", factor)))
    return moved if offset == 0 else Call("int64", "add", (moved, Const("int64", offset)))


def weighted(index: Sequence[Index], factors: Sequence[int], offset: int) -> Index:
    """offset + the sum of factor * entry."""
    affine, others = Affine((), offset), list[Expr]()
    for entry, factor in zip(index, factors, strict=True):
        if isinstance(entry, Affine):
            affine = affine + entry * factor
        elif factor:
            others.append(as_expr(scaled(entry, factor, 0)))
    total: Index = affine
    for other in others:
        total = Call("int64", "add", (as_expr(total), other))
    return total


def as_expr(index: Index) -> Expr:
    return Position("int64", index) if isinstance(index, Affine) else index


def flat_position(index: Sequence[Index], strides: Sequence[int], shape: Sequence[int]) -> Affine | None:
    """The distance in elements from the first one; None if an entry is not affine. Dimensions of extent 1 add
    nothing."""
    total = Affine()
    for entry, stride, extent in zip(index, strides, shape, strict=True):
        if extent == 1:
            continue
        if not isinstance(entry, Affine):
            return None
        total = total + entry * stride
    return total


def unflatten(flat: Affine, shape: Sequence[int]) -> tuple[Affine, ...] | None:
    """The index of element number `flat` of a row-major tensor; None if it is not affine in every dimension.

        flat = 6*a + 3*b + c, b in 2, c in 3, shape (8, 3)   ->   (2*a + b, c)
    """
    index: list[Affine] = []
    for extent, stride in zip(shape, row_major(shape), strict=True):
        if extent == 1:
            index.append(Affine())
            continue
        here = Affine((), flat.constant // stride)
        rest = Affine((), flat.constant % stride)
        for axis, factor in flat.terms:
            if factor % stride == 0:
                here = here + Affine.of(axis, factor // stride)
            else:
                rest = rest + Affine.of(axis, factor)
        low, high = rest.bounds()
        if low < 0 or high >= stride or here.bounds()[0] < 0 or here.bounds()[1] >= extent:
            return None
        index.append(here)
        flat = rest
    return tuple(index) if not flat.terms and flat.constant == 0 else None


def common_refinement(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...] | None:
    """The coarsest shape that both shapes are merges of; None if there is none.

        (4, 6), (8, 3)   ->   (4, 2, 3)
    """
    if math.prod(one) != math.prod(other):
        return None
    cuts = sorted({*_suffix_products(one), *_suffix_products(other)})
    if any(big % small for small, big in itertools.pairwise(cuts)):
        return None
    return tuple(big // small for small, big in itertools.pairwise(cuts))[::-1]


def _suffix_products(shape: Sequence[int]) -> list[int]:
    products = [1]
    for extent in reversed(shape):
        products.append(products[-1] * extent)
    return products


def seen_as(buffer: Buffer, shape: Sequence[int]) -> Buffer:
    """The same memory by another shape; the buffer must be row-major."""
    return Buffer.row_major(buffer.name, buffer.dtype, shape, buffer.scope)


def is_row_major(buffer: Buffer) -> bool:
    expected = row_major(buffer.shape)
    return all(n == 1 or s == e for n, s, e in zip(buffer.shape, buffer.strides, expected))


def depends_on(index: Sequence[Index], axis: Axis) -> bool:
    """Whether an affine entry moves with the axis (expressions are taken to)."""
    return any(not isinstance(entry, Affine) or entry.coefficient(axis) != 0 for entry in index)
