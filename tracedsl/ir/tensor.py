"""The tensor dialect: types and operators of the graphs that NumPy functions are captured into.

What holds here:
- Everything is explicit. Operands of an element-wise operator have the same shape and the dtype that the loop works in:
  promotion (NEP 50) became `tensor.cast` and broadcasting became `tensor.broadcast` during capture.
- Every operator but `tensor.compute` and `tensor.hint` can be evaluated by NumPy, which folds constants and is the
  reference in tests. Evaluating never warns: what NumPy would warn of is the caller's to repeat.
- Views (slice, transpose, broadcast, reshape) are operators like the others; lowering turns them into index maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracedsl.cache import digest
from tracedsl.ir.dtypes import REAL_OF, short
from tracedsl.ir.expr import SCALAR_OPS
from tracedsl.ir.graph import CONSTANT, Attrs, Graph, Node, Op, Type


@dataclass(frozen=True, slots=True)
class TensorType:
    """dtype (a NumPy name, native byte order) and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{short(self.dtype)}[{', '.join(map(str, self.shape))}]"


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Elements from one entry of a dimension to the next, in a contiguous tensor of this shape."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


def tensor_type(array: Any) -> TensorType:
    """The type of a NumPy array or scalar."""
    return TensorType(np.asarray(array).dtype.name, np.shape(array))


def constant_text(array: np.ndarray[Any, Any]) -> str:
    """How a constant is written: its value if it is one number, else its digest."""
    if array.ndim == 0:
        return repr(array.item())
    return f"#{digest(np.ascontiguousarray(array).tobytes())[:16]}"


# -- element-wise -------------------------------------------------------------------------------------------------

_NUMPY_NAMES = {
    "sub": "subtract", "mul": "multiply", "div": "divide", "floordiv": "floor_divide", "mod": "remainder",
    "pow": "power", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "shl": "left_shift",
    "shr": "right_shift", "neg": "negative", "not": "invert", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
    "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "atan2": "arctan2", "eq": "equal", "ne": "not_equal",
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "select": "where", "abs": "absolute",
}
_COMPLEX_PARTS = ("real", "imag", "conj", "complex")


def numpy_function(op: str) -> Callable[..., Any]:
    """The NumPy (or SciPy) function that defines a scalar operation; `sigmoid` is written out."""
    if op == "sigmoid":
        return lambda x: 1 / (1 + np.exp(-x))
    if op in ("erf", "erfc"):
        from scipy import special

        return getattr(special, op)  # type: ignore[no-any-return]
    return getattr(np, _NUMPY_NAMES.get(op, op))  # type: ignore[no-any-return]


def _types(inputs: Sequence[Type]) -> list[TensorType]:
    if not all(isinstance(t, TensorType) for t in inputs):
        raise TypeError("not all inputs are tensors")
    return [t for t in inputs if isinstance(t, TensorType)]


def _infer_elementwise(name: str) -> Callable[[Sequence[Type], Attrs], Type]:
    arity, result = SCALAR_OPS[name]

    def infer(inputs: Sequence[Type], attrs: Attrs) -> Type:
        types = _types(inputs)
        if len(types) != arity:
            raise TypeError(f"{name} takes {arity} operands, not {len(types)}")
        if len({t.shape for t in types}) != 1:
            raise TypeError(f"{name} of different shapes: {', '.join(map(str, types))}")
        operands = types[1:] if name == "select" else types
        if len({t.dtype for t in operands}) != 1 or (name == "select" and types[0].dtype != "bool"):
            raise TypeError(f"{name} of dtypes {', '.join(t.dtype for t in types)}")
        dtype = "bool" if result == "bool" else operands[0].dtype
        if name == "abs":
            dtype = REAL_OF.get(dtype, dtype)
        return TensorType(dtype, types[0].shape)

    return infer


