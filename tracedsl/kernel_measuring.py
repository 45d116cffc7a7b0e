"""The worker's side of tuning: compiles and times schedules of tasks that came as JSON.

What holds here:
- A schedule counts only if its results agree with those of the unscheduled loops on the same made-up data of the task's
  own shapes. Integers and booleans must be equal; floats may differ as much as another order of adding may make them.
- It is timed in turns with the best schedule so far, and its value is the ratio of the medians times the value that
  the best one had: a machine that slows down or speeds up crowns nobody. Caches are warm: runs follow each other on the
  same arrays. What is several times slower is timed once.
- Loops that were timed before, under whatever schedule, are not timed again.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tracedsl.cache import digest
from tracedsl.diagnostics import TracedslError
from tracedsl.hw.target import Runnable, Target, target
from tracedsl.ir.dtypes import BYTES, is_float
from tracedsl.ir.expr import Buffer, Task
from tracedsl.ir.loops import LoopProgram
from tracedsl.ir.task_json import task_from_json
from tracedsl.kernel_limits import measure_limits
from tracedsl.schedule import Schedule
from tracedsl.schedule.planner import LoopPlanner, planner_of

Array = np.ndarray[Any, Any]

ROUNDS = 5           # turns of each; what may win gets `SURE`
SURE = 15
SLOW = 3.0           # a schedule this many times slower than the best is not timed again
SAMPLE = 2e-4        # seconds of one sample at least: short loops run several times in a row
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "thread": time.thread_time}


class Measuring:
    """Tries candidates `{"task": number, "steps": schedule, "against": schedule, "value": seconds of it or None}`; for
    `{"limits": true}` it measures what the machine can do.

    `setup`: "target" (a name), "tasks" (as JSON), "clock" ("wall"; "thread": processor time of one thread), "known"
    (digest of loops -> seconds). The answer has "seconds", "code" (the digest of the loops) and how it came about, or
    "error" for a schedule that does not work."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._target = target(setup["target"])
        self._clock = CLOCKS[setup.get("clock", "wall")]
        self._tasks = [task_from_json(data) for data in setup["tasks"]]
        self._known: dict[str, float] = dict(setup.get("known", {}))
        self._benches: dict[int, Bench] = {}

    def __call__(self, candidate: Mapping[str, Any]) -> dict[str, Any]:
        if "limits" in candidate:
            return asdict(measure_limits(self._target, self._prepared, self._clock))
        number = int(candidate["task"])
        if number not in self._benches:
            self._benches[number] = Bench(self._tasks[number], self._target, self._clock)
        bench = self._benches[number]
        try:
            loops = bench.loops(candidate["steps"])
            code = f"{number}:{digest(str(loops))[:20]}"
            if code in self._known and not candidate.get("sure"):
                return {"seconds": self._known[code], "code": code, "duplicate": True}
            found = bench.measure(loops, candidate)
        except TracedslError as error:
            return {"error": error.diagnostic.what}
        if "seconds" in found:
            self._known[code] = found["seconds"]
        return {**found, "code": code}


    def _prepared(self, task: Task) -> tuple[Runnable, list[int]]:
        bench = Bench(task, self._target, self._clock, checked=False)
        self._benches[-1] = bench       # keeps its arrays
        return bench.ready(bench.loops(planner_of(self._target).default(task).to_json())), bench.pointers


