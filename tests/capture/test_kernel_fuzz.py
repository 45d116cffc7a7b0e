"""Random NumPy programs: what is captured gives what NumPy gives; what NumPy refuses, capture leaves to NumPy.

`pytest --long` runs more of them. A failure names the seed, which gives the same program again.
"""

from __future__ import annotations

import linecache
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tracedsl.capture.tensor.arguments import Parameters, bind
from tracedsl.capture.tensor.environment import Environment
from tracedsl.capture.tensor.kernel import capture_kernel
from tracedsl.diagnostics import Unsupported
from tracedsl.ir.graph import verify
from tracedsl.ir.tensor import run_graph

STEPS = """
x = x + y
x = x * 2
x = x - 0.5
x = x / (abs(y) + 1)
x = np.maximum(x, y)
x = x[::-1]
x = x[..., ::-1]
x = x.T
x = x[1:]
x = x[..., :1]
x = x[None]
x = x[0]
x = x[...]
x = x.sum(-1)
x = x.mean(0, keepdims=True)
x = x.max(axis=-1, keepdims=True)
x = x.var(-1)
x = np.argmax(x, axis=-1)
x = np.any(x, axis=0)
x = np.prod(x, axis=0)
x = x.reshape(-1)
x = x.squeeze()
x = x.swapaxes(0, -1)
x = np.expand_dims(x, 1)
x = np.broadcast_to(x, (2, *x.shape))
x = np.where(x > 0, x, y)
x = np.clip(x, 0, 3)
x = x.astype(np.float32)
x = x.astype(np.int16)
x = x > 0.5
x = x == y
x = x ** 2
x = np.sqrt(abs(x))
x = np.floor(x)
x = x // 2
x = x % 3
x = -x
x = x * s
x = s - x
x = x + s * 2
x = x * np.float32(2)
x = x.copy()
x = np.asarray(x)
x = np.zeros_like(x) + x.shape[-1]
x = np.array([x.min(), x.max()])
x = np.concatenate([x, x])
x = np.stack([x, x], -1)
x = np.tile(x, 2)
x = np.roll(x, 1, axis=0)
x = np.diff(x, axis=-1)
x = np.tril(x)
x = x @ x.T
x = np.dot(x, y)
x = np.outer(x, y)
x += 1
x *= y
x -= x.mean()
x[0] = 2
x[..., -1] += 1
x[1:] = x[:-1]
v = x[0]; x = x + v
v = x[:1]; v += 1
v = x.T; x += 1; x = x + v.T.copy()
x = x * 1; v = x[1:]; v *= 2; x[0] = v[0]
out.append(x)
""".strip().splitlines()

REFUSED_THOUGH_NUMPY_RUNS = {"C011"}          # writes into arguments, and under reshaped views
_STEPPED = ("//", "floor", "%", "int16", ">", "argmax", "any", "==")   # rounding may tip these over


def program(rng: random.Random) -> tuple[str, str]:
    steps = [rng.choice(STEPS) for _ in range(rng.randint(1, 7))]
    lines = [f"    {line.strip()}\n" for step in steps for line in step.split(";")]
    head, tail = ["import numpy as np\n", "def f(x, y, s):\n", "    out = []\n"], ["    return x, out, y\n"]
    return "".join(head + lines + tail), "".join(steps)


def function_of(text: str, name: str) -> Callable[..., Any]:
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    names: dict[str, Any] = {"__name__": "fuzzed"}
    exec(compile(text, name, "exec"), names)  # noqa: S102 - text of this file
    return names["f"]  # type: ignore[no-any-return]


def inputs(rng: random.Random, seed: int) -> tuple[Any, Any, Any]:
    numbers = np.random.default_rng(seed)

    def array(dtype: str, shape: tuple[int, ...]) -> Any:
        given = numbers.random(shape) * 6 - (0 if dtype.startswith("u") else 2)
        return given > 1 if dtype == "bool" else np.asarray(given).astype(dtype)

    shape = rng.choice([(3, 4), (4,), (1, 3), (2, 3, 4), (), (0, 3), (1, 1)])
    x = array(rng.choice(["bool", "int8", "uint16", "int64", "float32", "float64", "float64"]), shape)
    y = array(rng.choice(["float32", "int32", "float64", "bool"]), shape if rng.random() < 0.7 else shape[-1:])
    if shape and rng.random() < 0.3:
        x = x[::-1]
    if len(shape) == 2 and rng.random() < 0.2:
        x = np.asfortranarray(x)
    return x, y, rng.choice([2.5, 3, True, np.float32(1.5), -1])


def captured(function: Callable[..., Any], args: Any) -> Any:
    bound, snapshot = bind(Parameters.of(function), args, {}), Environment(function).snapshot()
    found = capture_kernel(function, bound, snapshot)
    verify(found.graph)
    results = run_graph(found.graph, found.interface.gather(bound.leaves, snapshot.leaves))
    return found.interface.assemble([np.array(r) for r in results], bound.leaves, snapshot.leaves)


def compare(got: Any, want: Any, exact: bool) -> None:
    if isinstance(want, list | tuple):
        assert len(got) == len(want)
        for a, b in zip(got, want):
            compare(a, b, exact)
        return
    assert type(got) is type(want), (type(got), type(want))
    if isinstance(want, np.ndarray | np.generic):
        assert got.dtype == want.dtype and got.shape == want.shape, (got.dtype, want.dtype, got.shape, want.shape)
        if exact and want.dtype.kind == "f":
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
        elif exact:
            np.testing.assert_array_equal(got, want)


def check(seed: int) -> str:
    rng = random.Random(seed)
    text, steps = program(rng)
    function, args = function_of(text, f"<fuzz {seed}>"), inputs(rng, seed)
    x, y, s = args
    error: Exception | None = None
    try:
        want = function(x.copy(order="K"), y.copy(), s)
    except Exception as raised:  # noqa: BLE001 - whatever NumPy raises for a random program
        error = raised
    before = x.copy()
    try:
        got = captured(function, args)
    except Unsupported as refused:
        assert np.array_equal(x, before), "capture never writes an argument"
        assert error is not None or refused.code in REFUSED_THOUGH_NUMPY_RUNS, f"{refused}\n{text}"
        return refused.code
    assert error is None, f"NumPy raises {error!r}, capture does not\n{text}"
    try:
        compare(got, want, not any(word in steps for word in _STEPPED))
    except AssertionError as wrong:
        raise AssertionError(f"seed {seed}, {x.dtype}{x.shape}, {y.dtype}{y.shape}, {s!r}\n{text}\n{wrong}") from None
    return "captured"


def test_random_programs(request: pytest.FixtureRequest) -> None:
    outcomes: dict[str, int] = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for seed in range(5000 if request.config.getoption("--long") else 300):
            outcome = check(seed)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes["captured"] > 0.5 * sum(outcomes.values()), outcomes
