"""Records: every measurement that was ever paid for, in one append-only file of JSON lines.

What holds here:
- One line, one write, under a lock: many processes may append, and a kill at any time loses at most the line being
  written. A torn last line is completed by a line break before the next append and then skipped by readers.
- A line names the schema version, the task (whatever identifies what was measured: kernel, shapes, target, machine,
  compiler) and the point. Lines of other versions and damaged lines are left alone and skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from tracedsl.autotune.measure import Measurement
from tracedsl.autotune.space import Point, key
from tracedsl.diagnostics import warn

VERSION = 1


class Records:
    """A record file. Nothing is opened before it is needed; a file that cannot be written is a warning, not an end."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def append(self, task: str, point: Point, measurement: Measurement) -> None:
        """Keep one measurement."""
        from filelock import FileLock

        line = json.dumps({"v": VERSION, "task": task, "point": dict(point), **measurement.to_json()})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(f"{self.path}.lock"), open(self.path, "ab+") as file:
                file.write(self._mend(file.tell()) + line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            warn("T003", f"a measurement could not be recorded in {self.path}", why=str(error),
                 hint="the search goes on; this measurement is repeated next time")

    def _mend(self, size: int) -> bytes:
        """A line break, if the last writer was killed within its line."""
        if size == 0:
            return b""
        with open(self.path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return b"" if file.read(1) == b"\n" else b"\n"

    def load(self, task: str) -> dict[str, Measurement]:
        """What is known of a task: point key -> measurement (the latest one counts)."""
        return {key(point): measurement for _, point, measurement in self.all(task)}

    def all(self, task: str | None = None) -> Iterator[tuple[str, Point, Measurement]]:
        """Every readable line (of one task): task, point, measurement."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return
        for line in data.split(b"\n"):
            try:
                row = json.loads(line)
                if row["v"] == VERSION and (task is None or row["task"] == task):
                    yield row["task"], row["point"], Measurement.from_json(row)
            except (ValueError, KeyError, TypeError):
                continue
