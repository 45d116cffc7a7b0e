"""Graphs of the tensor dialect for tests: a short way to write them, samples, random ones, and the check that runs
them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from nest_interpreter import run_program

from tracedsl.ir.expr import Task
from tracedsl.ir.graph import Builder, Graph, Node, verify
from tracedsl.ir.intrinsics import DotIntrinsic
from tracedsl.ir.tensor import OPS, TensorType, run_graph
from tracedsl.rewrite.tensor.lower import TaskProgram, lower
from tracedsl.schedule import Schedule, default_schedule, lower_task


@dataclass(frozen=True)
class SmallMachine:
    """Vectors of four floats and sixteen registers: small shapes have main loops and rests."""

    vector_bytes: int = 16
    vector_registers: int = 16
    l1: int = 32 << 10
    l2: int = 1 << 20
    l3: int = 32 << 20
    cores: int = 2
    intrinsics: tuple[DotIntrinsic, ...] = (DotIntrinsic("dot4", 4, 4, "int32", ("uint8", "int8")),
                                            DotIntrinsic("dot2", 4, 2, "int32", ("int16", "int16")))


@dataclass(frozen=True)
class WideMachine(SmallMachine):
    """Like a server core: sixteen floats, thirty-two registers. Used for golden files."""

    vector_bytes: int = 64
    vector_registers: int = 32


class Writer:
    """`w.add(x, y)` adds the node `tensor.add(x, y)`; attributes are keywords."""

    def __init__(self, name: str = "f") -> None:
        self.builder = Builder(name)

    def param(self, name: str, shape: Sequence[int], dtype: str = "float32") -> Node:
        return self.builder.param(name, TensorType(dtype, tuple(shape)))

    def constant(self, value: Any, dtype: str = "float32", shape: Sequence[int] = ()) -> Node:
        array = np.asarray(value, dtype)
        node = self.builder.constant(array, TensorType(dtype, ()), repr(array.item()))
        return self.spread(node, shape) if shape else node

    def array(self, value: np.ndarray[Any, Any]) -> Node:
        return self.builder.constant(value, TensorType(value.dtype.name, value.shape), f"#{value.tobytes().hex()[:16]}")

    def spread(self, node: Node, shape: Sequence[int], dims: Sequence[int] = ()) -> Node:
        return self.builder.add(OPS["broadcast"], [node], {"shape": tuple(shape), "dims": tuple(dims)})

    def sum(self, node: Node, *axes: int) -> Node:
        return self.builder.add(OPS["reduce"], [node], {"kind": "add", "axes": axes})

    def build(self, *results: Node) -> Graph:
        graph = self.builder.build(results)
        verify(graph)
        return graph

    def __getattr__(self, op: str) -> Callable[..., Node]:
        known = OPS[op.rstrip("_")]
        return lambda *inputs, **attrs: self.builder.add(known, inputs, attrs)


# -- samples ------------------------------------------------------------------------------------------------------


def chain(rows: int = 6, columns: int = 10) -> Graph:
    w = Writer("chain")
    x, y = w.param("x", (rows, columns)), w.param("y", (columns,))
    scaled = w.mul(x, w.constant(2.5, shape=(rows, columns)))
    return w.build(w.maximum(w.add(scaled, w.spread(y, (rows, columns), (1,))), w.constant(0.0, shape=(rows, columns))))


def softmax(rows: int = 7, columns: int = 13) -> Graph:
    w = Writer("softmax")
    x = w.param("x", (rows, columns))
    top = w.reduce(x, kind="maximum", axes=(1,))
    powers = w.exp(w.sub(x, w.spread(top, (rows, columns), (0,))))
    return w.build(w.div(powers, w.spread(w.sum(powers, 1), (rows, columns), (0,))))


def layer_norm(rows: int = 40, columns: int = 11) -> Graph:
    w = Writer("layer_norm")
    x, gain = w.param("x", (rows, columns)), w.param("gain", (columns,))
    count = w.constant(float(columns), shape=(rows,))
    centred = w.sub(x, w.spread(w.div(w.sum(x, 1), count), (rows, columns), (0,)))
    variance = w.div(w.sum(w.mul(centred, centred), 1), count)
    scale = w.div(w.constant(1.0, shape=(rows,)), w.sqrt(w.add(variance, w.constant(1e-5, shape=(rows,)))))
    normal = w.mul(centred, w.spread(scale, (rows, columns), (0,)))
    return w.build(w.mul(normal, w.spread(gain, (rows, columns), (1,))))


def sums(axes: tuple[int, ...], shape: tuple[int, ...] = (9, 21), dtype: str = "float32") -> Graph:
    w = Writer("sum_" + "".join(map(str, axes)))
    return w.build(w.sum(w.param("x", shape, dtype), *axes))


def dense(rows: int = 14, depth: int = 9, columns: int = 11, dtype: str = "float32") -> Graph:
    w = Writer("dense")
    x, weights = w.param("x", (rows, depth), dtype), w.param("w", (depth, columns), dtype)
    bias = w.param("b", (columns,), dtype)
    product = w.contract(x, weights, spec="ik,kj->ij")
    biased = w.add(product, w.spread(bias, (rows, columns), (1,)))
    return w.build(w.maximum(biased, w.constant(0, dtype, (rows, columns))))


def transposed(rows: int = 18, columns: int = 21) -> Graph:
    w = Writer("transposed")
    return w.build(w.transpose(w.param("x", (rows, columns)), perm=(1, 0)))


# -- running ------------------------------------------------------------------------------------------------------


def arguments_for(graph: Graph, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    made = []
    for node in graph.params:
        kind = node.type
        assert isinstance(kind, TensorType)
        value: Any = rng.standard_normal(kind.shape)
        if kind.dtype.startswith("complex"):
            value = value + 1j * rng.standard_normal(kind.shape)
        elif not kind.dtype.startswith("float"):
            value = rng.integers(0, 2 if kind.dtype == "bool" else 7, kind.shape)
        made.append(np.asarray(value).astype(kind.dtype))
    return made


def assert_same(got: Any, want: Any, name: str = "", tolerance: float = 2e-5) -> None:
    want = np.asarray(want)
    if want.dtype.kind == "c":
        want = np.stack([want.real, want.imag], axis=-1)
    assert got.dtype == want.dtype and got.shape == want.shape, (name, got.dtype, got.shape, want.dtype, want.shape)
    if want.dtype.kind == "f":
        loose = 5e-3 if want.dtype == np.float16 else tolerance
        np.testing.assert_allclose(got, want, rtol=loose, atol=loose, err_msg=name)
    else:
        np.testing.assert_array_equal(got, want, err_msg=name)


def check(graph: Graph, schedule: Callable[[Task], Schedule] | None = None, *, seed: int = 0,
          strides: dict[str, Sequence[int]] | None = None, tolerance: float = 2e-5) -> TaskProgram:
    """Lower, schedule (by default as the default says), interpret, and compare with NumPy."""
    program = lower(graph, strides)
    choose = schedule or (lambda task: default_schedule(task, SmallMachine()))
    nests = [lower_task(task, choose(task)) for task in program.tasks]
    given = arguments_for(graph, seed)
    for got, want in zip(run_program(program, nests, given), run_graph(graph, given), strict=True):
        assert_same(got, want, graph.name, tolerance)
    return program


# -- random graphs ------------------------------------------------------------------------------------------------

_UNARY = ("neg", "abs", "tanh", "floor", "sign")
_BINARY = ("add", "sub", "mul", "maximum", "minimum")
_DTYPES = ("float32", "float64", "int32", "int64", "uint8")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A few operations of all sorts on small tensors."""
    w = Writer("random")
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    dtype = draw(st.sampled_from(_DTYPES))
    nodes = [w.param("a", shape, dtype), w.param("b", shape, dtype)]
    for _ in range(draw(st.integers(1, 8))):
        node = _operation(draw, w, nodes)
        if node is not None:
            nodes.append(node)
    results = [nodes[-1]]
    if draw(st.booleans()):
        results.append(draw(st.sampled_from(nodes)))
    return w.build(*results)


