"""The frame of a run: which contenders take part, what an earlier run left, which code is measured."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console

from benchmarks.harness.results import Saved
from benchmarks.harness.session import ROOT, Contender, Failed

R = TypeVar("R", bound=Saved)


def start_all(contenders: Iterable[Contender], stack: ExitStack, console: Console) -> list[Contender]:
    """Those that could be started; they are closed with the stack."""
    found = []
    for contender in contenders:
        stack.callback(contender.close)
        try:
            with console.status(f"starting {contender.peer}"):
                contender.start()
            found.append(contender)
        except Failed as error:
            console.print(f"{contender.peer} does not take part: {error}", style="yellow")
    return found


def kept_report(kind: type[R], json_file: Path | None) -> R | None:
    """What an earlier run left; a file that is something else is an error, not lost."""
    if json_file is None or not json_file.exists():
        return None
    try:
        return kind.load(json_file)
    except ValueError as error:
        why = str(error).splitlines()[0]
        raise click.UsageError(f"{json_file} holds no report of this benchmark: {why}") from None


def code_version(*options: str) -> str:
    """A digest of the compiler and its options: rows of another one are measured again."""
    from tracedsl.cache import code_digest, digest

    return digest(code_digest(ROOT / "tracedsl"), code_digest(ROOT / "hw"), *options)[:12]


def usable_cores() -> int:
    from tracedsl.hw.cpu.machine import usable_cores as count

    return count()
