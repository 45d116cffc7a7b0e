"""Schedules that tuning found, kept in the store by task, machine and compiler.

What holds here: looking one up loads neither the tuner nor NumPy; what does not fit is as good as nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

from tracedsl.cache import Key, Store, code_digest, digest
from tracedsl.hw.target import Target
from tracedsl.ir.expr import Task
from tracedsl.ir.task_json import task_to_json
from tracedsl.schedule import Schedule, ScheduleError
from tracedsl.schedule.planner import planner_of


def task_digest(task: Task) -> str:
    """What identifies a task: what it computes on what layout, whatever the kernel is called."""
    return digest(json.dumps({**task_to_json(task), "name": ""}, sort_keys=True))[:32]


def compiler_digest() -> str:
    """Which compiler this is: what it measured does not hold for another one."""
    return code_digest(Path(__file__).parent)


def _schedule_key(task: Task, on: Target) -> Key:
    return Key("schedule", task_digest(task),
               {"target": on.name, "machine": on.fingerprint(), "compiler": compiler_digest()})


def keep_schedule(task: Task, on: Target, store: Store, schedule: Schedule, seconds: float, default: float) -> None:
    """Keep the schedule that tuning found for a task on this machine."""
    store.put(_schedule_key(task, on), meta={"steps": schedule.to_json(), "seconds": seconds, "default": default})


def known_schedule(task: Task, on: Target, store: Store) -> Schedule:
    """The schedule that tuning found for a task on this machine; without one the default."""
    entry = None if task.hints else store.get(_schedule_key(task, on))
    if entry is not None:
        try:
            return Schedule.from_json(task, entry.meta["steps"])
        except (ScheduleError, KeyError):
            pass        # what does not fit is as good as nothing
    return planner_of(on).default(task)
