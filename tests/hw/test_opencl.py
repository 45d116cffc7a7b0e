"""OpenCL: the text, and drivers that refuse, hang or are not there. What it computes is in test_conformance.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracedsl import kernel
from tracedsl.diagnostics import TracedslError
from tracedsl.hw.opencl import device, trial
from tracedsl.hw.opencl.source import emit_program
from tracedsl.hw.target import missing

needs_driver = pytest.mark.skipif(bool(missing("opencl")), reason="no OpenCL driver is here")


def softmax(x):  # type: ignore[no-untyped-def]
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def dense(x, w, b):  # type: ignore[no-untyped-def]
    return np.maximum(x @ w + b, 0)


@needs_driver
@pytest.mark.parametrize("name, function, shapes", [
    ("softmax", softmax, [(8, 40)]), ("dense", dense, [(8, 24), (24, 32), (32,)])])
def test_text(name: str, function: Any, shapes: Any, golden: Callable[[str, str], None],
              monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a CPU with 256-bit vectors and two units, whatever this one is."""
    from tracedsl.hw.opencl.target import OpenCl
    from tracedsl.hw.target import Description

    monkeypatch.setattr(OpenCl, "description", Description("opencl", 32, 16, 2, (32 << 10, 512 << 10, 4 << 20)))
    args = [np.ones(shape, np.float32) for shape in shapes]
    text = kernel(target="opencl")(function).show("opencl", *args)
    golden(f"opencl/{name}.cl", text[text.index("__kernel"):])


def test_the_prelude_has_what_is_used_alone() -> None:
    from nest_samples import saxpy

    text, (launch,) = emit_program(saxpy(), 8)
    assert "OVER T" not in text and launch.buffers == ("x", "y", "r") and launch.items == 1


@needs_driver
def test_a_driver_that_refuses_or_hangs_costs_one_program(tmp_path: Path) -> None:
    folder = tmp_path / "pocl"
    folder.mkdir()
    with pytest.raises(TracedslError, match="refuses") as refused:
        trial.check("__kernel void f(__global int *x) { x[0] = nonsense; }", [("f", [4])], folder)
    assert refused.value.code == "H001" and "nonsense" in str(refused.value)
    with pytest.raises(TracedslError, match="did not end within") as hung:
        trial.check("__kernel void f(__global volatile int *x) { while (x[0] != 7) x[1]++; }", [("f", [8])], folder,
                    seconds=6.0)
    assert hung.value.code == "H071"
    trial.check("__kernel void f(__global int *x) { x[0] = 1; }", [("f", [4])], folder)


@needs_driver
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    device.device.cache_clear()
    monkeypatch.setenv("TRACEDSL_OPENCL_DEVICE", "no such thing")
    try:
        with pytest.raises(TracedslError, match="no OpenCL device") as error:
            kernel(target="opencl", strict=True)(softmax)(np.ones((2, 3), np.float32))
    finally:
        device.device.cache_clear()
    assert error.value.code == "H070" and "TRACEDSL_OPENCL_DEVICE" in str(error.value)


@needs_driver
def test_the_broken_wheel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    device.device.cache_clear()
    monkeypatch.setattr(device, "version", lambda name: "3.0")
    try:
        with pytest.raises(TracedslError) as error:
            device.device()
    finally:
        device.device.cache_clear()
    assert error.value.code == "H072" and "pip uninstall" in str(error.value)


@needs_driver
def test_a_warm_start_builds_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stored source is not tried again; threads share the program."""
    from concurrent.futures import ThreadPoolExecutor

    x = np.random.default_rng(0).standard_normal((16, 33)).astype(np.float32)
    kernel(target="opencl", strict=True)(softmax)(x)
    monkeypatch.setattr(trial, "check", lambda *a, **k: pytest.fail("tried again"))
    again = kernel(target="opencl", strict=True)(softmax)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(again, [x] * 12):
            np.testing.assert_allclose(got, softmax(x), rtol=1e-6)
