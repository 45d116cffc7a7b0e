"""Teams: calls that are made together, or each by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tracedsl import program
from tracedsl.capture.language.handles import step_of
from tracedsl.capture.language.model_calls import ModelCall
from tracedsl.capture.language.python_expressions import CallSite
from tracedsl.capture.language.recording import Recording
from tracedsl.capture.language.run import Run
from tracedsl.capture.language.sites import Sites
from tracedsl.capture.language.teams import CallTeam
from tracedsl.diagnostics import Span
from tracedsl.programs import OracleLM, Predict, Prediction, context
from tracedsl.rewrite.language.plan import Plan

QUESTION = Predict("question -> answer")


class Joining:
    """A guide that puts every call into one team while that fits."""

    def __init__(self, run: Run, work: Callable[[Sequence[ModelCall]], Any], size: int | None, chained: bool) -> None:
        self.team, self.chained = CallTeam(run, work, "together", size), chained

    def event(self, name: str) -> None:
        pass

    def direct(self, call: ModelCall, earlier: Sequence[ModelCall]) -> None:
        if self.team.fits(call, chained=self.chained):
            self.team.take(call)


def make_run(work: Callable[[Sequence[ModelCall]], Any], size: int | None = None, chained: bool = False) -> Run:
    run = Run(Sites("f"), (), Recording("f", {}), Plan().walk())
    run.span = lambda number: None  # type: ignore[method-assign,assignment,return-value]
    run.source_sites = [CallSite(i, "f", Span("f.py", 1), frozenset()) for i in range(9)]
    run.guide = Joining(run, work, size, chained)
    return run


def answers(*texts: Any) -> Callable[[Sequence[ModelCall]], Any]:
    return lambda calls: [t if isinstance(t, Exception) or t is None else Prediction(answer=t)
                          for t in texts[:len(calls)]]


def ask(run: Run, question: Any) -> Any:
    return run._call_model(0, QUESTION, {"question": question})


@pytest.fixture(autouse=True)
def oracle() -> Any:
    lm = OracleLM(1)
    with context(lm=lm):
        yield lm


def test_a_team_waits_for_the_last_one_and_answers_all(oracle: OracleLM) -> None:
    run = make_run(answers("a", "b", "c"), size=3)
    handles = [ask(run, "1"), ask(run, "2")]
    assert not any(step_of(h)._started for h in handles)
    handles.append(ask(run, "3"))
    assert [run.force(h).answer for h in handles] == ["a", "b", "c"] and oracle.calls == 0
    assert {call.how for call in run.model_calls} == {"together"}


def test_a_value_that_is_needed_early_breaks_a_team_of_fixed_size(oracle: OracleLM) -> None:
    run = make_run(answers("a", "b", "c"), size=3)
    first, second = ask(run, "1"), ask(run, "2")
    assert run.force(second).answer == QUESTION(question="2").answer
    assert run.force(first).answer == QUESTION(question="1").answer
    assert run.force(ask(run, "3")).answer == QUESTION(question="3").answer
    assert {call.how for call in run.model_calls} == {"asked"} and oracle.calls == 6


def test_an_open_team_works_with_whoever_is_there(oracle: OracleLM) -> None:
    run = make_run(answers("a", "b"))
    first, _ = ask(run, "1"), ask(run, "2")
    run.barrier()
    assert run.force(first).answer == "a" and oracle.calls == 0


def test_what_the_team_has_no_answer_for_asks_for_itself(oracle: OracleLM) -> None:
    run = make_run(answers(None, "b"), size=2)
    first, second = ask(run, "1"), ask(run, "2")
    assert run.force(second).answer == "b"
    assert run.force(first).answer == QUESTION(question="1").answer and run.model_calls[0].how == "asked"


def test_an_error_of_a_member_is_its_own() -> None:
    run = make_run(answers(ValueError("one"), "b"), size=2)
    first, second = ask(run, "1"), ask(run, "2")
    with pytest.raises(ValueError, match="one"):
        run.force(second)
    assert step_of(first).error is not None and step_of(second).error is None


def test_a_team_that_fails_costs_nothing_but_itself(oracle: OracleLM) -> None:
    def work(calls: Sequence[ModelCall]) -> Any:
        raise RuntimeError("no")

    run = make_run(work, size=2)
    handles = [ask(run, "1"), ask(run, "2")]
    assert [run.force(h).answer for h in handles] == [QUESTION(question=q).answer for q in "12"]


def test_a_call_behind_another_one_does_not_fit() -> None:
    run = make_run(answers("a", "b"))
    first = ask(run, "1")
    between = run.attr(first, "answer")
    second = ask(run, between)
    assert run.model_calls[1].team is None
    assert run.force(second).answer == QUESTION(question=run.force(first).answer).answer


def test_a_chain_fits_where_it_may() -> None:
    seen: list[bool] = []

    def work(calls: Sequence[ModelCall]) -> Any:
        seen.append(any(call.done for call in calls))
        return [Prediction(answer="a"), Prediction(answer="b")]

    run = make_run(work, size=2, chained=True)
    first = ask(run, "1")
    second = ask(run, run.attr(first, "answer"))
    assert run.force(second).answer == "b" and run.force(first).answer == "a" and seen == [False]


def test_a_call_behind_a_held_one_waits_and_is_not_forgotten() -> None:
    run = make_run(answers("a", "b", "c"), size=3)
    first = ask(run, "1")
    outside = run._call_model(1, Predict("text -> summary"), {"text": run.attr(first, "answer")})
    assert run.model_calls[1].team is None and run.force(outside).summary
    assert run.force(first).answer == QUESTION(question="1").answer


def test_programs_without_teams_are_as_before() -> None:
    @program
    def plain(q: str) -> Any:
        return [QUESTION(question=f"{q}{i}").answer for i in range(3)]

    assert plain("q") == plain.__wrapped__("q")
