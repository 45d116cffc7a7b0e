"""The tasks whose schedules are measured: NumPy functions and the shapes they are called with.

What holds here: a task is the one with the most work of its function; inputs' values play no part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.kernels.workloads.convolutions import CONVOLUTIONS, DEPTHWISE, convolution, depthwise
from tracedsl import kernel
from tracedsl.capture.tensor.arguments import bind
from tracedsl.ir.expr import Task


def matmul(x, w):  # type: ignore[no-untyped-def]
    return x @ w


def softmax(x):  # type: ignore[no-untyped-def]
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


Made = tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]


def _matmul(m: int, k: int, n: int) -> Made:
    return matmul, ((m, k), (k, n))


def _convolution(name: str) -> Made:
    size, inside, outside, k, stride = CONVOLUTIONS[name]
    return convolution(stride), ((1, size, size, inside), (k, k, inside, outside))


def _depthwise(name: str) -> Made:
    size, channels, k, stride = DEPTHWISE[name]
    return depthwise(stride), ((1, size, size, channels), (k, k, channels))


# the nine of the protocol, and others of the same kinds that the prior learns from
NINE: dict[str, Made] = {
    "matmul512": _matmul(512, 512, 512), "matmul1024": _matmul(1024, 1024, 1024),
    **{name: _convolution(name) for name in ("C2", "C6", "C9", "C12")},
    **{name: _depthwise(name) for name in ("D3", "D7")},
    "softmax": (softmax, ((4096, 1024),)),
}
MORE: dict[str, Made] = {
    "matmul256": _matmul(256, 256, 256), "matmul768": _matmul(512, 768, 3072), "tall": _matmul(4096, 64, 64),
    "deep": _matmul(64, 4096, 64), "wide": _matmul(64, 64, 4096), "odd": _matmul(300, 500, 700),
    **{name: _convolution(name) for name in ("C3", "C4", "C5", "C7", "C10", "C11")},
    **{name: _depthwise(name) for name in ("D1", "D2", "D5", "D8")},
}


def task_of(name: str) -> Task:
    """The heaviest task of a function of `NINE` or `MORE`."""
    function, shapes = {**NINE, **MORE}[name]
    made = kernel(function)
    bound = bind(made._parameters, [np.zeros(shape, np.float32) for shape in shapes], {})
    tasks = made._compiler(made._environment.snapshot()).stages(bound).tasks.tasks
    return max(tasks, key=_work)


def _work(task: Task) -> int:
    return sum(math.prod(axis.extent for axis in (*stage.axes, *stage.reduce)) for stage in task.stages)
