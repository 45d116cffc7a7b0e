"""The kernel half of the demo: ordinary NumPy functions, with and without the decorator, timed in turns.

What holds here: the plain function and the compiled one get the same arrays, run interleaved, and are compared before
they are timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tracedsl.kernel import Kernel, kernel

if TYPE_CHECKING:
    from rich.console import Console


@kernel
def softmax(x):  # type: ignore[no-untyped-def]
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@kernel
def logsumexp(x):  # type: ignore[no-untyped-def]
    top = x.max(axis=1)
    return top + np.log(np.exp(x - top[:, None]).sum(axis=1))


@kernel
def gelu(x, bias):  # type: ignore[no-untyped-def]
    y = x + bias
    return 0.5 * y * (1 + np.tanh(0.7978845608 * (y + 0.044715 * y**3)))


@kernel
def rms(x):  # type: ignore[no-untyped-def]
    return np.sqrt(np.mean(np.square(x - x.mean(axis=1, keepdims=True)), axis=1))


@kernel
def dense(x, w, bias):  # type: ignore[no-untyped-def]
    return np.maximum(x @ w + bias, 0)


def cases() -> list[tuple[str, Kernel, tuple[Any, ...]]]:
    """What is timed: a name, a kernel, its arguments (float32, a few MB each)."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape, dtype=np.float32)

    return [
        ("softmax 4096x1024", softmax, (normal(4096, 1024),)),
        ("logsumexp 4096x1024", logsumexp, (normal(4096, 1024),)),
        ("centred rms 4096x1024", rms, (normal(4096, 1024),)),
        ("bias + gelu 1024x1024", gelu, (normal(1024, 1024), normal(1024))),
        ("relu(x @ w + b) 512^3", dense, (normal(512, 512), normal(512, 512), normal(512))),
    ]


def run(console: Console, rounds: int) -> list[dict[str, Any]]:
    """Time every case and print a table; returns its rows."""
    from rich.table import Table

    table = Table("@kernel", "NumPy", "tracedsl", "ratio", "first call", "", title="NumPy functions, one line added")
    rows = []
    for name, function, arguments in cases():
        with console.status(f"{name}: compiling and measuring"):
            row = measure(name, function, arguments, rounds)
        rows.append(row)
        table.add_row(name, _ms(row["numpy"]), _ms(row["tracedsl"]), f"{row['ratio']:.1f}x", _ms(row["first_call"]),
                      row["origin"])
    console.print(table)
    console.print("Median times. `print(tracedsl.demo.kernels.softmax.explain())` tells what was done.\n")
    return rows


def measure(name: str, function: Kernel, arguments: tuple[Any, ...], rounds: int) -> dict[str, Any]:
    """Median times in seconds of the plain and of the compiled function, taken in turns after a check."""
    start = time.perf_counter()
    result = function(*arguments)
    first_call = time.perf_counter() - start
    plain = function.function
    np.testing.assert_allclose(result, plain(*arguments), rtol=1e-4, atol=1e-4)
    times: dict[str, list[float]] = {"numpy": [], "tracedsl": []}
    contenders: dict[str, Callable[..., Any]] = {"numpy": plain, "tracedsl": function}
    for _ in range(rounds):
        for who, call in contenders.items():
            start = time.perf_counter()
            call(*arguments)
            times[who].append(time.perf_counter() - start)
    medians = {who: statistics.median(values) for who, values in times.items()}
    return {"name": name, **medians, "ratio": medians["numpy"] / medians["tracedsl"], "first_call": first_call,
            "origin": "from the cache" if function.from_cache else "compiled now"}


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
