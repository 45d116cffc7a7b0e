"""`@kernel` end to end: what runs as machine code gives NumPy's values, dtypes, shapes, kinds and aliasing."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracedsl import Unsupported, compute, hint, kernel, reduce_axis
from tracedsl.cache import Store
from tracedsl.diagnostics import TracedslError, TracedslWarning
from tracedsl.kernel import MAX_VARIANTS, Kernel

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(7)
W = RNG.standard_normal((7, 5))
SCALE = 3.0


def same(ours: Any, theirs: Any, *, rtol: float | None = None) -> None:
    """Equal kinds, dtypes, shapes; equal values, within rounding for floats."""
    assert type(ours) is type(theirs), (type(ours), type(theirs))
    if isinstance(theirs, tuple | list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs):
            same(a, b, rtol=rtol)
        return
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for name in theirs:
            same(ours[name], theirs[name], rtol=rtol)
        return
    a, b = np.asarray(ours), np.asarray(theirs)
    assert a.dtype == b.dtype and a.shape == b.shape, (a.dtype, b.dtype, a.shape, b.shape)
    if a.dtype.kind in "fc":
        eps = float(np.finfo(a.dtype).eps)
        np.testing.assert_allclose(a, b, rtol=rtol or 64 * eps, atol=64 * eps, equal_nan=True)
    else:
        np.testing.assert_array_equal(a, b)


def check(function: Callable[..., Any], *args: Any, native: bool = True, rtol: float | None = None) -> Kernel:
    """The decorated function against the plain one; `native`: it must have run as machine code."""
    decorated = kernel(function)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        theirs = function(*args)
        ours = decorated(*args)
    assert decorated.compiled == native, decorated.explain()
    same(ours, theirs, rtol=rtol)
    return decorated


def arrays(dtype: str, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    result = []
    for shape in shapes:
        if dtype == "bool":
            result.append(RNG.integers(0, 2, shape).astype(bool))
        elif np.dtype(dtype).kind in "iu":
            result.append(RNG.integers(1, 50, shape).astype(dtype))
        elif np.dtype(dtype).kind == "c":
            result.append((RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)).astype(dtype))
        else:
            result.append(RNG.standard_normal(shape).astype(dtype))
    return result


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "chain": lambda a, b: (a + b) * a - b,
    "broadcast": lambda a, b: a[:, None, :] * b[None, :, :],
    "row_sum": lambda a, b: (a * b).sum(axis=1),
    "column_sum": lambda a, b: (a + b).sum(axis=0, keepdims=True),
    "total": lambda a, b: (a * b).sum(),
    "max_min": lambda a, b: a.max(axis=1) - b.min(axis=1),
    "matmul": lambda a, b: a @ b.T,
    "dot": lambda a, b: np.dot(a[0], b[0]),
    "einsum": lambda a, b: np.einsum("ij,kj->ik", a, b),
    "where": lambda a, b: np.where(a > b, a, b),
    "slices": lambda a, b: a[1:-1, ::2] + b[:-2, ::2],
    "reverse": lambda a, b: a[::-1, ::-1] - b,
    "transpose": lambda a, b: a.T.copy() + b.transpose(),
    "reshape": lambda a, b: (a.reshape(-1) + b.ravel()).reshape(7, 9),
    "concatenate": lambda a, b: np.concatenate([a, b * a], axis=1),
    "stack": lambda a, b: np.stack([a, b], axis=-1),
    "cast": lambda a, b: a.astype(np.float32) + b.astype("int64"),
    "zeros": lambda a, b: np.zeros(a.shape, a.dtype) + a + np.ones_like(b),
    "two_results": lambda a, b: (a + b, {"low": a.min(), "both": [a, b * 2]}),
    "compare": lambda a, b: (a >= b) & (a != 3),
    "minimum": lambda a, b: np.minimum(a, b) + np.maximum(a, 2),
    "any_all": lambda a, b: ((a > b).any(axis=0), (a > b).all()),
}
REAL = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"]
NOT_FOR_BOOL = {"chain", "max_min", "reverse", "minimum"}


@pytest.mark.parametrize("dtype", REAL)
def test_functions_on_every_dtype(dtype: str) -> None:
    a, b = arrays(dtype, (7, 9), (7, 9))
    for name, function in FUNCTIONS.items():
        if not (dtype == "bool" and name in NOT_FOR_BOOL):
            rtol = 1e-2 if dtype == "float16" else 1e-5 if dtype == "float32" else None
            check(function, a, b, rtol=rtol)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("name", ["chain", "broadcast", "row_sum", "total", "matmul", "slices", "transpose", "stack"])
def test_complex(dtype: str, name: str) -> None:
    check(FUNCTIONS[name], *arrays(dtype, (7, 9), (7, 9)), rtol=1e-4)


def test_complex_parts() -> None:
    (z,) = arrays("complex128", (6, 5))
    check(lambda z: (np.abs(z), z.real, z.imag + 1, np.conj(z) / (z + 2), (z == z.T.T)), z)


MATH = ["exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "arcsin", "arccos", "arctan",
        "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "sqrt", "cbrt", "square", "reciprocal", "floor",
        "ceil", "trunc", "rint", "sign", "isnan", "isinf", "isfinite", "signbit", "absolute"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_functions_of_one_argument_on_hard_values(dtype: str) -> None:
    info = np.finfo(dtype)
    hard = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, info.max, info.min, info.tiny, info.smallest_subnormal,
                     0.5, -0.5, 2.5, 1e-3, 10, -10, 0.999, 3.14159], dtype)
    values = np.concatenate([hard, RNG.standard_normal(200).astype(dtype) * 3])
    for name in MATH:
        function = getattr(np, name)
        check(lambda x: function(x), values, rtol=4 * float(info.eps))  # noqa: B023 - called at once


def test_shapes_that_are_easy_to_get_wrong() -> None:
    for shape in [(), (1,), (0,), (0, 3), (3, 0), (1, 1, 1), (17,), (2, 3, 5), (1, 64), (64, 1), (33, 65)]:
        (x,) = arrays("float64", shape)
        check(lambda x: x * 2 + 1, x)
        check(lambda x: np.exp(x).sum(), x)
        check(lambda x: (x + x).sum(axis=tuple(range(x.ndim))), x)
        if len(shape) > 1:
            check(lambda x: x.sum(axis=-1), x)
            check(lambda x: x.mean(axis=0) if x.shape[0] else x, x)


def test_layouts_are_read_where_they_are() -> None:
    (base,) = arrays("float32", (12, 20))
    swapped = base.astype(">f4")
    odd = np.frombuffer(b"\0" + base.tobytes(), dtype=np.uint8)[1:].view("f4").reshape(base.shape)
    readonly = base.copy()
    readonly.flags.writeable = False
    for x in (base.T, base[::2, ::3], base[::-1, ::-1], np.broadcast_to(base[0], (5, 20)), np.asfortranarray(base),
              swapped, odd, readonly):
        check(lambda x: np.tanh(x) + x.sum(axis=0), x, rtol=1e-5)


def test_a_million_elements_on_all_threads() -> None:
    a, b = arrays("float32", (1024, 1500), (1024, 1500))
    check(lambda a, b: (a * b + np.exp(-a * a)).sum(axis=1), a, b, rtol=1e-4)
    check(lambda a, b: np.sqrt(a * a + b * b), a, b)
    k = kernel(lambda a: a.sum())
    exact = a.astype("f8").sum()
    assert abs(float(k(a)) - exact) <= abs(float(a.sum()) - exact) + 1e-7 * np.abs(a).sum()


def test_results_do_not_depend_on_threads() -> None:
    from tracedsl.hw.cpu.pool import get_num_threads, set_num_threads

    (a,) = arrays("float32", (700, 900))
    k = kernel(lambda a: (np.exp(a).sum(), a @ a.T, a.sum(axis=0)))
    before = get_num_threads()
    try:
        results = []
        for threads in (1, before, 2):
            set_num_threads(threads)
            results.append(k(a))
    finally:
        set_num_threads(before)
    for other in results[1:]:
        for x, y in zip(results[0], other):
            np.testing.assert_array_equal(x, y)


def test_matmul_with_tails_and_epilogue() -> None:
    for m, n, p in [(1, 1, 1), (5, 7, 3), (65, 33, 129), (200, 100, 1), (1, 300, 64), (97, 512, 101)]:
        x, w = arrays("float64", (m, n), (n, p))
        (b,) = arrays("float64", (p,))
        check(lambda x, w, b: np.maximum(x @ w + b, 0), x, w, b, rtol=1e-10)
        check(lambda x, w: x @ w, np.asfortranarray(x), np.asfortranarray(w), rtol=1e-10)
    a, b = arrays("float32", (6, 9, 11), (6, 11, 4))
    check(lambda a, b: a @ b, a, b, rtol=1e-5)


# -- drop-in ------------------------------------------------------------------------------------------------------


def test_identity_and_views_are_numpys() -> None:
    (x,) = arrays("float64", (4, 6))
    k = kernel(lambda x: (x, x[1:, ::2], x.T, x + 1))
    same_object, part, turned, fresh = k(x)
    assert same_object is x and np.shares_memory(part, x) and np.shares_memory(turned, x)
    assert not np.shares_memory(fresh, x) and fresh.flags.owndata
    part[:] = 0
    assert (x[1:, ::2] == 0).all()


def test_python_numbers_stay_weak_and_are_not_compiled_in() -> None:
    (x,) = arrays("float32", (50,))

    def f(x: Any, s: float) -> Any:
        return x * s + 1

    k = kernel(f)
    for s in (0.5, 2.0, -1.25):
        same(k(x, s), f(x, s))
    assert len(k._variants) == 1


def test_outer_names_are_followed() -> None:
    global SCALE
    k = kernel(outer)
    (x,) = arrays("float64", (3, 7))
    before = SCALE
    try:
        same(k(x), outer(x))
        SCALE = 5.0
        same(k(x), outer(x))
        W[0, 0] += 1
        same(k(x), outer(x))
    finally:
        SCALE = before
    assert k.compiled


def outer(x: Any) -> Any:
    return helper(x @ W) * SCALE


def helper(y: Any) -> Any:
    return np.tanh(y) + 1


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any


def swap(pair: Pair, *, factor: int = 2) -> Pair:
    return Pair(pair.right * factor, pair.left + 1)


def test_dataclasses_keywords_and_methods() -> None:
    a, b = arrays("float64", (3,), (3,))
    k = kernel(swap)
    ours, theirs = k(Pair(a, b), factor=3), swap(Pair(a, b), factor=3)
    assert type(ours) is Pair and k.compiled
    same(ours.left, theirs.left)

    class Model:
        @kernel
        def step(self, x: Any) -> Any:
            return x + self.offset

        offset = 1.0

    with pytest.warns(TracedslWarning):
        same(Model().step(a), a + 1.0)


def test_errors_are_numpys() -> None:
    a, b = arrays("float64", (3, 4), (3, 4))
    k = kernel(lambda a, b: a @ b)
    with pytest.warns(TracedslWarning), pytest.raises(ValueError, match="matmul"):
        k(a, b)
    with pytest.raises(TypeError):
        k(a)


def branches(x: Any) -> Any:
    if x.sum() > 0:
        return np.sort(x)
    return -x


def test_what_cannot_be_captured_runs_in_numpy_and_says_why_once() -> None:
    k = kernel(branches)
    with pytest.warns(TracedslWarning, match="runs in plain NumPy") as caught:
        for sign in (1, -1):
            x = np.full(3, sign, dtype=float)
            same(k(x), branches(x))
    assert len(caught) == 1 and not k.compiled
    assert "C005" in k.explain() and "np.where" in k.explain()


def test_strict_raises_with_line_and_caret() -> None:
    with pytest.raises(Unsupported) as caught:
        kernel(strict=True)(branches)(np.ones(3))
    text = str(caught.value)
    assert "test_kernel.py" in text and "if x.sum() > 0" in text and "^^^" in text and "what to do" in text


def test_object_and_ragged_input_runs_in_numpy() -> None:
    k = kernel(lambda x: x + x)
    with pytest.warns(TracedslWarning):
        assert k(np.array(["a", "b"], dtype=object)).tolist() == ["aa", "bb"]
    with pytest.raises(ValueError, match="inhomogeneous"):
        k(np.array([[1, 2], [3]]))


def test_a_function_that_raises_half_way_raises_the_same() -> None:
    def f(x: Any) -> Any:
        y = x + 1
        raise RuntimeError("half way")
        return y

    with pytest.warns(TracedslWarning), pytest.raises(RuntimeError, match="half way"):
        kernel(f)(np.ones(3))


def test_a_fault_of_the_compiler_is_no_fault_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **options: Any) -> Any:
        raise IndexError("inside the compiler")

    monkeypatch.setattr("tracedsl.rewrite.tensor.lower.lower", broken)
    with pytest.warns(TracedslWarning, match="K003"):
        same(kernel(lambda x: x + 1)(np.ones(3)), np.full(3, 2.0))
    with pytest.raises(IndexError, match="inside"):
        kernel(strict=True)(lambda x: x + 1)(np.ones(3))


def test_only_functions_can_be_decorated() -> None:
    with pytest.raises(TypeError, match="plain Python function"):
        kernel(np.sin)  # type: ignore[arg-type]
    assert kernel(kernel(branches)).function is branches


def test_no_recompile_storm() -> None:
    k = kernel(lambda x: x + 1)
    with pytest.warns(TracedslWarning, match="K001"):
        for n in range(MAX_VARIANTS + 3):
            same(k(np.zeros(n)), np.zeros(n) + 1)
    assert len(k._variants) <= MAX_VARIANTS + 3 and "K001" in k.explain()


# -- the tensor expression by hand, and hints -----------------------------------------------------------------------


def by_hand(a: Any, b: Any) -> Any:
    k = reduce_axis(a.shape[1])
    return compute((a.shape[0], b.shape[1]), lambda i, j: k.sum(a[i, k] * b[k, j]))


def test_compute_runs_in_numpy_and_compiled() -> None:
    a, b = arrays("float64", (13, 8), (8, 21))
    np.testing.assert_allclose(by_hand(a, b), a @ b)
    check(by_hand, a, b)


def hinted(x: Any, w: Any) -> Any:
    return hint(x @ w).tile(4, 32).vectorize(16).unroll(2) + 1


def test_hints_are_no_ops_in_numpy_and_schedule_the_loops() -> None:
    x, w = arrays("float32", (40, 30), (30, 64))
    plain = hinted(x, w)
    assert type(plain) is np.ndarray
    k = check(hinted, x, w, rtol=1e-5)
    unhinted = kernel(lambda x, w: x @ w + 1).show("schedule", x, w)
    assert "vector" in k.show("schedule") and k.show("schedule") != unhinted


def test_a_printed_schedule_can_be_pasted_as_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = arrays("float32", (40, 30), (30, 64))
    plain = kernel(lambda x, w: x @ w)
    pasted = plain.show("hint", x, w).replace("value", "x @ w")
    assert pasted.startswith("hint(x @ w).")
    (tmp_path / "pasted_hint.py").write_text(f"from tracedsl import hint\ndef f(x, w):\n    return {pasted}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import pasted_hint  # type: ignore[import-not-found]

    np.testing.assert_array_equal(pasted_hint.f(x, w), x @ w)
    again = kernel(pasted_hint.f)
    np.testing.assert_allclose(again(x, w), x @ w, rtol=1e-4, atol=1e-4)
    assert again.compiled and again.show("schedule") == plain.show("schedule", x, w)


# -- show, cache, processes -----------------------------------------------------------------------------------------


def test_show_every_stage() -> None:
    (x,) = arrays("float32", (64, 100))
    k = kernel(lambda x: np.exp(x).sum(axis=1))
    with pytest.raises(TracedslError, match="nothing"):
        k.show("graph")
    k(x)
    assert "tensor.exp" in k.show("graph") and "parallel" in k.show("loops") and "vector" in k.show("loops")
    assert "define" in k.show("llvm") and "ret" in k.show("asm") and "task" in k.show("tasks")
    with pytest.raises(TracedslError, match="did you mean 'loops'"):
        k.show("loop")


SCRIPT = """
import sys, numpy as np
from tracedsl import kernel
@kernel
def f(x):
    return np.exp(x).sum(axis=1) * FACTOR
