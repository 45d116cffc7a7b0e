"""Functions that make arrays, and functions that give arrays another shape or order.

What holds here: what NumPy returns as a view is a view here; what it returns as a copy is a new array. Arrays that are
made of known numbers are nodes too, so that no array is filled before the kernel runs.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from tracedsl.capture.tensor.arrays import GETITEM, SymbolicArray, contains_symbolic, operand, symbolic
from tracedsl.capture.tensor.elementwise import common_dtype, place
from tracedsl.capture.tensor.indexing import getitem
from tracedsl.capture.tensor.recorder import Implementation, Recorder


def _whole_numbers(shape: Any) -> tuple[int, ...]:
    return tuple(map(operator.index, shape)) if isinstance(shape,
                                                           Sequence) or np.ndim(shape) else (operator.index(shape),)


def shape_tuple(shape: Any) -> tuple[int, ...]:
    """A shape argument as whole numbers. Raises as NumPy does for negative ones."""
    extents = _whole_numbers(shape)
    if any(n < 0 for n in extents):
        raise ValueError("negative dimensions are not allowed")
    return extents


def _order(recorder: Recorder, order: Any) -> None:
    if order not in ("C", "K", "A", None):
        recorder.refuse("C008", f"order={order!r} is not captured", hint="transpose instead")


# -- views --------------------------------------------------------------------------------------------------------


def _transpose(recorder: Recorder, a: Any, axes: Any = None) -> Any:
    x = symbolic(recorder, a)
    perm = tuple(reversed(range(x.ndim))) if axes is None else normalize_axis_tuple(axes, x.ndim)
    if len(perm) != x.ndim:
        raise ValueError("axes don't match array")
    return x.view_as(recorder.transpose(x.node, perm))


def _swapaxes(recorder: Recorder, a: Any, axis1: int, axis2: int) -> Any:
    x = symbolic(recorder, a)
    perm = list(range(x.ndim))
    i, j = normalize_axis_index(axis1, x.ndim), normalize_axis_index(axis2, x.ndim)
    perm[i], perm[j] = perm[j], perm[i]
    return x.view_as(recorder.transpose(x.node, tuple(perm)))


def _moveaxis(recorder: Recorder, a: Any, source: Any, destination: Any) -> Any:
    x = symbolic(recorder, a)
    old, new = normalize_axis_tuple(source, x.ndim), normalize_axis_tuple(destination, x.ndim)
    if len(old) != len(new):
        raise ValueError("`source` and `destination` arguments must have the same number of elements")
    perm = [i for i in range(x.ndim) if i not in old]
    for to, axis in sorted(zip(new, old)):
        perm.insert(to, axis)
    return x.view_as(recorder.transpose(x.node, tuple(perm)))


def _reshape(recorder: Recorder, a: Any, shape: Any = None, order: Any = "C", *, copy: Any = None) -> Any:
    x = symbolic(recorder, a)
    _order(recorder, order)
    wanted = _whole_numbers(shape)
    if wanted.count(-1) > 1:
        raise ValueError("can only specify one unknown dimension")
    rest = math.prod(n for n in wanted if n != -1)
    if -1 in wanted and rest and x.size % rest == 0:
        wanted = tuple(x.size // rest if n == -1 else n for n in wanted)
    if -1 in wanted or math.prod(wanted) != x.size or any(n < 0 for n in wanted):
        raise ValueError(f"cannot reshape array of size {x.size} into shape {wanted}")
    if copy is False:
        recorder.refuse("C008", "np.reshape(copy=False) is not captured")
    node = recorder.reshape(x.node, wanted)
    return SymbolicArray(recorder, node) if copy else x.view_as(node)


def _ravel(recorder: Recorder, a: Any, order: Any = "C") -> Any:
    return _reshape(recorder, a, (-1,), order)


def _expand_dims(recorder: Recorder, a: Any, axis: Any) -> Any:
    x = symbolic(recorder, a)
    added = axis if isinstance(axis, tuple | list) else (axis,)
    places = normalize_axis_tuple(added, x.ndim + len(added))
    own = iter(x.shape)
    return x.view_as(recorder.reshape(x.node, tuple(1 if i in places else next(own)
                                                    for i in range(x.ndim + len(places)))))


def _squeeze(recorder: Recorder, a: Any, axis: Any = None) -> Any:
    x = symbolic(recorder, a)
    if x.is_scalar:
        return x
    dropped = [i for i, n in enumerate(x.shape) if n == 1] if axis is None else normalize_axis_tuple(axis, x.ndim)
    if any(x.shape[i] != 1 for i in dropped):
        raise ValueError("cannot select an axis to squeeze out which has size not equal to one")
    return x.view_as(recorder.reshape(x.node, tuple(n for i, n in enumerate(x.shape) if i not in dropped)))


def _broadcast_to(recorder: Recorder, array: Any, shape: Any, subok: bool = False) -> Any:
    x, wanted = symbolic(recorder, array), shape_tuple(shape)
    if len(wanted) < x.ndim or np.broadcast_shapes(x.shape, wanted) != wanted:
        raise ValueError(f"operands could not be broadcast together with remapped shapes {x.shape} and {wanted}")
    return x.view_as(recorder.broadcast(x.node, wanted))


def _flip(recorder: Recorder, m: Any, axis: Any = None) -> Any:
    x = symbolic(recorder, m)
    axes = range(x.ndim) if axis is None else normalize_axis_tuple(axis, x.ndim)
    return x[tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(x.ndim))]


def _at_least(rank: int, recorder: Recorder, *arrays: Any) -> Any:
    results = []
    for x in (symbolic(recorder, a) for a in arrays):
        missing = rank - x.ndim
        before = (1,) if rank == 3 and missing in (2, 3) else (1,) * missing if rank < 3 else ()
        shape = x.shape if missing <= 0 else (*before, *x.shape, *(1,) * (missing - len(before)))
        results.append(x if missing <= 0 else x.view_as(recorder.reshape(x.node, shape)))
    return results[0] if len(results) == 1 else tuple(results)


# -- new arrays from arrays ---------------------------------------------------------------------------------------


def _concatenate(recorder: Recorder, arrays: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None,
                 casting: str = "same_kind") -> Any:
    if out is not None:
        recorder.refuse("C008", "np.concatenate(out=...) is not captured")
    parts = [symbolic(recorder, a) for a in arrays]
    if not parts:
        raise ValueError("need at least one array to concatenate")
    common = np.dtype(dtype) if dtype is not None else np.result_type(*(p.dtype for p in parts))
    if axis is None:
        parts, axis = [p.ravel() for p in parts], 0
    if not parts[0].ndim:
        raise ValueError("zero-dimensional arrays cannot be concatenated")
    axis = normalize_axis_index(axis, parts[0].ndim)
    if len({(*p.shape[:axis], None, *p.shape[axis + 1:]) for p in parts}) != 1:
        raise ValueError("all the input array dimensions except for the concatenation axis must match exactly")
    nodes = [recorder.cast(p.node, common) for p in parts]
    return SymbolicArray(recorder, nodes[0] if len(nodes) == 1 else recorder.emit("concat", nodes, axis=axis))


def _stack(recorder: Recorder, arrays: Any, axis: int = 0, out: Any = None, *, dtype: Any = None,
           casting: str = "same_kind") -> Any:
    parts = [symbolic(recorder, a) for a in arrays]
    if not parts:
        raise ValueError("need at least one array to stack")
    if len({p.shape for p in parts}) != 1:
        raise ValueError("all input arrays must have the same shape")
    place_at = normalize_axis_index(axis, parts[0].ndim + 1)
    return _concatenate(recorder, [_expand_dims(recorder, p, place_at) for p in parts], place_at, out, dtype=dtype)


def _vstack(recorder: Recorder, tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    return _concatenate(recorder, [_at_least(2, recorder, a) for a in tup], 0, dtype=dtype)


def _hstack(recorder: Recorder, tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    parts = [_at_least(1, recorder, a) for a in tup]
    return _concatenate(recorder, parts, 0 if parts and parts[0].ndim == 1 else 1, dtype=dtype)


def _column_stack(recorder: Recorder, tup: Any) -> Any:
    parts = [symbolic(recorder, a) for a in tup]
    return _concatenate(recorder, [p if p.ndim > 1 else p.reshape(-1, 1) for p in parts], 1)


def _roll(recorder: Recorder, a: Any, shift: Any, axis: Any = None) -> Any:
    x = symbolic(recorder, a)
    if axis is None:
        return _roll(recorder, x.ravel(), shift, 0).reshape(x.shape)
    axes = normalize_axis_tuple(axis, x.ndim, allow_duplicate=True)
    shifts = np.broadcast_to(np.asarray(shift), (len(axes),)).tolist()
    node = x.node
    for along, by in zip(axes, shifts):
        extent = x.shape[along]
        if extent and by % extent:
            cut = extent - by % extent
            whole = SymbolicArray(recorder, node)
            head, tail = ([slice(None)] * x.ndim for _ in range(2))
            head[along], tail[along] = slice(None, cut), slice(cut, None)
            node = recorder.emit("concat", [whole[tuple(tail)].node, whole[tuple(head)].node], axis=along)
    return SymbolicArray(recorder, node)


def _diff(recorder: Recorder, a: Any, n: int = 1, axis: int = -1, prepend: Any = np._NoValue,
          append: Any = np._NoValue) -> Any:
    x = symbolic(recorder, a)
    if prepend is not np._NoValue or append is not np._NoValue:
        recorder.refuse("C008", "prepend= and append= of np.diff are not captured", hint="use np.concatenate")
    along = normalize_axis_index(axis, x.ndim)
    for _ in range(n):
        late, early = ([slice(None)] * x.ndim for _ in range(2))
        late[along], early[along] = slice(1, None), slice(None, -1)
        x = (np.not_equal if x.dtype == np.bool_ else np.subtract)(x[tuple(late)], x[tuple(early)])
    return x


def _triangle(lower: bool, recorder: Recorder, m: Any, k: int = 0) -> Any:
    x: Any = symbolic(recorder, m)
    if x.ndim < 2:   # NumPy makes a square of it
        if not x.ndim:
            raise IndexError("tuple index out of range")
        x = np.broadcast_to(x, (x.shape[0], x.shape[0]))
    rows, columns = (recorder.emit("iota", [], shape=x.shape[-2:], axis=axis) for axis in (0, 1))
    bound = recorder.emit("add", [rows, recorder.full(x.shape[-2:], k if lower else k - 1, "int64")])
    inside = recorder.broadcast(recorder.emit("le" if lower else "gt", [columns, bound]), x.shape)
    return SymbolicArray(recorder, recorder.emit("select", [inside, x.node, recorder.full(x.shape, 0, x.dtype)]))


# -- new arrays from numbers --------------------------------------------------------------------------------------


def _full(recorder: Recorder, shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C", **options: Any) -> Any:
    _no_options(recorder, "full", options)
    value, extents = operand(recorder, fill_value), shape_tuple(shape)
    wanted = np.dtype(dtype) if dtype is not None else common_dtype(value) \
        if isinstance(value, SymbolicArray) else symbolic(recorder, value).dtype
    return SymbolicArray(recorder, place(recorder, symbolic(recorder, value), wanted, extents))


def _filled(value: int, recorder: Recorder, shape: Any, dtype: Any = None, order: Any = "C", **options: Any) -> Any:
    _no_options(recorder, "zeros", options)
    return SymbolicArray(recorder, recorder.full(shape_tuple(shape), value, np.dtype(dtype or np.float64)))


def _filled_like(value: Any, recorder: Recorder, a: Any, dtype: Any = None, order: Any = "K", subok: bool = True,
                 shape: Any = None, **options: Any) -> Any:
    _no_options(recorder, "zeros_like", options)
    x = symbolic(recorder, a)
    extents = x.shape if shape is None else shape_tuple(shape)
    wanted = np.dtype(dtype) if dtype is not None else x.dtype
    node = recorder.full(extents, value, wanted)
    return SymbolicArray(recorder, node)


def _full_like(recorder: Recorder, a: Any, fill_value: Any, dtype: Any = None, order: Any = "K", subok: bool = True,
               shape: Any = None, **options: Any) -> Any:
    x = symbolic(recorder, a)
    return _full(recorder, x.shape if shape is None else shape, fill_value, dtype or x.dtype, **options)


def _no_options(recorder: Recorder, name: str, options: dict[str, Any]) -> None:
    if any(value is not None for value in options.values()):
        recorder.refuse("C008", f"options {sorted(options)} of np.{name} are not captured")


def _arange(recorder: Recorder, *args: Any, dtype: Any = None, **options: Any) -> Any:
    """Whole steps become iota * step + start; others are tabulated, since NumPy's rounding has to be met."""
    _no_options(recorder, "arange", options)
    _need_known(recorder, "arange", args)
    known = list(args)
    if len(known) == 4:
        dtype = known.pop()
    start, stop, step = ([0, *known, 1] if len(known) == 1 else [*known, 1])[:3]
    if all(isinstance(v, int | np.integer) for v in (start, stop, step)) and step:
        count = len(range(int(start), int(stop), int(step)))
        node = recorder.emit("iota", [], shape=(count,), axis=0)
        if step != 1:
            node = recorder.emit("mul", [node, recorder.full((count,), int(step), "int64")])
        if start:
            node = recorder.emit("add", [node, recorder.full((count,), int(start), "int64")])
        natural = np.result_type(*(v if isinstance(v, np.generic) else np.int64 for v in known))
        return SymbolicArray(recorder, recorder.cast(node, dtype or natural))
    return SymbolicArray(recorder, recorder.constant(np.arange(*known, dtype=dtype)))


