"""Rehearsals: run a program without asking any model, to see what it would cost.

What holds here: within a rehearsal no request leaves the process and nothing is kept. Known answers are used; the
others are invented from the types of the outputs, so a program may take another path than it would with a model.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tracedsl.cache import digest
from tracedsl.programs.lm.accounts import Spent, most_used, spent_on

if TYPE_CHECKING:
    from tracedsl.programs.lm.base import LMRequest
    from tracedsl.programs.lm.prices import Price
    from tracedsl.programs.signature import Signature

BYTES_OF_A_TOKEN = 4
LIKELY_ANSWER = 128


class Rehearsal:
    """What the calls would use: `likely` by rule of thumb (four bytes a token, answers as long as the model's so far),
    and `most`, what a budget would have to allow."""

    def __init__(self) -> None:
        self.likely = Spent()
        self.most = Spent()
        self._asked: set[tuple[str, LMRequest]] = set()
        self._lock = threading.Lock()

    def note(self, model: str, request: LMRequest, price: Price | None, answer: float | None, cached: bool) -> None:
        """Count a request; one that is repeated, and may be cached, would cost nothing the second time."""
        most = most_used(request, price, None)
        room = request.max_tokens if request.max_tokens is not None else most.completion_tokens
        length = min(room, LIKELY_ANSWER if answer is None else round(answer)) * request.n
        likely = spent_on(-(-most.prompt_tokens // BYTES_OF_A_TOKEN), length, 1, price)
        with self._lock:
            if cached or (request.cacheable and (model, request) in self._asked):
                likely = most = Spent(cached_calls=1)
            self._asked.add((model, request))
            self.likely += likely
            self.most += most


_current: ContextVar[Rehearsal | None] = ContextVar("tracedsl_rehearsal", default=None)


def current_rehearsal() -> Rehearsal | None:
    return _current.get()


@contextmanager
def rehearse() -> Iterator[Rehearsal]:
    """Within this block no model is asked."""
    made = Rehearsal()
    token = _current.set(made)
    try:
        yield made
    finally:
        _current.reset(token)


def invented_outputs(signature: type[Signature], request: LMRequest) -> dict[str, Any]:
    """A value of the right type for each output, the same for the same request; None where none can be made."""
    from tracedsl.programs.lm.scripted import invent
    from tracedsl.programs.types import json_schema, validate

    values: dict[str, Any] = {}
    for name, field in signature.output_fields.items():
        source = random.Random(digest(request.fingerprint, name))
        try:
            schema = json_schema(field.type)
            values[name] = validate(field.type, invent(schema, schema.get("$defs", {}), source))
        except (ValueError, TypeError, KeyError):
            values[name] = None
    return values
