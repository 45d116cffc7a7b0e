"""Expressions: syntax tree in, typed values out.

What holds here: evaluating an expression may emit statements (temporaries, guards, loops of reductions) in the order in
which Python evaluates it; what Python may not look at (`and`, `or`, conditional expressions) stands under an `If`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from tracedsl.capture.tensor.procedure.calls import Calls
from tracedsl.capture.tensor.procedure.emitting import ONE, ZERO
from tracedsl.capture.tensor.procedure.values import (
    Array,
    Known,
    Refused,
    Scalar,
    Several,
    Value,
    converted,
    index_type,
    number,
)
from tracedsl.ir.dtypes import is_float
from tracedsl.ir.statements import (
    Apply,
    Assign,
    Const,
    Element,
    Expr,
    If,
    Stmt,
    Var,
    View,
)


class Expressions(Calls):
    """One method for each kind of expression."""

    def value(self, node: ast.expr) -> Value:
        rule = getattr(self, f"_{type(node).__name__.lower()}", None)
        if rule is None:
            raise Refused(f"the expression {ast.unparse(node)}", node)
        try:
            found: Value = rule(node)
            return found
        except Refused as error:
            error.node = error.node if error.node is not None else node
            raise

    def scalar(self, node: ast.expr) -> Scalar:
        value = self.value(node)
        if isinstance(value, Scalar):
            return value
        raise Refused("a number is needed here", node)

    def truth(self, node: ast.expr) -> Expr:
        """The condition of a branch."""
        return converted(self.scalar(node).expr, "bool")

    def integer(self, node: ast.expr) -> Expr:
        value = self.scalar(node)
        if not index_type(value):
            raise Refused("a whole number is needed here", node)
        return converted(value.expr, "int64")

    def _constant(self, node: ast.Constant) -> Value:
        return number(node.value) or Known(node.value)

    def _name(self, node: ast.Name) -> Value:
        return self.name(node)

    def _tuple(self, node: ast.Tuple) -> Value:
        return Several(tuple(map(self.value, node.elts)))

    def _list(self, node: ast.List) -> Value:
        return Several(tuple(map(self.value, node.elts)), "list")

    def _attribute(self, node: ast.Attribute) -> Value:
        owner = self.value(node.value)
        if isinstance(owner, Known):
            if not isinstance(owner.value, ModuleType | np.dtype):
                raise Refused(f"the attribute .{node.attr}", node)
            found = getattr(owner.value, node.attr, None)
            return number(found) or Known(found)
        if isinstance(owner, Array):
            if node.attr == "shape":
                return Several(tuple(Scalar(e, True) for e in owner.extents))
            if node.attr == "ndim":
                return Scalar(Const(len(owner.extents)), True)
            if node.attr == "size":
                size: Expr = ONE
                for e in owner.extents:
                    size = self.types.integer("mul", size, e)
                return Scalar(size, True)
            if node.attr == "dtype":
                return Known(np.dtype(owner.dtype))
            if node.attr == "T" and owner.view is not None:
                return self.viewed(View(owner.view.array, owner.view.start, owner.view.axes[::-1]))
        raise Refused(f"the attribute .{node.attr}", node)

    def _binop(self, node: ast.BinOp) -> Value:
        a, b = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.MatMult):
            return self.dot(a, b)
        return self.binary(node.op, a, b)

    def _unaryop(self, node: ast.UnaryOp) -> Value:
        a = self.value(node.operand)
        if isinstance(node.op, ast.Not) and isinstance(a, Scalar):
            return Scalar(Apply("not", (converted(a.expr, "bool"),), "bool", "bool"), True)
        if isinstance(node.op, ast.UAdd | ast.Not) or not isinstance(a, Scalar | Array):
            raise Refused("this operation", node)
        if isinstance(a, Scalar) and a.weak and isinstance(node.op, ast.USub):
            if isinstance(a.expr, Const) and a.expr.dtype != "bool":
                return Scalar(Const(-a.expr.value, a.expr.dtype), True)
            if is_float(a.expr.dtype):
                return Scalar(Apply("neg", (a.expr,), "float64", "float64"), True, a.mixed, a.tag)
            return Scalar(self.types.integer("sub", ZERO, converted(a.expr, "int64")), True)
        if isinstance(a, Scalar) and a.weak:
            raise Refused("this operation on a Python number", node)
        return self.ufunc(np.negative if isinstance(node.op, ast.USub) else np.invert, (a,))

    def _compare(self, node: ast.Compare) -> Value:
        left = self.value(node.left)
        if len(node.ops) == 1:
            return self._compared(node.ops[0], left, self.value(node.comparators[0]))
        if not isinstance(left, Scalar):
            raise Refused("a chain of comparisons of arrays", node)
        return self._chain(self.fresh("chain"), self.named(left), node.ops, node.comparators)

    def _compared(self, op: ast.cmpop, a: Value, b: Value) -> Value:
        """Also what is known while the function is captured: texts, None."""
        if isinstance(op, ast.Is | ast.IsNot):
            if not any(isinstance(v, Known) and v.value is None for v in (a, b)):
                raise Refused("the identity of values")
            same = isinstance(a, Known) and isinstance(b, Known) and a.value is b.value
            return Scalar(Const(same == isinstance(op, ast.Is), "bool"), True)
        if isinstance(a, Known) and isinstance(b, Known) and isinstance(op, ast.Eq | ast.NotEq) \
                and type(a.value) is type(b.value) is str:
            return Scalar(Const((a.value == b.value) == isinstance(op, ast.Eq), "bool"), True)
        return self.binary(op, a, b)

    def named(self, s: Scalar) -> Scalar:
        """The same, computed once."""
        return Scalar(self.held(s.expr), s.weak, s.mixed, s.tag)

    def _chain(self, result: str, left: Scalar, ops: Sequence[ast.cmpop], rest: Sequence[ast.expr]) -> Scalar:
        """`a < b < c`: the third is looked at only if the first test holds."""
        right = self.named(self.scalar(rest[0]))
        test = self.binary(ops[0], left, right)
        assert isinstance(test, Scalar)
        self.emit(Assign(result, test.expr))
        found = Var(result, "bool")
        kinds = [test]
        if len(ops) > 1:
            self.emit(If(found, self.nested(lambda: kinds.append(self._chain(result, right, ops[1:], rest[1:])))))
        return self._of_one_kind(found, kinds)

    @staticmethod
    def _of_one_kind(found: Expr, tests: Sequence[Scalar]) -> Scalar:
        """A truth value: Python's if all tests are, NumPy's if all are; else by turns."""
        weak = {t.weak for t in tests}
        return Scalar(found, weak == {True}, len(weak) > 1 or any(t.mixed for t in tests))

    def _boolop(self, node: ast.BoolOp) -> Value:
        """`and` and `or` of truth values; the second is looked at only if it counts."""
        result = self.fresh("truth")
        first = self.scalar(node.values[0])
        if first.expr.dtype != "bool":
            raise Refused("'and' or 'or' of numbers", node)
        self.emit(Assign(result, first.expr))
        found = Var(result, "bool")
        tests = [first]

        def rest() -> None:
            other = self.value(node.values[1] if len(node.values) == 2 else ast.copy_location(
                ast.BoolOp(node.op, node.values[1:]), node))
            if not isinstance(other, Scalar) or other.expr.dtype != "bool":
                raise Refused("'and' or 'or' of numbers", node)
            tests.append(other)
            self.emit(Assign(result, other.expr))

        body = self.nested(rest)
        test = found if isinstance(node.op, ast.And) else Apply("not", (found,), "bool", "bool")
        self.emit(If(test, body))
        return self._of_one_kind(found, tests)

    def _ifexp(self, node: ast.IfExp) -> Value:
        test = self.truth(node.test)
        values: list[Scalar] = []
        bodies: list[list[Stmt]] = []
        for part in (node.body, node.orelse):
            body = self.nested(lambda part=part: values.append(self.scalar(part)))      # type: ignore[misc]
            bodies.append(list(body))
        if values[0].kind != values[1].kind or values[0].mixed:
            raise Refused("two values of different types", node)
        result = self.fresh("either")
        self.types.bits[result] = max(self.types.bound(v.expr) for v in values)
        for body_, value in zip(bodies, values):
            body_.append(Assign(result, value.expr))
        self.emit(If(test, tuple(bodies[0]), tuple(bodies[1])))
        return Scalar(Var(result, values[0].expr.dtype), values[0].weak)

    def _subscript(self, node: ast.Subscript) -> Value:
        owner = self.value(node.value)
        if isinstance(owner, Several):
            index = self.integer(node.slice)
            if isinstance(index, Const) and -len(owner.parts) <= int(index.value) < len(owner.parts):
                found: Value = owner.parts[int(index.value)]
                return found
            raise Refused("an index of a tuple that is not known", node)
        if not isinstance(owner, Array) or owner.view is None:
            raise Refused("an index of this", node)
        where = self.place(owner, node.slice)
        if isinstance(where, View):
            return self.viewed(where)
        return Scalar(self.held(Element(owner.view.array, where, owner.dtype), "e"))