def _need_known(recorder: Recorder, name: str, args: Any) -> None:
    if contains_symbolic(args):
        recorder.refuse("C006", f"np.{name} of a value that is computed from an argument",
                        why="the result's shape or values would depend on it", hint="use sizes taken from shapes")


def _tabulated(function: Any, recorder: Recorder, *args: Any, **kwargs: Any) -> Any:
    """NumPy computes it while capturing; the graph holds the values."""
    _need_known(recorder, function.__name__, (args, kwargs))
    return SymbolicArray(recorder, recorder.constant(function(*args, **kwargs)))


def _eye(recorder: Recorder, N: Any, M: Any = None, k: int = 0, dtype: Any = float, order: Any = "C",
         **options: Any) -> Any:
    _no_options(recorder, "eye", options)
    shape = shape_tuple((N, N if M is None else M))
    rows, columns = (recorder.emit("iota", [], shape=shape, axis=axis) for axis in (0, 1))
    if k:
        rows = recorder.emit("add", [rows, recorder.full(shape, operator.index(k), "int64")])
    return SymbolicArray(recorder, recorder.cast(recorder.emit("eq", [rows, columns]), np.dtype(dtype)))


def _identity(recorder: Recorder, n: Any, dtype: Any = None) -> Any:
    return _eye(recorder, n, dtype=dtype or float)


