"""`python -m benchmarks.autotune`: measure tables of schedules, replay searches on them."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.autotune.tasks import MORE, NINE
from tracedsl.autotune import Records
from tracedsl.autotune.workers import Device


@click.group()
def main() -> None:
    """Searches of schedules, measured."""


@main.command()
@click.argument("names", nargs=-1)
@click.option("--points", default=1400, show_default=True, help="Points of each grid, about.")
@click.option("--core", default=0, show_default=True, help="The core that measures.")
@click.option("--records", "file", type=click.Path(path_type=Path), default=Path("autotune-tables.jsonl"),
              show_default=True, help="Where measurements are kept.")
def measure(names: tuple[str, ...], points: int, core: int, file: Path) -> None:
    """Measure the grids of tasks (all nine by default); goes on where an earlier run stopped."""
    from benchmarks.autotune.tables import measure as measure_one

    for name in names or tuple(NINE):
        measure_one(name, points, Records(file), Device(f"cpu:{core}", (core,), {"TRACEDSL_NUM_THREADS": "1"}),
                    lambda line: click.echo(line, err=True))


@main.command()
@click.argument("names", nargs=-1)
@click.option("--points", default=1400, show_default=True, help="As it was when they were measured.")
@click.option("--records", "file", type=click.Path(path_type=Path), default=Path("autotune-tables.jsonl"),
              show_default=True)
def pack(names: tuple[str, ...], points: int, file: Path) -> None:
    """Write tables of what was measured."""
    from benchmarks.autotune.tables import pack as pack_one

    for name in names or (*NINE, *MORE):
        click.echo(pack_one(name, points, Records(file)))


main()
