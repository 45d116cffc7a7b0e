"""The streams themselves: one in full, the timing model's and the RTL's word on them, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fpga_kernels import bytes_of, product, requantised

from tracedsl import kernel
from tracedsl.cache import Store
from tracedsl.diagnostics import TracedslError
from tracedsl.hw.fpga import tools
from tracedsl.hw.fpga.compile.executable import FpgaExecutable
from tracedsl.hw.fpga.compile.offload import offload_of
from tracedsl.hw.fpga.config import Config, FpgaError
from tracedsl.hw.fpga.target import FpgaSim
from tracedsl.hw.target import target
from tracedsl.ir.loops import LoopProgram
from tracedsl.schedule import Schedule

SETTINGS = "block=4,bus_bytes=4,inp_depth=64,wgt_depth=16,acc_depth=64,aux_depth=32"


def given(m: int = 9, k: int = 10, n: int = 6) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    return bytes_of(rng, m, k), bytes_of(rng, k, n), rng.integers(-999, 999, n, dtype=np.int32)


def loops_of(function: Any, settings: str, *arrays: Any) -> LoopProgram:
    """The program that the kernel is compiled from."""
    made: list[LoopProgram] = []
    on = target(f"fpga-sim:{settings}")
    compile_ = FpgaSim.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FpgaSim, "compile", lambda self, program: made.append(program) or compile_(self, program))
        kernel(target=f"fpga-sim:{settings}", strict=True)(function)(*arrays)
    assert on.name == "fpga-sim"
    return made[0]


def test_the_stream_of_a_small_kernel(golden: Callable[[str, str], None]) -> None:
    made = kernel(target=f"fpga-sim:{SETTINGS}")(requantised)
    golden("fpga/requantised.isa.txt", made.show("isa", *given()))
    golden("fpga/requantised.loops.txt", made.show("loops", *given()))
    golden("fpga/requantised.timeline.txt", made.show("timeline", *given()))
    assert "module" in made.show("rtl", *given())
    assert made.show("svg", *given()).startswith("<svg")


def test_virtual_threads_hide_latency() -> None:
    x, w, _ = given(64, 64, 64)
    cycles = {}
    for threads in (1, 2):
        made = kernel(target=f"fpga-sim:threads={threads}", strict=True)(product)
        made(x, w)
        cycles[threads] = made.runnable.launches[0].counts["cycles"]
    assert cycles[2] < 0.9 * cycles[1]


def test_the_rtl_gives_the_same() -> None:
    if lacking := tools.missing("verilator", "make", "g++"):
        pytest.skip(f"the RTL is not simulated: {', '.join(lacking)} is not installed")
    made = kernel(target=f"fpga-sim:{SETTINGS},rtl", strict=True)(requantised)
    x, w, b = given()
    assert np.array_equal(made(x, w, b), requantised(x, w, b))
    (launch,) = made.runnable.launches
    assert launch.runner.cycles == launch.counts["cycles"]


def test_a_tile_that_overflows_a_scratchpad_is_refused(golden: Callable[[str, str], None]) -> None:
    program = loops_of(product, SETTINGS, *given(40, 80, 24)[:2])
    offload = offload_of(program.nests[0])
    assert offload is not None
    whole = Schedule.of(offload.task)
    nest = dataclasses.replace(program.nests[0], body=(dataclasses.replace(offload, schedule=whole),))
    with pytest.raises(FpgaError) as refused:
        target(f"fpga-sim:{SETTINGS}").compile(dataclasses.replace(program, nests=(nest,)))
    golden("../errors/fpga_overflow.txt", str(refused.value))


def test_a_float_kernel_says_what_keeps_it_from_the_accelerator(golden: Callable[[str, str], None]) -> None:
    @kernel(target="fpga-sim", strict=True)
    def scaled(x):  # type: ignore[no-untyped-def]
        return x * 2 + 1

    with pytest.raises(TracedslError) as refused:
        scaled(np.ones((4, 5), np.float32))
    golden("../errors/fpga_float_kernel.txt", str(refused.value))


def test_a_damaged_stream_is_refused(golden: Callable[[str, str], None]) -> None:
    on = target(f"fpga-sim:{SETTINGS}")
    artefact = on.compile(loops_of(product, SETTINGS, *given()[:2]))
    (name,) = artefact.blobs
    damaged = bytearray(artefact.blobs[name])
    damaged[40] ^= 4
    with pytest.raises(FpgaError) as refused:
        on.load({name: bytes(damaged)}, artefact.meta)
    golden("../errors/fpga_damaged_stream.txt", str(refused.value))
    with pytest.raises(TracedslError, match="incomplete"):
        on.load({}, artefact.meta)
    assert isinstance(on.load(artefact.blobs, artefact.meta), FpgaExecutable)


def test_a_kernel_comes_from_disk_with_its_report(tmp_path: Any) -> None:
    tmp_path.chmod(0o700)
    for cached in (False, True):
        made = kernel(target=f"fpga-sim:{SETTINGS}", strict=True, store=Store(tmp_path))(product)
        x, w, _ = given()
        assert np.array_equal(made(x, w), product(x, w))
        assert made.from_cache == cached and "cycles" in made.explain()


def test_settings_that_there_are_not() -> None:
    with pytest.raises(FpgaError, match="blok") as refused:
        target("fpga-sim:blok=8")
    assert "block" in str(refused.value)
    with pytest.raises(FpgaError, match="block = 7"):
        target("fpga-sim:block=7")
    with pytest.raises(TracedslError, match="no settings"):
        target("cpu:fast")
    assert target("fpga-sim:block=16").config == Config(block=16, bus_bytes=16)


def test_tuning_finds_no_worse_tile_and_is_recorded(tmp_path: Any) -> None:
    tmp_path.chmod(0o700)
    x, w, _ = given(30, 40, 50)
    cycles = []
    for trials in (0, 24):
        made = kernel(target=f"fpga-sim:{SETTINGS}", strict=True, tune=trials, store=Store(tmp_path))(product)
        assert np.array_equal(made(x, w), product(x, w))
        cycles.append(made.runnable.launches[0].counts["cycles"])
    assert cycles[1] <= cycles[0]
    assert (tmp_path / "records" / "kernels.jsonl").read_text().count("\n") >= 20
