"""Tasks as JSON, so that another process or machine can compile and measure them.

What holds here: what is read back computes the same and has the same text as what was written; shared expressions stay
shared. Data that is no task raises `ValueError`: nothing of it is ever executed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import (
    COMBINERS,
    SCALAR_OPS,
    Affine,
    Axis,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    Index,
    Load,
    Position,
    Reduced,
    Stage,
    Task,
    walk,
)

_SCOPES = ("param", "result", "temp", "local")
_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}     # JSON has no numbers for these


def task_to_json(task: Task) -> dict[str, Any]:
    """The task without its hints, as JSON values."""
    tables = _Writer()
    stages = [tables.stage(stage) for stage in task.stages]
    return {"name": task.name, "shared": task.shared, "axes": tables.axes, "buffers": tables.buffers,
            "exprs": tables.exprs, "stages": stages}


def task_from_json(data: Mapping[str, Any]) -> Task:
    """The task that was written. Raises `ValueError` for anything else."""
    try:
        tables = _Reader(data)
        return Task(str(data["name"]), tuple(tables.stage(row) for row in data["stages"]), int(data["shared"]))
    except (KeyError, TypeError, IndexError, AttributeError, AssertionError) as error:
        raise ValueError(f"this is no task: {type(error).__name__}: {error}") from error


class _Writer:
    """Axes, buffers and expressions as rows of tables; rows name each other by number."""

    def __init__(self) -> None:
        self.axes: list[list[Any]] = []
        self.buffers: list[list[Any]] = []
        self.exprs: list[list[Any]] = []
        self._axis: dict[Axis, int] = {}
        self._buffer: dict[Buffer, int] = {}
        self._expr: dict[int, int] = {}

    def stage(self, stage: Stage) -> dict[str, Any]:
        return {"name": stage.name, "out": self.buffer(stage.out), "index": [self.affine(i) for i in stage.index],
                "axes": [self.axis(a) for a in stage.axes], "value": self.expr(stage.value),
                "reduce": [self.axis(a) for a in stage.reduce], "combine": stage.combine,
                "finish": self.expr(stage.finish) if stage.finish is not None else None, "scan": stage.scan}

    def axis(self, axis: Axis) -> int:
        if axis not in self._axis:
            self._axis[axis] = len(self.axes)
            self.axes.append([axis.name, axis.extent, axis.reduce])
        return self._axis[axis]

    def buffer(self, b: Buffer) -> int:
        if b not in self._buffer:
            self._buffer[b] = len(self.buffers)
            self.buffers.append([b.name, b.dtype, list(b.shape), list(b.strides), b.scope])
        return self._buffer[b]

    def affine(self, index: Affine) -> list[Any]:
        return [index.constant, *([self.axis(axis), factor] for axis, factor in index.terms)]

    def expr(self, root: Expr) -> int:
        for expr in walk(root):
            if id(expr) not in self._expr:
                row = self._row(expr)
                self._expr[id(expr)] = len(self.exprs)
                self.exprs.append(row)
        return self._expr[id(root)]

    def _row(self, expr: Expr) -> list[Any]:
        match expr:
            case Const(value=value):
                plain = isinstance(value, int) or math.isfinite(value)
                return ["const", expr.dtype, value if plain else str(float(value))]
            case Position(index=index):
                return ["position", expr.dtype, self.affine(index)]
            case Load(buffer=buffer, index=places):
                found = [self.affine(i) if isinstance(i, Affine) else self._expr[id(i)] for i in places]
                return ["load", expr.dtype, self.buffer(buffer), found]
            case Call(op=op, args=args):
                return ["call", expr.dtype, op, [self._expr[id(a)] for a in args]]
            case Cast(arg=arg):
                return ["cast", expr.dtype, self._expr[id(arg)]]
            case Reduced():
                return ["reduced", expr.dtype]
        raise TypeError(f"not an expression: {expr!r}")


class _Reader:
    def __init__(self, data: Mapping[str, Any]) -> None:
        self.axes = [Axis(str(name), int(extent), bool(reduce)) for name, extent, reduce in data["axes"]]
        self.buffers = [Buffer(str(name), _dtype(dtype), tuple(map(int, shape)), tuple(map(int, strides)),
                               _known(scope, _SCOPES)) for name, dtype, shape, strides, scope in data["buffers"]]
        self.exprs: list[Expr] = []
        for row in data["exprs"]:
            self.exprs.append(self._expr(*row))

    def stage(self, row: Mapping[str, Any]) -> Stage:
        finish = row["finish"]
        combine = None if row["combine"] is None else _known(row["combine"], COMBINERS)
        return Stage(str(row["name"]), self.buffers[row["out"]], tuple(map(self.affine, row["index"])),
                     tuple(self.axes[n] for n in row["axes"]), self.exprs[row["value"]],
                     tuple(self.axes[n] for n in row["reduce"]), combine,
                     None if finish is None else self.exprs[finish], bool(row["scan"]))

    def affine(self, row: Sequence[Any]) -> Affine:
        constant, *terms = row
        return sum((Affine.of(self.axes[axis], int(factor)) for axis, factor in terms), Affine((), int(constant)))

    def _expr(self, kind: str, dtype: str, *rest: Any) -> Expr:
        dtype = _dtype(dtype)
        match kind, rest:
            case "const", (value,):
                return Const(dtype, _FLOATS[value] if isinstance(value, str) else value)
            case "position", (index,):
                return Position(dtype, self.affine(index))
            case "load", (buffer, places):
                found: list[Index] = [self.exprs[i] if isinstance(i, int) else self.affine(i) for i in places]
                return Load(dtype, self.buffers[buffer], tuple(found))
            case "call", (op, args):
                return Call(dtype, _known(op, SCALAR_OPS), tuple(self.exprs[n] for n in args))
            case "cast", (arg,):
                return Cast(dtype, self.exprs[arg])
            case "reduced", ():
                return Reduced(dtype)
        raise ValueError(f"this is no task: an expression of kind {kind!r}")


def _dtype(name: Any) -> str:
    return str(_known(name, BYTES))


def _known(name: Any, known: Any) -> Any:
    if name not in known:
        raise ValueError(f"this is no task: {name!r} is not known")
    return name
