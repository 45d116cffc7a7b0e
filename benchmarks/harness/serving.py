"""A contender's process: takes requests (JSON) on one end of a pipe, runs them, answers.

What holds here: everything between two requests is sleep; the process dies with its parent. An exception in a library
is an answer, not an end.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np


def serve(make: Callable[[str, int], Any], peer: str, threads: int, pipe: Connection) -> None:
    """Answer requests with the methods of `make(peer, threads)`, which has a `version`."""
    worker: Any = None
    np.seterr(all="ignore")
    try:
        worker = make(peer, threads)
        answer: dict[str, Any] = {"version": worker.version}
    except Exception as error:  # noqa: BLE001 - a library that cannot be loaded does not take part
        answer = {"failed": f"{type(error).__name__}: {error}"}
    while True:
        pipe.send_bytes(json.dumps(answer).encode())
        try:
            request = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        what = request.pop("what")
        try:
            answer = getattr(worker, what)(**request)
        except Exception as error:  # noqa: BLE001 - it is told to the parent
            answer = {"failed": f"{type(error).__name__}: {str(error).strip()[:500]}"}


def main(make: Callable[[str, int], Any]) -> None:
    peer, threads, handle = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)      # Ctrl-C is the parent's
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)    # PR_SET_PDEATHSIG: a stopped process would outlive its parent
    serve(make, peer, threads, Connection(handle))
