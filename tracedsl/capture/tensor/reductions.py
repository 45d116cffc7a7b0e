"""Reductions: sum, mean, variance, extrema, their positions, norms.

What holds here: the dtype that NumPy accumulates in is made explicit by a cast before the `reduce` node (small
integers in 64 bits, float16 in float32) and undone after it. Result shapes and scalar-ness are NumPy's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from tracedsl.capture.tensor.arrays import SymbolicArray, symbolic
from tracedsl.capture.tensor.elementwise import ON_BOOL, place, point
from tracedsl.capture.tensor.recorder import Implementation, Recorder
from tracedsl.ir.graph import Node

_KINDS: dict[np.ufunc, str] = {
    np.add: "add", np.multiply: "mul", np.maximum: "maximum", np.minimum: "minimum", np.fmax: "fmax", np.fmin: "fmin",
    np.logical_and: "and", np.logical_or: "or", np.bitwise_and: "and", np.bitwise_or: "or",
}
_NO_VALUE = np._NoValue


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """Sorted axes; all of them for None. Raises NumPy's AxisError."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(sorted(normalize_axis_tuple(axis, ndim)))


def reduce_node(recorder: Recorder, kind: str, node: Node, axes: tuple[int, ...], keepdims: Any = False) -> Node:
    """One `reduce` node, without conversions. No axes: the node itself."""
    shape = recorder.type(node).shape
    if axes:
        node = recorder.emit("reduce", [node], kind=kind, axes=axes)
    if keepdims is True:
        node = recorder.reshape(node, tuple(1 if i in axes else n for i, n in enumerate(shape)))
    return node


def _result(recorder: Recorder, node: Node) -> SymbolicArray:
    return SymbolicArray(recorder, node, is_scalar=recorder.type(node).shape == ())


def reduce_ufunc(recorder: Recorder, ufunc: np.ufunc, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None,
                 keepdims: Any = False, initial: Any = _NO_VALUE, where: Any = True) -> Any:
    """`ufunc.reduce`: the loop's dtype is what the ufunc resolves for a reduction."""
    if ufunc not in _KINDS:
        recorder.refuse("C007", f"np.{ufunc.__name__}.reduce has no symbolic form")
    if out is not None or where is not True:
        recorder.refuse("C008", f"out= and where= of np.{ufunc.__name__}.reduce are not captured",
                        hint="select the elements with np.where before reducing")
    a, kind = symbolic(recorder, array), _KINDS[ufunc]
    axes = () if not a.ndim and axis in (0, -1) else axes_of(axis, a.ndim)   # NumPy lets a 0-d array pass
    loop, result = _dtypes(ufunc, a.dtype, dtype)
    if kind in ("maximum", "minimum", "fmax", "fmin"):
        if loop.kind == "c":
            recorder.refuse("C015", f"np.{ufunc.__name__} of complex numbers is not compiled")
        if initial is _NO_VALUE and any(a.shape[i] == 0 for i in axes):
            raise ValueError(f"zero-size array to reduction operation {ufunc.__name__} which has no identity")
    if loop.kind == "c" and kind != "add":
        recorder.refuse("C015", f"np.{ufunc.__name__}.reduce of complex numbers is not compiled")
    node = recorder.cast(a.node, loop)
    if loop == np.bool_:
        kind = ON_BOOL.get(kind, kind)
    node = reduce_node(recorder, kind, node, axes, bool(keepdims))
    if initial is not _NO_VALUE and initial is not None:
        first = place(recorder, symbolic(recorder, initial), loop, recorder.type(node).shape)
        node = point(recorder, kind, node, first)
    return _result(recorder, recorder.cast(node, result))


def _dtypes(ufunc: np.ufunc, given: np.dtype[Any], asked: Any) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """The dtype to accumulate in, and that of the result."""
    if ufunc in (np.logical_and, np.logical_or):
        return np.dtype(bool), np.dtype(bool)
    if asked is not None:
        result = np.dtype(asked)
    elif ufunc in (np.add, np.multiply) and given.kind in "biu":
        result = np.result_type(given, np.uint64 if given.kind == "u" else np.int64)
    else:
        result = ufunc.resolve_dtypes((None, given, None), reduction=True)[2]
    half = result == np.float16 and ufunc in (np.add, np.multiply)
    return (np.dtype(np.float32) if half else result), result


