"""The code of stencils: multiply-adds and loads of a tile, no spills, borders beside memory that may not be read."""

from __future__ import annotations

import ctypes
import math
import mmap
import platform
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nest_native import run
from numpy.lib.stride_tricks import sliding_window_view

sys.path.insert(0, str(Path(__file__).parents[1] / "rewrite"))

from tensor_graphs import WideMachine
from test_convolution import convolution

from tracedsl import kernel
from tracedsl.hw.cpu import jit
from tracedsl.hw.cpu.codegen import emit_program
from tracedsl.hw.cpu.machine import Machine, host
from tracedsl.ir.graph import Graph
from tracedsl.ir.loops import LoopProgram
from tracedsl.rewrite.tensor.lower import lower
from tracedsl.rewrite.tensor.memory import loop_program
from tracedsl.schedule import default_schedule, lower_task

Array = np.ndarray[Any, Any]
ZEN4 = Machine("znver4", "", "x86_64-unknown-linux-gnu", "any", 64, 32, 2, 32 << 10, 1 << 20, 32 << 20)


def nests(graph: Graph) -> LoopProgram:
    tasks = lower(graph)
    return loop_program(tasks, [lower_task(task, default_schedule(task, WideMachine())) for task in tasks.tasks])


@pytest.mark.parametrize(("size", "channels", "stride", "tile"), [
    (20, 32, 1, (2, 3, 2)), (40, 32, 2, (2, 3, 2)), (14, 512, 2, (1, 4, 4)), (7, 1024, 1, (1, 4, 4))])
def test_a_tile_reads_each_vector_once_and_spills_none(size: int, channels: int, stride: int,
                                                       tile: tuple[int, int, int]) -> None:
    """Each sum takes one multiply-add a tap; each vector under the windows and each weight is read at most once."""
    height, width, vectors = tile
    sums, most = math.prod(tile), math.prod(stride * (n - 1) + 3 for n in (height, width)) * vectors
    assembly = jit.assembly(emit_program(nests(convolution("depthwise", size, channels, stride=stride)), ZEN4), ZEN4)
    lines = [line.split("#")[0].strip() for line in assembly.splitlines()]
    blocks = re.split(r"\n(?=\.LBB\w+:)", "\n".join(lines))
    main = next(b for b in blocks if len(re.findall(r"^vfn?m", b, re.M)) == 9 * sums)
    reads = [line for line in main.splitlines()
             if "zmm" in line and "(%" in line and not re.match(r"vmov\w+\s+%zmm", line)]
    assert most - 2 * stride * (height + width) * vectors <= len(reads) <= most + 9 * vectors   # borders are not read
    assert "movq\t%rsp, %rbp" not in assembly      # %rbp is no frame: what stands at %rsp alone would be spilled
    assert not any("(%rsp" in line for line in lines if "zmm" in line)
    assert all("zmm" in line for line in lines if line.startswith("vfm"))


def test_the_address_of_a_masked_load_lies_inside() -> None:
    """Rows and columns beside the array are masked; their addresses are those of the border."""
    text = emit_program(nests(convolution("depthwise", 20, 32)), ZEN4)
    definitions = dict(re.findall(r"(%[\w.]+) = (.*)", text))

    def clamps(value: str) -> int:
        body = definitions.get(value, "")
        return body.count("@llvm.smax") + sum(clamps(part) for part in re.findall(r"%[\w.]+", body)
                                              if "phi" not in body)

    pointers = re.findall(r"@llvm.masked.load\S*\(ptr[^%,]*(%[\w.]+)", text)
    assert pointers and all(clamps(pointer) for pointer in pointers)


def depthwise(x: Any, w: Any, stride: int, before: int, after: int) -> Any:
    k = w.shape[0]
    padded = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    windows = sliding_window_view(padded, (k, k), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("nhwcij,ijc->nhwc", windows, w)


def by_hand(x: Array, w: Array, stride: int, before: int, after: int) -> Array:
    """Term by term, in float64."""
    k = w.shape[0]
    padded = np.pad(x.astype("float64"), ((0, 0), (before, after), (before, after), (0, 0)))
    high, wide = ((n - k) // stride + 1 for n in padded.shape[1:3])
    return sum(padded[:, i:i + stride * (high - 1) + 1:stride, j:j + stride * (wide - 1) + 1:stride] * w[i, j]
               for i in range(k) for j in range(k))  # type: ignore[no-any-return]


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(0, 2), st.integers(0, 12),
       st.sampled_from((1, 5, 16, 24, 33)))
def test_compiled_depthwise_convolutions(k: int, stride: int, before: int, after: int, more: int,
                                         channels: int) -> None:
    rng = np.random.default_rng(k + more)
    x = rng.standard_normal((2, k + more, k + more + 1, channels), np.float32)
    w = rng.standard_normal((k, k, channels), np.float32)

    @kernel(strict=True)
    def f(x, w):  # type: ignore[no-untyped-def]
        return depthwise(x, w, stride, before, after)

    np.testing.assert_allclose(f(x, w), by_hand(x, w, stride, before, after), rtol=1e-5, atol=1e-5)


def test_a_border_of_zeros_meets_infinite_weights_as_in_numpy() -> None:
    x, w = np.ones((1, 6, 6, 16), np.float32), np.ones((3, 3, 16), np.float32)
    w[0, 0] = np.inf

    @kernel(strict=True)
    def f(x, w):  # type: ignore[no-untyped-def]
        return depthwise(x, w, 1, 1, 1)

    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(f(x, w), by_hand(x, w, 1, 1, 1))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 machines")
@pytest.mark.parametrize("cpu", ["x86-64", "haswell", ""])
@pytest.mark.parametrize("end", [False, True])
def test_nothing_beside_the_array_is_read(cpu: str, end: bool) -> None:
    """The rows above and below, and the columns beside, lie in pages that nobody may touch."""
    shape, page = (2, 5, 6, 16), mmap.PAGESIZE
    graph = convolution("depthwise", shape[1], shape[3])
    size = int(np.prod(shape)) * 4
    pages = -(-size // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    x = np.frombuffer(memory, np.float32, size // 4, (pages + 1) * page - size if end else page).reshape(shape)
    rng = np.random.default_rng(0)
    x[...] = rng.standard_normal(shape)
    w = rng.standard_normal((3, 3, 16), np.float32)
    machine = host() if not cpu else Machine(cpu, "", host().triple, "any", 32 if cpu == "haswell" else 16, 16, 1,
                                             32 << 10, 1 << 20, 32 << 20)
    if cpu == "haswell" and not host().has("avx2"):
        pytest.skip("this machine has no AVX2")
    libc = ctypes.CDLL(None)
    for at in (0, pages + 1):
        assert libc.mprotect(ctypes.c_void_p(base + at * page), ctypes.c_size_t(page), 0) == 0
    (got,) = run(nests(graph), [x, w], machine)
    np.testing.assert_allclose(got, by_hand(x, w, 1, 1, 1), rtol=1e-5, atol=1e-5)
    assert libc.mprotect(ctypes.c_void_p(base), ctypes.c_size_t((pages + 2) * page), 3) == 0
