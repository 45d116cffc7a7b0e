"""Vector math as IR: elementary functions that are emitted where they are used, so that they fuse.

What holds here:
- `emit` takes and gives values of any lane count, "float" or "double", and stays in one basic block.
- Errors are at most 1 ULP, except where the C library's are larger ("libm"); NaN, infinities, signed zeros,
  subnormals and overflow come out as in NumPy. The lane count never changes a result.
- `METHODS` says for each function how it is computed: "native" in its own format, "wide" in double for a float,
  "libm" by one call of the C library per lane. `explain` can show it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tracedsl.diagnostics import TracedslError, nearest
from tracedsl.hw.cpu.emitter import FunctionEmitter, Value
from tracedsl.hw.cpu.irtypes import element
from tracedsl.hw.cpu.math import error, exponential, logarithm, power, trigonometric
from tracedsl.hw.cpu.math.kinds import F32, F64, WIDE, Kind
from tracedsl.hw.cpu.math.num import Num

__all__ = ["METHODS", "Method", "emit", "method"]


@dataclass(frozen=True)
class Method:
    """How one function is computed for one element type. `formula` takes the arguments and the kind; None: libm."""

    name: str
    how: str  # "native", "wide", "libm"
    arity: int
    formula: Callable[..., Num] | None = None
    kind: Kind = WIDE

    @property
    def vectorised(self) -> bool:
        return self.how != "libm"


_UNARY: dict[str, Callable[..., Num]] = {
    "exp": exponential.exp, "exp2": exponential.exp2, "expm1": exponential.expm1, "sigmoid": exponential.sigmoid,
    "tanh": exponential.tanh, "sinh": exponential.sinh, "cosh": exponential.cosh,
    "log": logarithm.log, "log2": logarithm.log2, "log10": logarithm.log10, "log1p": logarithm.log1p,
    "asinh": logarithm.asinh, "acosh": logarithm.acosh, "atanh": logarithm.atanh,
    "sin": trigonometric.sin, "cos": trigonometric.cos, "tan": trigonometric.tan,
    "asin": trigonometric.asin, "acos": trigonometric.acos, "atan": trigonometric.atan,
    "erf": error.erf, "erfc": error.erfc, "cbrt": power.cbrt,
}
_BINARY: dict[str, Callable[..., Num]] = {"pow": power.pow_, "atan2": trigonometric.atan2, "hypot": power.hypot}
# computed in the format itself: of floats, of doubles
_NARROW = ("exp", "exp2", "expm1", "sigmoid", "tanh", "log")
_DOUBLE = (*_NARROW, "sinh", "cosh", "log2", "log10", "log1p", "asinh", "acosh", "atanh", "cbrt")


def _methods() -> dict[tuple[str, str], Method]:
    found = {}
    for name, formula in {**_UNARY, **_BINARY}.items():
        arity = 2 if name in _BINARY else 1
        how, kind = ("native", F32) if name in _NARROW else ("wide", WIDE)
        found[name, "float"] = Method(name, how, arity, formula, kind)
        found[name, "double"] = (Method(name, "native", arity, formula, F64) if name in _DOUBLE
                                 else Method(name, "libm", arity))
    return found


# (function, element type) -> how it is computed
METHODS = MappingProxyType(_methods())


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
    if how.formula is None:
        return _per_lane(f, name, args)
    numbers = [Num(f, a) for a in args]
    if how.how == "wide":
        return how.formula(*(n.double() for n in numbers), how.kind).float().value
    return how.formula(*numbers, how.kind).value


def _per_lane(f: FunctionEmitter, name: str, args: Sequence[Value]) -> Value:
    """One call of the C library for each lane."""
    count = Num(f, args[0]).lanes
    result = args[0]
    for lane in range(count):
        one = f.call(name, "double", [f.extract_element(a, lane) for a in args], attributes="nounwind memory(none)")
        result = f.insert_element(result, one, lane)
    return result
