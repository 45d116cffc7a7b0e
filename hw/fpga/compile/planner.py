"""How tasks are scheduled and lowered for the accelerator, and which are left to the host.

What holds here: the accelerator takes every task that `match` finds work in, except copies and constants of the host's
own data, which would only travel. A task has one stage here; what the host does keeps the host's schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tracedsl.diagnostics import Unsupported, nearest
from tracedsl.hw.fpga.compile import choose
from tracedsl.hw.fpga.compile.artefact import cycles
from tracedsl.hw.fpga.compile.epilogue import Refused
from tracedsl.hw.fpga.compile.match import match
from tracedsl.hw.fpga.compile.offload import Offload
from tracedsl.hw.fpga.compile.rework import reworked
from tracedsl.hw.fpga.compile.tile import Tile, schedule_of, tile_of
from tracedsl.hw.fpga.compile.work import Work
from tracedsl.hw.fpga.config import Config, Dram
from tracedsl.hw.target import Description
from tracedsl.ir.expr import Stage, Task
from tracedsl.ir.loops import Nest
from tracedsl.schedule import Schedule, ScheduleError, default_schedule, lower_task, schedule_from_point, schedule_space
from tracedsl.schedule.planner import Point, Space


@dataclass(frozen=True)
class FpgaPlanner:
    """The accelerator's side of scheduling; `host` describes the machine for everything else."""

    config: Config
    dram: Dram
    host: Description
    threads: int = 2
    # the accelerator multiplies signed bytes as they are
    disable: tuple[str, ...] = ("pair-bytes",)

    @property
    def block(self) -> int:
        return self.config.block

    def rework(self, stages: Sequence[Stage]) -> list[Stage]:
        return reworked(stages, self.apart)

    def apart(self, stage: Stage) -> bool:
        """Whether the accelerator does the stage by itself."""
        return isinstance(self.work(stage), Work)

    def work(self, stage: Stage) -> Work | str:
        """The stage's work, or why it stays on the host."""
        return _work(stage, self.config, self.threads)

    def default_tile(self, work: Work) -> Tile:
        return _tile(work.stage, self.config, self.dram, self.threads)

    def of_task(self, task: Task) -> Work | str:
        if len(task.stages) != 1:
            kinds = [self.work(stage) for stage in task.stages]
            return next((why for why in kinds if isinstance(why, str)), "it is one of several stages that share loops")
        return self.work(task.stages[0])

    def admit(self, tasks: Sequence[Task]) -> None:
        """Raises `Unsupported` (H069) if no task is for the accelerator."""
        reasons = [self.of_task(task) for task in tasks]
        if reasons and all(isinstance(why, str) for why in reasons):
            why = "; ".join(dict.fromkeys(f"{task.name}: {why}" for task, why in zip(tasks, reasons)))
            raise Unsupported("H069", "nothing of the kernel runs on the accelerator", why=why,
                              hint="it computes on integers: quantise to int8, or use target='cpu'")

    def where(self, task: Task) -> str:
        work = self.of_task(task)
        if isinstance(work, str):
            return f"on the host: {work}"
        aside = "; hints, which are for loops, are left aside" if task.hints else ""
        return f"on the accelerator ({work.kind}){aside}"

    def default(self, task: Task) -> Schedule:
        work = self.of_task(task)
        if isinstance(work, str):
            return default_schedule(task, self.host)
        return schedule_of(task, work, self.default_tile(work), self.block)

    def space(self, task: Task) -> Space:
        work = self.of_task(task)
        if isinstance(work, str):
            return dict(schedule_space(task, self.host))
        return dict(choose.space(work, self.default_tile(work), self.block))

    def from_point(self, task: Task, point: Point) -> Schedule:
        work = self.of_task(task)
        if isinstance(work, str):
            return schedule_from_point(task, self.host, point)
        known = choose.space(work, self.default_tile(work), self.block)
        for name in point:
            if name not in known:
                raise ScheduleError("S001", f"the task has no choice {name!r}", hint=nearest(name, known))
        full = {name: point.get(name, values[0]) for name, values in known.items()}
        return schedule_of(task, work, choose.tile_from(work, full, self.block), self.block)

    def cost(self, task: Task, schedule: Schedule) -> float | None:
        """Cycles of the task alone, by the timing model; None for a task of the host."""
        work = self.of_task(task)
        if isinstance(work, str):
            return None
        return cycles(work, tile_of(work, schedule, self.block), self.config, self.dram)

    def lower(self, task: Task, schedule: Schedule) -> Nest:
        work = self.of_task(task)
        if isinstance(work, str):
            return lower_task(task, schedule)
        return Nest(task.name, task.buffers(), (Offload(task, schedule, work, self.block),))


@lru_cache(maxsize=1024)
def _work(stage: Stage, config: Config, threads: int) -> Work | str:
    try:
        found = match(stage, config.block)
    except Refused as refused:
        return str(refused)
    return found if choose.can_fit(found, config, threads) else "no tile of it fits the scratchpads"


@lru_cache(maxsize=1024)
def _tile(stage: Stage, config: Config, dram: Dram, threads: int) -> Tile:
    work = match(stage, config.block)
    found = choose.good_tiles(work, config, dram, threads)
    return min(found, key=lambda tile: cycles(work, tile, config, dram)) if len(found) > 1 else found[0]