def _evaluate_elementwise(name: str) -> Callable[[Sequence[Any], Attrs], Any]:
    def evaluate(values: Sequence[Any], attrs: Attrs) -> Any:
        with np.errstate(all="ignore"):
            return numpy_function(name)(*values)

    return evaluate


# -- the others ---------------------------------------------------------------------------------------------------


def _infer_cast(inputs: Sequence[Type], attrs: Attrs) -> Type:
    return TensorType(attrs["dtype"], _types(inputs)[0].shape)


def _cast(values: Sequence[Any], attrs: Attrs) -> Any:
    with np.errstate(all="ignore"):
        value = np.asarray(values[0])
        if value.dtype.kind == "c" and np.dtype(attrs["dtype"]).kind not in "cb":
            value = value.real  # NumPy drops the imaginary part, with a warning
        return value.astype(attrs["dtype"])


def _infer_part(inputs: Sequence[Type], attrs: Attrs) -> Type:
    (t,) = _types(inputs)
    return TensorType(REAL_OF[t.dtype], t.shape)


def _infer_conj(inputs: Sequence[Type], attrs: Attrs) -> Type:
    (t,) = _types(inputs)
    return TensorType(t.dtype, t.shape) if t.dtype in REAL_OF else _refuse("conj of a real tensor")


def _infer_complex(inputs: Sequence[Type], attrs: Attrs) -> Type:
    re, im = _types(inputs)
    found = next((c for c, r in REAL_OF.items() if r == re.dtype), None)
    if re != im or found is None:
        raise TypeError(f"complex of {re} and {im}")
    return TensorType(found, re.shape)


def _make_complex(values: Sequence[Any], attrs: Attrs) -> Any:
    re, im = map(np.asarray, values)
    result = np.empty(re.shape, np.result_type(re.dtype, np.complex64))
    result.real, result.imag = re, im
    return result


def _infer_reduce(inputs: Sequence[Type], attrs: Attrs) -> Type:
    (t,) = _types(inputs)
    axes = attrs["axes"]
    if list(axes) != sorted(set(axes)) or any(not 0 <= a < len(t.shape) for a in axes):
        raise ValueError(f"axes {axes} of a tensor with {len(t.shape)} dimensions")
    return TensorType(t.dtype, tuple(n for i, n in enumerate(t.shape) if i not in axes))


_REDUCERS = {"add": np.add, "mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum, "or": np.bitwise_or,
             "and": np.bitwise_and, "fmax": np.fmax, "fmin": np.fmin}


def _reduce(values: Sequence[Any], attrs: Attrs) -> Any:
    value = np.asarray(values[0])
    with np.errstate(all="ignore"):
        return _REDUCERS[attrs["kind"]].reduce(value, axis=attrs["axes"], dtype=value.dtype)


def _infer_scan(inputs: Sequence[Type], attrs: Attrs) -> Type:
    (t,) = _types(inputs)
    if not 0 <= attrs["axis"] < len(t.shape) or attrs["kind"] not in _REDUCERS:
        raise ValueError(f"scan {attrs} of {t}")
    return t


def _scan(values: Sequence[Any], attrs: Attrs) -> Any:
    value = np.asarray(values[0])
    with np.errstate(all="ignore"):
        return _REDUCERS[attrs["kind"]].accumulate(value, axis=attrs["axis"], dtype=value.dtype)


def _infer_contract(inputs: Sequence[Type], attrs: Attrs) -> Type:
    a, b = _types(inputs)
    sources, result = attrs["spec"].split("->")
    extents: dict[str, int] = {}
    for letters, t in zip(sources.split(","), (a, b)):
        if len(letters) != len(t.shape) or len(set(letters)) != len(letters):
            raise ValueError(f"{attrs['spec']!r} does not fit {a} and {b}")
        for letter, extent in zip(letters, t.shape):
            if extents.setdefault(letter, extent) != extent:
                raise ValueError(f"{attrs['spec']!r}: {letter} is {extents[letter]} and {extent}")
    if a.dtype != b.dtype:
        raise TypeError(f"contraction of {a.dtype} and {b.dtype}")
    return TensorType(a.dtype, tuple(extents[letter] for letter in result))


