"""Whatever array comes in, and however often: NumPy's result, or NumPy's exception."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracedsl import kernel
from tracedsl.kernel import Kernel

RNG = np.random.default_rng(11)
BASE = RNG.standard_normal((6, 8))


class Metres(np.ndarray):
    """A subclass that changes what addition means."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [np.asarray(i) for i in inputs]
        result = getattr(ufunc, method)(*plain, **kwargs)
        return (result + 100).view(Metres) if ufunc is np.add else result


def _misaligned(x: Any) -> Any:
    return np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape)


def _packed_field(x: Any) -> Any:
    table = np.zeros(x.shape, [("flag", "u1"), ("value", x.dtype)])
    table["value"] = x
    return table["value"]


INPUTS: dict[str, Callable[[], Any]] = {
    "contiguous": lambda: BASE.copy(), "transposed": lambda: BASE.T, "every second": lambda: BASE[::2, 1::3],
    "reversed": lambda: BASE[::-1, ::-1], "fortran": lambda: np.asfortranarray(BASE),
    "broadcast": lambda: np.broadcast_to(BASE[0], (5, 8)), "zero-size": lambda: np.zeros((0, 8)),
    "zero-size inside": lambda: np.zeros((6, 0)), "0-d": lambda: np.array(2.5), "scalar": lambda: np.float64(2.5),
    "one element": lambda: np.ones((1, 1)), "misaligned": lambda: _misaligned(BASE),
    "packed field": lambda: _packed_field(BASE), "big-endian": lambda: BASE.astype(">f8"),
    "windows": lambda: np.lib.stride_tricks.sliding_window_view(BASE[0], 4),
    "float16": lambda: BASE.astype("f2"), "float32": lambda: BASE.astype("f4"), "int8": lambda: BASE.astype("i1"),
    "bool": lambda: BASE > 0, "uint64": lambda: np.abs(BASE * 1e18).astype("u8"), "complex": lambda: BASE * 1j,
    "nan and inf": lambda: np.array([[np.nan, np.inf, -np.inf, -0.0], [1e308, -1e308, 1e-300, 0.0]]),
    "denormals": lambda: np.array([[5e-324, -5e-324, 1e-310, 2.2e-308]] * 3),
    "matrix": lambda: np.asmatrix(BASE), "masked": lambda: np.ma.masked_array(BASE, BASE > 0),
    "subclass": lambda: BASE.view(Metres), "record": lambda: np.rec.array(BASE),
    "longdouble": lambda: BASE.astype(np.longdouble), "object": lambda: BASE.astype(object),
    "text": lambda: np.array([["a", "b"]]), "dates": lambda: np.array([["2020-01-01"]], "M8[D]"),
    "structured": lambda: np.zeros((2, 2), [("a", "f8")]), "list": lambda: BASE.tolist(), "None": lambda: None,
    "str": lambda: "abc", "huge number": lambda: 10 ** 30,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "adds": lambda x: x + x, "scales and sums": lambda x: (x * 2).sum(), "rows": lambda x: x.max(axis=-1),
    "exponential": lambda x: np.exp(-np.abs(x)), "gram": lambda x: x @ x.T,
    "several": lambda x: (x - 1, x.T, x > 0),
}


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return function(*args)
        except Exception as error:  # noqa: BLE001 - whatever NumPy raises is what is wanted
            return error


def same(got: Any, want: Any, where: str) -> None:
    assert type(got) is type(want), (where, got, want)
    if isinstance(want, Exception):
        assert str(got) == str(want), where
    elif isinstance(want, tuple):
        assert len(got) == len(want)
        for a, b in zip(got, want):
            same(a, b, where)
    elif isinstance(want, np.ndarray | np.generic):
        assert got.dtype == want.dtype and got.shape == want.shape, where
        if np.ma.isMaskedArray(want):
            assert (np.ma.getmaskarray(got) == np.ma.getmaskarray(want)).all()
        if want.dtype.kind in "fc":
            eps = float(np.finfo(want.dtype).eps)
            np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=32 * eps, atol=32 * eps, err_msg=where)
        else:
            np.testing.assert_array_equal(np.asarray(got), np.asarray(want), err_msg=where)
    else:
        assert got == want, where


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_input_gives_numpys_outcome(name: str) -> None:
    """One kernel meets all inputs, three times each, so that each passes by the plans made for the others."""
    function = FUNCTIONS[name]
    k = kernel(function)
    for turn in range(3):
        for kind, make in INPUTS.items():
            x = make()
            same(outcome(k, x), outcome(function, x), f"{name} of {kind}, turn {turn}")


