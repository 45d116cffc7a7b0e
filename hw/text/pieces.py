"""Parts of loop nests as generators of text see them: names, the functions that a nest becomes, the buffers they need.

What holds here: pure functions of loop nests; order is that of the nest.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count

from tracedsl.ir.expr import Affine, Axis, Buffer, Load, address, walk
from tracedsl.ir.loops import For, Stmt, Store, Update, statements


@dataclass
class Names:
    """Names for things: near to what they are called, never twice the same. `taken` holds what must not be used."""

    taken: set[str]
    known: dict[object, str] = field(default_factory=dict)

    def new(self, wanted: str) -> str:
        plain = re.sub(r"\W", "_", wanted)
        plain = f"x{plain}" if not plain or plain[0].isdigit() or keyword.iskeyword(plain) else plain
        name = next(n for n in chain([plain], (f"{plain}_{i}" for i in count(2))) if n not in self.taken)
        self.taken.add(name)
        return name

    def of(self, thing: object, wanted: str) -> str:
        """The name of this thing, the same each time."""
        if thing not in self.known:
            self.known[thing] = self.new(wanted)
        return self.known[thing]


View = tuple[str, tuple[int, ...], tuple[int, ...]]     # owner, shape, strides in elements


def view_of(buffer: Buffer) -> View:
    return buffer.name, buffer.shape, buffer.strides


def pieces(body: Sequence[Stmt]) -> Iterator[tuple[tuple[Axis, ...], tuple[Stmt, ...]]]:
    """Each parallel loop at the top, with the axes of those perfectly inside of it; what stands between them."""
    group: list[Stmt] = []
    for step in body:
        if not (isinstance(step, For) and step.kind == "parallel"):
            group.append(step)
            continue
        if group:
            yield (), tuple(group)
            group = []
        axes, inner = [step.axis], step.body
        while len(inner) == 1 and isinstance(inner[0], For) and inner[0].kind == "parallel":
            axes, inner = [*axes, inner[0].axis], inner[0].body
        if math.prod(axis.extent for axis in axes):
            yield tuple(axes), inner
    if group:
        yield (), tuple(group)


def views(body: Sequence[Stmt]) -> dict[View, Buffer]:
    """The buffers that a piece is given, each in every shape that it is seen in."""
    found: dict[View, Buffer] = {}
    for step in statements(*body):
        if isinstance(step, Store | Update):
            seen = [e.buffer for e in walk(step.value) if isinstance(e, Load)]
            for buffer in (*seen, step.buffer):
                if buffer.scope not in ("local", "register"):
                    found.setdefault(view_of(buffer), buffer)
    return found


def local_views(body: Sequence[Stmt], name: str) -> list[Buffer]:
    found: dict[View, Buffer] = {}
    for step in statements(*body):
        if isinstance(step, Store | Update):
            for buffer in (step.buffer, *(e.buffer for e in walk(step.value) if isinstance(e, Load))):
                if buffer.name == name:
                    found.setdefault(view_of(buffer), buffer)
    return list(found.values())


def sees_its_own_writes(step: Store | Update, lanes: Axis) -> bool:
    """Whether a lane may read what another lane of the same statement writes."""
    loads = [e for e in walk(step.value) if isinstance(e, Load) and e.buffer.name == step.buffer.name]
    written = address(step.index, step.buffer)
    return any(_meet(written, address(e.index, e.buffer), lanes) for e in loads)


def _meet(one: Affine | None, other: Affine | None, lanes: Axis) -> bool:
    """Whether two lanes may mean the same element by these addresses."""
    if one is None or other is None:
        return True
    apart, step = other + one * -1, one.coefficient(lanes)
    if apart.terms or step == 0:
        return True
    return apart.constant != 0 and apart.constant % step == 0 and abs(apart.constant // step) < lanes.extent