def _infer_transpose(inputs: Sequence[Type], attrs: Attrs) -> Type:
    (t,) = _types(inputs)
    if sorted(attrs["perm"]) != list(range(len(t.shape))):
        raise ValueError(f"{attrs['perm']} is no permutation of {len(t.shape)} dimensions")
    return TensorType(t.dtype, tuple(t.shape[i] for i in attrs["perm"]))


def _infer_reshape(inputs: Sequence[Type], attrs: Attrs) -> Type:
    (t,) = _types(inputs)
    if math.prod(attrs["shape"]) != t.size:
        raise ValueError(f"{t} cannot be reshaped into {attrs['shape']}")
    return TensorType(t.dtype, tuple(attrs["shape"]))


def _infer_broadcast(inputs: Sequence[Type], attrs: Attrs) -> Type:
    (t,) = _types(inputs)
    shape, dims = attrs["shape"], attrs["dims"]
    if len(dims) != len(t.shape) or list(dims) != sorted(set(dims)):
        raise ValueError(f"dims {dims} for {t}")
    for extent, dim in zip(t.shape, dims):
        if extent not in (1, shape[dim]):
            raise ValueError(f"{t} cannot be broadcast to {shape} at {dims}")
    return TensorType(t.dtype, tuple(shape))


def _broadcast(values: Sequence[Any], attrs: Attrs) -> Any:
    value, shape = np.asarray(values[0]), attrs["shape"]
    spread = [1] * len(shape)
    for extent, dim in zip(value.shape, attrs["dims"]):
        spread[dim] = extent
    return np.broadcast_to(value.reshape(spread), shape)


def _infer_slice(inputs: Sequence[Type], attrs: Attrs) -> Type:
    (t,) = _types(inputs)
    for extent, start, step, size in zip(t.shape, attrs["start"], attrs["step"], attrs["size"], strict=True):
        if step == 0 or size < 0 or (size and not (0 <= start < extent and 0 <= start + step * (size - 1) < extent)):
            raise ValueError(f"slice {attrs} of {t} is out of bounds")
    return TensorType(t.dtype, tuple(attrs["size"]))


def _slice(values: Sequence[Any], attrs: Attrs) -> Any:
    picks = []
    for start, step, size in zip(attrs["start"], attrs["step"], attrs["size"]):
        picks.append(start + step * np.arange(size))
    return np.asarray(values[0])[np.ix_(*picks)] if picks else values[0]


def _infer_window(inputs: Sequence[Type], attrs: Attrs) -> Type:
    """`tensor.window {shape, start, steps}`: element i of the result is the source's element start + steps @ i."""
    (t,) = _types(inputs)
    shape, start, steps = attrs["shape"], attrs["start"], attrs["steps"]
    for extent, first, row in zip(t.shape, start, steps, strict=True):
        if len(row) != len(shape):
            raise ValueError(f"window {attrs} of {t}: {len(row)} steps for {len(shape)} dimensions")
        ends = [step * (n - 1) for step, n in zip(row, shape)]
        low, high = first + sum(min(0, end) for end in ends), first + sum(max(0, end) for end in ends)
        if 0 not in shape and not 0 <= low <= high < extent:
            raise ValueError(f"window {attrs} of {t} is out of bounds")
    return TensorType(t.dtype, tuple(shape))


def _window(values: Sequence[Any], attrs: Attrs) -> Any:
    shape: tuple[int, ...] = attrs["shape"]
    places: Sequence[np.ndarray[Any, Any]] = np.indices(shape, sparse=True)
    index = [np.broadcast_to(first + sum(step * i for step, i in zip(row, places)), shape)
             for first, row in zip(attrs["start"], attrs["steps"])]
    return np.asarray(values[0])[tuple(index)] if index else np.broadcast_to(values[0], shape)


