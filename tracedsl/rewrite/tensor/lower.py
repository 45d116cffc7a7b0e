"""Lowering: a graph of the tensor dialect becomes a program of tasks.

What holds here:
- Every root (see `roots`) gets one buffer and one stage (two if it is complex, one for each part of a concatenation).
  `fuse` then puts stages into tasks. A stage reads only what earlier stages wrote.
- Results are row-major. Parameters have the strides that the caller states. Constant arrays become further parameters,
  whose values are in `TaskProgram.constants`.
- A reshape that no index map can express puts its source in memory: lowering starts again with that wish.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracedsl.diagnostics import Unsupported
from tracedsl.ir.dtypes import REAL_OF
from tracedsl.ir.expr import (
    Affine,
    Axis,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Reduced,
    Stage,
    Task,
    address,
    neutral,
    rebuild,
    task_text,
    walk,
)
from tracedsl.ir.graph import CONSTANT, PARAM, Graph, Node
from tracedsl.ir.tensor import OPS, row_major
from tracedsl.rewrite.tensor.blocks import tasks_of
from tracedsl.rewrite.tensor.elements import (
    Elements,
    NeedsBuffer,
    combiner_for,
    dtype_of,
    shape_of,
    summed_axes,
)
from tracedsl.rewrite.tensor.fuse import Apart, Hints, nothing_apart
from tracedsl.rewrite.tensor.index import common_refinement, flat_position, seen_as, unflatten
from tracedsl.rewrite.tensor.roots import Roots, choose_roots
from tracedsl.rewrite.tensor.split_complex import Pair, Value, complex_op, split_complex


@dataclass(frozen=True, eq=False)
class TaskProgram:
    """A kernel as tasks in order. The last `len(constants)` of `params` are the constant arrays, in order."""

    name: str
    params: tuple[Buffer, ...]
    results: tuple[Buffer, ...]
    temps: tuple[Buffer, ...]
    tasks: tuple[Task, ...]
    constants: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return "\n\n".join(map(task_text, self.tasks))


Strides = Mapping[str, Sequence[int]]
Rework = Callable[[Sequence[Stage]], list[Stage]]


def lower(graph: Graph, strides: Strides | None = None, apart: Apart = nothing_apart,
          rework: Rework = list) -> TaskProgram:
    """Turn a graph into fused tasks. `strides`: parameter -> element strides, row-major where nothing is said (an
    attribute `strides` of the parameter counts as well). `apart`: which stages get a task of their own;
    `rework`: what a target makes of the stages before they are put into tasks. Raises `Unsupported` for what no loop
    nest can express."""
    wanted: set[Node] = set()
    while True:
        lowering = _Lowering(graph, choose_roots(graph, wanted), dict(strides or {}), apart, rework)
        try:
            return lowering.run()
        except NeedsBuffer as need:
            if need.node in wanted:
                raise Unsupported("S011", f"{need.node.op.name} cannot be lowered", span=need.node.span) from need
            wanted.add(need.node)


class _Lowering:
    """One attempt, for one choice of roots."""

    def __init__(self, graph: Graph, roots: Roots, strides: dict[str, Sequence[int]], apart: Apart,
                 rework: Rework) -> None:
        self.apart, self.rework = apart, rework
        self.graph, self.roots, self.users = graph, roots, graph.users()
        self.names: set[str] = set()
        self.params = {node: self._param(node, strides) for node in graph.params}
        arrays = [n for n in graph.nodes if n.op is CONSTANT and math.prod(shape_of(n)) != 1]
        self.constants = {n: Buffer.row_major(self._name("c", at), dtype_of(n), shape_of(n), "param")
                          for at, n in enumerate(arrays)}
        self.buffers: dict[Node, Buffer] = {**self.params, **self.constants}
        self.offsets: dict[Node, tuple[int, ...]] = {}
        self.stages: list[Stage] = []
        self.hints: dict[str, Hints] = {}

    def run(self) -> TaskProgram:
        results = self._results()
        parts = [n for n in reversed(self.roots.nodes) if n not in results and self._write_into_concat(n)]
        for node in self.roots.nodes:
            if node not in results and node not in parts and node.op is not PARAM:
                self.buffers.setdefault(node, self._buffer("t", node, "temp"))
        for node in parts:
            self.buffers[node] = self.buffers[self.users[node][0]]
        for node in self.roots.nodes:
            self._root(node)
        self._copies(results)
        outs = tuple(split_complex(b) for b in self.outs)
        stages = self.rework(self.stages)
        tasks = tasks_of(self.graph.name, stages, self.hints, self.apart)
        written = {stage.out.name: stage.out for task in tasks for stage in task.stages}
        temps = {b.name: b for task in tasks for b in task.buffers() if b.scope == "temp"}
        temps = {name: self._owner(name, written.get(name, b)) for name, b in temps.items()}
        params = tuple(map(split_complex, (*self.params.values(), *self.constants.values())))
        values = tuple(n.attr("value").value for n in self.constants)
        return TaskProgram(self.graph.name, params, outs, tuple(temps.values()), tasks, values)

    # -- buffers --

    def _name(self, stem: str, number: int) -> str:
        name = f"{stem}{number}"
        while name in self.names:
            number += 1
            name = f"{stem}{number}"
        self.names.add(name)
        return name

    def _param(self, node: Node, strides: dict[str, Sequence[int]]) -> Buffer:
        name, shape = node.attr("name"), shape_of(node)
        self.names.add(name)
        given = strides.get(name, node.attrs.get("strides")) or row_major(shape)
        return Buffer(name, dtype_of(node), shape, tuple(given), "param")

    def _buffer(self, stem: str, node: Node, scope: Any) -> Buffer:
        return Buffer.row_major(self._name(stem, 0), dtype_of(node), shape_of(node), scope)

    def _owner(self, name: str, written: Buffer) -> Buffer:
        """The buffer as it was first made, not as some stage sees it."""
        made = next((b for b in self.buffers.values() if b.name == name), written)
        return split_complex(made if made.dtype == written.dtype or made.dtype in REAL_OF else written)

    def _results(self) -> set[Node]:
        """Name the results' buffers; a node that is returned twice, or a parameter, is copied at the end."""
        self.outs: list[Buffer] = []
        self.copied: list[tuple[Node, Buffer]] = []
        own: set[Node] = set()
        for number, node in enumerate(self.graph.results):
            stem = "out" if len(self.graph.results) == 1 else f"out{number}"
            while stem in self.names:
                stem += "_"
            self.names.add(stem)
            buffer = Buffer.row_major(stem, dtype_of(node), shape_of(node), "result")
            self.outs.append(buffer)
            if node in own or node.op is PARAM or node.op is CONSTANT:
                self.copied.append((node, buffer))
            else:
                own.add(node)
                self.buffers[node] = buffer
        return own

    def _write_into_concat(self, node: Node) -> bool:
        """A reduction, or a concatenation, that only feeds a concatenation writes its part of it directly."""
        users = self.users[node]
        whole = node in self.roots.absorbs or node.op is OPS["concat"]
        if not whole or len(users) != 1 or users[0].op is not OPS["concat"]:
            return False
        concat = users[0]
        if sum(source is node for source in concat.inputs) != 1 or dtype_of(node) in REAL_OF:
            return False
        axis = concat.attr("axis")
        start = sum(shape_of(s)[axis] for s in concat.inputs[:concat.inputs.index(node)])
        outer = self.offsets.get(concat, (0,) * len(shape_of(node)))
        self.offsets[node] = tuple(at + (start if d == axis else 0) for d, at in enumerate(outer))
        return True

    # -- stages --

    def _root(self, node: Node) -> None:
        if node.op is PARAM:
            copy = self._buffer("t", node, "temp")
            self._stage(node, copy, Elements(self.buffers), None)
            self.buffers[node] = copy
        elif node.op is OPS["concat"]:
            self._concat(node)
        elif node.op is OPS["scan"]:
            self._scan(node)
        elif node in self.offsets:
            elements = Elements(self.buffers, node, self.roots.absorbs.get(node))
            self._stage(node, self.buffers[node], elements, self.offsets[node])
        else:
            self._stage(node, self.buffers[node], Elements(self.buffers, node, self.roots.absorbs.get(node)), None)

    def _concat(self, node: Node) -> None:
        axis, start = node.attr("axis"), 0
        base = self.offsets.get(node, (0,) * len(shape_of(node)))
        for source in node.inputs:
            if source not in self.offsets:
                offset = tuple(at + (start if d == axis else 0) for d, at in enumerate(base))
                self._stage(source, self.buffers[node], Elements(self.buffers), offset)
            start += shape_of(source)[axis]

    def _scan(self, node: Node) -> None:
        if 0 in shape_of(node):
            return
        out, along = self.buffers[node], node.attr("axis")
        name = self._stage_name(out.name)
        steps = Axis(f"{name}.r0", shape_of(node)[along], True)
        places = [steps if d == along else Axis(f"{name}.{d}", n) for d, n in enumerate(shape_of(node))]
        index = tuple(_along(axis) for axis in places)
        value = Elements(self.buffers).element(node.inputs[0], index)
        axes = tuple(axis for axis in places if axis is not steps and axis.extent != 1)
        combine = combiner_for(node.attr("kind"), dtype_of(node))
        self._append(name, out, index, axes, value, (steps,) if steps.extent != 1 else (), combine, None, scan=True)

    def _copies(self, own: Iterable[Node]) -> None:
        for node, buffer in self.copied:
            self._stage(node, buffer, Elements(self.buffers), None)

    def _stage(self, node: Node, out: Buffer, elements: Elements, offset: tuple[int, ...] | None) -> None:
        """Write all elements of `node` to `out`; tries finer axes where a reshape asks for them."""
        if 0 in shape_of(node):
            return None
        shape = shape_of(node)
        for _ in range(3):
            try:
                return self._stage_over(shape, node, out, elements, offset)
            except NeedsBuffer as need:
                finer = common_refinement(shape, need.shape) if need.shape is not None and offset is None else None
                if finer is None or finer == shape or node.op is PARAM:
                    raise
                shape = finer
                elements = Elements(elements.buffers, elements.root, elements.absorbed)
        raise NeedsBuffer(node.inputs[0])

    def _stage_over(self, shape: tuple[int, ...], node: Node, out: Buffer, elements: Elements,
                    offset: tuple[int, ...] | None) -> None:
        name = self._stage_name(out.name)
        axes = tuple(Axis(f"{name}.{d}", extent) for d, extent in enumerate(shape) if extent != 1)
        mine = iter(axes)
        index = tuple(Affine.of(next(mine)) if extent != 1 else Affine() for extent in shape)
        if shape != shape_of(node):
            out = seen_as(out, shape)
        made = elements.element(node, _places(index, shape, node))
        reduce: tuple[Axis, ...] = ()
        combine, value, finish = None, made, None
        if elements.absorbed is not None:
            value, reduce, combine = _reduction(elements.absorbed, elements, name)
            finish = None if isinstance(made, Reduced | Pair) else made
        shift = offset or (0,) * len(index)
        target = tuple(entry + by for entry, by in zip(index, shift))
        self._append(name, out, target, axes, value, reduce, combine, finish)
        calls = tuple(call for hint in elements.hints for call in hint.attrs.get("steps", ()))
        if calls:
            self.hints[name] = calls

    def _append(self, name: str, out: Buffer, index: tuple[Affine, ...], axes: tuple[Axis, ...], value: Value,
                reduce: tuple[Axis, ...], combine: str | None, finish: Value | None, *, scan: bool = False) -> None:
        if isinstance(value, Pair):
            split = split_complex(out)
            for part, half in enumerate((value.re, value.im)):
                place = (*index, Affine((), part))
                stage = Stage(f"{name}.{'ri'[part]}", split, place, axes, half, reduce, combine, scan=scan)
                self.stages.append(_plain_if_empty(stage))
            return
        assert isinstance(finish, Expr | None)
        self.stages.append(_plain_if_empty(Stage(name, out, index, axes, value, reduce, combine, finish, scan)))

    def _stage_name(self, stem: str) -> str:
        taken = {stage.name.removesuffix(".r").removesuffix(".i") for stage in self.stages}
        number, name = 0, stem
        while name in taken:
            number += 1
            name = f"{stem}.{number}"
        return name