def test_denormals_are_not_flushed() -> None:
    tiny = np.full(1000, 5e-324)
    k = kernel(lambda x: x * 3)
    for _ in range(3):
        assert (k(tiny) == 1.5e-323).all()
    k = kernel(lambda x: x * np.float32(0.5))
    assert (k(np.full(100_000, np.finfo("f4").tiny)) == np.float32(np.finfo("f4").tiny / 2)).all()


def test_inputs_are_left_alone() -> None:
    k = kernel(lambda x, y: (x @ y.T, x + 1, x.sum(axis=0)))
    x = BASE.copy()
    x.flags.writeable = False
    for _ in range(3):
        k(x, x[::-1])
    assert (x == BASE).all()


def test_overlapping_inputs() -> None:
    memory = np.arange(100.0)
    k, plain = kernel(lambda a, b: a * 2 + b), (lambda a, b: a * 2 + b)
    for shift in range(4):
        for _ in range(3):
            a, b = memory[:90], memory[shift:90 + shift]
            same(k(a, b), plain(a, b), f"shift {shift}")


def test_memory_mapped_files(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", BASE)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    k = kernel(lambda x: x + 1)
    for _ in range(3):
        same(outcome(k, x), outcome(lambda x: x + 1, x), "memmap")


def test_results_too_large_for_memory() -> None:
    wide = np.broadcast_to(np.float64(1), (1 << 25,))
    for function in (lambda a: a[:, None] + a, lambda a: np.zeros((1 << 40,)) + a[0]):
        got = outcome(kernel(function), wide)
        assert isinstance(got, MemoryError)


def test_more_than_two_to_the_31_elements(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--long") or _free_memory() < 12 << 30:
        pytest.skip("needs --long and 12 GiB")
    x = np.ones((1 << 31) + 5, np.int8)
    x[-1] = 7
    k = kernel(lambda x: x + x)
    for _ in range(3):
        y = k(x)
        assert y[-1] == 14 and y[0] == 2 and y[1 << 31] == 2 and y.shape == x.shape
    assert kernel(lambda x: x.sum())(x) == x.size + 6


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


def test_first_calls_of_many_threads_and_shapes() -> None:
    k: Kernel = kernel(lambda x: np.tanh(x) @ x.T)
    wrong: list[Any] = []
    start = threading.Barrier(6)

    def work(seed: int) -> None:
        start.wait()
        for step in range(12):
            x = np.full((3 + (seed + step) % 4, 5), 0.5)
            if not np.allclose(k(x), np.tanh(x) @ x.T):
                wrong.append((seed, step))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(k._variants) == 4


def _in_child(queue: Any, k: Kernel, x: Any) -> None:
    queue.put(float(k(x).sum()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_kernels_go_on_in_forked_children() -> None:
    x = np.ones((400, 400))
    k = kernel(lambda x: np.tanh(x - x.mean()) + x @ x)
    for _ in range(3):
        want = float(k(x).sum())
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            k(x)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        context = multiprocessing.get_context("fork")
        for _ in range(3):
            queue = context.Queue()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = context.Process(target=_in_child, args=(queue, k, x))
                child.start()
            assert queue.get(timeout=60) == want
            child.join(60)
            assert child.exitcode == 0
    finally:
        stop.set()
        thread.join()


SUBINTERPRETER = """
    import _xxsubinterpreters as sub
    import tracedsl.hw.cpu.entry_type as entry_type
    assert entry_type.can_call_natively()
    sub.run_string(sub.create(), "import tracedsl.hw.cpu.entry_type as t; assert not t.can_call_natively()")
    print("done")
"""


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the module has another name elsewhere")
def test_subinterpreters_call_through_python() -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(SUBINTERPRETER)], capture_output=True, text=True,
                          timeout=60)
    assert (done.stdout, done.stderr) == ("done\n", "")
