"""The dtypes of the tensor dialect, as NumPy names, with their short forms for listings.

What holds here: plain tables, no NumPy needed.
"""

from __future__ import annotations

SHORT = {
    "bool": "bool", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64", "uint8": "u8", "uint16": "u16",
    "uint32": "u32", "uint64": "u64", "float16": "f16", "float32": "f32", "float64": "f64", "complex64": "c64",
    "complex128": "c128",
}

BYTES = {name: (1 if name == "bool" else int("".join(filter(str.isdigit, name))) // 8) for name in SHORT}

REAL_OF = {"complex64": "float32", "complex128": "float64"}


def short(dtype: str) -> str:
    return SHORT[dtype]


def is_float(dtype: str) -> bool:
    return dtype.startswith("float")


def is_signed(dtype: str) -> bool:
    return dtype.startswith("int")


def is_unsigned(dtype: str) -> bool:
    """Unsigned integers; bool is none."""
    return dtype.startswith("uint")


def is_integer(dtype: str) -> bool:
    return is_signed(dtype) or is_unsigned(dtype)


def is_complex(dtype: str) -> bool:
    return dtype.startswith("complex")
