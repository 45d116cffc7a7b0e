"""`python -m benchmarks.fpga`: the table of layers; `--check` compares every result with NumPy's."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from benchmarks.fpga.layers import Result, all_layers
from tracedsl.cache import Store

SETTINGS = "block=16,bus_bytes=16,inp_depth=4096,wgt_depth=1024,acc_depth=2048,aux_depth=256,latency=100"


def row(without: Result, with_: Result) -> str:
    gained = 100 * (with_.used - without.used)
    return (f"| {with_.name} | {without.cycles:,} | {without.used:.1%} | {with_.cycles:,} | {with_.used:.1%} | "
            f"{gained:+.1f} | {with_.moved / 1e6:.2f} |")


@click.command()
@click.option("--settings", default=SETTINGS, show_default=True, help="The accelerator and its memory.")
@click.option("--check", is_flag=True, help="Compare with NumPy (slow).")
def main(settings: str, check: bool) -> None:
    """Print the table in Markdown."""
    print(f"Accelerator: {settings}\n")
    print("| layer | cycles, one thread | array used | cycles, two virtual threads | array used | gained, points "
          "| MB moved |\n| --- | --- | --- | --- | --- | --- | --- |")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o700)
        for pair in all_layers(settings, Store(Path(folder)), check):
            found.append(pair)
            print(row(*pair), flush=True)
    means = [sum(pair[at].used for pair in found) / len(found) for at in (0, 1)]
    print(f"| mean | | {means[0]:.1%} | | {means[1]:.1%} | {100 * (means[1] - means[0]):+.1f} | |")


if __name__ == "__main__":
    main()
