"""Tuning of one task: its schedules as a space, measured in seconds, through the search engine of `autotune`.

What holds here: a schedule is measured on made-up data of the task's own shapes, alone, and counts only if its results
agree with those of the default schedule. What was measured is recorded by task, target and compiler, and not measured
again. The winner is timed in turns with the default schedule before it is taken: tuning makes no kernel slower.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tracedsl.autotune import Budget, CoordinateDescent, Measurement, Parameter, Point, Records, Space, Study, Trial
from tracedsl.cache import Store, code_digest, digest
from tracedsl.diagnostics import TracedslError
from tracedsl.hw.target import Runnable, Target
from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Buffer, Task, task_text
from tracedsl.ir.loops import LoopProgram
from tracedsl.schedule import Schedule, ScheduleSpace
from tracedsl.schedule.planner import Planner, planner_of

Array = np.ndarray[Any, Any]

_ROUNDS = 5          # timed runs of a candidate, of which the median counts
_MARGIN = 0.02       # a candidate wins only if it is faster by this share: less is noise
_SLOW = 3.0          # a candidate this many times slower than the best is not timed again


def tune_task(task: Task, on: Target, trials: int, store: Store) -> Schedule:
    """The best of `trials` schedules of a task on this machine; the default one if nothing beats it.

    Ctrl-C keeps the best so far. Tasks without choices, and those that the user gave hints for, are not searched.
    """
    planner = planner_of(on)
    default, choices = planner.default(task), planner.space(task)
    if task.hints or not choices:
        return default
    first = {name: values[0] for name, values in choices.items()}     # what the default schedule chose
    space = Space(tuple(Parameter(name, *_in_order(values))
                        for name, values in choices.items()), default=first)
    known = planner.cost(task, default)
    measurer = _ScheduleMeasurer(task, on, default) if known is None else _CostMeasurer(task, planner, default)
    records = Records(store.root / "records" / "kernels.jsonl") if store.usable() else None
    study = Study(space, CoordinateDescent(space), measurer, task_key(task, on), budget=Budget(trials=trials),
                  records=records, margin=_MARGIN)
    outcome = study.run()
    return measurer.winner(outcome.best)


def _in_order(values: Sequence[Any]) -> tuple[tuple[Any, ...], bool]:
    """Numbers by size, so that neighbours behave alike; whether there is such an order."""
    ordered = not isinstance(values[0], str | bool)
    return tuple(sorted(values)) if ordered else tuple(values), ordered


def search_space(found: ScheduleSpace, choices: Mapping[str, Sequence[Any]] | None = None) -> Space:
    """The schedules of a task as a space that strategies walk: sizes in order, what is refused left out, the default's
    schedule as the default. `choices` takes some of the space's choices away (the first of each is the default's)."""
    kept = {name: tuple(values) for name, values in (found.choices if choices is None else choices).items()}
    parameters = []
    for name, values in kept.items():
        when = tuple((other, tuple(v for v in allowed if v in kept[other]))
                     for other, allowed in found.conditions.get(name, ()) if other in kept)
        sized = all(type(value) is int for value in values)
        if all(allowed for _, allowed in when):
            parameters.append(Parameter(name, tuple(sorted(values)) if sized else values, ordered=sized, when=when))
    first = {p.name: kept[p.name][0] for p in parameters}
    return Space(tuple(parameters), lambda point: not found.refusal(point), first)


def task_key(task: Task, on: Target) -> str:
    """What a measurement of this task belongs to: what it computes, on what, made by which compiler."""
    strides = [str(b.strides) for b in task.buffers()]
    return digest(task_text(task), *strides, on.name, on.fingerprint(), code_digest(Path(__file__).parent))[:32]


@dataclass(frozen=True)
class _CostMeasurer:
    """Takes the target's own word for what a schedule costs."""

    task: Task
    planner: Planner
    default: Schedule

    def __call__(self, point: Point) -> Measurement:
        try:
            return Measurement(self.planner.cost(self.task, self.planner.from_point(self.task, dict(point))))
        except TracedslError as error:
            return Measurement(None, error.diagnostic.what)

    def winner(self, best: Trial | None) -> Schedule:
        """The best point's schedule: nothing is uncertain about it."""
        return self.default if best is None else self.planner.from_point(self.task, dict(best.point))


@dataclass
class _ScheduleMeasurer:
    """Measures points of a task's schedule space in seconds."""

    task: Task
    on: Target
    default: Schedule

    def __post_init__(self) -> None:
        self.planner = planner_of(self.on)
        self.written = {stage.out.name for stage in self.task.stages}
        self.buffers = self.task.buffers()
        rng = np.random.default_rng(0)
        self.memory = {b.name: _memory(b, rng) for b in self.buffers}
        self.expected: dict[str, Array] | None = None
        self.best = float("inf")

    def __call__(self, point: Point) -> Measurement:
        try:
            if self.expected is None:
                self.best = self._seconds(self._ready(self.default))
                self.expected = {name: self.memory[name].copy() for name in self.written if name in self.memory}
            runnable = self._ready(self.planner.from_point(self.task, dict(point)))
            seconds = self._seconds(runnable)
        except TracedslError as error:
            return Measurement(None, error.diagnostic.what)
        for name, right in self.expected.items():
            if not np.allclose(self.memory[name], right, rtol=1e-3, atol=1e-3, equal_nan=True):
                return Measurement(None, f"wrong values in {name}")
        self.best = min(self.best, seconds)
        return Measurement(seconds)

    def winner(self, best: Trial | None) -> Schedule:
        """The best point's schedule if, timed in turns with the default one, it is faster; else the default one."""
        if best is None:
            return self.default
        found = self.planner.from_point(self.task, dict(best.point))
        ready = {False: self._ready(self.default), True: self._ready(found)}
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(_ROUNDS):
            for which, runnable in ready.items():
                times[which].append(self._seconds(runnable))
        faster = statistics.median(times[True]) < (1 - _MARGIN) * statistics.median(times[False])
        return found if faster else self.default

    def _ready(self, schedule: Schedule) -> Runnable:
        nest = self.planner.lower(self.task, schedule)
        read = tuple(b for b in self.buffers if b.name not in self.written)
        made = tuple(b for b in self.buffers if b.name in self.written)
        artefact = self.on.compile(LoopProgram(self.task.name, read, made, (), (nest,)))
        return self.on.load(artefact.blobs, artefact.meta)

    def _seconds(self, runnable: Runnable) -> float:
        order = sorted(self.buffers, key=lambda b: b.name in self.written)
        pointers = [_base(b, self.memory[b.name]) for b in order]
        runnable.run(pointers)
        times: list[float] = []
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            runnable.run(pointers)
            times.append(time.perf_counter() - start)
            if times[0] > _SLOW * self.best:
                break
        return statistics.median(times)


def _span(buffer: Buffer) -> tuple[int, int]:
    """The lowest and the highest element that the buffer touches, counted from its first one."""
    reach: Sequence[int] = [stride * (extent - 1) for stride, extent in zip(buffer.strides, buffer.shape) if extent]
    return sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)


def _memory(buffer: Buffer, rng: np.random.Generator) -> Array:
    low, high = _span(buffer)
    count = high - low + 1
    if buffer.dtype.startswith("float"):
        return rng.uniform(0.5, 1.5, count).astype(buffer.dtype)
    return rng.integers(0, 2 if buffer.dtype == "bool" else 4, count).astype(buffer.dtype)


def _base(buffer: Buffer, memory: Array) -> int:
    return int(memory.ctypes.data) - _span(buffer)[0] * BYTES[buffer.dtype]
