"""Programs tried in a process of their own: drivers abort, hang and crash, which must not cost the caller.

What holds here: `check` gives back only if every kernel was built and one work-item of each has run. The process serves
many programs; it is started anew after one that it did not survive, and ends with this one.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from tracedsl.diagnostics import TracedslError

SECONDS = 120.0
_HINT = "please report it with the output of show('opencl')"


class _Worker:
    """The process, with one request at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: Mapping[str, Any], seconds: float) -> str:
        """What was wrong; empty if nothing was. Raises TracedslError (H071) if the process did not survive."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                with DefaultSelector() as ready:
                    ready.register(process.stdout, EVENT_READ)
                    answered = bool(ready.select(seconds))
                answer = process.stdout.readline() if answered else ""
            except BrokenPipeError:
                answered, answer = True, ""
            if answer:
                return str(json.loads(answer))
            self.stop()
            what = f"ended with status {process.returncode}" if answered else f"did not end within {seconds:g} s"
            raise TracedslError("H071", f"the OpenCL driver {what} on a program", hint=_HINT,
                                why="it was tried in a process of its own; this one is not harmed")

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen([sys.executable, "-m", "tracedsl.hw.opencl.trial"], text=True,
                                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            atexit.register(self.stop)
        return self._process

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            atexit.unregister(self.stop)


_WORKER = _Worker()


def check(source: str, kernels: Sequence[tuple[str, Sequence[int]]], folder: Path, seconds: float = SECONDS) -> None:
    """Build a program and run a work-item of each kernel on buffers of these sizes (bytes).

    Raises TracedslError: H071 if the driver crashes or does not end, H001 with its words if it refuses the program.
    """
    request = {"source": source, "kernels": [[name, list(sizes)] for name, sizes in kernels], "folder": str(folder)}
    if wrong := _WORKER.ask(request, seconds):
        raise TracedslError("H001", "the OpenCL compiler refuses the generated code", why=wrong[:2000], hint=_HINT)


def _serve() -> None:
    """Answer requests until there are none."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)      # Ctrl-C is the parent's
    for line in sys.stdin:
        try:
            answer = _try(json.loads(line))
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is told to the parent
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)


def _try(request: Mapping[str, Any]) -> str:
    import os

    os.environ["POCL_CACHE_DIR"] = str(request["folder"])
    import pyopencl as cl

    from tracedsl.hw.opencl.device import device

    found = device()
    context = cl.Context([found.handle])
    queue = cl.CommandQueue(context)
    program = cl.Program(context, request["source"]).build(options=list(found.options))
    for name, sizes in request["kernels"]:
        kernel = cl.Kernel(program, name)
        buffers = [cl.Buffer(context, cl.mem_flags.READ_WRITE, max(1, size)) for size in sizes]
        kernel.set_args(*buffers)
        cl.enqueue_nd_range_kernel(queue, kernel, (1,), (1,))
        queue.finish()      # before the buffers go: a kernel does not keep its arguments
    return ""


if __name__ == "__main__":
    _serve()
