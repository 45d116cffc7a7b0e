"""Kernels with loops: a function as a procedure of statements, compiled once for all shapes and numbers.

What holds here: the key of a procedure has dtypes, ranks and layout, never extents, values or trip counts. A call whose
guard fails (an index out of range, a division by zero, shapes that do not agree) leaves no trace: what was written is
restored and NumPy does the call, with its own exceptions. Arrays that are written and may overlap others are left to
NumPy.
"""

from __future__ import annotations

import ast
import ctypes
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from tracedsl.cache import Key, Store
from tracedsl.capture.source import read_source
from tracedsl.capture.tensor.arguments import Bound, key_text
from tracedsl.diagnostics import TracedslError, Unsupported
from tracedsl.ir.dtypes import BYTES

if TYPE_CHECKING:
    from tracedsl.capture.tensor.procedure.statements import CapturedProcedure

Array = np.ndarray[Any, Any]
NO_GRAPH = frozenset({"C003", "C005", "C006", "C011", "C012", "C017", "C018"})      # refusals that statements may lift
_OBJECT = "object"
_SMALL_INT = 1 << 40      # larger ints among the arguments are left to Python
_UNROLLED = 1000          # operations of a graph in which loops were unrolled; larger ones take too long to compile
_SHORT_LOOP = 8           # rounds that are unrolled if they stand in the text
_GIVE_UP = 16             # calls that were left to NumPy, with none served, after which no more are tried
_ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.POINTER(ctypes.c_int64))


_CODES = {"bool": "?", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I",
          "int64": "q", "uint64": "Q", "float32": "f", "float64": "d"}
_NOTHING = _ALLOCATE()      # what allocates where nothing is allocated


class LeftToNumpy(Exception):
    """A guard failed: the call is to be done by NumPy."""


class Procedures:
    """The procedures of one function, found by the types of a call."""

    def __init__(self, function: FunctionType, names: Sequence[str], store: Store, *, strict: bool) -> None:
        self.function, self.names, self._store, self._strict = function, names, store, strict
        self.variants: dict[Any, ProcedureVariant | Unsupported] = {}
        self.shown: Bound | None = None      # the types of the latest procedure, without its arrays
        self._looping: bool | None = None
        self._lock = threading.Lock()

    def find(self, bound: Bound, surroundings: Any, compiler: Callable[[], Mapping[str, str]], *,
             anyway: bool = False) -> ProcedureVariant | None:
        """The procedure for such a call; None where there is none that compiles, or where the function has no loops,
        so that it is better compiled as a graph (unless `anyway`). `compiler` gives the parts of a key on disk beside
        the arguments."""
        if self._looping is None:
            with self._lock:
                self._looping = has_loops(self.function)
        key = procedure_key(bound) if self._looping or anyway else None
        if key is None:
            return None
        found = self.variants.get((key, surroundings))
        if found is None:
            with self._lock:
                found = self.variants.get((key, surroundings))
                if found is None:
                    found = self.variants[key, surroundings] = self._made(key, compiler())
                    if isinstance(found, ProcedureVariant):
                        self.shown = replace(bound, leaves=())
        return found if isinstance(found, ProcedureVariant) else None

    def refusal(self, bound: Bound, surroundings: Any) -> Unsupported | None:
        """Why a function with loops has no procedure for such a call."""
        found = self.variants.get((procedure_key(bound), surroundings)) if self._looping else None
        return found if isinstance(found, Unsupported) else None

    def _made(self, key: tuple[Any, ...], parts: Mapping[str, str]) -> ProcedureVariant | Unsupported:
        subject = f"{self.function.__module__}:{self.function.__qualname__}"
        where = Key("procedure", subject, {**parts, "arguments": key_text(key)})
        try:
            return build_procedure(self.function, self.names, key, where, self._store)
        except Unsupported as error:
            return error
        except Exception as error:
            if self._strict:
                raise
            what = f"the compiler failed on {self.function.__name__!r}: {type(error).__name__}: {error}"
            return Unsupported("K003", what, why="this is a fault of tracedsl, not of the function",
                               hint="please report it")

    def left(self, variant: ProcedureVariant) -> Unsupported:
        """A guard failed: why the call ran in NumPy. A procedure that serves no calls is given up."""
        variant.left += 1
        why = Unsupported("K004", f"a call of {self.function.__name__!r} was left to NumPy",
                          why="an index is out of range, a divisor zero, shapes do not agree as they usually do, a "
                              "whole number is too large, or a written array is read-only or overlaps another one",
                          hint="nothing if NumPy raises an error or the call is rare")
        if variant.left >= _GIVE_UP and not variant.served:
            for key, found in self.variants.items():
                if found is variant:
                    self.variants[key] = why
        return why


