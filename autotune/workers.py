"""A device pool of own processes on this machine: one worker a device, started fresh, killed at its limit.

What holds here:
- A worker is `python -m tracedsl.autotune.worker`: a new interpreter that imports nothing of the user's script. It gets
  JSON lines on its standard input and answers each with one line.
- A worker that dies or overruns is replaced when the next candidate comes. When the parent goes, in whatever way, the
  workers go. Ctrl-C reaches the parent alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import tracedsl
from tracedsl.autotune.pool import Answer, Crash, Json, Result, Timeout
from tracedsl.diagnostics import nearest

START_LIMIT = 120.0     # seconds that a worker may take to start


@dataclass(frozen=True)
class Device:
    """A place to run: its tag, the cores that its worker is pinned to (none: wherever the parent may run), and what
    its environment has beside the parent's."""

    tag: str = "local:0"
    cores: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class LocalPool:
    """A `DevicePool` on this machine. `handler` ("module:name") is called in each worker with `setup`, which it reads
    anew whenever it starts, and gives the function that tries a candidate."""

    def __init__(self, handler: str, setup: Json, devices: Sequence[Device] = (Device(),)) -> None:
        self._workers = {device.tag: _Worker(handler, setup, device) for device in devices}

    def submit(self, candidate: Json, device: str = "", limit: float = 10.0) -> Future[Answer]:
        """See `DevicePool`. Raises KeyError for a tag that the pool does not have."""
        if device and device not in self._workers:
            raise KeyError(f"the pool has no device {device!r}; {nearest(device, self._workers)}")
        worker = self._workers[device] if device else min(self._workers.values(), key=lambda w: w.waiting)
        return worker.submit(candidate, limit)

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker:
    """The parent's side of one worker process."""

    def __init__(self, handler: str, setup: Json, device: Device) -> None:
        self._handler, self._setup, self._device = handler, setup, device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"tracedsl-{device.tag}")
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()
        self.waiting = 0

    def submit(self, candidate: Json, limit: float) -> Future[Answer]:
        self.waiting += 1
        future: Future[Answer] = self._thread.submit(self._try, candidate, limit)
        future.add_done_callback(lambda _: self._done())
        return future

    def _done(self) -> None:
        self.waiting -= 1

    def _try(self, candidate: Json, limit: float) -> Answer:
        if self._process is None or self._process.poll() is not None:
            answer = self._start()
            if answer is not None:
                return answer
        return self._ask(candidate, limit)

    def _start(self) -> Answer | None:
        """Start the process; what went wrong, if it does not come up."""
        with self._lock:
            if self._closed:
                return Crash("the pool is closed")
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process lives
            root = str(Path(str(tracedsl.__file__)).parents[1])
            path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
            environment = {**os.environ, "PYTHONPATH": path, **self._device.environment}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tracedsl.autotune.worker"], env=environment, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=self._log, start_new_session=True)
        hello = {"handler": self._handler, "setup": self._setup, "cores": list(self._device.cores)}
        answer = self._ask(hello, START_LIMIT)
        return None if isinstance(answer, Result) else answer

    def _ask(self, message: Json, limit: float) -> Answer:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def overrun() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(limit, overrun)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (OSError, ValueError):
            line = b""
        timer.cancel()
        if not line.endswith(b"\n"):
            return self._buried(process, Timeout(limit) if late.is_set() else None)
        try:
            data: dict[str, Any] = json.loads(line)
        except ValueError:
            return self._buried(process, Crash("the worker answered with something that is no JSON"))
        return Crash(str(data["crash"])) if "crash" in data else Result(data)

    def _buried(self, process: subprocess.Popen[bytes], answer: Answer | None) -> Answer:
        _kill(process)
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._process = None
        return answer or Crash(f"the worker {_ending(code)}{self._tail()}")

    def _tail(self) -> str:
        """The last line that the worker wrote before it died."""
        if self._log is None:
            return ""
        self._log.seek(0)
        lines = self._log.read()[-2000:].decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._process is not None:
                _kill(self._process)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(5)
        self._thread.shutdown(wait=False, cancel_futures=True)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The worker and whatever it started."""
    with suppress(OSError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