def _kind(node: Node) -> TensorType:
    assert isinstance(node.type, TensorType)
    return node.type


def _operation(draw: st.DrawFn, w: Writer, nodes: list[Node]) -> Node | None:
    x = draw(st.sampled_from(nodes))
    kind = _kind(x)
    shape, rank = kind.shape, len(kind.shape)
    match draw(st.sampled_from(("unary", "binary", "binary", "cast", "select", "view", "view", "reduce", "reduce",
                                "contract", "concat", "spread"))):
        case "unary":
            op = draw(st.sampled_from(_UNARY if kind.dtype.startswith("float") else ("neg", "abs")))
            return getattr(w, op)(x)  # type: ignore[no-any-return]
        case "binary":
            return getattr(w, draw(st.sampled_from(_BINARY)))(x, _partner(draw, nodes, x))  # type: ignore[no-any-return]
        case "cast" if not kind.dtype.startswith("float"):
            return w.cast(x, dtype=draw(st.sampled_from(_DTYPES)))
        case "select":
            y = _partner(draw, nodes, x)
            return w.select(w.lt(x, y), x, y)
        case "view":
            return _view(draw, w, x)
        case "reduce" if rank:
            axes = tuple(sorted(draw(st.sets(st.integers(0, rank - 1), min_size=1))))
            return w.reduce(x, kind=draw(st.sampled_from(("add", "maximum", "minimum"))), axes=axes)
        case "contract" if rank >= 2:
            y = _partner(draw, nodes, x)
            left, right = "abcd"[:rank], "abcd"[:rank - 2] + "ef"
            spec = f"{left},{right.replace('e', left[-2])}->{'abcd'[:rank - 2]}{left[-1]}f"
            if draw(st.booleans()):
                spec = f"{left},{left[:-2]}f{left[-1]}->{left[:-2]}{left[-2]}f"
            return w.contract(x, y, spec=spec)
        case "concat" if rank:
            return w.concat(x, _partner(draw, nodes, x), axis=draw(st.integers(0, rank - 1)))
        case "spread" if rank < 3:
            at = draw(st.integers(0, rank))
            dims = tuple(d + (d >= at) for d in range(rank))
            return w.spread(x, (*shape[:at], draw(st.integers(1, 4)), *shape[at:]), dims)
    return None