def _places(index: tuple[Affine, ...], shape: tuple[int, ...], node: Node) -> tuple[Affine, ...]:
    """The index of a node's element for axes that run over `shape`, a finer one than the node's own."""
    if shape == shape_of(node):
        return index
    flat = flat_position(index, row_major(shape), shape)
    places = unflatten(flat, shape_of(node)) if flat is not None else None
    if places is None:
        raise NeedsBuffer(node)
    return places


def _plain_if_empty(stage: Stage) -> Stage:
    """A reduction over nothing, or over axes of extent 1 only, is no reduction."""
    count = math.prod(axis.extent for axis in stage.reduce)
    if stage.combine is None or (count and stage.reduce):
        return stage
    if count == 0 and stage.combine not in ("add", "or", "mul", "and", "xor"):
        raise Unsupported("S011", f"{stage.combine} over no elements has no value")
    empty = Const(stage.value.dtype, neutral(stage.combine, stage.value.dtype))
    value = stage.value if count else empty
    if stage.finish is not None:
        value = _finish(stage.finish, value)
    return Stage(stage.name, stage.out, stage.index, stage.axes, value)


def _finish(finish: Expr, value: Expr) -> Expr:
    return rebuild([finish], lambda e: value if isinstance(e, Reduced) else e)[0]


