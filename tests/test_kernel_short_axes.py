"""Arrays of points, colours and small matrices through the whole compiler, beside NumPy, at the edges of vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tracedsl import kernel

Array = np.ndarray[Any, Any]


def accelerations(p, m):  # type: ignore[no-untyped-def]
    apart = p[None] - p[:, None]
    squared = (apart * apart).sum(-1) + 0.5
    return (apart * (m / (squared * np.sqrt(squared)))[..., None]).sum(1)


def planes(p, m):  # type: ignore[no-untyped-def]
    apart = p.T[:, None] - p.T[:, :, None]
    weight = m / ((apart * apart).sum(0) + 0.5)
    return (apart * weight).sum(-1)


def two_sums(p, m):  # type: ignore[no-untyped-def]
    apart = p[:, None] - p[None]
    near = np.exp(-(apart * apart).sum(-1))
    return (apart * near[..., None]).sum(1) / (near * m).sum(1)[:, None]


def normalised(p, m):  # type: ignore[no-untyped-def]
    return m[:, None] * p / np.sqrt((p * p).sum(-1, keepdims=True) + 1)


def softmax(p, m):  # type: ignore[no-untyped-def]
    e = np.exp(p - p.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) + m[:, None]


def matrices(p, m):  # type: ignore[no-untyped-def]
    outer = p[:, :, None] * p[:, None, :]
    return np.einsum("nij,njk->nik", outer, outer + m[:, None, None])


def rows_and_columns(p, m):  # type: ignore[no-untyped-def]
    return p.sum(1), p.mean(0), p.max(1), (p > 0).all(1), (p * m[:, None]).sum(), p.T @ p, p.std(1)


FUNCTIONS = [accelerations, planes, two_sums, normalised, softmax, matrices, rows_and_columns]


def points(n: int, depth: int, dtype: str, layout: str) -> Array:
    whole = np.random.default_rng(n * 10 + depth).standard_normal((n, depth + 2)).astype(dtype)
    rows = whole[:, :depth]
    return {"rows": rows.copy(), "wide rows": rows, "columns": np.asfortranarray(rows),
            "backwards": rows.copy()[::-1, ::-1]}[layout]


@pytest.mark.parametrize("layout", ["rows", "wide rows", "columns", "backwards"])
@pytest.mark.parametrize("depth", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_points(function: Callable[..., Any], depth: int, layout: str) -> None:
    dtype, n = ("float32", 37) if depth % 2 else ("float64", 19)
    p, m = points(n, depth, dtype, layout), np.linspace(0.5, 1.5, n).astype(dtype)
    got, want = kernel(function, strict=True)(p, m), function(p.astype("float64"), m.astype("float64"))
    plain = function(p, m)
    for one, other, same in zip(*(v if isinstance(v, tuple) else (v,) for v in (got, want, plain)), strict=True):
        assert one.dtype == same.dtype and one.shape == same.shape
        np.testing.assert_allclose(one, other, rtol=1e-4 if dtype == "float32" else 1e-12, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64", "bool"])
@pytest.mark.parametrize("depth", [2, 3, 4, 5, 7])
def test_colours_leave_together_and_are_exact(depth: int, dtype: str) -> None:
    @kernel(strict=True)
    def blend(image, gain):  # type: ignore[no-untyped-def]
        return image * gain[:, None], image.sum(-1), image[:, ::-1] | gain[:, None]

    rng = np.random.default_rng(depth)
    image, gain = rng.integers(0, 200, (75, depth)).astype(dtype), rng.integers(0, 9, 75).astype(dtype)
    for got, want in zip(blend(image, gain), blend.__wrapped__(image, gain), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


def test_rows_of_a_view_are_read_inside_its_memory() -> None:
    """The last row ends where the memory does: one byte more would be another page."""
    import mmap

    memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    whole = np.frombuffer(memory, np.float32)[:mmap.PAGESIZE // 4].reshape(-1, 4)
    whole[...] = np.random.default_rng(0).standard_normal(whole.shape)
    view = whole[-33:, 1:]

    @kernel(strict=True)
    def lengths(p):  # type: ignore[no-untyped-def]
        return np.sqrt((p * p).sum(1))

    np.testing.assert_allclose(lengths(view), np.sqrt((view * view).sum(1)), rtol=1e-6)
