"""Assignments and writes into arrays.

What holds here: a write of an array expression goes straight into its place where nothing that it reads can be there;
where that shows only at the call, both ways are made. Casts are those that NumPy makes on assignment.
"""

from __future__ import annotations

import ast
from dataclasses import replace

import numpy as np

from tracedsl.capture.tensor.procedure.emitting import ONE, spread
from tracedsl.capture.tensor.procedure.values import (
    Array,
    Refused,
    Scalar,
    Several,
    Value,
    converted,
)
from tracedsl.capture.tensor.procedure.variables import Variables
from tracedsl.ir.dtypes import is_float, is_integer
from tracedsl.ir.statements import (
    Allocate,
    Apply,
    ArrayType,
    Const,
    Element,
    Expr,
    Free,
    If,
    Overlap,
    Store,
    View,
)


class Writes(Variables):
    """Targets of assignments."""

    def _to(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            if not isinstance(value, Several) or len(value.parts) != len(target.elts):
                raise Refused("this unpacking", target)
            parts = [self._kept(part) for part in value.parts]
            for inner, part in zip(target.elts, parts):
                self._to(inner, part)
        elif isinstance(target, ast.Name):
            self._to_name(target.id, value)
        elif isinstance(target, ast.Subscript):
            owner = self.value(target.value)
            if not isinstance(owner, Array) or owner.view is None:
                raise Refused("a write into this", target)
            self._store(owner.view.array, self.place(owner, target.slice), value)
        else:
            raise Refused("an assignment to this", target)

    def _do_augassign(self, node: ast.AugAssign) -> None:
        target = node.target
        if isinstance(target, ast.Name):
            before = self.value(ast.copy_location(ast.Name(target.id, ast.Load()), target))
            after = self._operated(node, before)
            if isinstance(before, Array) and before.view is not None:
                self._in_place(before.view, before.dtype, after)
            else:
                self._to_name(target.id, after)
            return
        if not isinstance(target, ast.Subscript):
            raise Refused("an assignment to this", target)
        owner = self.value(target.value)
        if not isinstance(owner, Array) or owner.view is None:
            raise Refused("a write into this", target)
        where = self.place(owner, target.slice)
        if isinstance(where, View):
            view = self.viewed(where)
            self._in_place(where, owner.dtype, self._operated(node, view))
        else:
            where = tuple(self.held(e) for e in where)
            before = Scalar(self.held(Element(owner.view.array, where, owner.dtype), "e"))
            self._store(owner.view.array, where, self._operated(node, before))

    def _operated(self, node: ast.AugAssign, before: Value) -> Value:
        if isinstance(node.op, ast.MatMult):
            raise Refused("@=", node)
        return self.binary(node.op, before, self.value(node.value))

    def _in_place(self, view: View, dtype: str, value: Value) -> None:
        """`view op= ...`, where NumPy allows casts of the same kind only."""
        given = value.dtype if isinstance(value, Array) else None
        if given is None or not np.can_cast(given, dtype, "same_kind"):
            raise Refused("an in-place operation whose result does not fit the array")
        self._store(view.array, view, value)

    def _store(self, array: str, where: View | tuple[Expr, ...], value: Value) -> None:
        dtype = self.arrays[array].dtype
        if isinstance(value, Scalar):
            value = replace(value, expr=self._set_item(value, dtype))
        if not isinstance(where, View):
            if not isinstance(value, Scalar):
                raise Refused("an array as one element")
            self.emit(Store(array, where, value.expr))
        elif isinstance(value, Scalar):
            fixed = self.held(value.expr)
            self.emit_loops(where, lambda _: fixed, dtype)
        elif isinstance(value, Array):
            self._store_array(where, value, dtype)
        else:
            raise Refused("a write of this")
        self._held.clear()      # what was held may have been read from here

    def _set_item(self, value: Scalar, dtype: str) -> Expr:
        """A number as an element. Raises the guard where Python's number does not fit."""
        e = value.expr
        if is_integer(dtype) and is_float(e.dtype):
            if value.weak or value.mixed or dtype not in ("int64", "int32"):
                raise Refused("a float as an element of whole numbers")
            return converted(e, dtype)
        if value.weak and is_integer(dtype) and e.dtype == "int64" and dtype != "int64":
            info = np.iinfo(dtype)
            e = self.held(e)
            self.guard(Apply("ge", (e, Const(int(info.min))), "int64", "bool"))
            if int(info.max) < 1 << 62:
                self.guard(Apply("le", (e, Const(int(info.max))), "int64", "bool"))
        return converted(converted(e, "float64"), dtype) if value.weak and is_float(dtype) else converted(e, dtype)

    def fill(self, target: Array, value: Scalar) -> None:
        assert target.view is not None
        self._store(target.view.array, target.view, value)

    def _store_array(self, where: View, value: Array, dtype: str) -> None:
        extents = [extent for _, _, extent in where.axes]
        extra = len(value.extents) - len(extents)
        if extra > 0:
            raise Refused("a write of an array of more dimensions")
        for own, extent in zip(value.extents, extents[-extra or len(extents):] if extra else extents):
            if own not in (ONE, extent):
                self.guard(Apply("eq", (own, extent), "int64", "bool"))
        tests = [Overlap(where, read) for read in dict.fromkeys(value.reads)
                 if read != where and self.roots[where.array] & self.roots[read.array]]

        def direct() -> None:
            self.emit_loops(where, lambda index: spread(value, index), dtype)

        if not tests:
            direct()
            return
        test: Expr = tests[0]
        for other in tests[1:]:
            test = Apply("or", (test, other), "bool", "bool")
        self.emit(If(test, self.nested(lambda: self._through_scratch(where, value, dtype)), self.nested(direct)))

    def _through_scratch(self, where: View, value: Array, dtype: str) -> None:
        name = self.fresh("old")
        ones = tuple(axis for axis, extent in enumerate(value.extents) if extent == ONE)
        self._array_type(name, ArrayType(dtype, len(value.extents), ones=ones))
        self._add_roots(name, frozenset({name}))
        self.emit(Allocate(name, value.extents, scratch=True))
        whole = self.full(name, len(value.extents))
        self.emit_loops(whole, value.at, dtype)
        copied = self.viewed(whole)
        copied = replace(copied, extents=value.extents)
        self.emit_loops(where, lambda index: spread(copied, index), dtype)
        self.emit(Free(name))
