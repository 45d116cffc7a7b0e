"""Element-wise functions: every ufunc that the scalar operations of the IR can express.

What holds here: dtypes are decided by the ufunc itself (`resolve_dtypes`, so by NEP 50), with Python numbers as
numbers that adapt. Casts and broadcasts are emitted here, so that the nodes' operands agree in shape and dtype.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tracedsl.capture.tensor.arrays import Operand, SymbolicArray, dtype_of, number_node, operand, symbolic
from tracedsl.capture.tensor.numbers import PythonNumber
from tracedsl.capture.tensor.recorder import Implementation, Recorder
from tracedsl.ir.dtypes import is_complex, is_float, is_integer, is_unsigned
from tracedsl.ir.expr import SCALAR_OPS
from tracedsl.ir.graph import Node
from tracedsl.ir.tensor import numpy_function

Rule = Callable[..., Node]

_NO_UFUNC = ("select", "sigmoid", "erf", "erfc")
_OF_SCIPY = {"erf": "erf", "erfc": "erfc", "expit": "sigmoid", "exp2": "exp2", "expm1": "expm1", "log1p": "log1p",
             "cbrt": "cbrt"}
_COMPARISONS = (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal)
_ON_COMPLEX = ("add", "sub", "mul", "div", "neg", "abs", "eq", "ne", "select", "isnan", "isinf", "isfinite")
ON_BOOL = {"add": "or", "mul": "and", "maximum": "or", "minimum": "and", "fmax": "or", "fmin": "and"}
_WHOLE = ("floor", "ceil", "trunc")


def point(recorder: Recorder, op: str, *nodes: Node) -> Node:
    """One scalar operation on nodes of equal shape and dtype, with the cases where a dtype makes it another one."""
    given = recorder.type(nodes[-1])
    dtype = given.dtype
    if is_complex(dtype) and op not in _ON_COMPLEX:
        recorder.refuse("C015", f"{op} of complex numbers is not compiled",
                        hint="split the computation into real and imaginary parts, or leave this part to NumPy")
    if dtype == "bool":
        op = ON_BOOL.get(op, op)
    if not is_float(dtype) and not is_complex(dtype):
        if op in ("isnan", "isinf", "isfinite"):
            return recorder.full(given.shape, op == "isfinite", "bool")
        if op in _WHOLE or (op == "abs" and not dtype.startswith("int")):
            return nodes[0]
    return recorder.emit(op, nodes)


def place(recorder: Recorder, value: Operand, dtype: Any, shape: tuple[int, ...]) -> Node:
    """An operand as a node of the given dtype and shape. Raises OverflowError for a number that does not fit."""
    if isinstance(value, SymbolicArray):
        node = recorder.cast(value.node, dtype)
    elif isinstance(value, PythonNumber):
        node = recorder.cast(number_node(recorder, value), dtype)
    else:
        node = recorder.constant(value, dtype)
    return recorder.broadcast(node, shape)


def shape_of(value: Operand) -> tuple[int, ...]:
    return value.shape if isinstance(value, SymbolicArray) else ()


def call_ufunc(ufunc: np.ufunc, rule: Rule, recorder: Recorder, *args: Any, out: Any = None, where: Any = True,
               dtype: Any = None, casting: str = "same_kind", order: str = "K", subok: bool = True) -> Any:
    """`ufunc(*args)`: resolves dtypes, broadcasts, applies `rule`. Raises what NumPy raises for dtypes and shapes."""
    if len(args) > ufunc.nin:
        args, out = args[:ufunc.nin], args[ufunc.nin]
    if len(args) != ufunc.nin:
        raise TypeError(f"{ufunc.__name__}() takes {ufunc.nin} positional arguments but {len(args)} were given")
    if where is not True:
        recorder.refuse("C008", f"np.{ufunc.__name__}(where=...) is not captured", hint="use np.where")
    target = _target(recorder, out)
    if target is not None and target.is_scalar:
        target = None   # NumPy's scalars have no memory: `x += 1` gives a new one
    values = [operand(recorder, arg) for arg in args]
    asked = (*map(dtype_of, values), target.dtype if target is not None else None)
    asked += (None,) * (ufunc.nin + ufunc.nout - len(asked))
    forced = {} if dtype is None else {"signature": (None,) * ufunc.nin + (np.dtype(dtype),) * ufunc.nout}
    loop = ufunc.resolve_dtypes(asked, casting=casting, **forced)  # type: ignore[arg-type]
    shape = np.broadcast_shapes(*map(shape_of, values))
    if ufunc in _COMPARISONS and (decided := _out_of_range(ufunc, values, loop[:2])) is not None:
        node = recorder.full(shape, decided, "bool")
    elif ufunc.nin == 2 and loop[0] != loop[1]:
        node = _mixed_signs(recorder, ufunc, values, loop, shape)
    else:
        node = rule(recorder, *(place(recorder, v, t, shape) for v, t in zip(values, loop)))
    if target is not None:
        return store(recorder, target, node)
    return SymbolicArray(recorder, node, is_scalar=shape == ())


def store(recorder: Recorder, target: SymbolicArray, node: Node) -> SymbolicArray:
    """`out=` and augmented assignment."""
    from tracedsl.capture.tensor.writes import update  # writes need `place` of this module

    return update(recorder, target, node)


def _target(recorder: Recorder, out: Any) -> SymbolicArray | None:
    if isinstance(out, tuple):
        out = out[0] if len(out) == 1 else recorder.refuse("C008", "several `out=` arrays are not captured")
    if out is None or type(out) is SymbolicArray:
        return out
    return recorder.refuse("C011", "an outer array is written in place", why="others would see it",
                           hint="return the new array instead of writing it")


def _out_of_range(ufunc: np.ufunc, values: list[Operand], loop: Any) -> bool | None:
    """A comparison with a Python integer that the dtype cannot hold is decided without looking at the array."""
    for number, dtype in zip(values, loop):
        if type(number) is int and dtype.kind in "iu" and not (np.iinfo(dtype).min <= number <= np.iinfo(dtype).max):
            sides = [1 if number > 0 else -1 if v is number else 0 for v in values]
            sides = [side if v is number else 0 for side, v in zip(sides, values)]
            return bool(ufunc(*sides))
    return None


def _mixed_signs(recorder: Recorder, ufunc: np.ufunc, values: list[Operand], loop: Any, shape: tuple[int, ...]) -> Node:
    """int64 compared with uint64: exact in NumPy, so not through float64. A negative number is less than all others."""
    if ufunc not in _COMPARISONS:
        recorder.refuse("C008", f"np.{ufunc.__name__} of {loop[0]} and {loop[1]} is not captured")
    nodes = [place(recorder, v, t, shape) for v, t in zip(values, loop)]
    op = next(name for name in ("eq", "ne", "lt", "le", "gt", "ge") if numpy_function(name) is ufunc)
    left = loop[0].kind == "i"
    signed = nodes[0] if left else nodes[1]
    negative = recorder.emit("lt", [signed, recorder.full(shape, 0, "int64")])
    plain = recorder.emit(op, [recorder.cast(node, "uint64") for node in nodes])
    decided = recorder.full(shape, bool(ufunc(-1, 0) if left else ufunc(0, -1)), "bool")
    return recorder.emit("select", [negative, decided, plain])


# -- rules for ufuncs that are no scalar operation of the IR ------------------------------------------------------


def _full_like(recorder: Recorder, node: Node, value: Any) -> Node:
    given = recorder.type(node)
    return recorder.full(given.shape, value, given.dtype)


def _truth(recorder: Recorder, node: Node) -> Node:
    return node if recorder.type(node).dtype == "bool" else point(recorder, "ne", node, _full_like(recorder, node, 0))


def _logical(op: str, recorder: Recorder, *nodes: Node) -> Node:
    return recorder.emit(op, [_truth(recorder, node) for node in nodes])


def _square(recorder: Recorder, x: Node) -> Node:
    return point(recorder, "mul", x, x)


def _reciprocal(recorder: Recorder, x: Node) -> Node:
    if is_integer(recorder.type(x).dtype):
        recorder.refuse("C015", "np.reciprocal of integers is not compiled", hint="use 1 / x or 1 // x")
    return point(recorder, "div", _full_like(recorder, x, 1), x)


def _power(recorder: Recorder, x: Node, y: Node) -> Node:
    dtype = recorder.type(x).dtype
    exponent = recorder.known(y)
    single = None if exponent is None or exponent.size == 0 or np.any(exponent != exponent.flat[0]) \
        else exponent.flat[0].item()
    if single == 2:
        return _square(recorder, x)
    if is_integer(dtype) and not is_unsigned(dtype):
        if exponent is None:
            recorder.refuse("C008", "an integer array as the exponent of integers is not captured",
                            why="NumPy raises an error for a negative exponent", hint="convert the base to float")
        if np.any(exponent < 0):
            raise ValueError("Integers to negative integer powers are not allowed.")
    if is_float(dtype) and recorder.type(x).shape and single in (1.0, 0.5, -1.0):
        if single == 1.0:
            return x
        return point(recorder, "sqrt", x) if single == 0.5 else _reciprocal(recorder, x)
    return point(recorder, "pow", x, y)


def _scaled(factor: float, recorder: Recorder, x: Node) -> Node:
    return point(recorder, "mul", x, _full_like(recorder, x, factor))


def _logaddexp(two: bool, recorder: Recorder, a: Node, b: Node) -> Node:
    """max + log(1 + exp(-|a - b|)), and for equal operands (infinite ones too) a + log(2), as NumPy's loop."""
    emit = recorder.emit
    gap = emit("neg", [emit("abs", [emit("sub", [a, b])])])
    exp = emit("exp2" if two else "exp", [gap])
    tail = emit("log1p", [exp])
    if two:
        tail = emit("mul", [tail, _full_like(recorder, tail, 1 / math.log(2))])
    apart = emit("add", [emit("maximum", [a, b]), tail])
    same = emit("add", [a, _full_like(recorder, a, 1.0 if two else math.log(2))])
    return emit("select", [emit("eq", [a, b]), same, apart])


