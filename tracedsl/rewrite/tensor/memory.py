"""Memory planning: where temps lie in the workspace.

What holds here: two temps share bytes only if no task between the first write and the last use of one touches the
other. Offsets are multiples of 64 bytes, so that every temp starts on a cache line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Buffer, Load, walk
from tracedsl.ir.loops import LoopProgram, Nest
from tracedsl.rewrite.tensor.lower import TaskProgram

ALIGNMENT = 64


@dataclass(frozen=True)
class MemoryPlan:
    """`offsets[n]` is where `program.temps[n]` starts; both numbers in bytes."""

    offsets: tuple[int, ...]
    workspace: int


def plan_memory(program: TaskProgram) -> MemoryPlan:
    """Place the temps of a program; the largest first, each at the lowest offset that is free for its whole life."""
    lives = _lives(program)
    placed: list[tuple[int, int, tuple[int, int]]] = []
    offsets = {}
    for buffer in sorted(program.temps, key=lambda b: (-_size(b), b.name)):
        life, size = lives[buffer.name], _size(buffer)
        start = 0
        for low, high, other in sorted(placed):
            if other[0] <= life[1] and life[0] <= other[1] and low < start + size and start < high:
                start = high
        offsets[buffer.name] = start
        placed.append((start, start + size, life))
    workspace = max((high for _, high, _ in placed), default=0)
    return MemoryPlan(tuple(offsets[b.name] for b in program.temps), workspace)


def loop_program(program: TaskProgram, nests: Sequence[Nest]) -> LoopProgram:
    """The scheduled nests of a program's tasks, with its temps placed."""
    plan = plan_memory(program)
    return LoopProgram(program.name, program.params, program.results, program.temps, tuple(nests), plan.offsets,
                       plan.workspace)


def may_overwrite(program: TaskProgram, param: Buffer, result: Buffer) -> bool:
    """Whether `result` may lie in the memory of `param`: each element is read for the last time where it is written,
    or in an earlier task."""
    touching = [n for n, task in enumerate(program.tasks) if any(s.out.name == result.name for s in task.stages)]
    if len(touching) > 1:
        return False
    for number, task in enumerate(program.tasks):
        if touching and number < touching[0]:
            continue
        for stage in task.stages:
            for load in walk(*(e for e in (stage.value, stage.finish) if e is not None)):
                if isinstance(load, Load) and load.buffer.name == param.name and not (
                        stage.out.name == result.name and load.index == stage.index
                        and (load.buffer.shape, load.buffer.strides) == (stage.out.shape, stage.out.strides)):
                    return False
    return True


def _size(buffer: Buffer) -> int:
    exact = max(1, buffer.size) * BYTES[buffer.dtype]
    return -(-exact // ALIGNMENT) * ALIGNMENT


def _lives(program: TaskProgram) -> dict[str, tuple[int, int]]:
    """temp -> the first and the last task that touch it."""
    lives: dict[str, tuple[int, int]] = {}
    for number, task in enumerate(program.tasks):
        for buffer in task.buffers():
            first = lives.get(buffer.name, (number, number))[0]
            lives[buffer.name] = (first, number)
    return lives
