"""The picture shows each instruction once, where it belongs."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

from fpga_programs import random_program
from hypothesis import given
from hypothesis import strategies as st

from tracedsl.hw.fpga.config import Config
from tracedsl.hw.fpga.picture import svg
from tracedsl.hw.fpga.timing import events, timeline

SMALL = Config(inp_depth=64, wgt_depth=16, acc_depth=64, aux_depth=32)
SVG = "{http://www.w3.org/2000/svg}"


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_each_instruction_is_shown_once(seed: int, length: int) -> None:
    program = random_program(SMALL, seed, length)
    times = timeline(program, SMALL)
    root = ElementTree.fromstring(svg(program, times, width=800))
    bars = root.findall(f"{SVG}rect")
    titles = [bar.findtext(f"{SVG}title") or "" for bar in bars]
    assert sorted(int(title.partition(":")[0]) for title in titles) == list(range(len(program) - 1))
    boxes = [[float(bar.get(name, "")) for name in ("x", "y", "width", "height")] for bar in bars]
    for x, y, wide, high in boxes:
        assert x >= 70 and x + wide <= 800.1 and y >= 0 and y + high <= float(root.get("height", ""))
    by_row: dict[float, list[tuple[float, float]]] = {}
    for x, y, wide, _ in boxes:
        by_row.setdefault(y, []).append((x, x + wide))
    for row in by_row.values():
        row.sort()
        assert all(left[1] <= right[0] + 0.03 for left, right in pairwise(row))
    assert len(bars) == len(events(program, times))
