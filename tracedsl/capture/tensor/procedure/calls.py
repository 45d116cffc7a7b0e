"""Calls: ufuncs, reductions, products, new arrays, numbers of Python; anything else is inlined by an heir.

What holds here: functions are recognised by identity, as everywhere in capture.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracedsl.capture.tensor.procedure.emitting import ZERO, spread
from tracedsl.capture.tensor.procedure.reductions import OF_NUMPY, REDUCTIONS, Reductions
from tracedsl.capture.tensor.procedure.values import (
    DTYPES,
    OF_MATH,
    OP_OF,
    Array,
    Known,
    Refused,
    Scalar,
    Several,
    Value,
    converted,
    fits_weakly,
    index_type,
    loop_dtypes,
)
from tracedsl.ir.dtypes import is_float
from tracedsl.ir.statements import (
    Apply,
    Const,
    Expr,
)

_SIZES = (np.zeros, np.ones, np.empty, np.full, np.zeros_like, np.ones_like, np.empty_like, np.full_like)


class Calls(Reductions):
    """What a call gives."""

    def _call(self, node: ast.Call) -> Value:
        if isinstance(node.func, ast.Attribute):
            owner = self.value(node.func.value)
            if isinstance(owner, Array):
                return self._method(owner, node.func.attr, node)
        callee = self.value(node.func)
        if not isinstance(callee, Known):
            raise Refused(f"the call of {ast.unparse(node.func)}", node)
        args, keywords = self._given(node)
        return self.called(callee.value, args, keywords, node)

    def _given(self, node: ast.Call) -> tuple[list[Value], dict[str, Value]]:
        if any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords):
            raise Refused("a call with * or **", node)
        return [self.value(a) for a in node.args], {str(k.arg): self.value(k.value) for k in node.keywords}

    def _method(self, owner: Array, name: str, node: ast.Call) -> Value:
        args, keywords = self._given(node)
        if name in REDUCTIONS:
            return self.reduction(name, [owner, *args], keywords)
        if name == "dot" and len(args) == 1 and not keywords:
            return self.dot(owner, args[0])
        if name == "copy" and not args and not keywords:
            return self.materialised(owner)
        if name == "fill" and len(args) == 1 and isinstance(args[0], Scalar):
            self.fill(owner, args[0])
            return Known(None)
        raise Refused(f"the method .{name}", node)

    def called(self, f: Any, args: list[Value], keywords: dict[str, Value], node: ast.Call) -> Value:
        if f in _SIZES:
            return self._made(f, args, keywords)
        if f in OF_NUMPY and args and isinstance(args[0], Array):
            return self.reduction(OF_NUMPY[f], args, keywords)
        if keywords and not hasattr(f, "__code__"):
            raise Refused(f"{getattr(f, '__name__', f)} with options", node)
        if f in OF_MATH and all(isinstance(a, Scalar) for a in args):
            return self._of_math(OF_MATH[f], args)
        if isinstance(f, np.ufunc) and f.nin == len(args) and all(isinstance(a, Scalar | Array) for a in args):
            return self.ufunc(f, args)      # type: ignore[arg-type]
        if f is len and isinstance(args[0], Array) and args[0].extents:
            return Scalar(args[0].extents[0], True)
        if f in (min, max) and len(args) == 2:
            return self._smaller(f, *args)
        if f in (float, int, abs) and isinstance(args[0], Scalar):
            return self._to_python(f, args[0])
        if f is abs and isinstance(args[0], Array):
            return self.ufunc(np.absolute, [args[0]])
        if f in (np.dot, np.vdot, np.matmul, np.inner) and len(args) == 2:
            return self.dot(*args)
        if f is np.where and len(args) == 3:
            return self._where(*args)
        if isinstance(f, type) and issubclass(f, np.generic) and len(args) == 1 and isinstance(args[0], Scalar) \
                and np.dtype(f).name in DTYPES and is_float(np.dtype(f).name):
            return Scalar(converted(args[0].expr, np.dtype(f).name))
        return self.inlined(f, args, keywords, node)

    def _of_math(self, f: np.ufunc, args: Sequence[Any]) -> Scalar:
        """A function of `math`: a Python number; what it raises for shows as a result that is not finite."""
        given = [self.held(converted(a.expr, "float64")) for a in args]
        found = self.held(Apply(OP_OF[f], tuple(given), "float64", "float64"))
        fine: Expr = Apply("isfinite", (found,), "float64", "bool")
        for x in given:      # infinities and NaN may give such; where they raise, NumPy does the call
            same = Apply("isnan", (x,), "float64", "bool")
            fine = Apply("or", (fine, same), "bool", "bool")
        self.guard(fine)
        return Scalar(found, True)

    def _smaller(self, f: Any, a: Value, b: Value) -> Value:
        """Python's `min` and `max`: the second only if it is really smaller (larger)."""
        if not isinstance(a, Scalar) or not isinstance(b, Scalar) or a.kind != b.kind:
            raise Refused("min or max of values of different types")
        x, y = self.held(a.expr), self.held(b.expr)
        better = Apply("lt" if f is min else "gt", (y, x), x.dtype, "bool")
        if a.mixed:
            raise Refused("min or max of a variable that is an int first")
        return Scalar(Apply("select", (better, y, x), x.dtype, x.dtype), a.weak)

    def _to_python(self, f: Any, a: Scalar) -> Scalar:
        if f is float:
            return Scalar(converted(a.expr, "float64"), True)
        if f is abs:
            if not a.weak:
                found = self.ufunc(np.absolute, [a])
                assert isinstance(found, Scalar)
                return found
            x = self.held(a.expr)
            if is_float(x.dtype):
                return Scalar(Apply("abs", (x,), x.dtype, x.dtype), True, a.mixed, a.tag)
            x = converted(x, "int64")
            negative = Apply("lt", (x, ZERO), "int64", "bool")
            return Scalar(Apply("select", (negative, self.types.integer("sub", ZERO, x), x), "int64", "int64"), True)
        x = a.expr
        if is_float(x.dtype):
            x = self.held(x)
            self.guard(Apply("lt", (Apply("abs", (x,), x.dtype, x.dtype), Const(2.0 ** 62, x.dtype)), x.dtype, "bool"))
        elif x.dtype == "uint64":
            raise Refused("int() of uint64")
        return Scalar(converted(x, "int64"), True)

    def _where(self, test: Value, a: Value, b: Value) -> Value:
        if not isinstance(test, Array) or test.dtype != "bool":
            raise Refused("np.where of this")
        kinds: list[Any] = []
        for v in (a, b):
            if not isinstance(v, Scalar | Array):
                raise Refused("np.where of this")
            kinds.append(v)
        _, dtype = loop_dtypes(np.maximum, kinds)
        if any(isinstance(v, Scalar) and not fits_weakly(v, dtype) for v in kinds):
            raise Refused("np.where of a number that may not fit")
        extents = self.broadcast([v.extents for v in (test, *kinds) if isinstance(v, Array)])
        fixed = [self.held(converted(v.expr, dtype)) if isinstance(v, Scalar) else None for v in kinds]

        def at(index: Sequence[Expr]) -> Expr:
            then, other = (e if e is not None else converted(spread(v, index), dtype) for e, v in zip(fixed, kinds))
            return Apply("select", (spread(test, index), then, other), dtype, dtype)

        return Array(dtype, extents, at, tuple(v for o in (test, *kinds) if isinstance(o, Array) for v in o.reads))

    def _made(self, f: Any, args: list[Value], keywords: dict[str, Value]) -> Value:
        name = f.__name__
        if set(keywords) - {"dtype"}:
            raise Refused(f"{name} with options")
        rest = args[2 if name.startswith("full") else 1:]
        if len(rest) > 1:
            raise Refused(f"{name} with options")
        given = keywords.get("dtype", rest[0] if rest else None)
        like = args[0] if name.endswith("_like") and isinstance(args[0], Array) else None
        if name.endswith("_like") and (like is None or like.view is None or not self.whole(like.view)):
            raise Refused(f"{name} of a part of an array")
        if given is not None:
            if not isinstance(given, Known) or given.value is None:
                raise Refused("a dtype that is not known")
            dtype = np.dtype(given.value).name
        else:
            dtype = like.dtype if like is not None else "float64"
        if dtype not in DTYPES:
            raise Refused(f"an array of {dtype}")
        if like is not None:
            if not self.arrays[like.reads[0].array].unit:
                raise Refused(f"{name} of an array that does not lie in order")
            extents = like.extents
        else:
            shape = args[0].parts if isinstance(args[0], Several) else (args[0],)
            extents = tuple(self._extent(s) for s in shape)
        made = self.allocated(dtype, extents, name.startswith("zeros"))
        if name.startswith("ones"):
            self.fill(made, Scalar(Const(1, "int64"), True))
        if name.startswith("full"):
            if not isinstance(args[1], Scalar) or (given is None and like is None and args[1].expr.dtype != "float64"):
                raise Refused("np.full with this value")
            self.fill(made, args[1])
        return made

    def _extent(self, value: Value) -> Expr:
        if not isinstance(value, Scalar) or not index_type(value):
            raise Refused("a shape that is not whole numbers")
        e = self.held(converted(value.expr, "int64"))
        self.guard(Apply("ge", (e, ZERO), "int64", "bool"))
        self.guard(Apply("lt", (e, Const(1 << 40)), "int64", "bool"))
        return e

    def materialised(self, value: Array) -> Array:
        """A new array with the values of an array expression."""
        made = self.allocated(value.dtype, [self.held(e) for e in value.extents], False)
        assert made.view is not None
        self.emit_loops(made.view, value.at, made.dtype)
        return made
