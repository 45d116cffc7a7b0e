"""Calls that may run beside the program: of language models, and of functions declared pure.

What holds here: a model call is prepared first (which is pure), and only the prepared request decides whether what the
plan says applies: a pinned answer is used, or another call's answer shared, only for an equal request. A call goes its
site's `Way`, alone or in a `Team`; what its team has no answer for, it asks itself.
"""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MethodType
from typing import Any, Protocol

from tracedsl.cache import digest
from tracedsl.capture.language.handles import Call, Owner, finished
from tracedsl.capture.language.sites import state_digest
from tracedsl.diagnostics import Span
from tracedsl.programs.context import record_call
from tracedsl.programs.driving import drive
from tracedsl.programs.example import Prediction
from tracedsl.programs.lm.accounts import call_site
from tracedsl.programs.lm.base import LMRequest, LMResponse, Usage
from tracedsl.programs.modules.chain_of_thought import ChainOfThought
from tracedsl.programs.modules.predict import Predict, PreparedCall

# Keywords of a call that are settings and not inputs (unless the signature has an input of that name).
_SETTINGS = frozenset(p.name for p in inspect.signature(Predict.prepare).parameters.values()
                      if p.kind is p.KEYWORD_ONLY)
PURE_MARK = "__tracedsl_pure__"

Answers = Mapping[str, Mapping[str, Any]]   # model and request -> {"texts": [...], "finish_reason": "..."}


def predictor_of(callee: Any) -> Predict | None:
    """The predictor behind a module whose calls are nothing but one model call; None for every other object."""
    if type(callee) is Predict:
        return callee
    if type(callee) is ChainOfThought and type(callee.predict) is Predict:
        return callee.predict
    return None


def is_pure(callee: Any) -> bool:
    """Whether the callee, or its class, was marked with `@pure`."""
    target = callee.__func__ if type(callee) is MethodType else callee
    return inspect.getattr_static(target, PURE_MARK, False) is True


