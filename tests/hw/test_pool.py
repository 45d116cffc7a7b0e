"""The thread pool: every chunk once, under concurrency, nesting, forking, changing sizes; and a clean end."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracedsl.cache import Store
from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cpu import jit, pool
from tracedsl.hw.cpu.emitter import FunctionEmitter, ModuleEmitter, Param, Value, constant
from tracedsl.hw.cpu.machine import host
from tracedsl.hw.cpu.pool_ir import source

LINUX = sys.platform == "linux"
BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """More threads than cores, so that the system's scheduler mixes them."""
    before = pool.get_num_threads()
    pool.set_num_threads(4)
    yield
    pool.set_num_threads(before)


def count_up(f: FunctionEmitter, begin: Value, end: Value) -> tuple[Any, str]:
    """Open a loop over begin .. end-1; returns its phi and the label that follows it."""
    entry, loop, done = f.here, f.label("loop"), f.label("done")
    f.br(loop)
    f.start(loop)
    return f.phi("i64", [(begin, entry)], "i"), done


def close(f: FunctionEmitter, i: Any, end: Value, done: str) -> None:
    after = f.add(i.value, constant("i64", 1))
    i.add(after, f.here)
    f.cond_br(f.icmp("slt", after, end), "loop", done)
    f.start(done)
    f.ret()


@cache
def native() -> jit.Loaded:
    """bump(data, begin, end): add one to each; nested(...): a launch of `bump` over 10 elements for each index;
    launch(data, n, grain, times): `times` launches of bump."""
    module = ModuleEmitter("pool_test")
    triple = [Param("data", "ptr"), Param("begin", "i64"), Param("end", "i64")]
    f = module.function("bump", params=triple)
    i, done = count_up(f, f.params[1], f.params[2])
    at = f.gep(f.params[0], i.value, "i64")
    f.store(f.add(f.load(at, "i64"), constant("i64", 1)), at)
    close(f, i, f.params[2], done)
    f = module.function("nested", params=triple)
    i, done = count_up(f, f.params[1], f.params[2])
    at = f.gep(f.params[0], f.mul(i.value, constant("i64", 80)))
    f.call_void(pool.ENTRY, [Value("@bump", "ptr"), at, constant("i64", 10), constant("i64", 3)])
    close(f, i, f.params[2], done)
    f = module.function("launch", params=[Param("data", "ptr"), Param("n", "i64"), Param("grain", "i64"),
                                          Param("times", "i64")])
    i, done = count_up(f, constant("i64", 0), f.params[3])
    f.call_void(pool.ENTRY, [Value("@bump", "ptr"), *f.params[:3]])
    close(f, i, f.params[3], done)
    return jit.load(jit.compile_object(module.text()), ["bump", "nested", "launch"], pool.pool().symbols)


def launch(counts: np.ndarray[Any, Any], grain: int, times: int = 1) -> None:
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3)(native()["launch"])
    call(counts.ctypes.data, len(counts), grain, times)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 100, 1001])
@pytest.mark.parametrize("grain", [-5, 0, 1, 7, 1000, 2 ** 62])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_every_index_once(n: int, grain: int, threads: int) -> None:
    pool.set_num_threads(threads)
    counts = np.zeros(n + 1, np.int64)
    launch(counts[:n], grain, times=3)
    assert np.all(counts[:n] == 3) and counts[n] == 0


def chunks_of(n: int, grain: int) -> list[tuple[int, int]]:
    seen = []
    body = BODY(lambda data, begin, end: seen.append((begin, end)))
    pool.pool().parallel_for(ctypes.cast(body, ctypes.c_void_p).value or 0, 0, n, grain)
    return sorted(seen)