def _by_ufunc(ufunc: np.ufunc, recorder: Recorder, a: Any, axis: Any = None, dtype: Any = None, out: Any = None,
              keepdims: Any = False, initial: Any = _NO_VALUE, where: Any = True) -> Any:
    where = True if where is _NO_VALUE else where
    return reduce_ufunc(recorder, ufunc, a, axis, dtype, out, keepdims is True, initial, where)


def _extremum(ufunc: np.ufunc, recorder: Recorder, a: Any, axis: Any = None, out: Any = None, keepdims: Any = False,
              initial: Any = _NO_VALUE, where: Any = True) -> Any:
    where = True if where is _NO_VALUE else where
    return reduce_ufunc(recorder, ufunc, a, axis, None, out, keepdims is True, initial, where)


def _truth(ufunc: np.ufunc, recorder: Recorder, a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *,
           where: Any = True) -> Any:
    where = True if where is _NO_VALUE else where
    return reduce_ufunc(recorder, ufunc, symbolic(recorder, a) != 0, axis, None, out, keepdims is True, where=where)


def _count(a: SymbolicArray, axes: tuple[int, ...]) -> int:
    count = 1
    for axis in axes:
        count *= a.shape[axis]
    return count


def _working_dtype(a: SymbolicArray, dtype: Any) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """What mean and var work in, and return: float64 for integers, float32 inside for float16."""
    if dtype is not None:
        result = np.dtype(dtype)
    else:
        result = np.dtype(np.float64) if a.dtype.kind in "biu" else a.dtype
    return (np.dtype(np.float32) if result == np.float16 else result), result


def _refuse_extras(recorder: Recorder, name: str, out: Any, where: Any, *others: Any) -> None:
    if out is not None or where not in (True, _NO_VALUE) or any(o is not _NO_VALUE and o is not None for o in others):
        recorder.refuse("C008", f"this option of np.{name} is not captured",
                        hint="axis, dtype, ddof and keepdims are")


def _mean(recorder: Recorder, a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *,
          where: Any = True) -> Any:
    x = symbolic(recorder, a)
    _refuse_extras(recorder, "mean", out, True if where is True else where)
    work, result = _working_dtype(x, dtype)
    axes = axes_of(axis, x.ndim)
    return _result(recorder, recorder.cast(_mean_node(recorder, x, axes, work, keepdims is True), result))


def _mean_node(recorder: Recorder, x: SymbolicArray, axes: tuple[int, ...], work: np.dtype[Any],
               keepdims: bool) -> Node:
    total = reduce_node(recorder, "add", recorder.cast(x.node, work), axes, keepdims)
    return _divided(recorder, total, _count(x, axes))


def _divided(recorder: Recorder, node: Node, count: float) -> Node:
    given = recorder.type(node)
    if np.dtype(given.dtype).kind in "iub":  # mean(dtype=int): NumPy divides as floats and converts back
        exact = recorder.cast(node, np.float64)
        return recorder.cast(point(recorder, "div", exact, recorder.full(given.shape, count, np.float64)), given.dtype)
    return point(recorder, "div", node, recorder.full(given.shape, count, given.dtype))


def _variance(recorder: Recorder, a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0,
              keepdims: Any = False, *, where: Any = True, mean: Any = _NO_VALUE, correction: Any = _NO_VALUE) -> Any:
    x = symbolic(recorder, a)
    _refuse_extras(recorder, "var", out, where, mean)
    if correction is not _NO_VALUE:
        ddof = correction
    work, result = _working_dtype(x, dtype)
    axes = axes_of(axis, x.ndim)
    middle = recorder.broadcast(_mean_node(recorder, x, axes, work, True), x.shape)
    apart = point(recorder, "sub", recorder.cast(x.node, work), middle)
    if work.kind == "c":
        re, im = recorder.emit("real", [apart]), recorder.emit("imag", [apart])
        squares = recorder.emit("add", [recorder.emit("mul", [re, re]), recorder.emit("mul", [im, im])])
        result = np.dtype(recorder.type(squares).dtype)
    else:
        squares = point(recorder, "mul", apart, apart)
    total = reduce_node(recorder, "add", squares, axes, keepdims is True)
    return _result(recorder, recorder.cast(_divided(recorder, total, max(_count(x, axes) - ddof, 0)), result))


