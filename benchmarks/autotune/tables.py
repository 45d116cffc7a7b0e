"""Tables of measured schedules: a part of each task's space, every point of it measured once.

What holds here: the part is a grid again, so that every strategy can walk it: choices are taken away, the default's
never, until few enough valid points are left. Measured on one core, in processor time of the one thread that runs, in
turns with the default schedule: a machine with other work disturbs that least. What is measured is recorded at once;
a run that was stopped goes on. A table is one compressed JSON file.
"""

from __future__ import annotations

import gzip
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.autotune.tasks import task_of
from tracedsl.autotune import Measurement, Parameter, Records, Space
from tracedsl.autotune.pool import Result
from tracedsl.autotune.space import key
from tracedsl.autotune.workers import Device, LocalPool
from tracedsl.hw.target import target
from tracedsl.ir.expr import Task
from tracedsl.ir.task_json import task_from_json, task_to_json
from tracedsl.kernel_tuning import search_space
from tracedsl.schedule import ScheduleSpace

FOLDER = Path(__file__).parent / "tables"
TOP, AGAIN = 24, 3              # the fastest points that are measured again, and how often
FIXED = ("parallel_loops",)     # of no effect on one core


@dataclass(frozen=True)
class Table:
    """A measured grid: seconds by point key, None where a point does not work; `fast`: what the default takes."""

    name: str
    task: Task
    space: Space
    seconds: Mapping[str, float | None]
    default: float

    @property
    def best(self) -> float:
        return min(s for s in self.seconds.values() if s is not None)

    @staticmethod
    def load(path: Path) -> Table:
        data = json.loads(gzip.decompress(path.read_bytes()))
        parameters = tuple(Parameter(n, tuple(c), ordered=o, when=_when(w)) for n, c, o, w in data["parameters"])
        names = [p.name for p in parameters]
        rows = {key(dict(zip(names, point))): s for point, s in zip(data["points"], data["seconds"])}
        space = Space(parameters, lambda p: key(p) in rows, data["first"])
        return Table(data["name"], task_from_json(data["task"]), space, rows, data["default"])


def _when(rows: Sequence[Any]) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    return tuple((name, tuple(values)) for name, values in rows)


def grid(task: Task, most: int, seed: int = 0) -> Space:
    """A grid of at most about `most` valid points of the task's space."""
    found, rng = ScheduleSpace.of(task, target("cpu").description), Random(seed)
    choices = {name: values for name, values in found.choices.items() if name not in FIXED}
    counts = {name: len(values) for name, values in choices.items()}
    while True:
        space = search_space(found, {name: _thinned(choices[name], counts[name]) for name in choices})
        if _valid(space, rng) <= most:
            return space
        counts[max(counts, key=lambda name: (counts[name], name))] -= 1


def _thinned(values: Sequence[Any], count: int) -> tuple[Any, ...]:
    """So many of the choices: the default's, which is first, 0 if it is one of the sizes ("none"), and evenly spread
    ones of the others."""
    if count >= len(values):
        return tuple(values)
    if not all(type(value) is int for value in values):
        return tuple(values[:count])
    kept = list(dict.fromkeys([values[0], *(v for v in values if v == 0)]))[:count]
    others = sorted(set(values) - set(kept))
    wanted = count - len(kept)
    return (*kept, *(others[(2 * n + 1) * len(others) // (2 * wanted)] for n in range(wanted)))


def _valid(space: Space, rng: Random, samples: int = 1000) -> float:
    """About how many points a space has."""
    points = [{p.name: rng.choice(p.choices) for p in space.parameters} for _ in range(samples)]
    return len(space) * sum(space.normal(p) == p and space.allows(p) for p in points) / samples


def measure(name: str, most: int, records: Records, device: Device, say: Callable[[str], None]) -> None:
    """Measure the grid of one task, as far as `records` lacks it."""
    task = task_of(name)
    found, space, on = ScheduleSpace.of(task, target("cpu").description), grid(task, most), target("cpu")
    known, default = records.load(name), found.schedule({}).to_json()
    points = list(space.points())
    Random(0).shuffle(points)           # a run that is stopped has seen a fair part
    first = key(space.default or {})
    points.sort(key=lambda p: key(p) != first)
    codes = {m.notes["code"]: m.value for m in known.values() if "code" in m.notes and m.value is not None}
    setup = {"target": on.name, "tasks": [task_to_json(task)], "clock": "thread", "known": codes}
    started, done = time.monotonic(), 0
    with LocalPool("tracedsl.kernel_measuring:Measuring", setup, [device]) as pool:
        value = known[first].value if first in known else None
        for number, point in enumerate(points):
            if key(point) in known:
                continue
            steps = found.schedule(point).to_json()
            answer = pool.submit({"task": 0, "steps": steps, "against": default, "value": value}, limit=60).result()
            data = answer.data if isinstance(answer, Result) else {"error": str(answer)}
            measured = Measurement(data.get("seconds"), data.get("error", ""),
                                   notes={n: v for n, v in data.items() if n not in ("seconds", "error")})
            records.append(name, point, measured)
            value, done = value or measured.value, done + 1
            if done % 100 == 0:
                say(f"{name}: {number + 1} of {len(points)}, {(time.monotonic() - started) / done:.3f} s each")


def confirm(name: str, most: int, records: Records, device: Device, say: Callable[[str], None]) -> None:
    """Measure the fastest points again, `AGAIN` times each, and record the medians: a table's optimum must not be the
    luckiest of a thousand measurements."""
    task = task_of(name)
    found, space, known = ScheduleSpace.of(task, target("cpu").description), grid(task, most), records.load(name)
    default, value = found.schedule({}).to_json(), known[key(space.default or {})].value
    points = [p for p in space.points() if key(p) in known and known[key(p)].value is not None]
    setup = {"target": "cpu", "tasks": [task_to_json(task)], "clock": "thread"}
    with LocalPool("tracedsl.kernel_measuring:Measuring", setup, [device]) as pool:
        for point in sorted(points, key=lambda p: known[key(p)].value or 0.0)[:TOP]:
            steps = found.schedule(point).to_json()
            ask = {"task": 0, "steps": steps, "against": default, "value": value, "sure": True}
            answers = [pool.submit(ask, limit=60).result() for _ in range(AGAIN)]
            times = [float(a.data["seconds"]) for a in answers if isinstance(a, Result) and "seconds" in a.data]
            if times:
                records.append(name, point, Measurement(statistics.median(times), notes={"confirmed": len(times)}))
    say(f"{name}: the {TOP} fastest measured again")


def pack(name: str, most: int, records: Records) -> Path:
    """Write the table of what was measured."""
    task = task_of(name)
    space, known = grid(task, most), records.load(name)
    rows = [(p, known[key(p)]) for p in space.points() if key(p) in known]
    first = dict(space.default or {})
    data = {
        "name": name, "task": task_to_json(task), "first": first, "default": known[key(first)].value,
        "machine": target("cpu").fingerprint(),
        "parameters": [[p.name, list(p.choices), p.ordered, [[n, list(v)] for n, v in p.when]]
                       for p in space.parameters],
        "points": [list(p.values()) for p, _ in rows],
        "seconds": [None if m.value is None else float(f"{m.value:.4g}") for _, m in rows],
    }
    path = FOLDER / f"{name}.json.gz"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(data, separators=(",", ":")).encode(), mtime=0))
    return path