class Way:
    """How the calls of a site are made: as its predictor says. Rewrites that ask otherwise derive from this."""

    def prepare(self, predictor: Predict, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> PreparedCall:
        """The complete request. Pure; raises what the predictor raises for bad inputs."""
        return predictor.prepare(inputs, **settings)

    async def execute(self, call: ModelCall, prepared: Any) -> Any:
        """Make the call, with `call.ask` for each request."""
        return await call.ask(prepared)


PLAIN = Way()


class Team(Protocol):
    """Calls that are made together (`capture.language.teams`)."""

    def holds(self, call: ModelCall) -> bool:
        """Whether the call has to wait: others may still join."""

    def close(self) -> None:
        """Nobody joins any more."""

    def answer(self, call: ModelCall) -> Prediction | None:
        """What the team got for this call; None if the call has to ask for itself."""


class Prepared(Protocol):
    """A call that is ready to be made. Equal keys, equal answers, if `deterministic`."""

    @property
    def deterministic(self) -> bool: ...

    @property
    def key(self) -> str: ...

    @property
    def request(self) -> LMRequest: ...


class ModelCall(Call):
    """One call of a model: of a predictor (`PredictorCall`), or of a user's client (`client_calls.ClientCall`).

    `how` tells what happened: "asked" (the model, or its cache, was asked), "folded" (pinned answers), "shared", or
    what a team did; `seconds` is how long the model took. What the plan says about the call (`deferred`, `twin`,
    `pinned`, `way`, `team`) is set before it starts.
    """

    signature_text = ""
    outputs: tuple[tuple[str, str], ...] = ()

    def __init__(self, run: Owner, span: Span | None, arguments: Any, *, site: str, kind: str) -> None:
        super().__init__(run, span, arguments)
        self.site, self.kind = site, kind
        self.twin: ModelCall | None = None      # whose answer is taken if the request is equal
        self.pinned: Answers = {}
        self.way: Way = PLAIN
        self.team: Team | None = None
        self.prepared: Any = None               # a `Prepared`, once the inputs are there
        self.answers: dict[str, LMResponse] = {}
        self.how = "asked"
        self.seconds = 0.0

    @property
    def deterministic(self) -> bool:
        return self.prepared is not None and self.prepared.deterministic

    @property
    def state(self) -> str:
        """What decides the answer beside the inputs: a short digest of signature, demonstrations and settings."""
        raise NotImplementedError

    def start(self) -> None:
        if self.team is None or not self.team.holds(self):
            super().start()

    def release(self) -> None:
        if self.team is not None:
            self.team.close()

    def differs_from(self, other: ModelCall) -> bool:
        """Whether it is known already, without waiting for anything, that this is another request than `other`'s."""
        try:
            return all(map(_readied, (self, other))) and self.prepared.key != other.prepared.key
        except Exception:  # noqa: BLE001 - wrong inputs: found again where program order meets them
            return False

    def prepare(self) -> Any:
        """The complete request; the inputs must be settled. Raises what the plain call raises for bad inputs."""
        raise NotImplementedError

    def compute(self) -> Any:
        prepared = self.prepared or self.prepare()
        if self.team is not None and (found := self.team.answer(self)) is not None:
            return found
        twin = self.twin
        if twin is not None and twin.done and twin.error is None and _same(twin.prepared, prepared):
            self.how, self.answers = "shared", twin.answers
            return copy.deepcopy(twin.value)
        return drive(self.execute(prepared))

    async def execute(self, prepared: Any) -> Any:
        """Make the call, its site's way."""
        started = time.perf_counter()
        answer = await self.way.execute(self, prepared)
        self.seconds = time.perf_counter() - started
        if self.answers and self.answers.keys() <= self.pinned.keys():
            self.how = "folded"
        return answer

    async def ask(self, prepared: Any) -> Any:
        """One request and its answer; pinned answers are used, all answers are kept."""
        raise NotImplementedError

    def report(self) -> None:
        """Tell those who trace calls; done in program order, whatever the order of the answers."""


class PredictorCall(ModelCall):
    """One call of a predictor."""

    def __init__(self, run: Owner, span: Span | None, arguments: Any, *, site: str, kind: str,
                 predictor: Predict) -> None:
        super().__init__(run, span, arguments, site=site, kind=kind)
        self.predictor = predictor
        self.signature_text = predictor.signature.signature
        self.outputs = tuple((name, f.type_name) for name, f in predictor.signature.output_fields.items())

    @property
    def shape(self) -> Any:
        return {name: str if kind == "str" else None for name, kind in self.outputs}

    @property
    def state(self) -> str:
        return state_digest(self.predictor)[:8]

    def prepare(self) -> PreparedCall:
        given = dict(finished(self.arguments))
        fields = self.predictor.signature.input_fields
        settings = {name: given.pop(name) for name in list(given) if name in _SETTINGS and name not in fields}
        made = self.prepared = self.way.prepare(self.predictor, given, settings)
        return made

    async def ask(self, prepared: PreparedCall) -> Prediction:
        line = Line(prepared.lm, self.pinned, self.answers)
        with call_site(self.site, complete=True):
            return await self.predictor.aexecute(replace(prepared, lm=line))

    def report(self) -> None:
        if self.prepared is not None:
            record_call(self.predictor, self.prepared.inputs, self.value)


def _readied(call: ModelCall) -> bool:
    """Prepare the call if its inputs are there."""
    if call.prepared is None:
        inputs = list(call.inputs())
        if not all(step.done and step.error is None for step in inputs):
            return False
        call.prepare()
    return True


def _same(first: Prepared | None, second: Prepared) -> bool:
    return first is not None and second.deterministic and first.key == second.key


class Line:
    """A model that gives pinned answers to equal requests, and keeps what it was asked."""

    def __init__(self, lm: Any, pinned: Answers, answers: dict[str, LMResponse]) -> None:
        self._lm, self._pinned, self._answers = lm, pinned, answers

    async def acomplete(self, request: LMRequest) -> LMResponse:
        name = digest(self._lm.identity, request.fingerprint)
        known = self._pinned.get(name) if request.deterministic else None
        if known is not None:
            response = LMResponse(tuple(known["texts"]), Usage(cached_calls=1), known["finish_reason"], cached=True)
        else:
            response = await self._lm.acomplete(request)
        self._answers[name] = response
        return response

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lm, name)


class PureCall(Call):
    """A call of a function that was declared pure."""

    def __init__(self, run: Owner, span: Span | None, arguments: Any, *, function: Callable[..., Any],
                 callee: str) -> None:
        super().__init__(run, span, arguments)
        self.function, self.callee = function, callee

    def compute(self) -> Any:
        args, kwargs = finished(self.arguments)
        return self.function(*args, **kwargs)
