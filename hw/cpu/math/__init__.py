"""Vector math as IR: elementary functions that are emitted where they are used, so that they fuse.

What holds here:
- `emit` takes and gives values of any lane count, "float" or "double", and stays in one basic block.
- Errors are at most 1 ULP; NaN, infinities, signed zeros, subnormals and overflow come out as in NumPy. The lane count
  never changes a result.
- `METHODS` says for each function how it is computed: "native" in its own format, "wide" in double for a float.
- No function of the C library is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tracedsl.diagnostics import TracedslError, nearest
from tracedsl.hw.cpu.emitter import FunctionEmitter, Value, constant
from tracedsl.hw.cpu.irtypes import element
from tracedsl.hw.cpu.math import error, exponential, inverse, logarithm, power, trigonometric
from tracedsl.hw.cpu.math.kinds import F32, F64, WIDE, Kind
from tracedsl.hw.cpu.math.num import Num

__all__ = ["METHODS", "Method", "emit", "method"]


@dataclass(frozen=True)
class Method:
    """How one function is computed for one element type. `formula` takes the arguments and the kind."""

    name: str
    how: str  # "native", "wide"
    arity: int
    formula: Callable[..., Num]
    kind: Kind


_UNARY: dict[str, Callable[..., Num]] = {
    "exp": exponential.exp, "exp2": exponential.exp2, "expm1": exponential.expm1, "sigmoid": exponential.sigmoid,
    "tanh": exponential.tanh, "sinh": exponential.sinh, "cosh": exponential.cosh,
    "log": logarithm.log, "log2": logarithm.log2, "log10": logarithm.log10, "log1p": logarithm.log1p,
    "asinh": logarithm.asinh, "acosh": logarithm.acosh, "atanh": logarithm.atanh,
    "sin": trigonometric.sin, "cos": trigonometric.cos, "tan": trigonometric.tan,
    "asin": inverse.asin, "acos": inverse.acos, "atan": inverse.atan,
    "erf": error.erf, "erfc": error.erfc, "cbrt": power.cbrt,
}
_BINARY: dict[str, Callable[..., Num]] = {"pow": power.pow_, "atan2": inverse.atan2, "hypot": power.hypot}
# of floats, computed in double: where that is the quicker way to the last bit, or the only one so far
_WIDE = frozenset(("sinh", "cosh", "log2", "log10", "log1p", "asinh", "acosh", "atanh", "erfc", "cbrt", "pow", "hypot"))


def _methods() -> dict[tuple[str, str], Method]:
    found = {}
    for name, formula in {**_UNARY, **_BINARY}.items():
        arity = 2 if name in _BINARY else 1
        how, kind = ("wide", WIDE) if name in _WIDE else ("native", F32)
        found[name, "float"] = Method(name, how, arity, formula, kind)
        found[name, "double"] = Method(name, "native", arity, formula, F64)
    return found


# (function, element type) -> how it is computed
METHODS = MappingProxyType(_methods())


# (element type, constant) -> exponents up to which multiplying is quicker than exp and log
_WHOLE_POWERS = {(elem, text): n for elem in ("float", "double") for n in range(-16, 33) if abs(n) > 1
                 for text in (constant(elem, n).name, f" ({elem} {constant(elem, n).name})")}


def method(name: str, type_: str) -> Method:
    """How `name` is computed for this type. Raises TracedslError (H005) for a function that does not exist."""
    found = METHODS.get((name, element(type_)))
    if found is None:
        raise TracedslError("H005", f"there is no vector function {name!r} for {element(type_)}",
                            hint=nearest(name, {known for known, _ in METHODS}))
    return found


def emit(f: FunctionEmitter, name: str, args: Sequence[Value]) -> Value:
    """Emit name(*args); all arguments have one type, any number of lanes, which is also the result's.

    Raises TracedslError (H005) for an unknown function or element type.
    """
    how = method(name, args[0].type)
    if len(args) != how.arity or any(a.type != args[0].type for a in args):
        raise TypeError(f"{name} takes {how.arity} arguments of one type, not {', '.join(map(str, args))}")
    numbers = [Num(f, a) for a in args]
    if name == "pow" and (n := _WHOLE_POWERS.get((element(args[1].type), args[1].name.removeprefix("splat")))):
        return power.whole_power(numbers[0], n).value
    if how.how == "wide":
        return how.formula(*(n.double() for n in numbers), how.kind).float().value
    return how.formula(*numbers, how.kind).value
