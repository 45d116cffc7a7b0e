"""In which order the units may run a program, found by its tokens alone.

What holds here: counters and queues make a deterministic network, so whether a program comes to its end does not depend
on time; `steps` finds out, with the queues as deep as the hardware's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from tracedsl.hw.fpga.assembly import line
from tracedsl.hw.fpga.config import MAX_TOKENS, Config, FpgaError
from tracedsl.hw.fpga.isa import Finish, Instruction, Program, Unit

_PREV = {Unit.COMPUTE: (Unit.LOAD, Unit.COMPUTE), Unit.STORE: (Unit.COMPUTE, Unit.STORE)}
_NEXT = {Unit.LOAD: (Unit.COMPUTE, Unit.LOAD), Unit.COMPUTE: (Unit.STORE, Unit.COMPUTE)}
Channel = tuple[Unit, Unit]  # giver, taker
CHANNELS: tuple[Channel, ...] = ((Unit.LOAD, Unit.COMPUTE), (Unit.COMPUTE, Unit.LOAD), (Unit.COMPUTE, Unit.STORE),
                                 (Unit.STORE, Unit.COMPUTE))


@dataclass(frozen=True)
class Flow:
    """The channels that an instruction takes a token from, and those that it gives one to."""

    takes: tuple[Channel, ...]
    gives: tuple[Channel, ...]


def flow(instruction: Instruction, at: int = 0) -> Flow:
    """Raises FpgaError (H063) if a flag points to where no unit is."""
    if isinstance(instruction, Finish):
        return Flow((), ())
    unit = instruction.unit
    takes, gives = [], []
    for take, give, side in ((instruction.pop_prev, instruction.push_prev, _PREV),
                             (instruction.pop_next, instruction.push_next, _NEXT)):
        if (take or give) and unit not in side:
            raise FpgaError("H063", f"instruction {at} exchanges tokens with a unit that does not exist",
                            why=line(instruction), hint="load has no unit on its left, store none on its right")
        if take:
            takes.append(side[unit])
        if give:
            giver, taker = side[unit]
            gives.append((taker, giver))
    return Flow(tuple(takes), tuple(gives))


def steps(program: Program, config: Config) -> list[int]:
    """The program's instructions, by number, in an order in which the hardware can run them. Raises FpgaError (H063) if
    there is none, if tokens are left over, or if a counter might overflow."""
    flows = [flow(instruction, at) for at, instruction in enumerate(program)]
    _bounded(program, flows, config)
    queues: dict[Unit, deque[int]] = {unit: deque() for unit in Unit}
    tokens = dict.fromkeys(CHANNELS, 0)
    found: list[int] = []
    dealt = 0
    moved = True
    while moved:
        moved = False
        while dealt < len(program) and _room(program[dealt], queues, config):
            instruction = program[dealt]
            if not isinstance(instruction, Finish):
                queues[instruction.unit].append(dealt)
            dealt, moved = dealt + 1, True
        for queue in queues.values():
            while queue and all(tokens[channel] for channel in flows[queue[0]].takes):
                for channel in flows[queue[0]].takes:
                    tokens[channel] -= 1
                for channel in flows[queue[0]].gives:
                    tokens[channel] += 1
                found.append(queue.popleft())
                moved = True
    if dealt < len(program) or any(queues.values()):
        raise _deadlock(program, queues, dealt)
    if left := {channel: count for channel, count in tokens.items() if count}:
        (giver, taker), count = next(iter(left.items()))
        raise FpgaError("H063", f"{count} tokens from {giver.name.lower()} to {taker.name.lower()} are left over",
                        why="the next program would start with them", hint="give one push flag for each pop flag")
    return found


def _room(instruction: Instruction, queues: dict[Unit, deque[int]], config: Config) -> bool:
    return isinstance(instruction, Finish) or len(queues[instruction.unit]) < config.queue_depth


def _bounded(program: Program, flows: list[Flow], config: Config) -> None:
    """No counter can overflow: what is given by the words dealt out so far, less what must have been taken by then."""
    taken: dict[Channel, deque[int]] = {channel: deque() for channel in CHANNELS}
    dealt = dict.fromkeys(Unit, 0)
    balance = dict.fromkeys(CHANNELS, 0)
    for at, instruction in enumerate(program):
        if isinstance(instruction, Finish):
            continue
        dealt[instruction.unit] += 1
        for channel in flows[at].takes:
            taken[channel].append(dealt[instruction.unit])
        for channel in flows[at].gives:
            balance[channel] += 1
        for channel, waiting in taken.items():
            while waiting and waiting[0] <= dealt[channel[1]] - config.queue_depth - 1:
                waiting.popleft()
                balance[channel] -= 1
        for (giver, taker), count in balance.items():
            if count > MAX_TOKENS:
                raise FpgaError("H063", f"instruction {at}: more than {MAX_TOKENS} tokens may wait from "
                                f"{giver.name.lower()} to {taker.name.lower()}", hint="let the taker come sooner")


def _deadlock(program: Program, queues: dict[Unit, deque[int]], dealt: int) -> FpgaError:
    stuck = []
    for unit, queue in queues.items():
        if queue:
            names = [giver.name.lower() for giver, _ in flow(program[queue[0]]).takes]
            waits = f"{unit.name.lower()} waits for {' and '.join(names)}"
            stuck.append(f"{waits} at {queue[0]}: {line(program[queue[0]])}")
    if dealt < len(program):
        stuck.append(f"fetch waits for room in a queue at {dealt}: {line(program[dealt])}")
    return FpgaError("H063", "the program deadlocks", why="\n       ".join(stuck),
                     hint="each pop needs a push that can happen before it")
