"""Area: what Yosys says is read rightly and kept; the estimate is near it, and grows with what is built."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracedsl.hw.fpga import resources, tools
from tracedsl.hw.fpga.config import Config, FpgaError
from tracedsl.hw.fpga.estimate import estimate
from tracedsl.hw.fpga.resources import CHIPS, FAMILIES, Resources, measure

SMALL = Config(block=4, bus_bytes=4, inp_depth=1024, wgt_depth=256, acc_depth=512, aux_depth=128, tree_stages=1)
# The end of what `stat` prints: modules, then the whole design.
PRINTED = """
=== lane ===

   Number of cells:                 15
     LUT4                           10
     TRELLIS_FF                      5

=== design hierarchy ===

   accelerator                       1
     lane                            8

   Number of cells:                175
     CCU2C                           7
     DP16KD                          2
     LUT4                           80
     MULT18X18D                     16
     PFUMX                          30
     TRELLIS_DPR16X4                 3
     TRELLIS_FF                     40
"""


def test_the_whole_design_is_counted() -> None:
    assert resources.count(PRINTED, FAMILIES["ecp5"]) == Resources(80 + 2 * 7 + 6 * 3, 40, 16, 2)


def test_no_table_is_an_error() -> None:
    with pytest.raises(FpgaError, match="no table of cells") as caught:
        resources.count("Number of cells: 0", FAMILIES["ecp5"])
    assert caught.value.code == "H066"


def test_measured_once_and_near_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    if tools.missing("yosys"):
        pytest.skip("the RTL is not synthesised: yosys is not installed")
    found = measure(SMALL)
    guess = estimate(SMALL)
    assert (found.multipliers, found.memories) == (guess.multipliers, guess.memories)
    assert abs(found.luts / guess.luts - 1) < 0.05 and abs(found.registers / guess.registers - 1) < 0.05
    monkeypatch.setenv("PATH", "")
    assert measure(SMALL) == found


@pytest.mark.parametrize("family", FAMILIES)
@given(st.sampled_from((4, 8, 16)), st.data())
def test_more_costs_more(family: str, block: int, data: st.DataObject) -> None:
    depth = st.sampled_from((128, 512, 1024, 2048))
    config = Config(block=block, bus_bytes=4, tree_stages=1, inp_depth=data.draw(depth), wgt_depth=data.draw(depth),
                    acc_depth=data.draw(depth))
    small = estimate(config, family)
    for more in ({"block": 2 * block}, {"acc_depth": 2 * config.acc_depth}, {"queue_depth": 64}):
        assert small.fits(estimate(dataclasses.replace(config, **more), family)), more


def test_the_default_fits_the_chip() -> None:
    assert estimate(Config()).fits(CHIPS["ecp5-85k"])
    assert not estimate(Config(block=16, tree_stages=4)).fits(CHIPS["ecp5-85k"])  # 256 multipliers


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(FpgaError, match="no family") as caught:
        estimate(SMALL, "ice40")
    assert caught.value.code == "H060"


def test_what_nextpnr_reports_is_read() -> None:
    step = {"delay": 1.5, "from": {"cell": "a", "port": "Q"}, "to": {"cell": "b", "port": "D"}}
    edge = "posedge $glbnet$clk"
    found = resources.routed({
        "fmax": {"$glbnet$clk": {"achieved": 101.5, "constraint": 110.0}},
        "critical_paths": [{"from": "<async>", "to": edge, "path": []}, {"from": edge, "to": edge, "path": [step]}],
        "utilization": {"TRELLIS_FF": {"used": 7, "available": 9}, "PLL": {"used": 0, "available": 4}}})
    assert found == resources.Routed(101.5, ((1.5, "a.Q", "b.D"),), {"TRELLIS_FF": 7})
    with pytest.raises(FpgaError, match="speed grade 5"):
        resources.route(SMALL, speed=5)
