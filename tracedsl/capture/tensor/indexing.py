"""`array[index]`: integers, slices with any step, None, Ellipsis.

What holds here: the result is a view (as in NumPy) unless every dimension takes an integer, which gives a scalar. An
index of the `compute` language goes to `ir.compute`. Masks and integer arrays are refused.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from tracedsl.capture.tensor.arrays import SymbolicArray, symbolic
from tracedsl.capture.tensor.recorder import Recorder


def getitem(recorder: Recorder, array: Any, index: Any) -> Any:
    """Raises IndexError as NumPy does."""
    from tracedsl.ir.compute import element, is_index

    a = symbolic(recorder, array)
    if is_index(index):
        return element(a.node, index)
    parts = index if isinstance(index, tuple) else (index,)
    start: list[int] = []
    step: list[int] = []
    size: list[int] = []
    shape: list[int] = []
    for part, extent in _aligned(recorder, parts, a.shape):
        if part is None:
            shape.append(1)
        elif isinstance(part, slice):
            first, last, stride = slice(*map(_whole, (part.start, part.stop, part.step))).indices(extent)
            count = len(range(first, last, stride))
            start.append(first if count else 0)
            step.append(stride if count > 1 else 1)
            size.append(count)
            shape.append(count)
        else:
            start.append(_position(part, extent, len(start)))
            step.append(1)
            size.append(1)
    node = a.node
    if tuple(size) != a.shape or any(start) or any(s != 1 for s in step):
        node = recorder.emit("slice", [node], start=tuple(start), step=tuple(step), size=tuple(size))
    node = recorder.reshape(node, tuple(shape))
    if not shape and Ellipsis not in [p for p in parts if p is Ellipsis]:
        return SymbolicArray(recorder, node, is_scalar=True)
    return a.view_as(node)


def _whole(value: Any) -> int | None:
    return None if value is None else operator.index(value)


def _aligned(recorder: Recorder, parts: tuple[Any, ...], shape: tuple[int, ...]) -> list[tuple[Any, int]]:
    """Each part with the extent of its dimension; None goes with none."""
    for part in parts:
        _check(recorder, part)
    taken = sum(1 for part in parts if part is not None and part is not Ellipsis)
    if taken > len(shape):
        raise IndexError(f"too many indices for array: array is {len(shape)}-dimensional, but {taken} were indexed")
    if sum(part is Ellipsis for part in parts) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if not any(part is Ellipsis for part in parts):
        parts = (*parts, Ellipsis)
    result: list[tuple[Any, int]] = []
    dim = 0
    for part in parts:
        if part is Ellipsis:
            rest = len(shape) - taken
            result += [(slice(None), shape[dim + i]) for i in range(rest)]
            dim += rest
        elif part is None:
            result.append((None, 1))
        else:
            result.append((part, shape[dim]))
            dim += 1
    return result


def _check(recorder: Recorder, part: Any) -> None:
    if part is None or part is Ellipsis or isinstance(part, slice):
        return
    if isinstance(part, bool | np.bool_ | list | tuple) or (isinstance(part, np.ndarray) and part.ndim) \
            or (isinstance(part, np.ndarray) and part.dtype == np.bool_):
        mask = isinstance(part, bool | np.bool_) or getattr(part, "dtype", None) == np.bool_
        recorder.refuse("C017", "an array is indexed by a mask" if mask else "an array is indexed by an array",
                        why="only integers, slices, None and ... are captured",
                        hint="select with np.where(mask, a, b)" if mask else "leave this part to NumPy")
    if type(part) is SymbolicArray and recorder.known(part.node) is None:
        recorder.refuse("C017", "an array is indexed by a value that is computed from an argument",
                        why="only positions that are known while capturing are", hint="leave this part to NumPy")
    try:
        operator.index(part)
    except TypeError:
        raise IndexError("only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and integer or boolean "
                         "arrays are valid indices") from None


def _position(part: Any, extent: int, axis: int) -> int:
    position = operator.index(part)
    if not -extent <= position < extent:
        raise IndexError(f"index {position} is out of bounds for axis {axis} with size {extent}")
    return position % extent
