"""Binding of a call: the arguments become a list of leaves and a key that describes them.

What holds here: the key is the whole description of how the leaves make up the arguments, so that two calls with equal
keys can run the same variant. Array values and Python floats never enter the key; Python ints, bools, strings do.

    part of a key                                    stands for
    ("array", dtype, shape, strides)                 the next leaf, an array; strides in elements, None if C-contiguous
    ("scalar", dtype)                                the next leaf, a NumPy scalar
    ("number", "float" or "complex")                 the next leaf, a Python number
    ("static", type, value)                          a value that is compiled in
    ("float", hex) ("complex", hex, hex) ("constant", dtype, bytes)   outer numbers, which are compiled in
    ("slice", start, stop, step)                     a slice of such values
    ("tuple", parts) ("list", parts)                 a sequence
    ("dict", keys, parts)                            a dict, in its order
    ("record", class, names, parts)                  a dataclass or a named tuple
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import EllipsisType, FunctionType, NoneType
from typing import Any

import numpy as np

from tracedsl.diagnostics import Unsupported
from tracedsl.ir.dtypes import SHORT

Key = tuple[Any, ...]
DEPTH_CAP = 20

_STATIC = (int, bool, str, bytes, NoneType, EllipsisType, range, np.dtype)


@dataclass(frozen=True, slots=True)
class Bound:
    """A call. `leaves`: arrays, NumPy scalars and Python numbers, in the order of the key. `copies`: the positions of
    arrays that compiled code cannot read where they are (byte-swapped, misaligned): it is given contiguous copies.
    `aliases`: for each leaf the first leaf that is the same array; empty where that does not matter."""

    key: Key
    leaves: tuple[Any, ...]
    copies: tuple[int, ...] = ()
    aliases: tuple[int, ...] = ()


@dataclass(frozen=True)
class Parameters:
    """A function's parameters, read once, so that a call is bound without `inspect`."""

    signature: inspect.Signature
    names: tuple[str, ...]
    simple: bool      # positional-or-keyword parameters only

    @staticmethod
    def of(function: FunctionType) -> Parameters:
        signature = inspect.signature(function, follow_wrapped=False)
        kinds = {p.kind for p in signature.parameters.values()}
        return Parameters(signature, tuple(signature.parameters), kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD})

    def values(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
        """One value a parameter, defaults filled in. Raises TypeError as the call itself would."""
        if self.simple and not kwargs and len(args) == len(self.names):
            return args
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return tuple(bound.arguments[name] for name in self.names)


def bind(parameters: Parameters, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Bound:
    """Bind a call. Raises TypeError for arguments that the function does not take, and `Unsupported` C009 for values
    that cannot be compiled for (other objects, array subclasses, object and text arrays)."""
    leaves: list[Any] = []
    copies: list[int] = []
    parts = []
    for position, value in enumerate(parameters.values(args, kwargs)):
        flatten = _FLATTEN.get(type(value))
        try:
            parts.append(flatten(value, leaves, copies, 0) if flatten else _other(value, leaves, copies, 0))
        except Unsupported as error:
            found = error.diagnostic
            raise Unsupported(found.code, f"the argument {parameters.names[position]!r}: {found.what}", why=found.why,
                              hint=found.hint) from None
    return Bound(tuple(parts), tuple(leaves), tuple(copies))


def array_key(array: np.ndarray[Any, Any]) -> tuple[Key, bool]:
    """The key of an array, and whether it has to be copied before compiled code can read it."""
    dtype = array.dtype
    name = _NAMES.get(dtype.num)
    if name is None:
        raise Unsupported("C009", f"an array of dtype {dtype}",
                          why="only booleans, integers, floats and complex numbers "
                          "of up to 8 bytes a part are compiled", hint="convert the array with astype")
    flags = array.flags
    if not dtype.isnative or not flags.aligned:
        return ("array", name, array.shape, None), True
    if flags.c_contiguous:
        return ("array", name, array.shape, None), False
    size = dtype.itemsize
    if any(stride % size for stride in array.strides):
        return ("array", name, array.shape, None), True
    return ("array", name, array.shape, tuple([stride // size for stride in array.strides])), False


def _array(value: Any, leaves: list[Any], copies: list[int], depth: int) -> Key:
    key, copied = array_key(value)
    if copied:
        copies.append(len(leaves))
    leaves.append(value)
    return key


def _scalar(value: Any, leaves: list[Any], copies: list[int], depth: int) -> Key:
    name = _NAMES.get(value.dtype.num)
    if name is None:
        return _refused(value)
    leaves.append(value)
    return ("scalar", name)


def _float(value: Any, leaves: list[Any], copies: list[int], depth: int) -> Key:
    leaves.append(value)
    return _FLOAT


def _complex(value: Any, leaves: list[Any], copies: list[int], depth: int) -> Key:
    leaves.append(value)
    return _COMPLEX


def _static(value: Any, leaves: list[Any], copies: list[int], depth: int) -> Key:
    return ("static", type(value), value)


def _slice(value: Any, leaves: list[Any], copies: list[int], depth: int) -> Key:
    parts = (value.start, value.stop, value.step)
    if not all(isinstance(part, int | NoneType) for part in parts):
        return _refused(value)
    return ("slice", *parts)


def _parts(values: Any, leaves: list[Any], copies: list[int], depth: int) -> tuple[Key, ...]:
    if depth > DEPTH_CAP:
        raise Unsupported("C009", f"containers nested more than {DEPTH_CAP} deep")
    return tuple([_FLATTEN.get(type(v), _other)(v, leaves, copies, depth + 1) for v in values])


def _sequence(value: Any, leaves: list[Any], copies: list[int], depth: int) -> Key:
    return (type(value).__name__, _parts(value, leaves, copies, depth))


def _dict(value: Any, leaves: list[Any], copies: list[int], depth: int) -> Key:
    if not all(isinstance(key, str | int | bool | NoneType) for key in value):
        raise Unsupported("C009", "a dict with keys that are neither text nor whole numbers")
    return ("dict", tuple(value), _parts(value.values(), leaves, copies, depth))


def _other(value: Any, leaves: list[Any], copies: list[int], depth: int) -> Key:
    kind = type(value)
    if isinstance(value, np.generic):
        return _scalar(value, leaves, copies, depth)
    if isinstance(value, np.dtype | Enum | type):
        return _static(value, leaves, copies, depth)
    if dataclasses.is_dataclass(value):
        names = tuple(f.name for f in dataclasses.fields(value))
        return ("record", kind, names, _parts((getattr(value, n) for n in names), leaves, copies, depth))
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return ("record", kind, kind._fields, _parts(value, leaves, copies, depth))
    return _refused(value)


def _refused(value: Any) -> Key:
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if isinstance(value, np.ndarray):
        raise Unsupported("C009", f"an array of the subclass {name}", why="a subclass may change what operations mean",
                          hint="pass np.asarray(x)")
    raise Unsupported("C009", f"an object of type {name}",
                      why="only arrays, numbers, text, tuples, lists, dicts and dataclasses of them are compiled for",
                      hint="pass the arrays and numbers that the function needs")


_NAMES: dict[int, str] = {int(np.dtype(code).num): np.dtype(code).name for code in (*SHORT, *"lqLQ")}
_FLOAT, _COMPLEX = ("number", "float"), ("number", "complex")
_FLATTEN: dict[type, Callable[[Any, list[Any], list[int], int], Key]] = {
    np.ndarray: _array, float: _float, complex: _complex, slice: _slice, tuple: _sequence, list: _sequence, dict: _dict,
    **dict.fromkeys(_STATIC, _static), **{np.dtype(name).type: _scalar for name in SHORT},
}


# -- what a key says ----------------------------------------------------------------------------------------------


def key_text(key: Hashable) -> str:
    """The key as text that is the same in every process, for keys on disk."""
    if isinstance(key, tuple):
        return "(" + ", ".join(map(key_text, key)) + ")"
    if isinstance(key, type):
        return f"{key.__module__}.{key.__qualname__}"
    return repr(key)


def leaf_names(names: Sequence[str], key: Key) -> list[str]:
    """A unique name for every leaf: `x`, `pair_0`, `options_rate`."""
    found: list[str] = []
    for name, part in zip(names, key):
        _name_leaves(name, part, found)
    taken: set[str] = set()
    unique = []
    for name in found:
        while name in taken:
            name += "_"
        taken.add(name)
        unique.append(name)
    return unique


def _name_leaves(name: str, part: Key, found: list[str]) -> None:
    if part[0] in ("array", "scalar", "number"):
        found.append(name)
    for label, child in children(part):
        _name_leaves(f"{name}_{label}", child, found)


def children(part: Key) -> Iterator[tuple[str, Key]]:
    """The parts of a container, each with its label."""
    match part:
        case ("tuple" | "list", parts):
            yield from ((str(i), child) for i, child in enumerate(parts))
        case ("dict", keys, parts):
            yield from ((str(k), child) for k, child in zip(keys, parts))
        case ("record", _, names, parts):
            yield from zip(names, parts)


def rebuild(part: Key, leaves: Iterator[Any], containers: list[Any]) -> Any:
    """The argument that a key describes, with `leaves` in the place of its leaves. New lists and dicts are appended to
    `containers`: they stand for the caller's, and must not be changed."""
    match part:
        case ("array" | "scalar" | "number", *_):
            return next(leaves)
        case ("static", _, value):
            return value
        case ("float", text):
            return float.fromhex(text)
        case ("complex", re, im):
            return complex(float.fromhex(re), float.fromhex(im))
        case ("constant", dtype, data):
            return np.frombuffer(data, dtype)[0]
        case ("slice", start, stop, step):
            return slice(start, stop, step)
        case ("tuple", parts):
            return tuple([rebuild(child, leaves, containers) for child in parts])
        case ("list", parts):
            containers.append([rebuild(child, leaves, containers) for child in parts])
            return containers[-1]
        case ("dict", keys, parts):
            containers.append({k: rebuild(child, leaves, containers) for k, child in zip(keys, parts)})
            return containers[-1]
        case ("record", kind, names, parts):
            record = make_record(kind, names, [rebuild(child, leaves, containers) for child in parts])
            containers.append(record)
            return record
    raise AssertionError(f"not part of a key: {part!r}")


def make_record(kind: type, names: Sequence[str], values: Sequence[Any]) -> Any:
    """An instance of a dataclass or named tuple; a dataclass is filled in without running its `__init__`."""
    if issubclass(kind, tuple):
        return kind._make(values)  # type: ignore[attr-defined]
    record = object.__new__(kind)
    for name, value in zip(names, values):
        object.__setattr__(record, name, value)
    return record
