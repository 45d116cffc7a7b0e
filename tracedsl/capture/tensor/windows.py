"""Views with several steps over one dimension: sliding windows, `as_strided`, diagonals.

What holds here: each is one `window` node, element i of which is its source's element start + steps @ i. Nothing reads
out of bounds: what cannot be proved to stay inside an array is refused. Padding and other known ways of picking
positions along an axis are cut into runs, each a slice.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple
from numpy.lib.stride_tricks import as_strided, sliding_window_view

from tracedsl.capture.tensor.arrays import SymbolicArray, symbolic
from tracedsl.capture.tensor.recorder import Implementation, Recorder
from tracedsl.ir.graph import CONSTANT, PARAM, Node
from tracedsl.ir.tensor import ELEMENTWISE, OPS, row_major

MAX_RUNS = 64   # pieces that positions along an axis may be cut into


def window(recorder: Recorder, node: Node, shape: Sequence[int], start: Sequence[int],
           steps: Sequence[Sequence[int]]) -> Node:
    """A `window` node; the positions must lie inside."""
    return recorder.emit("window", [node], shape=tuple(shape), start=tuple(start), steps=tuple(map(tuple, steps)))


def _unit(rank: int, at: int) -> list[int]:
    return [int(d == at) for d in range(rank)]


def _sliding_window_view(recorder: Recorder, x: Any, window_shape: Any, axis: Any = None, *, subok: bool = False,
                         writeable: bool = False) -> Any:
    a = symbolic(recorder, x)
    if writeable:
        recorder.refuse("C008", "sliding_window_view(writeable=True) is not captured")
    sizes = tuple(map(operator.index, window_shape)) if np.iterable(window_shape) else (operator.index(window_shape),)
    if any(n < 0 for n in sizes):
        raise ValueError("`window_shape` cannot contain negative values")
    axes = tuple(range(a.ndim)) if axis is None else normalize_axis_tuple(axis, a.ndim, allow_duplicate=True)
    if len(sizes) != len(axes):
        what = "Since axis is None, must provide window_shape for all dimensions of `x`" if axis is None else \
            "Must provide matching length window_shape and axis"
        raise ValueError(f"{what}; got {len(sizes)} window_shape elements and {len(axes)} axes")
    shape = list(a.shape)
    for along, size in zip(axes, sizes):
        if shape[along] < size:
            raise ValueError("window shape cannot be larger than input array shape")
        shape[along] -= size - 1
    rank = a.ndim + len(sizes)
    steps = [[int(j == d or (j >= a.ndim and axes[j - a.ndim] == d)) for j in range(rank)] for d in range(a.ndim)]
    return a.view_as(window(recorder, a.node, (*shape, *sizes), (0,) * a.ndim, steps))


# -- memory -------------------------------------------------------------------------------------------------------


def strides_of(a: SymbolicArray) -> tuple[int, ...]:
    """Elements from one entry of each dimension to the next, as NumPy would lay the array out. Refused where NumPy's
    layout does not follow from the graph."""
    node, path = a.node, list[Node]()
    while node.op in (OPS["slice"], OPS["transpose"], OPS["window"], OPS["reshape"], OPS["broadcast"], OPS["hint"]):
        path.append(node)
        node = node.inputs[0]
    strides = _own_strides(a.recorder, node)
    for step in reversed(path):
        strides = _after(a.recorder, step, strides)
    return strides


def _own_strides(recorder: Recorder, node: Node) -> tuple[int, ...]:
    shape = recorder.type(node).shape
    if node.op is PARAM:
        return node.attrs.get("strides") or row_major(shape)
    seen, stack = set[Node](), [node]
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        plain = current.op in ELEMENTWISE or current.op in (
            CONSTANT, PARAM, OPS["reduce"], OPS["concat"], OPS["slice"], OPS["broadcast"], OPS["iota"])
        if not plain or current.attrs.get("strides"):
            recorder.refuse("C007", "the strides of an array whose layout in memory NumPy chooses",
                            hint="use sliding_window_view, or np.ascontiguousarray before taking strides")
        stack += current.inputs
    return row_major(shape)


def _after(recorder: Recorder, step: Node, strides: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a view, given those of what it is a view of."""
    before, after = recorder.type(step.inputs[0]).shape, recorder.type(step).shape
    match step.op.name.removeprefix("tensor."):
        case "slice":
            return tuple(s * by for s, by in zip(strides, step.attr("step")))
        case "transpose":
            return tuple(strides[d] for d in step.attr("perm"))
        case "window":
            return tuple(sum(s * row[j] for s, row in zip(strides, step.attr("steps"))) for j in range(len(after)))
        case "broadcast":
            spread = dict(zip(step.attr("dims"), zip(before, strides)))
            return tuple(spread[d][1] if d in spread and spread[d][0] == n else 0 for d, n in enumerate(after))
        case "reshape" if strides == row_major(before):
            return row_major(after)
        case "reshape" if [n for n in before if n != 1] == [n for n in after if n != 1]:
            kept = iter([s for n, s in zip(before, strides) if n != 1])
            return tuple(next(kept) if n != 1 else 0 for n in after)
        case "hint":
            return strides
    return recorder.refuse("C007", "the strides of a reshaped view", hint="take them before reshaping")


