"""`hint(x)`: schedule hints on a value, in the middle of ordinary NumPy code.

    c = hint(a @ b).tile(64, 64).vectorize(8)

What holds here: a hint never changes a value. Under plain NumPy the result behaves as the array itself and becomes a
plain array with the next operation; under capture the chain is one `tensor.hint` node, made when the value is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracedsl.capture.arrays import SymbolicArray, symbolic
from tracedsl.capture.recorder import Recorder
from tracedsl.diagnostics import TracedslError, nearest

# step -> what its arguments are
STEPS: dict[str, str] = {
    "tile": "whole numbers, one a dimension", "vectorize": "lanes", "unroll": "times", "parallel": "tasks",
    "split": "a dimension and a factor", "reorder": "dimensions, outermost first", "cache": "a memory scope",
}


class _Chain:
    """The steps, as methods that return the hinted value."""

    def _step(self, name: str, *args: int | str) -> Any:
        raise NotImplementedError

    def tile(self, *sizes: int) -> Any:
        """Work on blocks of these sizes, one a dimension."""
        return self._step("tile", *sizes)

    def vectorize(self, lanes: int = 0) -> Any:
        """Compute this many neighbours of the innermost dimension at once; 0 lets the target choose."""
        return self._step("vectorize", lanes)

    def unroll(self, times: int) -> Any:
        """Repeat the body of the innermost loop this many times."""
        return self._step("unroll", times)

    def parallel(self, tasks: int = 0) -> Any:
        """Spread the outermost dimension over threads; 0 lets the target choose."""
        return self._step("parallel", tasks)

    def split(self, dimension: int, factor: int) -> Any:
        """Split one dimension into blocks of `factor`."""
        return self._step("split", dimension, factor)

    def reorder(self, *dimensions: int) -> Any:
        """The order of the loops, outermost first."""
        return self._step("reorder", *dimensions)

    def cache(self, scope: str = "local") -> Any:
        """Keep the value in a memory of this scope while it is used."""
        return self._step("cache", scope)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or hasattr(np.ndarray, name):
            raise AttributeError(name)
        raise TracedslError("C016", f"there is no hint {name!r}", hint=nearest(name, STEPS))


def _checked(name: str, args: tuple[int | str, ...]) -> tuple[int | str, ...]:
    numbers = name != "cache"
    if not args or not all(type(arg) is (int if numbers else str) for arg in args) or \
            (numbers and any(isinstance(arg, int) and arg < 0 for arg in args)):
        raise TracedslError("C016", f"{name}{args!r} is no hint", hint=f"{name} takes {STEPS[name]}")
    return args


class HintedArray(_Chain, np.ndarray):
    """An array under plain NumPy, with hints that do nothing. Any operation gives plain arrays."""

    def _step(self, name: str, *args: int | str) -> Any:
        _checked(name, args)
        return self

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if "out" in kwargs:
            kwargs["out"] = tuple(map(_plain, kwargs["out"]))
        return getattr(ufunc, method)(*map(_plain, inputs), **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return super().__array_function__(func, (np.ndarray,), _plain(args), _plain(kwargs))

    def __getitem__(self, index: Any) -> Any:
        return _plain(self)[index]


def _plain(value: Any) -> Any:
    if isinstance(value, HintedArray):
        return value.view(np.ndarray)
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return value


def symbolic_hint(recorder: Recorder, value: Any) -> SymbolicArray:
    """`hint` under capture: the same value, ready to take steps."""
    x = symbolic(recorder, value)
    return Hinted(recorder, x, ()).value


class Hinted(_Chain):
    """The steps of a captured value. They are methods of `value` as long as it is not used for anything else."""

    def __init__(self, recorder: Recorder, array: SymbolicArray, steps: tuple[Any, ...]) -> None:
        self._recorder, self._array, self._steps = recorder, array, steps
        node = recorder.emit("hint", [array.node], steps=steps) if steps else array.node
        self.value = SymbolicArray(recorder, node, is_scalar=array.is_scalar, base=None if array.is_scalar else array)
        self.value.hints = self

    def _step(self, name: str, *args: int | str) -> SymbolicArray:
        return Hinted(self._recorder, self._array, (*self._steps, (name, _checked(name, args)))).value


def hint(value: Any) -> Any:
    """`value`, ready to take hints: `hint(x).tile(64, 64).parallel()`.

    Shape, dtype and values stay. Steps: tile, vectorize, unroll, parallel, split, reorder, cache. Raises
    `TracedslError` C016 for a step or an argument that does not exist.
    """
    return np.asarray(value).view(HintedArray)