@pytest.mark.parametrize("threads", [1, 2, 6])
def test_chunks_depend_on_n_and_grain_alone(threads: int) -> None:
    pool.set_num_threads(threads)
    assert chunks_of(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert chunks_of(3, 5) == [(0, 3)]
    assert chunks_of(0, 5) == chunks_of(-3, 5) == []
    assert len(chunks_of(100, 1)) == 100


@pytest.mark.skipif(not LINUX, reason="threads need a futex")
def test_threads_really_work_at_once() -> None:
    """Three chunks that wait for each other can only end if three threads run them."""
    together = threading.Barrier(3, timeout=30)

    def wait(data: int, begin: int, end: int) -> None:
        together.wait()

    body = BODY(wait)
    pool.set_num_threads(3)
    pool.pool().parallel_for(ctypes.cast(body, ctypes.c_void_p).value or 0, 0, 3, 1)
    assert not together.broken


@pytest.mark.skipif(not LINUX, reason="threads need a futex")
def test_no_more_threads_than_asked_for() -> None:
    workers: set[int] = set()
    body = BODY(lambda data, begin, end: workers.add(threading.get_native_id()))
    for limit in (1, 2, 3, 2, 1):
        pool.set_num_threads(limit)
        for _ in range(50):
            workers.clear()
            pool.pool().parallel_for(ctypes.cast(body, ctypes.c_void_p).value or 0, 0, 20, 1)
            assert 1 <= len(workers) <= limit
    assert workers == {threading.get_native_id()}, "one thread is the calling one"


def test_thousands_of_launches() -> None:
    counts = np.zeros(64, np.int64)
    launch(counts, 8, times=20_000)
    assert np.all(counts == 20_000)


def test_concurrent_callers() -> None:
    arrays = [np.zeros(200, np.int64) for _ in range(8)]
    threads = [threading.Thread(target=launch, args=(a, 9, 1000)) for a in arrays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert all(np.all(a == 1000) for a in arrays)


def test_nested_launches() -> None:
    counts = np.zeros(10 * 50, np.int64)
    for _ in range(20):
        pool.pool().parallel_for(native()["nested"], counts.ctypes.data, 50, 3)
    assert np.all(counts == 20)


def test_size_changes_between_launches_of_others() -> None:
    counts = np.zeros(100, np.int64)
    worker = threading.Thread(target=launch, args=(counts, 3, 5000))
    worker.start()
    for number in range(200):
        pool.set_num_threads(1 + number % 8)
    worker.join(60)
    assert not worker.is_alive() and np.all(counts == 5000)
    assert pool.get_num_threads() == 8


@pytest.mark.parametrize("count", [0, -1, 257, 2.0, None])
def test_impossible_numbers_of_threads(count: Any) -> None:
    with pytest.raises(TracedslError, match="H004"):
        pool.set_num_threads(count)
    assert pool.get_num_threads() == 4


def in_child(task: Any) -> int:
    """Run `task` in a forked child; its exit status: 0 if it returned True."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point here
        child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if task() else 2
        finally:
            os._exit(status)
    for _ in range(3000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        threading.Event().wait(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise AssertionError("the child hangs")


def works() -> bool:
    counts = np.zeros(1000, np.int64)
    launch(counts, 10, times=200)
    return bool(np.all(counts == 200))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_works_in_forked_children_and_theirs() -> None:
    assert works()
    assert in_child(works) == 0
    assert in_child(lambda: works() and in_child(works) == 0) == 0
    assert works()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_while_another_thread_launches() -> None:
    stop = threading.Event()

    def busy() -> None:
        counts = np.zeros(64, np.int64)
        while not stop.is_set():
            launch(counts, 1, times=50)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        assert [in_child(works) for _ in range(10)] == [0] * 10
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive() and works()


ENDS = """
    import ctypes, threading, time
    from tracedsl.hw.cpu import pool
    pool.set_num_threads(4)
    nap = ctypes.cast(ctypes.CDLL(None).usleep, ctypes.c_void_p).value
    def launch():
        pool.pool().parallel_for(nap, 1000, 8, 1)
    def forever():
        while True:
            launch()
    {start}
    print("end")
"""


@pytest.mark.parametrize("start", [
    "pool.get_num_threads()",
    "launch()",
    "launch(); time.sleep(0.05)",
    "threading.Thread(target=forever, daemon=True).start(); time.sleep(0.05)",
])
def test_the_process_ends_cleanly(start: str) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(ENDS).format(start=start)],
                          capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_loading_starts_no_thread() -> None:
    code = "import os; from tracedsl.hw.cpu import pool; pool.pool(); print(len(os.listdir('/proc/self/task')))"
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("no /proc here")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == "1\n", done.stderr


def test_code_is_kept_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "kept")
    pool.load(host(), store)
    entries = list(store.entries("runtime"))
    assert len(entries) == 1 and set(entries[0].key.parts) == {"machine", "source"}
    monkeypatch.setattr(jit, "compile_object", lambda *a: pytest.fail("compiled again"))
    assert pool.load(host(), store)[pool.ENTRY]


def test_stored_code_that_cannot_be_linked_is_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path / "kept")
    pool.load(host(), store)
    (entry,) = store.entries("runtime")
    for blobs in ({"object": b"damaged"}, {"other": b""}):
        store.put(entry.key, blobs)
        assert pool.load(host(), store)[pool.ENTRY]
        (again,) = store.entries("runtime")
        assert again.blobs == entry.blobs


@pytest.mark.parametrize(("architecture", "linux"), [("wasm32", True), (host().triple.split("-")[0], False)])
def test_serial_form_has_the_same_face(architecture: str, linux: bool) -> None:
    text = source(architecture, linux, threads=8)
    assert "pthread" not in text and "syscall" not in text
    loaded = jit.load(jit.compile_object(text), [pool.ENTRY, "tdsl_pool_reset", "tdsl_pool_limit"])
    seen = []
    body = BODY(lambda data, begin, end: seen.append((begin, end)))
    pool.Pool(loaded).parallel_for(ctypes.cast(body, ctypes.c_void_p).value or 0, 0, 10, 4)
    assert seen == [(0, 4), (4, 8), (8, 10)]
    assert pool.Pool(loaded).threads == 1


@pytest.mark.parametrize("setting, threads", [("1", 1), ("3", 3), ("0", None), ("many", None), ("", None)])
def test_the_environment_sets_the_number_of_threads(setting: str, threads: int | None) -> None:
    code = "import tracedsl; print(tracedsl.get_num_threads())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "TRACEDSL_NUM_THREADS": setting})
    assert int(done.stdout) == (threads or min(host().cores, pool.MAX_THREADS))
    assert ("H006" in done.stderr) == (setting in ("0", "many"))


def test_threadpoolctl_sees_and_limits_the_pool() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    assert pool.get_num_threads() == 4
    (found,) = [info for info in threadpoolctl.threadpool_info() if info["user_api"] == "tracedsl"]
    assert found["num_threads"] == 4
    with threadpoolctl.threadpool_limits(limits=1):
        assert pool.get_num_threads() == 1
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        assert pool.get_num_threads() == 4
    assert pool.get_num_threads() == 4
