"""The CPU as a target: a parallel loop program, compiled, stored as bytes, loaded, run on the pool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tracedsl.cache import Key, Store
from tracedsl.diagnostics import TracedslError
from tracedsl.hw.target import target
from tracedsl.ir.expr import Affine, Axis, Buffer, Call, Const, Load
from tracedsl.ir.loops import For, LoopProgram, Nest
from tracedsl.ir.loops import Store as Write


def doubled(n: int) -> LoopProgram:
    """y = 2 x, in parallel rows of 64; the estimate of its work is large enough for threads."""
    x, y = (Buffer.row_major(name, "float32", (n, 64), scope) for name, scope in (("x", "param"), ("y", "result")))
    row, column = Axis("row", n), Axis("column", 64)
    at = (Affine.of(row), Affine.of(column))
    value = Call("float32", "mul", (Load("float32", x, at), Const("float32", 2.0)))
    body = For(row, "parallel", (For(column, "vector", (Write(y, at, value),)),))
    return LoopProgram("doubled", (x,), (y,), (), (Nest("rows", (x, y), (body,), flops=10 ** 9),))


def test_compile_store_load_run(tmp_path: Path) -> None:
    cpu, store = target("cpu"), Store(tmp_path / "kept")
    key = Key("kernel", "doubled", {"target": cpu.fingerprint()})
    made = cpu.compile(doubled(100))
    assert store.put(key, made.blobs, made.meta)
    kept = store.get(key)
    assert kept is not None
    code = cpu.load(kept.blobs, kept.meta)
    x, y = np.arange(6400, dtype=np.float32), np.zeros(6400, np.float32)
    code.run([x.ctypes.data, y.ctypes.data])
    assert np.array_equal(y, 2 * x)
    assert cpu.compile(doubled(100)).blobs == made.blobs, "the same program gives the same bytes"


def test_code_of_another_machine_is_refused() -> None:
    made = target("cpu").compile(doubled(8))
    for meta in ({**made.meta, "fingerprint": "of another machine"}, {}):
        with pytest.raises(TracedslError, match="H022"):
            target("cpu").load(made.blobs, meta)
