"""The accelerator's sizes.

What holds here: frozen data, checked when it is made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

from tracedsl.diagnostics import TracedslError

WORD_BYTES = 32  # of an instruction
CHUNK = 8  # words that fetch reads at once
MAX_DEPTH = 4096  # elements of a scratchpad: addresses have 12 bits
MAX_BURST = 256  # beats of a row
RESULT = 5  # cycles from reading an accumulator until its new value is written
REUSE = RESULT + 1  # until that can be read
MAX_TOKENS = 255


class FpgaError(TracedslError, ValueError):
    """A configuration, a program or a run that cannot be."""


@dataclass(frozen=True)
class Config:
    """What is built. `block` is B: the array has B x B multipliers. Depths count elements (see ISA.md) and, like all
    sizes here, are powers of two. `bus_bytes`: a beat of the memory's port, at most B. `tree_stages`: registers in the
    sum of B products, 1 to log2 B: more of them, a higher clock. `queue_depth`: words that wait before each unit.
    `bursts`: rows that load and store may each have asked for and not yet moved."""

    block: int = 8
    bus_bytes: int = 8
    inp_depth: int = 2048
    wgt_depth: int = 512
    acc_depth: int = 1024
    aux_depth: int = 256
    tree_stages: int = 3
    queue_depth: int = 16
    bursts: int = 16

    def __post_init__(self) -> None:
        _within("block", self.block, 4, 32)
        _within("bus_bytes", self.bus_bytes, 4, self.block)
        for name in ("inp_depth", "wgt_depth", "acc_depth", "aux_depth"):
            _within(name, getattr(self, name), 16, MAX_DEPTH)
        _within("queue_depth", self.queue_depth, 4, 64)
        _within("bursts", self.bursts, 2, 64)
        levels = self.block.bit_length() - 1
        if not 1 <= self.tree_stages <= levels:
            raise _bad("tree_stages", self.tree_stages, f"from 1 to {levels} for block {self.block}")

    def depth(self, memory: str) -> int:
        """Elements of `inp`, `wgt`, `acc` or `aux`."""
        return {"inp": self.inp_depth, "wgt": self.wgt_depth, "acc": self.acc_depth, "aux": self.aux_depth}[memory]

    def element_bytes(self, memory: str) -> int:
        """Bytes of one element, in memory and in the scratchpad; `diag` is a vector that becomes a tile of `wgt`."""
        block = self.block
        return {"inp": block, "wgt": block * block, "acc": 4 * block, "aux": 4 * block, "diag": block}[memory]

    def beats(self, memory: str) -> int:
        """Beats that move one element."""
        return self.element_bytes(memory) // self.bus_bytes

    @cached_property
    def word_beats(self) -> int:
        return WORD_BYTES // self.bus_bytes

    @cached_property
    def latency(self) -> int:
        """Cycles from a step's start in the compute unit to its result lying in `acc`."""
        return 2 + self.tree_stages + RESULT

    def text(self) -> str:
        """`block=8 bus_bytes=8 ...`: part of cache keys and the RTL's first line."""
        return " ".join(f"{name}={value}" for name, value in asdict(self).items())


@dataclass(frozen=True)
class Dram:
    """The memory of a simulation: cycles from a request to its first beat, and from one beat to the next."""

    latency: int = 100
    cycles_per_beat: int = 1

    def __post_init__(self) -> None:
        for name in ("latency", "cycles_per_beat"):
            if not 1 <= getattr(self, name) <= 100_000:
                raise _bad(name, getattr(self, name), "from 1 to 100000")


DRAM = Dram()


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high or value & (value - 1):
        raise _bad(name, value, f"a power of two from {low} to {high}")


def _bad(name: str, value: int, wanted: str) -> FpgaError:
    return FpgaError("H060", f"the accelerator cannot be built with {name} = {value}", hint=f"{name} must be {wanted}")
