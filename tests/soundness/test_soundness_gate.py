"""The soundness gate: a decorated program does exactly what the plain function does, with a seeded oracle as the model.

Compared are the result, the exception, the order of effects, and the model calls: the first run (no plan yet) makes the
same calls; a later one, which follows the plan, may only leave calls out. `pytest --long` runs 500 seeds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from tracedsl import program
from tracedsl.cache import digest
from tracedsl.programs import LMRequest, OracleLM, Predict, context, trace_calls
from tracedsl.programs.lm.accounts import Account
from tracedsl.programs.lm.base import LMError, LMResponse
from tracedsl.programs.lm.interception import Trace, install, tracing


def load(name: str) -> Any:
    """A module of this folder, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"soundness_{name}", Path(__file__).parent / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


install()
corpus, clients, fuzz = load("corpus"), load("client_corpus"), load("fuzz")


class Oracle(OracleLM):
    """Answers late, in another order than asked; fails for some requests if it is `flaky`."""

    def __init__(self, seed: int, flaky: bool) -> None:
        super().__init__(seed)
        self.flaky = flaky
        self.asked: Counter[str] = Counter()

    def _send(self, request: LMRequest) -> LMResponse:
        with self._lock:
            self.asked[request.fingerprint] += 1
        source = random.Random(digest(str(self.seed), request.fingerprint, "way"))
        time.sleep(source.random() * 0.002)
        if self.flaky and source.random() < 0.15:
            raise LMError("L004", f"no answer for {request.fingerprint}")
        return super()._send(request)


class ClientOracle:
    """The same for the client: answers by the request's body."""

    def __init__(self, seed: int, flaky: bool) -> None:
        self.seed, self.flaky, self.asked = seed, flaky, Counter[str]()
        self._lock = threading.Lock()

    def __call__(self, body: Any) -> tuple[int, str]:
        name = digest(str(self.seed), json.dumps(body, sort_keys=True))
        with self._lock:
            self.asked[name] += 1
        source = random.Random(name)
        time.sleep(source.random() * 0.002)
        if self.flaky and source.random() < 0.15:
            return 400, f"no answer for {name[:8]}"
        return 200, " ".join("".join(source.choices("abcemxyz", k=source.randrange(1, 6)))
                             for _ in range(source.randrange(1, 4)))


Observed = tuple[Any, Any, list[Any], Counter[str], list[Any]]


def observe(function: Callable[..., Any], seed: int, flaky: bool) -> Observed:
    """Result, exception, log, calls and trace of one run."""
    clients.ORACLE = oracle = ClientOracle(seed, flaky)
    lm, log, question = Oracle(seed, flaky), [], f"what is {seed} and how {'so ' * (seed % 4)}"
    corpus.SINK = log
    corpus.COUNTER = 0
    result, error = None, None
    traced = tracing(Trace(Account(), cache=False))     # whatever is saved is saved by the plan, not by the cache
    with context(lm=lm), trace_calls() as steps, traced:
        try:
            result = function(question, log)
        except Exception as raised:  # noqa: BLE001 - compared below
            error = (type(raised), str(raised), type(raised.__cause__))
    lm.asked.update(oracle.asked)
    trace = [(step.predictor.signature.signature, plain(dict(step.inputs)), repr(step.prediction)) for step in steps]
    return plain(result), error, plain(log), lm.asked, trace


def plain(value: Any) -> Any:
    """A text of the value and of all types in it: a handle that slipped out would show."""
    if isinstance(value, corpus.Box):
        return ("Box", plain(value.value))
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [plain(v) if v is not value else "itself" for v in value])
    if isinstance(value, dict):
        return ("dict", [(k if isinstance(k, str) else type(k).__name__, plain(v)) for k, v in value.items()])
    return (type(value).__name__, repr(value))


@pytest.mark.parametrize("flaky", [False, True], ids=["answers", "failures"])
@pytest.mark.parametrize("function", [*corpus.PROGRAMS, *clients.PROGRAMS], ids=lambda f: f.__name__)
def test_decorated_equals_plain(function: Callable[..., Any], flaky: bool, request: pytest.FixtureRequest,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    # A call that is dropped cannot fail either: with a model that fails, that pass is left out.
    make = program(disable=("drop-dead",) if flaky else ())
    decorated = make(function)
    short = 6 if function in clients.PROGRAMS else 20
    for seed in range(500 if request.config.getoption("--long") else short):
        monkeypatch.setitem(corpus.RECURSE, "recursion", function)
        expected = observe(function, seed, flaky)
        monkeypatch.setitem(corpus.RECURSE, "recursion", decorated)
        fresh = make(function)
        if function is corpus.recursion:
            monkeypatch.setitem(corpus.RECURSE, "recursion", fresh)
        check(expected, observe(fresh, seed, flaky), f"{function.__name__}, seed {seed}, first run", equal=True)
        check(expected, observe(fresh, seed, flaky), f"{function.__name__}, seed {seed}, second run", equal=False)
        monkeypatch.setitem(corpus.RECURSE, "recursion", decorated)
        check(expected, observe(decorated, seed, flaky), f"{function.__name__}, seed {seed}, old plan", equal=False)


def check(expected: Observed, got: Observed, where: str, *, equal: bool) -> None:
    assert got[:3] == expected[:3], where
    if expected[1] is not None:
        return      # calls that were under way when the error came are made besides
    if equal:
        assert got[3] == expected[3], where
        assert got[4] == expected[4], f"{where}: the trace"
    assert not got[3] - expected[3], where


@pytest.mark.parametrize("flaky", [False, True], ids=["answers", "failures"])
def test_random_programs(flaky: bool, request: pytest.FixtureRequest) -> None:
    world = {"Predict": Predict, "ask": clients.ask, "contextlib": contextlib, "openai": openai, "__name__": "world"}
    for seed in range(2000 if request.config.getoption("--long") else 15):
        text, function = fuzz.make(seed, world)
        made = program(disable=("drop-dead",) if flaky else ())(function)
        for run, given in enumerate((seed, seed, seed + 1)):
            check(observe(function, given, flaky), observe(made, given, flaky), f"run {run} of\n{text}",
                  equal=run == 0)


def test_corpus_is_large_and_is_captured() -> None:
    programs = [*corpus.PROGRAMS, *clients.PROGRAMS]
    assert len(programs) >= 60
    captured = [f for f in programs if not isinstance(program(f)._captured, Exception)]
    assert len(captured) == len(programs), "every program of the corpus takes the captured way"


def test_gate_sees_a_wrong_program() -> None:
    """The gate itself: a difference in result, effects or calls is found."""
    def wrong(q: str, log: list[Any]) -> Any:
        log.append("other")
        return corpus.straight(q, log)

    expected, got = observe(corpus.straight, 1, False), observe(wrong, 1, False)
    with pytest.raises(AssertionError):
        check(expected, got, "", equal=True)


@pytest.mark.parametrize(("broken", "function"), [
    ("barrier", corpus.effects_between), ("disown", corpus.escaped_container),
    ("enter", corpus.try_around_failing_calls)])
def test_gate_sees_a_broken_run(broken: str, function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these keeps effects, exceptions or identity in order: without it the gate must object."""
    from tracedsl.capture.language.run import Run

    expected = [observe(function, seed, True) for seed in range(20)]
    monkeypatch.setattr(Run, broken, lambda self, *args: None)
    if broken == "enter":
        monkeypatch.setattr(Run, "leave", lambda self: None)
    with pytest.raises(AssertionError):
        for seed in range(20):
            check(expected[seed], observe(program(function), seed, True), "", equal=True)
