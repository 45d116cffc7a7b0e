"""The parent's side of a contender's process.

What holds here: a contender runs only while a request is being answered; else it is stopped (SIGSTOP) with all its
threads. One that dies or does not answer in time is an answer too: `Failed`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Failed(Exception):
    """A contender could not do what it was asked to."""


def environment(threads: int, extra: Mapping[str, str], fresh_pages: bool = False) -> dict[str, str]:
    """The environment of every contender: as many threads for all; nothing that tells OpenBLAS which CPU this is; a
    malloc that keeps what it has (else whether a result of some MB comes in pages that are there already is a matter
    of chance, and decides its time), unless `fresh_pages`."""
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    count = str(threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS",
             "NUMEXPR_MAX_THREADS", "TVM_NUM_THREADS", "NPROC")
    env.update(dict.fromkeys(names, count))
    env.update({"JAX_PLATFORMS": "cpu", "TORCHINDUCTOR_COMPILE_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"})
    if not fresh_pages:
        env.update({"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)})
    if threads == 1:
        env["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    folder = Path(tempfile.gettempdir()) / f"tracedsl-benchmarks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)      # compiled code of the peers; compile time never counts
    env.setdefault("NUMBA_CACHE_DIR", str(folder / "numba"))
    env.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    return {**env, **extra}


@contextmanager
def _cores(count: int) -> Iterator[None]:
    """Inside, a new process may use as many cores as it gets threads: libraries that count cores find no more."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(usable)[-count:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


class Contender:
    """One peer in its own process, which runs `python -m MODULE PEER THREADS HANDLE` (`serving.main`)."""

    def __init__(self, module: str, peer: str, threads: int, extra: Mapping[str, str] | None = None,
                 fresh_pages: bool = False) -> None:
        self.module, self.peer, self.threads = module, peer, threads
        self._environment = environment(threads, extra or {}, fresh_pages)
        self.version = ""
        self._log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - open as long as the process lives
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until the library is loaded. Raises `Failed`."""
        self._pipe, theirs = Pipe()
        with _cores(self.threads):
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, self.peer, str(self.threads), str(theirs.fileno())],
                cwd=ROOT, env=self._environment, pass_fds=[theirs.fileno()],
                start_new_session=True, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        theirs.close()
        self.version = self._answer(120)["version"]
        self._signal(signal.SIGSTOP)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ask(self, what: str, timeout: float, **request: Any) -> dict[str, Any]:
        """Let the process run until it has answered. Raises `Failed`."""
        if not self.alive:
            self.start()
        self._signal(signal.SIGCONT)
        self._pipe.send_bytes(json.dumps({"what": what, **request}).encode())
        answer = self._answer(timeout)
        self._signal(signal.SIGSTOP)
        return answer

    def _answer(self, timeout: float) -> dict[str, Any]:
        try:
            if not self._pipe.poll(timeout):
                self.close()
                raise Failed(f"no answer within {timeout:.0f} s")
            answer: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            code = self._process.wait() if self._process else None
            raise Failed(f"the process died ({code}){self._tail()}") from None
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def _tail(self) -> str:
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def _signal(self, number: int) -> None:
        if self.alive and self._process:
            os.killpg(self._process.pid, number)

    def close(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
