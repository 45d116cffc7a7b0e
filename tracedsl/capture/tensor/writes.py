"""Writes into arrays: `y += x`, `y[1:-1] = x`, through views too.

What holds here: nodes never change, symbolic arrays do. A write makes the new value of the array that owns the
memory, put together from the old value and the written part, and every live view of that memory follows. What an
argument becomes is a result that goes into the caller's array; outer arrays are not written. A reshape that NumPy might
answer with a copy is refused once a write would tell the difference.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracedsl.capture.tensor.arrays import SymbolicArray, operand
from tracedsl.capture.tensor.elementwise import place, shape_of
from tracedsl.capture.tensor.outputs import Outer
from tracedsl.capture.tensor.recorder import Recorder
from tracedsl.ir.graph import Node

WRITE_CAP = 32   # writes into parts of arrays; each puts a whole array together, so long unrolled loops are refused


def set_item(recorder: Recorder, array: SymbolicArray, index: Any, value: Any) -> None:
    """`array[index] = value`. Raises ValueError and OverflowError as NumPy does."""
    if array.is_scalar:
        raise TypeError(f"'numpy.{array.dtype}' object does not support item assignment")
    recorder.writes += 1
    if recorder.writes > WRITE_CAP:
        recorder.refuse("C012", f"more than {WRITE_CAP} writes into parts of arrays",
                        why="Python loops run while the function is captured, and each write makes a new array",
                        hint="write the loop as an operation on whole arrays")
    parts = index if isinstance(index, tuple) else (index,)
    view = array[parts if any(part is Ellipsis for part in parts) else (*parts, Ellipsis)]
    given = operand(recorder, value)
    if isinstance(given, SymbolicArray):
        extra = max(0, given.ndim - view.ndim)
        if any(n != 1 for n in given.shape[:extra]):
            raise ValueError(f"could not broadcast input array from shape {given.shape} into shape {view.shape}")
        given = SymbolicArray(recorder, recorder.reshape(given.node, given.shape[extra:]))
    if np.broadcast_shapes(shape_of(given), view.shape) != view.shape:
        raise ValueError(f"could not broadcast input array from shape {shape_of(given)} into shape {view.shape}")
    write(recorder, view, place(recorder, given, view.dtype, view.shape))


def update(recorder: Recorder, array: SymbolicArray, node: Node) -> SymbolicArray:
    """`array += ...` with the result in `node`: the dtype and shape of the array stay."""
    shape = recorder.type(node).shape
    if np.broadcast_shapes(shape, array.shape) != array.shape:
        raise ValueError(f"non-broadcastable output operand with shape {array.shape} doesn't match the broadcast "
                         f"shape {np.broadcast_shapes(shape, array.shape)}")
    write(recorder, array, recorder.broadcast(recorder.cast(node, array.dtype), array.shape))
    return array


def write(recorder: Recorder, target: SymbolicArray, node: Node) -> None:
    """All elements of `target`, which may be a view, become those of `node`, which has its dtype and shape."""
    owner = target.owner
    if isinstance(owner.source, Outer):
        recorder.refuse("C011", "an outer array is written in place", why="others would see it",
                        hint="write `y = y + x` instead of `y += x`, or pass the array as an argument")
    if owner.source is not None:
        recorder.written[owner.source] = owner
    for child in _path(target.node, owner.node):
        node = _undo(recorder, child, node)
    live = [view for view in (reference() for reference in owner.views) if view is not None]
    paths = [_path(view.node, owner.node) for view in live]
    owner.node = node
    for view, path in zip(live, paths):
        view.node = _replay(recorder, path, node)


def _path(node: Node, owner: Node) -> list[Node]:
    """The operators that lead from the owner to a view, the last one first."""
    path = []
    while node is not owner:
        path.append(node)
        node = node.inputs[0]
    return path


def _replay(recorder: Recorder, path: list[Node], node: Node) -> Node:
    for step in reversed(path):
        _check_reshape(recorder, step)
        node = recorder.emit(step.op.name.removeprefix("tensor."), [node], **step.attrs)
    return node


def _undo(recorder: Recorder, step: Node, node: Node) -> Node:
    """The new value of the input of a view operator, when its result becomes `node`."""
    (source,) = step.inputs
    match step.op.name.removeprefix("tensor."):
        case "transpose":
            perm = step.attr("perm")
            return recorder.transpose(node, tuple(perm.index(i) for i in range(len(perm))))
        case "reshape":
            _check_reshape(recorder, step)
            return recorder.reshape(node, recorder.type(source).shape)
        case "slice":
            return _put(recorder, source, step, node)
        case "hint":
            return node
    return recorder.refuse("C011", "a broadcast view or a window is written", why="its elements share memory")


def _check_reshape(recorder: Recorder, step: Node) -> None:
    """Only dimensions of extent 1 may come and go: then the memory is shared whatever its layout."""
    before, after = recorder.type(step.inputs[0]).shape, recorder.type(step).shape
    if step.op.name == "tensor.reshape" and [n for n in before if n != 1] != [n for n in after if n != 1]:
        recorder.refuse("C011", "an array is written while a reshaped view of it is alive",
                        why="whether NumPy made a view or a copy depends on the layout in memory",
                        hint="take a copy(), or write before reshaping")


def _put(recorder: Recorder, old: Node, part: Node, new: Node) -> Node:
    """`old` with the slice `part` of it replaced by `new`: what stands before, the part, what stands behind."""
    starts, sizes = list(part.attr("start")), part.attr("size")
    if 0 in sizes:
        return old
    flipped = [axis for axis, step in enumerate(part.attr("step")) if step == -1]
    if any(step not in (1, -1) for step in part.attr("step")):
        recorder.refuse("C011", "every so-many-th element is written",
                        why="only contiguous slices are captured as writes",
                        hint="choose with np.where(mask, new, old)")
    if flipped:
        new = recorder.emit("slice", [new], start=tuple(n - 1 if i in flipped else 0 for i, n in enumerate(sizes)),
                            step=tuple(-1 if i in flipped else 1 for i in range(len(sizes))), size=sizes)
        starts = [s - n + 1 if i in flipped else s for i, (s, n) in enumerate(zip(starts, sizes))]
    return _put_along(recorder, old, starts, new, 0)


def _put_along(recorder: Recorder, old: Node, starts: list[int], new: Node, axis: int) -> Node:
    shape, part = recorder.type(old).shape, recorder.type(new).shape
    while axis < len(shape) and part[axis] == shape[axis]:
        axis += 1
    if axis == len(shape):
        return new
    first, behind = starts[axis], starts[axis] + part[axis]
    middle = _put_along(recorder, _rows(recorder, old, axis, first, behind), starts, new, axis + 1)
    pieces = [_rows(recorder, old, axis, 0, first), middle, _rows(recorder, old, axis, behind, shape[axis])]
    return recorder.emit("concat", [p for p in pieces if recorder.type(p).shape[axis]], axis=axis)


def _rows(recorder: Recorder, node: Node, axis: int, first: int, behind: int) -> Node:
    shape = recorder.type(node).shape
    start = tuple(first if i == axis and behind > first else 0 for i in range(len(shape)))
    size = tuple(behind - first if i == axis else n for i, n in enumerate(shape))
    return recorder.emit("slice", [node], start=start, step=(1,) * len(shape), size=size)
