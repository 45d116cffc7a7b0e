"""LabeledFewShot and BootstrapFewShot."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from tracedsl.diagnostics import TracedslWarning
from tracedsl.programs import (
    BootstrapFewShot,
    ChainOfThought,
    Evaluate,
    Example,
    LabeledFewShot,
    LMError,
    LMRequest,
    Module,
    OracleLM,
    PlainAdapter,
    Predict,
    ScriptedLM,
    configure,
    context,
    exact_match,
)
from tracedsl.programs.evaluate import EvaluationError
from tracedsl.programs.teleprompters.base import CompileError

TRAIN = [Example(n=str(i), answer=str(i + 1)).with_inputs("n") for i in range(12)]


class Twice(Module):
    """Two steps; the trainset knows nothing of what is between them."""

    def __init__(self) -> None:
        self.first = Predict("n -> between")
        self.second = ChainOfThought("between -> answer")

    def forward(self, n: str) -> Any:
        return self.second(between=self.first(n=n).between)


def learner(**settings: Any) -> ScriptedLM:
    """A model that is right only where it has seen a demonstration: it adds what the last one added."""

    def answer(request: LMRequest) -> str:
        turns = request.messages[1:]
        given = int(turns[-1].content.split(": ")[1])
        if len(turns) == 1:
            return "Answer: 0"
        step = int(turns[-2].content.split(": ")[1]) - int(turns[-3].content.split(": ")[1])
        return f"Answer: {given + step}"

    return ScriptedLM(answer, adapter=PlainAdapter(), **settings)


def stepper(right: Any = lambda n: True, **settings: Any) -> ScriptedLM:
    """Does both steps of `Twice`, rightly for the numbers for which `right` holds."""

    def answer(request: LMRequest) -> str:
        name, _, value = request.messages[-1].content.partition(": ")
        if name == "N":
            return f"Between: {value}{'' if right(int(value)) else '7'}"
        return f"Reasoning: one more than {value}\nAnswer: {int(value) + 1}"

    return ScriptedLM(answer, adapter=PlainAdapter(), **settings)


def test_labeled_demonstrations_raise_the_score() -> None:
    configure(lm=learner())
    program, dev = Predict("n -> answer"), [Example(n=str(i), answer=str(i + 1)).with_inputs("n") for i in (50, 60, 70)]
    compiled = LabeledFewShot(k=3).compile(program, trainset=TRAIN)
    evaluate = Evaluate(devset=dev, metric=exact_match)
    assert (evaluate(program).score, evaluate(compiled).score) == (0.0, 100.0)
    assert program.demos == [] and len(compiled.demos) == 3 and compiled.compile_report.demos == {"self": 3}


def test_the_draw_is_always_the_same() -> None:
    one, two = (LabeledFewShot(k=5).compile(Predict("n -> answer"), trainset=TRAIN) for _ in range(2))
    assert one.dump_state() == two.dump_state() and one.demos != TRAIN[:5]
    first = LabeledFewShot(k=5).compile(Predict("n -> answer"), trainset=TRAIN, sample=False)
    assert first.demos == TRAIN[:5]
    everything = LabeledFewShot().compile(Predict("n -> answer"), trainset=TRAIN)
    assert sorted(e.n for e in everything.demos) == sorted(e.n for e in TRAIN)


def test_inner_steps_without_demonstrations_are_reported() -> None:
    with pytest.warns(TracedslWarning, match="no demonstration for '(first|second.predict)'"):
        compiled = LabeledFewShot(k=2).compile(Twice(), trainset=TRAIN)
    assert compiled.compile_report.missing == ("first", "second.predict")


def test_bootstrapping_finds_demonstrations_for_inner_steps() -> None:
    lm = stepper(right=lambda n: n % 3 == 0)
    configure(lm=lm)
    told: list[tuple[int, int, str]] = []
    student = Twice()
    teleprompter = BootstrapFewShot(metric=exact_match, max_bootstrapped_demos=3, max_labeled_demos=4,
                                    progress=lambda *args: told.append(args))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = teleprompter.compile(student, trainset=TRAIN)
    assert [d.n for d in compiled.first.demos] == ["0", "3", "6"]
    assert [d.between for d in compiled.first.demos] == ["0", "3", "6"]
    assert [(d.between, d.reasoning, d.answer) for d in compiled.second.predict.demos] == [
        (n, f"one more than {n}", str(int(n) + 1)) for n in "036"]
    report = compiled.compile_report
    assert (report.tried, report.passed, report.demos) == (7, 3, {"first": 3, "second.predict": 3})
    assert student.first.demos == [] and len(told) >= 7 and "3 of 3" in told[-1][2]
    again = teleprompter.compile(student, trainset=TRAIN)
    assert again.dump_state() == compiled.dump_state()


def test_labeled_examples_fill_up() -> None:
    configure(lm=learner())
    compiled = BootstrapFewShot(metric=exact_match, max_bootstrapped_demos=2, max_labeled_demos=5).compile(
        Predict("n -> answer"), trainset=TRAIN)
    assert len(compiled.demos) == 5
    assert [d.get("augmented", False) for d in compiled.demos] == [False] * 3 + [True] * 2
    assert len({d.n for d in compiled.demos}) == 5


def test_the_example_at_hand_is_not_shown_to_the_teacher() -> None:
    lm = learner()
    configure(lm=lm)
    BootstrapFewShot(metric=exact_match, max_bootstrapped_demos=12, max_labeled_demos=12).compile(
        Predict("n -> answer"), trainset=TRAIN)
    assert lm.calls == 12
    for request in lm.requests:
        assert request.messages[-1] not in request.messages[:-1] and len(request.messages) == 2 + 2 * 11


def test_a_teacher_with_its_own_model() -> None:
    teacher_lm, student_lm = stepper(), OracleLM()
    with context(lm=student_lm):
        compiled = BootstrapFewShot(metric=exact_match, teacher_settings={"lm": teacher_lm}).compile(
            Twice(), trainset=TRAIN)
    assert teacher_lm.calls == 8 and student_lm.calls == 0 and compiled.get_lm() is None
    with pytest.raises(CompileError, match=r"only one has: .*self"):
        BootstrapFewShot().compile(Twice(), teacher=Predict("n -> answer"), trainset=TRAIN)


def test_nothing_passes() -> None:
    configure(lm=stepper(right=lambda n: False))
    with pytest.warns(TracedslWarning, match="of 12 examples tried, 0 passed"):
        compiled = BootstrapFewShot(metric=exact_match).compile(Twice(), trainset=TRAIN)
    assert compiled.compile_report.missing == ("first", "second.predict")


def test_later_rounds_are_other_calls() -> None:
    lm = stepper(right=lambda n: False)
    configure(lm=lm)
    with pytest.warns(TracedslWarning):
        BootstrapFewShot(metric=exact_match, max_rounds=2).compile(Twice(), trainset=TRAIN[:2])
    assert {(r.temperature, r.rollout_id) for r in lm.requests} == {(0.0, None), (1.0, 1)}


def test_thresholds() -> None:
    configure(lm=stepper())
    graded = BootstrapFewShot(metric=lambda e, p, trace: int(e.n) / 10, metric_threshold=0.75)
    compiled = graded.compile(Twice(), trainset=TRAIN)
    assert [d.n for d in compiled.first.demos] == ["8", "9", "10", "11"]


def test_runs_that_fail() -> None:
    def sometimes(example: Example, prediction: Any, trace: Any) -> bool:
        assert len(trace) == 2
        return bool(1 / (int(example.n) % 2))

    configure(lm=stepper())
    compiled = BootstrapFewShot(metric=sometimes).compile(Twice(), trainset=TRAIN)
    assert [d.n for d in compiled.first.demos] == ["1", "3", "5", "7"]
    assert compiled.compile_report.failures == ("ZeroDivisionError: division by zero",) * 4
    with pytest.raises(CompileError, match="2 runs of the teacher failed"):
        BootstrapFewShot(metric=sometimes, max_errors=2).compile(Twice(), trainset=TRAIN)
    with pytest.raises(CompileError, match="all 12 runs"):
        BootstrapFewShot(metric=lambda e, p: None).compile(Twice(), trainset=TRAIN)


def test_a_dead_model_stops_it() -> None:
    lm = ScriptedLM([LMError("L001", "cannot reach it")])
    configure(lm=lm)
    with pytest.raises(LMError, match="L001"):
        BootstrapFewShot(metric=exact_match).compile(Twice(), trainset=TRAIN)
    assert lm.calls == 1


def test_ctrl_c_keeps_what_was_found() -> None:
    def interrupted(example: Example, prediction: Any) -> bool:
        if example.n == "2":
            raise KeyboardInterrupt
        return True

    configure(lm=stepper())
    with pytest.warns(TracedslWarning, match="2 demonstrations had been found"):
        compiled = BootstrapFewShot(metric=interrupted).compile(Twice(), trainset=TRAIN)
    assert compiled.compile_report.interrupted and [d.n for d in compiled.first.demos] == ["0", "1"]
    with pytest.raises(KeyboardInterrupt):
        BootstrapFewShot(metric=interrupted).compile(Twice(), trainset=TRAIN[2:])


def test_settings_are_plain_data_and_tell_what_decides() -> None:
    one = BootstrapFewShot(metric=exact_match, teacher_settings={"lm": OracleLM(7)})
    assert one.settings()["teacher_settings"] == {"lm": "oracle-7"}
    assert one.settings()["metric"] == "tracedsl.programs.metrics.exact_match"
    assert BootstrapFewShot(max_rounds=2).settings() != BootstrapFewShot().settings()
    assert BootstrapFewShot().with_metric(exact_match).metric is exact_match
    assert LabeledFewShot(k=3).settings() == {"teleprompter": "LabeledFewShot", "k": 3}


def test_what_cannot_be_compiled() -> None:
    class Empty(Module):
        pass

    for teleprompter in (LabeledFewShot(), BootstrapFewShot()):
        with pytest.raises(CompileError, match="no predictors"):
            teleprompter.compile(Empty(), trainset=TRAIN)
        with pytest.raises(EvaluationError, match="trainset is empty"):
            teleprompter.compile(Twice(), trainset=[])
        with pytest.raises(EvaluationError, match=r"trainset\[0\] is a dict"):
            teleprompter.compile(Twice(), trainset=[{"n": 1}])  # type: ignore[list-item]
