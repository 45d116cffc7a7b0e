"""Loop nests -> LLVM IR text: functions, loops, statements.

What holds here:
- `emit_program` gives one module. Each nest becomes functions `void NAME(ptr buffers, i64 begin, i64 end)` over a part
  of its parallel iterations; `void run(ptr buffers)` calls them in order. `buffers` points to the addresses of the
  program's params, results and temps, in this order.
- The text needs no optimisation passes: values are SSA from the start (never allocas), what does not change in a loop
  stands before it, vector loops are vectors, unrolled loops are repeated.
- Buffers of different names do not overlap. Extents are known; a loop that runs not at all leaves nothing behind.
- The result does not depend on how parallel iterations are handed out. Sums over lanes are added in one fixed order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tracedsl.hw.cpu.abi import ENTRY, PARALLEL_FOR
from tracedsl.hw.cpu.codegen_error import malformed
from tracedsl.hw.cpu.codegen_expr import Expressions
from tracedsl.hw.cpu.codegen_memory import Bindings, Group, Memory, flat
from tracedsl.hw.cpu.codegen_place import Places
from tracedsl.hw.cpu.codegen_registers import Registers
from tracedsl.hw.cpu.codegen_scalar import scalar
from tracedsl.hw.cpu.codegen_tensor import Tensorizer
from tracedsl.hw.cpu.emitter import ModuleEmitter, Param, Value, constant
from tracedsl.hw.cpu.intrinsics import available
from tracedsl.hw.cpu.irtypes import OF_DTYPE, lanes
from tracedsl.hw.cpu.machine import Machine
from tracedsl.ir.expr import Affine, Axis, Buffer, Call, Load, walk
from tracedsl.ir.loops import Alloc, For, LoopProgram, Nest, Stmt, Store, Update, When, statements

# A launch shorter than this stays with the caller. Threads that still spin cost a microsecond; threads that sleep cost
# a system call and come up to 90 us later, when the caller may have done their part. Work is guessed from what one core
# does at least when nothing is in its way.
_PARALLEL_FROM_US = 25.0
# A thread takes a chunk of iterations at a time: `_CHUNKS` for each core, so that a core that is late does not hold up
# the others, but none so short that the caches' prefetchers start anew all the time.
_CHUNKS = 4
_CHUNK_US = 20.0
_LONG_CHUNK_US = 100.0
_FLOPS_PER_US = 20_000.0
_BYTES_PER_US = 20_000.0


@dataclass(frozen=True)
class Piece:
    """A part of a nest that becomes one function: `axes` are the parallel loops that are split among threads."""

    name: str
    axes: tuple[Axis, ...]
    body: tuple[Stmt, ...]

    @property
    def iterations(self) -> int:
        return math.prod(axis.extent for axis in self.axes)


def emit_program(program: LoopProgram, machine: Machine, *, contract: bool = True) -> str:
    """The module's text. `contract` allows a * b + c to be rounded once where it feeds a sum.

    Raises TracedslError (H020) if the program is not well formed.
    """
    module = ModuleEmitter(program.name, machine.feature_names(), machine.function_attributes(), machine.lacks)
    buffers = (*program.params, *program.results, *program.temps)
    slots = {buffer.name: slot for slot, buffer in reversed(list(enumerate(buffers)))}
    calls: list[tuple[Nest, Piece]] = []
    names = _unique_names([nest.name for nest in program.nests])
    for nest, name in zip(program.nests, names, strict=True):
        for piece in _pieces(nest, name):
            _Function(module, piece, slots, machine, contract).emit()
            calls.append((nest, piece))
    _emit_entry(module, calls, machine)
    return module.text()


def _unique_names(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        plain = f"nest_{_hint(name)}"
        seen[plain] = count = seen.get(plain, 0) + 1
        result.append(plain if count == 1 else f"{plain}.{count}")
    return result


def _pieces(nest: Nest, name: str) -> Iterator[Piece]:
    """Each parallel loop at the top with those perfectly inside of it; what stands between them in one piece."""
    groups: list[list[Stmt]] = []
    for step in nest.body:
        if not groups or _is_parallel(step) or _is_parallel(groups[-1][0]):
            groups.append([])
        groups[-1].append(step)
    for number, group in enumerate(groups):
        axes, body = [], tuple(group)
        while len(body) == 1 and isinstance(step := body[0], For) and step.kind == "parallel":
            axes.append(step.axis)
            body = step.body
        piece = Piece(name if number == 0 else f"{name}.part{number + 1}", tuple(axes), body)
        if piece.iterations:
            yield piece


def _hint(name: str) -> str:
    """A name as LLVM takes it without quotes, and that no number of its own can be taken for."""
    return re.sub(r"\W+", "_", name) if re.match(r"[A-Za-z_]", name) else "x" + re.sub(r"\W+", "_", name)


def _is_parallel(step: Stmt) -> bool:
    return isinstance(step, For) and step.kind == "parallel"


def microseconds(nest: Nest) -> float:
    """What one launch is guessed to take on one core."""
    return max(nest.flops / _FLOPS_PER_US, nest.bytes / _BYTES_PER_US)


def _emit_entry(module: ModuleEmitter, calls: Iterable[tuple[Nest, Piece]], machine: Machine) -> None:
    f = module.function(ENTRY, params=[Param("buffers", "ptr")], attributes="nounwind")
    buffers = f.params[0]
    for nest, piece in calls:
        n = constant("i64", piece.iterations)
        took = microseconds(nest)
        if piece.iterations > 1 and machine.cores > 1 and took >= _PARALLEL_FROM_US:
            chunk = max(_CHUNK_US, min(took / (_CHUNKS * machine.cores), _LONG_CHUNK_US))
            grain = max(1, min(piece.iterations // machine.cores, round(piece.iterations * chunk / took)))
            f.call_void(PARALLEL_FOR, [Value(f"@{piece.name}", "ptr"), buffers, n, constant("i64", grain)])
        else:
            f.call_void(piece.name, [buffers, constant("i64", 0), n])
    f.ret()


class _Function:
    """One piece of a nest under construction."""

    def __init__(self, module: ModuleEmitter, piece: Piece, slots: dict[str, int], machine: Machine,
                 contract: bool) -> None:
        params = [Param("buffers", "ptr", "noalias readonly"), Param("begin", "i64"), Param("end", "i64")]
        self._f = f = module.function(piece.name, params=params, linkage="internal",
                                      attributes=machine.function_attributes())
        self._piece, self._slots, self._contract = piece, slots, contract
        self._places = Places(f)
        self._bindings = Bindings()
        self._memory = Memory(self._places, self._bindings)
        self._registers = Registers(self._places, self._bindings)
        self._expressions = Expressions(self._places, self._bindings, self._memory, self._registers)
        self._tensorizer = Tensorizer(available(machine), self._places, self._bindings, self._expressions)
        self._written: dict[int, frozenset[str]] = {}

    def emit(self) -> None:
        f, piece = self._f, self._piece
        self._load_addresses()
        _, begin, end = f.params
        if not piece.axes:
            self._run(piece.body)
        else:
            work, done = f.label("work"), f.label("done")
            f.cond_br(f.icmp("slt", begin, end), work, done)
            f.start(work)
            self._loop("i", begin, end, piece.body, lambda index: self._bind_flat(piece.axes, index))
            f.br(done)
            f.start(done)
        f.ret()

    def _load_addresses(self) -> None:
        """The addresses of the buffers that the piece uses, each loaded once, in the entry block."""
        used: dict[str, Buffer] = {}
        for step in statements(*self._piece.body):
            if isinstance(step, Store | Update):
                loads = [e.buffer for e in walk(step.value) if isinstance(e, Load)]
                used |= {b.name: b for b in (*loads, step.buffer) if b.scope not in ("local", "register")}
        for name, buffer in used.items():
            if name not in self._slots:
                raise malformed(f"buffer {name!r} is no param, result or temp of the program")
            at = self._f.gep(self._f.params[0], self._slots[name], "ptr") if self._slots[name] else self._f.params[0]
            self._memory.add(buffer, self._f.instruction(f"load ptr, {at}, align 8", "ptr", _hint(name)))

    # -- statements -----------------------------------------------------------------------------------------------

    def _run(self, body: Sequence[Stmt]) -> None:
        for step in body:
            match step:
                case For():
                    self._for(step)
                case When():
                    self._when(step)
                case Alloc():
                    self._alloc(step)
                case Store():
                    self._write(step.buffer, step.index, self._expressions.value(step.value))
                case Update():
                    self._update(step)
                case _:
                    raise malformed(f"unknown statement {type(step).__name__}")

    def _alloc(self, step: Alloc) -> None:
        buffer = step.buffer
        if buffer.scope == "register":
            self._registers.add(buffer)
            self._run(step.body)
            self._registers.remove(buffer)
            return
        if buffer not in self._memory:
            self._memory.add(buffer, self._f.alloca(OF_DTYPE[buffer.dtype], max(1, buffer.length)))
        self._run(step.body)

    def _write(self, buffer: Buffer, index: tuple[Affine, ...], value: Value) -> None:
        if buffer not in self._registers:
            self._memory.store(buffer, index, value)
            return
        run = self._registers.run(buffer, index)
        if run.lanes == 1 and lanes(value.type) > 1:
            value = self._places.lane(value, lanes(value.type) - 1)
        self._registers.write(buffer.name, run, self._places.splat(value, run.lanes))

    def _read(self, buffer: Buffer, index: tuple[Affine, ...]) -> Value:
        if buffer in self._registers:
            return self._registers.read(buffer.name, self._registers.run(buffer, index))
        return self._memory.load(buffer, index, (), None)

    def _update(self, step: Update) -> None:
        """buffer[index] = combine(buffer[index], value); the lanes are combined first if the target has none."""
        vector, dtype = self._bindings.vector, step.buffer.dtype
        old = self._read(step.buffer, step.index)
        if vector is not None and flat(step.buffer, step.index).coefficient(vector) == 0:
            new = self._combine_lanes(step.combine, dtype, self._expressions.value(step.value))
            new = self._expressions.apply(step.combine, dtype, old, new)
        elif factors := self._factors(step):
            new = self._fused(*factors, old)
        else:
            new = self._expressions.apply(step.combine, dtype, old, self._expressions.value(step.value))
        self._write(step.buffer, step.index, new)

    def _factors(self, step: Update) -> tuple[Value, Value] | None:
        """a and b, if the value is a product a * b that may be added to a sum without being rounded."""
        value = step.value
        if self._contract and step.combine == "add" and isinstance(value, Call) and value.op == "mul" and (
                value.dtype in ("float32", "float64")):
            a, b = map(self._expressions.value, value.args)
            return a, b
        return None

    def _fused(self, a: Value, b: Value, c: Value) -> Value:
        n = max(lanes(v.type) for v in (a, b, c))
        args = [self._places.splat(v, n) for v in (a, b, c)]
        return self._places.place(lambda *abc: self._f.intrinsic("llvm.fmuladd", abc), *args, level=self._places.depth)

    def _combine_lanes(self, combine: str, dtype: str, value: Value) -> Value:
        """All lanes in one, halves with halves: the order is fixed by the number of lanes alone."""
        places, value = self._places, self._places.splat(value, self._bindings.lanes)

        def combined(a: Value, b: Value) -> Value:
            return places.place(lambda a, b: scalar(self._f, combine, dtype, [a, b]), a, b)

        odd: list[Value] = []
        while (n := lanes(value.type)) > 1:
            half = n // 2
            if n % 2:
                odd.append(places.lane(value, n - 1))
            low, high = (self._part(value, start, half) for start in (0, half))
            value = combined(low, high)
        for other in reversed(odd):
            value = combined(value, other)
        return value

    def _part(self, value: Value, start: int, count: int) -> Value:
        if count == 1:
            return self._places.lane(value, start)
        return self._places.shuffle(value, range(start, start + count))

    # -- loops ----------------------------------------------------------------------------------------------------

    def _for(self, step: For) -> None:
        axis = step.axis
        if axis.extent == 0:
            return
        if step.kind == "tensor" and (match := self._tensorizer.match(step)) is not None:
            update = match.update
            sums = self._places.splat(self._read(update.buffer, update.index), self._bindings.lanes)
            self._write(update.buffer, update.index, self._tensorizer.emit(match, sums))
        elif step.kind == "unroll" and (group := self._memory.group_of(step)) is not None:
            self._store_group(step, group)
        elif axis.extent == 1 or step.kind in ("unroll", "tensor"):
            for number in range(axis.extent):
                self._bindings.numbers[axis] = number
                self._run(step.body)
            del self._bindings.numbers[axis]
        elif step.kind == "vector":
            if self._bindings.vector is not None:
                raise malformed(f"vector loop {axis.name!r} stands inside of another one")
            self._bindings.vector = axis
            self._run(step.body)
            self._bindings.vector = None
        else:
            end = constant("i64", axis.extent)
            if step.until is not None:
                end = self._places.place(lambda until, most: self._f.intrinsic("llvm.smin", (until, most)),
                                         self._position(step.until), end)
            self._loop(axis.name, constant("i64", 0), end, step.body, lambda index: self._bind(axis, index))
            del self._bindings.values[axis]

    def _store_group(self, step: For, group: Group) -> None:
        """An unrolled loop over neighbours around a vector that jumps over them: written as one longer vector."""
        numbers, rows = self._bindings.numbers, []
        self._bindings.vector = group.vector
        for number in range(step.axis.extent):
            numbers[step.axis] = number
            rows.append(self._places.splat(self._expressions.value(group.store.value), group.vector.extent))
        numbers[step.axis] = 0
        self._memory.store_group(group, rows)
        del numbers[step.axis]
        self._bindings.vector = None

    def _bind(self, axis: Axis, value: Value) -> None:
        self._bindings.values[axis] = value

    def _bind_flat(self, axes: Sequence[Axis], index: Value) -> None:
        """Give the axes, outermost first, their values at point `index` of all their points."""
        f = self._f
        for axis in reversed(axes[1:]):
            if axis.extent == 1:
                self._bindings.numbers[axis] = 0
                continue
            extent = constant("i64", axis.extent)
            self._bind(axis, self._places.settle(f.urem(index, extent)))
            index = self._places.settle(f.udiv(index, extent))
        self._bind(axes[0], index)

    def _loop(self, name: str, begin: Value, end: Value, body: Sequence[Stmt], bind: Callable[[Value], None]) -> None:
        """A loop that runs at least once; register entries that its body writes go around in phis."""
        f, places = self._f, self._places
        hint = _hint(name)
        written = self._writes(body)
        before, header = f.here, f.label(f"{hint}.loop")
        places.open(written)
        f.start(header)
        index = f.phi("i64", [(begin, before)], hint)
        places.settle(index.value)
        carried = []
        for buffer, run, value in self._registers.entries(written):
            phi = f.phi(value.type, [(value, before)], _hint(buffer))
            self._registers.replace(buffer, run, places.settle(phi.value))
            carried.append((buffer, run, phi))
        bind(index.value)
        self._run(body)
        last = [self._registers.read(buffer, run) for buffer, run, _ in carried]
        following = f.add(index.value, constant("i64", 1), "nuw nsw")
        again, after = f.icmp("slt", following, end), f.label(f"{hint}.end")
        f.cond_br(again, header, after)
        latch = f.here
        index.add(following, latch)
        for (_, _, phi), value in zip(carried, last, strict=True):
            phi.add(value, latch)
        f.start(after)
        places.close(lambda: f.br(header))
        for _, _, value in self._registers.entries(written):
            places.settle(value)

    def _position(self, position: Affine) -> Value:
        return self._memory.number(self._bindings.spot(position))

    def _when(self, step: When) -> None:
        """A branch, where the condition is not known; register entries that its body writes are merged behind it."""
        low, high = self._bindings.bounds(step.position)
        if low >= 0 or high < 0:
            self._run(step.body if low >= 0 else ())
            return
        f, places = self._f, self._places
        condition = places.place(lambda at: f.icmp("sge", at, constant("i64", 0)), self._position(step.position))
        written = self._writes(step.body)
        before, then, after = f.here, f.label("when"), f.label("when.end")
        old = self._registers.entries(written)
        places.open(written, conditional=True)
        f.start(then)
        self._run(step.body)
        new = [self._registers.read(buffer, run) for buffer, run, _ in old]
        f.br(after)
        last = f.here
        f.start(after)
        places.close(lambda: f.cond_br(condition, then, after))
        merged = [f.phi(value.type, [(value, before), (changed, last)], _hint(buffer))
                  for (buffer, _, value), changed in zip(old, new, strict=True)]
        self._registers.reset(written, [(buffer, run, places.settle(phi.value))
                                        for (buffer, run, _), phi in zip(old, merged, strict=True)])
        for name in written:
            places.forget(name)

    def _writes(self, body: Sequence[Stmt]) -> frozenset[str]:
        key = id(body)
        if key not in self._written:
            self._written[key] = frozenset(
                step.buffer.name for step in statements(*body) if isinstance(step, Store | Update))
        return self._written[key]