def _deviation(recorder: Recorder, a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0,
               keepdims: Any = False, **options: Any) -> Any:
    variance = _variance(recorder, a, axis, dtype, out, ddof, keepdims, **options)
    return _result(recorder, point(recorder, "sqrt", variance.node))


def _average(recorder: Recorder, a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *,
             keepdims: Any = False) -> Any:
    x = symbolic(recorder, a)
    if returned:
        recorder.refuse("C008", "np.average(returned=True) is not captured")
    if weights is None:
        return _mean(recorder, x, axis, None, None, keepdims)
    w: Any = symbolic(recorder, weights)
    dtype = np.result_type(x.dtype, w.dtype, np.float64) if x.dtype.kind in "biu" else np.result_type(x.dtype, w.dtype)
    if w.shape != x.shape:
        if w.ndim != 1 or not isinstance(axis, int):
            raise TypeError("Axis must be specified when shapes of a and weights differ.")
        place_at = normalize_axis_tuple(axis, x.ndim)[0]
        if w.shape[0] != x.shape[place_at]:
            raise ValueError("Shape of weights must be consistent with shape of a along specified axis.")
        shape = tuple(w.shape[0] if i == place_at else 1 for i in range(x.ndim))
        w = np.broadcast_to(w.reshape(shape), x.shape)
    scale = np.sum(w, axis=axis, dtype=dtype, keepdims=keepdims is True)
    return np.sum(np.multiply(x, w, dtype=dtype), axis=axis, keepdims=keepdims is True) / scale


def _arg_extremum(kind: str, recorder: Recorder, a: Any, axis: Any = None, out: Any = None, *,
                  keepdims: Any = False) -> Any:
    """The first position of the extremum, or of the first NaN: the least position of those that qualify."""
    x = symbolic(recorder, a)
    if out is not None or x.dtype.kind == "c":
        recorder.refuse("C008", "this form of argmin/argmax is not captured")
    flat = recorder.reshape(x.node, (x.size,)) if axis is None or not x.ndim else x.node
    shape = recorder.type(flat).shape
    along = 0 if axis is None else normalize_axis_tuple(axis, x.ndim)[0] if x.ndim else 0
    if shape[along:along + 1] == (0,):
        raise ValueError(f"attempt to get {'argmax' if kind == 'maximum' else 'argmin'} of an empty sequence")
    compared = kind if x.dtype.kind != "b" else "or" if kind == "maximum" else "and"
    best = recorder.broadcast(reduce_node(recorder, compared, flat, (along,), True), shape)
    chosen = recorder.emit("eq", [flat, best])
    if x.dtype.kind == "f":
        chosen = recorder.emit("or", [chosen, recorder.emit("isnan", [flat])])
    places = recorder.emit("iota", [], shape=shape, axis=along)
    beyond = recorder.full(shape, shape[along], "int64")
    node = recorder.emit("select", [chosen, places, beyond])
    node = reduce_node(recorder, "minimum", node, (along,), keepdims is True)
    if axis is None and keepdims is True:
        node = recorder.reshape(node, (1,) * x.ndim)
    return _result(recorder, node)


