"""`python -m benchmarks.numpy_programs`: measure, check, print, save."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path

import click
from rich.console import Console

from benchmarks.harness.results import Entry, machine_name
from benchmarks.harness.running import kept_report, start_all
from benchmarks.harness.session import Contender, Failed
from benchmarks.harness.turns import is_far, take_turns
from benchmarks.numpy_programs.programs import PROGRAMS
from benchmarks.numpy_programs.report import PEERS, Report, Row, table

_PREPARE = 120.0      # seconds in which a contender must have made a program ready


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", default="*", metavar="PATTERNS", help="Programs: `jacobi*,lu`.")
@click.option("--peers", default=",".join(PEERS), show_default=True, metavar="LIST")
@click.option("--threads", type=int, default=1, show_default=True, help="For every contender.")
@click.option("--box", type=float, default=1.0, show_default=True, help="Seconds of measuring a program.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False),
              help="Save here after each row; programs that are there already are kept.")
@click.option("--again", is_flag=True, help="Measure all programs anew.")
def main(only: str, peers: str, threads: int, box: float, json_file: Path | None, again: bool) -> None:
    """NumPy programs with loops: tracedsl beside NumPy, Numba and JAX, interleaved, checked on two data sets."""
    console = Console(width=200)
    names = [n for n in PROGRAMS if any(fnmatch(n, p.strip()) for p in only.split(","))]
    if not names:
        raise click.UsageError(f"no program matches {only!r}")
    kept = kept_report(Report, json_file)
    known = {row.program: row for row in kept.rows} if kept and not again else {}
    left = [n for n in names if n not in known]
    with ExitStack() as stack:
        wanted = [Contender("benchmarks.numpy_programs.worker", p.strip(), threads) for p in peers.split(",")]
        contenders = start_all(wanted, stack, console) if left else []
        versions = {**(kept.versions if kept else {}), **{c.peer: c.version for c in contenders}}
        try:
            for name in left:
                known[name] = measure(name, contenders, box)
                best = known[name].best()
                ratio = known[name].ratio(best[0]) if best else None
                numpy = known[name].ratio("numpy")
                console.print(f"{name:<22} {numpy or 0:8.2f} x numpy  {ratio or 0:6.2f} x {best[0] if best else ''}",
                              highlight=False)
                if json_file:
                    Report(machine=machine_name(), versions=versions, rows=list(known.values())).save(json_file)
        except KeyboardInterrupt:
            console.print("stopped; what was measured is kept", style="yellow")
    rows = [known[n] for n in PROGRAMS if n in known]
    print(table(Report(machine=machine_name(), versions=versions, rows=rows)))


def measure(name: str, contenders: Sequence[Contender], box: float) -> Row:
    """Prepare, check and time one program; whatever goes wrong with one contender costs its entry alone."""
    entries: dict[str, Entry] = {}
    probes: dict[str, float] = {}
    for contender in contenders:
        try:
            made = contender.ask("prepare", _PREPARE, program=name)
        except Failed as error:
            entries[contender.peer] = Entry(note=str(error))
            continue
        if "absent" not in made:
            probes[contender.peer] = made["once"]
            entries[contender.peer] = Entry(first_call=made["first_call"], error=made["error"], right=made["right"],
                                            note=made["note"])
    for peer, times in take_turns(contenders, probes, box=box, rounds=100).items():
        entries[peer] = entries[peer].with_times(times).model_copy(update={"once": is_far(probes, peer)})
    return Row(program=name, entries=entries)


if __name__ == "__main__":
    sys.exit(main())
