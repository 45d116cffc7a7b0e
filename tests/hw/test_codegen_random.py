"""Random loop nests: generated code, and source for Numba run as plain Python, do what the interpreter says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nest_native import build
from nest_numba import run_source
from nest_oracle import interpret, laid_out
from nest_samples import program

from tracedsl.ir.expr import Affine, Axis, Buffer, Call, Cast, Const, Expr, Load, Position
from tracedsl.ir.loops import Alloc, For, Kind, LoopProgram, Stmt, Store, Update, When

at = Affine.of
QUICK = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

_BINARY = {"int32": ("add", "sub", "mul", "maximum", "minimum", "and", "or", "xor", "floordiv", "mod", "shl", "shr"),
           "float32": ("add", "sub", "mul", "div", "maximum", "minimum"),
           "bool": ("and", "or", "xor")}
_COMBINE = {"int32": ("add", "mul", "maximum", "minimum", "and", "or"), "float32": ("maximum", "minimum", "fmax"),
            "bool": ("or", "and")}


@dataclass(frozen=True)
class Part:
    """A part of an axis: a position in it and the loops, outermost first, that it runs over."""

    position: Affine
    loops: tuple[tuple[Axis, Kind], ...]

    def around(self, body: Sequence[Stmt], only: tuple[Kind, ...] = ("serial", "parallel", "unroll", "vector"),
               ) -> tuple[Stmt, ...]:
        result = tuple(body)
        for axis, kind in reversed(self.loops):
            if kind in only:
                result = (For(axis, kind, result),)
        return result


class Draw:
    """What a random nest is made of."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self._names = 0
        self.params: list[Buffer] = []

    def pick(self, options: Sequence[Any]) -> Any:
        return self._data.draw(st.sampled_from(list(options)))

    def axis(self, extent: int) -> Axis:
        self._names += 1
        return Axis(f"x{self._names}", extent)

    def parts(self, extent: int, inner: Kind, outer: Kind = "serial") -> list[Part]:
        """The axis split by a factor, and the rest of it."""
        factor = self.pick((1, 2, 3, 4, 8))
        found = []
        if extent // factor:
            o, i = self.axis(extent // factor), self.axis(factor)
            found.append(Part(at(o, factor) + at(i), ((o, outer), (i, inner))))
        if rest := extent % factor:
            r = self.axis(rest)
            found.append(Part(at(r) + (extent - rest), ((r, self.pick((inner, "serial"))),)))
        return found

    def param(self, dtype: str, shape: tuple[int, ...]) -> Buffer:
        """A buffer of any layout: strided, reversed, transposed, broadcast."""
        strides, step = {}, 1
        for dim in self.pick(([0, 1], [1, 0])):
            gap = self.pick((1, 1, 1, 2, 3, -1, 0))
            strides[dim] = step * gap
            step *= max(1, shape[dim] * abs(gap))
        self.params.append(Buffer(f"p{len(self.params)}", dtype, shape, (strides[0], strides[1]), "param"))
        return self.params[-1]

    def expr(self, dtype: str, at_: tuple[Affine, Affine], shape: tuple[int, int], depth: int) -> Expr:
        """A random expression of this dtype at a position of a space of this shape."""
        if depth == 0:
            return self.leaf(dtype, at_, shape)

        def below(other: str = dtype) -> Expr:
            return self.expr(other, at_, shape, depth - 1)

        match self.pick(("binary", "binary", "select", "cast", "leaf", "edge")):
            case "binary":
                if dtype == "bool" and self.pick((True, False)):
                    return Call("bool", self.pick(("lt", "ge", "eq", "ne")), (below("int32"), below("int32")))
                return Call(dtype, self.pick(_BINARY[dtype]), (below(), below()))
            case "select":
                return Call(dtype, "select", (below("bool"), below(), below()))
            case "cast":
                return below() if dtype == "float32" else Cast(dtype, below("bool" if dtype == "int32" else "int32"))
            case "edge":
                return self.edge(dtype, at_, shape)
        return self.leaf(dtype, at_, shape)

    def leaf(self, dtype: str, at_: tuple[Affine, Affine], shape: tuple[int, int]) -> Expr:
        match self.pick(("load", "load", "swapped", "gather", "const", "position")):
            case "swapped":
                return Load(dtype, self.param(dtype, (shape[1], shape[0])), (at_[1], at_[0]))
            case "gather":
                index = Call("int64", "mod", (Cast("int64", self.leaf("int32", at_, shape)), Const("int64", shape[1])))
                return Load(dtype, self.param(dtype, shape), (at_[0], index))
            case "const":
                return Const(dtype, self.pick((True, False) if dtype == "bool" else (0, 1, -3, 7)))
            case "position" if dtype == "int32":
                return Position("int32", at_[0] * 3 + at_[1] + 2)
        return Load(dtype, self.param(dtype, shape), at_)

    def edge(self, dtype: str, at_: tuple[Affine, Affine], shape: tuple[int, int]) -> Expr:
        """A neighbour, or 0 at the border: a load that may only be done where the condition holds."""
        shift = self.pick((-1, 1, 2))
        where = at_[1] + shift
        inside = Call("bool", "and", (
            Call("bool", "ge", (Position("int64", where), Const("int64", 0))),
            Call("bool", "lt", (Position("int64", where), Const("int64", shape[1])))))
        buffer = Buffer.row_major(f"p{len(self.params)}", dtype, shape, "param")
        self.params.append(buffer)
        return Call(dtype, "select", (inside, Load(dtype, buffer, (at_[0], where)), Const(dtype, False)))


def values(buffers: Sequence[Buffer], seed: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return [laid_out(b, _numbers(rng, b)) for b in buffers]


def _numbers(rng: np.random.Generator, buffer: Buffer) -> np.ndarray[Any, Any]:
    """Small numbers, with halves for floats."""
    numbers = rng.integers(-9, 10, buffer.shape)
    if buffer.dtype == "bool":
        return numbers > 0
    return numbers.astype(np.float32) / 2 if buffer.dtype == "float32" else numbers


def check(nest: LoopProgram, seed: int) -> None:
    params = values(nest.params, seed)
    want = interpret(nest, params)
    got = [np.zeros(r.shape, r.dtype) for r in nest.results]
    build(nest)(params, got)
    source = [run_source(nest, params)] if seed < 2 else []      # slower than all the rest
    for results in (got, *source):
        for g, w in zip(results, want, strict=True):
            np.testing.assert_array_equal(g, w, err_msg=str(nest))


@QUICK
@given(st.data())
def test_elementwise(data: st.DataObject) -> None:
    """Random expressions over random layouts, split, unrolled, vectorised with any number of lanes."""
    draw = Draw(data)
    dtype = draw.pick(("int32", "float32", "bool"))
    shape = (draw.pick((1, 2, 3, 5)), draw.pick((1, 4, 7, 16)))
    out = Buffer.row_major("r", dtype, shape, "result")
    body: list[Stmt] = []
    outer = draw.pick(("serial", "parallel"))
    for i in draw.parts(shape[0], draw.pick(("serial", "unroll")), outer):
        inside: list[Stmt] = []
        for j in draw.parts(shape[1], draw.pick(("vector", "vector", "unroll"))):
            position = (i.position, j.position)
            inside += j.around([Store(out, position, draw.expr(dtype, position, shape, 2))])
        body += i.around(inside)
    check(program(tuple(draw.params), (out,), *body), data.draw(st.integers(0, 5)))


@QUICK
@given(st.data())
def test_reduction_into_register_tiles(data: st.DataObject) -> None:
    """r[i, j] = combine over k, with a tile of accumulators (rows unrolled, columns in lanes)."""
    draw = Draw(data)
    dtype = draw.pick(("int32", "float32", "bool"))
    combine = draw.pick(_COMBINE[dtype])
    m, n, k = draw.pick((1, 2, 5)), draw.pick((1, 4, 7, 16)), draw.pick((1, 3, 8))
    out = Buffer.row_major("r", dtype, (m, n), "result")
    body: list[Stmt] = []
    for i in draw.parts(m, "unroll", "parallel"):
        for j in draw.parts(n, draw.pick(("vector", "unroll"))):
            body += i.around(j.around(_tile(draw, out, i, j, (dtype, combine, k)), ("serial",)), ("serial", "parallel"))
    check(program(tuple(draw.params), (out,), *body), data.draw(st.integers(0, 5)))


def _tile(draw: Draw, out: Buffer, i: Part, j: Part, what: tuple[str, str, int]) -> list[Stmt]:
    dtype, combine, k = what
    small: tuple[Kind, ...] = ("unroll", "vector")
    rows = [a for a, kind in i.loops if kind in small]
    columns = [a for a, kind in j.loops if kind in small]
    acc = Buffer.row_major("acc", dtype, (*(a.extent for a in rows), *(a.extent for a in columns)), "register")
    index = tuple(map(at, (*rows, *columns)))

    def tile(step: Stmt) -> tuple[Stmt, ...]:
        return i.around(j.around([step], small), small)

    start = Load(dtype, draw.param(dtype, out.shape), (i.position, j.position))
    steps = list(tile(Store(acc, index, start)))
    for part in draw.parts(k, draw.pick(("unroll", "serial"))):
        a = Load(dtype, draw.param(dtype, (out.shape[0], k)), (i.position, part.position))
        b = Load(dtype, draw.param(dtype, (k, out.shape[1])), (part.position, j.position))
        op = "and" if dtype == "bool" else draw.pick(("add", "mul"))
        steps += part.around(tile(Update(acc, index, combine, Call(dtype, op, (a, b)))))
    final = Load(dtype, acc, index)
    steps += tile(Store(out, (i.position, j.position), Call(dtype, "or" if dtype == "bool" else "add", (final, start))))
    return [Alloc(acc, tuple(steps))]


@QUICK
@given(st.data())
def test_reduction_over_lanes(data: st.DataObject) -> None:
    """r[i] = combine over j in lanes: a vector of accumulators whose lanes are combined at the end."""
    draw = Draw(data)
    dtype = draw.pick(("int32", "float32", "bool"))
    combine = draw.pick(_COMBINE[dtype])
    m, n, lanes = draw.pick((1, 3)), draw.pick((1, 2, 5)), draw.pick((1, 2, 3, 4, 7, 16))
    out = Buffer.row_major("r", dtype, (m, 1), "result")
    acc = Buffer.row_major("acc", dtype, (lanes,), "register")
    total = Buffer.row_major("total", dtype, (), draw.pick(("register", "local")))
    i, j, v = draw.axis(m), draw.axis(n), draw.axis(lanes)
    x = draw.param(dtype, (m, n * lanes))

    def element(j_: Affine) -> Expr:
        return Load(dtype, x, (at(i), j_ * lanes + at(v)))

    body = (
        For(v, "vector", (Store(acc, (at(v),), element(Affine())),)),
        For(j, draw.pick(("serial", "unroll")), (For(v, "vector", (Update(acc, (at(v),), combine, element(at(j))),)),)),
        Store(total, (), Load(dtype, x, (at(i), Affine()))),
        For(v, "vector", (Update(total, (), combine, Load(dtype, acc, (at(v),))),)),
        Store(out, (at(i), Affine()), Load(dtype, total, ())),
    )
    check(program((x,), (out,), For(i, "serial", (Alloc(acc, (Alloc(total, body),)),))), data.draw(st.integers(0, 5)))


@pytest.mark.parametrize("loops", [(1, 1), (3, 1), (1, 3), (3, 4)])
def test_parallel_loops_become_one(loops: tuple[int, int]) -> None:
    """Perfectly nested parallel loops are one range; every point is visited once."""
    a, b = Axis("a", loops[0]), Axis("b", loops[1])
    out = Buffer.row_major("r", "int64", loops, "result")
    store = Store(out, (at(a), at(b)), Position("int64", at(a, 10) + at(b) + 1))
    nest = For(a, "parallel", (For(b, "parallel", (store,)),))
    check(program((), (out,), nest), 0)


class Statements:
    """Random statements over three small buffers (result, local, register) that share expressions."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.i, self.u, self.v = Axis("i", 3), Axis("u", 2), Axis("v", 4)
        self.x = Buffer.row_major("x", "int32", (8,), "param")
        self.buffers = [Buffer.row_major("r", "int32", (8,), "result"), Buffer.row_major("t", "int32", (8,), "local"),
                        Buffer.row_major("acc", "int32", (8,), "register")]
        self.stock: dict[frozenset[Axis], list[Expr]] = {}

    def position(self, bound: frozenset[Axis], buffer: Buffer) -> Affine:
        """A position in 0 .. 7 over axes that are bound here."""
        allowed = bound - {self.i} if buffer.scope == "register" else bound
        options = [Affine((), self.draw.pick(range(8)))]
        for terms in (((self.v, 1),), ((self.u, 3), (self.v, 1)), ((self.u, 1),), ((self.v, -1),), ((self.v, 2),),
                      ((self.i, 1), (self.v, 1)), ((self.i, 2), (self.u, 1)), ((self.i, -1),)):
            if allowed >= {axis for axis, _ in terms}:
                total = Affine()
                for axis, factor in terms:
                    total = total + at(axis, factor)
                options.append(total + (-total.bounds()[0]))
        return self.draw.pick(options)

    def expr(self, bound: frozenset[Axis]) -> Expr:
        """A new expression, or one that was there before."""
        known = [e for axes, found in self.stock.items() if axes <= bound for e in found]
        if known and self.draw.pick((True, True, False)):
            return self.draw.pick(known)
        source = self.draw.pick([self.x, *self.buffers])
        made: Expr = Load("int32", source, (self.position(bound, source),))
        if known:
            made = Call("int32", self.draw.pick(("add", "mul", "maximum")), (made, self.draw.pick(known)))
        self.stock.setdefault(bound, []).append(made)
        return made

    def statements(self, bound: frozenset[Axis], depth: int) -> tuple[Stmt, ...]:
        found: list[Stmt] = []
        for _ in range(self.draw.pick((1, 2, 3))):
            free = [a for a in (self.i, self.u, self.v) if a not in bound]
            if depth and free and self.draw.pick((True, True, False)):
                axis = self.draw.pick(free)
                kind: Kind = {"i": "serial", "u": "unroll", "v": "vector"}[axis.name]  # type: ignore[assignment]
                until = Affine((), self.draw.pick((1, 2, 5))) + (at(self.u) if self.u in bound else Affine())
                ends_early = kind == "serial" and self.draw.pick((True, False))
                body = self.statements(bound | {axis}, depth - 1)
                found.append(For(axis, kind, body, until if ends_early else None))
            elif depth and self.draw.pick((True, False)):
                outer = [at(axis, self.draw.pick((1, -1))) for axis in (self.i, self.u) if axis in bound]
                where = sum(outer, Affine((), self.draw.pick((-1, 0, 1))))
                found.append(When(where, self.statements(bound, depth - 1)))
            else:
                target = self.draw.pick(self.buffers)
                index, value = (self.position(bound, target),), self.expr(bound)
                found.append(self.draw.pick((Store(target, index, value), Update(target, index, "add", value),
                                             Update(target, index, "maximum", value))))
        return tuple(found)


@QUICK
@given(st.data())
def test_statements_in_any_order(data: st.DataObject) -> None:
    """Reading, writing and combining the same buffers again and again, at every depth, with shared expressions."""
    draw = Draw(data)
    made = Statements(draw)
    z = Axis("z", 8)
    start = tuple(For(z, "vector", (Store(b, (at(z),), Load("int32", made.x, (at(z),))),)) for b in made.buffers)
    end = tuple(For(z, "vector", (Update(made.buffers[0], (at(z),), "add", Load("int32", b, (at(z),))),))
                for b in made.buffers[1:])
    body: tuple[Stmt, ...] = (*start, *made.statements(frozenset(), 3), *made.statements(frozenset(), 3), *end)
    for buffer in made.buffers[1:]:
        body = (Alloc(buffer, body),)
    check(program((made.x,), (made.buffers[0],), *body), data.draw(st.integers(0, 5)))
