"""The pool of large blocks: arrays are NumPy's own, memory is used again, what is kept is bounded, nothing hangs."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from tracedsl import kernel
from tracedsl.hw.cpu import memory

pytestmark = pytest.mark.skipif(memory.pool() is None, reason="no pool on this system")
MIB = 1 << 20


@pytest.fixture(name="pool")
def _pool() -> Iterator[memory.MemoryPool]:
    found = memory.pool()
    assert found is not None
    before = found.limit
    gc.collect()
    found.trim()
    yield found
    found.limit = before
    found.trim()


def test_memory_is_used_again(pool: memory.MemoryPool) -> None:
    a = memory.empty((MIB,), "f4")
    a[:] = 7
    where = a.ctypes.data
    del a
    assert pool.held >= 4 * MIB
    b = memory.empty((1024, 1000), "f4")
    assert b.ctypes.data == where and pool.held == 0
    assert memory.empty((1024, 1024), "f4").ctypes.data != where, "it is taken"


def test_small_arrays_are_left_to_malloc(pool: memory.MemoryPool) -> None:
    a = memory.empty((1000,), "f4")
    del a
    assert pool.held == 0


def test_arrays_are_numpys_own(pool: memory.MemoryPool) -> None:
    a = memory.empty((512, 1024), "f4")
    assert a.flags.owndata and a.flags.writeable and a.flags.c_contiguous and a.ctypes.data % 64 == 0
    a[:] = np.arange(1024)
    for size in (100, 3 * MIB, 2 * MIB, 17):
        a.resize((size,), refcheck=False)
        assert (a[:min(17, size)] == np.arange(17)).all() and a.flags.owndata
    assert type(np.empty(2 * MIB)) is np.ndarray, "other arrays are made as ever"
    del a
    b = np.empty(MIB)
    where = b.ctypes.data
    del b
    assert memory.empty((MIB,), "f8").ctypes.data != where or pool.held == 0


def test_what_is_kept_is_bounded(pool: memory.MemoryPool) -> None:
    pool.limit = 16 * MIB
    for size in range(1, 30):
        held = [memory.empty((size, MIB // 4), "f4") for _ in range(3)]
        del held
        assert pool.held <= 16 * MIB
    pool.limit = 0
    assert pool.held == 0
    a = memory.empty((MIB,), "f8")
    del a
    assert pool.held == 0


def test_no_two_arrays_share_memory(pool: memory.MemoryPool) -> None:
    rng = random.Random(5)
    live: dict[int, np.ndarray] = {}
    for step in range(400):
        if live and rng.random() < 0.5:
            value, a = live.popitem()
            assert (a == value).all()
        else:
            live[step] = memory.empty((rng.randint(MIB, 3 * MIB),), "u2")
            live[step][:] = step
    assert all((a == value).all() for value, a in live.items())


def test_impossible_sizes_are_refused(pool: memory.MemoryPool) -> None:
    with pytest.raises(MemoryError):
        memory.empty((1 << 50,), "f8")
    k = kernel(lambda a, b: a[:, None] + b)
    wide = np.broadcast_to(np.float64(1), (1 << 24,))
    with pytest.raises(MemoryError):
        k(wide, wide)


def test_threads_and_children(pool: memory.MemoryPool) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        for n in range(60):
            a = memory.empty((MIB + n, ), "u1")
            a[:] = seed
            if not (a == seed).all():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    if hasattr(os, "fork"):
        for _ in range(5):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                work(9)
                os._exit(1 if wrong else 0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_of_kernels_come_from_it(pool: memory.MemoryPool) -> None:
    a = np.ones((700, 1000), "f4")
    k = kernel(lambda a: (a + 1, a * 2))
    places = set()
    for _ in range(10):
        x, y = k(a)
        assert (x == 2).all() and (y == 2).all() and x.flags.owndata
        places |= {x.ctypes.data, y.ctypes.data}
    assert len(places) <= 4


@pytest.mark.parametrize("setting, works", [("0", False), ("3", True), ("much", True)])
def test_the_setting_is_read(setting: str, works: bool) -> None:
    code = "from tracedsl.hw.cpu import memory; p = memory.pool(); print(p and p.limit)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "TRACEDSL_MEMORY_POOL": setting})
    assert done.stdout.strip() == {"0": "None", "3": str(3 * MIB)}.get(setting, done.stdout.strip())
    assert ("H006" in done.stderr) == (setting == "much") and (done.stdout != "None\n") == works
