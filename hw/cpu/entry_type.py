"""Classes whose instances can be called from C without a detour through Python.

What holds here: the class that comes out is a subclass of the one that goes in, with a few words of memory behind each
instance. While `_vectorcall` is 0, calling an instance runs the class's own `__call__`, as ever; once it holds the
address of a function, CPython calls that directly (the vectorcall protocol, PEP 590). Only documented parts of the C
API are used; where they are not at hand (another Python, a build without the interpreter lock, a subinterpreter), the
class stays what it is and `can_call_natively` is False.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T", bound=type)

# The words behind an instance, in this order. `_table` is the address of `_count` addresses of plans; `_latest` the
# plan that served the last call, 0 if it went through Python; `_slow` the function that serves all other calls.
WORDS = ("_vectorcall", "_table", "_count", "_latest", "_slow")

_HAVE_VECTORCALL, _BASETYPE, _DEFAULT = 1 << 11, 1 << 10, 1 << 18      # object.h
_TP_MEMBERS = 72                              # typeslots.h, part of the stable ABI
_PYSSIZET, _READONLY = 19, 1                  # structmember.h


WORDS_AT = "_words_at"       # attribute of a natively callable class: where its words start, in bytes


class _Member(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("type", ctypes.c_int), ("offset", ctypes.c_ssize_t),
                ("flags", ctypes.c_int), ("doc", ctypes.c_char_p))


class _Slot(ctypes.Structure):
    _fields_ = (("slot", ctypes.c_int), ("pfunc", ctypes.c_void_p))


class _Spec(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("basicsize", ctypes.c_int), ("itemsize", ctypes.c_int),
                ("flags", ctypes.c_uint), ("slots", ctypes.POINTER(_Slot)))


@cache
def can_call_natively() -> bool:
    """Whether this interpreter is one that compiled code may be called from directly."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    if ctypes.sizeof(ctypes.c_void_p) != 8 or hasattr(sys, "gettotalrefcount"):
        return False
    api = ctypes.pythonapi
    try:
        current, main = api.PyInterpreterState_Get, api.PyInterpreterState_Main
        current.restype = main.restype = ctypes.c_void_p
        return bool(current() == main())
    except AttributeError:
        return False


def natively_callable(cls: T) -> T:
    """The class, with room for a native entry point in its instances; a decorator."""
    if not can_call_natively():
        return cls
    api = ctypes.pythonapi
    api.PyType_FromSpecWithBases.restype = ctypes.py_object
    api.PyType_FromSpecWithBases.argtypes = [ctypes.c_void_p, ctypes.py_object]
    first = cls.__basicsize__
    members = [_Member(b"__vectorcalloffset__", _PYSSIZET, first, _READONLY, None)]
    members += [_Member(name.encode(), _PYSSIZET, first + 8 * i, 0, None) for i, name in enumerate(WORDS)]
    table = (_Member * (len(members) + 1))(*members)
    slots = (_Slot * 2)(_Slot(_TP_MEMBERS, ctypes.addressof(table)))     # tp_call is inherited: the class's __call__
    name = f"{cls.__module__}.{cls.__qualname__}".encode()
    spec = _Spec(name, first + 8 * len(WORDS), 0, _DEFAULT | _BASETYPE | _HAVE_VECTORCALL, slots)
    made: Any = api.PyType_FromSpecWithBases(ctypes.addressof(spec), (cls,))
    made.__doc__ = cls.__doc__
    setattr(made, WORDS_AT, first)
    _KEPT.append((name, table, slots, spec))
    return made  # type: ignore[no-any-return]


_KEPT: list[Any] = []     # member names and the like are read as long as a class lives
