"""LLVM IR of a procedure (`tracedsl.ir.statements`): scalars and descriptors in registers, loops as loops.

What holds here:
- `i64 run(ptr args, ptr results, ptr allocate)`: `args` are slots of 8 bytes in the order of the parameters (an array:
  address, extents, strides in elements; a scalar: its value), `results` gets the form, the scalars, and for each array
  its address, extents, strides. 0 is returned, or 1 where a guard failed.
- `ptr allocate(i64 site, i64 rank, ptr extents)` gives memory that belongs to the caller.
- Variables are written as memory of the function; LLVM's passes (`jit.compile_object(..., passes=2)`) make registers
  of them.
- An innermost loop whose positions are linear in its index is written twice: positions that are inside at both ends of
  the loop are inside all along, so that loop has no checks and can be vectorised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tracedsl.hw.cpu.codegen_scalar import value_type
from tracedsl.hw.cpu.emitter import FunctionEmitter, ModuleEmitter, Param, Value, constant
from tracedsl.hw.cpu.procedure_ranges import Access, linear_accesses
from tracedsl.hw.cpu.procedure_values import Values, memory_type
from tracedsl.ir.dtypes import BYTES, is_float
from tracedsl.ir.statements import (
    Allocate,
    Assign,
    Bind,
    Block,
    Body,
    Free,
    Guard,
    If,
    Leave,
    Loop,
    Procedure,
    Return,
    Stmt,
    Store,
    Sum,
    View,
    walk,
)

ENTRY = "run"
SUM_BLOCK = 128      # elements that are added in any order before their sum is added with compensation


def emit_procedure(procedure: Procedure, features: Iterable[str] = ()) -> str:
    """The text of a module with the function `run`."""
    module = ModuleEmitter(procedure.name, features)
    params = (Param("args", "ptr", "noalias readonly"), Param("results", "ptr", "noalias"), Param("allocate", "ptr"))
    f = module.function(ENTRY, "i64", params, attributes="nounwind")
    _Emitter(f, procedure).run()
    return module.text()


def sites(procedure: Procedure) -> list[str]:
    """The dtype of each place that allocates for the caller."""
    return [procedure.arrays[s.array].dtype for s in _allocations(procedure)]


def _allocations(procedure: Procedure) -> list[Allocate]:
    found = [s for s in walk(procedure.body) if isinstance(s, Allocate) and not (s.scratch or s.reused)]
    return list(dict.fromkeys(found))


class _Turns:
    """Two pieces of memory that one place of a procedure uses by turns."""

    def __init__(self, f: FunctionEmitter) -> None:
        self.f = f
        self.older, self.newer = f.alloca("ptr", align=8), f.alloca("ptr", align=8)
        self.older_size, self.newer_size = f.alloca("i64", align=8), f.alloca("i64", align=8)

    def clear(self) -> None:
        for place in (self.older, self.newer):
            self.f.store(constant("ptr", 0), place)
        for place in (self.older_size, self.newer_size):
            self.f.store(constant("i64", 0), place)

    def swap(self) -> Value:
        """The older one, which becomes the newer."""
        f = self.f
        memory, other = f.load(self.older, "ptr"), f.load(self.newer, "ptr")
        size, other_size = f.load(self.older_size, "i64"), f.load(self.newer_size, "i64")
        for value, place in ((memory, self.newer), (other, self.older), (size, self.newer_size),
                             (other_size, self.older_size)):
            f.store(value, place)
        return memory


class _Emitter(Values):
    def __init__(self, f: FunctionEmitter, procedure: Procedure) -> None:
        super().__init__(f, procedure)
        self.args, self.results, self.allocate = f.params
        own = dict.fromkeys(s for s in walk(procedure.body) if isinstance(s, Allocate) and s.reused)
        self.own = {s: _Turns(f) for s in own}
        self.sites = {s: i for i, s in enumerate(_allocations(procedure))}
        self.labels: dict[str, tuple[str, str]] = {}

    def run(self) -> None:
        f = self.f
        for name, place in self.variables.items():
            f.store(constant(value_type(self.p.scalars[name]), 0), place)
        for turns in self.own.values():
            turns.clear()
        slot = 0
        for name in self.p.params:
            if name in self.p.arrays:
                f.store(self._slot(self.args, slot, "ptr"), self.places[name])
                for i, place in enumerate(self.sizes[name], slot + 1):
                    f.store(self._slot(self.args, i, "i64"), place)
                slot += 1 + len(self.sizes[name])
            else:
                f.store(self.loaded(f.gep(self.args, 8 * slot), self.p.scalars[name]), self.variables[name])
                slot += 1
        self.body(self.p.body)
        f.line("unreachable")
        f.start(self.bail)
        self._release()
        f.ret(constant("i64", 1))

    def _slot(self, base: Value, slot: int, type_: str) -> Value:
        return self.f.load(self.f.gep(base, 8 * slot), type_)

    # -- statements ---------------------------------------------------------------------------------------------

    def body(self, body: Body) -> None:
        for stmt in body:
            self.statement(stmt)

    def statement(self, s: Stmt) -> None:
        f = self.f
        match s:
            case Assign():
                f.store(self.value(s.value), self.variables[s.name])
            case Store():
                value = self.value(s.value)
                self.stored(value, self.address(s.array, s.index, s.checked), self.p.arrays[s.array].dtype)
            case Guard():
                self.unless(f.not_(self.value(s.condition)))
            case Loop():
                self._loop(s)
            case Sum():
                self._sum(s)
            case Block():
                self._block(s)
            case Leave():
                f.br(self.labels[s.label][0 if s.again else 1])
                f.start(f.label("behind"))
            case If():
                self._if(self.value(s.condition), lambda: self.body(s.then), lambda: self.body(s.otherwise))
            case Allocate():
                self._allocate(s)
            case Free():
                f.call_void("free", [f.load(self.places[s.array], "ptr")])
            case Bind():
                self._bind(s.array, s.view)
            case Return():
                self._return(s)
            case _:
                raise AssertionError(f"not a statement: {s!r}")

    def _if(self, test: Value, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        f = self.f
        yes, no, after = f.label("then"), f.label("else"), f.label("after")
        f.cond_br(test, yes, no)
        for label, emit in ((yes, then), (no, otherwise)):
            f.start(label)
            emit()
            f.br(after)
        f.start(after)

    def _block(self, s: Block) -> None:
        f = self.f
        head, after = f.label("block"), f.label("after")
        self.labels[s.label] = head, after
        f.br(head)
        f.start(head)
        self.body(s.body)
        f.br(head if s.repeats else after)
        f.start(after)

    def _loop(self, s: Loop) -> None:
        start, stop = self.value(s.start), self.value(s.stop)
        accesses = linear_accesses(s)
        if not accesses:
            self._rounds(s, start, stop)
            return
        test = self._all_inside(s, start, stop, accesses)

        def fast() -> None:
            outside, self.inside = self.inside, self.inside | {(a, i) for a, i, _ in accesses}
            self._rounds(s, start, stop)
            self.inside = outside

        self._if(test, fast, lambda: self._rounds(s, start, stop))

    def _rounds(self, s: Loop, start: Value, stop: Value) -> None:
        f, place = self.f, self.variables[s.index]
        head, inner, again, after = f.label("loop"), f.label("body"), f.label("next"), f.label("end")
        self.labels[s.label] = again, after
        counter = f.alloca("i64", align=8)
        f.store(start, counter)
        f.br(head)
        f.start(head)
        now = f.load(counter, "i64")
        f.cond_br(f.icmp("slt" if s.step > 0 else "sgt", now, stop), inner, after)
        f.start(inner)
        f.store(now, place)
        outside, metadata = self.group, ""
        if s.free:
            group = f.module.metadata("distinct !{}")
            self.group = f"!llvm.access.group {group}"
            parallel = f.module.metadata(f'!{{!"llvm.loop.parallel_accesses", {group}}}')
            metadata = "!llvm.loop " + f.module.metadata(f"distinct !{{!self, {parallel}}}")
        self.body(s.body)
        self.group = outside
        f.br(again)
        f.start(again)
        f.store(f.add(f.load(counter, "i64"), constant("i64", s.step), "nsw"), counter)
        f.br(head, metadata)
        f.start(after)

    def _all_inside(self, s: Loop, start: Value, stop: Value, accesses: Sequence[Access]) -> Value:
        """Whether the accesses are in range in the first and in the last round."""
        f, place = self.f, self.variables[s.index]
        span = f.sub(stop, start)
        rounds = f.sdiv(f.add(span, constant("i64", s.step - (1 if s.step > 0 else -1))), constant("i64", s.step))
        last = f.add(start, f.mul(f.sub(rounds, constant("i64", 1)), constant("i64", s.step)))
        result = f.icmp("sgt", rounds, constant("i64", 0))
        positions = dict.fromkeys((array, axis, e) for array, _, index in accesses for axis, e in enumerate(index))
        for at in (start, last):
            f.store(at, place)
            for array, axis, e in positions:
                inside = f.icmp("ult", self.value(e), f.load(self.sizes[array][axis], "i64"))
                result = f.and_(result, inside)
        return result

    def _sum(self, s: Sum) -> None:
        f, dtype = self.f, s.value.dtype
        type_, total = value_type(dtype), self.variables[s.name]
        *outer, extent = [self.value(e) for e in s.extents]
        f.store(constant(type_, 0), total)
        if not is_float(dtype):
            self._nested(s.indices[:-1], outer, lambda: self._add_up(s, constant("i64", 0), extent, total, ""))
            return
        block, lost = f.alloca(type_, align=8), f.alloca(type_, align=8)
        f.store(constant(type_, 0), lost)

        def blocks(first: Value) -> None:
            end = f.add(first, constant("i64", SUM_BLOCK))
            f.store(constant(type_, -0.0), block)
            self._add_up(s, first, f.select(f.icmp("slt", end, extent), end, extent), block, "reassoc")
            self._add_with_care(f.load(block, type_), total, lost)

        self._nested(s.indices[:-1], outer, lambda: self._count(constant("i64", 0), extent, SUM_BLOCK, blocks))
        found, rest = f.load(total, type_), f.load(lost, type_)
        finite = f.fcmp("oeq", f.fsub(found, found), constant(type_, 0))
        f.store(f.select(finite, f.fadd(found, rest), found), total)

    def _nested(self, indices: Sequence[str], extents: Sequence[Value], emit: Callable[[], None]) -> None:
        """Loops over several indices around what `emit` emits."""
        if not indices:
            emit()
            return

        def one(at: Value) -> None:
            self.f.store(at, self.variables[indices[0]])
            self._nested(indices[1:], extents[1:], emit)

        self._count(constant("i64", 0), extents[0], 1, one)

    def _add_with_care(self, value: Value, total: Value, lost: Value) -> None:
        """Neumaier's summation (ZAMM 54, 1974): what a rounding loses is kept beside."""
        f = self.f
        before = f.load(total, value.type)
        after = f.fadd(before, value)
        larger = f.fcmp("oge", f.fabs(before), f.fabs(value))
        large, small = f.select(larger, before, value), f.select(larger, value, before)
        f.store(f.fadd(f.load(lost, value.type), f.fadd(f.fsub(large, after), small)), lost)
        f.store(after, total)

    def _add_up(self, s: Sum, first: Value, end: Value, into: Value, flags: str) -> None:
        f, type_ = self.f, value_type(s.value.dtype)

        def one(at: Value) -> None:
            f.store(at, self.variables[s.indices[-1]])
            value = self.value(s.value)
            before = f.load(into, type_)
            f.store(f.fadd(before, value, flags) if is_float(s.value.dtype) else f.add(before, value), into)

        self._count(first, end, 1, one)

    def _count(self, first: Value, end: Value, step: int, emit: Callable[[Value], None]) -> None:
        f, counter = self.f, self.f.alloca("i64", align=8)
        head, inner, after = f.label("loop"), f.label("body"), f.label("end")
        f.store(first, counter)
        f.br(head)
        f.start(head)
        now = f.load(counter, "i64")
        f.cond_br(f.icmp("slt", now, end), inner, after)
        f.start(inner)
        emit(now)
        f.store(f.add(now, constant("i64", step), "nsw"), counter)
        f.br(head)
        f.start(after)

    # -- arrays -------------------------------------------------------------------------------------------------

    def _allocate(self, s: Allocate) -> None:
        f, kind = self.f, self.p.arrays[s.array]
        extents = [self.value(e) for e in s.extents]
        count = constant("i64", 1)
        strides: list[Value] = []
        for extent in reversed(extents):
            strides.insert(0, count)
            count = f.mul(count, extent)
        if s.reused:
            memory = self._by_turns(s, f.mul(count, constant("i64", BYTES[kind.dtype])))
        elif s.scratch:
            size = f.add(f.mul(count, constant("i64", BYTES[kind.dtype])), constant("i64", 64))
            memory = f.call("malloc", "ptr", [size])
        else:
            listed = f.alloca("i64", max(1, kind.rank))
            for i, extent in enumerate(extents):
                f.store(extent, f.gep(listed, 8 * i))
            site = constant("i64", 2 * self.sites[s] + s.zero)
            memory = f.call_pointer(self.allocate, "ptr", [site, constant("i64", kind.rank), listed])
        self.unless(f.icmp("eq", memory, constant("ptr", 0)))
        f.store(memory, self.places[s.array])
        for value, place in zip([*extents, *strides], self.sizes[s.array]):
            f.store(value, place)

    def _by_turns(self, s: Allocate, size: Value) -> Value:
        """The older of two pieces of memory, or a new one if that is too small."""
        f, turns = self.f, self.own[s]
        size = f.add(size, constant("i64", 1))

        def anew() -> None:
            f.call_void("free", [f.load(turns.older, "ptr")])
            f.store(f.call("malloc", "ptr", [size]), turns.older)
            f.store(size, turns.older_size)
            self.unless(f.icmp("eq", f.load(turns.older, "ptr"), constant("ptr", 0)))

        self._if(f.icmp("ult", f.load(turns.older_size, "i64"), size), anew, lambda: None)
        memory = turns.swap()
        if s.zero:
            fill = f"ptr {memory.name}, i8 0, {size}, i1 false"
            f.module.declare("llvm.memset.p0.i64", "void", ("ptr", "i8", "i64", "i1"))
            f.line(f"call void @llvm.memset.p0.i64({fill})")
        return memory

    def _release(self) -> None:
        for turns in self.own.values():
            self.f.call_void("free", [self.f.load(turns.older, "ptr")])
            self.f.call_void("free", [self.f.load(turns.newer, "ptr")])

    def _bind(self, name: str, view: View) -> None:
        f, source = self.f, self.p.arrays[view.array]
        offset = self.offset(view.array, [self.value(e) for e in view.start])
        extents = [self.value(extent) for _, _, extent in view.axes]
        strides = [constant("i64", 0) if axis is None else f.mul(self.stride(view.array, axis), constant("i64", step))
                   for axis, step, _ in view.axes]
        base = f.load(self.places[view.array], "ptr")
        f.store(f.gep(base, offset, memory_type(source.dtype)), self.places[name])
        for value, place in zip([*extents, *strides], self.sizes[name]):
            f.store(value, place)

    def _return(self, s: Return) -> None:
        f = self.f
        f.store(constant("i64", s.form), self.results)
        slot = 1
        for e in s.scalars:
            self.stored(self.value(e), f.gep(self.results, 8 * slot), e.dtype)
            slot += 1
        for array in s.arrays:
            kind = self.p.arrays[array]
            f.store(f.load(self.places[array], "ptr"), f.gep(self.results, 8 * slot))
            sizes = [f.load(place, "i64") for place in self.sizes[array][:kind.rank]]
            sizes += [self.stride(array, axis) for axis in range(kind.rank)]
            for i, value in enumerate(sizes, slot + 1):
                f.store(value, f.gep(self.results, 8 * i))
            slot += 1 + 2 * kind.rank
        self._release()
        f.ret(constant("i64", 0))
        f.start(f.label("behind"))
