"""NumPy functions that are written with other NumPy functions.

What holds here: each form is the definition in NumPy's own terms, on symbolic arrays; dtypes, shapes and views follow
from the functions that it uses. Options that change the definition are refused.
"""

from __future__ import annotations

import operator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from tracedsl.capture.tensor.arrays import SymbolicArray, symbolic
from tracedsl.capture.tensor.recorder import Implementation, Recorder


def _tile(recorder: Recorder, A: Any, reps: Any) -> Any:
    x: Any = symbolic(recorder, A)
    times = (operator.index(reps),) if np.ndim(reps) == 0 else tuple(map(operator.index, reps))
    rank = max(x.ndim, len(times))
    x, times = x.reshape((1,) * (rank - x.ndim) + x.shape), (1,) * (rank - len(times)) + times
    pairs = [(t, n) for t, n in zip(times, x.shape)]
    wide = x.reshape([n for _, extent in pairs for n in (1, extent)])
    node = recorder.broadcast(wide.node, tuple(n for pair in pairs for n in pair))
    return SymbolicArray(recorder, recorder.reshape(node, tuple(t * n for t, n in pairs)))


def _repeat(recorder: Recorder, a: Any, repeats: Any, axis: Any = None) -> Any:
    x = symbolic(recorder, a)
    if np.ndim(repeats) or type(repeats) is SymbolicArray:
        recorder.refuse("C008", "np.repeat with a count for each element is not captured")
    times = operator.index(repeats)
    if axis is None:
        x, axis = x.ravel(), 0
    axis = normalize_axis_index(axis, x.ndim)
    spread = recorder.reshape(x.node, (*x.shape[:axis + 1], 1, *x.shape[axis + 1:]))
    wide = recorder.emit("broadcast", [spread], shape=(*x.shape[:axis + 1], times, *x.shape[axis + 1:]),
                         dims=tuple(range(x.ndim + 1)))
    shape = (*x.shape[:axis], x.shape[axis] * times, *x.shape[axis + 1:])
    return SymbolicArray(recorder, recorder.reshape(wide, shape))


