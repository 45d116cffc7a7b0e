"""`python -m benchmarks.fpga.hardware`: what the accelerator's hardware costs and how fast it is."""

from __future__ import annotations

import dataclasses
import time

import click

from benchmarks.fpga import area as areas
from tracedsl.hw.fpga.config import Config
from tracedsl.hw.fpga.resources import FAMILIES, TARGET_MHZ, route


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Tables are printed as Markdown, ready for a results file."""


@main.command()
@click.option("--family", type=click.Choice(sorted(FAMILIES)), default="ecp5", show_default=True)
def area(family: str) -> None:
    """Synthesise configurations with Yosys (kept in the cache), fit the estimate's weights, tell its error."""
    measured = {}
    for name, config in areas.CONFIGS.items():
        begin = time.monotonic()
        measured[name] = areas.measured(config, family)
        click.echo(f"{name}: {time.monotonic() - begin:.1f} s", err=True)
    click.echo(areas.table(measured, family))
    click.echo(areas.fitted(measured, family))


@main.command()
@click.option("--set", "settings", multiple=True, metavar="NAME=NUMBER", help="Fields of the configuration.")
@click.option("--speed", type=int, default=6, show_default=True, help="Speed grade of the ECP5.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--towards", type=float, default=TARGET_MHZ, show_default=True, help="MHz that nextpnr works towards.")
def clock(settings: tuple[str, ...], speed: int, seed: int, towards: float) -> None:
    """Place and route one configuration on an ECP5-85k; minutes."""
    try:
        config = dataclasses.replace(Config(), **{name: int(value) for name, _, value in
                                                  (setting.partition("=") for setting in settings)})
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    begin = time.monotonic()
    found = route(config, speed=speed, seed=seed, towards=towards)
    click.echo(f"{config.text()}\nspeed grade {speed}, seed {seed}: {found.mhz:.1f} MHz, "
               f"{time.monotonic() - begin:.0f} s\n{dict(found.used)}")
    for delay, start, end in found.path:
        click.echo(f"{delay:7.2f} ns  {start} -> {end}")


if __name__ == "__main__":
    main()
