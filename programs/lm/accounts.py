"""Budgets and books: what calls used and cost, by call site, and hard limits on it.

What holds here: a call reserves the most that it can use before it goes out, and what it did use takes the place of the
reservation afterwards; so calls at the same time never exceed a limit together. A try whose end is not known (a lost
connection, Ctrl-C) counts with all that was reserved: the endpoint may have worked for it. One that was refused
counts nothing. Accounts belong to a context: they hold for the code within their `with` block, also on the threads and
tasks that this package starts from there.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from tracedsl.programs.driving import current_io, may_wait
from tracedsl.programs.lm.base import LMError, MediaPart

if TYPE_CHECKING:
    from tracedsl.programs.lm.base import LMRequest, LMResponse
    from tracedsl.programs.lm.prices import Price

OUTPUT_OF_UNKNOWN_MODELS = 16_384
TOKENS_OF_MEDIA = 4_096
_TOKENS_AROUND_A_MESSAGE = 16


@dataclass(frozen=True)
class Spent:
    """What calls used. `usd` counts those with a known price; `unpriced_calls` are the others. `cached_calls` cost
    nothing and are in none of the other figures."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    cached_calls: int = 0
    unpriced_calls: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.calls + other.calls, self.prompt_tokens + other.prompt_tokens,
                     self.completion_tokens + other.completion_tokens, self.usd + other.usd,
                     self.cached_calls + other.cached_calls, self.unpriced_calls + other.unpriced_calls)

    def __str__(self) -> str:
        unknown = f" ({self.unpriced_calls} calls without a known price)" if self.unpriced_calls else ""
        return (f"{self.calls} calls and {self.cached_calls} from the cache, {self.prompt_tokens} + "
                f"{self.completion_tokens} tokens, ${self.usd:.4f}{unknown}")


class BudgetExceeded(LMError):
    """A call that could exceed a budget, and was not made. `limit` names it: "usd", "tokens", "calls", "seconds"."""

    limit: str = ""
    concerns_asker_alone = True

    @property
    def concerns_one_request(self) -> bool:
        return False


class Account:
    """The books of a `with` block: `spent` in all, `by_site` for each call site, `by_model` for each model."""

    def __init__(self, usd: float = inf, tokens: float = inf, calls: float = inf, seconds: float = inf) -> None:
        self.limits: Mapping[str, float] = {"usd": usd, "tokens": tokens, "calls": calls}
        self._seconds = seconds
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._reserved = Spent()
        self._spent = Spent()
        self._by_site: dict[str, Spent] = {}
        self._by_model: dict[str, Spent] = {}
        self._holders: Counter[Any] = Counter()
        self._waiting: list[Future[None]] = []

    @property
    def spent(self) -> Spent:
        return self._spent

    @property
    def by_site(self) -> Mapping[str, Spent]:
        """What was spent, by the place in the user's source and the predictor."""
        with self._lock:
            return dict(self._by_site)

    @property
    def by_model(self) -> Mapping[str, Spent]:
        with self._lock:
            return dict(self._by_model)

    def get_total_tokens(self) -> dict[str, dict[str, int]]:
        """Tokens by model, as DSPy's usage tracker tells them."""
        return {model: {"prompt_tokens": s.prompt_tokens, "completion_tokens": s.completion_tokens,
                        "total_tokens": s.tokens} for model, s in self.by_model.items()}

    @property
    def remaining_seconds(self) -> float:
        return self._started + self._seconds - time.monotonic()

    async def reserve(self, most: Spent, who: Any) -> None:
        """Set aside what a call can use at most. Waits for calls under way if what they give back may be enough; raises
        `BudgetExceeded` L014 if it cannot be, or if `who` asks is one whom they wait for."""
        while True:
            if self.remaining_seconds <= 0:
                raise _exceeded("seconds", f"{self._seconds:g} seconds are over", "")
            with self._lock:
                lacking = self._lacking(most)
                if lacking is None:
                    self._reserved += most
                    self._holders[who] += 1
                    return
                if not self._holders or self._holders[who] or not may_wait() or self._hopeless(most, lacking):
                    raise self._too_much(most, lacking)
                changed: Future[None] = Future()
                self._waiting.append(changed)
            await current_io().wait(changed)

    def settle(self, most: Spent, used: Spent, who: Any, site: str, model: str) -> None:
        """Put what was used in the place of what was reserved."""
        with self._lock:
            self._reserved += _negative(most)
            self._holders[who] -= 1
            if not self._holders[who]:
                del self._holders[who]
            self._note(used, site, model)
            waiting, self._waiting = self._waiting, []
        for changed in waiting:
            changed.set_result(None)

    def _lacking(self, most: Spent) -> str | None:
        """The limit that a call could exceed."""
        for limit, allowed in self.limits.items():
            if allowed != inf:
                taken = getattr(self._spent, limit) + getattr(self._reserved, limit)
                if taken + getattr(most, limit) > allowed * (1 + 1e-12) or (limit == "usd" and most.unpriced_calls):
                    return limit
        return None

    def _hopeless(self, most: Spent, limit: str) -> bool:
        """Whether the call could exceed the limit although nothing else were under way."""
        left = self.limits[limit] * (1 + 1e-12) - getattr(self._spent, limit)
        return bool(getattr(most, limit) > left or (limit == "usd" and most.unpriced_calls))

    def _too_much(self, most: Spent, limit: str) -> BudgetExceeded:
        if limit == "usd" and most.unpriced_calls:
            return _exceeded(limit, "the model has no known price", "",
                             hint="say what it costs: LM(..., price=Price(prompt=..., completion=...))")
        taken = getattr(self._spent, limit) + getattr(self._reserved, limit)
        state = f"{_amount(limit, taken)} of {_amount(limit, self.limits[limit])} are spent or reserved"
        return _exceeded(limit, state, f"this call may use up to {_amount(limit, getattr(most, limit))}")

    def note_cached(self, site: str, model: str) -> None:
        with self._lock:
            self._note(Spent(cached_calls=1), site, model)

    def _note(self, used: Spent, site: str, model: str) -> None:
        self._spent += used
        self._by_site[site] = self._by_site.get(site, Spent()) + used
        self._by_model[model] = self._by_model.get(model, Spent()) + used


