"""The generated code's text and assembly, and what loop nests may contain."""

from __future__ import annotations

import ctypes
import mmap
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from nest_native import build, run
from nest_oracle import interpret
from nest_samples import at, call, load, local, matmul, param, program, register, result, row_sum, saxpy

from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cpu import jit
from tracedsl.hw.cpu.codegen import PARALLEL_FOR, emit_program
from tracedsl.hw.cpu.machine import Machine, host
from tracedsl.ir.expr import Affine, Axis, Buffer, Call, Const, Expr, Load, Position
from tracedsl.ir.loops import Alloc, For, LoopProgram, Nest, Stmt, Store, Update

Array = np.ndarray[Any, Any]
ZEN4 = Machine("znver4", "", "x86_64-unknown-linux-gnu", "any", 64, 32, 2, 32 << 10, 1 << 20, 32 << 20)
F32 = np.float32


# -- text and assembly ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [saxpy(), row_sum(), matmul(12, 64, 40), matmul(96, 64, 512, flops=1 << 30)],
                         ids=["saxpy", "row_sum", "matmul", "matmul_parallel"])
def test_text(sample: LoopProgram, golden: Callable[[str, str], None], request: pytest.FixtureRequest) -> None:
    golden(f"llvm/{request.node.callspec.id}.ll", emit_program(sample, ZEN4))


def test_text_is_reproducible() -> None:
    assert emit_program(matmul(12, 64, 40), ZEN4) == emit_program(matmul(12, 64, 40), ZEN4)


def innermost_loop(assembly: str, instruction: str) -> list[str]:
    """The lines from the last label before the instruction to the jump back to it."""
    lines = [line.split("#")[0].strip() for line in assembly.splitlines()]
    at_ = next(i for i, line in enumerate(lines) if line.startswith(instruction))
    start = max(i for i in range(at_) if re.fullmatch(r"\.LBB\w+:", lines[i]))
    end = next(i for i in range(at_, len(lines)) if re.match(r"j\w+\s+" + re.escape(lines[start][:-1]), lines[i]))
    return [line for line in lines[start + 1:end + 1] if line]


@pytest.mark.parametrize("tile", [(6, 2, 16), (6, 4, 16), (8, 2, 16), (9, 3, 16), (5, 5, 16)])
def test_register_tile_stays_in_registers(tile: tuple[int, int, int]) -> None:
    """One fused multiply-add a vector of the tile and step, each row and each column loaded once, no spills."""
    rows, vectors, lanes = tile
    assembly = jit.assembly(emit_program(matmul(rows * 2, vectors * lanes * 2, 64, tile), ZEN4), ZEN4)
    loop = innermost_loop(assembly, "vfmadd")
    counted = [line for line in loop if re.match(r"vfn?m", line)]
    assert len(counted) == rows * vectors
    assert all("%zmm" in line for line in counted)
    loads = [line for line in loop if re.match(r"vmov|vbroadcast", line)]
    embedded = [line for line in counted if "(" in line]
    assert len(loads) + len(embedded) <= rows + vectors + len(embedded)
    assert len(loop) <= rows * vectors + rows + vectors + 5
    assert not any("(%rsp" in line or "(%rbp" in line for line in assembly.splitlines() if "zmm" in line)


def test_work_before_loops_is_hoisted() -> None:
    """exp(s) * 2 does not depend on the loop: nothing but load, multiply and store is in it."""
    x, s, r = param("x", 64), param("s"), result("r", 64)
    i, v = Axis("i", 4), Axis("v", 16)
    where = at(i, 16) + at(v)
    factor = call("mul", call("exp", load(s)), Const("float32", 2.0))
    nest = program((x, s), (r,), For(i, "serial", (For(v, "vector", (
        Store(r, (where,), call("mul", load(x, where), factor)),)),)))
    loop = innermost_loop(jit.assembly(emit_program(nest, ZEN4), ZEN4), "vmovups")
    assert len([line for line in loop if re.match("vmul", line)]) == 1
    assert len(loop) <= 7
    values = np.arange(64, dtype=F32)
    np.testing.assert_allclose(run(nest, [values, np.array(0.5, F32)])[0], values * np.exp(F32(0.5)) * 2, rtol=1e-6)


def test_short_work_stays_on_one_thread() -> None:
    assert PARALLEL_FOR not in emit_program(matmul(96, 64, 512), ZEN4)
    assert PARALLEL_FOR in emit_program(matmul(96, 64, 512, flops=1 << 30), ZEN4)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 machines")
