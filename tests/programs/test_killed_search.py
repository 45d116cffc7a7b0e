"""Searches that are killed (SIGKILL) at random points: they go on, pay nothing twice, and end with the same artefact.

A few kills here; `--long` kills twenty times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = """
import json, random, sys, time
from pathlib import Path
from tracedsl import program
from tracedsl.programs import {teleprompter}, Example, PlainAdapter, Predict, ScriptedLM, exact_match

folder, delay = Path(sys.argv[1]), float(sys.argv[2])
train = [Example(n=str(i), answer=str(i * 3)).with_inputs("n") for i in range(18)]

def reply(request):
    asked = request.messages[-1].text
    with (folder / "calls").open("a") as file:
        file.write(request.fingerprint + "\\n")
    time.sleep(delay)
    if not asked.startswith("N:"):
        return f"Instructions: Try {{random.Random(request.fingerprint).randrange(1000)}}."
    n, shown = int(asked.split(": ")[1]), [m.text for m in request.messages[:-1]]
    lucky = random.Random(f"{{n}} {{shown}}").random() < 0.3 + 0.1 * len(shown)
    return f"Answer: {{n * 3 if lucky else 'no'}}"

def metric(example, prediction):
    with (folder / "scored").open("a") as file:
        file.write("x\\n")
    return exact_match(example, prediction)

@program(trainset=train, metric=metric, teleprompter={made}, num_threads={threads},
         lm=ScriptedLM(reply, adapter=PlainAdapter(), cache=True, max_tokens=8))
def triple(n):
    return Predict("n -> answer")(n=n).answer

triple.compile()
(folder / "artefact").write_text(json.dumps(triple.artefact(), indent=1))
"""
MAKERS = {
    "BootstrapFewShotWithRandomSearch":
        "BootstrapFewShotWithRandomSearch(max_labeled_demos=3, num_candidate_programs=5, num_threads={threads})",
    "COPRO": "COPRO(breadth=4, depth=2, num_threads={threads})",
}
ROOT = Path(__file__).parents[2]


def start(script: Path, folder: Path, delay: float) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TRACEDSL_CACHE": str(folder / "cache")}
    return subprocess.Popen([sys.executable, "-W", "ignore", str(script), str(folder), str(delay)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def finished(process: subprocess.Popen[str]) -> None:
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("name,threads", [("BootstrapFewShotWithRandomSearch", 1), ("COPRO", 4)])
def test_a_killed_compilation_ends_with_the_same_artefact_and_pays_nothing_twice(
        name: str, threads: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = 20 if request.config.getoption("--long") else 2
    script = tmp_path / "compile_me.py"
    script.write_text(SCRIPT.format(teleprompter=name, made=MAKERS[name].format(threads=threads), threads=threads))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir(mode=0o700)
    finished(start(script, whole, 0))
    calls = len(lines(whole / "calls"))
    source, real = random.Random(name), 0
    for stop in sorted(source.sample(range(1, calls), kills)):
        process, limit = start(script, killed, 0.01), time.monotonic() + 60
        while len(lines(killed / "calls")) < stop and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.002)
        real += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert real >= kills - 1, "it was killed while it ran"
    assert not (killed / "artefact").exists()
    finished(start(script, killed, 0))
    assert (killed / "artefact").read_text() == (whole / "artefact").read_text()
    made = Counter(lines(killed / "calls"))
    assert set(made) == set(lines(whole / "calls"))
    assert sum(made.values()) - len(made) <= threads * real, "only calls that were under way are made again"
    assert len(lines(killed / "scored")) <= len(lines(whole / "scored")) + threads * real
