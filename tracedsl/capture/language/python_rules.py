"""What plain Python operations may run: tables that tell harmless operations from those that may run unknown code.

What holds here: everything is decided from exact types, so the answer "harmless" is never wrong: no code of a user, and
no code with an effect, runs within a harmless operation. Whatever is not in a table is not harmless.
"""

from __future__ import annotations

import inspect
import operator
import types
from collections.abc import Callable
from typing import Any

SCALARS = frozenset({str, bytes, int, float, complex, bool, type(None), type(Ellipsis)})
CONTAINERS = frozenset({list, tuple, dict, set, frozenset})
_INERT = SCALARS | CONTAINERS | {range, slice, bytearray, types.BuiltinFunctionType, types.MethodType,
                                 types.FunctionType, types.MethodWrapperType}

# Methods that neither look into elements nor run anything: they may move handles about.
MOVES: dict[type, frozenset[str]] = {
    list: frozenset({"append", "extend", "insert", "pop", "clear", "reverse", "copy"}),
    dict: frozenset({"get", "pop", "setdefault", "clear", "copy"}),
    set: frozenset({"add", "discard", "clear", "copy"}),
}

# Methods of containers that change nothing.
READS: dict[type, frozenset[str]] = {
    list: frozenset({"copy", "index", "count"}),
    tuple: frozenset({"index", "count"}),
    dict: frozenset({"get", "copy", "keys", "values", "items"}),
    set: frozenset({"copy", "union", "intersection", "difference", "issubset", "issuperset", "isdisjoint"}),
    frozenset: frozenset({"copy", "union", "intersection", "difference", "issubset", "issuperset", "isdisjoint"}),
}

# Methods of a text that change nothing and give plain values.
TEXT_METHODS = frozenset({
    "strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "casefold", "swapcase", "replace", "split",
    "rsplit", "splitlines", "partition", "rpartition", "removeprefix", "removesuffix", "startswith", "endswith", "find",
    "rfind", "zfill", "ljust", "rjust", "center", "isdigit", "isalpha", "isnumeric", "isspace", "isupper", "islower"})

# Of these, without arguments, those that give a text.
TEXT_TO_TEXT = frozenset({"strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "casefold", "swapcase"})

# Built-ins that run no code of the elements of a plain container (shape only), and those that do (deep).
SHAPE_ONLY: tuple[Any, ...] = (len, list, tuple, range, slice, id)
DEEP: tuple[Any, ...] = (
    str, int, float, bool, complex, bytes, repr, ascii, abs, round, min, max, sum, sorted, any, all, set, frozenset,
    dict, chr, ord, divmod, pow, hash, format, bin, hex, oct)
ITERATORS: tuple[Any, ...] = (enumerate, zip, reversed)

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mult": operator.mul, "Div": operator.truediv,
    "FloorDiv": operator.floordiv, "Mod": operator.mod, "Pow": operator.pow, "MatMult": operator.matmul,
    "LShift": operator.lshift, "RShift": operator.rshift, "BitAnd": operator.and_, "BitOr": operator.or_,
    "BitXor": operator.xor,
}
INPLACE: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.iadd, "Sub": operator.isub, "Mult": operator.imul, "Div": operator.itruediv,
    "FloorDiv": operator.ifloordiv, "Mod": operator.imod, "Pow": operator.ipow, "MatMult": operator.imatmul,
    "LShift": operator.ilshift, "RShift": operator.irshift, "BitAnd": operator.iand, "BitOr": operator.ior,
    "BitXor": operator.ixor,
}
UNARY: dict[str, Callable[[Any], Any]] = {
    "USub": operator.neg, "UAdd": operator.pos, "Invert": operator.invert,
}
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "Eq": operator.eq, "NotEq": operator.ne, "Lt": operator.lt, "LtE": operator.le, "Gt": operator.gt,
    "GtE": operator.ge, "Is": operator.is_, "IsNot": operator.is_not,
    "In": lambda a, b: a in b, "NotIn": lambda a, b: a not in b,
}

_PLAIN_GETATTRIBUTE = inspect.getattr_static(object, "__getattribute__")
_HARMLESS_DESCRIPTORS = (types.FunctionType, classmethod, staticmethod, types.MemberDescriptorType,
                         types.GetSetDescriptorType, types.MethodDescriptorType, types.WrapperDescriptorType,
                         types.BuiltinFunctionType)
_LIMIT = 2000   # elements looked at before a container counts as unknown


def call_method(name: str, owner: Any, *args: Any) -> Any:
    """`owner.name(*args)`"""
    return getattr(owner, name)(*args)


def is_plain(value: Any) -> bool:
    """Whether `value` is a scalar or a built-in container of such: comparing or formatting it runs no foreign code."""
    budget = [_LIMIT]
    return _plain(value, budget)


def _plain(value: Any, budget: list[int]) -> bool:
    kind = type(value)
    if kind in SCALARS or kind is range:
        return True
    if kind not in CONTAINERS:
        return False
    budget[0] -= len(value)
    if budget[0] < 0:
        return False
    if kind is dict:
        return all(_plain(k, budget) and _plain(v, budget) for k, v in value.items())
    return all(_plain(inner, budget) for inner in value)


def truth_is_harmless(value: Any) -> bool:
    return type(value) in _INERT


def attribute_is_harmless(value: Any, name: str) -> bool:
    """Whether reading `value.name` runs no code: no property, no `__getattr__`, no `__getattribute__`."""
    kind = type(value)
    if kind in _INERT:
        return True
    if kind is types.ModuleType:
        return name in vars(value)
    if isinstance(value, type):
        return kind is type and _class_attribute_is_harmless(value, name)
    if inspect.getattr_static(kind, "__getattribute__") is not _PLAIN_GETATTRIBUTE:
        return False
    for base in kind.__mro__:
        if name in base.__dict__:
            return _descriptor_is_harmless(base.__dict__[name])
    return name in getattr(value, "__dict__", ())


def _class_attribute_is_harmless(value: type, name: str) -> bool:
    for base in value.__mro__:
        if name in base.__dict__:
            return _descriptor_is_harmless(base.__dict__[name])
    return False


def _descriptor_is_harmless(found: Any) -> bool:
    if isinstance(found, _HARMLESS_DESCRIPTORS):
        return True
    return not hasattr(type(found), "__get__")


def check_is_harmless(kinds: Any) -> bool:
    """Whether `isinstance(x, kinds)` runs no `__instancecheck__` of anybody."""
    if type(kinds) is tuple:
        return all(map(check_is_harmless, kinds))
    return type(kinds) is type
