"""Products as they come out of the default schedule: the microkernels' assembly, intrinsics, values for any shape and
layout."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracedsl import kernel
from tracedsl.capture.tensor.arguments import bind
from tracedsl.hw.cpu.codegen import emit_program
from tracedsl.hw.cpu.intrinsics import TABLE, available
from tracedsl.hw.cpu.machine import Machine
from tracedsl.hw.cpu.target import Cpu
from tracedsl.ir.loops import LoopProgram
from tracedsl.schedule import default_schedule, lower_task

ZEN4 = Machine("znver4", "+avx512f,+avx512vl,+avx512vnni", "x86_64-unknown-linux-gnu", "any", 64, 32, 2, 32 << 10,
               1 << 20, 32 << 20)
AVX2 = Machine("haswell", "+avx2,+fma", "x86_64-unknown-linux-gnu", "any", 32, 16, 2, 32 << 10, 256 << 10, 8 << 20)


def product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return x @ w


def wide_product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return x.astype(np.int32) @ w.astype(np.int32)


def program_for(function: object, machine: Machine, *arrays: np.ndarray) -> LoopProgram:
    """The loops of a product on a machine that may be another one."""
    made = kernel(strict=True)(function)
    stages = made._compiler(made._environment.snapshot()).stages(bind(made._parameters, arrays, {}))
    tasks, description = stages.tasks, Cpu(machine).description
    nests = [lower_task(task, default_schedule(task, description)) for task in tasks.tasks]
    return LoopProgram("product", tasks.params, tasks.results, tasks.temps, tuple(nests))


def steps(assembly: str, instruction: str) -> list[list[str]]:
    """The innermost loops that hold an instruction, as lines."""
    lines = [line.split("#")[0].strip() for line in assembly.splitlines()]
    places = {line[:-1]: n for n, line in enumerate(lines) if re.fullmatch(r"\.LBB\w+:", line)}
    loops = [(places[match[1]], n) for n, line in enumerate(lines)
             if (match := re.match(r"j\w+\s+(\.LBB\w+)", line)) and places.get(match[1], n) < n]
    inner = [loop for loop in loops if not any(loop[0] <= a and b < loop[1] for a, b in loops if (a, b) != loop)]
    return [lines[a:b] for a, b in inner if any(line.startswith(instruction) for line in lines[a:b])]


@pytest.mark.parametrize(("machine", "dtype", "instruction", "register", "sums", "operands"), [
    (ZEN4, "float32", "vfmadd", "zmm", 24, 10), (ZEN4, "float64", "vfmadd", "zmm", 24, 10),
    (ZEN4, "int8", "vpdpbusd", "zmm", 24, 10), (ZEN4, "int16", "vpdpwssd", "zmm", 24, 10),
    (AVX2, "float32", "vfmadd", "ymm", 12, 7),
])
def test_a_step_of_the_microkernel(machine: Machine, dtype: str, instruction: str, register: str, sums: int,
                                   operands: int) -> None:
    """One step: a multiply-add for each vector of the tile, one load for each vector and each row, nothing spilled."""
    x = np.zeros((1024, 1024), dtype)
    function = wide_product if dtype.startswith("int") else product
    assembly = Cpu(machine).assembly(program_for(function, machine, x, x))
    found = max(steps(assembly, instruction), key=lambda loop: sum(line.startswith(instruction) for line in loop))
    assert sum(line.startswith(instruction) for line in found) == sums
    assert all(f"%{register}" in line for line in found if line.startswith(instruction))
    assert not any("%rsp" in line or "%rbp" in line for line in found if line.startswith("v"))
    assert sum("(" in line for line in found) <= operands
    assert len(found) <= sums + operands + 8


def test_intrinsics_need_their_feature() -> None:
    x = np.zeros((64, 64), "int16")
    assert len(available(ZEN4)) == 2 and not available(AVX2)
    assert "vpdpwssd" in emit_program(program_for(wide_product, ZEN4, x, x), ZEN4)
    assert "vpdp" not in emit_program(program_for(wide_product, AVX2, x, x), AVX2)
    assert len({row.dot.name for row in TABLE}) == len(TABLE)


LAYOUTS = {
    "rows": lambda a: np.ascontiguousarray(a), "columns": lambda a: np.asfortranarray(a),
    "gaps": lambda a: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3],
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
}
SIZES = st.sampled_from([1, 2, 3, 5, 7, 16, 17, 31, 33, 48, 64, 97, 130])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(m=SIZES, k=st.one_of(SIZES, st.sampled_from([0, 385, 800])), n=SIZES, left=st.sampled_from(sorted(LAYOUTS)),
       right=st.sampled_from(sorted(LAYOUTS)), dtype=st.sampled_from(["float32", "float64", "int8", "int16", "uint8"]),
       seed=st.integers(0, 5))
def test_products_of_any_shape_and_layout(m: int, k: int, n: int, left: str, right: str, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        x, w = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    else:
        info = np.iinfo(dtype)
        x, w = (rng.integers(info.min, info.max, shape, dtype, endpoint=True) for shape in ((m, k), (k, n)))
    function = product if dtype.startswith("float") else wide_product
    got = kernel(strict=True)(function)(LAYOUTS[left](x), LAYOUTS[right](w))
    if dtype.startswith("float"):
        exact = x.astype(np.longdouble) @ w.astype(np.longdouble)
        bound = np.finfo(dtype).eps * (np.abs(x).astype(np.float64) @ np.abs(w).astype(np.float64)) * (k ** 0.5 + 2)
        assert (np.abs(got - exact) <= bound).all()
    else:
        np.testing.assert_array_equal(got, function(x, w))


@pytest.mark.parametrize("pair", [("int8", "uint8"), ("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8"),
                                  ("int16", "int16")])
@pytest.mark.parametrize("shape", [(64, 256, 48), (37, 1030, 65), (40, 33, 41)])
def test_products_of_small_integers_are_exact(pair: tuple[str, str], shape: tuple[int, int, int]) -> None:
    """Every operand at its limits, where instructions that saturate would show."""
    m, k, n = shape
    rng = np.random.default_rng(1)
    x, w = (rng.choice([np.iinfo(d).min, np.iinfo(d).max, 1], size).astype(d)
            for d, size in zip(pair, ((m, k), (k, n))))
    np.testing.assert_array_equal(kernel(strict=True)(wide_product)(x, w), wide_product(x, w))


def test_batches_of_bytes_and_what_follows() -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.integers(-128, 128, shape, np.int8) for shape in ((3, 40, 64), (3, 64, 50)))

    def scaled(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        sums = np.einsum("bik,bkj->bij", a, b, dtype=np.int32)
        return np.clip(sums * np.float32(0.01), -128, 127).astype(np.int8)

    np.testing.assert_array_equal(kernel(strict=True)(scaled)(a, b), scaled(a, b))
