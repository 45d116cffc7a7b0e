"""`python -m benchmarks.kernels`: measure, print, save, plot."""

from __future__ import annotations

import platform
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.kernels.contenders import takes_part
from benchmarks.kernels.measure import measure_row
from benchmarks.kernels.results import Limits, Report, Row, machine_name
from benchmarks.kernels.session import ROOT, Contender, Failed
from benchmarks.kernels.table import show, show_limits
from benchmarks.kernels.workload import PEERS
from benchmarks.kernels.workloads import chosen


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", default="", metavar="PATTERNS", help="Workloads or groups: `gemm*,softmax`.")
@click.option("--peers", default="", metavar="LIST", help=f"Some of {', '.join(PEERS)}; all that are installed.")
@click.option("--threads", type=int, default=0, help="For every contender; all usable cores if not given.")
@click.option("--rounds", type=int, default=200, show_default=True, help="Turns of each contender at most.")
@click.option("--box", type=float, default=5.0, show_default=True, help="Seconds of measuring a workload.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False),
              help="Save here after each row; rows that are there already, of the same code, are kept.")
@click.option("--again", is_flag=True, help="Measure all rows anew.")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path, dir_okay=False), help="Draw ratios and roofline.")
@click.option("--tune", type=int, default=0, help="Schedules to measure a task on our first call.")
@click.option("--target", default="cpu", show_default=True, help="Our target.")
@click.option("--fresh-pages", is_flag=True, help="Leave malloc as it is: large results in pages that are new.")
@click.option("--list", "list_only", is_flag=True, help="List the workloads.")
def main(only: str, peers: str, threads: int, rounds: int, box: float, json_file: Path | None, again: bool,
         plot_file: Path | None, tune: int, target: str, fresh_pages: bool, list_only: bool) -> None:
    """tracedsl beside every peer: interleaved, checked, against the machine's limits."""
    console = Console() if sys.stdout.isatty() else Console(width=180)
    workloads = chosen(only)
    if not workloads:
        raise click.UsageError(f"no workload matches {only!r}: see --list")
    if list_only:
        for workload in workloads:
            console.print(f"{workload.group:<14} {workload.name}", highlight=False)
        return
    wanted = [p.strip() for p in peers.split(",") if p.strip()] or list(PEERS)
    if unknown := set(wanted) - set(PEERS):
        raise click.UsageError(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    run = _Run(console, threads or _cores(), rounds, box, {"BENCHMARK_TUNE": str(tune), "BENCHMARK_TARGET": target},
               fresh_pages)
    report = run.measure(workloads, wanted, json_file, again)
    rows = [r for w in workloads for r in report.rows if r.workload == w.name and r.threads == run.threads]
    if rows:
        show_limits(console, report.limits)
        show(console, report, rows)
    if plot_file and rows:
        from benchmarks.kernels.plot import draw

        draw(report, rows, plot_file)
        console.print(f"drawn: {plot_file}")


class _Run:
    """One run of the command."""

    def __init__(self, console: Console, threads: int, rounds: int, box: float, extra: dict[str, str],
                 fresh_pages: bool) -> None:
        self.console, self.threads, self.rounds, self.box = console, threads, rounds, box
        self._extra, self._fresh_pages = extra, fresh_pages

    def measure(self, workloads: list[Any], wanted: list[str], json_file: Path | None, again: bool) -> Report:
        """Everything that is wanted and not in the file yet. Ctrl-C ends it early; what was measured stays."""
        kept, code = self._kept(json_file), self._code()
        left = [w for w in workloads if again or kept is None or not kept.has(
            w.name, self.threads, code, [p for p in wanted if takes_part(p, w)])]
        if kept and not left:
            return kept
        with ExitStack() as stack:
            limits = self._limits(stack)
            if kept and kept.machine == machine_name() and kept.limits.threads == self.threads:
                limits = limits.joined(kept.limits)
            contenders = self._start(wanted, stack)
            report = Report(machine=machine_name(), python=platform.python_version(), limits=limits,
                            versions={**(kept.versions if kept else {}), **{c.peer: c.version for c in contenders}},
                            rows=kept.rows if kept else [])
            progress = stack.enter_context(Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                                                    TimeElapsedColumn(), console=self.console, transient=True))
            bar = progress.add_task("", total=len(left))
            try:
                for workload in left:
                    row = measure_row(workload, contenders, limits, code, box=self.box, rounds=self.rounds,
                                      tell=lambda text: progress.update(bar, description=text))
                    self._tell(progress, row)
                    report = report.with_row(row)
                    if json_file:
                        report.save(json_file)
                    progress.advance(bar)
            except KeyboardInterrupt:
                progress.console.print("stopped; what was measured is kept", style="yellow")
        return report

    def _start(self, wanted: list[str], stack: ExitStack) -> list[Contender]:
        found = []
        for peer in wanted:
            contender = Contender(peer, self.threads, self._extra, self._fresh_pages)
            stack.callback(contender.close)
            try:
                with self.console.status(f"starting {peer}"):
                    contender.start()
                found.append(contender)
            except Failed as error:
                self.console.print(f"{peer} does not take part: {error}", style="yellow")
        return found

    def _limits(self, stack: ExitStack) -> Limits:
        contender = Contender("limits", self.threads, self._extra)
        stack.callback(contender.close)
        with self.console.status("measuring the machine's limits"):
            contender.start()
            limits = Limits.model_validate(contender.ask("limits", 120))
        contender.close()
        return limits

    def _kept(self, json_file: Path | None) -> Report | None:
        """An earlier run; a file that is none is an error, not lost."""
        if json_file is None or not json_file.exists():
            return None
        try:
            return Report.load(json_file)
        except ValueError as error:
            why = str(error).splitlines()[0]
            raise click.UsageError(f"{json_file} holds no report of this benchmark: {why}") from None

    def _code(self) -> str:
        """A digest of the compiler: rows of another one are measured again."""
        from tracedsl.cache import code_digest, digest

        return digest(code_digest(ROOT / "tracedsl"), code_digest(ROOT / "hw"), *sorted(self._extra.values()),
                      str(self._fresh_pages))[:12]

    def _tell(self, progress: Progress, row: Row) -> None:
        ratio, best = row.ratio(), row.best()
        text = f"{ratio:.2f} x {best[0]}" if ratio and best else "no ratio"
        notes = [f"{peer}: {e.note}" for peer, e in row.entries.items() if e.note]
        progress.console.print(f"{row.workload:<36} {text:<24} {row.misses}", *notes, sep="\n    ", highlight=False,
                               markup=False)


def _cores() -> int:
    from tracedsl.hw.cpu.machine import usable_cores

    return usable_cores()


if __name__ == "__main__":
    sys.exit(main())
