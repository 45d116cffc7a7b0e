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

from benchmarks.harness.results import machine_name
from benchmarks.harness.running import code_version, kept_report, start_all, usable_cores
from benchmarks.harness.session import Contender
from benchmarks.kernels.contenders import takes_part
from benchmarks.kernels.measure import measure_row
from benchmarks.kernels.results import Limits, Report, Row
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
    options = {"BENCHMARK_TUNE": str(tune), "BENCHMARK_TARGET": target}
    run = _Run(console, threads or usable_cores(), rounds, box, options, fresh_pages)
    report = run.measure(workloads, wanted, json_file, again)
    rows = [r for w in workloads for r in report.rows if r.workload == w.name and r.threads == run.threads]
    if rows:
        show_limits(console, report.limits)
        show(console, report, rows)
    if plot_file and rows:
        from benchmarks.kernels.plot import draw

        draw(report, rows, plot_file)
        console.print(f"drawn: {plot_file}")


_WORKER = "benchmarks.kernels.worker"


class _Run:
    """One run of the command."""

    def __init__(self, console: Console, threads: int, rounds: int, box: float, extra: dict[str, str],
                 fresh_pages: bool) -> None:
        self.console, self.threads, self.rounds, self.box = console, threads, rounds, box
        self._extra, self._fresh_pages = extra, fresh_pages

    def measure(self, workloads: list[Any], wanted: list[str], json_file: Path | None, again: bool) -> Report:
        """Everything that is wanted and not in the file yet. Ctrl-C ends it early; what was measured stays."""
        kept = kept_report(Report, json_file)
        code = code_version(*sorted(self._extra.values()), str(self._fresh_pages))
        left = [w for w in workloads if again or kept is None or not kept.has(
            w.name, self.threads, code, [p for p in wanted if takes_part(p, w)])]
        if kept and not left:
            return kept
        with ExitStack() as stack:
            limits = self._limits(stack)
            if kept and kept.machine == machine_name() and kept.limits.threads == self.threads:
                limits = limits.joined(kept.limits)
            contenders = start_all([Contender(_WORKER, peer, self.threads, self._extra, self._fresh_pages)
                                    for peer in wanted], stack, self.console)
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

    def _limits(self, stack: ExitStack) -> Limits:
        contender = Contender(_WORKER, "limits", self.threads, self._extra)
        stack.callback(contender.close)
        with self.console.status("measuring the machine's limits"):
            contender.start()
            limits = Limits.model_validate(contender.ask("limits", 120))
        contender.close()
        return limits

    def _tell(self, progress: Progress, row: Row) -> None:
        ratio, best = row.ratio(), row.best()
        text = f"{ratio:.2f} x {best[0]}" if ratio and best else "no ratio"
        notes = [f"{peer}: {e.note}" for peer, e in row.entries.items() if e.note]
        progress.console.print(f"{row.workload:<36} {text:<24} {row.misses}", *notes, sep="\n    ", highlight=False,
                               markup=False)


if __name__ == "__main__":
    sys.exit(main())
