"""Statements of a piece of a nest as text: the walk that every language shares.

What holds here: lines come in the order of the nest. A vector loop is no loop of the text: its axis is `_lanes` while
its body is written, and each statement in it is written for all lanes before the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from tracedsl.hw.text.expressions import affine
from tracedsl.hw.text.pieces import Names
from tracedsl.ir.expr import Axis
from tracedsl.ir.loops import Alloc, For, Stmt, Store, Update, When


class Writer:
    """The lines of one function. A language gives `_block`, `_when`, `_loop`, `_alloc` and `_write`."""

    indent = "    "

    def __init__(self, names: Names) -> None:
        self._names = names
        self._lines: list[str] = []
        self._depth = 1
        self._lanes: Axis | None = None

    def _line(self, line: str) -> None:
        self._lines.append(self.indent * self._depth + line)

    def _axis(self, axis: Axis) -> str:
        return self._names.of(axis, axis.name)

    def _steps(self, body: Sequence[Stmt]) -> None:
        for step in body:
            match step:
                case For(kind="vector"):
                    self._lanes = step.axis
                    self._steps(step.body)
                    self._lanes = None
                case For():
                    self._loop(step)
                case When():
                    with self._block(self._when(affine(step.position, self._axis))):
                        self._steps(step.body)
                case Alloc():
                    self._alloc(step)
                case Store() | Update():
                    self._write(step)
                case _:
                    raise TypeError(f"unknown statement {type(step).__name__}")

    def _block(self, head: str) -> AbstractContextManager[None]:
        """What is written inside stands below `head`."""
        raise NotImplementedError

    def _when(self, position: str) -> str:
        """The head of what is done where a position is not negative."""
        raise NotImplementedError

    def _loop(self, step: For) -> None:
        raise NotImplementedError

    def _alloc(self, step: Alloc) -> None:
        raise NotImplementedError

    def _write(self, step: Store | Update) -> None:
        raise NotImplementedError


def coordinates(axes: Sequence[Axis], point: str, divide: str) -> Iterator[tuple[Axis, str]]:
    """Where the parallel loops stand at a point of all of them, numbered as one; the innermost comes first."""
    inner = 1
    for axis in reversed(axes):
        at = point if inner == 1 else f"{point} {divide} {inner}"
        yield axis, at + (f" % {axis.extent}" if axis != axes[0] else "")
        inner *= axis.extent
