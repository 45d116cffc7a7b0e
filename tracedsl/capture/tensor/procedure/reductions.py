"""Reductions and products inside of statements: loops that accumulate.

What holds here: sums are at least as accurate as NumPy's (`Sum`; along other axes than the last one, row is added to
row, as NumPy does). Extrema keep NaN, as NumPy's. An empty extremum is guarded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracedsl.capture.tensor.procedure.emitting import ONE, ZERO
from tracedsl.capture.tensor.procedure.indexing import Indexing
from tracedsl.capture.tensor.procedure.values import (
    Array,
    Known,
    Refused,
    Scalar,
    Several,
    Value,
    converted,
    loop_dtypes,
)
from tracedsl.ir.dtypes import is_float
from tracedsl.ir.statements import Apply, Assign, Const, Element, Expr, If, Loop, Store, Sum, Var

OF_NUMPY: dict[Any, str] = {getattr(np, name): kind for kind, names in {
    "sum": ("sum",), "mean": ("mean",), "max": ("max", "amax"), "min": ("min", "amin"), "prod": ("prod",),
    "any": ("any",), "all": ("all",), "argmax": ("argmax",), "argmin": ("argmin",), "cumsum": ("cumsum",)}.items()
    for name in names}
REDUCTIONS = frozenset(OF_NUMPY.values())
_COMBINE = {"max": "maximum", "min": "minimum", "prod": "mul", "any": "or", "all": "and"}


class Reductions(Indexing):
    """What makes few numbers of many."""

    def reduction(self, kind: str, args: Sequence[Value], keywords: dict[str, Value]) -> Value:
        """`a.kind(axis, keepdims=...)` or `np.kind(a, ...)`."""
        a, *rest = args
        if not isinstance(a, Array) or len(rest) > 1 or set(keywords) - {"axis", "keepdims"}:
            raise Refused(f"{kind} with options")
        axes = self._axes(rest[0] if rest else keywords.get("axis", Known(None)), len(a.extents))
        keep = keywords.get("keepdims", Scalar(Const(False, "bool"), True))
        if not isinstance(keep, Scalar) or not isinstance(keep.expr, Const):
            raise Refused("keepdims that is not known")
        if kind in ("argmax", "argmin", "cumsum"):
            if len(a.extents) != 1 or keep.expr.value:
                raise Refused(f"{kind} of an array of several axes")
            return self._running_sum(a) if kind == "cumsum" else self._position_of(kind, a)
        found = self._reduced(kind, a, axes)
        if not keep.expr.value:
            return found
        if isinstance(found, Scalar):
            made = self.allocated(found.expr.dtype, [ONE] * len(a.extents), False)
            self.fill(made, found)
            return made
        view = found.view
        assert view is not None
        kept = iter(view.axes)
        return self.viewed(type(view)(view.array, view.start, tuple(
            (None, 1, ONE) if axis in axes else next(kept) for axis in range(len(a.extents)))))

    @staticmethod
    def _axes(given: Value, rank: int) -> tuple[int, ...]:
        if isinstance(given, Known) and given.value is None:
            return tuple(range(rank))
        parts = given.parts if isinstance(given, Several) else (given,)
        found = []
        for part in parts:
            if not isinstance(part, Scalar) or not isinstance(part.expr, Const) \
                    or not -rank <= int(part.expr.value) < rank:
                raise Refused("an axis that is not a number in the text")
            found.append(int(part.expr.value) % rank)
        if len(set(found)) != len(found):
            raise Refused("an axis that is named twice")
        return tuple(sorted(found))

    def _reduced(self, kind: str, a: Array, axes: tuple[int, ...]) -> Scalar | Array:
        if kind == "mean":
            return self._mean(a, axes)
        if not axes:
            raise Refused("a reduction over no axis")
        dtype = "bool" if kind in ("any", "all") else a.dtype if kind in ("max", "min") else \
            getattr(np.zeros(1, a.dtype), kind)().dtype.name
        if a.dtype == "bool" and kind in ("max", "min"):
            raise Refused(f"{kind} of booleans")
        extents = tuple(self.held(e) for e in a.extents)
        if kind in ("max", "min"):
            for axis in axes:
                self.guard(Apply("gt", (extents[axis], ZERO), "int64", "bool"))
        if len(axes) == len(extents):
            return self._to_number(kind, a, extents, dtype)
        return self._along(kind, a, extents, axes, dtype)

    def _mean(self, a: Array, axes: tuple[int, ...]) -> Scalar | Array:
        if not is_float(a.dtype):
            given = a
            a = Array("float64", a.extents, lambda index: converted(given.at(index), "float64"), a.reads)
        total = self._reduced("sum", a, axes)
        count: Expr = ONE
        for axis in axes:
            count = self.types.integer("mul", count, a.extents[axis])
        return self.ufunc(np.true_divide, (total, Scalar(converted(self.held(count), a.dtype))))

    def _indices(self, count: int) -> list[Var]:
        names = [self.fresh("k") for _ in range(count)]
        self.types.bits.update(dict.fromkeys(names, 41))
        return [Var(name, "int64") for name in names]

    def _to_number(self, kind: str, a: Array, extents: Sequence[Expr], dtype: str) -> Scalar:
        name, index = self.fresh(kind), self._indices(len(extents))
        if kind == "sum":
            self.emit(Sum(name, tuple(i.name for i in index), tuple(extents), converted(a.at(index), dtype)))
            return Scalar(Var(name, dtype))
        first = a.at([ZERO] * len(extents)) if kind in ("max", "min") else Const(kind in ("prod", "all"), "bool")
        self.emit(Assign(name, converted(first, dtype)))
        step = Apply(_COMBINE[kind], (Var(name, dtype), converted(a.at(index), dtype)), dtype, dtype)
        body: tuple[Any, ...] = (Assign(name, step),)
        for i, extent in reversed(list(zip(index, extents))):
            body = (Loop(self.fresh("over"), i.name, ZERO, extent, 1, body),)
        self.out.extend(body)
        return Scalar(Var(name, dtype))

    def _along(self, kind: str, a: Array, extents: Sequence[Expr], axes: tuple[int, ...], dtype: str) -> Array:
        """Some axes are kept: each number by itself if the last one is reduced, else row by row."""
        kept = [axis for axis in range(len(extents)) if axis not in axes]
        made = self.allocated(dtype, [extents[axis] for axis in kept], False)
        assert made.view is not None
        index = self._indices(len(extents))
        place = [index[axis] for axis in kept]
        if axes[-1] == len(extents) - 1:
            def one() -> None:
                inner = [index[axis] for axis in axes]
                given = Array(a.dtype, tuple(extents[axis] for axis in axes), lambda at: a.at(
                    [dict(zip(axes, at)).get(axis, index[axis]) for axis in range(len(extents))]))
                assert len(inner) == len(given.extents)
                number = self._to_number(kind, given, given.extents, dtype)
                self.emit(Store(made.reads[0].array, tuple(place), number.expr, False))

            body = self.nested(one)
        else:
            def first(at: Sequence[Expr]) -> Expr:
                if kind not in ("max", "min"):
                    return Const(kind in ("prod", "all"), "bool")
                given = iter(at)
                return a.at([ZERO if axis in axes else next(given) for axis in range(len(extents))])

            self.emit_loops(made.view, first, dtype)
            before = Element(made.view.array, tuple(place), dtype, False)
            step = Apply("add" if kind == "sum" else _COMBINE[kind], (before, converted(a.at(index), dtype)), dtype,
                         dtype)
            body = (Store(made.view.array, tuple(place), step, False),)
            kept = [*axes, *kept]
        free = bool(set(kept) & set(axes))      # row after row: a row's numbers are apart
        for number, axis in enumerate(reversed(kept)):
            body = (Loop(self.fresh("over"), index[axis].name, ZERO, extents[axis], 1, body, free and number == 0),)
        self.out.extend(body)
        return made

    def _position_of(self, kind: str, a: Array) -> Scalar:
        """The first of the largest (smallest); a NaN is either."""
        if a.dtype == "bool":
            raise Refused(f"{kind} of booleans")
        extent = self.held(a.extents[0])
        self.guard(Apply("gt", (extent, ZERO), "int64", "bool"))
        (index,), best, at = self._indices(1), self.fresh("best"), self.fresh("at")
        self.types.bits[at] = 41
        self.emit(Assign(best, a.at((ZERO,))))
        self.emit(Assign(at, ZERO))
        now, new = Var(best, a.dtype), self.fresh("new")
        value = Var(new, a.dtype)
        better: Expr = Apply("gt" if kind == "argmax" else "lt", (value, now), a.dtype, "bool")
        if is_float(a.dtype):
            nan = [Apply("ne", (v, v), a.dtype, "bool") for v in (value, now)]
            first = Apply("and", (nan[0], Apply("not", (nan[1],), "bool", "bool")), "bool", "bool")
            better = Apply("or", (better, first), "bool", "bool")
        take = (Assign(best, value), Assign(at, index))
        self.emit(Loop(self.fresh("over"), index.name, ONE, extent, 1, (Assign(new, a.at((index,))), If(better, take))))
        return Scalar(Var(at, "int64"))

    def _running_sum(self, a: Array) -> Array:
        dtype = np.zeros(1, a.dtype).cumsum().dtype.name
        made = self.allocated(dtype, [self.held(a.extents[0])], False)
        assert made.view is not None
        (index,), total = self._indices(1), self.fresh("sum")
        self.emit(Assign(total, converted(Const(-0.0, "float64") if is_float(dtype) else ZERO, dtype)))
        more = Apply("add", (Var(total, dtype), converted(a.at((index,)), dtype)), dtype, dtype)
        body = (Assign(total, more), Store(made.view.array, (index,), Var(total, dtype), False))
        self.emit(Loop(self.fresh("over"), index.name, ZERO, made.extents[0], 1, body))
        return made

    # -- products -----------------------------------------------------------------------------------------------

    def dot(self, a: Value, b: Value) -> Value:
        """Of vectors and matrices."""
        if not isinstance(a, Array) or not isinstance(b, Array) or not a.extents or not b.extents:
            raise Refused("a product of these")
        _, dtype = loop_dtypes(np.multiply, (a, b))
        if dtype == "bool" or len(a.extents) > 2 or len(b.extents) > 2:
            raise Refused("a product of these")
        self.guard(Apply("eq", (a.extents[-1], b.extents[0]), "int64", "bool"))
        depth = self.held(a.extents[-1])
        x, y = (v if v.view is not None else self.materialised(v) for v in (a, b))      # read more than once
        rows, columns = a.extents[:-1], b.extents[1:]

        def factors(k: Expr, row: Sequence[Expr], column: Sequence[Expr]) -> Expr:
            return Apply("mul", (converted(x.at((*row, k)), dtype), converted(y.at((k, *column)), dtype)), dtype, dtype)

        if not columns:
            both = Array(dtype, (*rows, depth), lambda at: factors(at[-1], at[:-1], ()))
            if not is_float(dtype) and not dtype.endswith("64"):
                raise Refused("a product of whole numbers of less than 64 bits")
            return self._reduced("sum", both, (len(rows),))
        return self._rank_by_rank(rows, columns, depth, factors, dtype)

    def _rank_by_rank(self, rows: Sequence[Expr], columns: Sequence[Expr], depth: Expr,
                      factors: Callable[[Expr, Sequence[Expr], Sequence[Expr]], Expr], dtype: str) -> Array:
        """out[row] += a[row, k] * b[k], whose loop over columns runs through memory."""
        made = self.allocated(dtype, [self.held(e) for e in (*rows, *columns)], True)
        assert made.view is not None
        row, column, (k,) = self._indices(len(rows)), self._indices(1), self._indices(1)
        place = (*row, *column)
        step = Apply("add", (Element(made.view.array, place, dtype, False), factors(k, row, column)), dtype, dtype)
        body: tuple[Any, ...] = (Store(made.view.array, place, step, False),)
        for i, extent in ((column[0], made.extents[-1]), (k, depth), *zip(row, made.extents)):
            body = (Loop(self.fresh("over"), i.name, ZERO, extent, 1, body, free=i is column[0]),)
        self.out.extend(body)
        return made

    def materialised(self, value: Array) -> Array:
        raise NotImplementedError

