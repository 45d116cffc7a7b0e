"""The same RTL under a second simulator, Icarus Verilog, and a memory written a second time: nothing of the agreement
rests on Verilator or on its harness."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from fpga_programs import memory, random_program
from numpy.typing import NDArray

from tracedsl.hw.fpga import functional, tools
from tracedsl.hw.fpga.config import CHUNK, WORD_BYTES, Config, Dram
from tracedsl.hw.fpga.encoding import encode
from tracedsl.hw.fpga.rtl.top import text
from tracedsl.hw.fpga.timing import timeline

CONFIG = Config(block=8, bus_bytes=4, inp_depth=64, wgt_depth=16, acc_depth=64, aux_depth=32)


@pytest.mark.parametrize("config", [CONFIG, dataclasses.replace(CONFIG, block=4, tree_stages=1, queue_depth=4)],
                         ids=["b8", "b4"])
@pytest.mark.parametrize("dram", [Dram(1, 1), Dram(20, 3)], ids=["fast", "slow"])
def test_icarus_agrees(config: Config, dram: Dram, tmp_path: Path) -> None:
    if lacking := tools.missing("iverilog", "vvp"):
        pytest.skip(f"the RTL is not simulated: {', '.join(lacking)} is not installed")
    program = random_program(config, 11, 25)
    before = memory(config, 11)
    expected = before.copy()
    functional.run(program, config, expected)
    cycles, after = _simulate(encode(program), before, config, dram, tmp_path)
    assert (after == expected).all()
    assert cycles == timeline(program, config, dram).cycles


def _simulate(image: bytes, before: NDArray[np.uint8], config: Config, dram: Dram,
              folder: Path) -> tuple[int, NDArray[np.uint8]]:
    bus, content = config.bus_bytes, before.tobytes() + image
    beats = [content[at:at + bus][::-1].hex() for at in range(0, len(content), bus)]
    (folder / "memory.hex").write_text("\n".join(beats))
    (folder / "all.v").write_text(text(config))
    numbers = {"BLOCK": config.block, "BUS": bus, "BEATS": len(beats), "ADDRESS": len(before) // config.block,
               "CHUNKS": len(image) // (CHUNK * WORD_BYTES), "LATENCY": dram.latency, "PACE": dram.cycles_per_beat}
    settings = [f"-Ptestbench.{name}={value}" for name, value in numbers.items()]
    bench = Path(__file__).parent / "testbench.v"
    tools.call(["iverilog", "-g2005-sv", "-o", "run", "-s", "testbench", *settings, str(bench), "all.v"], folder, 120)
    printed = tools.call(["vvp", "run"], folder, 120)
    assert "done 0 " in printed, printed
    lines = [line for line in (folder / "after.hex").read_text().splitlines() if not line.startswith("//")]
    found = b"".join(bytes.fromhex(line)[::-1] for line in lines)
    return int(printed.split("done 0 ")[1].split()[0]), np.frombuffer(found[:len(before)], np.uint8)