FACTOR = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
x = np.arange(12, dtype="f4").reshape(3, 4) / 10
assert np.allclose(f(x), np.exp(x).sum(axis=1) * FACTOR)
print("cached" if f.from_cache else "compiled")
print(f.explain())
"""


def script(tmp_path: Path, *args: str) -> subprocess.Popen[str]:
    path = tmp_path / "user_script.py"
    path.write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TRACEDSL_CACHE": str(tmp_path / "cache")}
    return subprocess.Popen([sys.executable, str(path), *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def test_the_next_process_loads_from_disk_and_a_change_is_explained(tmp_path: Path) -> None:
    assert finish(script(tmp_path)).startswith("compiled")
    assert finish(script(tmp_path)).startswith("cached")
    changed = finish(script(tmp_path, "3.5"))
    assert changed.startswith("compiled") and "changed since the nearest entry: surroundings" in changed


def test_a_damaged_cache_is_compiled_anew(tmp_path: Path) -> None:
    finish(script(tmp_path))
    for path in (tmp_path / "cache").glob("entries/kernel/*/*.entry"):
        data = bytearray(path.read_bytes())
        data[-10] ^= 1
        path.write_bytes(bytes(data))
    assert finish(script(tmp_path)).startswith("compiled")
    assert finish(script(tmp_path)).startswith("cached")


def test_processes_that_race_compile_once(tmp_path: Path) -> None:
    outputs = [finish(p) for p in [script(tmp_path) for _ in range(4)]]
    assert sum(out.startswith("compiled") for out in outputs) == 1
    assert len(list((tmp_path / "cache").glob("entries/kernel/*/*.entry"))) == 1


def test_threads_that_call_first_at_once(tmp_path: Path) -> None:
    k = kernel(store=Store(tmp_path / "s"))(lambda x: np.exp(x) + x)
    (x,) = arrays("float64", (1000,))
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(k(x))) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 8 and len(k._variants) == 1
    for result in results:
        same(result, np.exp(x) + x)


def test_a_read_only_cache_changes_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    k = kernel(store=Store(blocked))(lambda x: x + 1)
    with pytest.warns(TracedslWarning, match="A003"):
        same(k(np.ones(3)), np.full(3, 2.0))
    assert k.compiled


def test_tuning_keeps_the_result_and_records_its_trials(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")

    def f(x: Any, w: Any) -> Any:
        return np.maximum(x @ w, 0)

    x, w = arrays("float32", (64, 48), (48, 80))
    same(kernel(tune=4, store=store)(f)(x, w), f(x, w), rtol=1e-4)
    lines = (store.root / "records" / "kernels.jsonl").read_text().splitlines()
    assert 1 <= len(lines) <= 4
    store.prune(kind="kernel")
    kernel(tune=4, store=store)(f)(x, w)
    assert (store.root / "records" / "kernels.jsonl").read_text().splitlines() == lines


# -- a fuzzer -----------------------------------------------------------------------------------------------------

UNARY = ("-{a}", "np.abs({a})", "np.tanh({a})", "np.square({a})", "np.where({a} > 0, {a}, 0.25)", "{a}[::-1]",
         "{a} - {a}.mean()", "{a}.clip(-1, 1)", "np.exp(-np.abs({a}))", "{a}.T.copy().T", "{a}[1:]",
         "{a}.reshape(-1)", "{a}.astype(np.float32)", "({a} > 0.1) * 2")
BINARY = ("{a} + {b}", "{a} - {b}", "{a} * {b}", "np.maximum({a}, {b})", "np.where({a} < {b}, {a}, {b})",
          "{a} / (1 + {b} * {b})", "np.concatenate([{a}, {b}])", "{a}[..., None] * {b}[..., None, :]", "{a} @ {b}.T",
          "np.stack([{a}, {b}], axis=-1)")
REDUCE = ("{a}.sum(axis={n})", "{a}.max(axis={n}, keepdims=True)", "{a}.mean(axis={n})",
          "{a} - {a}.min(axis={n}, keepdims=True)", "({a} * {a}).sum()", "{a}.std(axis={n})")


def random_program(rng: np.random.Generator, a: Any, b: Any) -> str:
    """The text of a program over `v0` and `v1` whose every line NumPy can run."""
    values, lines = {"v0": a, "v1": b}, []
    for _ in range(int(rng.integers(2, 9))):
        names = list(values)
        one, two = (names[int(rng.integers(len(names)))] for _ in range(2))
        forms = (UNARY, BINARY, REDUCE)[int(rng.integers(3))]
        axis = int(rng.integers(max(1, np.ndim(values[one]))))
        text = forms[int(rng.integers(len(forms)))].format(a=one, b=two, n=axis)
        try:
            value = eval(text, {"np": np}, values)  # noqa: S307 - text that was made two lines above
        except (ValueError, TypeError, IndexError, AttributeError):
            continue
        if np.size(value) <= 4000:
            values[f"v{len(values)}"] = value
            lines.append(f"    v{len(values) - 1} = {text}")
    results = ", ".join(list(values)[-3:])
    return "import numpy as np\ndef f(v0, v1):\n" + "\n".join([*lines, f"    return {results}"]) + "\n"


def test_random_programs(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Programs as a user would write them, in files, through machine code, against NumPy: values, dtypes, kinds."""
    import importlib.util

    count = 3000 if request.config.getoption("--long") else 150
    native = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        shape = tuple(int(n) for n in rng.integers(1, 36 if seed % 3 else 6, int(rng.integers(1, 4))))
        a, b = (rng.standard_normal(shape).astype(("float64", "float32")[seed % 2]) for _ in range(2))
        if seed % 5 == 0:
            a = np.asfortranarray(a)
        if seed % 7 == 0:
            a, b = a[::-1], b[::-1]
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            text = random_program(rng, a, b)
            path = tmp_path / f"random_{seed}.py"
            path.write_text(text)
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            k = kernel(module.f)
            ours, theirs = k(a, b), module.f(a, b)
        native += k.compiled
        for x, y in zip(ours, theirs, strict=True):
            assert type(x) is type(y) and np.shape(x) == np.shape(y), text
            assert np.asarray(x).dtype == np.asarray(y).dtype, text
            scale = float(np.max(np.abs(y), initial=1.0, where=np.isfinite(y)))
            rtol = 1e-3 if "float32" in (a.dtype.name, np.asarray(y).dtype.name) or "float32" in text else 1e-9
            np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * scale, err_msg=text)
    assert native >= 0.95 * count, f"{native} of {count} ran as machine code"


