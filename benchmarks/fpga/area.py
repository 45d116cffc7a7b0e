"""Area of configurations: measured, and as `tracedsl.hw.fpga.estimate` has it.

What holds here: the error that is told of a fit is that of configurations which the fit did not see (each is left out
once), relative to what was measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tracedsl.hw.fpga.config import Config
from tracedsl.hw.fpga.estimate import estimate, terms
from tracedsl.hw.fpga.resources import Resources, measure

_SMALL = Config(block=4, bus_bytes=4, inp_depth=1024, wgt_depth=256, acc_depth=512, aux_depth=128, tree_stages=1)
_LARGE = Config(block=16, bus_bytes=16, wgt_depth=256, acc_depth=2048, tree_stages=4)
CONFIGS = {
    "b4 t1": _SMALL,
    "b4 t2 q32": dataclasses.replace(_SMALL, tree_stages=2, queue_depth=32),
    "b8": Config(),
    "b8 t1": dataclasses.replace(Config(), tree_stages=1),
    "b8 bus4": dataclasses.replace(Config(), bus_bytes=4),
    "b8 bus4 t2 q32": dataclasses.replace(Config(), bus_bytes=4, tree_stages=2, queue_depth=32),
    "b8 deep": dataclasses.replace(Config(), inp_depth=4096, wgt_depth=1024, acc_depth=2048, tree_stages=2),
    "b16": _LARGE,
    "b16 bus8 t2": dataclasses.replace(_LARGE, bus_bytes=8, tree_stages=2),
    "b16 bus4 t1": dataclasses.replace(_LARGE, bus_bytes=4, tree_stages=1, acc_depth=1024),
    "b16 bus8 q32": dataclasses.replace(_LARGE, bus_bytes=8, queue_depth=32),
}
FITTED = ("luts", "registers")


def measured(config: Config, family: str) -> Resources:
    """What Yosys made of it."""
    return measure(config, family)


def table(found: Mapping[str, Resources], family: str) -> str:
    """Measured, and in parentheses what the estimate of the package says."""
    names = [field.name for field in dataclasses.fields(Resources)]
    lines = ["| configuration | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for name, real in found.items():
        guess = estimate(CONFIGS[name], family)
        cells = [f"{getattr(real, kind)} ({getattr(guess, kind)})" for kind in names]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    ratios = {kind: [getattr(estimate(CONFIGS[name], family), kind) / getattr(real, kind)
                     for name, real in found.items()] for kind in names}
    errors = [f"{kind} {_worst(of_kind)}" for kind, of_kind in ratios.items()]
    return "\n".join([*lines, "", "Worst errors of the estimate: " + ", ".join(errors)])


def _worst(ratios: list[float]) -> str:
    return f"{100 * max(abs(ratio - 1) for ratio in ratios):.1f} %"


def fitted(found: Mapping[str, Resources], family: str) -> str:
    """Weights for `estimate.WEIGHTS`, and their error on configurations that were left out."""
    rows = np.array([terms(CONFIGS[name]) for name in found])
    lines, errors = [], []
    for kind in FITTED:
        real = np.array([float(getattr(one, kind)) for one in found.values()])
        lines.append("(" + ", ".join(f"{weight:.4g}" for weight in _solve(rows, real)) + ")")
        ratios = []
        for at in range(len(real)):
            others = np.arange(len(real)) != at
            ratios.append(float(rows[at] @ _solve(rows[others], real[others]) / real[at]))
        errors.append(f"{kind} {_worst(ratios)}")
    weights = f'    "{family}": ({lines[0]},\n             {lines[1]}),'
    return f"{weights}\nWorst errors of this fit on a configuration that it did not see: {', '.join(errors)}"


def _solve(rows: NDArray[np.float64], real: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights, none below zero (a term costs something), that make relative errors small."""
    from scipy.optimize import nnls

    weights: NDArray[np.float64] = nnls(rows / real[:, None], np.ones(len(real)))[0]
    return weights
