"""`SymbolicArray`: what stands for an array (or a NumPy scalar) while a function is captured.

What holds here: it behaves as the array would - operators, methods, properties, NumPy protocols - and records nodes
instead of computing. It never gives away a value that depends on an argument: whatever would need one is refused.
A view knows the array that owns its memory; the memory of an argument, or memory that a live view shares, is not
written.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from tracedsl.capture.tensor.numbers import PythonNumber, apply_by_identity
from tracedsl.capture.tensor.recorder import Recorder
from tracedsl.ir.graph import Node
from tracedsl.ir.tensor import TensorType

ROW_CAP = 256   # iterating over an array unrolls the loop; beyond that it is refused

# methods that are NumPy functions of the array and the method's own arguments
_METHODS = {name: getattr(np, name) for name in (
    "sum", "prod", "mean", "std", "var", "min", "max", "any", "all", "argmin", "argmax", "ravel", "swapaxes", "squeeze",
    "clip", "round", "dot", "trace", "cumsum", "cumprod", "repeat", "take", "diagonal", "ptp", "sort", "argsort",
    "nonzero")
    if hasattr(np, name)} | {"conj": np.conjugate, "conjugate": np.conjugate}
_IN_PLACE = ("fill", "put", "resize", "setfield", "setflags", "partition", "itemset", "byteswap", "sort")
_VALUES = ("item", "tolist", "tobytes", "tofile", "dump", "dumps", "data", "ctypes", "flat", "searchsorted", "view")


class SymbolicArray(NDArrayOperatorsMixin):
    """An array under capture.

    `is_scalar`: NumPy would give a scalar, not a 0-d array. `base`: the array whose memory this is a view of.
    `source`: where an argument (or outer array) comes from; None for what was computed.
    """

    __slots__ = ("__weakref__", "base", "contiguous", "hints", "is_scalar", "node", "recorder", "source", "views")

    def __init__(self, recorder: Recorder, node: Node, *, is_scalar: bool = False,
                 base: SymbolicArray | None = None, source: Any = None, contiguous: bool = True) -> None:
        self.recorder, self.node, self.is_scalar, self.source = recorder, node, is_scalar, source
        self.base: SymbolicArray | None = None
        self.contiguous = contiguous
        self.hints: Any = None                 # the steps of `hint(x)`, as long as this is its value
        self.views: list[weakref.ref[SymbolicArray]] = []
        if base is not None:
            self.base = base.owner
            self.base.views.append(weakref.ref(self))

    @property
    def owner(self) -> SymbolicArray:
        """The array whose memory this is."""
        return self if self.base is None else self.base

    # -- what is known --------------------------------------------------------------------------------------------

    @property
    def tensor(self) -> TensorType:
        assert isinstance(self.node.type, TensorType)
        return self.node.type

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.tensor.dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return self.tensor.size

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """In bytes, where they follow from what is known."""
        from tracedsl.capture.tensor.windows import strides_of

        return tuple(stride * self.itemsize for stride in strides_of(self))

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """So that `isinstance(x, np.ndarray)` in the captured function is answered as for the real array."""
        return self.dtype.type if self.is_scalar else np.ndarray

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    # -- NumPy protocols ------------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "__call__":
            return apply_by_identity(self.recorder, ufunc, inputs, kwargs)
        return apply_by_identity(self.recorder, getattr(np.ufunc, method), (ufunc, *inputs), kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return apply_by_identity(self.recorder, function, args, kwargs)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        known = self.recorder.known(self.node)
        return self._refuse_value("the values") if known is None else np.array(known, dtype=dtype)

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """The symbolic form of a NumPy function, on this array first."""
        return apply_by_identity(self.recorder, function, (self, *args), kwargs)

    # -- views and copies -----------------------------------------------------------------------------------------

    def view_as(self, node: Node) -> SymbolicArray:
        """Another shape of the same memory; of a scalar, a view of a new 0-d array."""
        base = SymbolicArray(self.recorder, self.node) if self.is_scalar else self
        return SymbolicArray(self.recorder, node, base=base)

    @property
    def T(self) -> SymbolicArray:
        return self if self.is_scalar else self.transpose()

    def transpose(self, *axes: Any) -> Any:
        if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], Sequence)):
            axes = tuple(axes[0] or ())
        return self.call(np.transpose, axes or None)

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        return self.call(np.reshape, shape[0] if len(shape) == 1 else shape, **kwargs)

    def astype(self, dtype: Any, order: str = "K", casting: str = "unsafe", subok: bool = True,
               copy: bool = True) -> Any:
        new = np.dtype(dtype)
        if not np.can_cast(self.dtype, new, casting=casting):  # type: ignore[arg-type]
            raise TypeError(f"Cannot cast array data from {self.dtype!r} to {new!r} according to the rule {casting!r}")
        if new == self.dtype and not copy:
            return self
        return SymbolicArray(self.recorder, self.recorder.cast(self.node, new), is_scalar=self.is_scalar)

    def copy(self, order: str = "C") -> SymbolicArray:
        return SymbolicArray(self.recorder, self.node, is_scalar=self.is_scalar)

    def flatten(self, order: str = "C") -> Any:
        return self.reshape(-1, order=order).copy()

    @property
    def real(self) -> Any:
        return self.call(np.real)

    @property
    def imag(self) -> Any:
        return self.call(np.imag)

    def __getitem__(self, index: Any) -> Any:
        return self.call(GETITEM, index)

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        if self.shape[0] > ROW_CAP:
            self.recorder.refuse("C012", f"a loop over the {self.shape[0]} rows of an array",
                                 why="Python loops run while the function is captured, once for each turn",
                                 hint="write the loop as an operation on whole arrays")
        return iter([self[i] for i in range(self.shape[0])])

    # -- writes ---------------------------------------------------------------------------------------------------

    def __setitem__(self, index: Any, value: Any) -> None:
        apply_by_identity(self.recorder, SETITEM, (self, index, value), {})

    # -- what Python wants to know --------------------------------------------------------------------------------

    def _known(self, what: str) -> Any:
        known = self.recorder.known(self.node)
        return self._refuse_value(what) if known is None else known

    def _refuse_value(self, what: str) -> Any:
        return self.recorder.refuse("C006", f"Python needs {what} of an array that is computed from an argument",
                                    why="the function is captured once, for all values",
                                    hint="stay with array operations; sizes may be taken from shapes")

    def __bool__(self) -> bool:
        known = self.recorder.known(self.node)
        if known is None:
            self.recorder.refuse("C005", "this test depends on the data of an array",
                                 why="the function is captured once, for all values, and cannot take one branch",
                                 hint="choose with np.where(test, a, b)")
        return bool(known)

    def __int__(self) -> int:
        return int(self._known("the whole part"))

    def __float__(self) -> float:
        return float(self._known("the value"))

    def __complex__(self) -> complex:
        return complex(self._known("the value"))

    def __index__(self) -> int:
        known = self._known("the value")
        if known.ndim or known.dtype.kind not in "iu":
            raise TypeError("only integer scalar arrays can be converted to a scalar index")
        return int(known)

    def __pow__(self, exponent: Any) -> Any:
        """NumPy takes the square for a Python 2, also of booleans."""
        square = type(exponent) is int and exponent == 2 and not self.is_scalar
        return self.call(np.square) if square else self.call(np.power, exponent)

    def __contains__(self, item: Any) -> bool:
        return bool((self == item).any())

    def __repr__(self) -> str:
        return str(self._refuse_value("the text"))

    def __str__(self) -> str:
        return str(self._refuse_value("the text"))

    def __format__(self, spec: str) -> str:
        return str(self._refuse_value("the text"))

    def __getattr__(self, name: str) -> Any:
        if name in _METHODS and name != "sort":
            return partial(self.call, _METHODS[name])
        if name in _IN_PLACE:
            self.recorder.refuse("C011", f"the array method {name!r} writes in place",
                                 why="captured values never change",
                                 hint="build a new array instead")
        if name in _VALUES:
            self._refuse_value(f"the values (.{name})")
        if not name.startswith("__") and hasattr(np.ndarray, name):
            self.recorder.refuse("C007", f"the array attribute {name!r} has no symbolic form",
                                 why="it cannot be compiled yet", hint="leave this part to NumPy")
        if self.hints is not None:
            return getattr(self.hints, name)
        raise AttributeError(f"'numpy.ndarray' object has no attribute {name!r}")


def _getitem(array: Any, index: Any) -> Any:
    """Stands for `array[index]` in the table of symbolic forms."""
    return array[index]


def _setitem(array: Any, index: Any, value: Any) -> None:
    """Stands for `array[index] = value` in the table of symbolic forms."""
    array[index] = value


GETITEM, SETITEM = _getitem, _setitem

Operand = SymbolicArray | PythonNumber | int | float | complex


def operand(recorder: Recorder, value: Any) -> Operand:
    """What takes part in an operation: a symbolic array, or a Python number, which adapts to what it meets."""
    kind = type(value)
    if kind in (SymbolicArray, PythonNumber, int, float, complex):
        return value  # type: ignore[no-any-return]
    return symbolic(recorder, value)


def symbolic(recorder: Recorder, value: Any) -> SymbolicArray:
    """As a symbolic array. A Python number becomes a 0-d array of NumPy's default dtype for it."""
    if type(value) is SymbolicArray:
        return value
    if type(value) is PythonNumber:
        return SymbolicArray(recorder, number_node(recorder, value), is_scalar=True)
    if isinstance(value, np.ndarray):
        known = recorder.tensors.get(id(value))
        return SymbolicArray(recorder, recorder.constant(value)) if known is None else known
    if isinstance(value, bool | int | float | complex | np.generic):
        return SymbolicArray(recorder, recorder.constant(value), is_scalar=True)
    if isinstance(value, list | tuple):
        if contains_symbolic(value):
            stacked: SymbolicArray = apply_by_identity(recorder, np.stack, ([symbolic(recorder, v) for v in value],),
                                                       {})
            return stacked
        return SymbolicArray(recorder, recorder.constant(value))
    if isinstance(unwrapped := getattr(value, "__captured__", None), SymbolicArray):
        return unwrapped
    return recorder.refuse("C006", f"an object of type {type(value).__name__!r} among arrays",
                           why="only arrays, numbers and nested sequences of them can be computed with")


