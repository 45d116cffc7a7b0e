"""Arguments, outer names, helpers, closures: what a capture depends on, and what its text is."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy import exp as raise_e

from tracedsl.capture.source import read_source
from tracedsl.capture.tensor.arguments import Parameters, bind, key_text
from tracedsl.capture.tensor.environment import Environment
from tracedsl.capture.tensor.hints import hint
from tracedsl.capture.tensor.kernel import capture_kernel
from tracedsl.capture.tensor.outputs import Interface
from tracedsl.diagnostics import TracedslError, Unsupported
from tracedsl.ir.compute import compute, reduce_axis
from tracedsl.ir.graph import Graph, verify
from tracedsl.ir.tensor import run_graph

X = np.arange(12.0).reshape(3, 4)
RATE = 2.0
TABLE = np.arange(4.0)
LAYERS = [{"w": np.ones((4, 4)), "gain": 0.5}, {"w": np.eye(4), "gain": 2.0}]


def graph_of(function: Callable[..., Any], *args: Any) -> Graph:
    return capture_kernel(function, bind(Parameters.of(function), args, {}), Environment(function).snapshot()).graph


def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    bound, snapshot = bind(Parameters.of(function), args, kwargs), Environment(function).snapshot()
    found = capture_kernel(function, bound, snapshot)
    verify(found.graph)
    results = run_graph(found.graph, found.interface.gather(bound.leaves, snapshot.leaves))
    return found.interface.assemble([np.array(r) for r in results], bound.leaves, snapshot.leaves)


def scaled(x: Any) -> Any:
    return x * RATE


def helped(x: Any) -> Any:
    return scaled(x) + raise_e(TABLE)


# -- outer names --------------------------------------------------------------------------------------------------


def test_a_changed_number_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = Environment(helped)
    first = environment.snapshot()
    assert environment.snapshot() is first
    monkeypatch.setitem(globals(), "RATE", 3.0)
    second = environment.snapshot()
    assert second.key != first.key and second.digest != first.digest
    assert np.array_equal(run(helped, X), X * 3.0 + np.exp(TABLE))
    monkeypatch.setitem(globals(), "RATE", 2.0)
    assert environment.snapshot().key == first.key


def test_outer_arrays_are_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = Environment(helped)
    first = environment.snapshot()
    bound = bind(Parameters.of(helped), (X,), {})
    found = capture_kernel(helped, bound, first)
    monkeypatch.setitem(globals(), "TABLE", np.zeros(4))
    second = environment.snapshot()
    assert second.key == first.key and second.leaves[0] is TABLE
    (result,) = run_graph(found.graph, found.interface.gather(bound.leaves, second.leaves))
    assert np.array_equal(result, X * 2 + 1)
    monkeypatch.setitem(globals(), "TABLE", np.zeros(4, np.float32))
    assert environment.snapshot().key != first.key


def test_containers_of_outer_arrays_are_inputs() -> None:
    def f(x: Any) -> Any:
        for layer in LAYERS:
            x = np.tanh(x @ layer["w"]) * layer["gain"]
        return x

    assert np.allclose(run(f, X), f(X))
    environment = Environment(f)
    key = environment.snapshot().key
    LAYERS[0]["gain"] = 0.25
    try:
        assert environment.snapshot().key != key
    finally:
        LAYERS[0]["gain"] = 0.5


def test_closures_nested_functions_and_lambdas() -> None:
    factor, shift = 3.0, np.ones(4)

    def inner(x: Any) -> Any:
        def twice(y: Any) -> Any:
            return y * factor + shift

        return twice(twice(x)) + (lambda z: z - 1)(x) + sum([x[i] for i in range(2)])

    assert np.allclose(run(inner, X), inner(X))
    outside = lambda x: np.sqrt(x) * factor  # noqa: E731
    assert np.allclose(run(outside, X), outside(X))


def test_a_changed_closure_cell_changes_the_key() -> None:
    def make() -> tuple[Callable[..., Any], Callable[..., Any]]:
        factor = 1.0

        def f(x: Any) -> Any:
            return x * factor

        def set_factor(value: float) -> None:
            nonlocal factor
            factor = value

        return f, set_factor

    f, set_factor = make()
    environment = Environment(f)
    before = environment.snapshot().key
    set_factor(5.0)
    assert environment.snapshot().key != before
    assert np.array_equal(run(f, X), X * 5)


def test_modules_with_constants_and_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings_of_user.py").write_text("import numpy as np\nDX = 0.5\nGRID = np.arange(4.)\n"
                                                  "def step(x):\n    return np.exp(x) * DX\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings: ModuleType = importlib.import_module("settings_of_user")

    def f(x: Any) -> Any:
        return settings.step(x) + settings.GRID / settings.DX

    assert np.allclose(run(f, X), f(X))
    environment = Environment(f)
    before = environment.snapshot().key
    settings.DX = 0.25  # type: ignore[attr-defined]
    assert environment.snapshot().key != before
    assert np.allclose(run(f, X), f(X))


def test_the_digest_ignores_place_and_comments_but_not_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    texts = ["def f(x):\n    return x + 1\n", "\n\n# moved\ndef f(x):  # again\n    return (x + 1)\n",
             "def f(x):\n    return x + 2\n"]
    digests = []
    for i, text in enumerate(texts):
        (tmp_path / f"digest_{i}.py").write_text(text)
        digests.append(read_source(importlib.import_module(f"digest_{i}").f).digest)
    assert digests[0] == digests[1] != digests[2]


def _decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


@_decorated
def under_a_decorator(x: Any) -> Any:
    """A docstring."""
    return x + 1


class Holder:
    def method(self, x: Any) -> Any:
        return x * 2


def test_sources_are_found_where_they_stand() -> None:
    assert read_source(under_a_decorator).tree.body  # type: ignore[arg-type]
    assert read_source(Holder.method).name == "method"
    assert graph_of(under_a_decorator, X).nodes[-1].span.line == under_a_decorator.__code__.co_firstlineno + 3


# -- arguments ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class State:
    position: Any
    velocity: Any
    steps: int


Pair = namedtuple("Pair", "left right")


def test_nested_arguments_and_results() -> None:
    def f(state: Any, options: Any, pair: Any, *rest: Any, dt: float = 0.5, **more: Any) -> Any:
        position = state.position + dt * state.velocity * options["gain"] * state.steps
        return (State(position, state.velocity, state.steps + 1), {"pair": Pair(pair.right, pair.left)},
                [r * 2 for r in rest], more["z"] - 1)

    state = State(X, np.ones((3, 4)), 2)
    args = (state, {"gain": np.float32(3)}, Pair(1.5, X), X, X.T)
    got, want = run(f, *args, z=X), f(*args, z=X)
    assert isinstance(got[0], State) and got[0].steps == 3 and got[0].velocity is state.velocity
    assert np.array_equal(got[0].position, want[0].position)
    assert got[1]["pair"] == Pair(X, 1.5) or (got[1]["pair"].left is X and got[1]["pair"].right == 1.5)
    assert all(np.array_equal(a, b) for a, b in zip(got[2], want[2])) and np.array_equal(got[3], want[3])


def test_keys_hold_types_and_static_values_only() -> None:
    def key(*args: Any, **kwargs: Any) -> Any:
        return bind(Parameters.of(lambda x, y=0: x), args, kwargs).key

    assert key(X) == key(X + 1) and key(1.0) == key(2.0) and key(X, y=0) == key(X)
    different = [key(X), key(X.T), key(X.astype("f4")), key(X[:2]), key(1.0), key(1), key(2), key(True),
                 key(np.float64(1)),
                 key(None), key("a"), key([X]), key((X,)), key({"a": X}), key({"b": X}), key(slice(1)), key(1j),
                 key(np.float32)]
    assert len(set(different)) == len(different)
    assert len({key_text(k) for k in different}) == len(different)
    assert "0x" not in key_text(key(State(X, 1, 2)))


def test_arrays_that_must_be_copied_are_marked() -> None:
    swapped, records = X.astype(">f8"), np.zeros(3, [("a", "i1"), ("b", "f8")])["b"]
    misaligned = np.frombuffer(bytes(33), np.uint8)[1:].view("f8")
    assert bind(Parameters.of(lambda a, b, c, d: a), (X, swapped, records, misaligned), {}).copies == (1, 2, 3)


# -- hints and compute --------------------------------------------------------------------------------------------


def test_hints_change_nothing_and_reach_the_graph() -> None:
    def f(a: Any) -> Any:
        c = hint(a @ a.T).tile(2, 2).vectorize(8)
        return c + 1

    graph = graph_of(f, X)
    steps = [node.attr("steps") for node in graph.nodes if node.op.name == "tensor.hint"]
    assert steps[-1] == (("tile", (2, 2)), ("vectorize", (8,)))
    assert np.allclose(run(f, X), X @ X.T + 1) and np.allclose(f(X), X @ X.T + 1) and type(f(X)) is np.ndarray


def test_unknown_hints_are_refused() -> None:
    with pytest.raises(TracedslError, match="did you mean 'vectorize'") as refused:
        hint(X).vectorise(8)
    assert refused.value.code == "C016"
    with pytest.raises(TracedslError):
        hint(X).tile("a")
    assert hint(X).sum() == X.sum()


def test_compute_is_captured() -> None:
    def f(a: Any, b: Any) -> Any:
        k = reduce_axis(a.shape[1])
        return compute((a.shape[0], b.shape[1]), lambda i, j: k.sum(a[i, k] * b[k, j])) * 2

    assert np.allclose(run(f, X, X.T), X @ X.T * 2)


# -- golden graphs ------------------------------------------------------------------------------------------------


def dense(x: Any, w: Any, b: Any) -> Any:
    return np.maximum(x @ w + b, 0)


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layer_norm(x: Any, eps: float = 1e-5) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + eps)


def heat(u: Any, dt: float, dx: float) -> Any:
    return u[1:-1] + dt / dx ** 2 * (u[2:] - 2 * u[1:-1] + u[:-2])


def attention(q: Any, k: Any, v: Any) -> Any:
    scores = np.einsum("qd,kd->qk", q, k) / math.sqrt(q.shape[-1])
    causal = np.tril(np.ones(scores.shape, dtype=bool))
    return softmax(np.where(causal, scores, -np.inf)) @ v


F4 = np.zeros((3, 4), np.float32)


@pytest.mark.parametrize("function, args", [
    (dense, (F4, np.zeros((4, 5), np.float32), np.zeros(5))), (softmax, (F4,)),
    (layer_norm, (np.zeros((2, 8), np.float16),)),
    (heat, (np.zeros(9), 0.1, 0.5)), (attention, (F4, F4, F4)),
], ids=lambda v: getattr(v, "__name__", ""))
def test_golden_graphs(function: Callable[..., Any], args: Any, golden: Callable[[str, str], None]) -> None:
    graph = graph_of(function, *args)
    verify(graph)
    head = function.__code__.co_firstlineno
    lines = [line.split("  # ")[0].rstrip() for line in str(graph).splitlines()]
    spans = [f"line {n.span.line - head}" if n.span and function is not attention else "" for n in graph.operations()]
    body = [f"{line:<90} # {span}" if span else line for line, span in zip(lines[1:], spans)]
    golden(f"graph/{function.__name__}.txt", "\n".join([lines[0], *body, *lines[len(body) + 1:]]))


def test_interfaces_survive_json() -> None:
    bound, snapshot = bind(Parameters.of(heat), (np.zeros(9), 0.1, 0.5), {}), Environment(heat).snapshot()
    interface = capture_kernel(heat, bound, snapshot).interface
    import json

    assert Interface.from_json(json.loads(json.dumps(interface.to_json()))) == interface
    assert interface.gather((np.zeros(9), 0.1, 0.5), ())[1:] == [0.1 / 0.5 ** 2]


def test_capture_is_the_same_each_time() -> None:
    assert str(graph_of(attention, F4, F4, F4)) == str(graph_of(attention, F4, F4, F4))


def test_a_refused_helper_leaves_nothing_half_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_taken.py").write_text("TABLE = [len, print]\ndef pick(x):\n    return TABLE[0](x)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import half_taken  # type: ignore[import-not-found]

    def f(x: Any) -> Any:
        return half_taken.pick(x)

    snapshot = Environment(f).snapshot()
    assert all(key for _, key in snapshot.key)
    with pytest.raises(Unsupported):
        capture_kernel(f, bind(Parameters.of(f), (np.ones(3),), {}), snapshot)
