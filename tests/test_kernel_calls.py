"""Calls after the first: what is served natively, what goes back to Python, and that both give NumPy's answer."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tracedsl import kernel
from tracedsl.diagnostics import TracedslWarning
from tracedsl.hw.cpu import entry
from tracedsl.hw.cpu.entry_type import can_call_natively
from tracedsl.kernel import Kernel

pytestmark = pytest.mark.skipif(not can_call_natively(), reason="no native calls on this interpreter")
RNG = np.random.default_rng(3)
SCALE: Any = 2.0
TABLE: Any = np.arange(5.0)
SETTINGS = types.ModuleType("settings")
SETTINGS.rate = 0.5  # type: ignore[attr-defined]


def same(got: Any, want: Any) -> None:
    assert type(got) is type(want)
    if isinstance(want, tuple):
        assert len(got) == len(want)
        for a, b in zip(got, want):
            same(a, b)
    elif not isinstance(want, np.ndarray | np.generic):
        assert got == want
    else:
        assert got.dtype == want.dtype and got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-6)


def warmed(function: Callable[..., Any], *args: Any) -> Kernel:
    """The function as a kernel that serves calls like this one natively."""
    k = kernel(function)
    for _ in range(3):
        same(k(*args), function(*args))
    assert natively(k), k.explain()
    return k


def natively(k: Kernel) -> bool:
    """Whether the last call was served without Python."""
    return k.compiled and k._latest != 0  # type: ignore[attr-defined]


def add(a: Any, b: Any) -> Any:
    return a + b


def scaled(a: Any, s: Any) -> Any:
    return a * s


def powers(a: Any, n: int) -> Any:
    return a ** n if n else a


def outer(a: Any) -> Any:
    return a * SCALE


def with_table(a: Any) -> Any:
    return a + TABLE


def with_module(a: Any) -> Any:
    return a * SETTINGS.rate  # type: ignore[attr-defined]


@kernel
def by_name(a: Any) -> Any:
    return a + 1


@pytest.fixture(autouse=True)
def _outer_names() -> Iterator[None]:
    global SCALE, TABLE
    scale, table = SCALE, TABLE
    yield
    SCALE, TABLE = scale, table


X = RNG.standard_normal(5)
F = X.astype("f4")


def test_the_first_call_needs_no_entry_point() -> None:
    k = kernel(add)
    k(X, X)
    assert k._native is None and not natively(k) and k.compiled
    k(X, X)
    same(k(X, X), X + X)
    assert natively(k) and "* " in k.explain()


@pytest.mark.parametrize("other", [
    (F, X), (X[:4], X[:4]), (X[::-1], X), (X[None], X), (X.astype(">f8"), X), (np.asfortranarray(np.ones((2, 5))), X),
    (np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view("f8"), X), (X, 2.0), (X, np.float64(2)), (X, 3), ([X, X], X),
    (np.zeros((0, 5)), X), (np.array(1.5), X), (X + 1j, X),
], ids=str)
def test_calls_unlike_the_first_get_their_own_answer(other: Any) -> None:
    k = warmed(add, X, X)
    for _ in range(3):
        same(k(*other), add(*other))
        same(k(X, X), X + X)
        assert natively(k)


def test_subclasses_and_objects_are_numpys() -> None:
    k = warmed(add, X, X)
    masked, matrix = np.ma.masked_array(X, X > 0), np.asmatrix(X)
    with pytest.warns(TracedslWarning, match="K|C"):
        got = k(masked, X)
    assert type(got) is np.ma.MaskedArray and not k.compiled
    assert (got.mask == (X > 0)).all()
    assert type(k(matrix, X)) is np.matrix
    assert k(X.astype(object), X).dtype == object
    same(k(X, X), X + X)
    assert natively(k)


def test_wrong_calls_raise_what_python_raises() -> None:
    k = warmed(add, X, X)
    for args, kwargs in [((X,), {}), ((X, X, X), {}), ((X, X), {"c": 1}), ((X,), {"a": X})]:
        with pytest.raises(TypeError):
            k(*args, **kwargs)
    with pytest.raises(ValueError, match="broadcast"), pytest.warns(TracedslWarning):
        k(X, X[:3])
    same(k(X, b=X), X + X)


def test_arrays_out_of_a_pickle_are_served() -> None:
    k = warmed(add, X, X)
    copied = pickle.loads(pickle.dumps(X))  # noqa: S301 - our own bytes
    assert copied.dtype is not X.dtype, "otherwise this tests nothing"
    k._latest = 0  # type: ignore[attr-defined]
    same(k(copied, X), X + X)
    assert natively(k)


def test_strided_arrays_are_served_where_they_are() -> None:
    a = RNG.standard_normal((6, 8))
    for view in (a.T, a[::2, 1:], a[::-1], np.broadcast_to(a[0], (3, 8))):
        k = warmed(scaled, view, 2.0)
        same(k(view, 3.0), view * 3.0)
        assert natively(k)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_numbers_take_the_arrays_dtype(dtype: str) -> None:
    x = X.astype(dtype)
    k = warmed(scaled, x, 2.0)
    for number in (0.1, -0.0, 1e300, float("nan")):
        with np.errstate(all="ignore"):
            same(k(x, number), x * number)
        assert natively(k)
    k = warmed(scaled, x, np.float64(0.1))
    same(k(x, np.float64(0.7)), x * np.float64(0.7))
    assert natively(k)


def test_compiled_in_values_are_told_apart_by_type() -> None:
    k = warmed(powers, X, 3)
    for n in (2, 0, True, 3, False):
        same(k(X, n), powers(X, n))
    k = warmed(lambda a, n: a + n, X, 1234567)
    same(k(X, int("1234567")), X + 1234567)
    assert natively(k), "equal, though not the same object"


def test_defaults_are_part_of_the_call() -> None:
    def shifted(a: Any, by: float = 1.5, times: int = 2) -> Any:
        return (a + by) * times

    k = warmed(shifted, X)
    same(k(X, 2.5), shifted(X, 2.5))
    same(k(X, 2.5, 3), shifted(X, 2.5, 3))
    same(k(X), shifted(X))
    assert natively(k)


@pytest.mark.parametrize("function", [
    lambda a: (a + 1, a * 2), lambda a: (a.sum(), a), lambda a: (a.max(), None, 3), lambda a: a.sum(),
    lambda a: a,
    lambda a: (),
    lambda a: a.astype("c16").sum(), lambda a: a[None, :, None] * a, lambda a: (a > 0).any(),
    lambda a: ((a + 1) @ np.ones((5, 5))).sum(axis=0),
], ids=range(10))
def test_results_of_every_kind(function: Any) -> None:
    k = warmed(function, X)
    got, want = k(X), function(X)
    for a, b in zip(got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,)):
        assert (a is X) == (b is X)
        assert not isinstance(b, np.ndarray) or (a.flags.owndata and a.flags.writeable)


# -- outer names --------------------------------------------------------------------------------------------------


def test_a_changed_number_is_noticed() -> None:
    global SCALE
    k = warmed(outer, X)
    for value in (3.0, 2.0, 7, np.float32(2), 3.0):
        SCALE = value
        for _ in range(3):
            same(k(X), outer(X))


def test_a_replaced_array_is_noticed_and_served() -> None:
    global TABLE
    k = warmed(with_table, X)
    TABLE = np.full(5, 10.0)
    same(k(X), with_table(X))
    assert natively(k)
    TABLE[2] = -1
    same(k(X), with_table(X))
    assert natively(k)
    TABLE.shape = (5, 1)
    same(k(X), with_table(X))
    TABLE = 4.0
    same(k(X), with_table(X))
    TABLE = np.arange(5.0)
    same(k(X), with_table(X))


def test_a_deleted_name_is_noticed() -> None:
    k = warmed(outer, X)
    kept = globals().pop("SCALE")
    try:
        with pytest.raises(NameError), pytest.warns(TracedslWarning):
            k(X)
    finally:
        globals()["SCALE"] = kept
    same(k(X), outer(X))


def test_names_of_modules_and_cells_are_followed() -> None:
    k = warmed(with_module, X)
    SETTINGS.rate = 4.0  # type: ignore[attr-defined]
    same(k(X), with_module(X))
    SETTINGS.rate = 0.5  # type: ignore[attr-defined]
    same(k(X), with_module(X))

    factor = 3.0

    def closed(a: Any) -> Any:
        return a * factor

    k = warmed(closed, X)
    factor = 5.0
    same(k(X), X * 5.0)


def test_other_changes_of_the_module_cost_no_python() -> None:
    global SCALE
    k = warmed(outer, X)
    globals()["UNRELATED"] = 1
    k._latest = 0  # type: ignore[attr-defined]
    same(k(X), outer(X))
    assert natively(k)


def test_without_versions_of_dicts_names_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    global SCALE
    entry.native.cache_clear()
    monkeypatch.setattr(entry, "_dicts_have_versions", lambda at: False)
    try:
        k = warmed(outer, X)
        assert k._native is not None and k._native._dispatch is not None and not k._native._dispatch.versions
        SCALE = 9.0
        same(k(X), outer(X))
    finally:
        entry.native.cache_clear()


def test_an_interpreter_that_looks_different_is_served_by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    entry.native.cache_clear()
    monkeypatch.setattr(entry, "_as_expected", lambda at: False)
    try:
        k = kernel(add)
        for _ in range(4):
            same(k(X, X), X + X)
        assert k.compiled and not natively(k)
    finally:
        entry.native.cache_clear()


# -- arguments that are written -----------------------------------------------------------------------------------


def adds_into(a: Any, b: Any, out: Any) -> Any:
    np.add(a, b, out=out)


def assigns(a: Any, b: Any, out: Any) -> Any:
    out[...] = a * 2 + b
    return out


def accumulates(a: Any, b: Any, out: Any) -> Any:
    out += a
    return out.sum(), out[1:]


def shifts(a: Any, b: Any, out: Any) -> Any:
    out[1:] = out[:-1]
    b[0] = 5
    return a + out


def reads_after(a: Any, b: Any, out: Any) -> Any:
    out[...] = a
    return a * 2 + b + out


def normalises(a: Any, b: Any, out: Any) -> Any:
    out -= out.max(axis=1, keepdims=True)
    np.exp(out, out)
    out /= out.sum(axis=1, keepdims=True)


def _shifted(memory: Any, b: Any) -> tuple[Any, Any, Any]:
    return memory[:64].reshape(8, 8), b, memory[8:].reshape(8, 8)


WRITERS = [adds_into, assigns, accumulates, shifts, reads_after, normalises]
PLACES: dict[str, Callable[[Any, Any], tuple[Any, Any, Any]]] = {
    "apart": lambda a, b: (a, b, np.ones((8, 8))),
    "same": lambda a, b: (a, b, a),
    "all the same": lambda a, b: (a, a, a),
    "inputs the same": lambda a, b: (a, a, b),
    "transposed": lambda a, b: (a, b, a.T),
    "reversed": lambda a, b: (a, b, b[::-1]),
    "a view of the same": lambda a, b: (a, b, a[:]),
    "shifted": lambda a, b: _shifted(np.arange(72.0), b),
    "fortran": lambda a, b: (a, b, np.ones((8, 8), order="F")),
    "strided": lambda a, b: (a, b, np.ones((8, 16))[:, ::2]),
    "swapped bytes": lambda a, b: (a, b, np.ones((8, 8), ">f8")),
    "misaligned": lambda a, b: (a, b, np.zeros(513, np.uint8)[1:].view("f8").reshape(8, 8)),
    "other dtype": lambda a, b: (a, b, np.ones((8, 8), "f4")),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("function", WRITERS, ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore")
def test_writes_into_arguments_are_numpys(function: Any, place: str) -> None:
    k = kernel(function)
    for _ in range(4):
        runs = []
        for run in (k, function):
            rng = np.random.default_rng(1)
            given = PLACES[place](rng.standard_normal((8, 8)), rng.standard_normal((8, 8)))
            try:
                runs.append((run(*given), given))
            except (TypeError, ValueError) as error:     # casting, such as f8 into f4 by `out=`
                runs.append((type(error), given))
        (got, ours), (want, theirs) = runs
        assert (got is ours[2]) == (want is theirs[2])
        for a, b in zip((*ours, *(got if isinstance(got, tuple) else (got,))),
                        (*theirs, *(want if isinstance(want, tuple) else (want,)))):
            if isinstance(b, np.ndarray | np.generic):
                np.testing.assert_allclose(a, b, rtol=1e-6, err_msg=place)
            else:
                assert a == b


def test_writes_are_served_natively_where_they_can_be() -> None:
    a, b, out = RNG.standard_normal((3, 8, 8))
    for function in (adds_into, assigns, reads_after):
        k = kernel(function)
        for target in (out, a, b, out):
            for _ in range(3):
                k(a, b, target)
            assert natively(k) or target is not out, k.explain()
    k = kernel(adds_into)
    for _ in range(3):
        k(a, b, out)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"), pytest.warns(TracedslWarning, match="read-only"):
        k(a, b, out)


# -- life and death -----------------------------------------------------------------------------------------------


def test_references_are_balanced() -> None:
    def many(a: Any, s: Any, n: int) -> Any:
        return a * s + n, a.sum(), a, n

    args = (X, 0.5, 123456)
    k = warmed(many, *args)
    counted = [*args, X.dtype, np.dtype("f8"), np.ndarray, np.float64, None]
    before = [sys.getrefcount(o) for o in counted]
    for _ in range(1000):
        k(*args)
    del _
    after = [sys.getrefcount(o) for o in counted]
    assert all(abs(a - b) < 20 for a, b in zip(after, before)), (before, after)


def test_kernels_are_copied_and_pickled_by_name_as_functions_are() -> None:
    k = by_name
    assert copy.copy(k) is k and copy.deepcopy(k) is k
    assert pickle.loads(pickle.dumps(k)) is k  # noqa: S301 - our own bytes
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(kernel(add))


def test_a_kernel_can_be_collected() -> None:
    k = warmed(add, X, X)
    gone = weakref.ref(k)
    del k
    gc.collect()
    assert gone() is None


def test_many_shapes_each_get_their_code() -> None:
    k = kernel(add)
    arrays = [RNG.standard_normal(n) for n in range(1, 25)]
    for _ in range(4):
        for a in arrays:
            same(k(a, a), a + a)
    for a in arrays:
        k(a, a)
        assert natively(k)


def test_threads_share_a_workspace_without_sharing_it() -> None:
    def heavy(a: Any) -> Any:
        s = np.exp(a - a.max(axis=1, keepdims=True))
        return (s / s.sum(axis=1, keepdims=True)) @ a

    squares = [RNG.standard_normal((160, 160)) for _ in range(4)]
    k = warmed(heavy, squares[0])
    wrong: list[int] = []

    def work(i: int) -> None:
        want = heavy(squares[i])
        for _ in range(30):
            if not np.allclose(k(squares[i]), want):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_call_that_runs_long_lets_other_threads_run() -> None:
    a = RNG.standard_normal((700, 700))
    k = warmed(lambda a: np.tanh(np.exp(-a * a)) @ a, a)
    turns, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0)            # gives the lock back of its own will

    thread = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10)        # nobody takes the lock by force
    try:
        thread.start()
        before = turns[0]
        for _ in range(5):
            k(a)
        during = turns[0] - before
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
    assert natively(k) and during > 0


ENDING = """
    import numpy as np, threading, time
    from tracedsl import kernel
    @kernel
    def f(a):
        return np.tanh(a) @ a
    a = np.ones(({n}, {n}))
    for _ in range(3):
        f(a)
    def forever():
        while True:
            f(a)
    for _ in range(3):
        threading.Thread(target=forever, daemon=True).start()
    time.sleep(0.1)
    print("end")
"""


@pytest.mark.parametrize("n", [3, 300])
def test_the_process_ends_while_kernels_run(n: int, tmp_path: Any) -> None:
    path = tmp_path / "ending.py"
    path.write_text(textwrap.dedent(ENDING).format(n=n))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