def _negative(spent: Spent) -> Spent:
    return Spent(-spent.calls, -spent.prompt_tokens, -spent.completion_tokens, -spent.usd, -spent.cached_calls,
                 -spent.unpriced_calls)


def _amount(limit: str, value: float) -> str:
    return f"${value:.6g}" if limit == "usd" else f"{value:g} {limit}"


def _exceeded(limit: str, what: str, why: str, hint: str = "") -> BudgetExceeded:
    error = BudgetExceeded("L014", f"the budget allows no further call: {what}", why=why,
                           hint=hint or "give it more room; max_tokens on the model or the call lowers what one call "
                                        "can use")
    error.limit = limit
    return error


def out_of_time(seconds: float) -> BudgetExceeded:
    """The error of a call that would have to wait for longer than its budget lasts."""
    what = f"there is no time to wait for {seconds:.1f} s" if seconds else "its seconds are over"
    return _exceeded("seconds", what, "")


_open: ContextVar[tuple[Account, ...]] = ContextVar("tracedsl_accounts", default=())
_label: ContextVar[tuple[str, bool]] = ContextVar("tracedsl_call_site", default=("", False))


@contextmanager
def budget(*, usd: float = inf, tokens: float = inf, calls: float = inf, seconds: float = inf) -> Iterator[Account]:
    """Hard limits for the calls within the block: `with budget(usd=0.50, seconds=60) as account: ...`.

    A call that could exceed a limit is not made and raises `BudgetExceeded`; `seconds` also cuts off waiting, and calls
    of endpoints that are under way. Blocks within blocks all count. What a call can use at most is counted in
    bytes of its prompt (no token is shorter than one) plus `max_tokens`; so the last bit of a budget may stay unused.
    """
    with _opened(Account(usd, tokens, calls, seconds)) as account:
        yield account


@contextmanager
def track_usage() -> Iterator[Account]:
    """The books of the calls within the block, without limits."""
    with _opened(Account()) as account:
        yield account


@contextmanager
def _opened(account: Account) -> Iterator[Account]:
    token = _open.set((*_open.get(), account))
    try:
        yield account
    finally:
        _open.reset(token)


def open_accounts() -> tuple[Account, ...]:
    """The accounts that calls made here are booked on."""
    return _open.get()


def remaining_seconds() -> float:
    """How long a call made here may take."""
    return min((account.remaining_seconds for account in _open.get()), default=inf)


@contextmanager
def call_site(name: str, *, complete: bool = False) -> Iterator[None]:
    """Name the call site of the calls within the block. A `complete` name stands alone; another one follows the place
    in the user's source, where that is known."""
    if _label.get()[1]:
        yield
        return
    token = _label.set((name, complete))
    try:
        yield
    finally:
        _label.reset(token)


def current_site() -> str:
    """Where in the user's source, and in which predictor, the call at hand is made."""
    label, complete = _label.get()
    place = "" if complete else _place()
    return f"{place} {label}".strip() or "unknown"


def _place() -> str:
    """The nearest line of the stack that is neither ours nor Python's own."""
    frame = sys._getframe(1)
    while frame is not None:
        root, _, _ = frame.f_globals.get("__name__", "").partition(".")
        if (root != "tracedsl" and root not in sys.stdlib_module_names) or root == "__main__":
            return f"{frame.f_code.co_filename.replace(chr(92), '/').rsplit('/', 1)[-1]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def most_used(request: LMRequest, price: Price | None, default_output: int | None) -> Spent:
    """The most that one call can use: a token is at least one byte of text."""
    texts = [part for m in request.messages for part in (m.content if isinstance(m.content, tuple) else (m.content,))]
    prompt = sum(TOKENS_OF_MEDIA if isinstance(t, MediaPart) else _bytes(t if isinstance(t, str) else t.text)
                 for t in texts)
    prompt += sum(_bytes(c.name) + _bytes(c.arguments) for m in request.messages for c in m.tool_calls)
    prompt += sum(_bytes(t.name) + _bytes(t.description) + _bytes(t.parameters) for t in request.tools)
    prompt += _bytes(request.response_format.text) if request.response_format else 0
    prompt += _TOKENS_AROUND_A_MESSAGE * (len(request.messages) + len(request.tools) + 1)
    ceiling = default_output or (price.max_output if price else None) or OUTPUT_OF_UNKNOWN_MODELS
    output = request.n * (request.max_tokens if request.max_tokens is not None else ceiling)
    return spent_on(prompt, output, 1, price)


def spent_on(prompt_tokens: int, completion_tokens: int, calls: int, price: Price | None) -> Spent:
    """Tokens and calls with what they cost."""
    usd = price.of(prompt_tokens, completion_tokens) if price is not None else 0.0
    return Spent(calls, prompt_tokens, completion_tokens, usd, 0, 0 if price is not None else calls)


def used_by(response: LMResponse, price: Price | None) -> Spent:
    """What one call of the model did use."""
    return spent_on(response.usage.prompt_tokens, response.usage.completion_tokens, 1, price)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
