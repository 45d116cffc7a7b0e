"""The `tracedsl demo` command: both decorators at work on this machine, measured as it goes.

What holds here: nothing is prepared: kernels are compiled and the program is compiled by its teleprompter while one
watches, unless the cache has them from an earlier run, which is said.
"""

from __future__ import annotations

from typing import Any


def run(*, short: bool = False, only: str | None = None, quiet: bool = False) -> dict[str, Any]:
    """Run the demo and return its figures: times in seconds, scores in percent."""
    from rich.console import Console

    console = Console(quiet=quiet, highlight=False)
    report: dict[str, Any] = {}
    if only != "program":
        from tracedsl.demo import kernels

        report["kernels"] = kernels.run(console, rounds=5 if short else 15)
    if only != "kernel":
        from tracedsl.demo import answers

        report["program"] = answers.run(console, short=short)
    return report