def _heaviside(recorder: Recorder, x: Node, half: Node) -> Node:
    emit, zero = recorder.emit, _full_like(recorder, x, 0)
    step = emit("select", [emit("lt", [x, zero]), zero, _full_like(recorder, x, 1)])
    chosen = emit("select", [emit("eq", [x, zero]), half, step])
    return emit("select", [emit("isnan", [x]), x, chosen])


def _conjugate(recorder: Recorder, x: Node) -> Node:
    return recorder.emit("conj", [x]) if is_complex(recorder.type(x).dtype) else x


def _float_power(recorder: Recorder, x: Node, y: Node) -> Node:
    return point(recorder, "pow", x, y)


_COMPOSED: dict[np.ufunc, Rule] = {
    np.square: _square, np.reciprocal: _reciprocal, np.power: _power, np.positive: lambda r, x: x,
    np.float_power: _float_power, np.fabs: lambda r, x: point(r, "abs", x), np.conjugate: _conjugate,
    np.logical_and: partial(_logical, "and"), np.logical_or: partial(_logical, "or"),
    np.logical_xor: partial(_logical, "xor"), np.logical_not: partial(_logical, "not"),
    np.deg2rad: partial(_scaled, math.pi / 180), np.radians: partial(_scaled, math.pi / 180),
    np.rad2deg: partial(_scaled, 180 / math.pi), np.degrees: partial(_scaled, 180 / math.pi),
    np.logaddexp: partial(_logaddexp, False), np.logaddexp2: partial(_logaddexp, True), np.heaviside: _heaviside,
}


