"""Loop nests -> Python source for Numba.

What holds here:
- `emit_program` gives one text: a function a piece of a nest (a parallel loop with what is in it, or what stands
  between such loops), and `run`, which calls them in order on the program's params and results.
- The text is the loop nest, read aloud: parallel loops are `prange`, all others `range`; registers without dimensions
  are variables, tiles of registers small arrays. A vector loop becomes a loop over the lanes around each statement in
  it, because all lanes of a statement come before the next one.
- It runs without Numba too, slowly, if `njit` and `prange` do nothing: the tests use that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from tracedsl.hw.numba import semantics
from tracedsl.hw.numba.scalars import Python, scalar
from tracedsl.hw.text.expressions import Expressions, affine, bare
from tracedsl.hw.text.pieces import Names, View, local_views, pieces, sees_its_own_writes, view_of, views
from tracedsl.hw.text.statements import Writer, coordinates
from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Affine, Axis, Buffer
from tracedsl.ir.loops import Alloc, For, LoopProgram, Stmt, Store, Update

FUNCTIONS = tuple(sorted(name for name, value in vars(semantics).items()
                         if callable(value) and getattr(value, "__module__", "") == semantics.__name__))
_RESERVED = frozenset((*FUNCTIONS, "np", "math", "njit", "prange", "range", "min", "abs", "run", "as_strided"))


def header(body: str) -> str:
    """The imports that a body needs to stand in a file of its own."""
    used = [name for name in FUNCTIONS if re.search(rf"\b{name}\(", body)]
    lines = ["import math\n"] * ("math." in body) + ["import numpy as np\n", "from numba import njit, prange\n"]
    lines += ["from numpy.lib.stride_tricks import as_strided\n"] * ("as_strided(" in body)
    lines += [f"from tracedsl.hw.numba.semantics import {', '.join(used)}\n"] * bool(used)
    return "".join(lines)


def emit_program(program: LoopProgram) -> str:
    """The program's text, without the imports. Raises TracedslError (H020) if an operation is not defined."""
    owners = {b.name: b for b in (*program.params, *program.results, *program.temps)}
    names = Names(set(_RESERVED))
    given = {name: names.of(name, name) for name in owners}
    written, calls = [], []
    for nest in program.nests:
        for axes, body in pieces(nest.body):
            seen = views(body)
            function = names.new(nest.name)
            written.append(_Function(function, axes, seen, given).text(body))
            calls.append((function, seen))
    return "\n\n".join([*written, _run(program, calls, owners, given)])


def _run(program: LoopProgram, calls: Sequence[tuple[str, Iterable[View]]], owners: dict[str, Buffer],
         given: dict[str, str]) -> str:
    """The function that does everything: temporaries, views, the pieces in order."""
    params = ", ".join(given[b.name] for b in (*program.params, *program.results))
    lines = ["@njit", f"def run({params}):"]
    lines += [f"    {given[b.name]} = {allocated(b)}" for b in program.temps]
    for function, seen in calls:
        arguments = [given[view[0]] if view == view_of(owners[view[0]]) else strided(given[view[0]], view,
                     BYTES[owners[view[0]].dtype]) for view in seen]
        lines.append(f"    {function}({', '.join(arguments)})")
    return "\n".join(lines if len(lines) > 2 else [*lines, "    pass"]) + "\n"


def memory_dtype(dtype: str) -> str:
    """float16 lies in memory as its bits."""
    return "uint16" if dtype == "float16" else "bool_" if dtype == "bool" else dtype


def allocated(buffer: Buffer) -> str:
    """New memory for a buffer, in its layout."""
    kind = f"np.{memory_dtype(buffer.dtype)}"
    if buffer.strides == Buffer.row_major("", buffer.dtype, buffer.shape).strides:
        return f"np.empty({_tuple(buffer.shape)}, {kind})"
    size = 1 + sum((n - 1) * s for n, s in zip(buffer.shape, buffer.strides))
    return strided(f"np.empty({max(size, 1)}, {kind})", view_of(buffer), BYTES[buffer.dtype])


def strided(name: str, view: View, size: int) -> str:
    return f"as_strided({name}, {_tuple(view[1])}, {_tuple([s * size for s in view[2]])})"


def _tuple(numbers: Iterable[int]) -> str:
    return repr(tuple(numbers))


# -- one function -----------------------------------------------------------------------------------------------------


