"""Bounds of integer expressions over positions: what proves an access in range.

What holds here: bounds may be wider than the values that occur, never narrower; None means that nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable

from tracedsl.ir.expr import Call, Const, Expr, Position


def bounds(expr: Expr) -> tuple[int, int] | None:
    """The smallest and largest value of an integer expression over positions; None if it is not known."""
    match expr:
        case Position(index=index):
            return index.bounds()
        case Const(value=value) if not isinstance(value, float):
            return int(value), int(value)
        case Call(op=op, args=args):
            inner = [bounds(arg) for arg in args]
            known = [limits for limits in inner if limits is not None]
            if len(known) != len(inner) or op not in _BOUNDS:
                return None
            return _BOUNDS[op](*known)
    return None


def _corner(function: Callable[[int, int], int]) -> Callable[..., tuple[int, int] | None]:
    def limits(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int] | None:
        if function is _floordiv and b[0] <= 0 <= b[1]:
            return None
        corners = [function(x, y) for x in a for y in b]
        return min(corners), max(corners)

    return limits


def _floordiv(a: int, b: int) -> int:
    return a // b


_BOUNDS: dict[str, Callable[..., tuple[int, int] | None]] = {
    "add": _corner(lambda a, b: a + b), "sub": _corner(lambda a, b: a - b), "mul": _corner(lambda a, b: a * b),
    "floordiv": _corner(_floordiv), "maximum": _corner(max), "minimum": _corner(min),
    "mod": lambda a, b: (0, b[1] - 1) if b[0] > 0 else None,
    "neg": lambda a: (-a[1], -a[0]),
}
