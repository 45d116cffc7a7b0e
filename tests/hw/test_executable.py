"""Calling compiled code: layouts, workspace, threads, and artefacts that were stored."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest
from nest_oracle import interpret
from nest_samples import at, call, load, matmul, param, program, result, saxpy

from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cpu.executable import Executable, Layout
from tracedsl.hw.cpu.target import Cpu
from tracedsl.ir.expr import Axis, Buffer
from tracedsl.ir.loops import For, LoopProgram, Nest, Store

Array = np.ndarray[Any, Any]


def stored(nest: LoopProgram) -> tuple[dict[str, bytes], dict[str, Any]]:
    """An artefact as it comes back from disk."""
    artefact = Cpu().compile(nest)
    return dict(artefact.blobs), json.loads(json.dumps(artefact.meta))


def built(nest: LoopProgram) -> Executable:
    return Cpu().load(*stored(nest))


def through_a_temporary(rows: int, columns: int, flops: int = 0) -> LoopProgram:
    """t = x + x; r = t * t, each row of t written by whoever gets it."""
    x, r = param("x", rows, columns), result("r", rows, columns)
    t = Buffer.row_major("t", "float32", (rows, columns))
    i, v, j, w = Axis("i", rows), Axis("v", columns), Axis("j", rows), Axis("w", columns)
    one, two = (at(i), at(v)), (at(j), at(w))
    first = For(i, "parallel", (For(v, "vector", (Store(t, one, call("add", load(x, *one), load(x, *one))),)),))
    second = For(j, "parallel", (For(w, "vector", (Store(r, two, call("mul", load(t, *two), load(t, *two))),)),))
    nests = (Nest("first", (x, t), (first,), flops), Nest("second", (t, r), (second,), flops))
    return LoopProgram("temporary", (x,), (r,), (t,), nests, (64,), 64 + 4 * rows * columns)


def test_an_artefact_comes_back_from_json() -> None:
    nest = saxpy()
    x, y = np.random.default_rng(0).random((2, 64), np.float32)
    r = np.empty(64, np.float32)
    built(nest)([x, y], [r])
    np.testing.assert_array_equal(r, interpret(nest, [x, y])[0])


def test_layouts_survive_json() -> None:
    layout = Layout.of(through_a_temporary(3, 4))
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout


@pytest.mark.parametrize("flops", [0, 1 << 30])
def test_threads_that_call_at_once_have_workspaces_of_their_own(flops: int) -> None:
    """With and without the thread pool."""
    run = built(through_a_temporary(64, 16, flops))
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).random((64, 16), np.float32)
        for _ in range(50):
            r = np.zeros_like(x)
            run([x], [r])
            if not np.array_equal(r, (x + x) ** 2):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    from tracedsl.hw.cpu.pool import pool

    a, b = np.random.default_rng(1).random((2, 96, 96), np.float32)
    run = built(matmul(96, 96, 96, flops=1 << 30))
    found = []
    have = pool().threads
    for threads in (1, 2, have):
        pool().limit(threads)
        c = np.zeros((96, 96), np.float32)
        run([a, b], [c])
        found.append(c)
    pool().limit(have)
    np.testing.assert_allclose(found[0], a @ b, rtol=1e-5)
    assert all(np.array_equal(found[0], c) for c in found)


@pytest.mark.parametrize("wrong", [
    np.zeros(64, np.float64), np.zeros(63, np.float32), np.zeros((64, 1), np.float32), np.zeros(128, np.float32)[::2],
    np.zeros(64, ">f4"), np.zeros(64, np.float32)[::-1],
], ids=["dtype", "extent", "rank", "stride", "order", "reversed"])
def test_arrays_that_do_not_fit_are_refused(wrong: Array) -> None:
    run, x = built(saxpy()), np.zeros(64, np.float32)
    with pytest.raises(TracedslError, match="does not fit") as caught:
        run([x, wrong], [x])
    assert caught.value.code == "H021"
    with pytest.raises(TracedslError, match="arrays are needed"):
        run([x], [x])


def test_strides_of_dimensions_with_one_element_do_not_matter() -> None:
    x, r, v = param("x", 1, 8), result("r", 8), Axis("v", 8)
    run = built(program((x,), (r,), For(v, "vector", (Store(r, (at(v),), load(x, at(v) * 0, at(v))),))))
    odd = np.lib.stride_tricks.as_strided(np.arange(8, dtype=np.float32), (1, 8), (12345, 4))
    got = np.zeros(8, np.float32)
    run([odd], [got])
    assert got.tolist() == list(range(8))


def test_code_of_another_machine_is_refused() -> None:
    blobs, meta = stored(saxpy())
    with pytest.raises(TracedslError, match="does not fit this machine") as caught:
        Cpu().load(blobs, {**meta, "fingerprint": "0"})
    assert caught.value.code == "H022"


@pytest.mark.parametrize("damage", [{"layout": None}, {"layout": {}}, {"layout": {"params": [[1]]}}])
def test_damaged_descriptions_are_refused(damage: dict[str, Any]) -> None:
    blobs, meta = stored(saxpy())
    with pytest.raises(TracedslError, match="incomplete"):
        Cpu().load(blobs, {**meta, **damage})
    with pytest.raises(TracedslError, match="incomplete"):
        Cpu().load({}, meta)


def test_damaged_code_is_refused() -> None:
    blobs, meta = stored(saxpy())
    with pytest.raises(TracedslError) as caught:
        Cpu().load({"object": blobs["object"][:100]}, meta)
    assert caught.value.code == "H002"


def test_the_fingerprint_names_what_decides_the_code() -> None:
    assert Cpu().fingerprint() == Cpu().fingerprint()
    assert Cpu().fingerprint() != Cpu(contract=False).fingerprint()


def test_texts_for_people() -> None:
    cpu = Cpu()
    assert "define void @run(ptr %buffers)" in cpu.llvm(saxpy())
    assert "nest_saxpy" in cpu.assembly(saxpy())
