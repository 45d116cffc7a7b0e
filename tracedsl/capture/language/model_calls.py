"""Calls that may run beside the program: of language models, and of functions declared pure.

What holds here: a model call is prepared first (which is pure), and only the prepared request decides whether what the
plan says applies: a pinned answer is used, or another call's answer shared, only for an equal request. A call goes its
site's `Way`, alone or in a `Team`; what its team has no answer for, it asks itself. What is learned belongs to the call
site: `Sites` keeps one copy of the module for each site and each form in which it comes there.
"""

from __future__ import annotations

import copy
import inspect
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MethodType
from typing import Any, Protocol

from tracedsl.cache import digest
from tracedsl.capture.language.handles import Call, Owner, finished
from tracedsl.diagnostics import Span
from tracedsl.programs.context import record_call
from tracedsl.programs.driving import drive
from tracedsl.programs.example import Prediction
from tracedsl.programs.lm.accounts import call_site
from tracedsl.programs.lm.base import LMRequest, LMResponse, Usage
from tracedsl.programs.modules.chain_of_thought import ChainOfThought
from tracedsl.programs.modules.module import Module, SavedProgramError
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

    async def execute(self, call: ModelCall, prepared: PreparedCall) -> Prediction:
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


class ModelCall(Call):
    """One call of a predictor.

    `how` tells what happened: "asked" (the model, or its cache, was asked), "folded" (pinned answers), "shared", or
    what a team did; `seconds` is how long the model took. What the plan says about the call (`deferred`, `twin`,
    `pinned`, `way`, `team`) is set before it starts.
    """

    def __init__(self, run: Owner, span: Span | None, arguments: Any, *, site: str, kind: str,
                 predictor: Predict) -> None:
        super().__init__(run, span, arguments)
        self.site, self.kind, self.predictor = site, kind, predictor
        self.signature_text = predictor.signature.signature
        self.outputs = tuple((name, f.type_name) for name, f in predictor.signature.output_fields.items())
        self.declared = frozenset(predictor.signature.output_fields)
        self.twin: ModelCall | None = None      # whose answer is taken if the request is equal
        self.pinned: Answers = {}
        self.way: Way = PLAIN
        self.team: Team | None = None
        self.prepared: PreparedCall | None = None
        self.answers: dict[str, LMResponse] = {}
        self.how = "asked"
        self.seconds = 0.0

    @property
    def deterministic(self) -> bool:
        return self.prepared is not None and self.prepared.deterministic

    @property
    def state(self) -> str:
        """What decides the answer beside the inputs: a short digest of signature, demonstrations and settings."""
        return state_digest(self.predictor)[:8]

    def start(self) -> None:
        if self.team is None or not self.team.holds(self):
            super().start()

    def release(self) -> None:
        if self.team is not None:
            self.team.close()

    def prepare(self) -> PreparedCall:
        """The complete request; the inputs must be settled. Raises what the predictor raises for bad inputs."""
        given = dict(finished(self.arguments))
        fields = self.predictor.signature.input_fields
        settings = {name: given.pop(name) for name in list(given) if name in _SETTINGS and name not in fields}
        self.prepared = self.way.prepare(self.predictor, given, settings)
        return self.prepared

    def compute(self) -> Any:
        prepared = self.prepared or self.prepare()
        if self.team is not None and (found := self.team.answer(self)) is not None:
            return found
        twin = self.twin
        if twin is not None and twin.done and twin.error is None and _same(twin.prepared, prepared):
            self.how, self.answers = "shared", twin.answers
            return copy.deepcopy(twin.value)
        return drive(self.execute(prepared))

    async def execute(self, prepared: PreparedCall) -> Prediction:
        """Make the call, its site's way."""
        started = time.perf_counter()
        prediction = await self.way.execute(self, prepared)
        self.seconds = time.perf_counter() - started
        if self.answers and self.answers.keys() <= self.pinned.keys():
            self.how = "folded"
        return prediction

    async def ask(self, prepared: PreparedCall) -> Prediction:
        """One request and its answer; pinned answers are used, all answers are kept."""
        line = _Line(prepared.lm, self.pinned, self.answers)
        with call_site(self.site, complete=True):
            return await self.predictor.aexecute(replace(prepared, lm=line))

    def report(self) -> None:
        """Tell those who trace calls; done in program order, whatever the order of the answers."""
        if self.prepared is not None:
            record_call(self.predictor, self.prepared.inputs, self.value)


def _same(first: PreparedCall | None, second: PreparedCall) -> bool:
    return first is not None and second.deterministic and first.key == second.key


class _Line:
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


# -- what is learned, by call site ------------------------------------------------------------------------------------


