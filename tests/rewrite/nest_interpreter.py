"""A slow and plain interpreter of loop nests: what lowering and schedules are checked with, without any code generator.

What holds here: every loop runs one step after the other, whatever its kind; memory is one flat NumPy array a buffer
name; an address outside of it, a read of an element that nobody wrote, and a broken rule of `ir/loops.py` are errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tracedsl.ir.expr import Affine, Axis, Buffer, Call, Cast, Const, Expr, Load, Position, children, walk
from tracedsl.ir.loops import Alloc, For, Nest, Stmt, Store, Update, When, statements
from tracedsl.ir.tensor import numpy_function


class Memory:
    """Flat elements of one buffer, and which of them hold a value."""

    def __init__(self, flat: np.ndarray[Any, Any], written: bool) -> None:
        self.flat = flat
        self.written = np.full(flat.shape, written)

    @staticmethod
    def fresh(buffer: Buffer) -> Memory:
        return Memory(np.zeros(buffer.length, buffer.dtype), False)


def run_nest(nest: Nest, memory: dict[str, Memory]) -> None:
    """Execute a nest on the memory of its parameters."""
    check_rules(nest.body)
    _steps(nest.body, memory, {})


def run_program(program: Any, nests: Sequence[Nest], arguments: Sequence[np.ndarray[Any, Any]]) -> list[Any]:
    """Execute all nests of a `TaskProgram`; gives the results as arrays."""
    memory: dict[str, Memory] = {}
    for buffer, value in zip(program.params, (*arguments, *program.constants), strict=True):
        memory[buffer.name] = _filled(buffer, np.asarray(value))
    for buffer in (*program.results, *program.temps):
        memory[buffer.name] = Memory.fresh(buffer)
    for nest in nests:
        run_nest(nest, memory)
    return [_read(buffer, memory[buffer.name]) for buffer in program.results]


def _filled(buffer: Buffer, value: np.ndarray[Any, Any]) -> Memory:
    if value.dtype.kind == "c":
        value = np.stack([value.real, value.imag], axis=-1)
    made = Memory.fresh(buffer)
    view = np.lib.stride_tricks.as_strided(made.flat, buffer.shape, [s * made.flat.itemsize for s in buffer.strides])
    view[...] = value
    made.written[...] = True
    return made


def _read(buffer: Buffer, memory: Memory) -> np.ndarray[Any, Any]:
    assert memory.written.all(), f"{buffer} was not written completely"
    return memory.flat.reshape(buffer.shape)


def _steps(body: Sequence[Stmt], memory: dict[str, Memory], at: Mapping[str, int]) -> None:
    for step in body:
        match step:
            case For(axis=axis):
                steps = axis.extent if step.until is None else min(axis.extent, _position(step.until, at))
                assert steps >= 1, f"the loop over {axis} does not run at all"
                for n in range(steps):
                    _steps(step.body, memory, {**at, axis.name: n})
            case When(position=position):
                if _position(position, at) >= 0:
                    _steps(step.body, memory, at)
            case Alloc(buffer=buffer):
                _steps(step.body, {**memory, buffer.name: Memory.fresh(buffer)}, at)
            case Store():
                target, place = memory[step.buffer.name], _address(step.buffer, step.index, at, memory)
                value = evaluate(step.value, memory, at)
                assert value.dtype == step.buffer.dtype == target.flat.dtype, (value.dtype, step.buffer)
                target.flat[place], target.written[place] = value, True
            case Update():
                target, place = memory[step.buffer.name], _address(step.buffer, step.index, at, memory)
                assert target.written[place], f"{step.buffer} is updated before it is set"
                value = evaluate(step.value, memory, at)
                assert value.dtype == target.flat.dtype, (value.dtype, step.buffer)
                target.flat[place] = numpy_function(step.combine)(target.flat[place], value)


def _position(index: Affine, at: Mapping[str, int]) -> int:
    return index.constant + sum(factor * at[axis.name] for axis, factor in index.terms)


def _address(buffer: Buffer, index: Sequence[Any], at: Mapping[str, int], memory: dict[str, Memory],
             found: Mapping[int, Any] | None = None) -> int:
    spots = [_position(i, at) if isinstance(i, Affine) else int((found or {})[id(i)]) for i in index]
    for spot, extent in zip(spots, buffer.shape, strict=True):
        assert 0 <= spot < extent, f"{buffer} at {spots}"
    place = sum(spot * stride for spot, stride in zip(spots, buffer.strides, strict=True))
    assert 0 <= place < len(memory[buffer.name].flat), f"{buffer} at {place}"
    return place


def evaluate(root: Expr, memory: dict[str, Memory], at: Mapping[str, int]) -> Any:
    """The value of an expression, as a NumPy scalar."""
    found: dict[int, Any] = {}
    with np.errstate(all="ignore"):
        for expr in _chosen(root, found):
            match expr:
                case Const(value=value):
                    found[id(expr)] = np.asarray(value).astype(expr.dtype)[()]
                case Position(index=index):
                    found[id(expr)] = np.int64(_position(index, at))
                case Load(buffer=buffer, index=index):
                    place = _address(buffer, index, at, memory, found)
                    assert memory[buffer.name].written[place], f"{buffer} is read at {place} before it is written"
                    found[id(expr)] = memory[buffer.name].flat[place]
                case Cast(arg=arg):
                    found[id(expr)] = found[id(arg)].astype(expr.dtype)
                case Call(op="select", args=(condition, then, otherwise)):
                    found[id(expr)] = found[id(then if found[id(condition)] else otherwise)]
                case Call(op=op, args=args):
                    found[id(expr)] = np.asarray(numpy_function(op)(*(found[id(a)] for a in args)))[()]
                case _:
                    raise AssertionError(f"{expr} in a nest")
            assert found[id(expr)].dtype == expr.dtype, (expr, found[id(expr)].dtype)
    return found[id(root)]


def _chosen(root: Expr, found: dict[int, Any]) -> Iterator[Expr]:
    """What has to be computed for `root`, operands first: of a selection, only the branch that is chosen."""
    if id(root) in found:
        return
    if isinstance(root, Call) and root.op == "select":
        condition, then, otherwise = root.args
        yield from _chosen(condition, found)
        yield from _chosen(then if found[id(condition)] else otherwise, found)
    else:
        for child in children(root):
            yield from _chosen(child, found)
    yield root


def check_rules(body: Sequence[Stmt]) -> None:
    """The rules of `ir/loops.py`: parallel outside, no vector in a vector, registers indexed by unrolled and vector
    axes."""

    def visit(steps: Sequence[Stmt], kinds: Mapping[Axis, str], outer: tuple[str, ...]) -> None:
        for step in steps:
            match step:
                case When():
                    visit(step.body, kinds, (*outer, "when"))
                case For():
                    assert step.until is None or step.kind == "serial", "only serial loops end early"
                    assert step.kind != "parallel" or set(outer) <= {"parallel"}, "a parallel loop inside another one"
                    assert step.kind != "vector" or "vector" not in outer, "a vector loop in a vector loop"
                    assert step.axis.extent >= 1, step.axis
                    assert not any(axis.name == step.axis.name for axis in kinds), f"{step.axis} twice"
                    visit(step.body, {**kinds, step.axis: step.kind}, (*outer, step.kind))
                case Alloc():
                    visit(step.body, kinds, (*outer, "alloc"))
                case Store() | Update():
                    _check_registers(step, kinds)

    visit(body, {}, ())
    assert all(isinstance(s, Update) <= (s.buffer.scope == "register") for s in statements(*body)
               if isinstance(s, Update | Store))


def _check_registers(step: Store | Update, kinds: Mapping[Axis, str]) -> None:
    used = [(step.buffer, step.index)]
    used += [(e.buffer, e.index) for e in walk(step.value) if isinstance(e, Load)]
    for buffer, index in used:
        for entry in index if buffer.scope == "register" else ():
            assert isinstance(entry, Affine)
            assert all(kinds[axis] in ("vector", "unroll") for axis in entry.axes()), f"{buffer} by {entry}"
