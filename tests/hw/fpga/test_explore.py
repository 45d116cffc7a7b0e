"""Configurations of the accelerator as a search: limits are kept, records are used, the front is a front."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from fpga_kernels import bytes_of, product

from tracedsl import kernel
from tracedsl.cache import Store
from tracedsl.diagnostics import Unsupported
from tracedsl.hw.fpga.config import Config
from tracedsl.kernel_hardware import explore

CHOICES = {"block": (4, 8, 16), "acc_depth": (128, 512), "bus_bytes": (4, 8)}


def area(config: Config) -> float:
    """Multipliers and kilobits of scratchpads."""
    bits = sum(8 * config.element_bytes(m) * config.depth(m) for m in ("inp", "wgt", "acc", "aux"))
    return config.block**2 + bits / 1024


def test_designs_by_cycles_and_area(tmp_path: Any) -> None:
    tmp_path.chmod(0o700)
    rng = np.random.default_rng(0)
    x, w = bytes_of(rng, 32, 48), bytes_of(rng, 48, 32)
    made = kernel()(product)
    found = explore(made, x, w, choices=CHOICES, area=area, limit=2000, store=Store(tmp_path))
    assert 4 <= len(found.designs) < 12 and all(d.area <= 2000 for d in found.designs)
    assert all(d.config.bus_bytes <= d.config.block for d in found.designs)
    front = found.pareto
    assert all(a.area <= b.area and a.cycles > b.cycles for a, b in pairwise(front))
    for design in found.designs:
        assert any(d.area <= design.area and d.cycles <= design.cycles for d in front)
    assert found.table().count("| *") == len(front)
    lines = (tmp_path / "records" / "hardware.jsonl").read_text().count("\n")
    assert explore(made, x, w, choices=CHOICES, area=area, limit=2000, store=Store(tmp_path)) == found
    assert (tmp_path / "records" / "hardware.jsonl").read_text().count("\n") == lines


def test_a_float_kernel_has_no_design() -> None:
    with pytest.raises(Unsupported, match="nothing of the kernel"):
        explore(kernel()(twice), np.ones(4, np.float32), choices={"block": (8,)}, area=area)


def twice(x):  # type: ignore[no-untyped-def]
    return x * 2
