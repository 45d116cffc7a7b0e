"""Phases as one instruction stream: the order in which instructions are dealt out, and the tokens between the units.

What holds here: in the stream's own order every token is given before it is taken, so that no program deadlocks; what a
phase loads is dealt out while earlier phases compute, at the pace at which it can be done, so that no queue fills up
before a unit that has work. (Latency hiding by virtual threads: Chen et al., TVM, 2018, section 4.4. Here the threads'
instructions are interleaved by the cycle at which they are due, not loop by loop.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tracedsl.hw.fpga.compile.emit import Phase
from tracedsl.hw.fpga.compile.loops import BETWEEN
from tracedsl.hw.fpga.isa import Alu, Gemm, Instruction, Load, Op, Store, Walk

Due = tuple[float, int, Instruction]


def stream(phases: Sequence[Phase], threads: int) -> list[Instruction]:
    """The instructions of a task, with tokens."""
    _set_tokens(phases, threads)
    due: list[Due] = []
    begins = [0]
    for phase in phases:
        begins.append(begins[-1] + sum(map(_cycles, phase.computes)) + 1)
    ends = {phase.tile: end for phase, end in zip(phases, begins[1:])}
    for number, phase in enumerate(phases):
        free = begins[max(number - threads + 1, 0)] if number else -1
        due += _spread(phase.loads, free, begins[number] if threads > 1 else free, 0)
        at = begins[number]
        for compute in phase.computes:
            due.append((at, 1, compute))
            at += _cycles(compute)
        if phase.stores:
            ready, again = begins[number + 1], ends.get(phase.tile + threads - 1, begins[-1])
            due += _spread(phase.stores, ready, again if threads > 1 else ready, -1)
    return [instruction for _, _, instruction in sorted(due, key=lambda entry: entry[:2])]


def _spread(items: Sequence[Instruction], first: float, last: float, rank: int) -> Iterator[Due]:
    """Items over the cycles from `first` to `last`, in the first half, so that they are not late."""
    step = max(last - first, 0) / 2 / max(len(items), 1)
    for number, item in enumerate(items):
        yield first + number * step, rank, item


def _cycles(compute: Gemm | Alu) -> int:
    return compute.steps * compute.interval + BETWEEN


def _set_tokens(phases: Sequence[Phase], threads: int) -> None:
    """Loads wait until the phase that had their slot is done, sums until their operands are there; the first sum of a
    tile until the tile that had its slot of `acc` is stored, its store until the last sum is done."""
    loading = [phase for phase in phases if phase.loads]
    for number, phase in enumerate(loading):
        if number >= threads:
            _mark(phase.loads, 0, pop_next=True)
        _mark(phase.loads, -1, push_next=True)
        _mark(phase.computes, 0, pop_prev=True)
        if number + threads < len(loading):
            _mark(phase.computes, -1, push_prev=True)
    storing = [phase for phase in phases if phase.stores]
    firsts = {phase.tile: phase for phase in reversed(phases)}
    for number, phase in enumerate(storing):
        if number >= threads:
            _mark(firsts[phase.tile].computes, 0, pop_next=True)
        _mark(phase.computes, -1, push_next=True)
        _mark(phase.stores, 0, pop_prev=True)
        if number + threads < len(storing):
            _mark(phase.stores, -1, push_prev=True)


def _mark(items: list[Any], at: int, **flags: bool) -> None:
    items[at] = replace(items[at], **flags)


def barrier() -> Alu:
    """Between tasks: the loads that follow wait for the stores before. It changes nothing in acc."""
    return Alu(op=Op.ADD, imm=0, counts=(1, 1, 1), acc=Walk(), pop_next=True, push_prev=True)


def joined(tasks: Sequence[Sequence[Instruction]]) -> list[Instruction]:
    """The streams of tasks one after the other, each of which may read what those before it wrote."""
    found: list[Instruction] = []
    for number, task in enumerate(tasks):
        part = list(task)
        if number:
            found.append(barrier())
            first = next(n for n, i in enumerate(part) if isinstance(i, Load))
            _mark(part, first, pop_next=True)
        if number < len(tasks) - 1:
            last = max(n for n, i in enumerate(part) if isinstance(i, Store))
            _mark(part, last, push_prev=True)
        found += part
    return found
