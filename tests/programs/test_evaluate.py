"""Evaluate and metrics."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracedsl.programs import (
    Evaluate,
    Example,
    LMError,
    Module,
    OracleLM,
    Predict,
    Prediction,
    Price,
    answer_exact_match,
    context,
    exact_match,
)
from tracedsl.programs.evaluate import EvaluationError, bootstrap_interval
from tracedsl.programs.metrics import metric_name, normalize_text, score_of
from tracedsl.programs.types import FieldError

DEV = [Example(n=i, answer=i * i).with_inputs("n") for i in range(10)]


def square(n: int) -> Prediction:
    return Prediction(answer=n * n if n < 8 else 0)


@pytest.mark.parametrize("threads", [1, 3, 16, None])
def test_a_score_with_its_interval(threads: int | None) -> None:
    told: list[tuple[int, int, float]] = []
    result = Evaluate(devset=DEV, metric=exact_match, num_threads=threads,
                      progress=lambda *args: told.append(args))(square)
    assert result.score == float(result) == 80.0 and result.failures == ()
    low, high = result.interval
    assert 40 <= low < 80 < high <= 100
    assert [r.example for r in result.results] == DEV and [r.score for r in result.results] == [1] * 8 + [0] * 2
    assert len(told) == 10 and told[-1] == (10, 10, 80.0)


def test_one_failure_is_one_example() -> None:
    def fails(n: int) -> int:
        return 1 // n * 0 + n * n

    result = Evaluate(devset=DEV, metric=exact_match)(fails)
    assert result.score == 90.0 and len(result.failures) == 1
    example, error = result.failures[0]
    assert example is DEV[0] and isinstance(error, ZeroDivisionError) and result.results[0].prediction is None
    assert Evaluate(devset=DEV, metric=exact_match, failure_score=1.0)(fails).score == 100.0
    assert "1 failed" in str(result)


@pytest.mark.parametrize("metric", [lambda e, p: None, lambda e, p: math.nan, lambda e, p: "high", lambda: 1,
                                    lambda e, p: e.missing])
def test_a_bad_metric_never_makes_a_score(metric: Any) -> None:
    with pytest.raises(EvaluationError, match="10 of 10 examples failed") as caught:
        Evaluate(devset=DEV, metric=metric)(square)
    assert len(caught.value.failures) == 10 and caught.value.__cause__ is caught.value.failures[0].error


def test_too_many_failures_stop_it() -> None:
    calls = []

    def fails(n: int) -> None:
        calls.append(n)
        raise ValueError("no")

    with pytest.raises(EvaluationError, match="3 of 10"):
        Evaluate(devset=DEV, metric=exact_match, num_threads=1, max_errors=3)(fails)
    assert len(calls) == 3


def test_a_dead_model_stops_it_at_once() -> None:
    calls = []

    def dead(n: int) -> None:
        calls.append(n)
        raise LMError("L001", "cannot reach it")

    with pytest.raises(LMError, match="L001"):
        Evaluate(devset=DEV, metric=exact_match, num_threads=1)(dead)
    assert len(calls) == 1

    def refused_once(n: int) -> int:
        if n == 3:
            raise LMError("L010", "too long")
        return n * n

    assert Evaluate(devset=DEV, metric=exact_match)(refused_once).score == 90.0


def test_ctrl_c_leaves_no_thread_behind() -> None:
    def interrupted(n: int) -> int:
        if n == 2:
            raise KeyboardInterrupt
        return n

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        Evaluate(devset=DEV, metric=exact_match, num_threads=2)(interrupted)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and "tracedsl" in thread.name:
            thread.join(5)
    assert threading.active_count() <= before


def test_under_asyncio_it_gives_the_same() -> None:
    class Squares(Module):
        async def aforward(self, n: int) -> Prediction:
            await asyncio.sleep(0)
            return square(n)

    evaluate = Evaluate(devset=DEV, metric=exact_match, num_threads=3)
    assert evaluate(square) == asyncio.run(evaluate.acall(square)) == asyncio.run(evaluate.acall(Squares()))


def test_a_killed_evaluation_goes_on_where_it_was() -> None:
    calls: list[int] = []

    class Squares(Module):
        def __init__(self) -> None:
            self.predict = Predict("q -> a")
            self.last, self.bad = 5, 2

        def forward(self, n: int) -> Prediction:
            calls.append(n)
            if n == self.last:
                raise KeyboardInterrupt
            if n == self.bad:
                raise ValueError("this time")
            return square(n)

    evaluate = Evaluate(devset=DEV, metric=exact_match, num_threads=1, resume="squares")
    program = Squares()
    with pytest.raises(KeyboardInterrupt):
        evaluate(program)
    assert calls == [0, 1, 2, 3, 4, 5]
    calls.clear()
    program.last = program.bad = 99
    told: list[int] = []
    evaluate.progress = lambda done, total, mean: told.append(done)
    result = evaluate(program)
    assert sorted(calls) == [2, 5, 6, 7, 8, 9] and told == [4, 5, 6, 7, 8, 9, 10]     # what failed is tried again
    assert result.score == 80.0 and result.resumed == 4 and result.results[3].prediction.answer == 9
    assert "4 scored before" in str(result)
    again = Evaluate(devset=DEV, metric=exact_match, resume="squares")(program)
    assert len(calls) == 6 and again.resumed == 10 and again.score == 80.0
    program.predict.demos = [Example(q="x", a="y")]        # another program
    assert Evaluate(devset=DEV, metric=exact_match, resume="squares")(program).resumed == 0


def test_what_an_evaluation_cost() -> None:
    dev = [Example(q=str(i), a="x").with_inputs("q") for i in range(6)]
    with context(lm=OracleLM(1, price=Price(1.0, 1.0), cache=True)):
        evaluate = Evaluate(devset=dev, metric=exact_match, num_threads=4)
        assert evaluate(Predict("q -> a")).spent.calls == 6
        assert evaluate(Predict("q -> a")).spent.cached_calls == 6


def test_the_settings_in_force_reach_the_threads() -> None:
    dev = [Example(q=str(i), a="x").with_inputs("q") for i in range(6)]
    with context(lm=OracleLM(1)) as _:
        assert Evaluate(devset=dev, metric=exact_match, num_threads=4)(Predict("q -> a")).failures == ()


@pytest.mark.parametrize(("devset", "says"), [
    ([], "empty"), ([{"n": 1}], "not an Example"), ([Example(n=1)], "with_inputs")])
def test_a_devset_at_fault(devset: Any, says: str) -> None:
    with pytest.raises(EvaluationError, match=says):
        Evaluate(devset=devset, metric=exact_match)(square)
    with pytest.raises(EvaluationError, match="no metric"):
        Evaluate(devset=DEV)(square)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_the_interval_holds_the_mean_and_is_always_the_same(scores: list[float]) -> None:
    low, high = bootstrap_interval(scores)
    assert min(scores) - 1e-9 <= low <= high <= max(scores) + 1e-9
    assert (low, high) == bootstrap_interval(scores)


def test_exact_match() -> None:
    e = Example(q="?", city="The Hague", n=3).with_inputs("q")
    good, bad = Prediction(city="hague.", n=3, why="x"), Prediction(city="Hague", n=4)
    assert exact_match(e, good) and not exact_match(e, bad) and exact_match("city")(e, bad)
    assert exact_match("n")(e, 3) and exact_match("city")(e, "the  HAGUE")
    assert exact_match("a", "b") == exact_match("a", "b") != exact_match("a")
    with pytest.raises(FieldError, match="no field 'city'"):
        exact_match(e, Prediction(cty="x", n=3))
    with pytest.raises(FieldError, match="returned a str"):
        exact_match(e, "x")


def test_answer_exact_match_takes_several_right_answers() -> None:
    e = Example(answer=["Paris", "Paris, France"])
    assert answer_exact_match(e, Prediction(answer="paris france"))
    assert not answer_exact_match(e, Prediction(answer="Lyon"))
    assert answer_exact_match(Example(answer="x"), "X") and score_of(answer_exact_match, e, "Paris") == 1.0


def test_metrics_of_two_and_three_arguments() -> None:
    seen: list[Any] = []
    assert score_of(lambda e, p: 0.5, DEV[0], None, ["t"]) == 0.5
    assert score_of(lambda e, p, trace=None: seen.append(trace) or True, DEV[0], None, ["t"]) == 1.0
    assert seen == [["t"]]
    assert score_of(lambda e, p: Prediction(score=0.25, feedback="meh"), DEV[0], None) == 0.25
    assert metric_name(exact_match("a")) == "ExactMatch(fields=('a',))"
    assert metric_name(answer_exact_match) == "tracedsl.programs.metrics.answer_exact_match"


def test_normalising_keeps_accents() -> None:
    assert normalize_text("À la carte!") == normalize_text("a\u0300  La Carte") == "à la carte"


@example("Ē:̖")
@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalize_text(normalize_text(text)) == normalize_text(text)
