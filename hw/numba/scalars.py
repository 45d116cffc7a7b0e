"""Scalar operations as Python text, with NumPy's results in Numba's arithmetic.

What holds here: an operand and a result is text of a value of the operation's dtype: `np.float32` and so on, wide
integers narrowed again at once, bool as bool, float16 as a float32 that float16 can hold. Rules are tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tracedsl.diagnostics import TracedslError
from tracedsl.hw.text.expressions import bare
from tracedsl.ir.dtypes import BYTES, is_float, is_integer, is_signed, is_unsigned
from tracedsl.ir.expr import SCALAR_OPS

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^", "eq": "==", "ne": "!=",
          "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_PICKS = ("maximum", "minimum", "fmax", "fmin")
_NUMPY = {"sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "rint", "exp": "exp",
          "exp2": "exp2", "expm1": "expm1", "log": "log", "log2": "log2", "log10": "log10", "log1p": "log1p",
          "sin": "sin", "cos": "cos", "tan": "tan", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
          "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
          "cbrt": "cbrt", "hypot": "hypot", "atan2": "arctan2", "copysign": "copysign",
          "fmod": "fmod", "isnan": "isnan", "isinf": "isinf", "isfinite": "isfinite", "signbit": "signbit"}


def literal(dtype: str, value: bool | int | float) -> str:
    """A constant."""
    if dtype == "bool":
        return repr(bool(value))
    if is_integer(dtype):
        bits = 8 * BYTES[dtype]
        number = int(value) & (1 << bits) - 1
        return f"np.{dtype}({number - (1 << bits) if is_signed(dtype) and number >> bits - 1 else number})"
    real = float(value)
    text = repr(real) if math.isfinite(real) else "np.nan" if real != real else "np.inf" if real > 0 \
        else "-np.inf"
    return f"half({text})" if dtype == "float16" else f"np.{dtype}({text})"


def scalar(op: str, dtype: str, args: Sequence[str]) -> str:
    """`op` of operands of `dtype`; for "select", `dtype` is that of the values to choose from.

    Raises TracedslError (H020) for an operation that NumPy does not define for the dtype.
    """
    if op == "select":
        return f"({args[1]} if {args[0]} else {args[2]})"
    rule = _rules(dtype).get(op)
    if rule is None:
        raise TracedslError("H020", f"{op} is not defined for {dtype}")
    text = rule(*args)
    if SCALAR_OPS[op][1] == "bool":
        return text
    if dtype == "float16":
        return f"half({bare(text)})"
    if not is_integer(dtype) or (dtype == "int64" and op in _INFIX):
        return text
    return f"np.{dtype}({bare(text)})"


Rule = Callable[..., str]


def _infix(op: str) -> Rule:
    return lambda a, b: f"({a} {_INFIX[op]} {b})"


def _call(name: str) -> Rule:
    return lambda *args: f"{name}({', '.join(map(bare, args))})"


def _same(a: str) -> str:
    return a


_FLOAT: dict[str, Rule] = {
    **{op: _infix(op) for op in ("add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge")},
    **{op: _call(f"np.{name}") for op, name in _NUMPY.items()},
    **{op: _call(op) for op in _PICKS},
    "floordiv": _call("float_floordiv"), "mod": _call("float_mod"), "neg": lambda a: f"(-{a})",
    "abs": _call("abs"), "sign": _call("float_sign"), "pow": _call("float_power"), "erf": _call("math.erf"),
    "erfc": _call("math.erfc"),
    "sigmoid": _call("sigmoid"),
}
_WIDE = ("erf", "erfc", "sigmoid", "sign", "floordiv", "pow")      # these come back as float64

_INTEGER: dict[str, Rule] = {
    **{op: _infix(op) for op in ("add", "sub", "mul", "and", "or", "xor", "eq", "ne", "lt", "le", "gt", "ge")},
    **{op: _call(op) for op in _PICKS},
    "sign": lambda a: f"(1 if {a} > 0 else -1 if {a} < 0 else 0)",
    **dict.fromkeys(("floor", "ceil", "trunc", "rint"), _same),
    "neg": lambda a: f"(-{a})", "not": lambda a: f"(~{a})",
    "isnan": lambda a: "False", "isinf": lambda a: "False", "isfinite": lambda a: "True",
}
_BOOL: dict[str, Rule] = {
    **dict.fromkeys(("add", "or", "maximum", "fmax"), _infix("or")),
    **dict.fromkeys(("mul", "and", "minimum", "fmin"), _infix("and")),
    **{op: _infix(op) for op in ("xor", "eq", "ne", "lt", "le", "gt", "ge")},
    **dict.fromkeys(("abs", "floor", "ceil", "trunc"), _same), "not": lambda a: f"(not {a})",
    "isnan": lambda a: "False", "isinf": lambda a: "False", "isfinite": lambda a: "True",
    "signbit": lambda a: "False",
}


def _signed(dtype: str) -> dict[str, Rule]:
    bits = str(8 * BYTES[dtype])
    return _INTEGER | {
        "floordiv": _call("floordiv"), "mod": _call("mod"), "fmod": _call("remainder"), "abs": _call("abs"),
        "signbit": lambda a: f"({a} < 0)",
        "shl": lambda a, n: f"shift_left({a}, {n}, {bits})", "shr": lambda a, n: f"shift_right({a}, {n}, {bits})",
        "pow": lambda a, n: f"power(np.int64({a}), np.int64({n}))"}


def _unsigned(dtype: str) -> dict[str, Rule]:
    bits = f"np.{dtype}({8 * BYTES[dtype]})"
    return _INTEGER | {
        "floordiv": _call("unsigned_floordiv"), "mod": _call("unsigned_mod"), "fmod": _call("unsigned_mod"),
        "abs": _same, "signbit": lambda a: "False",
        "shl": lambda a, n: f"shift_left({a}, {n}, {bits})",
        "shr": lambda a, n: f"unsigned_shift_right({a}, {n}, {bits})",
        "pow": lambda a, n: f"unsigned_power(np.uint64({a}), np.uint64({n}))"}


def _rules(dtype: str) -> dict[str, Rule]:
    if dtype == "float32":
        return _FLOAT | {op: (lambda rule: lambda *a: f"np.float32({rule(*a)})")(_FLOAT[op]) for op in _WIDE}
    if is_float(dtype):
        return _FLOAT
    if is_signed(dtype):
        return _signed(dtype)
    return _unsigned(dtype) if is_unsigned(dtype) else _BOOL


def convert(value: str, source: str, target: str) -> str:
    """`value` of dtype `source` as dtype `target`: what C does, and what NumPy gives on x86 where C leaves it open."""
    if source == target:
        return value
    if target == "bool":
        return f"({value} != 0)"
    value = bare(value)
    if target == "float16":
        wide = value if source in ("float32", "float64") else f"np.float32({value})"
        return f"half({wide})"
    if is_float(source) and is_integer(target):
        if target == "uint64":
            return f"to_uint64({value})"
        middle = "int64" if target in ("int64", "uint32") else "int32"
        text = f"to_{middle}({value})"
        return text if middle == target else f"np.{target}({text})"
    return value if (source, target) == ("float16", "float32") else f"np.{target}({value})"


class Python:
    """Python with NumPy's numbers, for `Expressions`."""

    literal = staticmethod(literal)
    convert = staticmethod(convert)
    scalar = staticmethod(scalar)

    def position(self, index: str, dtype: str) -> str:
        return convert(f"np.int64({index})", "int64", dtype)

    def define(self, name: str, dtype: str, value: str) -> str:
        return f"{name} = {value}"

    def declare(self, name: str, dtype: str) -> str:
        return ""

    def assign(self, name: str, value: str) -> str:
        return f"{name} = {value}"

    def branches(self, condition: str) -> tuple[str, str]:
        return f"if {condition}:", "else:"