@pytest.mark.parametrize("sample", [saxpy(), row_sum(), matmul(12, 64, 40)], ids=["saxpy", "row_sum", "matmul"])
@pytest.mark.parametrize("cpu", ["x86-64", "haswell"])
def test_machines_with_narrower_vectors(cpu: str, sample: LoopProgram) -> None:
    """Vectors that are wider than the machine's are taken apart."""
    if cpu == "haswell" and not host().has("avx2"):
        pytest.skip("this machine has no AVX2")
    rng = np.random.default_rng(0)
    params = [rng.random(b.shape, F32) for b in sample.params]
    machine = replace(host(), cpu=cpu, features="", vector_bytes=32 if cpu == "haswell" else 16, vector_registers=16)
    np.testing.assert_allclose(run(sample, params, machine)[0], interpret(sample, params)[0], rtol=1e-5)


def test_sums_fuse_only_where_allowed() -> None:
    assert "fmuladd" in emit_program(matmul(6, 32, 8), ZEN4)
    assert "fmuladd" not in emit_program(matmul(6, 32, 8), ZEN4, contract=False)
    assert "fmuladd" not in emit_program(saxpy(), ZEN4)


# -- what is remembered and for how long ------------------------------------------------------------------------------


def test_a_store_makes_values_unknown() -> None:
    """One expression object before and after its buffer is written, and in a loop that writes it."""
    x, r, q = param("x", 8), result("r", 8), result("q")
    i, j, k = Axis("i", 8), Axis("j", 8), Axis("k", 3)
    again = Call("float32", "add", (load(r, at(j)), load(x, at(j))))
    first = load(r, Affine())
    sums = Call("float32", "add", (first, load(x, at(k))))
    nest = program((x,), (r, q),
                   For(i, "serial", (Store(r, (at(i),), load(x, at(i))),)),
                   For(j, "serial", (Store(r, (at(j),), again), Store(r, (at(j),), again))),
                   Store(q, (), first),
                   For(k, "serial", (Store(r, (Affine(),), sums),)))
    values = np.arange(1, 9, dtype=F32)
    want = values * 3
    first_before, want[0] = want[0], want[0] + 1 + 2 + 3
    got = run(nest, [values])
    np.testing.assert_array_equal(got[0], want)
    assert got[1] == first_before


def test_a_value_from_before_a_loop_is_not_used_inside_if_the_loop_changes_it() -> None:
    x, r = param("x", 4), result("r", 4)
    acc = register("acc")
    k, v = Axis("k", 4), Axis("v", 4)
    double = Call("float32", "mul", (load(acc), Const("float32", 2.0)))
    body = (Store(acc, (), Const("float32", 1.0)), For(v, "vector", (Store(r, (at(v),), double),)),
            For(k, "serial", (Store(acc, (), double), Store(r, (at(k),), double))))
    nest = program((x,), (r,), Alloc(acc, body))
    assert run(nest, [np.zeros(4, F32)])[0].tolist() == [4, 8, 16, 32]


# -- registers --------------------------------------------------------------------------------------------------------


def test_registers_written_and_read_in_different_ways() -> None:
    """Vectors taken apart, put together, overwritten in part, and carried through a loop that does so."""
    x, r = param("x", 8, dtype="int32"), result("r", 3, 8, dtype="int32")
    acc = register("acc", 8, dtype="int32")
    v, w, h, u, k = Axis("v", 8), Axis("w", 8), Axis("h", 4), Axis("u", 8), Axis("k", 3)
    ten, one = Const("int32", 10), Const("int32", 1)
    body = (
        For(v, "vector", (Store(acc, (at(v),), load(x, at(v))),)),
        For(u, "unroll", (Store(r, (Affine(), at(u)), load(acc, at(u))),)),
        For(h, "vector", (Store(acc, (at(h, 2),), call("add", load(acc, at(h, -1) + 7), ten)),)),
        For(w, "vector", (Store(r, (Affine((), 1), at(w)), load(acc, at(w))),)),
        For(k, "serial", (
            Update(acc, (Affine((), 3),), "add", one),
            For(h, "vector", (Update(acc, (at(h) + 1,), "add", one),)),
            For(w, "vector", (Update(acc, (at(w),), "add", Position("int32", at(k))),)))),
        For(w, "vector", (Store(r, (Affine((), 2), at(w, -1) + 7), load(acc, at(w))),)),
    )
    nest = program((x,), (r,), Alloc(acc, body))
    values = [np.arange(8, dtype=np.int32)]
    np.testing.assert_array_equal(run(nest, values)[0], interpret(nest, values)[0])


