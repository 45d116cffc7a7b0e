"""A nest that is not loops: one task that the accelerator does.

What holds here: the task, its schedule and what was matched stand in it; instructions are made when the whole program
is known (`segments`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tracedsl.hw.fpga.compile.tile import Tile, tile_of
from tracedsl.hw.fpga.compile.work import Work
from tracedsl.ir.expr import Task
from tracedsl.ir.loops import Nest, Stmt
from tracedsl.schedule.primitives import Schedule


@dataclass(frozen=True, eq=False)
class Offload(Stmt):
    """The statement that stands for a task on the accelerator."""

    task: Task
    schedule: Schedule
    work: Work
    block: int

    @cached_property
    def tile(self) -> Tile:
        return tile_of(self.work, self.schedule, self.block)

    def __str__(self) -> str:
        loops = str(self.schedule).replace("\n", "; ").partition(": ")[2]
        return f"accelerator {self.work.kind}: {loops}"


def offload_of(nest: Nest) -> Offload | None:
    """What the accelerator does of a nest: all of it, or nothing."""
    match nest.body:
        case (Offload() as found,):
            return found
    return None
