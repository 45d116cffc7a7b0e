"""The worker's side of a local pool: reads candidates as JSON lines, answers each with one JSON line.

What holds here: the first line says who handles candidates ("module:name" of this package's parent process), and on
which cores. An exception of the handler is an answer; only a dead process is none. What a candidate prints goes to
standard error. The worker ends when its standard input does, or its parent is gone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, BinaryIO

Handler = Callable[[dict[str, Any]], dict[str, Any]]


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)                       # the pipe belongs to answers alone
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    handler: Handler | None = None
    for line in sys.stdin.buffer:
        message = json.loads(line)
        try:
            if handler is None:
                handler = _handler(message)
                _answer(answers, {"pid": os.getpid()})
            else:
                _answer(answers, handler(message))
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent decides
            _answer(answers, {"crash": f"{type(error).__name__}: {error}"})


def _handler(hello: dict[str, Any]) -> Handler:
    if hello["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, hello["cores"])
    module, _, name = hello["handler"].partition(":")
    made: Handler = getattr(import_module(module), name)(hello["setup"])
    return made


def _answer(answers: BinaryIO, data: dict[str, Any]) -> None:
    answers.write(json.dumps(data).encode() + b"\n")
    answers.flush()


def _watch(parent: int) -> None:
    """End at once when the parent is gone, even within a candidate that never returns."""
    while os.getppid() == parent:
        time.sleep(1)
    with suppress(OSError):
        os._exit(1)


if __name__ == "__main__":
    main()
