"""Tasks travel as JSON and come back the same; what is no task is refused."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

sys.path.insert(0, str(Path(__file__).parent.parent / "rewrite"))

from tensor_graphs import WideMachine, graphs

from tracedsl.ir.expr import Affine, Axis, Buffer, Call, Const, Load, Position, Stage, Task, task_text, walk
from tracedsl.ir.graph import Graph
from tracedsl.ir.loops import nest_text
from tracedsl.ir.task_json import task_from_json, task_to_json
from tracedsl.rewrite.tensor.lower import lower
from tracedsl.schedule import default_schedule, lower_task


def travelled(task: Task) -> Task:
    return task_from_json(json.loads(json.dumps(task_to_json(task), allow_nan=False)))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_a_task_comes_back_the_same(graph: Graph) -> None:
    for task in lower(graph).tasks:
        back, machine = travelled(task), WideMachine()
        assert task_text(back) == task_text(task)
        assert back.buffers() == task.buffers()
        loops = nest_text(lower_task(back, default_schedule(back, machine)))
        assert loops == nest_text(lower_task(task, default_schedule(task, machine)))


def small_task(value: float = 1.0) -> Task:
    i = Axis("i", 8)
    x, y = (Buffer.row_major(name, "float32", (8,), "param") for name in "xy")
    read = Load("float32", x, (Affine.of(i),))
    gather = Load("float32", x, (Position("int64", Affine.of(i, 1, 0)),))
    body = Call("float32", "add", (Call("float32", "mul", (read, read)), Call("float32", "add", (
        gather, Const("float32", value)))))
    return Task("t", (Stage("y", y, (Affine.of(i),), (i,), body),))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -0.0, 1e-300, True])
def test_every_constant_survives(value: Any) -> None:
    (back,) = [e.value for e in walk(travelled(small_task(value)).stages[0].value) if isinstance(e, Const)]
    assert repr(back) == repr(value)


def test_shared_expressions_stay_shared() -> None:
    loads = [e for e in walk(travelled(small_task()).stages[0].value) if isinstance(e, Load)]
    assert len(loads) == 2


def damaged() -> dict[str, Any]:
    good: dict[str, Any] = task_to_json(small_task())
    return {
        "empty": {}, "no object": [], "missing": {k: v for k, v in good.items() if k != "exprs"},
        "unknown operation": {**good, "exprs": [["call", "float32", "system", []]]},
        "unknown kind": {**good, "exprs": [["import", "float32", "os"]]},
        "later expression": {**good, "exprs": [["cast", "float32", 5]]},
        "unknown dtype": {**good, "axes": good["axes"], "buffers": [["x", "object", [8], [1], "param"]]},
        "unknown scope": {**good, "buffers": [["x", "float32", [8], [1], "kernel"]]},
    }


@pytest.mark.parametrize("name", damaged())
def test_what_is_no_task_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="this is no task"):
        task_from_json(damaged()[name])
