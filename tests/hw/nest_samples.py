"""Loop nests that several tests look at."""

from __future__ import annotations

from tracedsl.ir.expr import Affine, Axis, Buffer, Call, Const, Expr, Load
from tracedsl.ir.loops import Alloc, For, LoopProgram, Nest, Stmt, Store, Update

at = Affine.of


def load(buffer: Buffer, *index: Affine) -> Load:
    return Load(buffer.dtype, buffer, index)


def call(op: str, *args: Expr) -> Call:
    return Call(args[-1].dtype, op, args)


def param(name: str, *shape: int, dtype: str = "float32") -> Buffer:
    return Buffer.row_major(name, dtype, shape, "param")


def result(name: str, *shape: int, dtype: str = "float32") -> Buffer:
    return Buffer.row_major(name, dtype, shape, "result")


def register(name: str, *shape: int, dtype: str = "float32") -> Buffer:
    return Buffer.row_major(name, dtype, shape, "register")


def local(name: str, *shape: int, dtype: str = "float32") -> Buffer:
    return Buffer.row_major(name, dtype, shape, "local")


def program(params: tuple[Buffer, ...], results: tuple[Buffer, ...], *body: Stmt, flops: int = 0,
            name: str = "sample") -> LoopProgram:
    return LoopProgram(name, params, results, (), (Nest(name, (*params, *results), body, flops),))


def saxpy(n: int = 64, lanes: int = 16) -> LoopProgram:
    """r = 2.5 x + y"""
    x, y, r = param("x", n), param("y", n), result("r", n)
    i, v = Axis("i", n // lanes), Axis("v", lanes)
    where = at(i, lanes) + at(v)
    value = call("add", call("mul", Const("float32", 2.5), load(x, where)), load(y, where))
    return program((x, y), (r,), For(i, "serial", (For(v, "vector", (Store(r, (where,), value),)),)), name="saxpy")


def row_sum(rows: int = 5, columns: int = 64, lanes: int = 16) -> LoopProgram:
    """r = x.sum(1), with one vector of partial sums a row."""
    x, r = param("x", rows, columns), result("r", rows)
    partial, total = register("partial", lanes), register("total")
    i, k, v, w, u = (Axis("i", rows), Axis("k", columns // lanes, True), Axis("v", lanes), Axis("w", lanes),
                     Axis("u", lanes))
    zero = Const("float32", 0.0)
    body = (
        For(w, "vector", (Store(partial, (at(w),), zero),)),
        For(k, "serial", (For(v, "vector", (
            Update(partial, (at(v),), "add", load(x, at(i), at(k, lanes) + at(v))),)),)),
        Store(total, (), zero),
        For(u, "vector", (Update(total, (), "add", load(partial, at(u))),)),
        Store(r, (at(i),), load(total)),
    )
    return program((x,), (r,), For(i, "parallel", (Alloc(partial, (Alloc(total, body),)),)), name="row_sum")


def matmul(m: int, n: int, k: int, tile: tuple[int, int, int] = (6, 2, 16), flops: int = 0) -> LoopProgram:
    """c = a @ b with a tile of rows x (vectors x lanes) in registers; the extents are multiples of the tile."""
    rows, vectors, lanes = tile
    a, b, c = param("a", m, k), param("b", k, n), result("c", m, n)
    acc = register("acc", rows, vectors * lanes)
    io, jo, kk = Axis("io", m // rows), Axis("jo", n // (vectors * lanes)), Axis("k", k, True)
    ii, jj, v = Axis("ii", rows), Axis("jj", vectors), Axis("v", lanes)
    inside = at(jj, lanes) + at(v)
    row, column = at(io, rows) + at(ii), at(jo, vectors * lanes) + inside

    def tiled(step: Stmt) -> For:
        return For(ii, "unroll", (For(jj, "unroll", (For(v, "vector", (step,)),)),))

    body = (
        tiled(Store(acc, (at(ii), inside), Const("float32", 0.0))),
        For(kk, "serial", (tiled(Update(acc, (at(ii), inside), "add",
                                        call("mul", load(a, row, at(kk)), load(b, at(kk), column)))),)),
        tiled(Store(c, (row, column), load(acc, at(ii), inside))),
    )
    outer = For(io, "parallel", (For(jo, "serial", (Alloc(acc, body),)),))
    return program((a, b), (c,), outer, flops=flops, name="matmul")
