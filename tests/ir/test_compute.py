"""`compute` under plain NumPy and under capture gives the same array; bodies; errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "rewrite"))

from tensor_graphs import check

from tracedsl.diagnostics import TracedslError, Unsupported
from tracedsl.ir.bounds import bounds
from tracedsl.ir.compute import axis, compute, element, is_index, reduce_axis, symbolic_compute
from tracedsl.ir.expr import Affine, Axis, Call, Const, Position
from tracedsl.ir.graph import Builder, Graph, verify
from tracedsl.ir.tensor import TensorType, run_graph

RNG = np.random.default_rng(3)
A = RNG.standard_normal((5, 7)).astype(np.float32)
B = RNG.standard_normal((7, 6)).astype(np.float32)
N = RNG.integers(0, 100, (5, 7)).astype(np.int8)

k, r = reduce_axis(7, "k"), reduce_axis(3)

# name -> (shape, expression of the arrays a, b, n, what NumPy gives)
CASES: dict[str, tuple[Any, Callable[..., Any], Callable[[], Any]]] = {
    "product": ((5, 6), lambda a, b, n: lambda i, j: k.sum(a[i, k] * b[k, j]), lambda: A @ B),
    "row sums": (5, lambda a, b, n: lambda i: k.sum(a[i, k]), lambda: A.sum(1)),
    "small integers": ((5,), lambda a, b, n: lambda i: k.sum(n[i, k]), lambda: N.sum(1)),
    "largest": ((5,), lambda a, b, n: lambda i: k.max(a[i, k]) - k.min(a[i, k]), lambda: A.max(1) - A.min(1)),
    "product of all": ((5,), lambda a, b, n: lambda i: k.prod(a[i, k]), lambda: A.prod(1)),
    "epilogue": ((5, 6), lambda a, b, n: lambda i, j: np.tanh(k.sum(a[i, k] * b[k, j]) + 1),
                 lambda: np.tanh(A @ B + np.float32(1))),
    "normalised": ((5, 7), lambda a, b, n: lambda i, j: a[i, j] / k.sum(np.abs(a[i, k])),
                   lambda: A / np.abs(A).sum(1, keepdims=True)),
    "stencil": ((5, 5), lambda a, b, n: lambda i, j: (a[i, j] + a[i, j + 1] + a[i, j + 2]) / 3,
                lambda: (A[:, :-2] + A[:, 1:-1] + A[:, 2:]) / np.float32(3)),
    "window": ((5, 5), lambda a, b, n: lambda i, j: r.sum(a[i, j + r]),
               lambda: np.lib.stride_tricks.sliding_window_view(A, 3, 1).sum(-1)),
    "strided": ((2, 3), lambda a, b, n: lambda i, j: a[2 * i + 1, 6 - 2 * j], lambda: A[1:4:2, 6:0:-2]),
    "wrapped": ((5, 7), lambda a, b, n: lambda i, j: a[i, j - 1], lambda: np.roll(A, 1, 1)),
    "from the end": ((5,), lambda a, b, n: lambda i: a[-1 - i, -1], lambda: A[::-1, -1]),
    "upsampled": ((10, 7), lambda a, b, n: lambda i, j: a[i // 2, j], lambda: np.repeat(A, 2, 0)),
    "repeated": ((5, 14), lambda a, b, n: lambda i, j: a[i, j % 7], lambda: np.tile(A, (1, 2))),
    "positions": ((4, 3), lambda a, b, n: lambda i, j: i * 3 + j, lambda: np.arange(12).reshape(4, 3)),
    "half positions": ((4,), lambda a, b, n: lambda i: i * 0.5, lambda: np.arange(4) * 0.5),
    "weights by position": ((5,), lambda a, b, n: lambda i: k.sum(a[i, k] * k), lambda: (A * np.arange(7)).sum(1)),
    "chosen": ((5, 7), lambda a, b, n: lambda i, j: np.where(j > i, a[i, j], 0), lambda: np.triu(A, 1)),
    "two reductions": ((5,), lambda a, b, n: lambda i: k.sum(r.sum(a[i, k] * r)), lambda: A.sum(1, dtype=float) * 3),
    "sum without the axis": ((5,), lambda a, b, n: lambda i: r.sum(a[i, 0]), lambda: A[:, 0] * 3),
    "cast": ((5,), lambda a, b, n: lambda i: (n[i, 0] * 2.0).astype(np.int32),
             lambda: (N[:, 0] * 2.0).astype(np.int32)),
    "named axes": ((axis(5, "row"), axis(7, "column")), lambda a, b, n: lambda i, j: -a[i, j], lambda: -A),
    "a constant": ((2, 2), lambda a, b, n: lambda i, j: 7, lambda: np.full((2, 2), 7)),
    "a number": ((), lambda a, b, n: lambda: k.sum(a[0, k]), lambda: A[0].sum()),
}


class Captured:
    """What capture's symbolic array does with an index."""

    def __init__(self, node: Any) -> None:
        self.node = node

    def __getitem__(self, index: Any) -> Any:
        assert is_index(index) or all(isinstance(i, int) for i in index)
        return element(self.node, index)


