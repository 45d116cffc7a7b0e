"""The space of schedules of a task, for the tuner: named choices, and the schedule that a point stands for.

What holds here: every choice is a tuple of plain values, the default's first; the same task gives the same space on the
same machine. A point is refused with a reason, or by `ScheduleError`, before any loop is made. Sizes are divisors and
near-divisors of the axes: the parts into which so many equal blocks cut them, and usual sizes beside those.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from tracedsl.diagnostics import nearest
from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Stage, Task
from tracedsl.schedule.access import accesses, widest
from tracedsl.schedule.contraction import Roles as TileRoles
from tracedsl.schedule.contraction import TileChoice, default_tile, is_tiled, registers_of, roles
from tracedsl.schedule.convolution import Roles as WindowRoles
from tracedsl.schedule.convolution import WindowChoice, default_window, is_window
from tracedsl.schedule.convolution import roles as window_roles
from tracedsl.schedule.default import Choices, MachineFacts, draft
from tracedsl.schedule.panels import LINE, PANEL_BYTES
from tracedsl.schedule.primitives import Leaf, Schedule, ScheduleError
from tracedsl.schedule.stencil import is_stencil, stencil_from_point, stencil_refusal, stencil_space

Value = int | bool | str
Space = dict[str, tuple[Value, ...]]
Point = Mapping[str, Any]
Conditions = Mapping[str, tuple[tuple[str, tuple[Value, ...]], ...]]

_HINT = "choose a smaller tile or block"


class Family(Protocol):
    """One kind of task: its choices, which of them matter when, what is refused, and what a whole point means."""

    def choices(self) -> Space: ...

    def conditions(self, choices: Space) -> Conditions: ...

    def refusal(self, point: Point) -> str: ...

    def meaning(self, point: Point) -> Choices: ...


@dataclass(frozen=True, eq=False)
class ScheduleSpace:
    """The schedules of one task that may be tried. `conditions`: a choice without effect unless each named other one
    has one of the given values. Empty where there is nothing to choose: no stages, or the user gave hints."""

    task: Task
    machine: MachineFacts
    family: Family
    choices: Space
    conditions: Conditions

    @staticmethod
    def of(task: Task, machine: MachineFacts) -> ScheduleSpace:
        family = family_of(task, machine)
        choices = {} if task.hints or not task.stages else family.choices()
        choices = {name: values for name, values in choices.items() if len(values) > 1}
        return ScheduleSpace(task, machine, family, choices, family.conditions(choices) if choices else {})

    def whole(self, point: Point) -> dict[str, Value]:
        """The point with what it leaves out. Raises `ScheduleError` S001 for an unknown choice."""
        for name in point:
            if name not in self.choices:
                raise ScheduleError("S001", f"the task has no choice {name!r}", hint=nearest(name, self.choices))
        return {name: point.get(name, values[0]) for name, values in self.choices.items()}

    def refusal(self, point: Point) -> str:
        """Why there is no such schedule; empty if nothing is known against it. Makes no loops."""
        return self.family.refusal(self.whole(point))

    def schedule(self, point: Point) -> Schedule:
        """The schedule of a point; choices that it leaves out are the default's. Raises `ScheduleError`: S001 for an
        unknown choice, S006 for what is refused."""
        full = self.whole(point)
        if refused := self.family.refusal(full):
            raise ScheduleError("S006", refused, hint=_HINT)
        return draft(self.task, self.machine, self.family.meaning(full)).schedule


def schedule_space(task: Task, machine: MachineFacts) -> Space:
    """The choices for a task, by name; the first value of each is the default's. A task with hints has none."""
    return ScheduleSpace.of(task, machine).choices


def schedule_from_point(task: Task, machine: MachineFacts, point: Point) -> Schedule:
    """The schedule of a point, as `ScheduleSpace.schedule`."""
    return ScheduleSpace.of(task, machine).schedule(point)


def family_of(task: Task, machine: MachineFacts) -> Family:
    """What kind of task this is: that of the stage with the most work."""
    if task.stages and not task.shared:
        main = max(task.stages, key=_work)
        if is_stencil(main):
            return Stencils(main, machine)
        if is_window(main):
            return Windows(task, main, machine)
        if is_tiled(main, machine):
            return Tiles(task, main, machine)
    return Loops(task, machine)