def _array(recorder: Recorder, object: Any, dtype: Any = None, *, copy: Any = True, order: Any = "K",
           **options: Any) -> Any:
    """A new array, also of nested lists that hold captured values."""
    x = symbolic(recorder, object)
    return SymbolicArray(recorder, recorder.cast(x.node, np.dtype(dtype) if dtype is not None else x.dtype))


def _asarray(recorder: Recorder, a: Any, dtype: Any = None, order: Any = None, **options: Any) -> Any:
    """The array itself if nothing has to change."""
    x = symbolic(recorder, a)
    if x.is_scalar or type(a) is not SymbolicArray or (dtype is not None and np.dtype(dtype) != x.dtype):
        return _array(recorder, a, dtype)
    return x


def _ascontiguousarray(recorder: Recorder, a: Any, dtype: Any = None, **options: Any) -> Any:
    x = _at_least(1, recorder, _asarray(recorder, a, dtype))
    return x if x.owner.source is None or (x.base is None and x.contiguous) else x.copy()


def _copy(recorder: Recorder, a: Any, order: Any = "K", subok: bool = False) -> Any:
    return SymbolicArray(recorder, symbolic(recorder, a).node)


def _shape(recorder: Recorder, a: Any) -> tuple[int, ...]:
    return symbolic(recorder, a).shape


