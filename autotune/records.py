"""Records: every measurement that was ever paid for, in one append-only file of JSON lines.

What holds here:
- One line, one write, under a lock: many processes may append, and a kill at any time loses at most the line being
  written. A torn last line is completed by a line break before the next append and then skipped by readers.
- A line names the schema version, the task (whatever identifies what was measured), `where` it was measured (target,
  machine, compiler: what decides whether it holds here), and the point. Lines of other versions and damaged lines are
  left alone and skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracedsl.autotune.measure import Measurement
from tracedsl.autotune.space import Point, key
from tracedsl.diagnostics import TracedslError, warn

VERSION = 1


class Records:
    """A record file. Nothing is opened before it is needed; a file that cannot be written is a warning, not an end."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def append(self, task: str, point: Point, measurement: Measurement, where: Mapping[str, str] | None = None) -> None:
        """Keep one measurement."""
        row = {"v": VERSION, "task": task, "point": dict(point), **measurement.to_json()}
        if where:
            row["where"] = dict(where)
        self._append([json.dumps(row).encode()], "the search goes on; this measurement is repeated next time")

    def merge(self, other: Records | Path | str) -> int:
        """Take over the lines of another file that this one lacks; gives their number. Lines that cannot be read are
        left out. Raises TracedslError T006 if there is no such file."""
        path = other.path if isinstance(other, Records) else Path(other)
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise TracedslError("T006", f"records cannot be read from {path}", why=str(error),
                                hint="name a file that `tracedsl records export` wrote") from error
        known = set(_lines(self.path))
        new = [line for line in dict.fromkeys(lines) if line not in known and _row(line) is not None]
        return len(new) if self._append(new, "nothing was taken over") else 0

    def _append(self, lines: Sequence[bytes], hint: str) -> bool:
        from filelock import FileLock

        if not lines:
            return True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(f"{self.path}.lock"), open(self.path, "ab+") as file:
                file.write(self._mend(file.tell()) + b"".join(line + b"\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            warn("T003", f"a measurement could not be recorded in {self.path}", why=str(error), hint=hint)
            return False
        return True

    def _mend(self, size: int) -> bytes:
        """A line break, if the last writer was killed within its line."""
        if size == 0:
            return b""
        with open(self.path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return b"" if file.read(1) == b"\n" else b"\n"

    def load(self, task: str, where: Mapping[str, str] | None = None) -> dict[str, Measurement]:
        """What is known of a task there: point key -> measurement (the latest one counts)."""
        return {key(row.point): row.measurement for row in self.rows(task) if row.where == dict(where or {})}

    def best(self, task: str, where: Mapping[str, str] | None = None) -> tuple[Point, Measurement] | None:
        """The point with the smallest value."""
        rows = [row for row in self.rows(task) if row.where == dict(where or {}) and row.measurement.ok]
        found = min(rows, key=lambda row: row.measurement.value or 0.0, default=None)
        return (found.point, found.measurement) if found is not None else None

    def count_elsewhere(self, task: str, where: Mapping[str, str]) -> int:
        """Measurements of a task on other targets or machines, or by other compilers: they do not hold here."""
        return sum(row.where != dict(where) for row in self.rows(task))

    def all(self, task: str | None = None) -> Iterator[tuple[str, Point, Measurement]]:
        """Every readable line (of one task), wherever it was measured: task, point, measurement."""
        return ((row.task, row.point, row.measurement) for row in self.rows(task))

    def rows(self, task: str | None = None) -> Iterator[Row]:
        """Every readable line (of one task)."""
        wanted = json.dumps(task).encode() if task is not None else b""
        for line in _lines(self.path):
            if wanted in line and (row := _row(line)) is not None and (task is None or row.task == task):
                yield row


@dataclass(frozen=True)
class Row:
    """One measurement as it was recorded."""

    task: str
    where: dict[str, str]
    point: Point
    measurement: Measurement


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\n")
    except OSError:
        return []


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
        if row["v"] != VERSION:
            return None
        return Row(row["task"], dict(row.get("where", {})), row["point"], Measurement.from_json(row))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
