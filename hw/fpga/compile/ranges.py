"""Which integers an expression can be: what decides whether 32 bits on the accelerator give NumPy's result.

What holds here: `Values.exact` bounds the value before NumPy wraps it to its dtype, `Values.wrapped` after; both hold
for every input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tracedsl.ir.dtypes import BYTES, is_integer, is_signed
from tracedsl.ir.expr import Call, Cast, Const, Expr, Load, Reduced, walk

Range = tuple[int, int]
INT32: Range = (-(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True)
class Values:
    exact: Range
    wrapped: Range

    @property
    def wraps(self) -> bool:
        return self.exact != self.wrapped


def of_dtype(dtype: str) -> Range | None:
    """What a dtype holds; None if it is no integer (bool is one: 0 and 1)."""
    if dtype == "bool":
        return 0, 1
    if not is_integer(dtype):
        return None
    bits = 8 * BYTES[dtype]
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed(dtype) else (0, (1 << bits) - 1)


def within(inner: Range, outer: Range) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def values(roots: tuple[Expr, ...], reduced: Range | None = None) -> Mapping[int, Values]:
    """The values of each expression below the roots, by id; those that are no integers, or come from an operation that
    is not known here, are left out. `reduced`: what a `Reduced` may be."""
    found: dict[int, Values] = {}
    for expr in walk(*roots):
        limits = of_dtype(expr.dtype)
        exact = None if limits is None else _exact(expr, found, reduced, limits)
        if exact is not None and limits is not None:
            found[id(expr)] = Values(exact, exact if within(exact, limits) else limits)
    return found


def _exact(expr: Expr, found: Mapping[int, Values], reduced: Range | None, limits: Range) -> Range | None:
    match expr:
        case Const(value=value) if isinstance(value, int):
            return int(value), int(value)
        case Load():
            return limits
        case Reduced():
            return reduced
        case Cast(arg=arg) if id(arg) in found:
            return found[id(arg)].wrapped
        case Call(op=op, args=args) if all(id(arg) in found for arg in args):
            return _call(op, [found[id(arg)].wrapped for arg in args])
    return None


def _call(op: str, given: list[Range]) -> Range | None:
    match op, given:
        case "add", [(a, b), (c, d)]:
            return a + c, b + d
        case "sub", [(a, b), (c, d)]:
            return a - d, b - c
        case "mul", [(a, b), (c, d)]:
            return _hull(a * c, a * d, b * c, b * d)
        case "maximum" | "fmax", [(a, b), (c, d)]:
            return max(a, c), max(b, d)
        case "minimum" | "fmin", [(a, b), (c, d)]:
            return min(a, c), min(b, d)
        case "neg", [(a, b)]:
            return -b, -a
        case "abs", [(a, b)]:
            return (0 if a <= 0 <= b else min(abs(a), abs(b))), max(abs(a), abs(b))
        case "shr", [(a, b), (c, d)] if c >= 0 and d < 64:
            return _hull(a >> c, a >> d, b >> c, b >> d)
        case "shl", [(a, b), (c, d)] if c >= 0 and d < 64:
            return _hull(a << c, a << d, b << c, b << d)
        case "floordiv", [(a, b), (c, d)] if c == d and c > 0:
            return a // c, b // c
    return None


def _hull(*numbers: int) -> Range:
    return min(numbers), max(numbers)
