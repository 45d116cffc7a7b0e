"""A compiled program, ready to be called: the host's parts run as machine code, the accelerator's on a model of it.

What holds here: the functional model gives the values; with `rtl` the RTL does, cycle by cycle. Any number of threads
may call: each call has memory of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tracedsl.hw.cpu.executable import ArrayLayout, Executable
from tracedsl.hw.fpga.compile.layout import pack, unpack, vectors_of
from tracedsl.hw.fpga.compile.work import Form
from tracedsl.hw.fpga.config import Config, Dram
from tracedsl.hw.fpga.encoding import decode
from tracedsl.hw.fpga.functional import Machine
from tracedsl.hw.target import NativeCode
from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Buffer

if TYPE_CHECKING:
    from tracedsl.hw.fpga.simulate import Simulator

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Runner = Callable[[bytes, Bytes], Bytes]  # program, memory -> memory afterwards


@dataclass(frozen=True)
class Tensor:
    """A tensor of a launch: see `artefact.Placed`."""

    layout: ArrayLayout
    form: Form
    at: int
    before: bool
    after: bool

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Tensor:
        name, dtype, shape, strides = data["array"]
        layout = ArrayLayout(str(name), str(dtype), tuple(map(int, shape)), tuple(map(int, strides)))
        size = BYTES[layout.dtype]
        buffer = Buffer(layout.name, layout.dtype, layout.shape, tuple(s // size for s in layout.strides))
        lanes = tuple(None if lane is None else int(lane) for lane in data["lanes"])
        if data["format"] not in ("narrow", "wide", "tile"):
            raise ValueError(f"there is no format {data['format']!r}")
        form = Form(buffer, data["format"], lanes, bool(data["spread"]))
        return Tensor(layout, form, int(data["at"]), bool(data["before"]), bool(data["after"]))


@dataclass(frozen=True)
class HostStep:
    """Machine code that is called with these arrays."""

    code: Executable
    arrays: tuple[str, ...]

    def run(self, addresses: Mapping[str, int]) -> None:
        self.code.run([addresses[name] for name in self.arrays])


@dataclass(frozen=True)
class LaunchStep:
    """A program of the accelerator with the tensors that it works on. `counts`: see `artefact.Launch.counts`."""

    image: bytes
    tensors: tuple[Tensor, ...]
    vectors: int
    block: int
    runner: Runner
    counts: Mapping[str, int]

    def run(self, addresses: Mapping[str, int]) -> None:
        memory = np.zeros(self.vectors * self.block, np.uint8)
        for tensor in self.tensors:
            if tensor.before:
                self._place(memory, tensor)[:] = pack(self._array(tensor, addresses), tensor.form, self.block)
        memory = self.runner(self.image, memory)
        for tensor in self.tensors:
            if tensor.after:
                unpack(self._place(memory, tensor), self._array(tensor, addresses), tensor.form, self.block)

    def _array(self, tensor: Tensor, addresses: Mapping[str, int]) -> Array:
        return tensor.layout.at(addresses[tensor.layout.name])

    def _place(self, memory: Bytes, tensor: Tensor) -> Bytes:
        begin = tensor.at * self.block
        return memory[begin:begin + vectors_of(tensor.form, self.block) * self.block]


class FpgaExecutable:
    """The steps of a program, in order. It is called with the addresses of its arrays, as every other runnable."""

    native: NativeCode | None = None

    def __init__(self, arrays: Sequence[ArrayLayout], temps: Sequence[ArrayLayout],
                 steps: Sequence[HostStep | LaunchStep]) -> None:
        self._arrays, self._temps, self.steps = arrays, temps, steps

    @property
    def launches(self) -> tuple[LaunchStep, ...]:
        """The accelerator's parts."""
        return tuple(step for step in self.steps if isinstance(step, LaunchStep))

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """An array for a result, its content undefined."""
        return np.empty(shape, dtype)

    def run(self, pointers: Iterable[int]) -> None:
        """Run on the arrays at these addresses: params, then results. Nothing is checked."""
        addresses = {layout.name: at for layout, at in zip(self._arrays, pointers, strict=True)}
        kept = [np.empty(layout.shape, layout.dtype) for layout in self._temps]
        addresses |= {layout.name: int(array.ctypes.data) for layout, array in zip(self._temps, kept)}
        for step in self.steps:
            step.run(addresses)


class RtlRunner:
    """The RTL in place of the functional model. `cycles`: those of the last run, which are the timing model's."""

    def __init__(self, simulator: Simulator, dram: Dram) -> None:
        self._simulator, self._dram = simulator, dram
        self.cycles = 0

    def __call__(self, image: bytes, memory: Bytes) -> Bytes:
        ran = self._simulator.run(image, memory, self._dram)
        self.cycles = ran.timeline.cycles
        return ran.memory


def functional(config: Config) -> Runner:
    """The functional model. A program was checked when it was compiled; in the order of the stream every token is
    given before it is taken."""
    def run(image: bytes, memory: Bytes) -> Bytes:
        machine = Machine(config, memory)
        for instruction in decode(image):
            machine.execute(instruction)
        return memory
    return run
