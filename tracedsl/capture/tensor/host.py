"""Numbers that Python computes at each call: arguments, known numbers, and arithmetic among them.

What holds here: a `HostExpr` is plain data that goes to JSON and back; evaluating it raises what Python raises.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tracedsl.diagnostics import Unsupported

OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv,
    "floordiv": operator.floordiv, "mod": operator.mod, "pow": operator.pow, "neg": operator.neg, "abs": abs,
    "pos": operator.pos, "min": min, "max": max,
    **{f"math.{name}": getattr(math, name) for name in (
        "sqrt", "exp", "log", "log2", "log10", "log1p", "expm1", "sin", "cos", "tan", "asin", "acos", "atan", "atan2",
        "sinh", "cosh", "tanh", "pow", "hypot", "fabs", "copysign", "erf", "erfc", "radians", "degrees", "cbrt",
        "exp2")},
}


@dataclass(frozen=True, slots=True)
class HostExpr:
    """A Python number that is computed at each call: an argument (`op` is "argument"), a known number ("number"), or an
    operator of `OPERATORS`. `kind` is the type that the graph was captured for: "float" or "complex"."""

    op: str
    args: tuple[Any, ...]
    kind: str

    def evaluate(self, leaves: Sequence[Any]) -> Any:
        """Raises what Python raises, and `Unsupported` C018 if the result is of another type than `kind`."""
        if self.op == "argument":
            return leaves[self.args[0]]
        if self.op == "number":
            return self.args[0]
        value = OPERATORS[self.op](*(arg.evaluate(leaves) for arg in self.args))
        if type(value).__name__ != self.kind:
            raise Unsupported("C018", f"a {self.kind} became {value!r}", why="its type decides the dtype of the result")
        return value

    def to_json(self) -> list[Any]:
        if self.op == "number":
            value = self.args[0]
            parts = [value.real.hex(), value.imag.hex()] if isinstance(value, complex) else \
                [value.hex() if isinstance(value, float) else value]
            return [self.op, type(value).__name__, *parts]
        if self.op == "argument":
            return [self.op, self.kind, self.args[0]]
        return [self.op, self.kind, *(arg.to_json() for arg in self.args)]

    @staticmethod
    def from_json(data: Sequence[Any]) -> HostExpr:
        op, kind, *args = data
        if op == "argument":
            return HostExpr(op, (int(args[0]),), kind)
        if op != "number":
            return HostExpr(op, tuple(map(HostExpr.from_json, args)), kind)
        if kind == "complex":
            return HostExpr(op, (complex(float.fromhex(args[0]), float.fromhex(args[1])),), kind)
        return HostExpr(op, (float.fromhex(args[0]) if kind == "float" else int(args[0]),), kind)
