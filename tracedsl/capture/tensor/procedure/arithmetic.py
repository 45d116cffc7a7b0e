"""Operations on scalars and array expressions, as Python and NumPy do them.

What holds here: two Python numbers give a Python number, with Python's errors as guards; anything else is a ufunc,
whose dtypes are NumPy's (NEP 50). Operations on arrays stay expressions until they are stored.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

import numpy as np

from tracedsl.capture.tensor.procedure.emitting import ONE, ZERO, Emitting, spread
from tracedsl.capture.tensor.procedure.values import (
    OP_OF,
    PYTHON_FLOAT,
    PYTHON_INT,
    Array,
    Refused,
    Scalar,
    Value,
    converted,
    fits_weakly,
    loop_dtypes,
)
from tracedsl.ir.dtypes import is_integer
from tracedsl.ir.expr import SCALAR_OPS
from tracedsl.ir.statements import (
    Apply,
    Const,
    Expr,
)

_BINARY: dict[type[ast.AST], np.ufunc] = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.true_divide, ast.Mod: np.remainder,
    ast.FloorDiv: np.floor_divide, ast.Pow: np.power, ast.BitAnd: np.bitwise_and, ast.BitOr: np.bitwise_or,
    ast.BitXor: np.bitwise_xor, ast.LShift: np.left_shift, ast.RShift: np.right_shift,
    ast.Eq: np.equal, ast.NotEq: np.not_equal, ast.Lt: np.less, ast.LtE: np.less_equal, ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
_ON_BOOL = {"add": "or", "mul": "and", "maximum": "or", "minimum": "and"}


class Arithmetic(Emitting):
    """Operators and ufuncs."""

    def binary(self, op: ast.AST, a: Value, b: Value) -> Value:
        if type(op) not in _BINARY or not isinstance(a, Scalar | Array) or not isinstance(b, Scalar | Array):
            raise Refused(f"the operation {type(op).__name__}")
        if isinstance(a, Scalar) and isinstance(b, Scalar) and a.weak and b.weak:
            return self._python(_BINARY[type(op)], a, b)
        return self.ufunc(_BINARY[type(op)], (a, b))

    def _python(self, ufunc: np.ufunc, a: Scalar, b: Scalar) -> Scalar:
        """An operation of two Python numbers."""
        op = OP_OF[ufunc]
        mixed = a.mixed or b.mixed
        compares = SCALAR_OPS[op][1] == "bool"
        tag = None if compares or not mixed else self.later(a, b, at_least=PYTHON_FLOAT if op == "div" else PYTHON_INT)
        x, y = a.expr, b.expr
        if x.dtype == y.dtype == "bool" and (compares or op in ("and", "or", "xor")):
            return Scalar(Apply(op, (x, y), "bool", "bool"), True)
        if "float64" in (x.dtype, y.dtype):
            if {x.dtype, y.dtype} != {"float64"} and compares:
                self._exactly_a_float(x if x.dtype != "float64" else y)
            x, y = converted(x, "float64"), converted(y, "float64")
            if op in ("and", "or", "xor", "shl", "shr"):
                raise Refused("a bit operation on floats")
            if op in ("div", "floordiv", "mod"):
                y = self.held(y)
                self.guard(Apply("ne", (y, Const(0.0, "float64")), "float64", "bool"))
            if op == "pow":
                if mixed:
                    raise Refused("a power of a variable that is an int first")
                return self._python_power(x, y)
            found = Apply(op, (x, y), "float64", "bool" if compares else "float64")
            return Scalar(found, True, mixed and not compares, tag)
        x, y = converted(x, "int64"), converted(y, "int64")
        if compares:
            return Scalar(Apply(op, (x, y), "int64", "bool"), True)
        if op == "div":
            self._exactly_a_float(x)
            self._exactly_a_float(y)
            return self._python(ufunc, Scalar(converted(x, "float64"), True), Scalar(converted(y, "float64"), True))
        if op in ("floordiv", "mod"):
            if not (isinstance(y, Const) and y.value):
                y = self.held(y)
                if self.types.bound(x) > 62:      # the quotient of the smallest number by -1 has no place
                    x = self.held(x)
                    self.guard(Apply("gt", (x, Const(-(1 << 63))), "int64", "bool"))
                self.guard(Apply("ne", (y, ZERO), "int64", "bool"))
            return Scalar(Apply(op, (x, y), "int64", "int64"), True)
        if op == "pow":
            if not (isinstance(y, Const) and 1 <= int(y.value) <= 4):
                raise Refused("a power of whole numbers")
            x = self.held(x)
            power = x
            for _ in range(int(y.value) - 1):
                power = self.types.integer("mul", power, x)
            return Scalar(power, True)
        if op in ("and", "or", "xor"):
            return Scalar(Apply(op, (x, y), "int64", "int64"), True)
        if op in ("shl", "shr"):
            return Scalar(self._shifted(op, x, y), True)
        return Scalar(self.types.integer(op, x, y), True)

    def _shifted(self, op: str, x: Expr, y: Expr) -> Expr:
        """Python raises for a negative count; what is shifted out to the left does not fit."""
        if isinstance(y, Const) and 0 <= int(y.value) < 62:
            return Apply(op, (x, y), "int64", "int64") if op == "shr" else \
                self.types.integer("mul", x, Const(1 << int(y.value)))
        y = self.held(y)
        self.guard(Apply("ge", (y, ZERO), "int64", "bool"))
        self.guard(Apply("lt", (y, Const(62)), "int64", "bool"))
        if op == "shr":
            return Apply(op, (x, y), "int64", "int64")
        return self.types.integer("mul", x, Apply("shl", (ONE, y), "int64", "int64"))

    def _exactly_a_float(self, e: Expr) -> None:
        """A Python int that is compared with, or divided as, a float: its value must not be rounded."""
        if is_integer(e.dtype) and self.types.bound(e) > 53:
            e = self.held(e)
            self.guard(Apply("le", (e, Const(1 << 53)), "int64", "bool"))
            self.guard(Apply("ge", (e, Const(-1 << 53)), "int64", "bool"))

    def _python_power(self, x: Expr, y: Expr) -> Scalar:
        if isinstance(y, Const) and y.value == 2:
            x = self.held(x)
            return Scalar(self._guarded_finite(Apply("mul", (x, x), "float64", "float64"), x), True)
        raise Refused("a power of Python floats")

    def _guarded_finite(self, e: Expr, x: Expr) -> Expr:
        """Python raises OverflowError where a power of a finite float is infinite."""
        e = self.held(e)
        self.guard(Apply("or", (Apply("isfinite", (e,), "float64", "bool"),
                                Apply("not", (Apply("isfinite", (x,), "float64", "bool"),), "bool", "bool")),
                         "bool", "bool"))
        return e

    def ufunc(self, ufunc: np.ufunc, given: Sequence[Scalar | Array]) -> Scalar | Array:
        operands = [self.single(o) for o in given]
        op = OP_OF.get(ufunc)
        if op is None:
            raise Refused(f"{ufunc.__name__}")
        if op == "same":
            return operands[0]
        takes, gives = loop_dtypes(ufunc, operands)
        if len(set(takes)) != 1:
            raise Refused(f"{ufunc.__name__} of {' and '.join(takes)}")
        of = takes[0]
        for o in operands:
            if isinstance(o, Scalar) and not fits_weakly(o, of):
                raise Refused(f"a Python int beside {of}")
        mixed, tag = self._mixed_result(op, of, gives, operands)
        op, count = (_ON_BOOL.get(op, op) if of == "bool" else op), len(operands)
        if op == "pow" and isinstance(operands[1], Scalar) and isinstance(operands[1].expr, Const) \
                and operands[1].expr.value == 2:
            op, count = "mul", 1
        elif op == "pow" and is_integer(of):
            raise Refused("a power of whole numbers")
        if op == "neg" and of == "bool":
            raise Refused("the negative of a boolean")
        if all(isinstance(o, Scalar) for o in operands):
            args = [converted(o.expr, of) for o in operands if isinstance(o, Scalar)][:count]
            if op == "mul" and count == 1:
                args = [self.held(args[0])] * 2
            exact = of == "int64" and op in ("add", "sub", "mul") and self._any_python(operands)
            return Scalar(Apply(op, tuple(args), of, gives, exact), False, mixed, tag)
        return self._elementwise(op, of, gives, operands[:count])

    def single(self, o: Scalar | Array) -> Scalar | Array:
        """An array without dimensions is a number to a ufunc."""
        return o if isinstance(o, Scalar) or o.extents else Scalar(self.held(o.at(())))

    def later(self, *values: Scalar, at_least: int = PYTHON_INT) -> Expr:
        """The tag of what an operation gives: the strongest of the operands'."""
        found: Expr = Const(at_least)
        for value in values:
            tag = value.tagged()
            if isinstance(tag, Const) and isinstance(found, Const):
                found = Const(max(tag.value, found.value))
            else:
                found = Apply("maximum", (found, tag), "int64", "int64")
        return self.held(found)

    def _mixed_result(self, op: str, of: str, gives: str, operands: Sequence[Scalar | Array]) -> \
            tuple[bool, Expr | None]:
        """Whether an operation of NumPy on a mixed number gives one, and its tag."""
        scalars = [o for o in operands if isinstance(o, Scalar)]
        if not any(o.mixed for o in scalars):
            return False, None
        anchored = any(isinstance(o, Array) or not (o.weak or o.mixed) for o in operands)
        whole = of == "int64" and op in ("add", "sub", "mul", "floordiv", "mod", "eq", "ne", "lt", "le", "gt", "ge")
        if op == "pow" or (of != "float64" and not anchored and not whole):
            raise Refused(f"{op} of a variable that is a Python number first")
        last = operands[-1]
        if op in ("div", "floordiv", "mod") and isinstance(last, Scalar) and last.mixed:
            zero = converted(ZERO, last.expr.dtype)
            self.guard(Apply("ne", (last.expr, zero), last.expr.dtype, "bool"))
        if (len(operands) == 1 and op != "neg") or anchored:
            return False, None
        if gives == "bool":
            return True, None
        return True, self.later(*scalars, at_least=PYTHON_FLOAT if op == "div" else PYTHON_INT)

    @staticmethod
    def _any_python(operands: Sequence[Scalar | Array]) -> bool:
        """Whether all operands may be Python's whole numbers, which do not wrap around."""
        return any(isinstance(o, Scalar) and o.mixed for o in operands) and all(
            isinstance(o, Scalar) and (o.weak or o.mixed) for o in operands)

    def _elementwise(self, op: str, of: str, gives: str, operands: Sequence[Scalar | Array]) -> Array:
        extents = self.broadcast([o.extents for o in operands if isinstance(o, Array)])
        parts: list[Callable[[Sequence[Expr]], Expr]] = []
        for o in operands:
            if isinstance(o, Scalar):
                fixed = self.held(converted(o.expr, of))
                parts.append(lambda index, fixed=fixed: fixed)      # type: ignore[misc]
            else:
                parts.append(lambda index, o=o: converted(spread(o, index), of))      # type: ignore[misc]
        twice = op == "mul" and len(parts) == 1

        def at(index: Sequence[Expr]) -> Expr:
            args = tuple(part(index) for part in parts)
            return Apply(op, args * 2 if twice else args, of, gives)

        reads = tuple(v for o in operands if isinstance(o, Array) for v in o.reads)
        return Array(gives, extents, at, reads)

    def broadcast(self, shapes: Sequence[tuple[Expr, ...]]) -> tuple[Expr, ...]:
        """The common shape. Extents that are not known to be 1 must agree: guarded."""
        rank = max(map(len, shapes))
        found: list[Expr] = [ONE] * rank
        for shape in shapes:
            for axis, extent in enumerate(shape, rank - len(shape)):
                if found[axis] == ONE:
                    found[axis] = extent
                elif extent not in (ONE, found[axis]):
                    self.guard(Apply("eq", (found[axis], extent), "int64", "bool"))
        return tuple(found)