def _reduction(node: Node, elements: Elements, name: str) -> tuple[Value, tuple[Axis, ...], str]:
    """What a reduction combines, over which axes, and how."""
    at = elements.reduced_at
    assert at is not None
    value: Value
    if node.op is OPS["reduce"]:
        source, kept = node.inputs[0], iter(at)
        axes = tuple(Axis(f"{name}.r{d}", shape_of(source)[d], True) for d in node.attr("axes"))
        over = dict(zip(node.attr("axes"), axes))
        index = [_along(over[d]) if d in over else next(kept) for d in range(len(shape_of(source)))]
        value, kind = elements.element(source, index), node.attr("kind")
    elif node.op is OPS["contract"]:
        axes, letters = summed_axes(node, f"{name}.r")
        sources, result = node.attr("spec").split("->")
        spots = {**dict(zip(result, at)), **{letter: _along(axis) for letter, axis in zip(letters, axes)}}
        operands = [elements.element(source, [spots[letter] for letter in part])
                    for part, source in zip(sources.split(","), node.inputs)]
        value, kind = _product(operands, node), "add"
    else:
        body = node.attr("body")
        axes = tuple(Axis(f"{name}.r{n}", axis.extent, True) for n, axis in enumerate(body.reduce))
        places = dict(zip((*body.axes, *body.reduce), (*at, *map(_along, axes))))
        if not all(isinstance(p, Affine) for p in places.values()):
            raise NeedsBuffer(node)
        value, kind = elements.body_value(body, node.inputs, body.at(places)), body.combine
    dtype = dtype_of(node)
    if isinstance(value, Pair) and kind != "add":
        raise Unsupported("S012", f"a reduction of complex numbers by {kind} is not compiled", span=node.span)
    if isinstance(value, Expr) and dtype == "float16":
        value = Cast("float32", value)
    return value, _by_stride(value, tuple(a for a in axes if a.extent != 1)), combiner_for(kind, dtype)


def _by_stride(value: Value, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Reduce axes from the longest steps through memory to the shortest, whatever order they were written in."""
    parts = (value.re, value.im) if isinstance(value, Pair) else (value,)
    places = [address(e.index, e.buffer) for e in walk(*parts) if isinstance(e, Load)]
    steps = {axis: sum(abs(place.coefficient(axis)) for place in places if place is not None) for axis in axes}
    return tuple(sorted(axes, key=lambda axis: -steps[axis]))


def _along(axis: Axis) -> Affine:
    return Affine() if axis.extent == 1 else Affine.of(axis)


def _product(operands: Sequence[Value], node: Node) -> Value:
    if any(isinstance(operand, Pair) for operand in operands):
        return complex_op("mul", operands, node.span)
    plain = tuple(o for o in operands if isinstance(o, Expr))
    if dtype_of(node) == "float16":
        return Call("float32", "mul", tuple(Cast("float32", o) for o in plain))
    return Call(dtype_of(node), "and" if dtype_of(node) == "bool" else "mul", plain)
