"""Handlers for the workers of the tests: they crash, hang, lie and print."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any


class Handler:
    def __init__(self, setup: dict[str, Any]) -> None:
        if setup.get("broken"):
            raise ValueError("broken setup")
        self.setup, self.calls = setup, 0

    def __call__(self, candidate: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        match candidate["do"]:
            case "echo":
                return {"echo": candidate["value"], "setup": self.setup, "calls": self.calls, "pid": os.getpid()}
            case "print":
                print("not an answer", flush=True)
                os.write(1, b'{"forged": true}\n')
                return {"printed": True}
            case "crash":
                print("last words", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                os._exit(3)
            case "hang":
                time.sleep(600)
            case "cores":
                return {"cores": sorted(os.sched_getaffinity(0)), "env": os.environ.get("TRACEDSL_TEST")}
        raise RuntimeError(f"cannot {candidate['do']}")