def _size(recorder: Recorder, a: Any, axis: Any = None) -> int:
    x = symbolic(recorder, a)
    return x.size if axis is None else x.shape[axis]


# these make symbolic arrays even when all their arguments are known
CREATION: tuple[Any, ...] = (
    np.zeros, np.ones, np.empty, np.full, np.arange, np.linspace, np.eye, np.identity, np.tri)


def table() -> dict[Any, Implementation]:
    """NumPy function -> symbolic form."""
    return {
        GETITEM: getitem, np.transpose: _transpose, np.swapaxes: _swapaxes, np.moveaxis: _moveaxis,
        np.reshape: _reshape,
        np.ravel: _ravel, np.expand_dims: _expand_dims, np.squeeze: _squeeze, np.broadcast_to: _broadcast_to,
        np.flip: _flip, np.fliplr: partial(_flip, axis=1), np.flipud: partial(_flip, axis=0),
        np.atleast_1d: partial(_at_least, 1), np.atleast_2d: partial(_at_least, 2),
        np.atleast_3d: partial(_at_least, 3),
        np.concatenate: _concatenate, np.stack: _stack, np.vstack: _vstack, np.hstack: _hstack,
        np.column_stack: _column_stack, np.roll: _roll, np.diff: _diff, np.tril: partial(_triangle, True),
        np.triu: partial(_triangle, False), np.full: _full, np.full_like: _full_like,
        np.zeros: partial(_filled, 0), np.ones: partial(_filled, 1), np.empty: partial(_filled, 0),
        np.zeros_like: partial(_filled_like, 0), np.ones_like: partial(_filled_like, 1),
        np.empty_like: partial(_filled_like, 0), np.arange: _arange, np.linspace: partial(_tabulated, np.linspace),
        np.tri: partial(_tabulated, np.tri), np.eye: _eye, np.identity: _identity, np.array: _array,
        np.asarray: _asarray, np.asanyarray: _asarray, np.ascontiguousarray: _ascontiguousarray, np.copy: _copy,
        np.shape: _shape, np.size: _size, np.ndim: lambda r, a: symbolic(r, a).ndim,
        np.matrix_transpose: lambda r, x: _swapaxes(r, x, -1, -2),
    }