def _infer_iota(inputs: Sequence[Type], attrs: Attrs) -> Type:
    return TensorType("int64", tuple(attrs["shape"]))


def _iota(values: Sequence[Any], attrs: Attrs) -> Any:
    shape, axis = attrs["shape"], attrs["axis"]
    line = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return np.broadcast_to(line, shape)


def _infer_concat(inputs: Sequence[Type], attrs: Attrs) -> Type:
    types, axis = _types(inputs), attrs["axis"]
    rest = {(t.dtype, t.shape[:axis], t.shape[axis + 1:]) for t in types}
    if len(rest) != 1:
        raise TypeError(f"concatenation of {', '.join(map(str, types))} along {axis}")
    total = sum(t.shape[axis] for t in types)
    return TensorType(types[0].dtype, (*types[0].shape[:axis], total, *types[0].shape[axis + 1:]))


def _infer_compute(inputs: Sequence[Type], attrs: Attrs) -> Type:
    """`tensor.compute {body}`: a tensor expression written by the user; see `ir/compute.py`."""
    return TensorType(attrs["body"].dtype, attrs["body"].shape)


def _infer_same(inputs: Sequence[Type], attrs: Attrs) -> Type:
    return inputs[0]


def _refuse(why: str) -> Type:
    raise TypeError(why)


def _op(name: str, infer: Callable[[Sequence[Type], Attrs], Type],
        evaluate: Callable[[Sequence[Any], Attrs], Any] | None) -> tuple[str, Op]:
    return name, Op(f"tensor.{name}", infer, evaluate)


OPS: dict[str, Op] = dict([
    *(_op(name, _infer_elementwise(name), _evaluate_elementwise(name)) for name in SCALAR_OPS),
    _op("cast", _infer_cast, _cast),
    _op("real", _infer_part, lambda v, a: np.real(v[0])),
    _op("imag", _infer_part, lambda v, a: np.imag(v[0])),
    _op("conj", _infer_conj, lambda v, a: np.conj(v[0])),
    _op("complex", _infer_complex, _make_complex),
    _op("reduce", _infer_reduce, _reduce),
    _op("scan", _infer_scan, _scan),
    _op("contract", _infer_contract, lambda v, a: np.einsum(a["spec"], *v)),
    _op("transpose", _infer_transpose, lambda v, a: np.transpose(v[0], a["perm"])),
    _op("reshape", _infer_reshape, lambda v, a: np.reshape(v[0], a["shape"])),
    _op("broadcast", _infer_broadcast, _broadcast),
    _op("slice", _infer_slice, _slice),
    _op("window", _infer_window, _window),
    _op("iota", _infer_iota, _iota),
    _op("concat", _infer_concat, lambda v, a: np.concatenate(v, a["axis"])),
    _op("compute", _infer_compute, None),
    _op("hint", _infer_same, None),
])

VIEWS = frozenset(OPS[name] for name in ("transpose", "reshape", "broadcast", "slice", "window"))
ELEMENTWISE = frozenset(OPS[name] for name in (*SCALAR_OPS, *_COMPLEX_PARTS, "cast"))


def run_graph(graph: Graph, arguments: Sequence[Any]) -> list[Any]:
    """Evaluate a graph by NumPy, node by node: what the compiled code is compared with. Slow, and plain."""
    values: dict[Node, Any] = dict(zip(graph.params, map(np.asarray, arguments), strict=True))
    for node in graph.nodes:
        if node in values:
            continue
        if node.op is CONSTANT:
            values[node] = node.attr("value").value
        elif node.op is OPS["hint"]:
            values[node] = values[node.inputs[0]]
        elif node.op is OPS["compute"]:
            values[node] = node.attr("body").evaluate([values[source] for source in node.inputs])
        else:
            assert node.op.evaluate is not None, node.op
            values[node] = node.op.evaluate([values[source] for source in node.inputs], node.attrs)
    return [values[node] for node in graph.results]