# -- products -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tiles:
    """Contractions: a tile in registers, blocks and chunks around it, copies of operands (see `contraction`)."""

    task: Task
    stage: Stage
    machine: MachineFacts

    @cached_property
    def best(self) -> TileChoice:
        """The default's choice."""
        return default_tile(self.stage, self.machine)

    @cached_property
    def part(self) -> TileRoles:
        return roles(self.stage)

    @cached_property
    def native(self) -> int:
        """Elements of one vector register."""
        return max(1, self.machine.vector_bytes // widest(self.stage))

    @cached_property
    def load_bytes(self) -> int:
        return max(BYTES[load.buffer.dtype] for load in accesses(self.stage, finish=False))

    def choices(self) -> Space:
        best, part = self.best, self.part
        deepest = max(k.extent for k in self.stage.reduce)
        tiles = -(-part.row.extent // best.height)
        if part.along is not None:
            return {"height": _sizes(best.height, range(1, 9), part.row.extent),
                    "vectors": _sizes(best.vectors, range(1, 9), part.column.extent),
                    "lanes": _sizes(best.lanes, (best.lanes // 2, best.lanes * 2), part.along.extent),
                    "parallel_loops": (3, 1, 2)}
        orders = ("rows", "columns") if best.rows_first else ("columns", "rows")
        return {
            "height": _sizes(best.height, range(1, 17), part.row.extent),
            "vectors": _sizes(best.vectors, range(1, 9), -(-part.column.extent // best.lanes)),
            "lanes": _sizes(best.lanes, (best.lanes // 2, best.lanes * 2), part.column.extent),
            "pack": (best.pack, not best.pack),
            "pack_rows": (best.pack_rows, not best.pack_rows),
            "depth": _sizes(best.depth, (0, *_parts(deepest, 8, 16), 128, 256, 384, 512, 768), deepest - 1),
            "chunk": _sizes(best.chunk // best.height, (0, *_parts(tiles, 8, 1), 2, 4, 8, 16, 24, 32, 48, 64), tiles),
            "panels": (best.panels, *(n for n in (1, 2, 4, 8) if n != best.panels)),
            "group": tuple(dict.fromkeys((best.group, 1))),
            "order": orders,
            "parallel_loops": (3, 1, 2),
        }

    def conditions(self, choices: Space) -> Conditions:
        columns = ("order", ("columns",))
        blocked = ("depth", tuple(v for v in choices.get("depth", ()) if v))
        return {"pack": (columns,), "panels": (columns, blocked), "group": (("pack", (True,)),)} \
            if "order" in choices and blocked[1] else {}

    def refusal(self, point: Point) -> str:
        tile = self.tile(point)
        vectors = tile.vectors * max(1, tile.lanes // self.native)
        if registers_of(tile.height, vectors) > self.machine.vector_registers:
            return (f"a tile of {tile.height} x {tile.vectors} vectors does not fit "
                    f"{self.machine.vector_registers} registers")
        sums = math.prod(k.extent for k in self.stage.reduce)
        deepest = max(k.extent for k in self.stage.reduce)
        block = sums // deepest * min(tile.depth or deepest, deepest)
        copies, rows = [], self.part.row.extent
        if tile.pack and not tile.rows_first:
            copies.append(block * tile.vectors * tile.lanes * self.load_bytes)
        if tile.pack_rows and (tile.chunk or tile.depth or not tile.rows_first):
            lines = -(-block * self.load_bytes // LINE) | 1         # as such rows are padded
            copies.append(lines * LINE * min(tile.chunk or rows, rows))
        return _too_large(copies)

    def meaning(self, point: Point) -> Choices:
        return Choices(tile=self.tile(point), parallel_loops=int(point.get("parallel_loops", 3)))

    def tile(self, point: Point) -> TileChoice:
        """The choice that a point means."""
        best = self.best
        height = int(point.get("height", best.height))
        chunk = height * int(point["chunk"]) if "chunk" in point else best.chunk
        order = point.get("order", "rows" if best.rows_first else "columns")
        return replace(best, height=height, chunk=chunk, rows_first=order == "rows", **{
            name: type(getattr(best, name))(point[name])
            for name in ("vectors", "lanes", "pack", "pack_rows", "depth", "panels", "group") if name in point})


# -- convolutions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Windows:
    """Convolutions: a tile of rows and vectors in registers, a strip of the weights (see `convolution`)."""

    task: Task
    stage: Stage
    machine: MachineFacts

    @cached_property
    def best(self) -> WindowChoice:
        """The default's choice."""
        return default_window(self.stage, self.machine)

    @cached_property
    def part(self) -> WindowRoles:
        part = window_roles(self.stage)
        assert part is not None
        return part

    @cached_property
    def summed(self) -> tuple[Leaf, ...]:
        """The reduced axes as the default schedule has them: some are fused."""
        leaves = draft(self.task, self.machine).schedule.leaves(self.task.stages.index(self.stage))
        return tuple(leaf for leaf in leaves if leaf.reduce)

    @cached_property
    def native(self) -> int:
        return max(1, self.machine.vector_bytes // widest(self.stage))

    def choices(self) -> Space:
        best, part, summed = self.best, self.part, self.summed
        across = part.rows[-1].extent
        down = part.rows[0].extent if len(part.rows) > 1 else 1
        deepest = max(leaf.extent for leaf in summed)
        orders = ["".join(map(str, order)) for order in _rotations(len(summed))]
        return {
            "height": _sizes(best.height, range(1, 5), down),
            "width": _sizes(best.width, (*range(1, 9), 10, 12, *_parts(across, 4, 1)), min(across, 28)),
            "vectors": _sizes(best.vectors, range(1, 5), -(-part.column.extent // best.lanes)),
            "lanes": _sizes(best.lanes, (best.lanes // 2,), part.column.extent),
            "pack": (best.pack, not best.pack) if part.weights is not None else (best.pack,),
            "chunk": _sizes(best.chunk, (1, 2, 4, 8, 16, *_parts(down, 4, 1)), down),
            "depth": _sizes(best.depth, (0, *_parts(deepest, 6, 8), 32, 64, 128, 256), deepest - 1)
            if deepest >= 32 else (0,),
            "order": ("", *orders[1:]),
            "parallel_loops": (3, 1, 2),
        }

    def conditions(self, choices: Space) -> Conditions:
        return {}

    def refusal(self, point: Point) -> str:
        how = self.window(point)
        vectors = how.vectors * max(1, how.lanes // self.native)
        if registers_of(how.height * how.width, vectors) > self.machine.vector_registers:
            return (f"a tile of {how.height} x {how.width} x {how.vectors} vectors does not fit "
                    f"{self.machine.vector_registers} registers")
        if not how.pack:
            return ""
        deepest = max(leaf.extent for leaf in self.summed)
        sums = math.prod(k.extent for k in self.stage.reduce) // deepest * min(how.depth or deepest, deepest)
        return _too_large([sums * how.vectors * how.lanes * BYTES[self.stage.value.dtype]])

    def meaning(self, point: Point) -> Choices:
        return Choices(window=self.window(point), parallel_loops=int(point.get("parallel_loops", 3)))

    def window(self, point: Point) -> WindowChoice:
        """The choice that a point means."""
        best = self.best
        height = int(point.get("height", best.height))
        chunk = -(-int(point.get("chunk", best.chunk)) // height) * height
        return replace(best, height=height, chunk=chunk, **{
            name: type(getattr(best, name))(point[name])
            for name in ("width", "vectors", "lanes", "pack", "depth", "order") if name in point})


# -- everything else ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Stencils:
    """Sums over windows channel by channel: a tile of rows, positions and vectors in registers (see `stencil`)."""

    stage: Stage
    machine: MachineFacts

    def choices(self) -> Space:
        return dict(stencil_space(self.stage, self.machine))

    def conditions(self, choices: Space) -> Conditions:
        return {}

    def refusal(self, point: Point) -> str:
        return stencil_refusal(self.stage, self.machine, self._whole(point))

    def meaning(self, point: Point) -> Choices:
        return Choices(stencil=stencil_from_point(self.stage, self.machine, self._whole(point)))

    def _whole(self, point: Point) -> dict[str, int]:
        """Choices with a single value are not in the space."""
        return {name: int(point.get(name, values[0])) for name, values in self.choices().items()}


@dataclass(frozen=True, eq=False)
class Loops:
    """Element-wise loops, sums along and across rows, and what works row by row."""

    task: Task
    machine: MachineFacts

    def choices(self) -> Space:
        plain = Choices()
        space: Space = {"parallel_loops": (plain.parallel_loops, 1, 2)}
        if any(stage.combine is None for stage in self.task.stages):
            space |= {"unroll": (plain.unroll, 1, 2, 4, 8), "rows": (plain.rows, 4, 8, 32)}
        if any(stage.combine is not None for stage in self.task.stages):
            space |= {"accumulators": (plain.accumulators, 1, 2, 4, 6, 8),
                      "columns": (plain.columns, 1, 2, 4, 8, 16)}
        narrow = self.machine.vector_bytes // 8
        return {**space, "lanes": tuple(dict.fromkeys((plain.lanes, narrow, 2 * narrow, 4 * narrow)))}

    def conditions(self, choices: Space) -> Conditions:
        return {}

    def refusal(self, point: Point) -> str:
        return ""

    def meaning(self, point: Point) -> Choices:
        given: dict[str, Any] = {name: int(value) for name, value in point.items()}
        return replace(Choices(), **given)


# -- sizes --------------------------------------------------------------------------------------------------------


def _parts(extent: int, most: int, step: int) -> list[int]:
    """The sizes of 2, 3, ..., `most` about equal parts of an extent, each a multiple of `step`."""
    return [-(-extent // (parts * step)) * step for parts in range(2, most + 1) if extent >= parts * step]


def _sizes(first: int, others: Iterable[int], limit: int) -> tuple[int, ...]:
    """The default's size, then the others that make sense, in order."""
    return (first, *sorted({n for n in others if 0 <= n <= limit and n != first}))


def _rotations(count: int) -> list[tuple[int, ...]]:
    """Orders of a few loops: as written, each one brought to the front, and all turned round."""
    plain = tuple(range(count))
    orders = [(n, *(m for m in plain if m != n)) for n in plain] + [plain[::-1]]
    return list(dict.fromkeys(orders))


def _too_large(copies: Iterable[int]) -> str:
    taken = max(copies, default=0)
    return f"a local copy would take {taken} bytes; {PANEL_BYTES} is the limit" if taken > PANEL_BYTES else ""


def _work(stage: Stage) -> int:
    return math.prod(axis.extent for axis in (*stage.axes, *stage.reduce))