def contains_symbolic(value: Any) -> bool:
    """Whether a value, or a container of values, has a part that is not known while capturing."""
    kind = type(value)
    if kind is SymbolicArray or kind is PythonNumber:
        return True
    if kind in (list, tuple, set):
        return any(map(contains_symbolic, value))
    if kind is dict:
        return any(map(contains_symbolic, value.values()))
    return isinstance(getattr(value, "__captured__", None), SymbolicArray)


def number_node(recorder: Recorder, number: PythonNumber) -> Node:
    """The 0-d input through which a Python number comes in; one for each number."""
    key = ("number", number.expr)
    if key not in recorder.tensors:
        dtype = "complex128" if number.expr.kind == "complex" else "float64"
        name = recorder.names.get(number.expr, f"number_{sum(isinstance(k, tuple) for k in recorder.tensors)}")
        node = recorder.builder.param(name, TensorType(dtype, ()), recorder.span)
        recorder.sources[node] = number.expr
        recorder.tensors[key] = SymbolicArray(recorder, node, is_scalar=True)
    return recorder.tensors[key].node  # type: ignore[no-any-return]


def dtype_of(value: Operand) -> Any:
    """For `ufunc.resolve_dtypes` and `np.result_type`: a dtype, or the Python type of a number that adapts."""
    match value:
        case SymbolicArray():
            return value.dtype
        case PythonNumber():
            return complex if value.expr.kind == "complex" else float
    return type(value)