def _meshgrid(recorder: Recorder, *xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> Any:
    lines: list[Any] = [symbolic(recorder, x).ravel() for x in xi]
    rank, swap = len(lines), indexing == "xy" and len(lines) > 1
    places = [1 - i if swap and i < 2 else i for i in range(rank)]
    grids = [line.reshape([-1 if d == place else 1 for d in range(rank)]) for line, place in zip(lines, places)]
    if not sparse:
        grids = list(_broadcast_arrays(recorder, *grids))
    return tuple(grid.copy() for grid in grids) if copy else tuple(grids)


def _broadcast_arrays(recorder: Recorder, *args: Any, subok: bool = False) -> Any:
    arrays = [symbolic(recorder, a) for a in args]
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    return tuple(a if a.shape == shape else a.call(np.broadcast_to, shape) for a in arrays)


def _split(equal: bool, recorder: Recorder, ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    x: Any = symbolic(recorder, ary)
    axis = normalize_axis_index(axis, x.ndim)
    extent = x.shape[axis]
    if np.ndim(indices_or_sections):
        cuts = [0, *map(operator.index, indices_or_sections), extent]
    else:
        count = operator.index(indices_or_sections)
        if count <= 0:
            raise ValueError("number sections must be larger than 0.")
        if equal and extent % count:
            raise ValueError("array split does not result in an equal division")
        cuts = [0]
        for i in range(count):
            cuts.append(cuts[-1] + extent // count + (i < extent % count))
    whole = (slice(None),) * axis
    return [x[(*whole, slice(first, last))] for first, last in pairwise(cuts)]


def _rot90(recorder: Recorder, m: Any, k: int = 1, axes: Any = (0, 1)) -> Any:
    x: Any = symbolic(recorder, m)
    first, second = (normalize_axis_index(axis, x.ndim) for axis in axes)
    match k % 4:
        case 0:
            return x[...]
        case 1:
            return np.swapaxes(np.flip(x, second), first, second)
        case 2:
            return np.flip(np.flip(x, first), second)
    return np.flip(np.swapaxes(x, first, second), second)


def _trace(recorder: Recorder, a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None,
           out: Any = None) -> Any:
    x: Any = symbolic(recorder, a)
    if x.ndim < 2:
        raise ValueError("diag requires an array of at least two dimensions")
    return np.sum(np.diagonal(x, offset, axis1, axis2), axis=-1, dtype=dtype, out=out)


def _trapezoid(recorder: Recorder, y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """Sum of dx * (y[1:] + y[:-1]) / 2."""
    values: Any = symbolic(recorder, y)
    axis = normalize_axis_index(axis, values.ndim)
    if x is not None:
        at: Any = symbolic(recorder, x)
        dx = np.diff(at, axis=-1 if at.ndim == 1 else axis)
        if dx.ndim == 1:
            dx = dx.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    whole = (slice(None),) * axis
    return (dx * (values[(*whole, slice(1, None))] + values[(*whole, slice(None, -1))]) / 2.0).sum(axis)


def _nan_extremum(ufunc: np.ufunc, recorder: Recorder, a: Any, axis: Any = None, out: Any = None,
                  keepdims: Any = False) -> Any:
    """The extremum of what is not NaN; NaN if there is nothing else."""
    if out is not None:
        recorder.refuse("C008", "out= of np.nanmax and np.nanmin is not captured")
    return recorder.table[id(np.ufunc.reduce)](recorder, ufunc, a, axis, None, None, keepdims is True)


def _nanmean(recorder: Recorder, a: Any, axis: Any = None, dtype: Any = None, out: Any = None,
             keepdims: Any = False) -> Any:
    x: Any = symbolic(recorder, a)
    if x.dtype.kind != "f" or out is not None or dtype is not None or x.dtype == np.float16:
        recorder.refuse("C008", "np.nanmean is captured for float32 and float64, without dtype= and out=")
    keep = keepdims is True
    count = np.sum(~np.isnan(x), axis=axis, dtype=x.dtype, keepdims=keep)
    return np.nansum(x, axis=axis, keepdims=keep) / count


def _cross(recorder: Recorder, a: Any, b: Any) -> Any:
    """Of vectors of three elements along the last axis."""
    x, y = symbolic(recorder, a), symbolic(recorder, b)
    if x.shape[-1:] != (3,) or y.shape[-1:] != (3,):
        recorder.refuse("C008", "np.cross is captured for vectors of three elements along the last axis")
    (a0, a1, a2), (b0, b1, b2) = ([v[..., i] for i in range(3)] for v in (x, y))
    return np.stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], axis=-1)


def _select(recorder: Recorder, condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    if len(condlist) != len(choicelist) or not condlist:
        raise ValueError("list of cases must be same length as list of conditions")
    result = default
    for test, choice in zip(reversed(list(condlist)), reversed(list(choicelist))):
        result = recorder.table[id(np.where)](recorder, test, choice, result)
    return result


def _dstack(recorder: Recorder, tup: Any) -> Any:
    return np.concatenate([np.atleast_3d(symbolic(recorder, a)) for a in tup], 2)


def table() -> dict[Any, Implementation]:
    """NumPy function -> symbolic form."""
    return {
        np.tile: _tile, np.repeat: _repeat, np.meshgrid: _meshgrid, np.broadcast_arrays: _broadcast_arrays,
        np.split: partial(_split, True), np.array_split: partial(_split, False), np.rot90: _rot90, np.trace: _trace,
        np.trapezoid: _trapezoid, np.nanmax: partial(_nan_extremum, np.fmax),
        np.nanmin: partial(_nan_extremum, np.fmin),
        np.nanmean: _nanmean, np.cross: _cross, np.select: _select, np.dstack: _dstack,
        np.vsplit: partial(_split, True, axis=0),
    }
