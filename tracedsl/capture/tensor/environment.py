"""What a function depends on besides its arguments: outer names, closure cells, helper functions, module constants.

What holds here: dependencies are found by a static scan of code objects, through helper functions as deep as they go.
Numbers and texts are part of the key by value, functions by the digest of their source, library functions by name.
Outer arrays are hidden inputs: their type is in the key, their values are read at each call. `Environment.snapshot`
is cheap while nothing changed.
"""

from __future__ import annotations

import dataclasses
import dis
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from tracedsl.cache import digest
from tracedsl.capture.source import read_source
from tracedsl.capture.tensor.arguments import Key, array_key, key_text
from tracedsl.diagnostics import Span, Unsupported

# what these define is known by its name, and never captured through
LIBRARIES = frozenset({"numpy", "scipy", "math", "cmath", "operator", "itertools", "functools", "builtins", "typing",
                       "dataclasses", "enum", "collections", "tracedsl", "numbers", "warnings"})
_IMPURE = ("numpy.random", "scipy.io", "numpy.ctypeslib", "numpy.testing")
_MISSING = object()


def library_of(module: str | None) -> bool:
    """Whether a module is trusted to be pure and known by its name."""
    return module is not None and module.split(".")[0].removeprefix("_") in LIBRARIES and not module.startswith(_IMPURE)


@dataclass(frozen=True, eq=False, slots=True)
class Slot:
    """One dependency: a name in `holder` (a module's dict, or a closure cell). `leaves` are its arrays."""

    path: str
    holder: dict[str, Any] | CellType
    name: str
    value: Any
    key: Key
    leaves: tuple[np.ndarray[Any, Any], ...] = ()
    volatile: bool = False      # the same object may change

    def current(self) -> Any:
        if isinstance(self.holder, dict):
            return self.holder.get(self.name, _MISSING)
        try:
            return self.holder.cell_contents
        except ValueError:
            return _MISSING

    def unchanged(self) -> bool:
        value = self.current()
        if value is not self.value:
            return False
        if not self.volatile:
            return True
        leaves: list[Any] = []
        return freeze(value, leaves) == self.key and all(a is b for a, b in zip(leaves, self.leaves))


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The dependencies at one moment. `leaves`: all outer arrays, in a fixed order for a given key."""

    function: FunctionType
    slots: dict[tuple[int, str], Slot]
    key: Key
    leaves: tuple[np.ndarray[Any, Any], ...]
    functions: dict[int, FunctionType] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """64 hex digits for keys on disk: the function's own source and everything in `key`."""
        return digest(read_source(self.function).digest, key_text(self.key))

    def slots_in_order(self) -> list[Slot]:
        """The dependencies in the order of `key` and `leaves`."""
        return sorted(self.slots.values(), key=lambda slot: slot.path)

    def copies(self) -> tuple[int, ...]:
        """Positions of outer arrays that compiled code has to be given as contiguous copies."""
        return tuple(i for i, leaf in enumerate(self.leaves) if array_key(leaf)[1])


class Environment:
    """The dependencies of one function."""

    def __init__(self, function: FunctionType) -> None:
        self.function = function
        self._snapshot: Snapshot | None = None
        self._refused: tuple[tuple[Slot, ...], Unsupported] | None = None   # what was scanned, and why it was refused

    def snapshot(self) -> Snapshot:
        """The dependencies now. Raises `Unsupported` C010 for a name whose value cannot be taken, C001 or C002 for a
        helper without source."""
        current = self._snapshot
        if current is not None and all(slot.unchanged() for slot in current.slots.values()):
            return current
        if self._refused is not None and all(slot.unchanged() for slot in self._refused[0]):
            raise self._refused[1]
        scan = _Scan(self.function)
        try:
            current = self._snapshot = scan.snapshot()
        except Unsupported as error:
            self._refused = (tuple(scan.slots.values()), error)
            raise
        return current

    def key(self) -> Key:
        return self.snapshot().key


def freeze(value: Any, leaves: list[Any]) -> Key:
    """The key of an outer value; arrays go to `leaves`. In the terms of `arguments`, with numbers by value."""
    match value:
        case np.ndarray() if type(value) is np.ndarray:
            leaves.append(value)
            return array_key(value)[0]
        case bool() | int() | str() | bytes() | None | range() | np.dtype() | Enum():
            return ("static", type(value), value)
        case float() if type(value) is float:
            return ("float", value.hex())
        case complex() if type(value) is complex:
            return ("complex", value.real.hex(), value.imag.hex())
        case np.generic():
            return ("constant", value.dtype.str, value.tobytes())
        case slice():
            return ("slice", value.start, value.stop, value.step)
        case tuple() | list() if type(value) in (tuple, list):
            return (type(value).__name__, tuple(freeze(v, leaves) for v in value))
        case dict() if type(value) is dict:
            return ("dict", tuple(value), tuple(freeze(v, leaves) for v in value.values()))
    if value is Ellipsis or isinstance(value, type):
        return ("static", type(value), value)
    kind = type(value)
    if dataclasses.is_dataclass(value):
        names = tuple(f.name for f in dataclasses.fields(value))
        return ("record", kind, names, tuple(freeze(getattr(value, n), leaves) for n in names))
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return ("record", kind, kind._fields, tuple(freeze(v, leaves) for v in value))
    raise Unsupported("C010", f"an object of type {kind.__module__}.{kind.__qualname__}")


