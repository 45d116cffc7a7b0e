"""Loop nests: what a scheduled task does, step by step. Every code generator starts from here.

What holds here:
- A `Nest` is one launch: the `parallel` loops, if any, are outermost and first, so that the runtime can split them.
- Loop variables are `Axis` objects of their own (the leaves that the schedule made); positions are affine in them.
- A serial loop may end early (`until`), but runs at least one step; `When` is the only other condition. Both look at
  positions alone.
- A loop over a `vector` axis holds no other loop over a vector axis; its extent is the number of lanes, any number.
- A `tensor` loop is a serial one that the target may do in one instruction, together with the vector loop around it
  (`intrinsics`). It means the same if the target does not.
- Register buffers are indexed by unrolled and vector axes and constants alone: a generator keeps each element (each
  vector of elements) in one value, never in memory.
- `Update` whose target does not depend on a vector axis around it combines the lanes (a horizontal reduction).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal as OneOf

from tracedsl.ir.expr import Affine, Axis, Buffer, Expr, text

Kind = OneOf["serial", "parallel", "vector", "unroll", "tensor"]


@dataclass(frozen=True, eq=False)
class Stmt:
    """A step of a nest. A target that does a task in its own way makes a nest of one statement of its own, whose text
    tells what it is."""


@dataclass(frozen=True, eq=False)
class For(Stmt):
    """`body` for each step of `axis`. A serial loop with `until` stops there if that is sooner: it runs
    min(axis.extent, until) steps, of which there is at least one."""

    axis: Axis
    kind: Kind
    body: tuple[Stmt, ...]
    until: Affine | None = None


@dataclass(frozen=True, eq=False)
class When(Stmt):
    """`body` where `position` is not negative. Registers that it writes exist in it alone, or were set before it."""

    position: Affine
    body: tuple[Stmt, ...]


@dataclass(frozen=True, eq=False)
class Store(Stmt):
    """buffer[index] = value; the dtypes are the same."""

    buffer: Buffer
    index: tuple[Affine, ...]
    value: Expr


@dataclass(frozen=True, eq=False)
class Update(Stmt):
    """buffer[index] = combine(buffer[index], value), for a buffer in registers."""

    buffer: Buffer
    index: tuple[Affine, ...]
    combine: str
    value: Expr


@dataclass(frozen=True, eq=False)
class Alloc(Stmt):
    """A local or register buffer that exists for `body`; its content starts undefined."""

    buffer: Buffer
    body: tuple[Stmt, ...]


@dataclass(frozen=True, eq=False)
class Nest:
    """One launch. `params` are the buffers it is given, in order. `flops` and `bytes` are estimates for one launch."""

    name: str
    params: tuple[Buffer, ...]
    body: tuple[Stmt, ...]
    flops: int = 0
    bytes: int = 0


@dataclass(frozen=True, eq=False)
class LoopProgram:
    """A whole kernel: the nests run one after the other. `temps` live in one workspace of `workspace` bytes, at
    `offsets` (bytes, a multiple of 64 each); buffers whose lives do not overlap may share bytes."""

    name: str
    params: tuple[Buffer, ...]
    results: tuple[Buffer, ...]
    temps: tuple[Buffer, ...]
    nests: tuple[Nest, ...]
    offsets: tuple[int, ...] = ()
    workspace: int = 0

    def __str__(self) -> str:
        return "\n\n".join(nest_text(nest) for nest in self.nests)


def statements(*body: Stmt) -> Iterator[Stmt]:
    """All statements, outer before inner."""
    for step in body:
        yield step
        if isinstance(step, For | Alloc | When):
            yield from statements(*step.body)


def nest_text(nest: Nest) -> str:
    """The nest as it stands in a listing and in golden files."""
    params = ", ".join(f"{'out ' if b.scope == 'result' else ''}{b}" for b in nest.params)
    return "\n".join([f"nest {nest.name}({params})", *_lines(nest.body, "  ")])


def _lines(body: tuple[Stmt, ...], indent: str) -> Iterator[str]:
    for step in body:
        match step:
            case For():
                word = "for" if step.kind == "serial" else f"{step.kind} for"
                until = f" until {step.until}" if step.until is not None else ""
                yield from _block(f"{indent}{word} {step.axis}{until}:", step.body, indent)
            case When():
                yield from _block(f"{indent}when {step.position} >= 0:", step.body, indent)
            case Alloc():
                yield f"{indent}{step.buffer.scope} {step.buffer}"
                yield from _lines(step.body, indent)
            case Store():
                yield f"{indent}{_target(step)} = {text(step.value)}"
            case Update():
                yield f"{indent}{_target(step)} = {step.combine}({_target(step)}, {text(step.value)})"
            case _:
                yield f"{indent}{step}"


def _block(head: str, body: tuple[Stmt, ...], indent: str) -> Iterator[str]:
    inner = list(_lines(body, indent + "  "))
    if len(body) == 1 and len(inner) == 1:
        yield f"{head} {inner[0].strip()}"
    else:
        yield head
        yield from inner


def _target(step: Store | Update) -> str:
    return f"{step.buffer.name}[{', '.join(map(str, step.index))}]"
