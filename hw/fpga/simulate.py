"""The RTL, run: built by Verilator once for a configuration, kept in the store, driven by `harness.cpp`.

What holds here: a run ends. It has a limit of cycles (of its own clock) and of seconds, and going over either is an
error (H067). A simulator that is in the store needs no tools.
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from tracedsl.cache import Entry, Key, Store, digest
from tracedsl.hw.fpga.config import CHUNK, DRAM, WORD_BYTES, Config, Dram, FpgaError
from tracedsl.hw.fpga.rtl import top
from tracedsl.hw.fpga.timing import Timeline
from tracedsl.hw.fpga.tools import call, need

BUILD_SECONDS = 600.0
_JOB = Struct("<6Q")
_FAILURES = {1: "the accelerator says that the program is damaged", 3: "a request goes outside of the memory"}


@dataclass(frozen=True)
class Run:
    """What a run of the RTL came to: the memory afterwards, and when each unit took a word and was done with it."""

    memory: NDArray[np.uint8]
    timeline: Timeline


class Simulator:
    """The accelerator of one configuration, ready to run. It is built when it is made, unless the store has it; that
    takes some ten seconds. Raises FpgaError (H065) if Verilator or a compiler is missing."""

    def __init__(self, config: Config, store: Store | None = None) -> None:
        self.config = config
        entry, self.build_seconds = _built(config, store or Store())
        self._folder = tempfile.TemporaryDirectory(prefix="tracedsl-fpga-")
        self._path = Path(self._folder.name) / "accelerator"
        self._path.write_bytes(entry)
        self._path.chmod(0o700)

    def run(self, image: bytes, memory: NDArray[np.uint8], dram: Dram = DRAM, *, limit: int = 50_000_000,
            seconds: float = 600.0) -> Run:
        """Run the program of `image` (from `encode`), with `memory` (uint8, whole vectors) at address 0; the image
        comes behind it. `limit` counts cycles. Raises FpgaError: H067 if a limit is reached, H061 if the program is
        damaged."""
        room = len(memory) + -len(memory) % WORD_BYTES
        content = memory.tobytes() + bytes(room - len(memory)) + image
        job = _JOB.pack(dram.latency, dram.cycles_per_beat, limit, room // self.config.block,
                        len(image) // (CHUNK * WORD_BYTES), len(content))
        try:
            done = subprocess.run([str(self._path)], input=job + content, capture_output=True, timeout=seconds,
                                  check=False)
        except subprocess.TimeoutExpired:
            what = f"the simulation did not end within {seconds:g} s"
            raise FpgaError("H067", what, hint="give it more `seconds`") from None
        if done.returncode:
            what = f"the simulator ended with status {done.returncode}"
            raise FpgaError("H066", what, why=done.stderr.decode(errors="replace")[-500:])
        return _outcome(done.stdout, len(memory), limit)

    def close(self) -> None:
        """Remove what was unpacked; also done when this object goes."""
        self._folder.cleanup()


def _outcome(data: bytes, size: int, limit: int) -> Run:
    words = np.frombuffer(data[:len(data) // 8 * 8], np.uint64)
    status, cycles, at = int(words[0]), int(words[1]), 2
    lists: list[tuple[int, ...]] = []
    for _ in range(6):
        count = int(words[at])
        lists.append(tuple(words[at + 1:at + 1 + count].tolist()))
        at += 1 + count
    if status == 2:
        raise FpgaError("H067", f"the program did not end within {limit} cycles",
                        why=f"done: {len(lists[1])} loads, {len(lists[3])} GEMM and ALU, {len(lists[5])} stores",
                        hint="check it with tracedsl.hw.fpga.checker, or give it a larger `limit`")
    if status:
        raise FpgaError("H061", "the accelerator refused the program", why=_FAILURES[status])
    return Run(np.frombuffer(data[8 * at:8 * at + size], np.uint8).copy(),
               Timeline(cycles, (lists[0], lists[2], lists[4]), (lists[1], lists[3], lists[5])))


def key(config: Config) -> Key:
    """Where the store keeps the simulator of a configuration."""
    parts = {"rtl": digest(top.text(config)), "harness": digest(_harness()), "config": config.text(),
             "machine": f"{platform.system()} {platform.machine()}"}
    return Key("fpga-simulator", "accelerator", parts)


def _harness() -> str:
    return (files("tracedsl.hw.fpga") / "harness.cpp").read_text()


def _built(config: Config, store: Store) -> tuple[bytes, float]:
    """The simulator's executable, and the seconds that it took to build it (0 from the store)."""
    wanted = key(config)
    if (entry := store.get(wanted)) is not None:
        return _executable(entry), 0.0
    need("verilator", "make", "g++")
    with store.lock(wanted):
        if (entry := store.get(wanted)) is not None:
            return _executable(entry), 0.0
        begin = time.monotonic()
        built = build(config)
        seconds = time.monotonic() - begin
        store.put(wanted, {"accelerator": built}, {"seconds": round(seconds, 1)})
    return built, seconds


def _executable(entry: Entry) -> bytes:
    return bytes(entry.blobs["accelerator"])


def build(config: Config, jobs: int = 2) -> bytes:
    """Build the simulator with Verilator; the executable's bytes."""
    with tempfile.TemporaryDirectory(prefix="tracedsl-verilator-") as name:
        folder = Path(name)
        write_sources(config, folder)
        (folder / "harness.cpp").write_text(_harness())
        call(_verilator(config, jobs), folder, BUILD_SECONDS)
        return (folder / "build" / "Vaccelerator").read_bytes()


def write_sources(config: Config, folder: Path) -> None:
    """The RTL as files."""
    for module, text in top.write(config).items():
        (folder / f"{module}.v").write_text(text)


def lint(config: Config) -> str:
    """What `verilator -Wall` says about the RTL: nothing, if all is well. Raises FpgaError (H066) with its words
    else."""
    with tempfile.TemporaryDirectory(prefix="tracedsl-lint-") as name:
        write_sources(config, Path(name))
        return call(["verilator", "--lint-only", "-Wall", "-y", ".", f"{top.TOP}.v"], Path(name), BUILD_SECONDS)


def _verilator(config: Config, jobs: int) -> Sequence[str]:
    flags = f"-O2 -DBLOCK={config.block} -DBUS={config.bus_bytes} -std=c++17"
    compiler = os.environ.get("CXX", "g++")
    return ["verilator", "--cc", "--exe", "--build", "-Wall", "-O3", "--x-assign", "fast", "--x-initial", "fast",
            "--noassert", "-j", str(jobs), "-y", ".", "--top-module", top.TOP, "-CFLAGS", flags,
            "-MAKEFLAGS", f"CXX={compiler} LINK={compiler}", "--Mdir", "build", "-o", "Vaccelerator", f"{top.TOP}.v",
            "harness.cpp"]
