"""The intrinsics of this target, as one table: what each computes, what it is called in LLVM, which CPUs have it.

What holds here: each row is exact for every operand. Rows for vectors that a machine lacks are not offered.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracedsl.hw.cpu.machine import Machine
from tracedsl.ir.intrinsics import DotIntrinsic


@dataclass(frozen=True)
class Row:
    """`llvm`: called with the sums, the operand of the first dtype and that of the second: vectors of i32, or, if
    `bytes`, the operands as vectors of i8."""

    dot: DotIntrinsic
    llvm: str
    feature: str
    bytes: bool = False


# VNNI (Intel 64 manual, volume 2C): sums of four products of bytes, of two products of words, without saturation
TABLE = (
    Row(DotIntrinsic("vpdpbusd", 16, 4, "int32", ("uint8", "int8")), "llvm.x86.avx512.vpdpbusd.512", "avx512vnni"),
    Row(DotIntrinsic("vpdpwssd", 16, 2, "int32", ("int16", "int16")), "llvm.x86.avx512.vpdpwssd.512", "avx512vnni"),
    Row(DotIntrinsic("vpdpbusd.256", 8, 4, "int32", ("uint8", "int8")), "llvm.x86.avx512.vpdpbusd.256", "avxvnni"),
    Row(DotIntrinsic("vpdpwssd.256", 8, 2, "int32", ("int16", "int16")), "llvm.x86.avx512.vpdpwssd.256", "avxvnni"),
    # the Arm Architecture Reference Manual, C7.2: SDOT, UDOT, USDOT
    Row(DotIntrinsic("sdot", 4, 4, "int32", ("int8", "int8")), "llvm.aarch64.neon.sdot.v4i32.v16i8", "dotprod", True),
    Row(DotIntrinsic("udot", 4, 4, "int32", ("uint8", "uint8")), "llvm.aarch64.neon.udot.v4i32.v16i8", "dotprod", True),
    Row(DotIntrinsic("usdot", 4, 4, "int32", ("uint8", "int8")), "llvm.aarch64.neon.usdot.v4i32.v16i8", "i8mm", True),
)


def available(machine: Machine) -> tuple[Row, ...]:
    """The rows that this machine has, for its own width of vectors."""
    lanes = machine.vector_bytes // 4
    return tuple(row for row in TABLE if machine.has(row.feature) and row.dot.lanes == lanes)