def plain_function(value: Any) -> FunctionType | None:
    """The Python function to capture through: the value itself, or what a kernel of this package wraps."""
    if isinstance(value, FunctionType):
        return value
    wrapped = getattr(value, "__wrapped__", None)
    if isinstance(wrapped, FunctionType) and (type(value).__module__ or "").startswith("tracedsl."):
        return wrapped
    return None


def outer_names(code: CodeType) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """What a code object, and the code nested in it, reads from outside: ("global" or "cell", name, attributes after
    it). `cfg.grid.dx` gives ("global", "cfg", ("grid", "dx"))."""
    instructions = [i for i in dis.get_instructions(code) if i.opname not in ("CACHE", "PUSH_NULL", "NOP")]
    for position, instruction in enumerate(instructions):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            where = "global"
        elif instruction.opname in ("LOAD_DEREF", "LOAD_CLASSDEREF") and instruction.argval in code.co_freevars:
            where = "cell"
        else:
            continue
        attributes = []
        for following in instructions[position + 1:]:
            if following.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                break
            attributes.append(str(following.argval))
        yield where, str(instruction.argval), tuple(attributes)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from outer_names(constant)


class _Scan:
    """One walk over a function and its helpers."""

    def __init__(self, function: FunctionType) -> None:
        self.function = function
        self.slots: dict[tuple[int, str], Slot] = {}
        self.functions: dict[int, FunctionType] = {}

    def snapshot(self) -> Snapshot:
        self._function(self.function)
        found = Snapshot(self.function, self.slots, (), (), self.functions)
        slots = found.slots_in_order()
        return dataclasses.replace(found, key=tuple((slot.path, slot.key) for slot in slots),
                                   leaves=tuple(leaf for slot in slots for leaf in slot.leaves))

    def _function(self, function: FunctionType) -> None:
        if id(function) in self.functions:
            return
        self.functions[id(function)] = function
        code = function.__code__
        cells = dict(zip(code.co_freevars, function.__closure__ or ()))
        place = Span(code.co_filename, code.co_firstlineno)
        for where, name, attributes in outer_names(code):
            if where == "cell":
                if name in cells:   # cells of a nested function that belong to this one are its locals
                    path = f"{function.__module__}.{function.__qualname__}.{name}"
                    self._slot(path, cells[name], name, attributes, place)
            elif name in function.__globals__:
                self._slot(f"{function.__module__}.{name}", function.__globals__, name, attributes, place)

    def _slot(self, path: str, holder: dict[str, Any] | CellType, name: str, attributes: tuple[str, ...],
              place: Span) -> None:
        known = self.slots.get((id(holder), name))
        if known is None:
            known = Slot(path, holder, name, None, ())
            self.slots[id(holder), name] = dataclasses.replace(known, value=known.current())
            known = self.slots[id(holder), name] = self._take(known, place)
            helper = plain_function(known.value)
            if helper is not None and known.key[0] == "function":
                self._function(helper)
        if isinstance(known.value, ModuleType) and known.key[0] == "module" and attributes:
            module, first = known.value, attributes[0]
            if first in vars(module):
                before = dict(self.slots), dict(self.functions)
                try:
                    self._slot(f"{module.__name__}.{first}", vars(module), first, attributes[1:], place)
                except Unsupported:      # refused where the function is called, if it is
                    self.slots, self.functions = before

    def _take(self, slot: Slot, place: Span) -> Slot:
        value = slot.current()
        leaves: list[Any] = []
        try:
            key = ("missing",) if value is _MISSING else self._key(value, leaves)
        except Unsupported as error:
            found = error.diagnostic
            if found.code != "C010":
                raise
            raise Unsupported("C010", f"the outer name {slot.name!r} is {found.what}", span=place,
                              why=found.why or "capture cannot tell when it changes, nor what its methods do",
                              hint="pass what is needed of it as an argument") from None
        volatile = bool(leaves) or isinstance(value, list | dict | tuple) or dataclasses.is_dataclass(value)
        return dataclasses.replace(slot, value=value, key=key, leaves=tuple(leaves), volatile=volatile)

    def _key(self, value: Any, leaves: list[Any]) -> Key:
        if isinstance(value, ModuleType):
            return ("library" if library_of(value.__name__) else "module", value.__name__)
        helper = plain_function(value)
        if helper is not None and not library_of(helper.__module__):
            defaults: list[Any] = []
            key = ("function", helper.__qualname__, read_source(helper).digest,
                   freeze(helper.__defaults__, defaults), freeze(helper.__kwdefaults__, defaults))
            if defaults:
                raise Unsupported("C010", "a function with an array as a default argument")
            return key
        if isinstance(value, np.ufunc):
            return ("library", value.__name__)
        if isinstance(value, FunctionType | BuiltinFunctionType) or (type(value).__module__.startswith("numpy") and \
                callable(value) and not isinstance(value, type)):
            return self._library(value)
        return freeze(value, leaves)

    def _library(self, value: Any) -> Key:
        module = getattr(value, "__module__", None)
        if module is None and isinstance(getattr(value, "__self__", None), ModuleType):
            module = value.__self__.__name__
        if not library_of(module):
            name = getattr(value, "__qualname__", value)
            raise Unsupported("C010", f"the function {name!r} of {module or 'an object'}",
                              why="it may have effects, or give other results at the next call")
        return ("library", str(module), str(getattr(value, "__qualname__", getattr(value, "__name__", ""))))
