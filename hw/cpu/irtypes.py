"""LLVM's types as text: how wide they are, how vectors of them are written, how constants of them look.

What holds here: pure functions on strings; "a vector of one lane" is the scalar itself, everywhere.
"""

from __future__ import annotations

import re
import struct
from functools import cache

import numpy as np

BITS = {"i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "i128": 128,
        "half": 16, "float": 32, "double": 64, "ptr": 64}

# NumPy dtype -> element type in memory; bool takes a byte there.
OF_DTYPE = {
    "bool": "i8", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64", "uint8": "i8", "uint16": "i16",
    "uint32": "i32", "uint64": "i64", "float16": "half", "float32": "float", "float64": "double",
}

_SUFFIX = {"half": "f16", "float": "f32", "double": "f64", "ptr": "p0"}
_VECTOR = re.compile(r"<(\d+) x (\w+)>")


@cache
def _parts(type_: str) -> tuple[int, str]:
    if match := _VECTOR.fullmatch(type_):
        return int(match[1]), match[2]
    return 1, type_


def vec(elem: str, n: int) -> str:
    """The vector of `n` lanes; for `n` == 1 the element type itself."""
    if n < 1 or elem.startswith("<"):
        raise ValueError(f"no vector of {n} {elem}")
    return elem if n == 1 else f"<{n} x {elem}>"


def lanes(type_: str) -> int:
    return _parts(type_)[0]


def element(type_: str) -> str:
    return _parts(type_)[1]


def like(type_: str, elem: str) -> str:
    """`elem` with as many lanes as `type_`."""
    return vec(elem, lanes(type_))


def is_float(type_: str) -> bool:
    return element(type_) in ("half", "float", "double")


def mangle(type_: str) -> str:
    """The type as a suffix of an intrinsic's name: "v16f32", "i64", "p0"."""
    n, elem = _parts(type_)
    base = _SUFFIX.get(elem, elem)
    return base if n == 1 else f"v{n}{base}"


def float_text(elem: str, value: float) -> str:
    """A floating-point constant, exactly: the bits of the value rounded to `elem` ("float" is written with the bits
    of the double that equals it, as LLVM wants it)."""
    if elem == "half":
        with np.errstate(over="ignore"):
            return f"0xH{int(np.float16(value).view(np.uint16)):04X}"
    if elem == "float":
        with np.errstate(over="ignore"):
            value = float(np.float32(value))
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
