"""Tuning of a kernel's tasks: their schedules as spaces, measured in seconds, through the search engine of `autotune`.

What holds here: schedules are compiled and timed in a worker process (`kernel_measuring`), so that none can harm the
caller. What was measured is recorded by task, target, machine and compiler, and not measured again. The winner is
timed once more in turns with the default schedule before it is taken: tuning makes no kernel slower. Winners are kept
in the store; from then on the task gets them wherever it occurs, in every process.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Protocol

from tracedsl.autotune import Budget, Measurement, Outcome, Parameter, Point, Records, Space, Strategy, Study, Trial
from tracedsl.autotune.pool import Crash, DevicePool, Result, Timeout
from tracedsl.autotune.space import key
from tracedsl.cache import Key, Store
from tracedsl.diagnostics import TracedslError, warn
from tracedsl.hw.target import Target
from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Call, Task, walk
from tracedsl.ir.task_json import task_to_json
from tracedsl.kernel_effort import STRATEGIES, Effort, modelled
from tracedsl.kernel_limits import Limits
from tracedsl.kernel_schedules import compiler_digest, keep_schedule, known_schedule, task_digest
from tracedsl.schedule import Schedule, ScheduleError, ScheduleSpace
from tracedsl.schedule.planner import LoopPlanner, Planner, planner_of

MARGIN = 0.02        # a candidate wins only if it is faster by this share: less is noise
MINOR = 0.02         # tasks with less than this share of a kernel's work keep their default
LIMIT = 10.0         # seconds that a candidate may take beside one run of the unscheduled loops
PLAIN = 2e8          # operations a second of unscheduled loops, at least


class Choosable(Protocol):
    """The schedules of one task that may be tried; `ScheduleSpace` where loops are planned."""

    @property
    def task(self) -> Task: ...

    @property
    def choices(self) -> Mapping[str, tuple[int | bool | str, ...]]: ...

    @property
    def conditions(self) -> Mapping[str, tuple[tuple[str, tuple[int | bool | str, ...]], ...]]: ...

    def refusal(self, point: Point, /) -> str: ...

    def schedule(self, point: Point, /) -> Schedule: ...


@dataclass(frozen=True, eq=False)
class _Planned:
    """The space of a planner that does not plan loops."""

    task: Task
    planner: Planner
    choices: Mapping[str, tuple[int | bool | str, ...]]
    conditions: Mapping[str, tuple[tuple[str, tuple[int | bool | str, ...]], ...]] = field(default_factory=dict)

    def refusal(self, point: Point) -> str:
        try:
            self.schedule(point)
        except ScheduleError as error:
            return error.diagnostic.what
        return ""

    def schedule(self, point: Point) -> Schedule:
        return self.planner.from_point(self.task, point)


def choices_of(task: Task, on: Target) -> Choosable:
    """The schedules of a task that may be tried on a target."""
    planner = planner_of(on)
    if isinstance(planner, LoopPlanner):
        return ScheduleSpace.of(task, planner.machine)
    return _Planned(task, planner, {} if task.hints else planner.space(task))


@dataclass(frozen=True)
class Progress:
    """Where tuning stands, after each trial. Seconds of one run; `default`: of the default schedule, None before it was
    measured; `roofline`: the least that the task can take, if that is known; `number` of `count`: the task; `left`:
    seconds of the budget, inf without a limit."""

    task: Task
    number: int
    count: int
    trials: int
    budget: float
    failures: int
    best: float | None
    default: float | None
    left: float
    trial: Trial
    roofline: float | None = None


Watch = Callable[[Progress], None]


@dataclass(frozen=True)
class Tuned:
    """What tuning gave for one task. `seconds` and `default` of one run, None where nothing was measured;
    `trials` with their measurements, `stopped` as in `Outcome`; `foreign`: records of other machines or compilers;
    `roofline`: the least seconds that the task can take here, if that is known."""

    task: Task
    schedule: Schedule
    seconds: float | None = None
    default: float | None = None
    outcome: Outcome = field(default_factory=lambda: Outcome(None, (), "done"))
    foreign: int = 0
    roofline: float | None = None

    @property
    def gain(self) -> float:
        """How many times faster than the default schedule."""
        return self.default / self.seconds if self.default and self.seconds else 1.0


@dataclass(frozen=True)
class Tuner:
    """Tunes tasks for a target. `strategy` is a name of `STRATEGIES`, or "auto": with a cost
    model if scikit-learn is there."""

    on: Target
    store: Store
    effort: Effort
    strategy: str = "auto"
    seed: int = 0
    watch: Watch | None = None

    def tune(self, tasks: Sequence[Task]) -> list[Tuned]:
        """Search the schedules of all tasks; the time is shared out by the work that a task is. After Ctrl-C the rest
        keeps what is known of it."""
        from tracedsl.autotune.workers import LocalPool

        work = [operations(task) for task in tasks]
        records = Records(self.store.root / "records" / "kernels.jsonl") if self.store.usable() else None
        done: list[Tuned] = []
        meter, stopped = Budget(seconds=self.effort.seconds).start(), False
        setup = {"target": self.on.name, "tasks": [task_to_json(task) for task in tasks]}
        with LocalPool("tracedsl.kernel_measuring:Measuring", setup) as pool:
            for number, task in enumerate(tasks):
                space = choices_of(task, self.on)
                if stopped or not space.choices or work[number] < MINOR * sum(work):
                    done.append(Tuned(task, known_schedule(task, self.on, self.store)))
                    continue
                share = work[number] / (sum(work[number:]) or 1)
                budget = Budget(trials=self.effort.trials, seconds=(self.effort.seconds - meter.seconds) * share)
                done.append(_Search(self, space, pool, number, len(tasks), budget, records).run())
                stopped = done[-1].outcome.stopped == "interrupted"
        return done

    def limits(self, pool: DevicePool) -> Limits | None:
        """What this machine can do, measured once; None where it cannot be measured."""
        asked = Key("memo", "limits", {"target": self.on.name, "machine": self.on.fingerprint()})
        if (entry := self.store.get(asked)) is not None:
            return Limits(**entry.meta)
        answer = pool.submit({"limits": True}, limit=LIMIT).result() if self.on.description.caches else None
        if not isinstance(answer, Result):
            return None
        self.store.put(asked, meta=answer.data)
        return Limits(**answer.data)

    def where(self) -> dict[str, str]:
        """What a measurement belongs to beside its task."""
        return {"target": self.on.name, "machine": self.on.fingerprint(), "compiler": compiler_digest()}


@dataclass
class _Search:
    """The search for one task."""

    tuner: Tuner
    space: Choosable
    pool: DevicePool
    number: int
    count: int
    budget: Budget
    records: Records | None

    def __post_init__(self) -> None:
        task, tuner = self.space.task, self.tuner
        self.name, self.where = task_digest(task), tuner.where()
        self.points = search_space(self.space)
        self.first = key(self.points.default or {})
        self.default_steps = planner_of(tuner.on).default(task).to_json()
        self.known = self.records.load(self.name, self.where) if self.records else {}
        self.opponent: tuple[float, Any] | None = None      # seconds and steps of the best so far
        self.failures = self.trials = 0
        self.planner = planner_of(tuner.on)
        self.told = self.planner.cost(task, self.planner.default(task)) is not None     # by the target itself
        limits = None if self.told else tuner.limits(self.pool)
        self.roofline = limits.least(task) if limits is not None else None
        self.meter = self.budget.start()
        for text, measurement in self.known.items():
            self._note(json.loads(text), measurement)

    def run(self) -> Tuned:
        study = Study(self.points, self._strategy(), self._measure, self.name, budget=self.budget,
                      records=self.records, margin=MARGIN, where=self.where)
        outcome = study.run(self._tell)
        foreign = self.records.count_elsewhere(self.name, self.where) if self.records else 0
        default = self.known.get(self.first)
        before = default.value if default is not None else None
        schedule, seconds = self._winner(outcome.best, before)
        return Tuned(self.space.task, schedule, seconds, before, outcome, foreign, self.roofline)

    def _strategy(self) -> Strategy:
        return make_strategy(self.tuner.strategy, self.points, self.space, self.tuner.seed)

    def _measure(self, point: Point) -> Measurement:
        if self.told:
            return self._cost(point)
        measurement = self._submit({"steps": self.space.schedule(point).to_json()})
        self.known[key(point)] = measurement
        self._note(point, measurement)
        return measurement

    def _cost(self, point: Point) -> Measurement:
        try:
            measurement = Measurement(self.planner.cost(self.space.task, self.space.schedule(point)))
        except TracedslError as error:
            measurement = Measurement(None, error.diagnostic.what)
        self.known[key(point)] = measurement
        return measurement

    def _submit(self, candidate: Mapping[str, Any]) -> Measurement:
        seconds, against = self.opponent or (None, None)
        limit = LIMIT + operations(self.space.task) / PLAIN
        answer = self.pool.submit({"task": self.number, "against": against, "value": seconds, **candidate},
                                  limit=limit).result()
        if isinstance(answer, Crash):
            return Measurement(None, f"crashed: {answer.reason}")
        if isinstance(answer, Timeout):
            return Measurement(None, f"took longer than {answer.seconds:.0f} s")
        data = dict(answer.data)
        return Measurement(data.pop("seconds", None), data.pop("error", ""), notes=data)

    def _note(self, point: Point, measurement: Measurement) -> None:
        value = measurement.value
        if value is not None and measurement.ok and (self.opponent is None or value < self.opponent[0]):
            if self.space.refusal(point):
                return
            self.opponent = (value, self.space.schedule(point).to_json())

    def _tell(self, trial: Trial, best: Trial) -> None:
        self.trials = trial.number + 1
        self.failures += not trial.measurement.ok
        default = self.known.get(self.first)
        if self.tuner.watch is not None:
            self.tuner.watch(Progress(
                self.space.task, self.number, self.count, self.trials, self.budget.trials, self.failures,
                best.measurement.value, default.value if default else None,
                self.budget.seconds - self.meter.seconds, trial, self.roofline))

    def _winner(self, best: Trial | None, before: float | None) -> tuple[Schedule, float | None]:
        """The best point's schedule, if it is faster than the default's in turns with it; kept in the store."""
        default = Schedule.from_json(self.space.task, self.default_steps)
        if best is None or key(best.point) == self.first or before is None:
            return default, before
        found = self.space.schedule(best.point)
        if self.told and best.measurement.value is not None:       # nothing is uncertain about it
            keep_schedule(self.space.task, self.tuner.on, self.tuner.store, found, best.measurement.value, before)
            return found, best.measurement.value
        sure = self._submit({"steps": found.to_json(), "against": self.default_steps, "value": before, "sure": True})
        if sure.value is None or sure.value > (1 - MARGIN) * before:
            return default, before
        keep_schedule(self.space.task, self.tuner.on, self.tuner.store, found, sure.value, before)
        return found, sure.value


def search_space(found: Choosable, choices: Mapping[str, Sequence[Any]] | None = None) -> Space:
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


def make_strategy(name: str, points: Space, space: Choosable, seed: int = 0) -> Strategy:
    """A strategy by its name (see `kernel_effort.STRATEGIES`), with the features of schedules if it has a model."""
    from tracedsl import autotune

    if name == "auto":
        name = "model" if find_spec("sklearn") is not None else "annealing"
        if name != "model":
            warn("T004", "schedules are searched without a cost model", why="scikit-learn is not installed",
                 hint="pip install 'tracedsl[tune]'")
    made = getattr(autotune, STRATEGIES[name])
    given = {"features": remembered(space)} if modelled(name) and isinstance(space, ScheduleSpace) else {}
    strategy: Strategy = made(points, seed, **given)
    return strategy


def remembered(space: ScheduleSpace) -> Callable[[Sequence[Point]], Any]:
    """The features of a task's points, each computed once."""
    import numpy as np

    from tracedsl.schedule.features import schedule_features

    rows: dict[str, Any] = {}

    def features(points: Sequence[Point]) -> Any:
        names = [key(point) for point in points]
        new = {name: point for name, point in zip(names, points) if name not in rows}
        rows.update(zip(new, schedule_features(space, list(new.values()))))
        return np.stack([rows[name] for name in names]) if names else np.zeros((0, 1), np.float32)

    return features


def operations(task: Task) -> float:
    """What a task costs, about: arithmetic operations, and bytes as four each."""
    total = 0.0
    for stage in task.stages:
        points = math.prod(axis.extent for axis in (*stage.axes, *stage.reduce))
        total += points * (1 + sum(isinstance(e, Call) for e in walk(stage.value)))
    return total + 4.0 * sum(b.size * BYTES[b.dtype] for b in task.buffers())
