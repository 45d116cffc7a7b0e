"""Functions of NumPy's C API, found as a compiled extension finds them: in the table behind `_ARRAY_API`."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

_MODULE = "numpy._core._multiarray_umath"      # where NumPy's own headers look
# places in the table (numpy/__multiarray_api.h); they are part of NumPy's ABI
_PLACES = {"PyArray_Type": 2, "PyArray_Scalar": 60, "PyArray_NewFromDescr": 94, "PyDataMem_SetHandler": 304}


def function(name: str) -> int:
    """The address of a function (or of the type of arrays). Raises ValueError if the table is not what it should be."""
    return int(_table()[_PLACES[name]] or 0)


@cache
def _table() -> Any:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(get(import_module(_MODULE)._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    if table[_PLACES["PyArray_Type"]] != id(np.ndarray):
        raise ValueError("NumPy's table of functions is not what it is taken for")
    return table
