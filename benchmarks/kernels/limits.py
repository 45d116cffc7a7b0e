"""What this machine can do at all: multiply-adds a second, bytes a second. From LLVM IR, through our own `jit`.

What holds here: loops that hold nothing but what they measure, with as many independent accumulators as hide the
latency; the best of several short runs counts, as a limit is a limit.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

import numpy as np

from benchmarks.kernels.results import Limits
from tracedsl.hw.cpu import jit
from tracedsl.hw.cpu.machine import Machine, host

_ACCUMULATORS = 12
_SECONDS = 0.01       # one run
_RUNS, _ENOUGH = 30, 0.25     # runs, or seconds


def measure(threads: int) -> Limits:
    """The machine's limits with this many threads. Takes a few seconds."""
    machine = host()
    peak = {unit: _rate(machine, *_fma(machine, elem), threads) for unit, elem in (("f32", "float"), ("f64", "double"))}
    peak["int16"] = 2 * peak["f32"]       # twice the lanes, the same instructions a cycle
    dot = _vnni(machine)
    peak["int8"] = _rate(machine, *dot, threads) if dot else 2 * peak["f32"]
    sizes = {"L2": machine.l2 // 2, "L3": machine.l3 // 2 // threads, "DRAM": max(8 * machine.l3, 128 << 20) // threads}
    bandwidth = {}
    for level, size in sizes.items():
        bandwidth[f"copy {level}"] = max(_moved(machine, way, size // 2, threads) for way in ("copy", "stream"))
        bandwidth[f"read {level}"] = max(_moved(machine, "read", size, threads), bandwidth[f"copy {level}"])
    return Limits(threads=threads, peak=peak, bandwidth=bandwidth,
                  caches={"L1": machine.l1, "L2": machine.l2, "L3": machine.l3})


# -- the loops --------------------------------------------------------------------------------------------------------


def _fma(machine: Machine, elem: str) -> tuple[str, float]:
    """A loop of multiply-adds, and the operations of one iteration."""
    bits = 32 if elem == "float" else 64
    lanes = machine.vector_bytes * 8 // bits
    vector, name = f"<{lanes} x {elem}>", f"llvm.fma.v{lanes}f{bits}"
    step = "%a{0}.next = call " + vector + f" @{name}({vector} %a{{0}}, {vector} %x, {vector} %x)"
    text = (f"declare {vector} @{name}({vector}, {vector}, {vector})\n"
            + _accumulate(machine, vector, step, f"%x = load {vector}, ptr %data"))
    return text, 2.0 * lanes * _ACCUMULATORS


def _vnni(machine: Machine) -> tuple[str, float] | None:
    """A loop of dot products of four bytes, where the CPU has such an instruction."""
    if not machine.has("avx512vnni"):
        return None
    for operand in ("<64 x i8>", "<16 x i32>"):      # newer and older versions of LLVM
        step = (f"%a{{0}}.next = call <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32> %a{{0}}, {operand} %x, "
                f"{operand} %x)")
        text = (f"declare <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32>, {operand}, {operand})\n"
                + _accumulate(machine, "<16 x i32>", step, f"%x = load {operand}, ptr %data"))
        try:
            jit.compile_object(text, machine)
        except Exception:  # noqa: BLE001 - this version of LLVM wants the other one
            continue
        return text, 2.0 * 64 * _ACCUMULATORS
    return None


def _accumulate(machine: Machine, vector: str, step: str, load: str) -> str:
    """`void run(ptr data, i64 size, i64 count)`: `step` on each accumulator, `count` times."""
    each = range(_ACCUMULATORS)
    phis = "\n".join(f"  %a{i} = phi {vector} [ %start, %entry ], [ %a{i}.next, %loop ]" for i in each)
    steps = "\n".join("  " + step.format(i) for i in each)
    stores = "\n".join(f"  %p{i} = getelementptr i8, ptr %data, i64 {i * machine.vector_bytes}\n"
                       f"  store {vector} %a{i}.next, ptr %p{i}" for i in each)
    return (f"define void @run(ptr %data, i64 %size, i64 %count) {{\nentry:\n  %start = load {vector}, ptr %data\n"
            f"  {load}\n  br label %loop\nloop:\n  %i = phi i64 [ 0, %entry ], [ %i.next, %loop ]\n{phis}\n{steps}\n"
            f"  %i.next = add i64 %i, 1\n  %more = icmp ult i64 %i.next, %count\n"
            f"  br i1 %more, label %loop, label %end\nend:\n{stores}\n  ret void\n}}\n")


def _move(machine: Machine, way: str) -> str:
    """`void run(ptr data, i64 size, i64 count)`: go `count` times over `size` bytes; "copy" and "stream" write them
    behind the first `size` bytes, "stream" past the caches."""
    width = machine.vector_bytes
    vector = f"<{width // 4} x i32>"
    hint = ", !nontemporal !0" if way == "stream" else ""
    lines = []
    for i in range(4):
        lines += [f"  %s{i} = getelementptr i8, ptr %data, i64 %at{i}", f"  %v{i} = load {vector}, ptr %s{i}, align 64"]
        lines.insert(-2, f"  %at{i} = add i64 %at, {i * width}")
        if way == "read":
            lines.append(f"  %x{i}.next = or {vector} %x{i}, %v{i}")
        else:
            lines += [f"  %d{i} = getelementptr i8, ptr %target, i64 %at{i}",
                      f"  store {vector} %v{i}, ptr %d{i}, align 64{hint}"]
    reads = way == "read"
    phis = "".join(f"  %x{i} = phi {vector} [ zeroinitializer, %outer ], [ %x{i}.next, %inner ]\n"
                   for i in range(4)) if reads else ""
    keep = "".join(f"  store {vector} %x{i}.next, ptr %keep\n" for i in range(4)) if reads else ""
    return (f"define void @run(ptr %data, i64 %size, i64 %count) {{\nentry:\n"
            f"  %target = getelementptr i8, ptr %data, i64 %size\n  %keep = alloca {vector}\n  br label %outer\n"
            f"outer:\n  %i = phi i64 [ 0, %entry ], [ %i.next, %done ]\n  br label %inner\ninner:\n"
            f"  %at = phi i64 [ 0, %outer ], [ %at.next, %inner ]\n{phis}" + "\n".join(lines) + "\n"
            f"  %at.next = add i64 %at, {4 * width}\n  %more = icmp ult i64 %at.next, %size\n"
            f"  br i1 %more, label %inner, label %done\ndone:\n{keep}  %i.next = add i64 %i, 1\n"
            f"  %again = icmp ult i64 %i.next, %count\n  br i1 %again, label %outer, label %end\nend:\n  ret void\n}}\n"
            f"!0 = !{{i32 1}}\n")


# -- running them -----------------------------------------------------------------------------------------------------


def _function(machine: Machine, text: str) -> tuple[Callable[[int, int, int], None], object]:
    head = f"attributes #0 = {{ {machine.function_attributes()} }}\n"
    loaded = jit.load(jit.compile_object(text.replace(") {\nentry:", ") #0 {\nentry:", 1) + head, machine), ["run"])
    make = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    return make(loaded["run"]), loaded


def _fastest(run: Callable[[int, int, int], None], memory: list[int], size: int, count: int) -> float:
    """The least seconds in which all threads do their part."""
    best, end = float("inf"), time.perf_counter() + _ENOUGH
    for _ in range(_RUNS):
        if time.perf_counter() > end:
            break
        gate = threading.Barrier(len(memory) + 1)

        def work(at: int, gate: threading.Barrier = gate) -> None:
            gate.wait()
            run(at, size, count)
            gate.wait()
        threads = [threading.Thread(target=work, args=(at,)) for at in memory]
        for thread in threads:
            thread.start()
        gate.wait()
        start = time.perf_counter()
        gate.wait()
        best = min(best, time.perf_counter() - start)
        for thread in threads:
            thread.join()
    return best


def _blocks(threads: int, size: int) -> tuple[list[int], list[np.ndarray[tuple[int], np.dtype[np.uint8]]]]:
    arrays = [np.ones(size + 64, np.uint8) for _ in range(threads)]
    return [-(-a.ctypes.data // 64) * 64 for a in arrays], arrays    # ones: zeros would all be one page


def _rate(machine: Machine, text: str, operations: float, threads: int) -> float:
    run, keep = _function(machine, text)
    memory, arrays = _blocks(threads, 1 << 16)
    count = 1000
    while _fastest_once(run, memory[0], 0, count) < _SECONDS:
        count *= 2
    seconds = _fastest(run, memory, 0, count)
    del keep, arrays
    return threads * operations * count / seconds


def _fastest_once(run: Callable[[int, int, int], None], at: int, size: int, count: int) -> float:
    start = time.perf_counter()
    run(at, size, count)
    return time.perf_counter() - start


def _moved(machine: Machine, way: str, size: int, threads: int) -> float:
    size -= size % (4 * machine.vector_bytes)
    run, keep = _function(machine, _move(machine, way))
    memory, arrays = _blocks(threads, 2 * size)
    count = 1
    while _fastest_once(run, memory[0], size, count) < _SECONDS:
        count *= 2
    seconds = _fastest(run, memory, size, count)
    del keep, arrays
    return threads * (1 if way == "read" else 2) * size * count / seconds