@pytest.mark.parametrize(("shape", "in_blocks"), [((256, 600), True), ((2, 320, 512), True), ((136, 513), False),
                                                  ((130, 700), False)])
@pytest.mark.parametrize("kind", ["sum", "max", "min"])
def test_reductions_across_long_rows_take_blocks_of_rows(kind: str, shape: tuple[int, ...], in_blocks: bool) -> None:
    """Blocks of up to 64 rows where they divide; sums are at least as accurate as NumPy's, which adds row by row."""
    x = (1 + np.random.default_rng(0).random(shape) / 64).astype(np.float32)
    axis = len(shape) - 2
    k = kernel(lambda a: getattr(np, kind)(a, axis=axis) + 1, strict=True)
    exact = getattr(np, kind)(x.astype(np.float64), axis=axis) + 1
    error = np.abs(getattr(np, kind)(x, axis=axis) + 1 - exact).max()
    assert np.abs(k(x) - exact).max() <= max(error, 2 * np.spacing(np.float32(exact.max())))
    assert ("in 8]" in k.show("tasks", x)) == in_blocks


def escape_steps(cr, ci):  # type: ignore[no-untyped-def]
    zr, zi, count = np.zeros_like(cr), np.zeros_like(cr), np.zeros(cr.shape, np.int32)
    for _ in range(50):
        inside = zr * zr + zi * zi <= 4
        count = count + inside
        zr, zi = np.where(inside, zr * zr - zi * zi + cr, zr), np.where(inside, 2 * zr * zi + ci, zi)
    return count


def test_a_long_loop_over_arrays_is_unrolled() -> None:
    """Fifty steps of whole arrays are one task, not fifty passes over memory, and not left to NumPy."""
    cr, ci = (np.ascontiguousarray(a, np.float32) for a in np.meshgrid(np.linspace(-2, 1, 40), np.linspace(-1, 1, 30)))
    f = kernel(strict=True)(escape_steps)
    got = f(cr, ci)
    assert f.compiled and (got != escape_steps(cr, ci)).mean() < 0.01     # a fused step may escape one round apart
