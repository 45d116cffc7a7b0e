"""Workers: whatever a candidate does is an answer, and the next one finds a worker again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tracedsl.autotune.pool import Crash, Result, Timeout
from tracedsl.autotune.workers import Device, LocalPool

HANDLER = "handlers:Handler"


@pytest.fixture(autouse=True)
def _handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def pool() -> Iterator[LocalPool]:
    with LocalPool(HANDLER, {"n": 7}) as made:
        yield made


def ask(pool: LocalPool, do: str, limit: float = 60, **more: object) -> object:
    return pool.submit({"do": do, **more}, limit=limit).result()


def test_candidates_are_answered_in_one_process(pool: LocalPool) -> None:
    one, two = ask(pool, "echo", value=[1, "ä"]), ask(pool, "echo", value=None)
    assert isinstance(one, Result) and isinstance(two, Result)
    assert one.data["echo"] == [1, "ä"] and one.data["setup"] == {"n": 7}
    assert two.data["calls"] == 2 and one.data["pid"] == two.data["pid"] != os.getpid()


def test_what_a_candidate_prints_is_no_answer(pool: LocalPool) -> None:
    assert ask(pool, "print") == Result({"printed": True})


def test_a_crash_costs_one_trial(pool: LocalPool) -> None:
    crashed = ask(pool, "crash")
    assert isinstance(crashed, Crash)
    assert "SIGSEGV" in crashed.reason and "last words" in crashed.reason
    assert ask(pool, "exit") == Crash("the worker ended with status 3")
    assert isinstance(ask(pool, "echo", value=1), Result)


def test_an_exception_is_an_answer_and_the_worker_lives_on(pool: LocalPool) -> None:
    before = ask(pool, "echo", value=1)
    assert ask(pool, "dance") == Crash("RuntimeError: cannot dance")
    after = ask(pool, "echo", value=1)
    assert isinstance(before, Result) and isinstance(after, Result) and before.data["pid"] == after.data["pid"]


def test_a_candidate_that_hangs_is_killed_at_its_limit(pool: LocalPool) -> None:
    first = ask(pool, "echo", value=1)
    assert isinstance(first, Result)
    assert ask(pool, "hang", limit=0.3) == Timeout(0.3)
    with pytest.raises(ProcessLookupError):
        os.kill(first.data["pid"], 0)
    assert isinstance(ask(pool, "echo", value=1), Result)


def test_a_worker_that_cannot_start_says_why() -> None:
    with LocalPool(HANDLER, {"broken": True}) as pool:
        assert ask(pool, "echo", value=1) == Crash("ValueError: broken setup")
    with LocalPool("no_such_module:Handler", {}) as pool:
        assert ask(pool, "echo", value=1) == Crash("ModuleNotFoundError: No module named 'no_such_module'")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_devices_are_pinned_and_named() -> None:
    core = min(os.sched_getaffinity(0))
    devices = [Device("a", (core,), {"TRACEDSL_TEST": "x"}), Device("b")]
    with LocalPool(HANDLER, {}, devices) as pool:
        assert pool.submit({"do": "cores"}, "a", 60).result() == Result({"cores": [core], "env": "x"})
        other = pool.submit({"do": "cores"}, "b", 60).result()
        assert isinstance(other, Result) and other.data["env"] is None
        with pytest.raises(KeyError, match="no device 'c'"):
            pool.submit({"do": "cores"}, "c")


def test_close_ends_a_worker_that_is_busy() -> None:
    pool = LocalPool(HANDLER, {})
    first = ask(pool, "echo", value=1)
    assert isinstance(first, Result)
    waiting = pool.submit({"do": "hang"}, limit=60)
    time.sleep(0.1)
    pool.close()
    assert isinstance(waiting.result(10), Crash)
    with pytest.raises(ProcessLookupError):
        os.kill(first.data["pid"], 0)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc on this system")
def test_workers_go_when_their_parent_is_killed() -> None:
    script = ("import sys, time; from tracedsl.autotune.workers import LocalPool\n"
              "p = LocalPool('handlers:Handler', {})\n"
              "print(p.submit({'do': 'echo', 'value': 1}).result().data['pid'], flush=True)\n"
              "p.submit({'do': 'hang'}, limit=600).result()")
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.2)     # it hangs now
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        with suppress(FileNotFoundError):
            state = Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0]
            if state != "Z":
                time.sleep(0.1)
                continue
        break
    else:
        raise AssertionError("the worker outlived its parent")