def _as_strided(recorder: Recorder, x: Any, shape: Any = None, strides: Any = None, subok: bool = False,
                writeable: bool = True, **options: Any) -> Any:
    """A view of the elements of a contiguous array as one line."""
    a = symbolic(recorder, x)
    if options:
        recorder.refuse("C008", f"options {sorted(options)} of as_strided are not captured")
    wanted = a.shape if shape is None else tuple(map(operator.index, shape if np.iterable(shape) else (shape,)))
    own = strides_of(a)
    given = [s * a.itemsize for s in own] if strides is None else [
        operator.index(s) for s in (strides if np.iterable(strides) else (strides,))]
    if len(given) != len(wanted):
        raise ValueError("mismatch in length of strides and shape")
    steps = [s // a.itemsize for s in given]
    reach = [s * (n - 1) for s, n in zip(steps, wanted)]
    low, high = sum(min(0, r) for r in reach), sum(max(0, r) for r in reach)
    packed = all(n == 1 or s == e for n, s, e in zip(a.shape, own, row_major(a.shape)))
    inside = 0 in wanted or (low >= 0 and high < math.prod(a.shape))
    if not packed or not inside or any(s % a.itemsize for s in given):
        recorder.refuse("C008", "this as_strided cannot be shown to stay inside of its array",
                        why="it has to be a view of a contiguous array, with strides of whole elements",
                        hint="use sliding_window_view and slices")
    line = recorder.reshape(a.node, (math.prod(a.shape),))
    return a.view_as(window(recorder, line, wanted, (0,), (steps,)))


# -- diagonals ----------------------------------------------------------------------------------------------------


def diagonal_node(recorder: Recorder, node: Node, first: int, second: int, offset: int = 0) -> Node:
    """The diagonal of two dimensions as the last one."""
    shape = recorder.type(node).shape
    down, right = max(0, -offset), max(0, offset)
    count = max(0, min(shape[first] - down, shape[second] - right))
    kept = [d for d in range(len(shape)) if d not in (first, second)]
    result = (*(shape[d] for d in kept), count)
    last, starts, steps = len(kept), [0] * len(shape), list[list[int]]()
    for d in range(len(shape)):
        steps.append(_unit(len(result), kept.index(d) if d in kept else last))
    if count:
        starts[first], starts[second] = down, right
    return window(recorder, node, result, starts, steps)


def _diagonal(recorder: Recorder, a: Any, offset: Any = 0, axis1: int = 0, axis2: int = 1) -> Any:
    x = symbolic(recorder, a)
    if x.ndim < 2:
        raise ValueError("diag requires an array of at least two dimensions")
    first, second = normalize_axis_index(axis1, x.ndim), normalize_axis_index(axis2, x.ndim)
    if first == second:
        raise ValueError("axis1 and axis2 cannot be the same")
    return x.view_as(diagonal_node(recorder, x.node, first, second, operator.index(offset)))


def _diag(recorder: Recorder, v: Any, k: int = 0) -> Any:
    x: Any = symbolic(recorder, v)
    if x.ndim == 2:
        return _diagonal(recorder, x, k)
    if x.ndim != 1:
        raise ValueError("Input must be 1- or 2-d.")
    size = x.shape[0] + abs(k)
    line = np.pad(x, (max(k, 0), max(-k, 0)))
    on = recorder.table[id(np.eye)](recorder, size, k=k, dtype=bool)
    return np.where(on, np.broadcast_to(line, (size, size)), x.dtype.type(0))


# -- picked positions ---------------------------------------------------------------------------------------------


def runs_of(places: Sequence[int]) -> list[tuple[int, int, int]]:
    """Positions as runs (start, step, count), each as long as it can be made.

        4, 3, 2, 3, 4, 4   ->   (4, -1, 3), (3, 1, 2), (4, 1, 1)
    """
    found: list[tuple[int, int, int]] = []
    at = 0
    while at < len(places):
        step = places[at + 1] - places[at] if at + 1 < len(places) else 1
        count = 1
        while at + count < len(places) and step and places[at + count] == places[at] + step * count:
            count += 1
        while not step and at + count < len(places) and places[at + count] == places[at]:
            count += 1
        found.append((places[at], step if count > 1 else 1, count))
        at += count
    return found


def pick(recorder: Recorder, node: Node, axis: int, places: Sequence[int]) -> Node:
    """What stands at known positions along an axis, in their order."""
    shape, parts = recorder.type(node).shape, list[Node]()
    runs = runs_of(places)
    if len(runs) > MAX_RUNS:
        recorder.refuse("C008", f"{len(runs)} pieces of an axis in another order are not captured")
    for start, step, count in runs:
        size = 1 if step == 0 else count
        part = recorder.emit("slice", [node], start=tuple(start if d == axis else 0 for d in range(len(shape))),
                             step=tuple((step or 1) if d == axis else 1 for d in range(len(shape))),
                             size=tuple(size if d == axis else n for d, n in enumerate(shape)))
        if size != count:
            wide = tuple(count if d == axis else n for d, n in enumerate(shape))
            part = recorder.emit("broadcast", [part], shape=wide, dims=tuple(range(len(shape))))
        parts.append(part)
    return parts[0] if len(parts) == 1 else recorder.emit("concat", parts, axis=axis)


PICKED = ("edge", "reflect", "symmetric", "wrap")


def _pad(recorder: Recorder, array: Any, pad_width: Any, mode: Any = "constant", **options: Any) -> Any:
    """Constant, empty, edge, reflect, symmetric and wrap; one axis after the other, as NumPy does."""
    x = symbolic(recorder, array)
    if not isinstance(mode, str) or mode not in ("constant", "empty", *PICKED) or options.get("reflect_type",
                                                                                              "even") != "even":
        recorder.refuse("C008", f"np.pad(mode={mode!r}) is not captured",
                        why="constant, empty, edge, reflect, symmetric and wrap are", hint="use np.concatenate")
    allowed = {"constant": {"constant_values"}, "reflect": {"reflect_type"}, "symmetric": {"reflect_type"}}
    if extra := options.keys() - allowed.get(mode, set()):
        raise ValueError(f"unsupported keyword arguments for mode '{mode}': {extra}")
    if isinstance(pad_width, dict):
        sides = [(0, 0)] * x.ndim
        for axis, width in pad_width.items():
            sides[axis] = (width, width) if np.ndim(width) == 0 else tuple(width)
        pad_width = sides
    widths = np.asarray(pad_width)
    if widths.dtype.kind != "i":
        raise TypeError("`pad_width` must be of integral type.")
    if (widths < 0).any():
        raise ValueError("index can't contain negative values")
    values = options.get("constant_values", 0)
    if type(values) is SymbolicArray:
        recorder.refuse("C008", "np.pad with a value that is computed is not captured", hint="use np.where")
    fills = np.broadcast_to(np.asarray(values), (x.ndim, 2)).tolist()
    node = x.node
    for axis, (before, after) in enumerate(np.broadcast_to(widths, (x.ndim, 2)).tolist()):
        shape = recorder.type(node).shape
        if mode in PICKED and before + after:
            if shape[axis] == 0:
                raise ValueError(f"can't extend empty axis {axis} using modes other than 'constant' or 'empty'")
            node = pick(recorder, node, axis, _padded(shape[axis], (before, after), mode))
        elif mode not in PICKED:
            ends = [recorder.full((*shape[:axis], n, *shape[axis + 1:]), np.asarray(fill).astype(x.dtype), x.dtype)
                    for n, fill in zip((before, after), fills[axis])]
            parts = [p for p, n in ((ends[0], before), (node, 1), (ends[1], after)) if n]
            node = parts[0] if len(parts) == 1 else recorder.emit("concat", parts, axis=axis)
    return SymbolicArray(recorder, node)


def table() -> dict[Any, Implementation]:
    """NumPy function -> symbolic form."""
    return {sliding_window_view: _sliding_window_view, as_strided: _as_strided, np.diagonal: _diagonal,
            np.diag: _diag, np.pad: _pad}


def _padded(extent: int, widths: tuple[int, int], mode: Any) -> list[int]:
    """Which element of an axis stands at each place of the padded one."""
    places: list[int] = np.pad(np.arange(extent), widths, mode=mode).tolist()
    return places