class Sites:
    """The modules of a program by call site, each a copy of what was called there with what was learned for it.

    A module that comes to a site in another state (another signature, other demonstrations) is another *sub-site*.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._lock = threading.Lock()
        self._modules: dict[tuple[int, str], tuple[str, Module]] = {}
        self._waiting: dict[tuple[int, str], tuple[str, Mapping[str, Any]]] = {}

    def find(self, number: int, module: Module) -> tuple[str, Module]:
        """The site's name and the module to use there in place of `module`."""
        key = (number, state_digest(module))
        with self._lock:
            if key not in self._modules:
                self._modules[key] = self._register(key, module)
            return self._modules[key]

    def knows(self, number: int) -> bool:
        """Whether anything was learned, or visited for learning, at this place in the source."""
        with self._lock:
            return any(key[0] == number for key in (*self._modules, *self._waiting))

    def _register(self, key: tuple[int, str], module: Module) -> tuple[str, Module]:
        mine = module.deepcopy()
        if key in self._waiting:
            name, states = self._waiting.pop(key)
            for part, predictor in _parts(mine):
                if part in states:
                    predictor.load_state(states[part])
            return name, mine
        taken = {name for name, _ in (*self._modules.values(), *self._waiting.values())}
        name = f"{self.prefix}/{key[0]}:{type(module).__name__}"
        if name in taken:
            name = f"{name}#{key[1][:6]}"
        return name, mine

    def items(self) -> list[tuple[str, Module]]:
        """Names and modules, in the order of the source."""
        with self._lock:
            return [entry for _, entry in sorted(self._modules.items(), key=lambda item: (item[0][0], item[1][0]))]

    def named_predictors(self) -> list[tuple[str, Predict]]:
        return [(f"{name}/{part}", p) for name, module in self.items() for part, p in _parts(module)]

    def copy(self) -> Sites:
        made = Sites(self.prefix)
        with self._lock:
            made._modules = {key: (name, module.deepcopy()) for key, (name, module) in self._modules.items()}
            made._waiting = dict(self._waiting)
        return made

    def replace(self, wanted: str, new: Predict) -> None:
        """Put another predictor in the place of the one with this name."""
        for key, (name, module) in list(self._modules.items()):
            for part, _ in _parts(module):
                if f"{name}/{part}" == wanted:
                    if isinstance(module, Predict):
                        self._modules[key] = (name, new)
                    else:
                        setattr(module, part, new)

    # -- saved form ----------------------------------------------------------------------------------------------

    def dump(self) -> list[dict[str, Any]]:
        """What is learned, as JSON data, in the order of the source."""
        with self._lock:
            rows = [{"site": name, "number": key[0], "initial": key[1],
                     "predictors": {part: p.dump_state() for part, p in _parts(module)}}
                    for key, (name, module) in self._modules.items()]
            rows += [{"site": name, "number": key[0], "initial": key[1], "predictors": dict(states)}
                     for key, (name, states) in self._waiting.items()]
        return sorted(rows, key=lambda row: (row["number"], row["site"]))

    def load(self, rows: list[Mapping[str, Any]]) -> None:
        """Take over what was learned; sites that were not seen yet get it when they are. Raises `SavedProgramError`
        P007 and changes nothing if the data does not fit."""
        waiting: dict[tuple[int, str], tuple[str, Mapping[str, Any]]] = {}
        try:
            for row in rows:
                waiting[int(row["number"]), str(row["initial"])] = (str(row["site"]), dict(row["predictors"]))
            with self._lock:
                for key, (_, states) in waiting.items():
                    for part, predictor in _parts(self._modules[key][1]) if key in self._modules else ():
                        predictor.check_state(states[part])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SavedProgramError("P007", "a saved program does not fit", hint="compile the program again",
                                    why=f"{type(error).__name__}: {error}") from error
        with self._lock:
            for key, (name, states) in waiting.items():
                if key in self._modules:
                    for part, predictor in _parts(self._modules[key][1]):
                        predictor.load_state(states[part])
                else:
                    self._waiting[key] = (name, states)


def _parts(module: Module) -> Iterator[tuple[str, Predict]]:
    """The predictors of a module; a predictor by itself is its own part, `predict`."""
    if isinstance(module, Predict):
        yield "predict", module
    else:
        yield from module.named_predictors()


def state_digest(module: Module) -> str:
    """A digest of all that decides what a module answers, but its inputs and the configured model."""
    rows = [type(module).__qualname__]
    for part, predictor in _parts(module):
        lm = getattr(predictor.lm, "identity", "") if predictor.lm is not None else ""
        demos = json.dumps([demo.dump() for demo in predictor.demos], sort_keys=True, default=repr)
        rows += [part, predictor.signature.fingerprint, repr(sorted(predictor.config.items())), demos, lm]
    return digest(*rows)
