"""Three executions of one program agree: NumPy's and the RTL's memory, the timing model's and the RTL's cycles.

`--long` walks through seven configurations with 200 programs each; otherwise two configurations with 40. `-rP` shows
what was compared.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from fpga_programs import VECTORS, memory, random_program
from hypothesis import given
from hypothesis import strategies as st

from tracedsl.cache import Store
from tracedsl.hw.fpga import functional, rtl, simulate, tools
from tracedsl.hw.fpga.config import CHUNK, WORD_BYTES, Config, Dram, FpgaError
from tracedsl.hw.fpga.encoding import encode
from tracedsl.hw.fpga.isa import Alu, Finish, Load, Op, Target, Unit, Walk
from tracedsl.hw.fpga.rtl.top import text, write
from tracedsl.hw.fpga.simulate import Simulator
from tracedsl.hw.fpga.timing import events, timeline

SMALL = Config(inp_depth=64, wgt_depth=16, acc_depth=64, aux_depth=32)
CONFIGS = {
    "b4": dataclasses.replace(SMALL, block=4, bus_bytes=4, tree_stages=1, queue_depth=4, bursts=2),
    "b8": SMALL,
    "b8_narrow": dataclasses.replace(SMALL, bus_bytes=4, tree_stages=2, queue_depth=8, bursts=4),
    "b16": dataclasses.replace(SMALL, block=16, bus_bytes=16, tree_stages=2),
    "b16_narrow": dataclasses.replace(SMALL, block=16, bus_bytes=4, tree_stages=4),
    "b16_large": Config(block=16, bus_bytes=8, wgt_depth=256, acc_depth=2048, aux_depth=64),
    "b32": dataclasses.replace(SMALL, block=32, bus_bytes=32, tree_stages=5),
}
SHORT = ("b4", "b8_narrow")


@pytest.fixture(scope="session")
def simulators(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Simulator]:
    """The simulator of a configuration, built once for all tests."""
    made: dict[str, Simulator] = {}
    store = Store(tmp_path_factory.mktemp("simulators"))
    store.root.chmod(0o700)

    def get(name: str) -> Simulator:
        if lacking := tools.missing("verilator", "make", "g++"):
            pytest.skip(f"the RTL is not simulated: {', '.join(lacking)} is not installed")
        if name not in made:
            made[name] = Simulator(CONFIGS[name], store)
        return made[name]

    return get


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CONFIGS)
def test_model_and_rtl_agree(name: str, simulators: Callable[[str], Simulator], request: pytest.FixtureRequest) -> None:
    """Memory byte for byte, and for each word the cycles in which it was taken and done."""
    long = bool(request.config.getoption("--long"))
    if not long and name not in SHORT:
        pytest.skip("part of the long run")
    simulator = simulators(name)
    config = CONFIGS[name]
    programs, words, cycles = 200 if long else 40, 0, 0
    for seed in range(programs):
        rng = Random(seed)
        program = random_program(config, seed, rng.randint(1, rng.choice((5, 40))))
        dram = Dram(rng.choice((1, 2, 5, 20, 100)), rng.choice((1, 1, 2, 3)))
        before = memory(config, seed)
        expected = before.copy()
        functional.run(program, config, expected)
        run = simulator.run(encode(program), before, dram, limit=1_000_000)
        assert (run.memory == expected).all(), (name, seed)
        assert run.timeline == timeline(program, config, dram), (name, seed)
        words, cycles = words + len(program), cycles + run.timeline.cycles
    print(f"{name}: {programs} programs, {words} instructions, {cycles} cycles, all equal ({config.text()})")


@given(st.integers(0, 2**32), st.integers(0, 2**32), st.integers(1, 8))
def test_a_damaged_stream_ends(simulators: Callable[[str], Simulator], seed: int, noise: int, hits: int) -> None:
    """What the checker would refuse is run nevertheless: it ends, by itself or at the limit, or is reported."""
    simulator = simulators("b4")
    image = bytearray(encode(random_program(simulator.config, seed, 6)))
    rng = Random(noise)
    for _ in range(hits):
        image[rng.randrange(len(image))] = rng.randrange(256)
    try:
        simulator.run(bytes(image), memory(simulator.config, seed), limit=20_000)
    except FpgaError as error:
        assert error.code in ("H061", "H067")


def test_a_program_without_end_is_reported(simulators: Callable[[str], Simulator]) -> None:
    image = bytearray(encode([Alu(op=Op.MOV, counts=(1, 1, 1), acc=Walk())] * (CHUNK - 1) + [Finish()]))
    image[(CHUNK - 1) * WORD_BYTES] = 3  # FINISH becomes one more ALU
    with pytest.raises(FpgaError) as caught:
        simulators("b4").run(bytes(image), memory(CONFIGS["b4"], 0))
    assert caught.value.code == "H061"


def test_a_deadlock_ends_at_the_limit(simulators: Callable[[str], Simulator]) -> None:
    program = [Load(target=Target.INP, at=0, dram=0, pop_next=True), Finish()]
    with pytest.raises(FpgaError) as caught:
        simulators("b4").run(encode(program), memory(CONFIGS["b4"], 0), limit=5000)
    assert caught.value.code == "H067"


def test_a_simulator_from_the_store_needs_no_tools(simulators: Callable[[str], Simulator], tmp_path: object,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    built = simulators("b4")
    store = Store()
    store.put(simulate.key(built.config), {"accelerator": built._path.read_bytes()})
    monkeypatch.setenv("PATH", "")
    program = [Alu(op=Op.MOV, counts=(1, 1, 1), acc=Walk()), Finish()]
    found = Simulator(built.config, store)
    assert found.build_seconds == 0.0
    assert found.run(encode(program), memory(built.config, 0)).timeline == timeline(program, built.config)


def test_without_the_tools_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_find", lambda name: None)
    with pytest.raises(FpgaError, match="apt install verilator") as caught:
        Simulator(SMALL)
    assert caught.value.code == "H065"


def test_a_tool_that_fails_or_hangs_is_an_error(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    with pytest.raises(FpgaError, match="status 3"):
        tools.call(["sh", "-c", "echo broken; exit 3"], folder, 10)
    begin = time.monotonic()
    with pytest.raises(FpgaError, match="did not end"):
        tools.call(["sh", "-c", "sleep 30 & sleep 30"], folder, 0.2)
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("name", CONFIGS)
def test_verilator_has_nothing_to_say(name: str) -> None:
    if tools.missing("verilator"):
        pytest.skip("the RTL is not linted: verilator is not installed")
    assert "%" not in simulate.lint(CONFIGS[name])


def test_the_rtl_is_what_it_was(golden: Callable[[str, str], None]) -> None:
    golden("fpga/accelerator_b8.v", text(Config()))


def test_only_the_configuration_decides_the_rtl() -> None:
    assert write(SMALL) == write(dataclasses.replace(SMALL))
    assert len({text(config) for config in CONFIGS.values()}) == len(CONFIGS)
    assert rtl.__doc__ is not None


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_the_timing_model_ends_and_more_latency_takes_no_less(seed: int, length: int) -> None:
    program = random_program(SMALL, seed, length)
    fast, slow = (timeline(program, SMALL, Dram(latency)).cycles for latency in (1, 200))
    assert fast < slow
    scratch = np.zeros(VECTORS * SMALL.block, np.uint8)
    functional.run(program, SMALL, scratch)


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_each_instruction_has_its_event(seed: int, length: int) -> None:
    program = random_program(SMALL, seed, length)
    times = timeline(program, SMALL)
    found = events(program, times)
    assert sorted(event.number for event in found) == list(range(len(program) - 1))
    for event in found:
        instruction = program[event.number]
        assert not isinstance(instruction, Finish) and event.unit is instruction.unit
        assert 0 < event.start < event.end < times.cycles
    for unit in Unit:
        mine = [event for event in found if event.unit is unit]
        assert [event.number for event in mine] == sorted(event.number for event in mine)
