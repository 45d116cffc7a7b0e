"""Limits of an endpoint: calls at the same time, requests a minute, tokens a minute, and the pauses it asks for.

What holds here: in no 60 seconds more requests or tokens are let through than allowed. Threads and tasks wait in one
queue, first come, first served. Whoever holds a slot already, or blocks the event loop that others need to give
theirs back, is let through at once: waiting would never end.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from tracedsl.programs.driving import current_io, may_wait, who_runs

WINDOW = 60.0


@dataclass(frozen=True)
class Limits:
    """What an endpoint allows; None: no limit."""

    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class Pass(NamedTuple):
    """The permission to make one call: who holds it, and what is booked for it."""

    holder: Any
    bookings: tuple[_Booking | None, _Booking | None]


class Limiter:
    """The limits of one endpoint, shared by all who call it."""

    def __init__(self, limits: Limits = Limits(), clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._unlimited = limits == Limits()
        self._clock = clock
        self._lock = threading.Lock()
        self._free = limits.concurrency if limits.concurrency is not None else sys.maxsize
        self._queue: deque[Future[None]] = deque()
        self._holders: Counter[Any] = Counter()
        self._requests = _Window(limits.requests_per_minute)
        self._tokens = _Window(limits.tokens_per_minute)
        self._paused_until = 0.0

    @property
    def open(self) -> bool:
        """Whether nobody has to wait, now and whatever comes."""
        return self._unlimited and self._paused_until == 0.0

    def pause(self, seconds: float) -> None:
        """Let nobody through for a while: the endpoint asked for it."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    async def enter(self, tokens: int, sleep: Callable[[float], Awaitable[None]]) -> Pass:
        """Wait until a call that may use so many tokens may go out. Give the pass back with `leave`."""
        holder = who_runs()
        await self._take_slot(holder)
        try:
            while True:
                bookings, start = self._book(tokens)
                if (wait := start - self._clock()) > 0:
                    await sleep(wait)
                if self._paused_until <= start:
                    break
                with self._lock:        # a pause was asked for while we waited
                    for booking in filter(None, bookings):
                        booking.correct(0)
        except BaseException:
            self._give_slot(holder)
            raise
        return Pass(holder, bookings)

    def _book(self, tokens: int) -> tuple[tuple[_Booking | None, _Booking | None], float]:
        """Book one request; also says when it may go out. After a pause, not all come back at once."""
        with self._lock:
            start = self._clock()
            if self._paused_until > start:
                start = self._paused_until + random.uniform(0.0, 0.1) * (self._paused_until - start)
            requests, start = self._requests.book(1, start)
            booked, start = self._tokens.book(tokens, start)
            if requests is not None:
                requests.put_off(start)
            return (requests, booked), start

    def leave(self, given: Pass, tokens: int | None = None) -> None:
        """The call has ended and used so many tokens; None: as many as were booked."""
        booking = given.bookings[1]
        if booking is not None and tokens is not None:
            with self._lock:
                booking.correct(tokens)
        self._give_slot(given.holder)

    async def _take_slot(self, holder: Any) -> None:
        with self._lock:
            if self._free > 0 or self._holders[holder] or not may_wait():
                self._free -= 1
                self._holders[holder] += 1
                return
            ticket: Future[None] = Future()
            self._queue.append(ticket)
        try:
            await current_io().wait(ticket)
        except BaseException:
            with self._lock:
                if ticket in self._queue:
                    self._queue.remove(ticket)
                    raise
            self._hand_on()
            raise
        with self._lock:
            self._holders[holder] += 1

    def _give_slot(self, holder: Any) -> None:
        with self._lock:
            self._holders[holder] -= 1
            if not self._holders[holder]:
                del self._holders[holder]
        self._hand_on()

    def _hand_on(self) -> None:
        """A slot is free: it goes to the first in the queue."""
        with self._lock:
            if self._free < 0 or not self._queue:
                self._free += 1
                return
            ticket = self._queue.popleft()
        ticket.set_result(None)


class _Booking:
    """An amount at a time, in a window."""

    __slots__ = ("amount", "time", "window")

    def __init__(self, window: _Window, when: float, amount: int) -> None:
        self.window: _Window | None = window
        self.time = when
        self.amount = amount

    def put_off(self, when: float) -> None:
        """It is used later than it was booked for: another limit holds it back."""
        self.time = when
        if self.window is not None:
            self.window.last = when

    def correct(self, amount: int) -> None:
        if self.window is not None:
            self.window.total += amount - self.amount
            self.amount = amount


class _Window:
    """At most `limit` within any 60 seconds. Amounts are booked ahead, each not before the one that came earlier."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.total = 0
        self._bookings: deque[_Booking] = deque()
        self.last = 0.0

    def book(self, amount: int, now: float) -> tuple[_Booking | None, float]:
        """Book an amount; returns the booking and when it may be used. More than the limit goes alone."""
        if self.limit is None:
            return None, now
        start = max(now, self.last)
        while self._bookings and (self._bookings[0].time <= start - WINDOW or self.total + amount > self.limit):
            oldest = self._bookings.popleft()
            self.total -= oldest.amount
            oldest.window = None
            start = max(start, oldest.time + WINDOW)
        made = _Booking(self, start, amount)
        self._bookings.append(made)
        self.total += amount
        self.last = start
        return made, start


_shared: WeakValueDictionary[tuple[str, Limits], Limiter] = WeakValueDictionary()
_sharing = threading.Lock()


def limiter_of(endpoint: str, limits: Limits) -> Limiter:
    """The limiter that all clients of an endpoint with the same limits share."""
    with _sharing:
        limiter = _shared.get((endpoint, limits))
        if limiter is None:
            limiter = _shared[endpoint, limits] = Limiter(limits)
        return limiter