class _Function(Writer):
    """The text of one piece."""

    def __init__(self, name: str, axes: tuple[Axis, ...], seen: dict[View, Buffer], given: dict[str, str]) -> None:
        self._name, self._axes = name, axes
        super().__init__(Names({*_RESERVED, name}))
        self._arrays = {view: self._names.of(view, given[view[0]]) for view in seen}
        self._scalars: dict[str, str] = {}
        self._expressions = Expressions(Python(), self._line, self._block, self._names, self._axis, self._element)

    def text(self, body: Sequence[Stmt]) -> str:
        parallel = math.prod(axis.extent for axis in self._axes) > 1
        if self._axes:
            self._points()
        self._steps(body)
        options = 'parallel=True, error_model="numpy"' if parallel else 'error_model="numpy"'
        head = [f"@njit({options})", f"def {self._name}({', '.join(self._arrays.values())}):"]
        return "\n".join([*head, *(self._lines or ["    pass"])]) + "\n"

    @contextmanager
    def _block(self, head: str) -> Iterator[None]:
        """What is written inside stands below `head`."""
        self._line(head)
        self._depth += 1
        start = len(self._lines)
        yield
        if len(self._lines) == start:
            self._line("pass")
        self._depth -= 1

    def _points(self) -> None:
        """The parallel loops as one, whose number gives the axes (as signed integers: Numba's are not)."""
        point = self._names.new("point")
        self._line(f"for {point} in prange({math.prod(axis.extent for axis in self._axes)}):")
        self._depth += 1
        for axis, at in coordinates(self._axes, f"np.int64({point})", "//"):
            self._line(f"{self._axis(axis)} = {at}")

    # -- statements ---------------------------------------------------------------------------------------------------

    def _when(self, position: str) -> str:
        return f"if {position} >= 0:"

    def _loop(self, step: For) -> None:
        if step.axis.extent == 0:
            return
        end = str(step.axis.extent) if step.until is None else \
            f"min({step.axis.extent}, {affine(step.until, self._axis)})"
        with self._block(f"for {self._axis(step.axis)} in range({end}):"):
            self._steps(step.body)

    def _alloc(self, step: Alloc) -> None:
        buffer = step.buffer
        shapes = [b for b in local_views(step.body, buffer.name) if view_of(b) != view_of(buffer)]
        if not buffer.shape and not shapes:
            self._scalars[buffer.name] = self._names.of(buffer, buffer.name)
            self._steps(step.body)
            return
        name = self._names.of(buffer, buffer.name)
        self._line(f"{name} = {allocated(buffer)}")
        self._arrays[view_of(buffer)] = name
        for other in shapes:
            if view_of(other) not in self._arrays:
                self._arrays[view_of(other)] = self._names.new(buffer.name)
                self._line(f"{self._arrays[view_of(other)]} = {strided(name, view_of(other), BYTES[other.dtype])}")
        self._steps(step.body)
        for view in {view_of(buffer), *map(view_of, shapes)}:
            self._arrays.pop(view, None)

    def _write(self, step: Store | Update) -> None:
        """One element, or one a lane; where lanes could see each other's writes, all values come first."""
        if self._lanes is None:
            self._write_one(step)
        elif self._lanes.extent and not sees_its_own_writes(step, self._lanes):
            with self._block(f"for {self._axis(self._lanes)} in range({self._lanes.extent}):"):
                self._write_one(step)
        elif self._lanes.extent:
            self._write_in_two_steps(step, self._lanes)

    def _write_in_two_steps(self, step: Store | Update, lanes: Axis) -> None:
        kept, lane = self._names.new("lanes"), self._axis(lanes)
        self._line(f"{kept} = np.empty({lanes.extent}, np.{memory_dtype(step.buffer.dtype)})")
        with self._block(f"for {lane} in range({lanes.extent}):"):
            self._line(f"{kept}[{lane}] = {self._stored(step.buffer, self._expressions.text(step.value))}")
        with self._block(f"for {lane} in range({lanes.extent}):"):
            value = f"half_value({kept}[{lane}])" if step.buffer.dtype == "float16" else f"{kept}[{lane}]"
            self._assign(step, value)

    def _write_one(self, step: Store | Update) -> None:
        self._assign(step, self._expressions.text(step.value))

    def _assign(self, step: Store | Update, value: str) -> None:
        buffer, index = step.buffer, step.index
        if isinstance(step, Update):
            value = scalar(step.combine, buffer.dtype, (self._element(buffer, index), value))
        value = bare(value)
        if buffer.name in self._scalars:
            self._line(f"{self._scalars[buffer.name]} = {value}")
        else:
            self._line(f"{self._place(buffer, index)} = {self._stored(buffer, value)}")

    def _stored(self, buffer: Buffer, value: str) -> str:
        return f"half_bits({value})" if buffer.dtype == "float16" else value

    def _element(self, buffer: Buffer, index: Sequence[Affine | str]) -> str:
        """The value of an element."""
        if buffer.name in self._scalars:
            return self._scalars[buffer.name]
        place = self._place(buffer, index)
        return f"half_value({place})" if buffer.dtype == "float16" else place

    def _place(self, buffer: Buffer, index: Sequence[Affine | str]) -> str:
        at = [affine(i, self._axis) if isinstance(i, Affine) else i for i in index]
        return f"{self._arrays[view_of(buffer)]}[{', '.join(at) or '()'}]"
