"""The simulated accelerator as a target: tasks that it can do become instruction streams, the others machine code.

What holds here: only glue. `compile/` matches, schedules and emits; the functional model gives values, the timing model
cycles; with the setting `rtl` the RTL gives both. The host's parts are compiled by the target `cpu`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tracedsl import __version__
from tracedsl.cache import code_digest, digest
from tracedsl.diagnostics import TracedslError, nearest
from tracedsl.hw.cpu.executable import ArrayLayout
from tracedsl.hw.cpu.target import Artefact, Cpu
from tracedsl.hw.fpga.compile.artefact import COUNTS, Launch, host_program, plan
from tracedsl.hw.fpga.compile.executable import FpgaExecutable, HostStep, LaunchStep, Runner, Tensor, functional
from tracedsl.hw.fpga.compile.match import intrinsics
from tracedsl.hw.fpga.compile.planner import FpgaPlanner
from tracedsl.hw.fpga.compile.report import gantt, notes
from tracedsl.hw.fpga.config import DRAM, Config, Dram, FpgaError
from tracedsl.hw.fpga.encoding import decode, encode
from tracedsl.hw.target import Description
from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Buffer
from tracedsl.ir.loops import LoopProgram

_AGAIN = "compile it again; `tracedsl cache prune --kind kernel` removes what is stored"


@dataclass(frozen=True)
class FpgaSim:
    """An accelerator of this configuration, with this memory. `rtl`: run the RTL instead of the functional model;
    `threads`: virtual threads that default schedules have (1: nothing is loaded while something computes)."""

    config: Config = field(default_factory=Config)
    dram: Dram = DRAM
    rtl: bool = False
    threads: int = 2

    @classmethod
    def configured(cls, settings: str) -> FpgaSim:
        """From the text behind "fpga-sim:", such as "block=16,bus_bytes=16,latency=20,rtl"; `block` alone sets the bus
        as well. Raises FpgaError (H060) for a setting that there is not, or a value that cannot be."""
        sizes: dict[str, type] = {f.name: kind for kind in (Config, Dram) for f in dataclasses.fields(kind)}
        sizes["threads"] = FpgaSim
        given: dict[type, dict[str, int]] = {Config: {}, Dram: {}, FpgaSim: {}}
        rtl = False
        for word in filter(None, (word.strip() for word in settings.split(","))):
            name, equals, value = word.partition("=")
            if word == "rtl":
                rtl = True
            elif name in sizes and equals and value.isdigit():
                given[sizes[name]][name] = int(value)
            else:
                raise FpgaError("H060", f"{word!r} is no setting of the accelerator",
                                hint=nearest(name, [*sizes, "rtl"]) or "name=number, or rtl")
        block = given[Config].get("block", Config.block)
        given[Config].setdefault("bus_bytes", block)
        given[Config].setdefault("tree_stages", min(Config.tree_stages, block.bit_length() - 1))
        return cls(Config(**given[Config]), Dram(**given[Dram]), rtl, **given[FpgaSim])

    @property
    def name(self) -> str:
        return "fpga-sim"

    @property
    def about(self) -> str:
        return "a simulated accelerator for integers, built by tracedsl itself; floats stay on the host"

    def missing(self) -> tuple[tuple[str, str], ...]:
        """The tools for the RTL, if it is wanted; the models need none."""
        from tracedsl.hw.fpga.tools import missing

        needed = missing("verilator", "make", "g++") if self.rtl else []
        return tuple((name, f"apt install {name}") for name in needed)

    @cached_property
    def host(self) -> Cpu:
        return Cpu()

    @cached_property
    def description(self) -> Description:
        """The host's, with the accelerator's instruction beside the host's own."""
        host = self.host.description
        return dataclasses.replace(host, name="fpga-sim", intrinsics=(*intrinsics(self.config.block), *host.intrinsics))

    @cached_property
    def planner(self) -> FpgaPlanner:
        return FpgaPlanner(self.config, self.dram, self.host.description, self.threads)

    @property
    def texts(self) -> tuple[str, ...]:
        return "isa", "timeline", "svg", "rtl"

    def fingerprint(self) -> str:
        """Of the configuration, the memory, the compiler, and the host for its parts."""
        how = "rtl" if self.rtl else "functional"
        parts = (self.config.text(), str(self.dram), how, str(self.threads), _generator(), self.host.fingerprint())
        return digest(*parts)[:16]

    def compile(self, program: LoopProgram) -> Artefact:
        """Streams and machine code. Raises FpgaError: H068 if a tile does not fit, H063 or H064 if the checker refuses
        a stream; TracedslError as the target `cpu` does."""
        blobs: dict[str, bytes] = {}
        steps: list[dict[str, Any]] = []
        for number, part in enumerate(plan(program, self.config, self.dram)):
            if isinstance(part, tuple):
                segment, launch = part
                blobs[f"stream.{number}"] = encode(launch.program)
                steps.append({"launch": number, "vectors": launch.vectors, **launch.counts(self.config),
                              "tasks": [nest.name for nest in segment.nests],
                              "tensors": [placed.to_json() for placed in launch.tensors]})
                continue
            host = host_program(part, program, number)
            made = self.host.compile(host)
            blobs |= {f"{name}.{number}": data for name, data in made.blobs.items()}
            steps.append({"host": number, "code": dict(made.meta), "tasks": [nest.name for nest in part.nests],
                          "arrays": [b.name for b in (*host.params, *host.results)]})
        meta = {"target": "fpga-sim", "notes": list(notes(steps, self.config, self.dram)),
                "fingerprint": self.fingerprint(), "steps": steps,
                "arrays": [_row(b) for b in (*program.params, *program.results)],
                "temps": [_row(b) for b in program.temps]}
        return Artefact(blobs, meta)

    def load(self, blobs: Mapping[str, bytes], meta: Mapping[str, Any]) -> FpgaExecutable:
        """Make stored streams and code callable. Raises TracedslError: H022 if they are of another version or are
        incomplete, H061 if a stream is damaged, H065 if the RTL is wanted and a tool for it is missing."""
        if meta.get("fingerprint") != self.fingerprint():
            raise TracedslError("H022", "compiled code is of another version", hint=_AGAIN,
                                why=f"it is of {meta.get('fingerprint')}, this is {self.fingerprint()}")
        try:
            steps = list(self._steps(blobs, meta["steps"]))
            arrays, temps = map(_layouts, (meta["arrays"], meta["temps"]))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, TracedslError):
                raise
            raise TracedslError("H022", "compiled code is incomplete", why=f"{type(error).__name__}: {error}",
                                hint=_AGAIN) from error
        return FpgaExecutable(arrays, temps, steps)

    def _steps(self, blobs: Mapping[str, bytes], steps: Any) -> Iterator[HostStep | LaunchStep]:
        for step in steps:
            if "host" in step:
                own = {"object": blobs[f"object.{int(step['host'])}"]}
                yield HostStep(self.host.load(own, step["code"]), tuple(map(str, step["arrays"])))
            else:
                image = bytes(blobs[f"stream.{int(step['launch'])}"])
                decode(image)
                counts = {name: int(step[name]) for name in COUNTS}
                yield LaunchStep(image, tuple(map(Tensor.from_json, step["tensors"])), int(step["vectors"]),
                                 self.config.block, self._runner(), counts)

    def _runner(self) -> Runner:
        if not self.rtl:
            return functional(self.config)
        from tracedsl.hw.fpga.compile.executable import RtlRunner
        from tracedsl.hw.fpga.simulate import Simulator

        return RtlRunner(Simulator(self.config), self.dram)

    def launches(self, program: LoopProgram) -> Iterator[Launch]:
        """The accelerator's parts of a program, in order."""
        for part in plan(program, self.config, self.dram):
            if isinstance(part, tuple):
                yield part[1]

    def text(self, what: str, program: LoopProgram) -> str:
        """A readable form: "isa" (the streams), "timeline" (when each unit worked; "svg": as a picture, one a launch),
        "rtl" (Verilog of the accelerator)."""
        from tracedsl.hw.fpga.assembly import disassemble
        from tracedsl.hw.fpga.picture import svg
        from tracedsl.hw.fpga.rtl import top

        if what == "rtl":
            return top.text(self.config)
        made = list(self.launches(program))
        if what == "svg":
            return "\n".join(svg(launch.program, launch.timeline) for launch in made)
        return "\n".join(gantt(x.timeline) if what == "timeline" else disassemble(x.program) for x in made)


def _row(buffer: Buffer) -> list[Any]:
    size = BYTES[buffer.dtype]
    return [buffer.name, buffer.dtype, list(buffer.shape), [s * size for s in buffer.strides]]


def _layouts(rows: Any) -> tuple[ArrayLayout, ...]:
    return tuple(ArrayLayout(str(name), str(dtype), tuple(map(int, shape)), tuple(map(int, strides)))
                 for name, dtype, shape, strides in rows)


@cache
def _generator() -> str:
    """The compiler's version: a digest of its source (and the package's version, where there is no source)."""
    return digest(__version__, code_digest(Path(__file__).parent))
