"""Where instructions go: each at the outermost loop level at which everything that it needs is known.

What holds here:
- Level 0 is the function's body, level n the body of the n-th loop around the current place. The block before a loop
  stays open while the loop's body is made, so that what does not change in the loop can still be put there.
- Every loop runs at least once and no instruction but a read traps, so moving one out of a loop is always right; reads
  stay in the branch that they stand in.
- What was computed is remembered by key until its scope ends or memory that it read is written (`forget`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tracedsl.hw.cpu.emitter import FunctionEmitter, Value, constant, undefined, vec
from tracedsl.hw.cpu.irtypes import lanes

Key = Hashable
_NOTHING: frozenset[str] = frozenset()


@dataclass(eq=False)
class _Scope:
    """A loop body (or the function). `block`: where its instructions go while a loop inside it is being made."""

    writes: frozenset[str]
    conditional: bool = False      # it may not run at all
    block: str = ""
    known: dict[Key, Value] = field(default_factory=dict)


class Places:
    """The open scopes of one function."""

    def __init__(self, f: FunctionEmitter) -> None:
        self.f = f
        self._scopes = [_Scope(_NOTHING)]
        self._levels: dict[str, int] = {}
        self._readers: dict[str, list[tuple[_Scope, Key]]] = {}

    @property
    def depth(self) -> int:
        return len(self._scopes) - 1

    def open(self, writes: frozenset[str], *, conditional: bool = False) -> None:
        """Enter a loop (or a branch) that writes these buffers; the current block is the one before it and gets no
        terminator until `close`."""
        for name in writes:
            self.forget(name)
        self._scopes[-1].block = self.f.here
        self._scopes.append(_Scope(writes, conditional))

    def close(self, end: Callable[[], None]) -> None:
        """Leave the innermost loop or branch; `end` emits the terminator of the block before it. The block after it
        is open already."""
        self._scopes.pop()
        with _at_end_of(self.f, self._scopes[-1].block):
            end()

    def level(self, value: Value) -> int:
        """Of a constant 0; of a value that nobody told of, the current level."""
        if not value.name.startswith("%"):
            return 0
        return min(self._levels.get(value.name, self.depth), self.depth)

    def settle(self, value: Value, level: int | None = None) -> Value:
        """Say that `value` is there from `level` on, by default the current one (a phi; the last value of a loop that
        has ended; an address in the entry block)."""
        self._levels[value.name] = self.depth if level is None else level
        return value

    def read_level(self, name: str) -> int:
        """The innermost loop that writes the buffer, or branch: a read cannot leave it."""
        return next((n for n in range(self.depth, 0, -1)
                     if self._scopes[n].conditional or name in self._scopes[n].writes), 0)

    def place(self, emit: Callable[..., Value], *operands: Value, level: int = 0) -> Value:
        """`emit(*operands)`, emitted as far out as the operands allow but not above `level`."""
        level = max([level, *map(self.level, operands)])
        with self._at(level):
            value = emit(*operands)
        if value.name.startswith("%"):
            self._levels.setdefault(value.name, level)
        return value

    def once(self, key: Key, emit: Callable[..., Value], *operands: Value) -> Value:
        """As `place`, but the same key gives the same value for as long as it is there."""
        known = self.recall(key)
        return self.remember(key, self.place(emit, *operands)) if known is None else known

    def splat(self, value: Value, n: int) -> Value:
        """The scalar in `n` lanes; vectors stay."""
        if n == 1 or lanes(value.type) == n:
            return value
        return self.once(("splat", value.name, value.type, n), lambda one: self.f.splat(one, n), value)

    def mask(self, condition: Value, n: int) -> Value:
        """A condition in `n` lanes, as the mask of a load: one that all lanes share goes through an integer."""
        if n < 8 or n & (n - 1) or lanes(condition.type) == n or not condition.name.startswith("%"):
            return self.splat(condition, n)

        def spread(one: Value) -> Value:
            bits = self.f.select(one, constant(f"i{n}", -1), constant(f"i{n}", 0))
            return self.f.bitcast(bits, vec("i1", n))

        return self.once(("mask", condition.name, n), spread, condition)

    def lane(self, value: Value, number: int) -> Value:
        """A lane of a vector; of a scalar, the scalar itself."""
        return self.place(lambda whole: self.f.extract_element(whole, number), value)

    def with_lane(self, value: Value, one: Value, number: int) -> Value:
        """The vector with one lane replaced."""
        return self.place(lambda whole, lane: self.f.insert_element(whole, lane, number), value, one)

    def shuffle(self, value: Value, order: Sequence[int]) -> Value:
        """These lanes of a vector."""
        return self.place(lambda whole: self.f.shuffle(whole, undefined(whole.type), order), value)

    def recall(self, key: Key) -> Value | None:
        for scope in reversed(self._scopes):
            if (value := scope.known.get(key)) is not None:
                return value
        return None

    def remember(self, key: Key, value: Value, reads: frozenset[str] = _NOTHING) -> Value:
        """Keep `value`, which depends on the content of `reads`, for as long as its scope is open."""
        scope = self._scopes[self.level(value)]
        scope.known[key] = value
        for name in reads:
            self._readers.setdefault(name, []).append((scope, key))
        return value

    def forget(self, name: str) -> None:
        """The buffer's content changes: what was computed from it is no longer known."""
        for scope, key in self._readers.pop(name, ()):
            scope.known.pop(key, None)

    @contextmanager
    def _at(self, level: int) -> Iterator[None]:
        if level >= self.depth:
            yield
        else:
            with _at_end_of(self.f, self._scopes[level].block):
                yield


@contextmanager
def _at_end_of(f: FunctionEmitter, label: str) -> Iterator[None]:
    """What is emitted inside goes to the end of the block `label`, which has no terminator yet."""
    blocks = f._blocks
    position = next(i for i in range(len(blocks) - 1, -1, -1) if blocks[i][0] == label)
    block = blocks.pop(position)
    blocks.append(block)
    try:
        yield
    finally:
        blocks.pop()
        blocks.insert(position, block)
