"""Helpers of the tests of capture: capture a function, evaluate its graph by NumPy, compare with the plain function."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from tracedsl.capture.tensor.arguments import Parameters, bind
from tracedsl.capture.tensor.environment import Environment
from tracedsl.capture.tensor.kernel import capture_kernel
from tracedsl.capture.tensor.outputs import Interface
from tracedsl.diagnostics import Unsupported
from tracedsl.ir.graph import verify
from tracedsl.ir.tensor import run_graph


def captured(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Capture, verify, write the interface to JSON and back, evaluate."""
    bound = bind(Parameters.of(function), args, kwargs)
    snapshot = Environment(function).snapshot()
    found = capture_kernel(function, bound, snapshot)
    verify(found.graph)
    try:
        interface = Interface.from_json(found.interface.to_json())
        assert interface == found.interface or "array" in str(found.interface.to_json())
    except Unsupported as error:
        assert error.code == "C014"
        interface = found.interface
    results = run_graph(found.graph, interface.gather(bound.leaves, snapshot.leaves))
    return interface.assemble([np.array(r) for r in results], bound.leaves, snapshot.leaves)


def plain(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def same(got: Any, want: Any, *, ulps: int = 4) -> None:
    """Equal in type, dtype, shape and value (up to rounding)."""
    assert type(got) is type(want), (type(got), type(want))
    if isinstance(want, tuple | list):
        assert len(got) == len(want)
        for a, b in zip(got, want):
            same(a, b, ulps=ulps)
    elif isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            same(got[key], want[key], ulps=ulps)
    elif isinstance(want, np.ndarray | np.generic):
        assert got.dtype == want.dtype and got.shape == want.shape, (got.dtype, want.dtype, got.shape, want.shape)
        if want.dtype.kind in "fc":
            step = np.finfo(want.dtype).eps * ulps
            np.testing.assert_allclose(got, want, rtol=float(step), atol=float(step), equal_nan=True)
        else:
            np.testing.assert_array_equal(got, want)
    else:
        assert got == want or (got != got and want != want)


def check(function: Callable[..., Any], *args: Any, ulps: int = 4, **kwargs: Any) -> None:
    same(captured(function, *args, **kwargs), plain(function, *args, **kwargs), ulps=ulps)


def values(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype).kind
    if kind == "b":
        return rng.random(shape) > 0.5
    if kind == "u":
        return rng.integers(0, 9, shape).astype(dtype)
    if kind == "i":
        return rng.integers(-5, 9, shape).astype(dtype)
    if kind == "f":
        return (rng.random(shape) * 2 - 0.5).astype(dtype)
    return (rng.random(shape) - 0.5 + 1j * rng.random(shape)).astype(dtype)
