"""`hint(x)`: schedule hints on a value, in the middle of ordinary NumPy code.

    c = hint(a @ b).tile(64, 64).vectorize(8)

What holds here: a hint never changes a value. Under plain NumPy the result behaves as the array itself and becomes a
plain array with the next operation; under capture the chain is one `tensor.hint` node, made when the value is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracedsl.capture.tensor.arrays import SymbolicArray, symbolic
from tracedsl.capture.tensor.recorder import Recorder
from tracedsl.diagnostics import TracedslError, nearest

# step -> what its arguments are
STEPS: dict[str, str] = {
    "tile": "whole numbers, one a dimension", "vectorize": "lanes, or an axis and lanes",
    "unroll": "times, or an axis and times", "parallel": "tasks, or an axis", "split": "an axis and a factor",
    "reorder": "axes, outermost first", "fuse": "two neighbouring axes", "cache": "a memory scope",
    "cache_read": "a buffer and the axis at which it is copied",
}


class _Chain:
    """The steps, as methods that return the hinted value. An axis is a number (0 is the first dimension) or a name as
    `show("schedule")` prints it, so that a printed schedule can be pasted as a hint."""

    def _step(self, name: str, *args: int | str) -> Any:
        raise NotImplementedError

    def tile(self, *sizes: int | str) -> Any:
        """Work on blocks of these sizes, one a dimension, for the last dimensions."""
        return self._step("tile", *sizes)

    def vectorize(self, *args: int | str) -> Any:
        """Compute neighbours at once: `vectorize(16)` along the innermost axis, `vectorize("j_i")` along another; no
        number, or 0, lets the target choose."""
        return self._step("vectorize", *(args or (0,)))

    def unroll(self, *args: int | str) -> Any:
        """Repeat the body of a loop: `unroll(4)` for the innermost one, `unroll("i_i")` for another."""
        return self._step("unroll", *(args or (0,)))

    def parallel(self, *args: int | str) -> Any:
        """Spread a loop over threads: the outermost one, in so many tasks (0: the target chooses), or a named one."""
        return self._step("parallel", *(args or (0,)))

    def split(self, axis: int | str, factor: int, *names: str) -> Any:
        """Split one axis into blocks of `factor`; `names` are those of the two new axes."""
        return self._step("split", axis, factor, *names)

    def reorder(self, *axes: int | str) -> Any:
        """The order of the loops, outermost first."""
        return self._step("reorder", *axes)

    def fuse(self, outer: int | str, inner: int | str, *name: str) -> Any:
        """Make one axis of two neighbours."""
        return self._step("fuse", outer, inner, *name)

    def cache(self, scope: str = "local") -> Any:
        """Keep the value in a memory of this scope while it is used."""
        return self._step("cache", scope)

    def cache_read(self, buffer: str, axis: int | str) -> Any:
        """Copy what the loops inside `axis` read of `buffer` into contiguous memory."""
        return self._step("cache_read", buffer, axis)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or hasattr(np.ndarray, name):
            raise AttributeError(name)
        raise TracedslError("C016", f"there is no hint {name!r}", hint=nearest(name, STEPS))


def _checked(name: str, args: tuple[int | str, ...]) -> tuple[int | str, ...]:
    kinds = (str,) if name == "cache" else (int,) if name == "tile" and len(set(map(type, args))) == 1 else (int, str)
    if not args or any(type(arg) not in kinds or (isinstance(arg, int) and arg < 0) for arg in args):
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

    Shape, dtype and values stay. Steps: tile, vectorize, unroll, parallel, split, reorder, fuse,
    cache, cache_read. Raises
    `TracedslError` C016 for a step or an argument that does not exist.
    """
    return np.asarray(value).view(HintedArray)
