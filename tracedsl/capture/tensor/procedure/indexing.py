"""Indices and slices: a subscript is a view (start, step, extent along each axis) or the position of one element.

What holds here: positions and extents are expressions; slices are clipped as `slice.indices` does.
"""

from __future__ import annotations

import ast

from tracedsl.capture.tensor.procedure.arithmetic import Arithmetic
from tracedsl.capture.tensor.procedure.emitting import ONE, ZERO, position
from tracedsl.capture.tensor.procedure.values import (
    Array,
    Refused,
)
from tracedsl.ir.statements import (
    Apply,
    Const,
    Element,
    Expr,
    Extent,
    View,
)


class Indexing(Arithmetic):
    """Subscripts."""

    def place(self, owner: Array, node: ast.expr) -> View | tuple[Expr, ...]:
        """The view that an index means, or the position of a single element (with `...` it is a view)."""
        view = owner.view
        assert view is not None
        parts = list(node.elts) if isinstance(node, ast.Tuple) else [node]
        rank = len(owner.extents)
        taken = sum(not _is_new(p) and not _is_dots(p) for p in parts)
        if taken > rank:
            raise Refused("too many indices", node)
        fill: list[ast.expr] = [ast.Slice() for _ in range(rank - taken)]
        count = len(parts)
        dots = next((i for i, p in enumerate(parts) if _is_dots(p)), count)
        parts = parts[:dots] + fill + parts[dots + 1:]
        whole = self.whole(view)
        single = dots == count and not any(isinstance(p, ast.Slice) or _is_new(p) for p in parts)
        if whole and single:
            return tuple(self.integer(p) for p in parts)
        start, at = list(view.start), 0
        axes: list[tuple[int | None, int, Expr]] = []
        for part in parts:
            if _is_new(part):
                axes.append((None, 1, ONE))
                continue
            axis, step, extent = view.axes[at]
            at += 1
            if isinstance(part, ast.Slice):
                first, by, size = self.sliced(part, extent)
                if axis is not None:
                    start[axis] = self._plus(start[axis], first, step)
                axes.append((axis, step * by, size))
            else:
                index = self._in_range(self.integer(part), extent)
                if axis is not None:
                    start[axis] = self._plus(start[axis], index, step)
        if single:
            return tuple(start)
        return View(view.array, tuple(start), tuple(axes))

    def _plus(self, start: Expr, by: Expr, step: int) -> Expr:
        moved = by if step == 1 else self.types.integer("mul", by, Const(step))
        return self.types.integer("add", start, moved)

    def _in_range(self, index: Expr, extent: Expr) -> Expr:
        index = self.held(index)
        if isinstance(index, Const):
            index = index if int(index.value) >= 0 else self.held(self.types.integer("add", extent, index))
        else:
            negative = Apply("lt", (index, ZERO), "int64", "bool")
            index = self.held(Apply("select", (negative, self.types.integer("add", index, extent), index), "int64",
                                    "int64"))
        self.guard(Apply("ge", (index, ZERO), "int64", "bool"))
        self.guard(Apply("lt", (index, extent), "int64", "bool"))
        return index

    def sliced(self, node: ast.Slice, extent: Expr) -> tuple[Expr, int, Expr]:
        """First position, step and size of a slice of an axis, as `slice.indices`."""
        step = self.integer(node.step) if node.step is not None else ONE
        if not isinstance(step, Const) or not step.value:
            raise Refused("a step that is not a number in the text", node)
        by, integer = int(step.value), self.types.integer
        low: Expr = ZERO if by > 0 else Const(-1)
        high = extent if by > 0 else integer("sub", extent, ONE)
        if node.lower is None and node.upper is None and by == 1:
            return ZERO, 1, extent
        if node.lower is not None and _is_next(node.lower, node.upper) and by == 1:      # `a[k:k+1]` is one row
            first = self.held(self.integer(node.lower))
            self.guard(Apply("ge", (first, ZERO), "int64", "bool"))
            self.guard(Apply("lt", (first, extent), "int64", "bool"))
            return first, 1, ONE

        def clipped(part: ast.expr | None, default: Expr) -> Expr:
            if part is None:
                return default
            e = self.held(self.integer(part))
            if isinstance(e, Const):
                if int(e.value) >= 0:
                    return Apply("minimum", (e, high), "int64", "int64") if e != low else e
                return Apply("maximum", (integer("add", extent, e), low), "int64", "int64")
            wrapped = Apply("select", (Apply("lt", (e, ZERO), "int64", "bool"), integer("add", e, extent), e), "int64",
                            "int64")
            inner = Apply("maximum", (wrapped, low), "int64", "int64")
            return Apply("minimum", (inner, high), "int64", "int64")

        first = self.held(clipped(node.lower, low if by > 0 else high))
        last = self.held(clipped(node.upper, high if by > 0 else low))
        span = integer("sub", last, first) if by > 0 else integer("sub", first, last)
        if abs(by) > 1:
            span = Apply("floordiv", (integer("add", span, Const(abs(by) - 1)), Const(abs(by))), "int64", "int64")
        return first, by, self.held(Apply("maximum", (span, ZERO), "int64", "int64"))

    def whole(self, view: View) -> bool:
        """Whether a view is its whole array, as it lies."""
        rank = self.arrays[view.array].rank
        return view == self.full(view.array, rank)

    def full(self, array: str, rank: int) -> View:
        ones = self.arrays[array].ones
        return View(array, (ZERO,) * rank, tuple((d, 1, ONE if d in ones else Extent(array, d)) for d in range(rank)))

    def viewed(self, view: View) -> Array:
        dtype = self.arrays[view.array].dtype
        return Array(dtype, tuple(extent for _, _, extent in view.axes),
                     lambda index: Element(view.array, position(view, index), dtype, False), (view,), view)


def _is_new(node: ast.expr) -> bool:
    return (isinstance(node, ast.Constant) and node.value is None) or \
        (isinstance(node, ast.Attribute) and node.attr == "newaxis")


def _is_next(low: ast.expr, high: ast.expr | None) -> bool:
    return isinstance(high, ast.BinOp) and isinstance(high.op, ast.Add) and ast.dump(high.left) == ast.dump(low) \
        and isinstance(high.right, ast.Constant) and high.right.value == 1 and isinstance(low, ast.Name)


def _is_dots(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis
