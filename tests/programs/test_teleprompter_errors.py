"""The texts of what teleprompters refuse and warn of: one file each in tests/errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

from tracedsl.autotune import Budget
from tracedsl.diagnostics import TracedslError, TracedslWarning
from tracedsl.programs import (
    GEPA,
    BetterTogether,
    BootstrapFewShot,
    BootstrapFewShotWithRandomSearch,
    BootstrapFinetune,
    Ensemble,
    Example,
    LabeledFewShot,
    LMError,
    Module,
    PlainAdapter,
    Predict,
    ScriptedLM,
    configure,
    exact_match,
)

TRAIN = [Example(n=str(i), answer=str(i)).with_inputs("n") for i in range(6)]


class Two(Module):
    def __init__(self) -> None:
        self.first, self.second = Predict("n -> between"), Predict("between -> answer")

    def forward(self, n: str) -> Any:
        return self.second(between=self.first(n=n).between)


def echo(**settings: Any) -> ScriptedLM:
    return ScriptedLM(lambda r: f"Answer: {r.messages[-1].text.split(': ')[1]}", adapter=PlainAdapter(), **settings)


def raising(example: Example, prediction: Any) -> float:
    raise ZeroDivisionError("division by zero")


def not_a_number(example: Example, prediction: Any) -> float:
    return float("nan")


def of_one(example: Example) -> float:
    return 1.0


def returns_nothing(example: Example, prediction: Any) -> None:
    return None


def compiled_by(teleprompter: Any, student: Module | None = None, **arguments: Any) -> Callable[[], Any]:
    return lambda: teleprompter.compile(student or Predict("n -> answer"), **{"trainset": TRAIN, **arguments})


Search = BootstrapFewShotWithRandomSearch
REFUSED: dict[str, Callable[[], Any]] = {
    "metric_raises": compiled_by(Search(raising)),
    "metric_is_no_number": compiled_by(Search(not_a_number)),
    "metric_has_another_signature": compiled_by(Search(of_one)),
    "metric_returns_nothing": compiled_by(Search(returns_nothing)),
    "metric_is_missing": compiled_by(Search()),
    "metric_fails_for_every_run": compiled_by(BootstrapFewShot(raising)),
    "trainset_is_empty": compiled_by(Search(exact_match), trainset=[]),
    "trainset_has_no_inputs": compiled_by(Search(exact_match), trainset=[Example(n="1", answer="1")]),
    "trainset_holds_something_else": compiled_by(Search(exact_match), trainset=[{"n": 1}]),
    "trainset_lacks_a_label": compiled_by(Search(lambda e, p: e.answer == p.answer),
                                          trainset=[*TRAIN, Example(n="9").with_inputs("n")]),
    "teacher_is_another_program": compiled_by(BootstrapFewShot(exact_match), teacher=Two()),
    "teacher_is_down": compiled_by(Search(exact_match, teacher_settings={"lm": ScriptedLM(
        lambda r: LMError("L001", "nobody listens"), adapter=PlainAdapter(), model="teacher")})),
    "program_has_no_predictors": compiled_by(LabeledFewShot(), Module()),
    "gepa_has_two_budgets": compiled_by(GEPA(exact_match, auto="light", max_metric_calls=5)),
    "strategy_names_nothing": compiled_by(BetterTogether(exact_match, p=LabeledFewShot()), strategy="p -> w"),
    "finetuning_has_no_data": compiled_by(BootstrapFinetune(lambda e, p: False)),
    "ensemble_is_empty": lambda: Ensemble().compile([]),
}
WARNED: dict[str, Callable[[], Any]] = {
    "budget_is_too_small": compiled_by(Search(exact_match, budget=Budget(trials=1))),
    "no_demonstration_for_a_step": compiled_by(LabeledFewShot(k=2), Two()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str, golden: Callable[[str, str], None]) -> None:
    configure(lm=echo())
    with pytest.raises(TracedslError) as refused:
        REFUSED[name]()
    golden(f"../errors/teleprompter_{name}.txt", str(refused.value))


@pytest.mark.parametrize("name", WARNED)
def test_warnings(name: str, golden: Callable[[str, str], None]) -> None:
    configure(lm=echo())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        WARNED[name]()
    texts = [str(w.message) for w in told if issubclass(w.category, TracedslWarning)]
    golden(f"../errors/teleprompter_{name}.txt", "\n\n".join(texts))