def _partner(draw: st.DrawFn, nodes: list[Node], x: Node) -> Node:
    return draw(st.sampled_from([n for n in nodes if str(n.type) == str(x.type)]))


def _view(draw: st.DrawFn, w: Writer, x: Node) -> Node | None:
    shape = _kind(x).shape
    match draw(st.sampled_from(("transpose", "reshape", "slice", "window"))):
        case "transpose":
            return w.transpose(x, perm=tuple(draw(st.permutations(range(len(shape))))))
        case "reshape":
            size = math.prod(shape)
            first = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
            return w.reshape(x, shape=draw(st.sampled_from([(size,), (first, size // first), (1, size), shape[::-1]])))
        case "window" if shape and all(shape) and len(shape) < 3:
            size = draw(st.integers(1, shape[0]))
            steps = [[int(d == j) for j in range(len(shape))] + [int(d == 0)] for d in range(len(shape))]
            return w.window(x, shape=(shape[0] - size + 1, *shape[1:], size), start=(0,) * len(shape), steps=steps)
        case _ if shape and all(shape):
            size = tuple(draw(st.integers(1, n)) for n in shape)
            step = tuple(draw(st.sampled_from((1, -1))) for _ in shape)
            start = tuple(draw(st.integers(0, n - s)) if by > 0 else draw(st.integers(s - 1, n - 1))
                          for n, s, by in zip(shape, size, step))
            return w.slice(x, start=start, step=step, size=size)
    return None