# -- SciPy's ufuncs, by name: SciPy is not imported for them ------------------------------------------------------


def _ndtr(recorder: Recorder, x: Node) -> Node:
    """erfc(-x / sqrt(2)) / 2"""
    return _scaled(0.5, recorder, recorder.emit("erfc", [_scaled(-math.sqrt(0.5), recorder, x)]))


def _exp10(recorder: Recorder, x: Node) -> Node:
    return recorder.emit("pow", [_full_like(recorder, x, 10), x])


def _logit(recorder: Recorder, x: Node) -> Node:
    """log(x / (1 - x)); around 1/2, where that loses digits, 2 atanh(2x - 1)."""
    emit, one = recorder.emit, _full_like(recorder, x, 1)
    far = emit("log", [emit("div", [x, emit("sub", [one, x])])])
    near = _scaled(2.0, recorder, emit("atanh", [emit("sub", [emit("add", [x, x]), one])]))
    middle = emit("lt", [emit("abs", [emit("sub", [x, _full_like(recorder, x, 0.5)])]), _full_like(recorder, x, 0.25)])
    return emit("select", [middle, near, far])


def _x_log(op: str, recorder: Recorder, x: Node, y: Node) -> Node:
    """x log(y), and 0 for x = 0 whatever y is but NaN."""
    emit, zero = recorder.emit, _full_like(recorder, x, 0)
    product = emit("mul", [x, emit(op, [y])])
    empty = emit("and", [emit("eq", [x, zero]), emit("not", [emit("isnan", [y])])])
    return emit("select", [empty, zero, product])


_COMPOSED_OF_SCIPY: dict[str, Rule] = {
    "ndtr": _ndtr, "exp10": _exp10, "logit": _logit, "xlogy": partial(_x_log, "log"),
    "xlog1py": partial(_x_log, "log1p"),
}


def _divmod(recorder: Recorder, a: Any, b: Any) -> Any:
    found = recorder.table
    return found[id(np.floor_divide)](recorder, a, b), found[id(np.remainder)](recorder, a, b)


# -- other element-wise functions ---------------------------------------------------------------------------------


def common_dtype(*values: Operand) -> np.dtype[Any]:
    """`np.result_type`, with Python numbers as numbers that adapt."""
    return np.result_type(*(1 if kind is int else 1.0 if kind is float else 1j if kind is complex else kind
                            for kind in map(dtype_of, values)))


