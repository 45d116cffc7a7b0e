"""Runs a function on symbolic arrays: copies of functions with outer names replaced, and the hooks that they call.

What holds here: a copy shares nothing with the original but its meaning; outer arrays are symbolic, helpers are
copies. A NumPy function is recognised by identity wherever it comes from. Code that is neither the user's Python nor
a known library is not called.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator
from enum import Enum
from functools import partial
from types import BuiltinMethodType, CellType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

import numpy as np

from tracedsl.capture.source import compile_function, read_source
from tracedsl.capture.tensor.arguments import rebuild
from tracedsl.capture.tensor.arrays import SymbolicArray, contains_symbolic, symbolic
from tracedsl.capture.tensor.environment import Slot, Snapshot, library_of, outer_names, plain_function
from tracedsl.capture.tensor.functions import always_symbolic
from tracedsl.capture.tensor.numbers import PythonNumber
from tracedsl.capture.tensor.positions import HOOK, Positions
from tracedsl.capture.tensor.recorder import Recorder
from tracedsl.diagnostics import Span

_CHANGING = frozenset({"append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse", "update",
                       "setdefault",
                       "popitem", "add", "discard", "__setitem__", "__delitem__", "__iadd__"})
_PLAIN = {"iand": "and_", "ior": "or_"}
_PURE_TYPES = (str, bytes, int, float, complex, bool, tuple, list, dict, set, frozenset, range, slice, enumerate, zip,
               reversed, map, filter, np.dtype, SymbolicArray, PythonNumber, type, Enum)
_IMPURE_NUMPY = frozenset({"copyto", "put", "place", "putmask", "fill_diagonal", "put_along_axis", "save", "savez",
                           "load",
                           "savez_compressed", "savetxt", "loadtxt", "fromfile", "genfromtxt", "memmap", "seterr",
                           "seterrcall", "setbufsize", "set_printoptions", "errstate", "printoptions", "frompyfunc",
                           "vectorize", "apply_along_axis", "apply_over_axes", "piecewise", "fromfunction", "nditer"})


class Tracer:
    """One capture: copies of the functions, and what stands for their outer names."""

    def __init__(self, recorder: Recorder, snapshot: Snapshot, leaves: list[SymbolicArray]) -> None:
        self.recorder, self.snapshot = recorder, snapshot
        self.foreign: list[Any] = []      # containers that belong to the caller
        self._copies: dict[int, FunctionType] = {}
        self._own: set[int] = set()       # ids of the globals of copies: functions defined inside them are copies too
        self._always = always_symbolic()
        self._names: dict[tuple[int, str], Any] = {}
        self._leaves = {id(leaf): stand_in for leaf, stand_in in zip(snapshot.leaves, leaves)}

    # -- copies ---------------------------------------------------------------------------------------------------

    def copy(self, function: FunctionType) -> FunctionType:
        """The function, ready to be run on symbolic arrays."""
        known = self._copies.get(id(function))
        if known is not None:
            return known
        if id(function) not in self.snapshot.functions:
            self.recorder.refuse("C004", f"a call of {function.__qualname__!r}, which is no outer name of the function",
                                 why="what it depends on is not known", hint="call it by its name")
        source = read_source(function)
        rewriting = Positions(source, [name for where, name, _ in outer_names(function.__code__)
                                       if where == "cell" or name in function.__globals__])
        code = compile_function(rewriting.rewrite(), function.__code__)
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or ()))
        fresh = {name: CellType() for name in code.co_freevars}
        names: dict[str, Any] = {"__builtins__": __builtins__, "__name__": function.__module__}
        copied = FunctionType(code, names, function.__name__, function.__defaults__,
                              tuple(fresh[name] for name in code.co_freevars))
        copied.__kwdefaults__ = function.__kwdefaults__
        self._copies[id(function)] = copied
        self._own.add(id(names))
        names[HOOK] = Hooks(self, rewriting.spans)
        for where, name, _ in outer_names(function.__code__):
            if where == "cell" and name in fresh:
                if self._has(cells[name], name):
                    fresh[name].cell_contents = self._outer(self.snapshot.slots[id(cells[name]), name])
            elif self._has(function.__globals__, name):
                names[name] = self._outer(self.snapshot.slots[id(function.__globals__), name])
        return copied

    def _has(self, holder: Any, name: str) -> bool:
        slot = self.snapshot.slots.get((id(holder), name))
        return slot is not None and slot.key[0] != "missing"

    def _outer(self, slot: Slot) -> Any:
        """What stands for the value of an outer name; the same object each time."""
        place = (id(slot.holder), slot.name)
        if place not in self._names:
            if slot.key[0] in ("library", "module"):
                self._names[place] = slot.value
            elif slot.key[0] == "function":
                helper = plain_function(slot.value)
                assert helper is not None
                self._names[place] = self.copy(helper)
            else:
                found: list[Any] = []
                leaves: Iterator[Any] = iter([self._leaves[id(leaf)] for leaf in slot.leaves])
                self._names[place] = rebuild(slot.key, leaves, found)
                self.foreign += found
        return self._names[place]

    # -- what the rewritten code asks -----------------------------------------------------------------------------

    def attribute(self, value: Any, name: str) -> Any:
        if not isinstance(value, ModuleType):
            return getattr(value, name)
        slot = self.snapshot.slots.get((id(vars(value)), name))
        if slot is not None:
            return self._outer(slot)
        found = getattr(value, name)
        inside = found.__name__ if isinstance(found, ModuleType) else value.__name__
        if not library_of(inside):
            self.recorder.refuse("C004", f"{inside}.{'' if isinstance(found, ModuleType) else name} cannot be captured",
                                 why="it may have effects, or give other results at the next call",
                                 hint="call it outside, and pass the result as an argument")
        return found

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call what the user's code calls."""
        if id(function) in self.recorder.table and (id(function) in self._always or contains_symbolic(args)
                                                    or contains_symbolic(kwargs)):
            return self.recorder.table[id(function)](self.recorder, *args, **kwargs)
        if isinstance(function, FunctionType) and (id(function.__globals__) in self._own):
            return function(*args, **kwargs)
        helper = plain_function(function)
        if helper is not None and not library_of(helper.__module__):
            return self.copy(helper)(*args, **kwargs)
        if isinstance(function, type):
            return self._construct(function, args, kwargs)
        owner = getattr(function, "__self__", None)
        if isinstance(function, partial | MethodType | MethodWrapperType) or (
                isinstance(function, BuiltinMethodType) and owner is not None and not isinstance(owner, ModuleType)):
            return self._method(function, owner, args, kwargs)
        return self._library(function, args, kwargs)

    def _construct(self, kind: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kind is type and len(args) == 1:
            return args[0].__class__
        if kind is float and len(args) == 1 and type(args[0]) is PythonNumber:
            return args[0] if args[0].expr.kind == "float" else float(args[0])
        if issubclass(kind, np.generic) and contains_symbolic(args):
            x = symbolic(self.recorder, args[0])
            return SymbolicArray(self.recorder, self.recorder.cast(x.node, np.dtype(kind)), is_scalar=x.shape == ())
        if kind.__module__ in ("builtins", "numpy", "collections", "enum") or dataclasses.is_dataclass(kind) \
                or issubclass(kind, tuple | Enum | BaseException) or library_of(kind.__module__):
            return kind(*args, **kwargs)
        return self.recorder.refuse("C004", f"an object of class {kind.__qualname__!r} is made",
                                    why="capture cannot tell what its methods do",
                                    hint="use a tuple, a dict or a dataclass")

    def _method(self, method: Any, owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = getattr(method, "__name__", "")
        if isinstance(method, partial):
            return method(*args, **kwargs)
        if isinstance(owner, list | dict | set) and name in _CHANGING:
            self.check_own(owner)
        if isinstance(owner, np.ndarray) and contains_symbolic((args, kwargs)):
            return getattr(symbolic(self.recorder, owner), name)(*args, **kwargs)
        if type(owner) in _PURE_TYPES or isinstance(owner, type | tuple | Enum | np.ndarray | np.generic | np.ufunc) \
                or library_of(type(owner).__module__):
            return method(*args, **kwargs)
        kind = type(owner).__qualname__
        return self.recorder.refuse("C004", f"the method {name!r} of an object of type {kind!r} is called",
                                    why="capture cannot tell what it does", hint="call a plain function instead")

    def _library(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = getattr(function, "__module__", None) or getattr(getattr(function, "__self__", None), "__name__", None)
        if isinstance(function, np.ufunc):
            module = module or "numpy"
        if not library_of(module):
            name = getattr(function, "__qualname__", type(function).__qualname__)
            self.recorder.refuse("C004", f"a call of {name!r}, which capture does not know",
                                 why="it may have effects, or give other results at the next call",
                                 hint="call it outside, and pass the result as an argument")
        name = getattr(function, "__name__", "")
        if str(module).startswith("numpy") and (name in _IMPURE_NUMPY or (id(function) not in self.recorder.table and
                                                contains_symbolic((args, kwargs)))):
            path = str(module).removesuffix("._core").replace("numpy", "np")
            self.recorder.refuse("C007", f"{path}.{name} has no symbolic form", why="it cannot be compiled yet",
                                 hint="leave this part to NumPy, or write it with other NumPy functions")
        return function(*args, **kwargs)

    def check_own(self, container: Any) -> None:
        """Refuse to change a container that belongs to the caller."""
        if any(container is foreign for foreign in self.foreign):
            self.recorder.refuse("C011", "a container of the caller is changed", why="the caller would see it",
                                 hint="return the new values instead")


class Hooks:
    """What one copied function calls; positions are numbers into its own spans."""

    def __init__(self, tracer: Tracer, spans: list[Span]) -> None:
        self._tracer, self._recorder, self._spans = tracer, tracer.recorder, spans

    def binary(self, position: int, name: str, left: Any, right: Any) -> Any:
        with self._recorder.at(self._spans[position]):
            if name.startswith("i") and isinstance(left, list | dict | set):
                self._tracer.check_own(left)
            if name[0] == "i" and isinstance(left, np.ndarray) and not contains_symbolic(left) \
                    and contains_symbolic(right):
                left = symbolic(self._recorder, left)
            return getattr(operator, name)(left, right)

    def unary(self, position: int, name: str, value: Any) -> Any:
        with self._recorder.at(self._spans[position]):
            return getattr(operator, name)(value)

    def call(self, position: int, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        with self._recorder.at(self._spans[position]):
            return self._tracer.call(function, args, kwargs)

    def attribute(self, position: int, value: Any, name: str) -> Any:
        with self._recorder.at(self._spans[position]):
            return self._tracer.attribute(value, name)

    def item(self, position: int, value: Any, index: Any) -> Any:
        with self._recorder.at(self._spans[position]):
            if type(value) is np.ndarray and contains_symbolic(index):
                value = symbolic(self._recorder, value)
            return value[index]

    def slice(self, start: Any, stop: Any, step: Any) -> slice:
        return slice(start, stop, step)

    def set_item(self, position: int, value: Any, container: Any, index: Any) -> None:
        with self._recorder.at(self._spans[position]):
            self._tracer.check_own(container)
            if type(container) is np.ndarray and contains_symbolic((value, index)):
                container = symbolic(self._recorder, container)
            container[index] = value

    def change_item(self, position: int, container: Any, index: Any, name: str, value: Any) -> None:
        with self._recorder.at(self._spans[position]):
            self._tracer.check_own(container)
            if type(container) is np.ndarray and contains_symbolic((value, index)):
                container = symbolic(self._recorder, container)
            if not contains_symbolic(container) or isinstance(container, list | dict):
                container[index] = getattr(operator, name)(container[index], value)
                return
            old = container[index]
            new = getattr(operator, _PLAIN.get(name, name[1:]))(old, value)
            if not old.is_scalar and not np.can_cast(new.dtype, old.dtype, "same_kind"):
                raise TypeError(f"Cannot cast ufunc output from {new.dtype!r} to {old.dtype!r} with 'same_kind'")
            container[index] = new

    def test(self, position: int, value: Any) -> bool:
        """A condition. A value that is not known is refused here."""
        with self._recorder.at(self._spans[position]):
            return bool(value)

    def operand(self, position: int, value: Any) -> Any:
        """An operand of `and`/`or` that decides whether the next one is looked at."""
        with self._recorder.at(self._spans[position]):
            bool(value)
            return value

    def turns(self, position: int, values: Any) -> Any:
        """What a loop runs over."""
        with self._recorder.at(self._spans[position]):
            return iter(values)