@pytest.mark.parametrize("lanes", [1, 5, 16])
def test_loops_inside_of_a_vector_loop(lanes: int) -> None:
    """The vector stays whole: r = (x * y).sum(0) + 1, each lane its own column; and all lanes in one."""
    x, y, r, q = param("x", 6, lanes), param("y", 6), result("r", lanes), result("q")
    acc, total = register("acc", lanes), register("total")
    v, k, u = Axis("v", lanes), Axis("k", 3), Axis("u", 2)
    row = at(k, 2) + at(u)
    product = call("mul", load(x, row, at(v)), load(y, row))
    body = (Store(acc, (at(v),), Const("float32", 1.0)),
            For(k, "serial", (For(u, "unroll", (Update(acc, (at(v),), "add", product),
                                                Update(total, (), "add", load(acc, at(v))))),)),
            Store(r, (at(v),), load(acc, at(v))))
    nest = program((x, y), (r, q), Alloc(acc, (Alloc(total, (
        Store(total, (), Const("float32", 0.0)), For(v, "vector", body), Store(q, (), load(total)))),)))
    values = [np.arange(6 * lanes, dtype=F32).reshape(6, lanes), np.arange(6, dtype=F32)]
    for got, want in zip(run(nest, values), interpret(nest, values), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_register_must_be_written_before_it_is_read() -> None:
    r, acc, k = result("r", 1), register("acc"), Axis("k", 4)
    nest = program((), (r,), Alloc(acc, (For(k, "serial", (Update(acc, (), "add", Const("float32", 1.0)),)),)))
    with pytest.raises(TracedslError, match="read before it is written") as caught:
        emit_program(nest, ZEN4)
    assert caught.value.code == "H020"


# -- shapes and places ------------------------------------------------------------------------------------------------


def test_nothing_to_do() -> None:
    """Loops that never run, arrays without elements, a program without nests."""
    x, r = param("x", 0, 5), result("r", 0)
    i, j = Axis("i", 0), Axis("j", 5)
    step = For(j, "vector", (Store(r, (at(i),), load(x, at(i), at(j))),))
    for kind in ("serial", "parallel", "unroll", "vector"):
        inner: Stmt = For(i, kind, (step,)) if kind != "vector" else For(i, kind, step.body)  # type: ignore[arg-type]
        build(program((x,), (r,), inner))([np.empty((0, 5), F32)], [np.empty(0, F32)])
    build(LoopProgram("none", (), (), (), ()))([], [])


def test_zero_iterations_of_a_reduction_keep_the_start() -> None:
    r, acc, k, v = result("r"), register("acc"), Axis("k", 0, True), Axis("v", 0, True)
    nest = program((), (r,), Alloc(acc, (
        Store(acc, (), Const("float32", 5.0)), For(k, "serial", (Update(acc, (), "add", Const("float32", 1.0)),)),
        For(v, "vector", (Update(acc, (), "add", Const("float32", 1.0)),)), Store(r, (), load(acc)))))
    assert run(nest, [])[0] == 5


def test_scalars_without_dimensions() -> None:
    x, r = param("x", dtype="int64"), result("r", dtype="int64")
    assert run(program((x,), (r,), Store(r, (), call("mul", load(x), load(x)))), [np.array(7)])[0] == 49


def test_local_buffers_and_temporaries() -> None:
    """A local array lives in one iteration; a temporary from one nest to the next."""
    x, r = param("x", 6, 8), result("r", 6, 8)
    t, row = Buffer.row_major("t", "float32", (6, 8)), local("row", 8)
    i, v, j, w = Axis("i", 6), Axis("v", 8), Axis("j", 6), Axis("w", 8)
    fill = For(v, "vector", (Store(row, (at(v),), call("add", load(x, at(i), at(v)), load(x, at(i), at(v)))),))
    turn = For(v, "vector", (Store(t, (at(i), at(v)), load(row, at(v, -1) + 7)),))
    first = Nest("first", (x, t), (For(i, "parallel", (Alloc(row, (fill, turn)),)),))
    second = Nest("second", (t, r), (For(j, "parallel", (For(w, "vector", (
        Store(r, (at(j), at(w)), call("mul", load(t, at(j), at(w)), load(t, at(j), at(w)))),)),)),))
    nest = LoopProgram("two", (x,), (r,), (t,), (first, second), (64,), 512)
    values = np.random.default_rng(0).random((6, 8), F32)
    np.testing.assert_array_equal(run(nest, [values])[0], (2 * values[:, ::-1]) ** 2)


def test_booleans_from_before_a_loop() -> None:
    """One boolean for all lanes, known before the loop that stores it."""
    x, r, i, v = param("x", dtype="bool"), result("r", 6, dtype="bool"), Axis("i", 3), Axis("v", 2)
    nest = program((x,), (r,), For(i, "serial", (For(v, "vector", (Store(r, (at(i, 2) + at(v),), load(x)),)),)))
    for flag in (True, False):
        assert run(nest, [np.array(flag)])[0].tolist() == [flag] * 6


def test_many_dimensions_and_large_offsets() -> None:
    """Strides that do not fit 32 bits: the address arithmetic has 64."""
    r = Buffer("r", "uint8", (2, 3), (1 << 33, 1), "result")
    i, j = Axis("i", 1), Axis("j", 3)
    nest = program((), (r,), For(i, "serial", (For(j, "serial", (Store(r, (at(i), at(j)), Const("uint8", 7)),)),)))
    text = emit_program(nest, ZEN4)
    assert "i64" in text
    row = np.zeros(3, np.uint8)
    build(nest).run([row.ctypes.data])
    assert row.tolist() == [7, 7, 7]


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
@pytest.mark.parametrize("lanes", [1, 3, 8, 16])
@pytest.mark.parametrize("stride", [1, -1, 2, 3, -4, 7])
def test_no_byte_outside_of_a_buffer_is_read(stride: int, lanes: int) -> None:
    """The array touches the first or the last byte of its page; the pages around it cannot be read."""
    n = lanes * 3
    x, r = Buffer("x", "float32", (n,), (stride,), "param"), result("r", n)
    i, v = Axis("i", 3), Axis("v", lanes)
    here = at(i, lanes) + at(v)

    def neighbour(shift: int) -> Expr:
        where = here + shift
        inside = call("and", call("ge", Position("int64", where), Const("int64", 0)),
                      call("lt", Position("int64", where), Const("int64", n)))
        return Call("float32", "select", (_bool(inside), load(x, where), Const("float32", 0.0)))

    value = call("add", call("add", neighbour(-1), load(x, here)), neighbour(1))
    nest = program((x,), (r,), For(i, "serial", (For(v, "vector", (Store(r, (here,), value),)),)))
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 3 * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    _protect(base, page, 0)
    _protect(base + 2 * page, page, 0)
    bytes_ = ((n - 1) * abs(stride) + 1) * 4
    for start in (page, 2 * page - bytes_):
        whole = np.frombuffer(memory, np.uint8, bytes_, start).view(F32)
        values = np.lib.stride_tricks.as_strided(whole if stride > 0 else whole[-1:], (n,), (stride * 4,))
        values[...] = np.arange(1, n + 1)
        got = np.zeros(n, F32)
        build(nest)([values], [got])
        padded = np.concatenate([[0], np.arange(1, n + 1), [0]])
        np.testing.assert_array_equal(got, padded[:-2] + padded[1:-1] + padded[2:])
    _protect(base, 3 * page, mmap.PROT_READ | mmap.PROT_WRITE)


def _protect(address: int, size: int, how: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), how) == 0


