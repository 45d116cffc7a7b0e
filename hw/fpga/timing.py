"""When everything happens: the RTL's cycles, counted without it.

What holds here: `timeline` equals the RTL cycle for cycle, for every word of every program that `check` passes (tests
hunt for one where it does not). It computes no data and looks at bursts, not at beats, so it takes milliseconds.

How: within a unit, and from unit to unit, times follow from earlier times by additions and maxima. Only the port to the
memory makes a choice, fetch before store before load, a request a cycle. So requests are chosen in the order of time:
the earliest that is known is safe to choose, because one that is not known yet waits for what a later request brings.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracedsl.hw.fpga.config import CHUNK, DRAM, REUSE, Config, Dram, FpgaError
from tracedsl.hw.fpga.isa import Compute, Finish, Gemm, Load, Program, Store, Unit
from tracedsl.hw.fpga.rtl.load import PENDING
from tracedsl.hw.fpga.rtl.memories import SEEN
from tracedsl.hw.fpga.rtl.store import READY, STAGES

NEVER = 1 << 62


@dataclass(frozen=True)
class Timeline:
    """`cycles` from the start to the end; for load, compute, store (in this order) the cycle in which each word of
    theirs was taken, and the one in which it was done."""

    cycles: int
    taken: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    done: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    def busy(self, unit: Unit) -> list[tuple[int, int]]:
        """Intervals in which the unit worked on something, merged: first cycle, cycle after the last."""
        merged: list[tuple[int, int]] = []
        for begin, end in zip(self.taken[unit], self.done[unit], strict=True):
            if merged and begin <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end + 1))
            else:
                merged.append((begin, end + 1))
        return merged


@dataclass(frozen=True)
class Event:
    """A unit at work on one instruction, `number` in its program: from the cycle in which it was taken (`start`) to the
    one in which it was done (`end`). A unit takes its next word before the last one is done, so events overlap."""

    unit: Unit
    number: int
    start: int
    end: int


def events(program: Program, timeline: Timeline) -> list[Event]:
    """What happened when, in the order of the starts; `program[event.number]` is the instruction."""
    queues: dict[Unit, list[int]] = {unit: [] for unit in Unit}
    for number, instruction in enumerate(program):
        if not isinstance(instruction, Finish):
            queues[instruction.unit].append(number)
    found = [Event(unit, *event) for unit in Unit
             for event in zip(queues[unit], timeline.taken[unit], timeline.done[unit], strict=True)]
    return sorted(found, key=lambda event: (event.start, event.unit))


def utilisation(program: Program, timeline: Timeline) -> float:
    """The part of all cycles in which the array worked: GEMM steps a cycle."""
    return sum(i.steps for i in program if isinstance(i, Gemm)) / timeline.cycles


def timeline(program: Program, config: Config, dram: Dram = DRAM) -> Timeline:
    """The times of a program that `check` passes. Raises FpgaError (H063) if its tokens deadlock after all."""
    return _Model(program, config, dram).run()


class _Tokens:
    """One channel: when tokens were given; the next one is taken not before the cycle after."""

    __slots__ = ("given", "used")

    def __init__(self) -> None:
        self.given: list[int] = []
        self.used = 0

    def next(self) -> int:
        """The first cycle in which the next token can be taken."""
        return self.given[self.used] + 1 if self.used < len(self.given) else NEVER


class _Rows:
    """Load or store, its first half: the words that it has taken, the rows that it asks for."""

    __slots__ = ("begins", "dealt", "ends", "free", "given", "left", "offer", "taken", "tokens", "words")

    def __init__(self, words: list[tuple[int, ...]], tokens: _Tokens, given: _Tokens) -> None:
        self.words = words  # rows, beats a row, pops, pushes, fill before, between, after
        self.tokens, self.given = tokens, given
        self.dealt: list[int] = []
        self.taken: list[int] = []
        self.begins: list[int] = []  # when the second half took them
        self.ends: list[int] = []  # of rows: their last beats
        self.left = 0  # rows of the last word that was taken
        self.offer = NEVER
        self.free = 0  # when the next word can be taken, as far as the half itself goes

    def take(self, bursts: int) -> bool:
        """Take the next word, if it is known when."""
        at = len(self.taken)
        if self.left or at >= len(self.dealt):
            return False
        now = max(self.dealt[at] + SEEN, self.free)
        if self.words[at][2]:
            now = max(now, self.tokens.next())
            if now >= NEVER:
                return False
            self.tokens.used += 1
        if at >= PENDING:
            now = max(now, self.begins[at - PENDING] + 1)
        self.taken.append(now)
        self.left = self.words[at][0]
        self._offer(now + 1, bursts)
        return True

    def granted(self, now: int, bursts: int) -> None:
        self.left -= 1
        if self.left:
            self._offer(now + 1, bursts)
        else:
            self.offer, self.free = NEVER, now + 1

    def _offer(self, now: int, bursts: int) -> None:
        at = len(self.ends) - bursts
        self.offer = max(now, self.ends[at] + 1) if at >= 0 else now


class _Model:
    def __init__(self, program: Program, config: Config, dram: Dram) -> None:
        self.config, self.bursts = config, config.bursts
        self.latency, self.pace = dram.latency + 1, dram.cycles_per_beat  # from being chosen to the first beat
        to_compute, to_load, to_store, from_store = (_Tokens() for _ in range(4))
        self.load = _Rows([], to_load, to_compute)
        self.store = _Rows([], to_store, from_store)
        self.channels = (to_compute, from_store, to_load, to_store)  # as compute sees them: pops, then pushes
        self.compute: list[tuple[int, bool, bool, bool, bool]] = []
        self.order: list[int] = []  # which unit each word is for
        for instruction in program:
            self._note(instruction)
        self.words = len(program) + -len(program) % CHUNK
        self.come: list[int] = []  # when a word can be dealt out
        self.dealt: list[int] = []  # when it was
        self.compute_dealt: list[int] = []
        self.compute_taken: list[int] = []
        self.compute_done: list[int] = []
        self.done: tuple[list[int], list[int]] = ([], [])  # of load, of store
        self.fetch = 1  # the next chunk's request
        self.port = 0  # the last cycle in which a request was chosen
        self.free = 0  # when the next beat can move
        self.cursor = 0  # load, second half: when the next beat can be taken
        self.made = 0  # store, second half: when the row's first beat is ready
        self.moved: list[tuple[int, int]] = []  # store: first beat's number, when it moved
        self.beats = 0  # store: beats moved

    def _note(self, instruction: object) -> None:
        match instruction:
            case Load() as load:
                beats = load.cols * self.config.beats(load.target.name.lower())
                self.load.words.append((load.rows, beats, load.pop_next, load.push_next, load.before, load.between,
                                        load.after))
                self.order.append(Unit.LOAD)
            case Store() as store:
                beats = store.cols * self.config.beats("acc" if store.wide else "inp")
                self.store.words.append((store.rows, beats, store.pop_prev, store.push_prev))
                self.order.append(Unit.STORE)
            case Compute() as step:
                self.compute.append((step.steps * step.interval, step.pop_prev, step.pop_next, step.push_prev,
                                     step.push_next))
                self.order.append(Unit.COMPUTE)
            case Finish():
                self.order.append(-1)

    def run(self) -> Timeline:
        load, store = self.load, self.store
        self._advance()
        while True:
            earliest = self.port + 1
            times = (max(self.fetch, earliest), max(store.offer, earliest), max(load.offer, earliest))
            now = min(times)
            if now >= NEVER:
                break
            self.port = now
            if times[0] == now:
                self._fetch(now)
            elif times[1] == now:
                self._store_row(now)
            else:
                self._load_rows(now, min(times[0], times[1]))
            if not load.left or not store.left or self.fetch == NEVER:
                self._advance()
        return self._outcome()

    def _outcome(self) -> Timeline:
        units = (self.load.taken, self.compute_taken, self.store.taken)
        done = (self.done[0], self.compute_done, self.done[1])
        sizes = (len(self.load.words), len(self.compute), len(self.store.words))
        if len(self.dealt) < self.words or any(len(d) < n for d, n in zip(done, sizes, strict=True)):
            raise FpgaError("H063", "the program deadlocks", why="a unit waits for a token that nobody gives",
                            hint="tracedsl.hw.fpga.checker.check says which")
        last = max(self.dealt[-1], *(times[-1] for times in done if times))
        return Timeline(last + 2, (tuple(units[0]), tuple(units[1]), tuple(units[2])),
                        (tuple(done[0]), tuple(done[1]), tuple(done[2])))

    # -- what follows by itself ---------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Everything that is known without another request."""
        moved = True
        while moved:
            moved = self._deal()
            moved |= self.load.take(self.bursts)
            moved |= self.store.take(self.bursts)
            moved |= self._compute()

    def _deal(self) -> bool:
        dealt, depth, before = self.dealt, self.config.queue_depth, len(self.dealt)
        queues = (self.load.dealt, self.compute_dealt, self.store.dealt)
        takes = (self.load.taken, self.compute_taken, self.store.taken)
        for at in range(before, len(self.come)):
            now = max(self.come[at], dealt[-1] + 1 if dealt else 0)
            unit = self.order[at] if at < len(self.order) else -1
            if unit >= 0:
                queue, taken = queues[unit], takes[unit]
                if len(queue) >= depth:
                    if len(queue) - depth >= len(taken):
                        break
                    now = max(now, taken[len(queue) - depth] + 1)
                queue.append(now)
            dealt.append(now)
        if self.fetch == NEVER and len(self.come) < self.words and len(dealt) >= len(self.come) - CHUNK:
            self.fetch = dealt[len(self.come) - CHUNK - 1] + 1
        return len(dealt) > before

    def _compute(self) -> bool:
        taken, done, dealt, before = self.compute_taken, self.compute_done, self.compute_dealt, len(self.compute_taken)
        from_load, from_store, to_load, to_store = self.channels
        latency = self.config.latency
        for at in range(before, len(dealt)):
            cycles, pop_prev, pop_next, push_prev, push_next = self.compute[at]
            now = max(dealt[at] + SEEN, done[-1] - latency + REUSE - 1 if done else 0)
            if pop_prev:
                now = max(now, from_load.next())
            if pop_next:
                now = max(now, from_store.next())
            if now >= NEVER:
                break
            from_load.used += pop_prev
            from_store.used += pop_next
            taken.append(now)
            end = now + cycles + latency
            done.append(end)
            if push_prev:
                to_load.given.append(end)
            if push_next:
                to_store.given.append(end)
        return len(taken) > before

    # -- requests -----------------------------------------------------------------------------------------------

    def _fetch(self, now: int) -> None:
        beats, pace = self.config.word_beats, self.pace
        begin = max(now + self.latency, self.free)
        self.come.extend(begin + (word * beats - 1) * pace + 1 + SEEN for word in range(1, CHUNK + 1))
        self.free = begin + CHUNK * beats * pace
        self.fetch = NEVER
        if len(self.come) < self.words and len(self.come) < 2 * CHUNK:
            self.fetch = now + 1
        self._advance()
        if self.fetch <= now:
            self.fetch = now + 1

    def _load_rows(self, now: int, until: int) -> None:
        """A row of the load, and the ones after it that come before any other request can."""
        load = self.load
        at = len(load.taken) - 1
        rows, beats, _, pushes, before, between, after = load.words[at]
        bursts, pace, latency, ends = self.bursts, self.pace, self.latency, load.ends
        if load.left == rows:
            begin = max(load.taken[at] + SEEN, self.done[0][-1] if at else 0)
            load.begins.append(begin)
            self.cursor = begin + 1 + before
        while True:
            start = max(now + latency, self.free, self.cursor)
            end = start + (beats - 1) * pace
            ends.append(end)
            self.free, self.cursor, self.port = end + pace, end + 1 + between, now
            load.granted(now, bursts)
            now = load.offer
            if now >= until:
                break
        if not load.left:
            done = end + after + 1
            self.done[0].append(done)
            if pushes:
                load.given.given.append(done)

    def _store_row(self, now: int) -> None:
        store = self.store
        at = len(store.taken) - 1
        rows, beats, _, pushes = store.words[at]
        if store.left == rows:
            begin = store.taken[at] + SEEN
            if at:
                last = store.begins[-1] + store.words[at - 1][0] * store.words[at - 1][1]
                if self.beats > READY:
                    last = max(last, self._moved(self.beats - 1 - READY) + 1)
                begin = max(begin, last + STAGES + 1)
            store.begins.append(begin)
            self.made = begin + 1 + STAGES + SEEN
        start = max(now + self.latency, self.free, self.made)
        end = start + (beats - 1) * self.pace
        self.moved.append((self.beats, start))
        self.beats += beats
        store.ends.append(end)
        self.free, self.made = end + self.pace, self.made + beats
        store.granted(now, self.bursts)
        if not store.left:
            self.done[1].append(end + 1)
            if pushes:
                store.given.given.append(end + 1)

    def _moved(self, beat: int) -> int:
        """When the store's beat of this number moved."""
        at = len(self.moved) - 1
        while self.moved[at][0] > beat:
            at -= 1
        first, when = self.moved[at]
        return when + (beat - first) * self.pace