@dataclass
class Bench:
    """One task, ready to be run: its arrays, what must come out, and the schedule to compare with."""

    task: Task
    on: Target
    clock: Callable[[], float]
    checked: bool = True        # whether to know what must come out
    opponent: tuple[str, Runnable] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.written = {stage.out.name for stage in self.task.stages}
        self.buffers = sorted(self.task.buffers(), key=lambda b: b.name in self.written)
        rng = np.random.default_rng(0)
        self.memory = {b.name: _memory(b, rng) for b in self.buffers}
        self.first = {name: array.copy() for name, array in self.memory.items() if name in self.written}
        self.pointers = [_base(b, self.memory[b.name]) for b in self.buffers]
        if self.checked:
            self.ready(self.loops(None)).run(self.pointers)
        self.expected = {name: self.memory[name].copy() for name in self.first}

    def loops(self, steps: Any) -> LoopProgram:
        """The loops of a schedule (None: of the plain one, or the default where no loops are planned). Raises
        `ScheduleError`."""
        planner = planner_of(self.on)
        plain = Schedule.of(self.task) if isinstance(planner, LoopPlanner) else planner.default(self.task)
        nest = planner.lower(self.task, plain if steps is None else Schedule.from_json(self.task, steps))
        read = tuple(b for b in self.buffers if b.name not in self.written)
        made = tuple(b for b in self.buffers if b.name in self.written)
        return LoopProgram(self.task.name, read, made, (), (nest,))

    def ready(self, loops: LoopProgram) -> Runnable:
        artefact = self.on.compile(loops)
        return self.on.load(artefact.blobs, artefact.meta)

    def measure(self, loops: LoopProgram, candidate: Mapping[str, Any]) -> dict[str, Any]:
        runnable, value = self.ready(loops), candidate.get("value")
        for name, array in self.first.items():
            self.memory[name][:] = array
        runnable.run(self.pointers)
        if wrong := self._wrong():
            return {"error": f"wrong values in {wrong}"}
        once = self._sample(runnable, 1)
        if value is not None and once > SLOW * value:
            return {"seconds": once, "slow": True}
        repeats = max(1, math.ceil(SAMPLE / max(once, 1e-9)))
        against = self._opponent(candidate.get("against"))
        if against is None or value is None:
            times = [self._sample(runnable, repeats) for _ in range(SURE)]
            return {"seconds": statistics.median(times), "spread": _spread(times)}
        mine, other = self._turns(runnable, against, repeats, ROUNDS)
        if statistics.median(mine) < 1.02 * statistics.median(other) or candidate.get("sure"):
            more = self._turns(runnable, against, repeats, SURE - ROUNDS)
            mine, other = mine + more[0], other + more[1]
        ratio = statistics.median(mine) / statistics.median(other)
        return {"seconds": ratio * value, "ratio": ratio, "spread": _spread(mine)}

    def _turns(self, one: Runnable, two: Runnable, repeats: int, rounds: int) -> tuple[list[float], list[float]]:
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(rounds):
            for which in ((0, 1), (1, 0))[turn % 2]:
                times[which].append(self._sample((one, two)[which], repeats))
        return times

    def _sample(self, runnable: Runnable, repeats: int) -> float:
        start = self.clock()
        for _ in range(repeats):
            runnable.run(self.pointers)
        return (self.clock() - start) / repeats

    def _opponent(self, steps: Any) -> Runnable | None:
        if steps is None:
            return None
        name = str(steps)
        if self.opponent is None or self.opponent[0] != name:
            self.opponent = (name, self.ready(self.loops(steps)))
        return self.opponent[1]

    def _wrong(self) -> str:
        """The first buffer whose values are not what they must be."""
        sums = max(math.prod(a.extent for a in stage.reduce) for stage in self.task.stages)
        for name, right in self.expected.items():
            found = self.memory[name]
            if not is_float(right.dtype.name):
                if not np.array_equal(found, right):
                    return name
                continue
            eps = float(np.finfo(right.dtype).eps)
            scale = float(np.max(np.abs(right[np.isfinite(right)]), initial=0.0))
            near = np.allclose(found, right, rtol=eps * (256 + sums / 4), atol=eps * 256 * scale, equal_nan=True)
            if not near:
                return name
        return ""


def _spread(times: Sequence[float]) -> float:
    """The distance of the quartiles, relative to the median."""
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / middle if middle else 0.0


def _span(buffer: Buffer) -> tuple[int, int]:
    """The lowest and the highest element that the buffer touches, counted from its first one."""
    reach = [stride * (extent - 1) for stride, extent in zip(buffer.strides, buffer.shape) if extent]
    return sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)


def _memory(buffer: Buffer, rng: np.random.Generator) -> Array:
    low, high = _span(buffer)
    count = high - low + 1
    if is_float(buffer.dtype):
        return rng.uniform(0.5, 1.5, count).astype(buffer.dtype)
    return rng.integers(0, 2 if buffer.dtype == "bool" else 4, count).astype(buffer.dtype)


def _base(buffer: Buffer, memory: Array) -> int:
    return int(memory.ctypes.data) - _span(buffer)[0] * BYTES[buffer.dtype]
