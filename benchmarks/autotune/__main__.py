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
    from benchmarks.autotune import tables

    device = Device(f"cpu:{core}", (core,), {"TRACEDSL_NUM_THREADS": "1"})
    for name in names or tuple(NINE):
        for step in (tables.measure, tables.confirm):
            step(name, points, Records(file), device, lambda line: click.echo(line, err=True))


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


@main.command()
@click.option("--seeds", default=30, show_default=True)
@click.option("--strategies", default="random,genetic,coordinate,annealing,model-annealing,model", show_default=True)
@click.option("--tables", "names", default="", help="Some tables alone, separated by commas.")
@click.option("--json", "file", type=click.Path(path_type=Path), default=Path("autotune-replays.json"),
              show_default=True, help="Where replays are kept; what is there is not repeated.")
def replay(seeds: int, strategies: str, names: str, file: Path) -> None:
    """Replay strategies on the tables and print what they found."""
    from benchmarks.autotune import report
    from benchmarks.autotune.tables import FOLDER, Table

    wanted = names.split(",") if names else [n for n in NINE if (FOLDER / f"{n}.json.gz").exists()]
    tables = [Table.load(FOLDER / f"{name}.json.gz") for name in wanted]
    rows = report.run(tables, strategies.split(","), seeds, file, lambda line: click.echo(line, err=True))
    for line in (*report.markdown(tables, rows), "", *report.held_out(tables)):
        click.echo(line)


main()
