"""Linking images and running them: processes under QEMU's user mode, modules in wasmtime.

What holds here: one run is one process or one instance; it sees a block of memory that starts with the addresses of its
buffers, and nothing else of this process. What fails in there is a TracedslError here (H071), what is missing on this
machine is one too (H070), with the line that installs it.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cross.machines import Row
from tracedsl.hw.cross.support import BASE

_SECONDS = 600.0     # no image runs longer: emulation is slow, but not for ever
_LINE = 64

# Fills a block for buffers that begin at an address.
Fill = Callable[[int], bytearray]


def missing(row: Row) -> tuple[tuple[str, str], ...]:
    """The tools of a row that this machine lacks, each with the line that installs it."""
    return tuple((tool, line) for tool, line in row.tools
                 if not (find_spec(tool) if tool == "wasmtime" else shutil.which(tool)))


def need(name: str, row: Row, run: bool) -> None:
    """Raises TracedslError (H070) if what links (or also runs) this machine's code is not here."""
    lacking = missing(row) if run else tuple(m for m in missing(row) if m[0] == row.link[0])
    if lacking:
        raise TracedslError("H070", f"the target {name!r} needs {' and '.join(tool for tool, _ in lacking)}",
                            hint="; ".join(line for _, line in lacking))


def link(row: Row, objects: Sequence[bytes]) -> bytes:
    """One image of these objects. Raises TracedslError (H002) with the linker's words."""
    with tempfile.TemporaryDirectory(prefix="tracedsl-") as folder:
        files = [Path(folder, f"{i}.o") for i in range(len(objects))]
        for path, data in zip(files, objects, strict=True):
            path.write_bytes(data)
        image = Path(folder, "image")
        done = subprocess.run([*row.link, "-o", image, *files], capture_output=True, text=True, timeout=_SECONDS)
        if done.returncode:
            raise TracedslError("H002", "object code cannot be linked", why=done.stderr.strip()[:2000])
        return image.read_bytes()


def run(row: Row, image: bytes, fill: Fill) -> memoryview:
    """Run an image on the block that `fill` makes; the block afterwards."""
    return _in_process(row, image, fill) if row.system else _in_wasmtime(image, fill)


def _in_process(row: Row, image: bytes, fill: Fill) -> memoryview:
    block = fill(BASE)
    with tempfile.TemporaryDirectory(prefix="tracedsl-") as folder, tempfile.TemporaryFile() as arrays:
        program = Path(folder, "image")
        program.write_bytes(image)
        program.chmod(0o700)
        arrays.write(block)
        arrays.flush()
        try:
            done = subprocess.run([*row.run, str(program)], stdin=arrays, capture_output=True, timeout=_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise TracedslError("H071", f"code did not end within {_SECONDS:.0f} s under {row.run[0]}") from error
        if done.returncode:
            ended = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
            raise TracedslError("H071", f"code for {row.triple} did not end well under {row.run[0]}",
                                why=f"{ended} {done.stderr.decode(errors='replace').strip()[:500]}",
                                hint="please report it with the output of show('llvm')")
        arrays.seek(0)
        return memoryview(arrays.read())


@lru_cache(maxsize=64)
def _module(image: bytes) -> tuple[Any, Any]:
    """The engine and the compiled module of an image."""
    import wasmtime

    return _engine(), wasmtime.Module(_engine(), image)


@cache
def _engine() -> Any:
    """One for all modules. Both go when the interpreter begins to end: later, wasmtime can free nothing."""
    import wasmtime

    atexit.register(_engine.cache_clear)
    atexit.register(_module.cache_clear)
    return wasmtime.Engine()


def _in_wasmtime(image: bytes, fill: Fill) -> memoryview:
    import wasmtime

    engine, module = _module(image)
    store = wasmtime.Store(engine)
    try:
        exports = wasmtime.Instance(store, module, []).exports(store)
        memory: Any = exports["memory"]
        heap: Any = exports["__heap_base"]
        entry: Any = exports["run"]
        base = -(-heap.value(store) // _LINE) * _LINE
        block = fill(base)
        pages = -(-(base + len(block)) // 65536) - memory.size(store)
        if pages > 0:
            memory.grow(store, pages)
        memory.write(store, block, base)
        entry(store, base)
        return memoryview(memory.read(store, base, base + len(block)))
    except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
        raise TracedslError("H071", "code for wasm32 did not end well under wasmtime", why=str(error)[:500],
                            hint="arrays of a call must fit into 4 GiB together") from error
