"""The hardware as a choice: configurations of an accelerator for one kernel, by cycles and by what they cost to build.

What holds here: configurations are a space like schedules, walked by the same engine, kept in the same records; cycles
come from the timing model with each configuration's own default tiles. What a configuration costs is a function that is
given (look-up tables, multipliers, blocks of memory: `tracedsl.hw.fpga.estimate`), so is the limit that it must keep.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracedsl.autotune import Budget, Exhaustive, Measurement, Parameter, Point, RandomSearch, Records, Space, Study
from tracedsl.cache import Store
from tracedsl.capture.tensor.arguments import bind
from tracedsl.diagnostics import TracedslError, Unsupported
from tracedsl.hw.fpga.config import DRAM, Config, Dram
from tracedsl.hw.fpga.target import FpgaSim
from tracedsl.kernel import Kernel

Area = Callable[[Config], float]


@dataclass(frozen=True)
class Design:
    """A configuration, the cycles that the kernel takes on it, and what it costs."""

    config: Config
    cycles: int
    area: float


@dataclass(frozen=True)
class Exploration:
    """Every design that was measured, the cheapest first."""

    designs: tuple[Design, ...]

    @property
    def pareto(self) -> tuple[Design, ...]:
        """Those than which none is both cheaper and faster, the cheapest first."""
        best: list[Design] = []
        for design in self.designs:
            if not best or design.cycles < best[-1].cycles:
                best.append(design)
        return tuple(best)

    def table(self) -> str:
        """The designs as Markdown; a star marks those of the Pareto front."""
        front = {id(design) for design in self.pareto}
        rows = [f"| {'*' if id(d) in front else ''} | {d.area:,.0f} | {d.cycles:,} | {_text(d.config)} |"
                for d in self.designs]
        return "\n".join(["| | area | cycles | configuration |", "| --- | --- | --- | --- |", *rows])


def explore(f: Kernel, *args: Any, choices: Mapping[str, Sequence[int]], area: Area, limit: float = math.inf,
            trials: int = 64, dram: Dram = DRAM, store: Store | None = None) -> Exploration:
    """Measure a kernel, for these arguments, on configurations from `choices` (fields of `Config` -> values; the others
    keep their defaults). Those that cannot be built or cost more than `limit` are left out before anything is compiled.
    All of them are tried if there are at most `trials`, else so many at random. Ctrl-C keeps what was measured; what is
    on record is not measured again. Raises `Unsupported` if nothing of the kernel runs on the accelerator."""
    compiler = f._compiler(f._environment.snapshot())
    bound = bind(f._parameters, args, {})
    reasons: list[Unsupported] = []

    def measure(point: Point) -> Measurement:
        on = FpgaSim(_config(point), dram)
        try:
            loops = dataclasses.replace(compiler, on=on).stages(bound).loops
            return Measurement(float(sum(launch.timeline.cycles for launch in on.launches(loops))))
        except TracedslError as error:
            reasons.extend([error] if isinstance(error, Unsupported) else [])
            return Measurement(None, error.diagnostic.what)

    space = Space(tuple(Parameter(name, tuple(values), ordered=True) for name, values in choices.items()),
                  lambda point: _admitted(point, area, limit))
    strategy = Exhaustive(space) if len(space) <= trials else RandomSearch(space)
    kept = store or Store()
    records = Records(kept.root / "records" / "hardware.jsonl") if kept.usable() else None
    key = compiler.key(bound)
    task = " ".join([*(f"{name}={part}" for name, part in key.parts.items()), FpgaSim(dram=dram).fingerprint()])
    outcome = Study(space, strategy, measure, task, budget=Budget(trials=trials), records=records).run()
    found = [Design(_config(t.point), int(t.measurement.value), area(_config(t.point)))
             for t in outcome.trials if t.measurement.value is not None]
    if not found and reasons:
        raise reasons[0]
    return Exploration(tuple(sorted(found, key=lambda design: (design.area, design.cycles))))


def _config(point: Point) -> Config:
    """The configuration; a bus as wide as a vector where nothing is said, and as many stages as fit."""
    block = int(point.get("block") or Config.block)
    given = {"bus_bytes": block, "tree_stages": min(Config.tree_stages, block.bit_length() - 1)}
    return Config(**{**given, **{name: int(value or 0) for name, value in point.items()}})


def _admitted(point: Point, area: Area, limit: float) -> bool:
    try:
        return area(_config(point)) <= limit
    except TracedslError:
        return False


def _text(config: Config) -> str:
    return " ".join(f"{f.name}={getattr(config, f.name)}" for f in dataclasses.fields(config)
                    if getattr(config, f.name) != f.default)
