"""The process in which generated code runs: locks itself in, then executes what it is told over a pipe.

What holds here: this file runs by itself (`python -I -S worker.py`), uses the standard library alone, and imports all
that code may use before it locks itself in; from then on the kernel refuses everything but computing, memory, time and
the two ends of the pipe. What it sends is never trusted by the other side.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import io
import json
import os
import signal
import sys
import traceback
from typing import Any

MODULES = """
    abc array base64 binascii bisect calendar cmath collections collections.abc colorsys contextlib copy csv
    dataclasses datetime decimal difflib enum fractions functools hashlib heapq html html.parser io itertools json
    keyword math numbers operator pprint random re secrets statistics string struct textwrap time tokenize types
    typing unicodedata urllib.parse uuid warnings zlib _strptime ast graphlib hmac codecs encodings.idna
    encodings.ascii encodings.latin_1 encodings.utf_8 encodings.utf_16 traceback linecache locale
""".split()  # noqa: SIM905 - a list of these is harder to read


class _Submitted(BaseException):
    """Ends an execution: the code called SUBMIT."""


class _Interrupted(BaseException):
    """Ends an execution: its time is over."""


class _Output(io.TextIOBase):
    """What the code prints, cut off at a number of characters."""

    def __init__(self, limit: int) -> None:
        self.parts: list[str] = []
        self.left, self.dropped = limit, 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        text = str(text)
        kept = text[:self.left]
        if kept:
            self.parts.append(kept)
            self.left -= len(kept)
        self.dropped += len(text) - len(kept)
        return len(text)

    def text(self) -> str:
        more = f"\n... ({self.dropped} more characters were printed)" if self.dropped else ""
        return "".join(self.parts) + more


class Worker:
    """Executes code, one message after the other."""

    def __init__(self, output_limit: int) -> None:
        self.output_limit = output_limit
        self.pending = b""
        self.running = False
        self.final: list[Any] = []
        self.count = 0
        self.names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins, "SUBMIT": self.submit}

    # -- messages ------------------------------------------------------------------------------------------------

    def send(self, **message: Any) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(1, data):]

    def receive(self) -> dict[str, Any]:
        """The next message. Ends the process if there will be none."""
        pieces = [self.pending]
        while b"\n" not in pieces[-1]:
            piece = os.read(0, 1 << 16)
            if not piece:
                os._exit(0)
            pieces.append(piece)
        line, _, self.pending = b"".join(pieces).partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    # -- what code may call --------------------------------------------------------------------------------------

    def submit(self, *values: Any, **named: Any) -> None:
        """Hand in the final answer and stop."""
        value = {**(values[0] if values and isinstance(values[0], dict) else {}), **named} if named else (
            values[0] if len(values) == 1 else list(values))
        json.dumps(value)       # TypeError here is the code's error, with its line
        self.final = [value]
        raise _Submitted

    def tool(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.send(**{"is": "call", "tool": name, "args": args, "kwargs": kwargs})
            was, self.running = self.running, False     # waiting for the host is not the code's time
            reply = self.receive()
            self.running = was
            if "error" in reply:
                raise RuntimeError(reply["error"])
            return reply["value"]

        call.__name__ = call.__qualname__ = name
        return call

    # -- executions ----------------------------------------------------------------------------------------------

    def serve(self) -> None:
        while True:
            message = self.receive()
            self.names.update({name: self.tool(name) for name in message["tools"]})
            self.names.update(message["variables"])
            try:
                self.execute(message["code"], message["lifetime"])
            except _Interrupted:
                self.send(**{"is": "error", "kind": "timeout", "text": "", "output": ""})

    def execute(self, code: str, lifetime: float) -> None:
        self.final, self.count = [], self.count + 1
        file = f"<code {self.count}>"
        out = sys.stdout = sys.stderr = _Output(self.output_limit)
        kind, text = "", ""
        try:
            signal.setitimer(signal.ITIMER_REAL, lifetime)   # the last resort, should the host be gone
            self.running = True
            self.run(code, file, out)
        except _Submitted:
            pass
        except _Interrupted:
            kind = "timeout"
        except SyntaxError as error:
            kind = "error"
            text = f"SyntaxError: {error.msg} (line {error.lineno}: {(error.text or '').strip()})"
        except BaseException as error:  # noqa: BLE001 - whatever the code raises
            self.running = False
            kind, text = "error", describe(error, file, code)
        finally:
            self.running = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self.final and kind != "timeout":
            self.send(**{"is": "final", "value": self.final[0], "output": out.text()})
        elif kind:
            self.send(**{"is": "error", "kind": kind, "text": text[:self.output_limit], "output": out.text()})
        else:
            self.send(**{"is": "done", "output": out.text()})

    def run(self, code: str, file: str, out: _Output) -> None:
        """Execute; the value of a last line that is an expression is shown, as an interactive Python does."""
        tree = ast.parse(code, file)
        last = tree.body[-1] if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        tree.body = tree.body[:-1] if last is not None else tree.body
        exec(compile(tree, file, "exec"), self.names)  # noqa: S102 - what this process is for
        if last is not None:
            value = eval(compile(ast.Expression(last.value), file, "eval"), self.names)  # noqa: S307
            if value is not None:
                out.write((value if isinstance(value, str) else repr(value)) + "\n")

    def interrupt(self, *_: Any) -> None:
        if self.running:
            raise _Interrupted


def describe(error: BaseException, file: str, code: str) -> str:
    """The error with the line of the code in which it arose."""
    try:
        said = "".join(traceback.format_exception_only(error)).strip()
    except BaseException:  # noqa: BLE001 - an exception whose text raises
        said = type(error).__name__
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if not lines or not lines[-1]:
        return said
    source = code.splitlines()
    line = source[lines[-1] - 1].strip() if lines[-1] <= len(source) else ""
    return f"{said} (line {lines[-1]}: {line})"


class _OnlyThese:
    """Says which modules there are when another one is asked for."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        there = ", ".join(m for m in MODULES if "." not in m and not m.startswith("_"))
        raise ModuleNotFoundError(f"No module named {name!r} in this sandbox. There are: {there}", name=name)


def main() -> None:
    settings = json.loads(sys.argv[1])
    for name in MODULES:
        importlib.import_module(name)
    sys.modules["hashlib"].sha256(b"")
    spec = importlib.util.spec_from_file_location("lockdown", os.path.join(os.path.dirname(__file__), "lockdown.py"))
    assert spec is not None and spec.loader is not None
    lockdown = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lockdown)
    worker = Worker(settings["output"])
    signal.signal(signal.SIGINT, worker.interrupt)
    sys.stdin = io.StringIO()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    walls = lockdown.lock_in(settings["memory"], settings["cpu"])
    for name in [n for n in sys.modules if n.split(".")[0] in ("ctypes", "_ctypes", "lockdown", "resource")]:
        del sys.modules[name]
    sys.meta_path[:] = [sys.meta_path[0], _OnlyThese()]     # built-in modules, and nothing from files
    del lockdown
    worker.send(**{"is": "ready", "walls": walls})
    worker.serve()


if __name__ == "__main__":
    main()
