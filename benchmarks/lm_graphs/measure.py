"""Measures the scripts as written, decorated and by hand, in turns within one run, at an endpoint with a set latency.

    python -m benchmarks.lm_graphs                                # everything, about half a minute
    python -m benchmarks.lm_graphs --only fan_out,rag --latency 0.2 --rounds 5 --json run.json

What holds here: a decorated script is the script as it is with `main = program(main)`; all three give the same result,
or the row says so. No answer is cached while overlap is measured; the table of saved calls compares the rewrites on and
off on an input that the plan has not seen.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.lm_graphs.endpoint import Endpoint

NAMES = ("fan_out", "chain", "map_reduce", "rag", "multi_hop", "agent", "voting", "route", "helpers", "debate",
         "careful", "async_script")
SAVING = ("rag", "multi_hop", "map_reduce", "agent")
REWRITES = ("fold-constants", "share-common", "drop-dead")


@dataclass
class Row:
    """One script: seconds of each way by round, calls of a run, whether all ways gave the same."""

    name: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    calls: int = 0
    same: bool = True

    def best(self, way: str) -> float:
        return min(self.seconds[way])

    def line(self) -> str:
        plain, ours, hand = map(self.best, ("as written", "@program", "gather"))
        spread = statistics.median(self.seconds["@program"]) / ours
        return (f"| {self.name} | {self.calls} | {plain:.3f} | {ours:.3f} | {hand:.3f} | {plain / ours:.2f} | "
                f"{hand / ours:.2f} | {spread:.2f} | {'yes' if self.same else 'NO'} |")


COLUMNS = ("script", "calls", "as written, s", "@program, s", "gather by hand, s", "speed-up", "of gather",
           "median/min", "same")
HEAD = f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}"


_loop = asyncio.new_event_loop()    # one for all, so that connections are kept as those of threads are


def finished(value: Any) -> Any:
    return _loop.run_until_complete(value) if inspect.iscoroutine(value) else value


def overlap(name: str, endpoint: Endpoint, rounds: int) -> Row:
    """Times of the three ways, in turns. The first round counts: nothing has been learned before it."""
    from benchmarks.lm_graphs import by_hand
    from tracedsl import program, trace

    script = importlib.import_module(f"benchmarks.lm_graphs.scripts.{name}")
    decorated = program(disable=REWRITES)(script.main)

    def ours(text: str) -> Any:
        with trace(cache=False):
            return finished(decorated(text))

    hand = getattr(by_hand, name)
    ways: dict[str, Callable[[str], Any]] = {
        "as written": lambda text: finished(script.main(text)), "@program": ours,
        "gather": lambda text: _loop.run_until_complete(hand(text))}
    row, results = Row(name), {}
    for i in range(rounds):
        for way in ways if i % 2 == 0 else reversed(ways):
            endpoint.take()
            started = time.perf_counter()
            results[way] = ways[way](f"subject {i}")
            row.seconds.setdefault(way, []).append(time.perf_counter() - started)
            if way == "as written":
                row.calls = endpoint.take()[0]
        row.same = row.same and results["as written"] == results["@program"] == results["gather"]
    return row


def saving(name: str, endpoint: Endpoint, off: tuple[str, ...]) -> tuple[int, int, float, Any]:
    """Calls, tokens, seconds and result on an input that is new to the plan, after one run on another."""
    from tracedsl import program, trace

    script = importlib.import_module(f"benchmarks.lm_graphs.scripts.{name}")
    decorated = program(disable=off)(script.main)
    with trace(cache=False):
        decorated("the first subject")
        decorated("the subject")
        endpoint.take()
        started = time.perf_counter()
        result = decorated("the second subject")
        seconds = time.perf_counter() - started
    return (*endpoint.take(), seconds, result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.15, help="seconds from request to answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="names of scripts, with commas")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else list(NAMES)
    endpoint = Endpoint(given.latency)
    os.environ |= {"OPENAI_BASE_URL": endpoint.base, "OPENAI_API_KEY": "none",
                   "TRACEDSL_CACHE": tempfile.mkdtemp(prefix="tracedsl-bench-")}
    rows, saved = [], []
    print(HEAD, flush=True)
    for name in names:
        rows.append(overlap(name, endpoint, given.rounds))
        print(rows[-1].line(), flush=True)
    print("\n| script | rewrites | calls | tokens | seconds | same |\n| --- | --- | --- | --- | --- | --- |")
    for name in (n for n in names if n in SAVING):
        off, on = saving(name, endpoint, REWRITES), saving(name, endpoint, ())
        for way, found in (("off", off), ("fold, share, drop", on)):
            print(f"| {name} | {way} | {found[0]} | {found[1]} | {found[2]:.3f} | {found[3] == off[3]} |", flush=True)
            saved.append([name, way, *found[:3]])
    if given.json:
        given.json.write_text(json.dumps({"latency": given.latency, "rows": [asdict(r) for r in rows], "saved": saved}))