def _bool(expr: Call) -> Call:
    """Comparisons, and what combines them, are bool."""
    args = tuple(Call("bool", a.op, a.args) if isinstance(a, Call) else a for a in expr.args)
    return Call("bool", expr.op, args)


# -- what is refused --------------------------------------------------------------------------------------------------


def _broken() -> list[tuple[str, Stmt]]:
    r, x, acc = result("r", 4), param("x", 4), register("acc", 4)
    i, v, w = Axis("i", 4), Axis("v", 4), Axis("w", 4)
    one = Const("float32", 1.0)
    return [
        ("outside of its loop", Store(r, (at(i),), one)),
        ("does not exist here", Store(r, (Affine(),), load(acc, Affine()))),
        ("no param, result or temp", Store(r, (Affine(),), load(Buffer.row_major("q", "float32", (1,)), Affine()))),
        ("inside of another one", For(v, "vector", (For(w, "vector", (Store(r, (at(w),), one),)),))),
        ("indexed by the loop", Alloc(acc, (For(i, "serial", (Store(acc, (at(i),), one),)),))),
        ("indexed by a computed value", Alloc(acc, (Store(acc, (Affine(),), one), Store(
            r, (Affine(),), Load("float32", acc, (Const("int64", 0),)))))),
        ("cannot stand in a loop nest", Store(r, (Affine(),), Expr("float32"))),
        ("not defined for", Store(r, (Affine(),), Call("float32", "shl", (load(x, Affine()), one)))),
    ]


@pytest.mark.parametrize(("why", "body"), _broken(), ids=[why for why, _ in _broken()])
def test_malformed_nests_are_refused(why: str, body: Stmt) -> None:
    nest = program((param("x", 4),), (result("r", 4),), body)
    with pytest.raises(TracedslError, match=why) as caught:
        emit_program(nest, ZEN4)
    assert caught.value.code == "H020"
