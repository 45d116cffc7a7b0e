"""`python -m benchmarks.fpga.pareto`: configurations of the accelerator for one layer on a chip, by cycles and area.

What holds here: cycles are the timing model's with each configuration's own tiles; area is the estimate that
`benchmarks.fpga.hardware area` holds against Yosys; what does not fit the chip is not compiled.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import click

from benchmarks.fpga.layers import LAYERS, inputs, layer
from tracedsl import kernel
from tracedsl.cache import Store
from tracedsl.hw.fpga.config import Config, Dram
from tracedsl.hw.fpga.estimate import estimate
from tracedsl.hw.fpga.resources import CHIPS
from tracedsl.kernel_hardware import Exploration, explore

CHOICES = {"block": (4, 8, 16), "bus_bytes": (4, 8, 16), "tree_stages": (1, 2, 3), "queue_depth": (16, 32),
           "acc_depth": (256, 1024), "wgt_depth": (256,), "aux_depth": (64,)}


def draw(found: Exploration, title: str, path: Path) -> None:
    """The designs and their Pareto front; the suffix of `path` decides the format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for block in sorted({d.config.block for d in found.designs}):
        some = [d for d in found.designs if d.config.block == block]
        axes.scatter([d.area for d in some], [d.cycles for d in some], s=18, label=f"{block} x {block} multipliers")
    front = found.pareto
    axes.step([d.area for d in front], [d.cycles for d in front], where="post", color="black", lw=1, label="front")
    axes.set(xlabel="look-up tables (estimated, ECP5)", ylabel="cycles", yscale="log", title=title)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path)
    pyplot.close(figure)


@click.command()
@click.option("--layer", "name", default="C11", show_default=True, type=click.Choice(list(LAYERS)))
@click.option("--chip", default="ecp5-85k", show_default=True, type=click.Choice(list(CHIPS)))
@click.option("--trials", default=64, show_default=True, help="How many configurations.")
@click.option("--latency", default=100, show_default=True, help="Cycles from a request to its first word.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw it there.")
def main(name: str, chip: str, trials: int, latency: int, plot: Path | None) -> None:
    """Print the designs in Markdown, the front marked."""
    size, inside, outside, k, stride = LAYERS[name]
    family = "ecp5" if chip.startswith("ecp5") else "xilinx"

    def area(config: Config) -> float:
        needs = estimate(config, family)
        return needs.luts if needs.fits(CHIPS[chip]) else math.inf

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o700)
        found = explore(kernel(layer(stride)), *inputs(size, inside, outside, k), choices=CHOICES, area=area,
                        limit=CHIPS[chip].luts, trials=trials, dram=Dram(latency=latency), store=Store(Path(folder)))
    title = f"{name} of ResNet-18 on {chip}, memory latency {latency}"
    print(f"{title}\n\n{found.table()}")
    if plot:
        draw(found, title, plot)


if __name__ == "__main__":
    main()
