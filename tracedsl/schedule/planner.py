"""Who chooses and lowers the schedules of a target's tasks.

What holds here: a target that runs loops uses `LoopPlanner`; one that does some tasks in its own way has a planner of
its own (`Target.planner`), through which the same stages, the same tuner and the same records go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tracedsl.ir.expr import Stage, Task
from tracedsl.ir.loops import Nest
from tracedsl.schedule.default import MachineFacts, default_schedule
from tracedsl.schedule.nests import lower_task
from tracedsl.schedule.primitives import Schedule
from tracedsl.schedule.space import schedule_from_point, schedule_space

Space = dict[str, tuple[int | bool | str, ...]]
Point = Mapping[str, Any]


class Planner(Protocol):
    """Schedules for one target. `disable`: rewrites that do not suit it."""

    @property
    def disable(self) -> tuple[str, ...]: ...

    def rework(self, stages: Sequence[Stage]) -> list[Stage]:
        """The stages as the target wants them, with the same results."""
        ...

    def apart(self, stage: Stage) -> bool:
        """Whether a stage must have a task of its own."""
        ...

    def admit(self, tasks: Sequence[Task]) -> None:
        """Raises `Unsupported` if compiling these tasks for the target makes no sense."""
        ...

    def where(self, task: Task) -> str:
        """Where the task runs and why there, for `explain()`; "" if there is but one place."""
        ...

    def default(self, task: Task) -> Schedule:
        """The schedule without any trial."""
        ...

    def space(self, task: Task) -> Space:
        """The choices, the default's first; none if there is nothing to search."""
        ...

    def from_point(self, task: Task, point: Point) -> Schedule:
        """The schedule of a point. Raises `ScheduleError` for one that cannot be meant."""
        ...

    def cost(self, task: Task, schedule: Schedule) -> float | None:
        """What a schedule costs, where that is known exactly without running it (cycles); None where it must be timed.
        Raises TracedslError for a schedule that cannot be carried out."""
        ...

    def lower(self, task: Task, schedule: Schedule) -> Nest:
        """The nest of a task under a schedule. Raises `ScheduleError`."""
        ...


@dataclass(frozen=True)
class LoopPlanner:
    """Loops on a machine."""

    machine: MachineFacts
    disable: tuple[str, ...] = ()

    def rework(self, stages: Sequence[Stage]) -> list[Stage]:
        return list(stages)

    def apart(self, stage: Stage) -> bool:
        return False

    def admit(self, tasks: Sequence[Task]) -> None:
        pass

    def where(self, task: Task) -> str:
        return ""

    def default(self, task: Task) -> Schedule:
        return default_schedule(task, self.machine)

    def space(self, task: Task) -> Space:
        return dict(schedule_space(task, self.machine))

    def from_point(self, task: Task, point: Point) -> Schedule:
        return schedule_from_point(task, self.machine, point)

    def cost(self, task: Task, schedule: Schedule) -> float | None:
        return None

    def lower(self, task: Task, schedule: Schedule) -> Nest:
        return lower_task(task, schedule)


class OnMachine(Protocol):
    """A target, as far as planning is concerned."""

    @property
    def description(self) -> MachineFacts: ...


def planner_of(on: OnMachine) -> Planner:
    """Who schedules for a target."""
    own: Planner | None = getattr(on, "planner", None)
    return own if own is not None else LoopPlanner(on.description)
