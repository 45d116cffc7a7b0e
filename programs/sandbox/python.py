"""PythonInterpreter: generated code in a process of its own that has been locked in.

What holds here: the code has no files, no network, no processes, no environment, and bounded memory, time and output;
`lockdown.py` says how, docs/programs.md says from what it protects and where. The pipe carries JSON alone, what comes
out of it is not trusted, and the host never waits for it longer than the time limit. Time in which a tool of the host
works is not counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from tracedsl.diagnostics import nearest
from tracedsl.programs.sandbox.interpreter import CodeError, FinalOutput, SandboxError
from tracedsl.programs.types import to_json

_WORKER = Path(__file__).with_name("worker.py")
_GRACE = 1.0            # seconds between asking the code to stop and ending the process
_START = 30.0           # seconds that a process may take to be ready
_LARGEST_MESSAGE = 32 << 20


class PythonInterpreter:
    """Runs Python code with the standard library's pure parts, and the tools that it is given.

    >>> with PythonInterpreter() as sandbox:
    ...     sandbox.execute("x = 6 * 7")
    ...     sandbox.execute("print(x)").strip()
    ''
    '42'

    Args:
        tools: functions of this process that the code may call by name; arguments and results are JSON data.
        timeout: seconds for one execution, its tools' time not counted.
        memory: mebibytes of address space.
        max_output: characters that are kept of what is printed.
        require_confinement: raise `SandboxError` P045 where the system call filter cannot be had, which is everywhere
            but on Linux (x86-64, AArch64). False: go on with what there is, for code that you trust.
    """

    def __init__(self, tools: Mapping[str, Callable[..., Any]] | None = None, *, timeout: float = 10.0,
                 memory: int = 512, max_output: int = 100_000, require_confinement: bool = True) -> None:
        self.tools: dict[str, Callable[..., Any]] = dict(tools or {})
        self.timeout = timeout
        self.memory = memory
        self.max_output = max_output
        self.require_confinement = require_confinement
        self.walls: tuple[str, ...] = ()
        self._process: _Process | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the process and make sure that it is locked in; raises `SandboxError` P045."""
        if self._process is not None:
            return
        if os.name != "posix":
            raise SandboxError("P045", "there is no sandbox for this system", why=f"it is {sys.platform}",
                               hint="run it on Linux, or give the module an interpreter_factory of your own")
        process = _Process({"memory": self.memory << 20, "cpu": 3600, "output": self.max_output})
        try:
            hello = process.receive(_Clock(_START))
        except (_Ended, _TooLong):
            said = process.kill()
            raise SandboxError("P045", "the sandbox did not start", why=said or "its process ended",
                               hint="more memory=..., or look whether `python -I -S` works") from None
        self.walls = tuple(str(wall) for wall in hello.get("walls", ()))
        if self.require_confinement and not {"limits", "syscalls"} <= set(self.walls):
            process.kill()
            raise SandboxError("P045", "generated code cannot be locked in on this machine",
                               why=f"only these walls stand: {', '.join(self.walls) or 'none'}",
                               hint="use Linux on x86-64 or AArch64, or, for code that you trust, "
                                    "PythonInterpreter(require_confinement=False)")
        self._process = process

    def execute(self, code: str, variables: Mapping[str, Any] | None = None) -> Any:
        """Run code: what it printed, or a `FinalOutput`. Raises `CodeError` P044 for what the code did wrong, and
        `SandboxError` P046 if its process broke the protocol. One execution at a time."""
        with self._lock:
            self.start()
            assert self._process is not None
            clock = _Clock(self.timeout)
            message = {"code": code, "variables": to_json(dict(variables or {})), "tools": list(self.tools),
                       "lifetime": self.timeout + 10 * _GRACE}
            try:
                self._process.send(message, clock)
                return self._outcome(self._process, clock)
            except CodeError:
                raise
            except _TooLong:
                self._end()
                raise CodeError.of(f"it took longer than {self.timeout:g} s and was stopped; all variables are lost",
                                   state_lost=True) from None
            except _Ended as ended:
                self._end()
                raise CodeError.of(f"its process ended ({ended}), as it does for want of memory; all variables are "
                                   "lost", state_lost=True) from None
            except BaseException:   # also Ctrl-C: what is half done must not answer the next execution
                self._end()
                raise

    def shutdown(self) -> None:
        """End the process. The next execution starts another one, without the variables of this one."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def __deepcopy__(self, memo: dict[int, Any]) -> PythonInterpreter:
        return PythonInterpreter(self.tools, timeout=self.timeout, memory=self.memory, max_output=self.max_output,
                                 require_confinement=self.require_confinement)

    # -- one execution -------------------------------------------------------------------------------------------

    def _outcome(self, process: _Process, clock: _Clock) -> Any:
        """Serve the code's calls until it has ended."""
        while True:
            message = self._next(process, clock)
            output = str(message.get("output", ""))
            match message.get("is"):
                case "call":
                    with clock.stopped():
                        reply = self._call(message)
                    process.send(reply, clock)
                case "done":
                    return output
                case "final":
                    return FinalOutput(message.get("value"))
                case "error" if message.get("kind") == "timeout":
                    raise CodeError.of(f"it took longer than {self.timeout:g} s and was stopped", output)
                case "error":
                    raise CodeError.of(str(message.get("text", "")), output)
                case _:
                    raise _broken("it sent a message of an unknown kind")

    def _next(self, process: _Process, clock: _Clock) -> dict[str, Any]:
        """The next message; code whose time is over is asked to stop first."""
        try:
            return process.receive(clock)
        except _TooLong:
            process.interrupt()
            return process.receive(_Clock(_GRACE))

    def _call(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Call a tool for the code. Its error goes to the code."""
        from tracedsl.programs.tools.tool import error_text

        name, args, kwargs = message.get("tool"), message.get("args"), message.get("kwargs")
        if not isinstance(name, str) or not isinstance(args, list) or not isinstance(kwargs, dict):
            raise _broken("it sent a call that is none")
        if name not in self.tools:
            return {"error": f"there is no tool {name!r}; {nearest(name, self.tools)}"}
        try:
            return {"value": to_json(self.tools[name](*args, **kwargs))}
        except Exception as error:  # noqa: BLE001 - users' code; the generated code sees it and may go on
            return {"error": error_text(error)}


# -- the process -------------------------------------------------------------------------------------------------------


class _Ended(Exception):
    """The process has ended."""


class _TooLong(Exception):
    """The time is over."""


class _Clock:
    """Counts time down, but for the time in which it is stopped."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise _TooLong
        return left

    @contextlib.contextmanager
    def stopped(self) -> Any:
        since = time.monotonic()
        try:
            yield
        finally:
            self._end += time.monotonic() - since


class _Process:
    """The worker's process and the pipe to it: JSON lines, neither side of which can make the host wait."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        command = [sys.executable, "-I", "-S", "-X", "utf8", str(_WORKER), json.dumps(settings)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, cwd="/",
                                         stderr=subprocess.PIPE, close_fds=True, start_new_session=True)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._received = bytearray()
        self._finalizer = weakref.finalize(self, _kill, self._process)

    def send(self, message: Mapping[str, Any], clock: _Clock) -> None:
        data = memoryview(json.dumps(message).encode() + b"\n")
        with selectors.DefaultSelector() as selector:
            selector.register(self._in, selectors.EVENT_WRITE)
            while data:
                if not selector.select(clock.left()):
                    continue
                try:
                    data = data[os.write(self._in, data):]
                except BlockingIOError:
                    continue
                except OSError:
                    raise _Ended(self._how()) from None

    def receive(self, clock: _Clock) -> dict[str, Any]:
        """The next message; raises `_TooLong`, `_Ended`, or `SandboxError` P046 for what is no message."""
        searched = 0
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while (end := self._received.find(b"\n", searched)) < 0:
                searched = len(self._received)
                if searched > _LARGEST_MESSAGE:
                    raise _broken(f"it sent more than {_LARGEST_MESSAGE >> 20} MiB at once")
                if not selector.select(clock.left()):
                    continue
                piece = os.read(self._out, 1 << 16)
                if not piece:
                    raise _Ended(self._how())
                self._received += piece
        line = bytes(self._received[:end])
        del self._received[:end + 1]
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise _broken("it sent something that is no message")
        return message

    def interrupt(self) -> None:
        with contextlib.suppress(OSError):
            os.kill(self._process.pid, signal.SIGINT)

    def _how(self) -> str:
        """How it ended, in words."""
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "it closed its end of the pipe"
        return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"

    def kill(self) -> str:
        """End it, with all that it may have started; what it said on standard error."""
        self._finalizer.detach()
        return _kill(self._process)


def _kill(process: subprocess.Popen[bytes]) -> str:
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        process.kill()
    process.wait()
    said = b""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            if stream is process.stderr:
                os.set_blocking(stream.fileno(), False)
                said = stream.read(4096) or b""
            with contextlib.suppress(OSError):
                stream.close()
    return said.decode(errors="replace").strip()[-400:]


def _broken(why: str) -> SandboxError:
    return SandboxError("P046", "the sandbox broke its protocol and was ended", why=why,
                        hint="the code wrote to the pipe itself; nothing of what it sent is used")