def has_loops(function: FunctionType) -> bool:
    """Whether the function has a loop that is not short and known, or writes through an index under a branch."""
    try:
        tree = read_source(function).tree
    except Unsupported:
        return False
    return any(isinstance(n, ast.While) or (isinstance(n, ast.For) and not _short(n)) for n in ast.walk(tree))


def check_unrolled(function: FunctionType, count: int) -> None:
    """Raise `Unsupported` C012 if a graph has so many operations because loops were unrolled."""
    if count > _UNROLLED and has_loops(function):
        raise Unsupported("C012", f"the function has {count:,} operations when its loops are unrolled",
                          why=f"loops that are not compiled as statements are unrolled up to {_UNROLLED} operations",
                          hint="see explain() for what kept the loops from being compiled as they are")


def _short(node: ast.For) -> bool:
    """A loop over something else than a range, or over a few rounds that stand in the text: it is unrolled."""
    call = node.iter
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"):
        return True
    known = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, int)]
    return len(known) == len(call.args) and len(range(*known)) <= _SHORT_LOOP


def procedure_key(bound: Bound) -> tuple[Any, ...] | None:
    """The key without numbers and extents other than 1 (which decide how arrays are spread); None if the arguments
    are no plain arrays and numbers."""
    parts: list[Any] = []
    for part in bound.key:
        match part:
            case ("array", dtype, shape, strides):
                parts.append(("array", dtype, len(shape), strides is None or not strides or strides[-1] == 1,
                              tuple([axis for axis, extent in enumerate(shape) if extent == 1])))
            case ("static", kind, value) if kind is int and abs(value) < _SMALL_INT:
                parts.append(("number", "int"))
            case ("scalar" | "number" | "static", *_):
                parts.append(part)
            case _:
                return None
    return tuple(parts)


@dataclass(frozen=True)
class _Interface:
    """How a call becomes slots and back: `params` are (leaf or parameter, kind, dtype), `forms` what is returned."""

    params: tuple[tuple[int, str, str, int], ...]      # parameter, "array" or "scalar", dtype, rank
    written: tuple[int, ...]
    forms: tuple[Any, ...]
    arrays: tuple[tuple[tuple[str, int], ...], ...]     # of each form: dtype and rank of its arrays
    scalars: tuple[int, ...]                            # of each form: how many
    sites: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"params": [list(p) for p in self.params], "written": list(self.written), "forms": list(self.forms),
                "arrays": [[list(a) for a in form] for form in self.arrays], "scalars": list(self.scalars),
                "sites": list(self.sites)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> _Interface:
        """Raises KeyError, TypeError or ValueError if `data` is no interface."""
        return _Interface(tuple((int(p), str(k), str(d), int(r)) for p, k, d, r in data["params"]),
                          tuple(map(int, data["written"])), tuple(data["forms"]),
                          tuple(tuple((str(d), int(r)) for d, r in form) for form in data["arrays"]),
                          tuple(map(int, data["scalars"])), tuple(map(str, data["sites"])))