def _ptp(recorder: Recorder, a: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Any:
    x = symbolic(recorder, a)
    return np.max(x, axis=axis, keepdims=keepdims is True) - np.min(x, axis=axis, keepdims=keepdims is True)


def _count_nonzero(recorder: Recorder, a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    if axis is None and not keepdims:
        return np.sum(symbolic(recorder, a) != 0)  # NumPy gives a Python int here; the scalar behaves as one
    return np.sum(symbolic(recorder, a) != 0, axis=axis, keepdims=keepdims)


def _norm(recorder: Recorder, x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Vector norms 2, 1, inf, -inf, 0 and the Frobenius norm."""
    a = symbolic(recorder, x)
    if a.dtype.kind in "biu":
        a = a.astype(np.float64)
    vector = isinstance(axis, int) or (axis is None and a.ndim == 1)
    if ord is None or (ord == 2 and vector) or (ord == "fro" and not vector and (axis is not None or a.ndim == 2)):
        squares = a.real * a.real + a.imag * a.imag if a.dtype.kind == "c" else a * a
        return np.sqrt(np.sum(squares, axis=axis, keepdims=keepdims))
    if vector and ord in (1, np.inf, -np.inf, 0):
        if ord == 1:
            return np.sum(abs(a), axis=axis, keepdims=keepdims)
        if ord == 0:
            return np.sum((a != 0).astype(abs(a).dtype), axis=axis, keepdims=keepdims)
        return (np.max if ord > 0 else np.min)(abs(a), axis=axis, keepdims=keepdims)
    return recorder.refuse("C008", f"np.linalg.norm(ord={ord!r}) of {a.ndim} dimensions is not captured")


def _nan_reduction(ufunc: np.ufunc, neutral: float, recorder: Recorder, a: Any, axis: Any = None, dtype: Any = None,
                   out: Any = None, keepdims: Any = False) -> Any:
    x: Any = symbolic(recorder, a)
    if x.dtype.kind == "f":
        x = np.where(np.isnan(x), x.dtype.type(neutral), x)
    return reduce_ufunc(recorder, ufunc, x, axis, dtype, out, keepdims is True)


def _outer(recorder: Recorder, ufunc: np.ufunc, a: Any, b: Any, **options: Any) -> Any:
    """`ufunc.outer`: every element of `a` with every element of `b`."""
    x, y = symbolic(recorder, a), symbolic(recorder, b)
    return ufunc(x[(..., *(None,) * y.ndim)], y, **options)


def _accumulate(recorder: Recorder, ufunc: np.ufunc, array: Any, axis: Any = 0, dtype: Any = None,
                out: Any = None) -> Any:
    """`ufunc.accumulate`: partial results along one axis, in the dtype that the ufunc's reduction works in."""
    kind = _KINDS.get(ufunc)
    if kind is None or ufunc in (np.logical_and, np.logical_or):
        recorder.refuse("C007", f"np.{ufunc.__name__}.accumulate has no symbolic form")
    if out is not None:
        recorder.refuse("C008", f"out= of np.{ufunc.__name__}.accumulate is not captured")
    a = symbolic(recorder, array)
    if not a.ndim:
        raise TypeError("cannot accumulate on a scalar")
    along = normalize_axis_tuple(axis, a.ndim)[0]
    loop, result = _dtypes(ufunc, a.dtype, dtype)
    if loop.kind == "c" and kind != "add":
        recorder.refuse("C015", f"np.{ufunc.__name__}.accumulate of complex numbers is not compiled")
    node = recorder.cast(a.node, loop)
    if a.shape[along] > 1:
        node = recorder.emit("scan", [node], kind=ON_BOOL.get(kind, kind) if loop == np.bool_ else kind, axis=along)
    return SymbolicArray(recorder, recorder.cast(node, result))


def _cumulative(ufunc: np.ufunc, recorder: Recorder, a: Any, axis: Any = None, dtype: Any = None,
                out: Any = None) -> Any:
    """Along one axis, or of all elements as one line."""
    x: Any = symbolic(recorder, a)
    if axis is None:
        x, axis = x.ravel(), 0
    elif not x.ndim:
        axis = normalize_axis_tuple(axis, 1)[0]
        x = x.reshape(1)
    return _accumulate(recorder, ufunc, x, axis, dtype, out)


def table() -> dict[Any, Implementation]:
    """NumPy function -> symbolic form."""
    return {
        np.sum: partial(_by_ufunc, np.add), np.prod: partial(_by_ufunc, np.multiply),
        np.max: partial(_extremum, np.maximum), np.min: partial(_extremum, np.minimum),
        np.any: partial(_truth, np.logical_or), np.all: partial(_truth, np.logical_and),
        np.amax: partial(_extremum, np.maximum), np.amin: partial(_extremum, np.minimum),
        np.nansum: partial(_nan_reduction, np.add, 0.0), np.nanprod: partial(_nan_reduction, np.multiply, 1.0),
        np.mean: _mean, np.var: _variance, np.std: _deviation, np.average: _average, np.ptp: _ptp,
        np.argmax: partial(_arg_extremum, "maximum"), np.argmin: partial(_arg_extremum, "minimum"),
        np.count_nonzero: _count_nonzero, np.linalg.norm: _norm,
        np.cumsum: partial(_cumulative, np.add), np.cumprod: partial(_cumulative, np.multiply),
        np.ufunc.accumulate: _accumulate, np.ufunc.reduce: reduce_ufunc,
        np.ufunc.outer: _outer,
    }
