"""Scalar and vector operations as OpenCL C, with NumPy's results. Rules are tables.

What holds here: an operand and a result is text of a value of the operation's dtype; integers wrap around, narrow ones
are narrowed at once; bool is 0 or 1; float16 is a float that float16 can hold. `Lanes` is for what works on vectors as
it does on numbers, float32 and float64 alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracedsl.diagnostics import TracedslError
from tracedsl.hw.text.expressions import bare
from tracedsl.ir.dtypes import BYTES, is_float, is_integer, is_signed
from tracedsl.ir.expr import SCALAR_OPS

# dtype -> type of a value; bool and float16 have another one in memory
TYPES = {"bool": "int", "int8": "char", "int16": "short", "int32": "int", "int64": "long", "uint8": "uchar",
         "uint16": "ushort", "uint32": "uint", "uint64": "ulong", "float16": "float", "float32": "float",
         "float64": "double"}
MEMORY = TYPES | {"bool": "uchar", "float16": "half"}

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^", "eq": "==", "ne": "!=",
          "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")
_NAMES = {"maximum": "t_max", "minimum": "t_min", "fmax": "t_fmax", "fmin": "t_fmin", "sign": "t_sign"}
_BUILT_IN = ("sqrt", "floor", "ceil", "trunc", "rint", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin",
             "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc",
             "cbrt", "hypot", "atan2", "copysign", "fmod", "pow", "isnan", "isinf", "isfinite", "signbit")
# OpenCL allows these more than 1 ULP in float; they are computed in double
_IN_DOUBLE = ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan",
              "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "cbrt", "hypot", "atan2", "pow")

Rule = Callable[..., str]


def _infix(op: str) -> Rule:
    return lambda a, b: f"({a} {_INFIX[op]} {b})"


def _call(name: str) -> Rule:
    return lambda *args: f"{name}({', '.join(map(bare, args))})"


_FLOAT: dict[str, Rule] = {
    **{op: _infix(op) for op in ("add", "sub", "mul", "div", *_COMPARE)}, **{op: _call(op) for op in _BUILT_IN},
    **{op: _call(name) for op, name in _NAMES.items()},
    "abs": _call("fabs"), "neg": lambda a: f"(-{a})", "mod": _call("t_mod"), "floordiv": _call("t_floordiv"),
    "sigmoid": _call("t_sigmoid"),
}
_SAME: Rule = lambda a: a      # noqa: E731 - a row of a table
_INTEGER: dict[str, Rule] = {
    **{op: _infix(op) for op in ("and", "or", "xor", *_COMPARE)}, **{op: _call(name) for op, name in _NAMES.items()},
    **dict.fromkeys(("floor", "ceil", "trunc", "rint"), _SAME),
    **{op: _call(f"t_{op}") for op in ("mod", "floordiv", "fmod", "abs", "shl", "shr", "pow")},
    "not": lambda a: f"(~{a})", "isnan": lambda a: "0", "isinf": lambda a: "0", "isfinite": lambda a: "1",
}
_BOOL: dict[str, Rule] = {
    **dict.fromkeys(("add", "or", "maximum", "fmax"), _infix("or")),
    **dict.fromkeys(("mul", "and", "minimum", "fmin"), _infix("and")), "xor": _infix("xor"),
    **{op: _infix(op) for op in _COMPARE}, **dict.fromkeys(("abs", "floor", "ceil", "trunc"), _SAME),
    "not": lambda a: f"(!{a})", "isnan": lambda a: "0", "isinf": lambda a: "0", "isfinite": lambda a: "1",
    "signbit": lambda a: "0",
}


def _wrapping(dtype: str) -> dict[str, Rule]:
    """Arithmetic of integers, in the unsigned type that is wide enough."""
    wide = "ulong" if BYTES[dtype] == 8 else "uint"
    rules = {op: (lambda sign: lambda a, b: f"(({wide}){a} {sign} ({wide}){b})")(_INFIX[op])
             for op in ("add", "sub", "mul")}
    signbit: Rule = (lambda a: f"({a} < 0)") if is_signed(dtype) else (lambda a: "0")
    return {**_INTEGER, **rules, "neg": lambda a: f"(0 - ({wide}){a})", "signbit": signbit}


def literal(dtype: str, value: bool | int | float) -> str:
    """A constant."""
    if dtype == "bool":
        return str(int(bool(value)))
    if is_integer(dtype):
        bits = 8 * BYTES[dtype]
        number = int(value) & (1 << bits) - 1
        if not is_signed(dtype):
            return f"{number}UL" if bits == 64 else f"({TYPES[dtype]}){number}u"
        number -= (1 << bits) * (number >> bits - 1)
        if number == -(1 << bits - 1):
            return f"({TYPES[dtype]})({number + 1}{'L' * (bits == 64)} - 1)"
        return f"({TYPES[dtype]})({number}{'L' * (bits == 64)})"
    real = float(value)
    suffix = "" if dtype == "float64" else "f"
    if not math.isfinite(real):
        named = "NAN" if real != real else "INFINITY" if real > 0 else "(-INFINITY)"
        return named if suffix else f"(double){named}"
    if dtype == "float16":
        import numpy as np
        with np.errstate(over="ignore"):
            return literal("float32", float(np.float16(real)))
    return f"({real.hex()}{suffix})" if real < 0 or math.copysign(1, real) < 0 else f"{real.hex()}{suffix}"


def scalar(op: str, dtype: str, args: Sequence[str]) -> str:
    """`op` of operands of `dtype`; for "select", `dtype` is that of the values to choose from.

    Raises TracedslError (H020) for an operation that NumPy does not define for the dtype.
    """
    if op == "select":
        return f"({args[0]} ? {args[1]} : {args[2]})"
    rules = _FLOAT if is_float(dtype) else _BOOL if dtype == "bool" else _wrapping(dtype)
    if op not in rules:
        raise TracedslError("H020", f"{op} is not defined for {dtype}")
    if dtype in ("float16", "float32") and op in _IN_DOUBLE:
        text = f"(float){rules[op](*(f'(double)({bare(a)})' for a in args))}"
    else:
        text = rules[op](*args)
    if SCALAR_OPS[op][1] == "bool" or dtype == "bool":
        return text
    if dtype == "float16":
        return f"t_half({bare(text)})"
    return f"({TYPES[dtype]}){text}" if is_integer(dtype) else f"({text})" if text.startswith("(float)") else text


def convert(value: str, source: str, target: str) -> str:
    """`value` of dtype `source` as dtype `target`: what C does, and what NumPy gives on x86 where C leaves it open."""
    if source == target:
        return value
    if target == "bool":
        return f"({value} != 0)"
    plain = bare(value)
    if target == "float16":
        wide = value if source in ("float32", "float64") else f"(float){value}"
        return f"(float)t_half({wide})"
    if is_float(source) and is_integer(target):
        if target == "uint64":
            return f"t_to_ulong({plain})"
        middle, name = ("long", "t_to_long") if target in ("int64", "uint32") else ("int", "t_to_int")
        text = f"{name}({plain})"
        return text if TYPES[target] == middle else f"({TYPES[target]}){text}"
    return value if TYPES[source] == TYPES[target] else f"({TYPES[target]}){value}"


class C:
    """OpenCL C's numbers, for `Expressions`."""

    literal = staticmethod(literal)
    convert = staticmethod(convert)
    scalar = staticmethod(scalar)

    def position(self, index: str, dtype: str) -> str:
        return convert(f"(long)({index})", "int64", dtype)

    def define(self, name: str, dtype: str, value: str) -> str:
        return f"const {TYPES[dtype]} {name} = {value};"

    def declare(self, name: str, dtype: str) -> str:
        return f"{TYPES[dtype]} {name};"

    def assign(self, name: str, value: str) -> str:
        return f"{name} = {value};"

    def branches(self, condition: str) -> tuple[str, str]:
        return f"if ({bare(condition)})", "else"