def captured(shape: Any, write: Callable[..., Any]) -> Graph:
    builder = Builder("f")
    params = [builder.param(name, TensorType(v.dtype.name, v.shape)) for name, v in (("a", A), ("b", B), ("n", N))]
    graph = builder.build([symbolic_compute(builder, shape, write(*map(Captured, params)))])
    verify(graph)
    return graph


@pytest.mark.parametrize("name", CASES)
def test_plain_numpy(name: str) -> None:
    shape, write, want = CASES[name]
    got = compute(shape, write(A, B, N))
    expected = np.asarray(want())
    assert got.shape == expected.shape
    if name != "stencil":
        assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert got.flags.owndata and got.flags.writeable


@pytest.mark.parametrize("name", CASES)
def test_captured_is_what_plain_numpy_gives(name: str) -> None:
    shape, write, _ = CASES[name]
    graph, want = captured(shape, write), compute(shape, write(A, B, N))
    (got,) = run_graph(graph, [A, B, N])
    assert np.asarray(got).dtype == want.dtype == np.dtype(graph.results[0].type.dtype)  # type: ignore[attr-defined]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    check(graph)


def test_a_body_is_its_text() -> None:
    one, other = (captured((5, 6), CASES["product"][1]).results[0].attr("body") for _ in range(2))
    third = captured((5, 6), lambda a, b, n: lambda i, j: k.sum(a[i, k] - b[k, j])).results[0].attr("body")
    assert one == other and hash(one) == hash(other) and one != third
    assert repr(one) == "add[k in 7] ($0[i, k] * $1[k, j]) for i in 5, j in 6"
    assert one.shape == (5, 6) and one.dtype == "float32" and len(one.operands) == 2


def test_out_of_bounds() -> None:
    with pytest.raises(IndexError):
        compute((5, 8), lambda i, j: A[i, j])
    with pytest.raises(IndexError, match="index 7 is out of bounds"):
        captured((5, 8), lambda a, b, n: lambda i, j: a[i, j])
    with pytest.raises(IndexError):
        captured((5, 7), lambda a, b, n: lambda i, j: a[i, j - 8])


@pytest.mark.parametrize("write,words", [
    (lambda a, b, n: lambda i: a[i, n[i, 0]], "depends on data"),
    (lambda a, b, n: lambda i: a[i], "1 positions"),
    (lambda a, b, n: lambda i: A[i, 0], "capture does not know"),
    (lambda a, b, n: lambda i: 1 if i > 2 else 0, "branch"),
    (lambda a, b, n: lambda i: "x", "str"),
    (lambda a, b, n: lambda i: np.frexp(a[i, 0])[0], "frexp|NotImplemented|__array_ufunc__"),
    (lambda a, b, n: lambda i: compute((2,), lambda j: a[j, 0])[0], "inside"),
])
def test_what_cannot_be_captured(write: Callable[..., Any], words: str) -> None:
    with pytest.raises((Unsupported, TypeError), match=words):
        captured((5,), write)


def test_wrong_use() -> None:
    with pytest.raises(TracedslError, match="outside of `compute`"):
        k.sum(A)
    with pytest.raises(TracedslError, match="still depends on a reduce axis"):
        compute((5,), lambda i: A[i, k])
    for bad in (-1, 2.5, True, "n"):
        with pytest.raises(TracedslError, match="number of steps"):
            reduce_axis(bad)  # type: ignore[arg-type]
    assert repr(k) == "reduce_axis(7, 'k')"


def test_bounds_of_positions() -> None:
    i = Position("int64", Affine.of(Axis("i", 5), 2, 1))
    assert bounds(i) == (1, 9)
    assert bounds(Call("int64", "floordiv", (i, Const("int64", 2)))) == (0, 4)
    assert bounds(Call("int64", "mod", (i, Const("int64", 4)))) == (0, 3)
    assert bounds(Call("int64", "floordiv", (i, Position("int64", Affine.of(Axis("j", 2)))))) is None
    assert bounds(Const("float64", 1.0)) is None