class ProcedureVariant:
    """A compiled procedure. `text` is the listing of its statements."""

    def __init__(self, interface: _Interface, image: bytes, text: str, seconds: Mapping[str, float],
                 cached: bool) -> None:
        from tracedsl.hw.cpu import jit

        self.left = self.served = 0      # calls that NumPy had to do, calls done here
        self.interface, self.text, self.seconds, self.cached = interface, text, dict(seconds), cached
        self._loaded = jit.load(image, ["run"])
        self._call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, _ALLOCATE)(self._loaded["run"])
        self._packed = struct.Struct("=" + "".join(
            "q" * (1 + 2 * rank) if kind == "array" else f"{_CODES[dtype]}{8 - BYTES[dtype]}x"
            for _, kind, dtype, rank in interface.params))
        slots = 1 + max((n + sum(1 + 2 * rank for _, rank in arrays)
                               for n, arrays in zip(interface.scalars, interface.arrays)), default=0)
        self._results = ctypes.c_int64 * slots

    def __call__(self, bound: Bound) -> Any:
        """One call. Raises `LeftToNumpy` with nothing changed."""
        values = _values(bound)
        if bound.copies:
            raise LeftToNumpy
        self._separate(values)
        given: list[Any] = []
        for parameter, kind, dtype, _ in self.interface.params:
            value = values[parameter]
            if kind == "array":
                size = BYTES[dtype]
                given += (value.__array_interface__["data"][0], *value.shape, *[s // size for s in value.strides])
            else:
                given.append(value)
        try:
            args = self._packed.pack(*given)
        except (struct.error, OverflowError):      # a number that does not fit
            raise LeftToNumpy from None
        before = [(values[p], values[p].copy()) for p in self.interface.written]
        made: dict[int, Array] = {}
        results = self._results()
        allocate = _ALLOCATE(self._allocator(made)) if self.interface.sites else _NOTHING
        if self._call(args, results, allocate):
            for array, old in before:
                array[...] = old
            raise LeftToNumpy
        self.served += 1
        return self._result(bytes(results), values, made)

    def _separate(self, values: Sequence[Any]) -> None:
        """What is written must be writable, and no other argument may lie in its memory."""
        arrays = [p for p, kind, _, _ in self.interface.params if kind == "array"]
        for p in self.interface.written:
            if not values[p].flags.writeable or _meets_itself(values[p]) or any(
                    q != p and np.may_share_memory(values[p], values[q]) for q in arrays):
                raise LeftToNumpy

    def _allocator(self, made: dict[int, Array]) -> Any:
        def allocate(site: int, rank: int, extents: Any) -> int:
            try:
                make = np.zeros if site & 1 else np.empty
                array: Array = make(tuple(extents[i] for i in range(rank)), self.interface.sites[site >> 1])
            except (MemoryError, ValueError):
                return 0
            made[address := int(array.ctypes.data)] = array
            return address

        return allocate

    def _result(self, slots: bytes, values: Sequence[Any], made: Mapping[int, Array]) -> Any:
        form = struct.unpack_from("=q", slots)[0]
        count = self.interface.scalars[form]
        arrays: list[Array] = []
        at = 8 * (1 + count)
        for dtype, rank in self.interface.arrays[form]:
            address, *sizes = struct.unpack_from(f"={1 + 2 * rank}q", slots, at)
            at += 8 * (1 + 2 * rank)
            strides = tuple(s * BYTES[dtype] for s in sizes[rank:])
            arrays.append(self._array(address, tuple(sizes[:rank]), strides, dtype, values, made))
        return _put_together(self.interface.forms[form], slots, arrays)

    def _array(self, address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str, values: Sequence[Any],
               made: Mapping[int, Array]) -> Array:
        """The array itself, or a view of the one whose memory this is."""
        given: list[Array] = [values[p] for p, kind, _, _ in self.interface.params if kind == "array"]
        for array in (*given, *made.values()):
            if array.dtype == dtype and array.ctypes.data == address and array.shape == shape and \
                    all(n <= 1 or a == b for n, a, b in zip(shape, array.strides, strides)):
                return array
        for array in (*given, *made.values()):
            low, high = np.lib.array_utils.byte_bounds(array)
            if low <= address < high or (0 in shape and address == low):
                owner = array if array.flags.c_contiguous else _memory_of(array, low, high)
                return np.ndarray(shape, dtype, owner, address - low, strides)
        if 0 in shape:
            return np.empty(shape, dtype)      # the end of an array lies outside of it
        raise AssertionError("a result that lies nowhere")


def _meets_itself(array: Array) -> bool:
    """Whether two elements may lie in the same place."""
    if array.flags.c_contiguous:
        return False
    reach = array.itemsize
    for stride, extent in sorted((abs(s), n) for s, n in zip(array.strides, array.shape) if n > 1):
        if stride < reach:
            return True
        reach = stride * extent
    return False


class _Holder:
    """Memory as an array, with what keeps it alive."""

    owner: Array
    __array_interface__: dict[str, Any]


def _memory_of(array: Array, low: int, high: int) -> Array:
    """All bytes between an array's first and last element, as one array that keeps it alive."""
    holder = _Holder()
    holder.owner = array
    holder.__array_interface__ = {"data": (low, not array.flags.writeable), "shape": (high - low,), "typestr": "|u1",
                                  "version": 3}
    return np.asarray(holder)


def _values(bound: Bound) -> list[Any]:
    """One value a parameter."""
    leaves = iter(bound.leaves)
    return [part[2] if part[0] == "static" else next(leaves) for part in bound.key]


def _put_together(form: Any, slots: bytes, arrays: Sequence[Array]) -> Any:
    match form:
        case ["scalar", index, dtype, weak, tag]:
            value = np.frombuffer(slots, dtype, 1, 8 * (1 + index))[0]
            if tag is not None:
                was = struct.unpack_from("=q", slots, 8 * (1 + tag))[0]
                return int(value) if was == 0 else float(value) if was == 1 else value
            return value.item() if weak else value
        case ["array", index]:
            return arrays[index]
        case ["none"]:
            return None
        case [kind, *parts]:
            made = [_put_together(part, slots, arrays) for part in parts]
            return tuple(made) if kind == "tuple" else made
    raise AssertionError(f"not a form of a result: {form!r}")


def interface_of(captured: CapturedProcedure, names: Sequence[str]) -> _Interface:
    from tracedsl.hw.cpu.procedure import sites
    from tracedsl.ir.statements import Return, walk

    p = captured.procedure
    params = tuple((names.index(n), "array", p.arrays[n].dtype, p.arrays[n].rank) if n in p.arrays else
                   (names.index(n), "scalar", p.scalars[n], 0) for n in p.params)
    returns = {s.form: s for s in walk(p.body) if isinstance(s, Return)}
    ordered = [returns[i] for i in range(len(captured.forms)) if i in returns]
    if len(ordered) != len(captured.forms):
        raise Unsupported("C003", "a result is returned where it cannot be reached")
    return _Interface(params, tuple(names.index(n) for n in p.written), captured.forms,
                      tuple(tuple((p.arrays[a].dtype, p.arrays[a].rank) for a in s.arrays) for s in ordered),
                      tuple(len(s.scalars) for s in ordered), tuple(sites(p)))


def build_procedure(function: FunctionType, names: Sequence[str], key: tuple[Any, ...], where: Key,
                    store: Store) -> ProcedureVariant:
    """The procedure of a function for such arguments: from the store, or made and kept there. Raises `Unsupported`."""
    if (entry := store.get(where)) is not None:
        try:
            return ProcedureVariant(_Interface.from_json(entry.meta["interface"]), entry.blobs[_OBJECT],
                                    str(entry.meta["text"]), entry.meta["seconds"], True)
        except (KeyError, TypeError, ValueError, TracedslError):
            pass      # a damaged entry is a miss
    from tracedsl.capture.tensor.procedure.statements import capture_procedure
    from tracedsl.hw.cpu import jit
    from tracedsl.hw.cpu.machine import host
    from tracedsl.hw.cpu.procedure import emit_procedure

    start = time.perf_counter()
    captured = capture_procedure(function, names, key)
    interface = interface_of(captured, names)
    middle = time.perf_counter()
    image = jit.compile_object(emit_procedure(captured.procedure), host(), passes=2)
    seconds = {"capture": middle - start, "compile": time.perf_counter() - middle}
    text = str(captured.procedure)
    store.put(where, {_OBJECT: image}, {"interface": interface.to_json(), "text": text, "seconds": seconds})
    return ProcedureVariant(interface, image, text, seconds, False)

