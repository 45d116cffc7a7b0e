"""What a machine can do at most, measured with the compiler's own code, and the least time that a task can take there.

What holds here: two numbers a target, measured once and kept: multiply-adds of a product whose operands stay in the
caches, and bytes of a copy that no cache holds. They are what this compiler reaches, a little below the machine's peak.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tracedsl.hw.target import Runnable, Target
from tracedsl.ir.dtypes import BYTES, is_float
from tracedsl.ir.expr import Affine, Axis, Buffer, Call, Load, Stage, Task
from tracedsl.schedule.access import heavy_calls, widest

ROWS, DEPTH, COLUMNS = 240, 256, 320        # of the product, for each core
COPIED = 1 << 24                            # elements of the copy
RUNS = 12


@dataclass(frozen=True)
class Limits:
    """`operations`: of float32 a second, multiply and add counted apart; `bytes`: read and written a second; `cache`:
    bytes of the last cache, below which `bytes` says nothing."""

    operations: float
    bytes: float
    cache: int

    def least(self, task: Task) -> float | None:
        """Seconds that the task takes at least; None where nothing is known (functions, integers, what fits the
        caches and computes little)."""
        moved = sum(b.size * BYTES[b.dtype] for b in task.buffers())
        bounds = [moved / self.bytes] if moved > 2 * self.cache else []
        if all(is_float(s.value.dtype) and not heavy_calls(s) for s in task.stages):
            work = sum(_products(stage) * widest(stage) / 4 for stage in task.stages)
            bounds += [work / self.operations] if work else []
        return max(bounds, default=None)


def _products(stage: Stage) -> float:
    """Operations of a sum of products; 0 for other stages."""
    if stage.combine != "add" or not isinstance(stage.value, Call) or stage.value.op != "mul":
        return 0.0
    return 2.0 * math.prod(axis.extent for axis in (*stage.axes, *stage.reduce))


def product_task(cores: int) -> Task:
    """out[i, j] = add[k] x[i, k] w[k, j] in float32, some rows for each core."""
    i, j, k = Axis("i", ROWS * cores), Axis("j", COLUMNS), Axis("k", DEPTH, True)
    x = Buffer.row_major("x", "float32", (i.extent, DEPTH), "param")
    w = Buffer.row_major("w", "float32", (DEPTH, COLUMNS), "param")
    out = Buffer.row_major("out", "float32", (i.extent, COLUMNS), "result")
    ij, ik, kj = ((Affine.of(a), Affine.of(b)) for a, b in ((i, j), (i, k), (k, j)))
    value = Call("float32", "mul", (Load("float32", x, ik), Load("float32", w, kj)))
    return Task("limit_product", (Stage("out", out, ij, (i, j), value, (k,), "add"),))


def copy_task() -> Task:
    """out[i] = x[i] in float32."""
    i = Axis("i", COPIED)
    x, out = (Buffer.row_major(n, "float32", (COPIED,), s) for n, s in (("x", "param"), ("out", "result")))  # type: ignore[arg-type]
    return Task("limit_copy", (Stage("out", out, (Affine.of(i),), (i,), Load("float32", x, (Affine.of(i),))),))


def measure_limits(on: Target, prepared: Callable[[Task], tuple[Runnable, list[int]]],
                   clock: Callable[[], float]) -> Limits:
    """Time both tasks; `prepared` compiles one and gives it with the addresses of its arrays."""
    cores = on.description.cores
    rates = []
    for task, amount in ((product_task(cores), 2.0 * ROWS * cores * DEPTH * COLUMNS), (copy_task(), 8.0 * COPIED)):
        runnable, pointers = prepared(task)
        best = math.inf
        for _ in range(RUNS):
            start = clock()
            runnable.run(pointers)
            best = min(best, clock() - start)
        rates.append(amount / best)
    return Limits(rates[0], rates[1], on.description.caches[-1])
