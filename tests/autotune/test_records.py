"""Records: many writers, merging, what belongs where."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from tracedsl.autotune import Measurement, Records
from tracedsl.diagnostics import TracedslError

HERE, THERE = {"machine": "a", "compiler": "1"}, {"machine": "b", "compiler": "1"}


def test_what_was_measured_elsewhere_does_not_count_here(tmp_path: Path) -> None:
    records = Records(tmp_path / "r.jsonl")
    records.append("t", {"a": 1}, Measurement(1.0), HERE)
    records.append("t", {"a": 2}, Measurement(0.5), THERE)
    records.append("t", {"a": 3}, Measurement(0.1))
    assert set(records.load("t", HERE)) == {'{"a": 1}'} and set(records.load("t")) == {'{"a": 3}'}
    assert records.best("t", THERE) == ({"a": 2}, Measurement(0.5))
    assert records.best("t", {"machine": "c"}) is None and records.best("u", HERE) is None
    assert records.count_elsewhere("t", HERE) == 2 and len(list(records.all("t"))) == 3


def test_failures_are_never_the_best(tmp_path: Path) -> None:
    records = Records(tmp_path / "r.jsonl")
    records.append("t", {"a": 1}, Measurement(None, "crashed"))
    records.append("t", {"a": 2}, Measurement(2.0))
    assert records.best("t") == ({"a": 2}, Measurement(2.0))


def test_merging_takes_each_line_once_and_leaves_damaged_ones(tmp_path: Path) -> None:
    one, two = Records(tmp_path / "one.jsonl"), Records(tmp_path / "two.jsonl")
    for n in range(3):
        one.append("t", {"a": n}, Measurement(float(n)), HERE)
    for n in range(2, 5):
        two.append("t", {"a": n}, Measurement(float(n)), HERE)
    with open(two.path, "ab") as file:
        file.write(b'{"v": 99, "task": "t"}\n{"v": 1, "task": "t", "po')
    assert one.merge(two) == 2 and one.merge(two.path) == 0
    assert len(one.load("t", HERE)) == 5
    with pytest.raises(TracedslError, match="records cannot be read") as caught:
        one.merge(tmp_path / "nowhere")
    assert caught.value.code == "T006"


def _write(path: Path, writer: int) -> None:
    for n in range(40):
        Records(path).append("t", {"writer": writer, "n": n}, Measurement(1.0))


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    writers = [multiprocessing.get_context("fork").Process(target=_write, args=(path, n)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = path.read_text().splitlines()
    assert len(lines) == 120 and len({json.dumps(json.loads(line)["point"]) for line in lines}) == 120


def test_a_full_disk_is_a_warning(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    script = ("import sys, warnings\n"
              "from tracedsl.autotune import Measurement, Records\n"
              "r = Records(sys.argv[1])\n"
              "r._mend = lambda size: b''\n"
              "r.append('t', {'a': 1}, Measurement(1.0))\nprint('went on')\n")
    (tmp_path / "r.jsonl").symlink_to("/dev/full")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "r.jsonl")], capture_output=True, text=True)
    assert done.stdout == "went on\n" and "could not be recorded" in done.stderr and "T003" in done.stderr
