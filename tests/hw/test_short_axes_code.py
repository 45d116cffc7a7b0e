"""The code of sums over pairs of points: everything between two points stays in registers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from test_codegen_tensor import ZEN4, program_for, steps

from tracedsl.hw.cpu.target import Cpu


def accelerations(position: np.ndarray, mass: np.ndarray) -> np.ndarray:
    apart = position[None] - position[:, None]
    squared = (apart * apart).sum(-1) + 1e-3
    weight = mass / (squared * np.sqrt(squared))
    return (apart * weight[:, :, None]).sum(1)


def test_a_step_over_all_other_bodies_is_arithmetic_alone() -> None:
    """For two vectors of bodies: the other body's place and mass are loaded once, nothing is computed twice, shuffled,
    stored or spilled."""
    position, mass = np.zeros((2000, 3), np.float32), np.zeros(2000, np.float32)
    program = program_for(accelerations, ZEN4, position, mass)
    assert not program.temps
    found = max(steps(Cpu(ZEN4).assembly(program), "vfmadd"), key=len)
    count = {name: sum(line.startswith(name) for line in found)
             for name in ("vsubps", "vsqrtps", "vdivps", "vfmadd", "vperm", "vmovups")}
    assert count == {"vsubps": 6, "vsqrtps": 2, "vdivps": 2, "vfmadd": 6, "vperm": 0, "vmovups": 0}
    assert sum("(" in line for line in found) == 4
    assert not any("%rsp" in line or "%rbp" in line for line in found if line.startswith("v"))
