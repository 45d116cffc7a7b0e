"""Loads and stores: addresses, vectors of elements, guards.

What holds here:
- An address is a chain of pointers, one link a loop level, plus a constant: what an outer loop adds is added there.
  Unrolled axes and lanes are part of the constant.
- Lanes far apart, inside an unrolled loop over neighbours as long as the vector, are loaded as whole vectors of
  neighbours, all at once, and turned over in registers (`_turned`).
- Lanes a few elements apart are shuffled out of all that lies between, which is loaded once for all elements of the
  rows (points, pixels) that they stand in.
- No byte is read that the loop nest does not read, except between two lanes of one strided access and in their rows.
  A load that may lie outside of its buffer (`guard` is then set, by the selection around it) reads only where the
  guard is true; its address is one inside even where it is not, as far as lanes share it: a masked load of a page that
  is not there takes hundreds of cycles.
- The same address is read once for as long as nothing writes the buffer.
- bool is a byte in memory and i1 as a value; a byte other than 0 is true.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tracedsl.hw.cpu.codegen_error import malformed
from tracedsl.hw.cpu.codegen_place import Places
from tracedsl.hw.cpu.emitter import Value, constant, undefined, vec
from tracedsl.hw.cpu.irtypes import OF_DTYPE, lanes, like
from tracedsl.ir.dtypes import BYTES
from tracedsl.ir.expr import Affine, Axis, Buffer, Index, Load, walk
from tracedsl.ir.loops import For, Store

_MAX_SHUFFLED_STEP = 8  # strided vectors up to this step are loaded whole and shuffled; others lane by lane
_MIN_TURNED_STEP = 5    # from this step on, square blocks are turned over
_MAX_GROUP = 8          # elements between the lanes of a store that are written together


@dataclass(frozen=True, slots=True)
class Spot:
    """A position: constant + sum of coefficient * loop axis + step * lane, in elements."""

    constant: int
    terms: tuple[tuple[Axis, int], ...]
    step: int


@dataclass(frozen=True, slots=True)
class Group:
    """A store of the vector loop over `vector` that an unrolled loop repeats for the elements between its lanes."""

    store: Store
    vector: Axis


@dataclass(eq=False)
class Bindings:
    """What the axes are at the current place: numbers (unrolled), values (loops), or lanes."""

    numbers: dict[Axis, int] = field(default_factory=dict)
    values: dict[Axis, Value] = field(default_factory=dict)
    vector: Axis | None = None

    @property
    def lanes(self) -> int:
        return self.vector.extent if self.vector else 1

    def spot(self, index: Affine) -> Spot:
        number, step, terms = index.constant, 0, []
        for axis, factor in index.terms:
            if axis in self.numbers:
                number += factor * self.numbers[axis]
            elif axis == self.vector:
                step = factor
            elif axis in self.values:
                terms.append((axis, factor))
            else:
                raise malformed(f"axis {axis.name!r} is used outside of its loop")
        return Spot(number, tuple(terms), step)

    def bounds(self, position: Affine) -> tuple[int, int]:
        """The smallest and the largest value that a position has here, over all steps of the loops and lanes."""
        spot = self.spot(position)
        reach = [(factor, axis.extent) for axis, factor in spot.terms] + [(spot.step, self.lanes)]
        return (spot.constant + sum(min(0, factor * (extent - 1)) for factor, extent in reach),
                spot.constant + sum(max(0, factor * (extent - 1)) for factor, extent in reach))


def flat(buffer: Buffer, index: Sequence[Index]) -> Affine:
    """The affine part of an index as one number of elements from the buffer's start."""
    total = Affine()
    for stride, at in zip(buffer.strides, index, strict=True):
        if isinstance(at, Affine):
            total = total + at * stride
    return total


def may_be_outside(buffer: Buffer, index: Sequence[Index]) -> bool:
    """Whether the bounds of the index do not show that it lies inside."""
    for extent, at in zip(buffer.shape, index, strict=True):
        if not isinstance(at, Affine):
            return True
        low, high = at.bounds()
        if low < 0 or high >= extent:
            return True
    return False