# what `Lanes` can write
VECTOR_OPS = frozenset(("add", "sub", "mul", "div", "neg", "abs", "sqrt", "maximum", "minimum", "fmax", "fmin",
                        "select", "floor", "ceil", "trunc", "rint", *_COMPARE, *_IN_DOUBLE))


@dataclass(frozen=True)
class Lanes(C):
    """`count` lanes at once, all of one float dtype; comparisons give all bits of a lane."""

    dtype: str
    count: int

    @property
    def type(self) -> str:
        return f"{TYPES[self.dtype]}{self.count}"

    def literal(self, dtype: str, value: bool | int | float) -> str:      # type: ignore[override]
        return f"({self.type})({literal(dtype, value)})"

    def scalar(self, op: str, dtype: str, args: Sequence[str]) -> str:    # type: ignore[override]
        if op == "select":
            return f"({args[0]} ? {args[1]} : {args[2]})"
        if op in _IN_DOUBLE and dtype == "float32":
            wide = [f"convert_double{self.count}({bare(a)})" for a in args]
            return f"convert_float{self.count}({_FLOAT[op](*wide)})"
        return _FLOAT[op](*args)

    def define(self, name: str, dtype: str, value: str) -> str:
        mask = "int" if self.dtype == "float32" else "long"
        return f"const {f'{mask}{self.count}' if dtype == 'bool' else self.type} {name} = {value};"
