"""Loop nests -> OpenCL C.

What holds here:
- Each piece of a nest (a parallel loop with what is in it, or what stands between such loops) is a kernel. One
  work-item runs some iterations of the parallel loop; buffers are pointers to their first elements.
- A vector loop becomes vectors where all of its statement is float32 or float64 and lies side by side in memory, else a
  loop over the lanes around each statement, since all lanes of a statement come before the next one.
- Loops that are unrolled say so; registers are private arrays, which compilers keep in registers once they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tracedsl.hw.opencl.prelude import prelude
from tracedsl.hw.opencl.scalars import MEMORY, TYPES, VECTOR_OPS, C, Lanes, scalar
from tracedsl.hw.text.expressions import Expressions, affine, bare, may_be_outside
from tracedsl.hw.text.pieces import Names, pieces, sees_its_own_writes, views
from tracedsl.hw.text.statements import Writer, coordinates
from tracedsl.ir.expr import Affine, Axis, Buffer, Call, Const, Expr, Load, address, walk
from tracedsl.ir.loops import Alloc, For, LoopProgram, Stmt, Store, Update, When

_RESERVED = frozenset((*TYPES.values(), *MEMORY.values(), *VECTOR_OPS, "for", "if", "else", "const", "kernel", "global",
                       "local", "private", "constant", "return", "point", "end", "do", "while", "switch", "case", "T",
                       "V", "W", "BITS", "OVER", "NAN", "INFINITY", "signed", "unsigned", "void", "static", "inline"))
_WIDTHS = (16, 8, 4, 2)


@dataclass(frozen=True)
class Launch:
    """One kernel: its name, how many work-items it has, the buffers it takes."""

    name: str
    items: int
    buffers: tuple[str, ...]


def emit_program(program: LoopProgram, grains: int) -> tuple[str, tuple[Launch, ...]]:
    """The program's text and its launches in order; a parallel loop is cut into about `grains` work-items.

    Raises TracedslError (H020) if an operation is not defined.
    """
    names = Names(set(_RESERVED))
    owners = {b.name: b for b in (*program.params, *program.results, *program.temps)}
    written, launches = [], []
    for nest in program.nests:
        for axes, body in pieces(nest.body):
            buffers = {view[0]: owners[view[0]] for view in views(body)}
            points = math.prod(axis.extent for axis in axes)
            grain = -(-points // grains)
            name = names.new(f"nest_{nest.name}")
            written.append(_Kernel(name, axes, buffers, grain).text(body))
            launches.append(Launch(name, -(-points // grain), tuple(buffers)))
    kernels = "\n".join(written)
    return f"{prelude(kernels)}\n{kernels}", tuple(launches)


class _Kernel(Writer):
    """The text of one kernel."""

    indent = "  "

    def __init__(self, name: str, axes: tuple[Axis, ...], buffers: dict[str, Buffer], grain: int) -> None:
        self._name, self._axes, self._buffers, self._grain = name, axes, buffers, grain
        super().__init__(Names({*_RESERVED, name}))
        self._pointers = {owner: self._names.of(owner, owner) for owner in buffers}
        self._scalars: dict[str, str] = {}
        self._vectors: dict[str, int] = {}      # private arrays of vectors: how many lanes each has
        self._index = "long" if any(b.length >= 1 << 31 for b in buffers.values()) else "int"
        self._expressions = Expressions(C(), self._line, self._block, self._names, self._axis, self._element)

    def text(self, body: Sequence[Stmt]) -> str:
        params = ", ".join(f"__global {MEMORY[b.dtype]} *restrict {self._pointers[owner]}"
                           for owner, b in self._buffers.items())
        for owner, b in self._buffers.items():
            if low := sum(min(0, (n - 1) * s) for n, s in zip(b.shape, b.strides)):
                self._line(f"{self._pointers[owner]} += {-low};     // memory is given from its lowest address")
        if self._axes:
            self._points(body)
        else:
            self._steps(body)
        return "\n".join([f"__kernel void {self._name}({params}) {{", *self._lines, "}"]) + "\n"

    @contextmanager
    def _block(self, head: str) -> Iterator[None]:
        self._line(f"{head} {{")
        self._depth += 1
        yield
        self._depth -= 1
        self._line("}")

    def _points(self, body: Sequence[Stmt]) -> None:
        """The parallel loops as one, of which this work-item has a part."""
        total = math.prod(axis.extent for axis in self._axes)
        self._line(f"const long end = min((long){total}, ((long)get_global_id(0) + 1) * {self._grain});")
        with self._block(f"for (long point = get_global_id(0) * {self._grain}L; point < end; ++point)"):
            for axis, at in coordinates(self._axes, "point", "/"):
                self._line(f"const {self._index} {self._axis(axis)} = {at};")
            self._steps(body)

    # -- statements ---------------------------------------------------------------------------------------------------

    def _when(self, position: str) -> str:
        return f"if ({position} >= 0)"

    def _loop(self, step: For) -> None:
        axis = step.axis
        if axis.extent == 0:
            return
        end = str(axis.extent) if step.until is None else \
            f"min(({self._index}){axis.extent}, ({self._index})({affine(step.until, self._axis)}))"
        if step.kind == "unroll":
            self._line(f"__attribute__((opencl_unroll_hint({axis.extent})))")
        with self._block(self._counting(axis, end)):
            self._steps(step.body)

    def _counting(self, axis: Axis, end: str | int) -> str:
        name = self._axis(axis)
        return f"for ({self._index} {name} = 0; {name} < {end}; ++{name})"

    def _alloc(self, step: Alloc) -> None:
        buffer = step.buffer
        name = self._names.new(buffer.name)
        if not buffer.shape:
            self._line(f"{TYPES[buffer.dtype]} {name};")
            self._scalars[buffer.name] = name
        elif width := self._as_vectors(step):
            self._line(f"{TYPES[buffer.dtype]}{width} {name}[{-(-buffer.length // width)}];")
            self._pointers[buffer.name], self._vectors[buffer.name] = name, width
        else:
            self._line(f"{MEMORY[buffer.dtype].replace('half', 'ushort')} {name}[{max(buffer.length, 1)}];")
            self._pointers[buffer.name] = f"((half *){name})" if buffer.dtype == "float16" else name
        self._steps(step.body)
        self._scalars.pop(buffer.name, None)
        self._vectors.pop(buffer.name, None)

    def _as_vectors(self, step: Alloc) -> int:
        """The lanes of each element if a register buffer is read and written in whole vectors alone; else 0. As an
        array of vectors it is one that compilers keep in registers."""
        if step.buffer.scope != "register":
            return 0
        widths = set(self._widths_of(step.buffer.name, step.body, None))
        return widths.pop() if len(widths) == 1 else 0

    def _widths_of(self, name: str, body: Sequence[Stmt], lanes: Axis | None) -> Iterator[int]:
        """For each access of a buffer, how many lanes it takes; 0 for one that is no whole vector."""
        for step in body:
            if isinstance(step, Store | Update):
                places = [address(e.index, e.buffer) for e in walk(step.value)
                          if isinstance(e, Load) and e.buffer.name == name]
                places += [address(step.index, step.buffer)] if step.buffer.name == name else []
                vector = 0 if lanes is None or sees_its_own_writes(step, lanes) else self._width(step, lanes)
                yield from (vector if vector and _whole(place, lanes, vector) else 0 for place in places)
            elif isinstance(step, For | When | Alloc):
                inner = step.axis if isinstance(step, For) and step.kind == "vector" else lanes
                yield from self._widths_of(name, step.body, inner)

    def _write(self, step: Store | Update) -> None:
        """One element, or one a lane; where lanes could see each other's writes, all values come first."""
        lanes = self._lanes
        if lanes is None:
            self._write_one(step)
        elif lanes.extent and sees_its_own_writes(step, lanes):
            self._write_in_two_steps(step, lanes)
        elif width := self._width(step, lanes):
            for first in range(0, lanes.extent, width):
                self._write_lanes(step, lanes, first, width)
        elif lanes.extent:
            with self._block(self._counting(lanes, lanes.extent)):
                self._write_one(step)

    def _write_in_two_steps(self, step: Store | Update, lanes: Axis) -> None:
        kept, lane = self._names.new("lanes"), self._axis(lanes)
        self._line(f"{TYPES[step.buffer.dtype]} {kept}[{lanes.extent}];")
        with self._block(self._counting(lanes, lanes.extent)):
            self._line(f"{kept}[{lane}] = {bare(self._expressions.text(step.value))};")
        with self._block(self._counting(lanes, lanes.extent)):
            self._assign(step, f"{kept}[{lane}]")

    def _write_one(self, step: Store | Update) -> None:
        if isinstance(step, Update) and (fused := self._fused(step)):
            self._assign_value(step.buffer, step.index, fused)
        else:
            self._assign(step, self._expressions.text(step.value))

    def _fused(self, step: Update) -> str:
        """A sum of products with one rounding a step; empty for anything else."""
        value = step.value
        if step.combine != "add" or step.buffer.dtype not in ("float32", "float64") or not isinstance(value, Call) \
                or value.op != "mul":
            return ""
        a, b = (bare(self._expressions.text(arg)) for arg in value.args)
        return f"fma({a}, {b}, {self._element(step.buffer, step.index)})"

    def _assign(self, step: Store | Update, value: str) -> None:
        if isinstance(step, Update):
            old = self._element(step.buffer, step.index)
            value = scalar(step.combine, step.buffer.dtype, (old, value))
        self._assign_value(step.buffer, step.index, value)

    def _assign_value(self, buffer: Buffer, index: Sequence[Affine | str], value: str) -> None:
        value = bare(value)
        if buffer.name in self._scalars:
            self._line(f"{self._scalars[buffer.name]} = {value};")
        elif buffer.dtype == "float16":
            self._line(f"vstore_half_rte({value}, {self._offset(buffer, index)}, {self._pointers[buffer.name]});")
        else:
            self._line(f"{self._pointers[buffer.name]}[{self._offset(buffer, index)}] = {value};")

    def _element(self, buffer: Buffer, index: Sequence[Affine | str]) -> str:
        if buffer.name in self._scalars:
            return self._scalars[buffer.name]
        if buffer.dtype == "float16":
            return f"vload_half({self._offset(buffer, index)}, {self._pointers[buffer.name]})"
        return f"{self._pointers[buffer.name]}[{self._offset(buffer, index)}]"

    def _offset(self, buffer: Buffer, index: Sequence[Affine | str]) -> str:
        """How far from the first element, in elements."""
        known = Affine()
        computed = []
        for at, stride in zip(index, buffer.strides, strict=True):
            if isinstance(at, Affine):
                known = known + at * stride
            else:
                computed.append(f"(long){at} * {stride}")
        return " + ".join([affine(known, self._axis), *computed])

    # -- lanes --------------------------------------------------------------------------------------------------------

    def _width(self, step: Store | Update, lanes: Axis) -> int:
        """How many lanes one vector takes; 0 where vectors do not do it."""
        dtype = step.buffer.dtype
        if dtype not in ("float32", "float64") or step.buffer.name in self._scalars:
            return 0
        place = address(step.index, step.buffer)
        if place is None or place.coefficient(lanes) != 1 or not all(_on_lanes(e, dtype, lanes)
                                                                     for e in walk(step.value)):
            return 0
        return next((width for width in _WIDTHS if lanes.extent % width == 0), 0)

    def _write_lanes(self, step: Store | Update, lanes: Axis, first: int, width: int) -> None:
        """Lanes `first` to `first + width`, as one vector."""
        buffer, dialect = step.buffer, Lanes(step.buffer.dtype, width)

        def element(of: Buffer, index: Sequence[Affine | str]) -> str:
            if of.name in self._scalars:
                return f"({dialect.type})({self._scalars[of.name]})"
            place = address([at for at in index if isinstance(at, Affine)], of)
            assert place is not None
            if of.name in self._vectors:
                return self._vector(of, place, lanes, first)
            pointer, at = self._pointers[of.name], affine(_without(place, lanes, first), self._axis)
            if place.coefficient(lanes) == 0:
                return f"({dialect.type})({pointer}[{at}])"
            return f"vload{width}(0, {pointer} + {at})"

        expressions = Expressions(dialect, self._line, self._block, self._names, self._axis, element)
        old = element(buffer, step.index)
        value = step.value
        if isinstance(step, Update) and step.combine == "add" and isinstance(value, Call) and value.op == "mul":
            a, b = (bare(expressions.text(arg)) for arg in value.args)
            text = f"fma({a}, {b}, {old})"
        else:
            text = expressions.text(value)
            if isinstance(step, Update):
                text = dialect.scalar(step.combine, buffer.dtype, (old, text))
        place = address(step.index, buffer)
        assert place is not None
        if buffer.name in self._vectors:
            self._line(f"{self._vector(buffer, place, lanes, first)} = {bare(text)};")
            return
        at = affine(_without(place, lanes, first), self._axis)
        self._line(f"vstore{width}({bare(text)}, 0, {self._pointers[buffer.name]} + {at});")


    def _vector(self, buffer: Buffer, place: Affine, lanes: Axis, first: int) -> str:
        """The element of a private array of vectors."""
        width, at = self._vectors[buffer.name], _without(place, lanes, first)
        terms = tuple((axis, factor // width) for axis, factor in at.terms)
        return f"{self._pointers[buffer.name]}[{affine(Affine(terms, at.constant // width), self._axis)}]"


def _whole(place: Affine | None, lanes: Axis | None, width: int) -> bool:
    """Whether the lanes at a place are one element of an array of vectors."""
    return place is not None and lanes is not None and place.coefficient(lanes) == 1 and place.constant % width == 0 \
        and all(factor % width == 0 for axis, factor in place.terms if axis != lanes)


def _without(place: Affine, lanes: Axis, first: int) -> Affine:
    """The position of lane `first`."""
    return place.substitute({lanes: Affine((), first)})


def _on_lanes(expr: Expr, dtype: str, lanes: Axis) -> bool:
    """Whether a part of an expression can be a vector."""
    match expr:
        case Const():
            return expr.dtype == dtype
        case Load():
            place = address(expr.index, expr.buffer)
            return expr.dtype == dtype and place is not None and place.coefficient(lanes) in (0, 1) \
                and not may_be_outside(expr)
        case Call():
            return expr.op in VECTOR_OPS and all(arg.dtype in (dtype, "bool") for arg in expr.args)
        case _:
            return False
