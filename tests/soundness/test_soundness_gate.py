"""The soundness gate: a decorated program does exactly what the plain function does, with a seeded oracle as the model.

Compared are the result, the exception, the order of effects, and the model calls: the first run (no plan yet) makes the
same calls; a later one, which follows the plan, may only leave calls out. `pytest --long` runs 500 seeds.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tracedsl import program
from tracedsl.cache import digest
from tracedsl.programs import LMRequest, OracleLM, context, trace_calls
from tracedsl.programs.lm.base import LMError, LMResponse

_spec = importlib.util.spec_from_file_location("soundness_corpus", Path(__file__).parent / "corpus.py")
assert _spec is not None and _spec.loader is not None
corpus = importlib.util.module_from_spec(_spec)
sys.modules["soundness_corpus"] = corpus
_spec.loader.exec_module(corpus)


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


Observed = tuple[Any, Any, list[Any], Counter[str], list[Any]]


def observe(function: Callable[..., Any], seed: int, flaky: bool) -> Observed:
    """Result, exception, log, calls and trace of one run."""
    lm, log, question = Oracle(seed, flaky), [], f"what is {seed} and how {'so ' * (seed % 4)}"
    corpus.SINK = log
    corpus.COUNTER = 0
    result, error = None, None
    with context(lm=lm), trace_calls() as steps:
        try:
            result = function(question, log)
        except Exception as raised:  # noqa: BLE001 - compared below
            error = (type(raised), str(raised), type(raised.__cause__))
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
@pytest.mark.parametrize("function", corpus.PROGRAMS, ids=lambda f: f.__name__)
def test_decorated_equals_plain(function: Callable[..., Any], flaky: bool, request: pytest.FixtureRequest,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    # A call that is dropped cannot fail either: with a model that fails, that pass is left out.
    make = program(disable=("drop-dead",) if flaky else ())
    decorated = make(function)
    for seed in range(500 if request.config.getoption("--long") else 20):
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


def test_corpus_is_large_and_is_captured() -> None:
    assert len(corpus.PROGRAMS) >= 30
    captured = [f for f in corpus.PROGRAMS if not isinstance(program(f)._captured, Exception)]
    assert len(captured) == len(corpus.PROGRAMS), "every program of the corpus takes the captured way"


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