class Memory:
    """The buffers of one function that live in memory."""

    def __init__(self, places: Places, bindings: Bindings) -> None:
        self._places, self._f, self._bindings = places, places.f, bindings
        self._bases: dict[str, Value] = {}
        self._nowhere: Value | None = None

    def add(self, buffer: Buffer, base: Value) -> None:
        """`base`, the buffer's address, stands in the entry block."""
        self._bases[buffer.name] = self._places.settle(base, 0)

    def __contains__(self, buffer: Buffer) -> bool:
        return buffer.name in self._bases

    # -- addresses ------------------------------------------------------------------------------------------------

    def number(self, spot: Spot) -> Value:
        """The position as i64, a vector if it has a step."""
        f, total = self._f, constant("i64", spot.constant)
        for axis, factor in self._outer_first(spot.terms):
            term = self._scaled(axis, factor)
            total = term if total == constant("i64", 0) else self._places.place(f.add, total, term)
        if not spot.step:
            return total
        ramp = _ramp(spot.step, self._bindings.lanes)
        wide = self._places.splat(total, self._bindings.lanes)
        return ramp if total == constant("i64", 0) else self._places.place(f.add, wide, ramp)

    def _outer_first(self, terms: tuple[tuple[Axis, int], ...]) -> list[tuple[Axis, int]]:
        return sorted(terms, key=lambda term: (self._places.level(self._bindings.values[term[0]]), term[0].name))

    def _scaled(self, axis: Axis, factor: int) -> Value:
        value = self._bindings.values[axis]
        if factor == 1:
            return value
        return self._places.once(("scaled", value.name, factor),
                                 lambda index: self._f.mul(index, constant("i64", factor), "nsw"), value)

    def _pointer(self, buffer: Buffer, spot: Spot) -> Value:
        """The address of the first lane."""
        f, size = self._f, BYTES[buffer.dtype]
        pointer = self._bases[buffer.name]
        for axis, factor in self._outer_first(spot.terms):
            offset = self._scaled(axis, factor * size)
            pointer = self._places.once(("pointer", pointer.name, offset.name), f.gep, pointer, offset)
        return self._moved(pointer, spot.constant * size)

    def _pointer_inside(self, buffer: Buffer, index: Sequence[Index]) -> Value:
        """The address of the first lane, with what all lanes share taken to the border where it lies outside."""
        plain = Affine()
        bent: list[tuple[int, Value]] = []
        for stride, extent, at in zip(buffer.strides, buffer.shape, index, strict=True):
            if not isinstance(at, Affine):
                continue
            low, high = self._bindings.bounds(at)
            if (low < 0 or high >= extent) and not self._bindings.spot(at).step:
                bent.append((stride * BYTES[buffer.dtype], self._clamped(self._bindings.spot(at), extent)))
            else:
                plain = plain + at * stride
        spot = self._bindings.spot(plain)
        pointer = self._pointer(buffer, Spot(0, spot.terms, spot.step))
        for factor, row in bent:
            offset = self._places.once(("scaled", row.name, factor),
                                       lambda number, by=factor: self._f.mul(number, constant("i64", by), "nsw"), row)
            pointer = self._places.once(("pointer", pointer.name, offset.name), self._f.gep, pointer, offset)
        return self._moved(pointer, spot.constant * BYTES[buffer.dtype])

    def _clamped(self, spot: Spot, extent: int) -> Value:
        """The position as i64, not below 0 and below `extent`."""
        def clamp(number: Value) -> Value:
            low = self._f.intrinsic("llvm.smax", (number, constant("i64", 0)))
            return self._f.intrinsic("llvm.smin", (low, constant("i64", max(0, extent - 1))))

        number = self.number(spot)
        return self._places.once(("clamped", spot.constant, *self._values(spot), extent), clamp, number)

    def _values(self, spot: Spot) -> tuple[tuple[str, int], ...]:
        return tuple((self._bindings.values[axis].name, factor) for axis, factor in spot.terms)

    def _moved(self, pointer: Value, count: int) -> Value:
        """`pointer` and a constant number of bytes."""
        if not count:
            return pointer
        return self._places.once(("moved", pointer.name, count), lambda base: self._f.gep(base, count), pointer)

    # -- loads ----------------------------------------------------------------------------------------------------

    def masks(self, buffer: Buffer, index: Sequence[Index]) -> bool:
        """Whether a guarded load of this is one instruction that takes the other lanes from elsewhere."""
        return (all(isinstance(at, Affine) for at in index) and buffer.dtype != "bool"
                and self._bindings.spot(flat(buffer, index)).step == 1)

    def load(self, buffer: Buffer, index: Sequence[Index], positions: Sequence[Value], guard: Value | None,
             otherwise: Value | None = None) -> Value:
        """The element, or one a lane if the position depends on the lane. `positions` are the values (i64) of those
        parts of the index that are not affine, in order; `guard` (i1) tells which lanes may be read at all, and
        `otherwise` what stands in the others (where `masks`)."""
        spot = self._bindings.spot(flat(buffer, index))
        strides = [stride for stride, at in zip(buffer.strides, index, strict=True) if not isinstance(at, Affine)]
        inside = guard is not None and spot.step == 1
        pointer, gathered = self._pointer_inside(buffer, index) if inside else self._pointer(buffer, spot), None
        for position, stride in zip(positions, strides, strict=True):
            part = self._times(position, stride)
            if lanes(part.type) > 1:
                gathered = part if gathered is None else self._add(gathered, part)
            else:
                pointer = self._further(pointer, self._times(part, BYTES[buffer.dtype]))
        if not positions and guard is None and (turned := self._turned(buffer, flat(buffer, index), spot)) is not None:
            return self._value(buffer, turned)
        if not positions and guard is None and spot.step not in (0, 1) and abs(spot.step) <= _MAX_SHUFFLED_STEP:
            return self._value(buffer, self._shuffled(buffer, index, spot))
        if gathered is not None and spot.step:
            gathered = self._add(gathered, _ramp(spot.step, self._bindings.lanes))
        return self._value(buffer, self._raw(buffer, pointer, spot.step, gathered, guard, otherwise))

    def _further(self, pointer: Value, count: Value) -> Value:
        return self._places.place(self._f.gep, pointer, count)

    def _times(self, a: Value, factor: int) -> Value:
        return self._places.place(lambda index: self._f.mul(index, constant(index.type, factor)), a)

    def _add(self, a: Value, b: Value) -> Value:
        return self._places.place(self._f.add, a, b)

    def _raw(self, buffer: Buffer, pointer: Value, step: int, gathered: Value | None, guard: Value | None,
             otherwise: Value | None) -> Value:
        """Elements as they lie in memory."""
        f, elem, n = self._f, OF_DTYPE[buffer.dtype], self._bindings.lanes
        if gathered is None and step == 0:
            if guard is not None:
                pointer = self._guarded(pointer, self._any(guard))
            return self._once(buffer, 1, lambda at: f.load(at, elem), pointer)
        if gathered is not None or (guard is not None and step != 1):
            return self._lane_by_lane(buffer, pointer, step, gathered, guard)
        if guard is not None:
            mask = self._places.mask(guard, n)
            rest = self._places.splat(otherwise, n) if otherwise is not None else constant(vec(elem, n), 0)
            return self._once(buffer, n, f.masked_load, pointer, mask, rest)
        if step == 1:
            return self._once(buffer, n, lambda at: f.load(at, vec(elem, n)), pointer)
        return self._lane_by_lane(buffer, pointer, step, None, None)

    def _once(self, buffer: Buffer, span: int, emit: Callable[..., Value], pointer: Value, *others: Value) -> Value:
        """What `emit` reads, `span` elements at `pointer`; the same as before, if that was read and is still there."""
        key = ("load", pointer.name, buffer.dtype, span, *(other.name for other in others))
        if (known := self._places.recall(key)) is not None:
            return known
        value = self._places.place(emit, pointer, *others, level=self._places.read_level(buffer.name))
        return self._places.remember(key, value, frozenset((buffer.name,)))

    def _shuffled(self, buffer: Buffer, index: Sequence[Index], spot: Spot) -> Value:
        """Lanes that lie close together, forwards or backwards: all that lies between is loaded, and their rows."""
        n, step, elem = self._bindings.lanes, spot.step, OF_DTYPE[buffer.dtype]
        place, width = self._in_row(buffer, index, abs(step))
        start = min(0, (n - 1) * step) - place
        span = (n - 1) * abs(step) + width
        first = self._pointer(buffer, Spot(spot.constant + start, spot.terms, 0))
        whole = self._once(buffer, span, lambda at: self._f.load(at, vec(elem, span)), first)
        return self._places.shuffle(whole, [lane * step - start for lane in range(n)])

    def _in_row(self, buffer: Buffer, index: Sequence[Index], most: int) -> tuple[int, int]:
        """Where in a row of neighbours an element stands, and how many there are; of longer rows it stands alone."""
        for extent, stride, at in zip(buffer.shape, buffer.strides, index, strict=True):
            if stride == 1 and isinstance(at, Affine) and extent <= most:
                spot = self._bindings.spot(at)
                if not spot.terms and not spot.step and 0 <= spot.constant < extent:
                    return spot.constant, extent
        return 0, 1

    def _turned(self, buffer: Buffer, index: Affine, spot: Spot) -> Value | None:
        """One row of a square block whose columns are contiguous; None if there is no such block around. The whole
        block is read by the unrolled loop in which this load stands, so all its rows are made together."""
        n, size, places = self._bindings.lanes, BYTES[buffer.dtype], self._places
        if abs(spot.step) < _MIN_TURNED_STEP or n < 4 or n & (n - 1):
            return None
        rows = [axis for axis, factor in index.terms
                if factor == 1 and axis.extent == n and axis in self._bindings.numbers]
        if not rows:
            return None
        number = self._bindings.numbers[rows[0]]
        base = self._pointer(buffer, Spot(spot.constant - number, spot.terms, spot.step))
        key = ("turned", base.name, buffer.dtype, spot.step, n)
        if places.recall((*key, number)) is None:
            level = places.read_level(buffer.name)
            type_ = vec(OF_DTYPE[buffer.dtype], n)
            columns = [places.place(lambda at: self._f.load(at, type_), self._moved(base, lane * spot.step * size),
                                    level=level) for lane in range(n)]
            for at, row in enumerate(self._turn_over(columns)):
                places.remember((*key, at), row, frozenset((buffer.name,)))
        return places.recall((*key, number))

    def _turn_over(self, block: list[Value]) -> list[Value]:
        """A square block transposed, in log2(n) rounds: each exchanges two corners of smaller and smaller squares."""
        n = len(block)
        distance = n // 2
        while distance:
            low = [lane if not lane & distance else n + (lane ^ distance) for lane in range(n)]
            high = [lane | distance if not lane & distance else n + lane for lane in range(n)]
            for i in range(n):
                if not i & distance:
                    pair = (block[i], block[i | distance])
                    block[i], block[i | distance] = (
                        self._places.place(lambda a, b, order=order: self._f.shuffle(a, b, order), *pair)
                        for order in (low, high))
            distance //= 2
        return block

    def _lane_by_lane(self, buffer: Buffer, pointer: Value, step: int, gathered: Value | None,
                      guard: Value | None) -> Value:
        f, elem, n, size = self._f, OF_DTYPE[buffer.dtype], self._bindings.lanes, BYTES[buffer.dtype]
        places, level = self._places, self._places.read_level(buffer.name)
        result = undefined(vec(elem, n))
        for lane in range(n):
            if gathered is None:
                at = self._moved(pointer, lane * step * size)
            else:
                at = self._further(pointer, self._times(places.lane(gathered, lane), size))
            if guard is not None:
                at = self._guarded(at, places.lane(guard, lane))
            one = places.place(lambda pointer: f.load(pointer, elem), at, level=level)
            result = places.with_lane(result, one, lane)
        return result

    def _guarded(self, pointer: Value, condition: Value) -> Value:
        """`pointer` if the condition holds, else the address of something that may be read."""
        if self._nowhere is None:
            self._nowhere = self._places.settle(self._f.alloca("i64"), 0)
        return self._places.place(self._f.select, condition, pointer, self._nowhere)

    def _any(self, guard: Value) -> Value:
        if lanes(guard.type) == 1:
            return guard
        return self._places.place(
            lambda mask: self._f.intrinsic("llvm.vector.reduce.or", (mask,), "i1", (mask.type,)), guard)

    def _value(self, buffer: Buffer, raw: Value) -> Value:
        if buffer.dtype != "bool":
            return raw
        return self._places.place(lambda byte: self._f.icmp("ne", byte, constant(byte.type, 0)), raw)

    # -- stores ---------------------------------------------------------------------------------------------------

    def group_of(self, step: For) -> Group | None:
        """The store that an unrolled loop over neighbours repeats, if its vector jumps over just these."""
        match step:
            case For(axis=axis, body=(For(kind="vector", axis=vector, body=(Store() as store,)),)):
                place = flat(store.buffer, store.index)
                read = {e.buffer.name for e in walk(store.value) if isinstance(e, Load)}
                if self._bindings.vector is not None or store.buffer.name in read:
                    return None
                if store.buffer in self and store.buffer.dtype != "bool" and 1 < axis.extent <= _MAX_GROUP and (
                        place.coefficient(axis), place.coefficient(vector)) == (1, axis.extent):
                    return Group(store, vector)
        return None

    def store_group(self, group: Group, rows: Sequence[Value]) -> None:
        """Write the elements of the rows in turns; the loop over them stands at its first step."""
        f, store, n = self._f, group.store, group.vector.extent
        whole = list(rows)
        whole += [undefined(rows[0].type)] * ((1 << (len(rows) - 1).bit_length()) - len(rows))
        while len(whole) > 1:
            whole = [f.shuffle(a, b, range(lanes(a.type) * 2)) for a, b in zip(whole[::2], whole[1::2], strict=True)]
        order = [row * n + lane for lane in range(n) for row in range(len(rows))]
        mixed = f.shuffle(whole[0], undefined(whole[0].type), order)
        f.store(mixed, self._pointer(store.buffer, self._bindings.spot(flat(store.buffer, store.index))))
        self._places.forget(store.buffer.name)

    def store(self, buffer: Buffer, index: Sequence[Affine], value: Value) -> None:
        """Write the element, or one a lane; where all lanes mean one element, the last one stays."""
        f, n, size = self._f, self._bindings.lanes, BYTES[buffer.dtype]
        spot = self._bindings.spot(flat(buffer, index))
        pointer = self._pointer(buffer, spot)
        raw = value if buffer.dtype != "bool" else self._places.place(lambda bit: f.zext(bit, "i8"), value)
        if n > 1 and spot.step == 0:
            f.store(f.extract_element(raw, n - 1), pointer)
        elif n == 1 or spot.step == 1:
            f.store(self._places.splat(raw, n), pointer)
        elif spot.step == -1:
            wide = self._places.splat(raw, n)
            backwards = f.shuffle(wide, undefined(wide.type), range(n - 1, -1, -1))
            f.store(backwards, self._moved(pointer, (1 - n) * size))
        else:
            for lane in range(n):
                f.store(f.extract_element(raw, lane), self._moved(pointer, lane * spot.step * size))
        self._places.forget(buffer.name)


def _ramp(step: int, n: int) -> Value:
    """<0, step, 2 step, ...>"""
    inner = ", ".join(f"i64 {step * lane}" for lane in range(n))
    return Value(f"<{inner}>", like(vec("i64", n), "i64"))
