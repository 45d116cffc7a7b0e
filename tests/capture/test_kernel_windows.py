"""Windows, diagonals, padding, scans: captured against NumPy over shapes, strides and axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from numpy_check import captured, check, plain, values

from tracedsl.capture.tensor.windows import runs_of
from tracedsl.diagnostics import Unsupported

SHAPES = st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple)
DTYPES = st.sampled_from(("float32", "float64", "int32", "uint8", "bool", "complex64"))


def strided(draw: Any, dtype: str, shape: tuple[int, ...]) -> Any:
    """An array of this shape in some layout: contiguous, transposed, every other element, reversed."""
    match draw(st.sampled_from(("plain", "transposed", "stepped", "reversed"))):
        case "transposed":
            return values(dtype, shape[::-1]).T
        case "stepped":
            return values(dtype, tuple(2 * n for n in shape))[tuple(slice(None, None, 2) for _ in shape)]
        case "reversed":
            return values(dtype, shape)[tuple(slice(None, None, -1) for _ in shape)]
    return values(dtype, shape)


def same_error(function: Callable[..., Any], *args: Any) -> None:
    """Either both give the same, or NumPy raises an error and capture has met it too: NumPy runs, and raises it."""
    try:
        plain(function, *args)
    except (ValueError, IndexError, TypeError) as error:
        with pytest.raises(Unsupported, match=type(error).__name__):
            captured(function, *args)
        return
    check(function, *args)


@settings(max_examples=60)
@given(st.data(), SHAPES, DTYPES)
def test_sliding_windows(data: Any, shape: tuple[int, ...], dtype: str) -> None:
    x = strided(data.draw, dtype, shape)
    axes = data.draw(st.none() | st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1, max_size=3).map(tuple))
    count = len(shape) if axes is None else len(axes)
    sizes = tuple(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    step = data.draw(st.integers(1, 3))
    same_error(lambda x: sliding_window_view(x, sizes, axis=axes)[::step] + x.dtype.type(1), x)
    same_error(lambda x: sliding_window_view(x, sizes, axis=axes)[..., ::-1], x)      # a view of the argument


@settings(max_examples=60)
@given(st.data(), st.lists(st.integers(0, 5), min_size=2, max_size=3).map(tuple), DTYPES)
def test_diagonals(data: Any, shape: tuple[int, ...], dtype: str) -> None:
    x = strided(data.draw, dtype, shape)
    axis = st.integers(-len(shape), len(shape) - 1)
    offset, one, other = data.draw(st.integers(-5, 5)), data.draw(axis), data.draw(axis)
    same_error(lambda x: np.diagonal(x, offset, one, other) * x.dtype.type(2), x)
    same_error(lambda x: x.diagonal(offset, one, other), x)
    same_error(lambda x: np.trace(x, offset, one, other), x)
    same_error(lambda x: np.diag(x[0] if x.ndim == 3 else x, offset), x)
    same_error(lambda x: np.diag(x.ravel(), offset), x)


@settings(max_examples=100)
@given(st.data(), SHAPES, DTYPES, st.sampled_from(("constant", "edge", "reflect", "symmetric", "wrap")))
def test_padding(data: Any, shape: tuple[int, ...], dtype: str, mode: str) -> None:
    x = strided(data.draw, dtype, shape)
    width = st.integers(0, 7)
    widths = data.draw(width | st.tuples(width, width)
                       | st.lists(st.tuples(width, width), min_size=len(shape), max_size=len(shape)))
    same_error(lambda x: np.pad(x, widths, mode), x)


def test_padding_takes_a_dict_a_value_for_each_side_and_refuses_what_it_cannot() -> None:
    x = values("float32", (3, 4))
    check(lambda x: np.pad(x, {-1: (1, 2)}), x)
    check(lambda x: np.pad(x, ((1, 2), (3, 0)), constant_values=((1, 2), (3, 4))), x)
    check(lambda x: np.pad(x, 1, constant_values=7.5), x.astype(np.int32))
    for bad in (lambda x: np.pad(x, -1), lambda x: np.pad(x, 1.5), lambda x: np.pad(x, 1, "edge", constant_values=0)):
        same_error(bad, x)
    with pytest.raises(Unsupported, match="mean"):
        captured(lambda x: np.pad(x, 1, "mean"), x)


@given(st.lists(st.integers(0, 6), max_size=20))
def test_runs_are_the_positions(places: list[int]) -> None:
    made = [start + step * n for start, step, count in runs_of(places) for n in range(count)]
    assert made == places


def test_windows_over_memory() -> None:
    def columns(x: Any) -> Any:
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        h, w, c = padded.shape
        s = padded.strides
        return as_strided(padded, (h - 2, w - 2, 3, 3, c), (*s[:2], *s)).reshape(-1, 9 * c)

    check(columns, values("float32", (4, 5, 3)))
    check(lambda x: as_strided(x, (3, 3), (x.strides[0], 2 * x.strides[1])) * 2, values("float64", (4, 6)))
    check(lambda x: as_strided(x, (2, 0)), values("float64", (2, 0)))
    for outside in (lambda x: as_strided(x, (5, 6), x.strides), lambda x: as_strided(x[1:], (2,), (-8,)),
                    lambda x: as_strided(x.T, (6, 4), x.strides)):
        with pytest.raises(Unsupported):
            captured(outside, values("float64", (4, 6))[:, ::2])


def test_a_window_that_is_written_is_refused() -> None:
    def written(x: Any) -> Any:
        y = x * 2
        view = as_strided(y, (2, 2), (8, 8))
        y[0] = 1
        view[0, 0] = 3
        return y

    with pytest.raises(Unsupported):
        captured(written, values("float64", (4,)))


@settings(max_examples=60)
@given(st.sampled_from(("ii->i", "ii", "ii->", "iij->j", "iji->ij", "iii->i", "...ii->...i", "ij,jj->i", "ii,ij->j",
                        "iij,jk->ik", "ij,jk,kk->i", "ii...,i...->i...")), st.integers(1, 4))
def test_einsum_takes_repeated_letters(spec: str, n: int) -> None:
    ranks = [3 if "..." in part else len(part) for part in spec.split("->")[0].split(",")]
    if spec.startswith("ii...,"):
        ranks = [3, 2]
    check(lambda *arrays: np.einsum(spec, *arrays), *(values("float64", (n,) * r, i) for i, r in enumerate(ranks)),
          ulps=64)


def test_einsum_of_a_diagonal_that_is_none() -> None:
    same_error(lambda x: np.einsum("ii->i", x), values("float64", (2, 3)))


SCANS = st.sampled_from((np.add, np.multiply, np.maximum, np.minimum, np.fmax, np.bitwise_or, np.bitwise_and))


@settings(max_examples=100)
@given(st.data(), st.lists(st.integers(0, 5), max_size=3).map(tuple), DTYPES)
def test_cumulative_sums_and_products(data: Any, shape: tuple[int, ...], dtype: str) -> None:
    x = strided(data.draw, dtype, shape)
    axis = data.draw(st.none() | st.integers(-len(shape) - 1, len(shape)))
    asked = data.draw(st.sampled_from((None, "float64", "complex128")))
    same_error(lambda x: np.cumsum(x, axis=axis, dtype=asked), x)
    same_error(lambda x: x.cumsum(axis) + x.dtype.type(1), x)
    if np.result_type(dtype, asked or dtype).kind != "c":
        same_error(lambda x: np.cumprod(x, axis, asked), x)


@settings(max_examples=100)
@given(st.data(), SHAPES, st.sampled_from(("float32", "float64", "int32", "uint8", "bool")), SCANS)
def test_accumulate(data: Any, shape: tuple[int, ...], dtype: str, ufunc: np.ufunc) -> None:
    x = strided(data.draw, dtype, shape)
    if x.dtype.kind == "f" and x.size:
        x[(0,) * x.ndim] = np.nan
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    same_error(lambda x: ufunc.accumulate(x, axis), x)