def _where(recorder: Recorder, condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None or y is None:
        recorder.refuse("C008", "np.where(condition) alone gives an array whose shape depends on data",
                        hint="use the three-argument form")
    test, a, b = symbolic(recorder, condition), operand(recorder, x), operand(recorder, y)
    dtype, shape = common_dtype(a, b), np.broadcast_shapes(test.shape, shape_of(a), shape_of(b))
    nodes = [recorder.broadcast(_truth(recorder, test.node), shape), place(recorder, a, dtype, shape),
             place(recorder, b, dtype, shape)]
    return SymbolicArray(recorder, recorder.emit("select", nodes))


def _clip(recorder: Recorder, a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, *,
          min: Any = None, max: Any = None) -> Any:
    """minimum(maximum(a, low), high), with the dtype of all three together."""
    low, high = (min if a_min is None else a_min), (max if a_max is None else a_max)
    if low is None and high is None:
        return symbolic(recorder, a).copy()
    bounds = [bound for bound in (low, high) if bound is not None]
    values = [operand(recorder, v) for v in (symbolic(recorder, a), *bounds)]
    dtype, shape = common_dtype(*values), np.broadcast_shapes(*map(shape_of, values))
    node = place(recorder, values[0], dtype, shape)
    for op, bound in (("maximum", low), ("minimum", high)):
        if bound is not None:
            node = point(recorder, op, node, place(recorder, operand(recorder, bound), dtype, shape))
    target = _target(recorder, out)
    return store(recorder, target, node) if target is not None else SymbolicArray(recorder, node, is_scalar=shape == ())


def _round(recorder: Recorder, a: Any, decimals: int = 0, out: Any = None) -> Any:
    """To even; with decimals by scaling, as NumPy does."""
    x = symbolic(recorder, a)
    if out is not None or x.dtype.kind not in "biuf" or (x.dtype.kind in "iu" and decimals < 0):
        recorder.refuse("C008", "this form of np.round is not captured")
    if x.dtype.kind in "iu":
        return x.copy()
    if x.dtype.kind == "b":
        return x.astype(np.float16) if decimals == 0 else recorder.refuse("C008", "np.round of booleans")
    if decimals == 0:
        return np.rint(x)
    scale = 10.0 ** abs(int(decimals))
    return np.rint(x * scale) / scale if decimals > 0 else np.rint(x / scale) * scale


def _part(which: str, recorder: Recorder, value: Any) -> Any:
    x = symbolic(recorder, value)
    if not is_complex(x.tensor.dtype):
        if which == "real":
            return x
        return SymbolicArray(recorder, recorder.full(x.shape, 0, x.dtype), is_scalar=x.is_scalar)
    return SymbolicArray(recorder, recorder.emit(which, [x.node]), is_scalar=x.is_scalar)


def _isclose(recorder: Recorder, a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08,
             equal_nan: bool = False) -> Any:
    x, y = symbolic(recorder, a), symbolic(recorder, b)
    if x.dtype.kind == "c" or y.dtype.kind != "f":
        recorder.refuse("C008", "np.isclose is captured for real numbers, the second of them floats")
    close = (abs(x - y) <= atol + rtol * abs(y)) & np.isfinite(y) | (x == y)
    return close | (np.isnan(x) & np.isnan(y)) if equal_nan else close


def _nan_to_num(recorder: Recorder, x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None,
                neginf: Any = None) -> Any:
    a = symbolic(recorder, x)
    if a.dtype.kind != "f" or not copy:
        recorder.refuse("C008", "np.nan_to_num is captured for floats, with copy=True")
    limits = np.finfo(a.dtype)
    low, high = (limits.min if neginf is None else neginf), (limits.max if posinf is None else posinf)
    part = np.where(np.isnan(a), nan, a)
    return np.where(a == np.inf, high, np.where(a == -np.inf, low, part)).astype(a.dtype)


def table() -> dict[Any, Implementation]:
    """NumPy function -> symbolic form."""
    rules: dict[np.ufunc, Rule] = {}
    for op in SCALAR_OPS:
        if op not in _NO_UFUNC:
            rules[numpy_function(op)] = partial(_point_of, op)  # type: ignore[index]
    rules |= _COMPOSED
    special = sys.modules.get("scipy.special")
    if special is not None:
        rules |= {getattr(special, name): partial(_point_of, op) for name, op in _OF_SCIPY.items()}
        rules |= {getattr(special, name): rule for name, rule in _COMPOSED_OF_SCIPY.items()}
    forms: dict[Any, Implementation] = {ufunc: partial(call_ufunc, ufunc, rule) for ufunc, rule in rules.items()}
    return forms | {
        np.divmod: _divmod, np.where: _where, np.clip: _clip, np.round: _round, np.around: _round,
        np.real: partial(_part, "real"), np.imag: partial(_part, "imag"), np.isclose: _isclose,
        np.nan_to_num: _nan_to_num, np.fix: lambda r, x, out=None: np.trunc(symbolic(r, x)),
    }


def _point_of(op: str, recorder: Recorder, *nodes: Node) -> Node:
    return point(recorder, op, *nodes)
