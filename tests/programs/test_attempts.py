"""BestOfN, Refine, MultiChainComparison, majority, KNN and Parallel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracedsl import program
from tracedsl.diagnostics import TracedslError
from tracedsl.programs import (
    KNN,
    BestOfN,
    BootstrapFewShot,
    ChainOfThought,
    Example,
    LMError,
    LMRequest,
    Module,
    MultiChainComparison,
    Parallel,
    PlainAdapter,
    Predict,
    Prediction,
    Refine,
    ScriptedLM,
    configure,
    majority,
    trace_calls,
)
from tracedsl.programs.modules.agents import ModuleError

PLAIN = PlainAdapter()


def scripted(*answers: Any) -> ScriptedLM:
    lm = ScriptedLM(answers, adapter=PLAIN)
    configure(lm=lm)
    return lm


def in_function(module: Module) -> Callable[..., Any]:
    @program
    def run(question: str) -> Any:
        return module(question=question)

    return run


WAYS: list[Callable[[Module], Callable[..., Any]]] = [
    lambda module: module, lambda module: lambda **inputs: asyncio.run(module.acall(**inputs)), in_function]
ways = pytest.mark.parametrize("way", WAYS, ids=["sync", "async", "program"])


def shortness(inputs: dict[str, Any], prediction: Any) -> float:
    return -len(prediction.answer)


# -- BestOfN -----------------------------------------------------------------------------------------------------------


@ways
def test_the_best_attempt_is_kept(way: Any) -> None:
    lm = scripted("Answer: long one", "Answer: a", "Answer: middle")
    made = way(BestOfN(Predict("question -> answer"), 3, shortness, threshold=None))(question="?")
    assert made.answer == "a"
    assert [(r.temperature, r.rollout_id) for r in lm.requests] == [(1.0, 0), (1.0, 1), (1.0, 2)]


def test_attempts_end_at_the_threshold() -> None:
    lm = scripted("Answer: long", "Answer: ab", "Answer: a")
    assert BestOfN(Predict("question -> answer"), N=3, reward_fn=shortness, threshold=-2)(question="?").answer == "ab"
    assert lm.calls == 2


def test_a_failed_attempt_costs_that_attempt_and_the_first_error_is_told() -> None:
    scripted("Answer: many", "Answer: many", "Answer: 3")
    best = BestOfN(Predict("question -> answer: int"), 2, lambda i, p: 1.0, threshold=1.0)
    for _ in range(2):      # failures are not counted across calls
        scripted("Answer: many", "Answer: many", "Answer: 3")
        assert best(question="?").answer == 3
    scripted(*["Answer: many"] * 4)
    with pytest.raises(ModuleError, match=r"(?s)all 2 attempts failed.*no number") as caught:
        best(question="?")
    assert caught.value.__cause__ is not None
    scripted("Answer: 1")
    with pytest.raises(ZeroDivisionError):
        BestOfN(Predict("question -> answer: int"), 3, lambda i, p: 1 / 0, 1.0, fail_count=0)(question="?")
    lm = scripted(LMError("L002", "wrong key"))
    with pytest.raises(LMError, match="wrong key"):
        best(question="?")
    assert lm.calls == 1


def test_attempts_within_attempts_are_all_different() -> None:
    lm = ScriptedLM(lambda request: "Answer: x", adapter=PLAIN, cache=True)
    configure(lm=lm)
    inner = BestOfN(Predict("question -> answer"), 3, shortness, threshold=None)
    BestOfN(inner, 2, shortness, threshold=None)(question="?")
    assert sorted(r.rollout_id or 0 for r in lm.requests) == [0, 1, 2, 3, 4, 5]


def test_those_who_listen_hear_of_the_best_attempt_alone() -> None:
    scripted("Reasoning: r\nAnswer: long", "Reasoning: s\nAnswer: a")
    inner = ChainOfThought("question -> answer")
    with trace_calls() as steps:
        BestOfN(inner, 2, shortness, threshold=None)(question="?")
    assert [(s.predictor is inner.predict, s.prediction.answer) for s in steps] == [(True, "a")]
    assert inner.predict.config == {}


@pytest.mark.parametrize("kind", [BestOfN, Refine])
def test_bootstrapping_reaches_what_is_inside(kind: Any, tmp_path: Path) -> None:
    configure(lm=ScriptedLM(lambda request: "Reasoning: r\nAnswer: a", adapter=PLAIN))
    train = [Example(question=q, answer="a").with_inputs("question") for q in "xyz"]
    best = kind(ChainOfThought("question -> answer"), 2, shortness, threshold=-1)
    with pytest.warns(UserWarning, match="feedback") if kind is Refine else _nothing():
        made = BootstrapFewShot(max_labeled_demos=0, max_bootstrapped_demos=2).compile(best, trainset=train)
    assert len(made.module.predict.demos) == 2 and "hint_" not in made.module.predict.demos[0]
    made.save(tmp_path / "b.json")
    again = kind(ChainOfThought("question -> answer"), 2, shortness, threshold=-1).load(tmp_path / "b.json")
    assert again.module.predict.demos == made.module.predict.demos


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


def test_rewards_may_be_asynchronous() -> None:
    async def reward(inputs: dict[str, Any], prediction: Any) -> float:
        await asyncio.sleep(0)
        return 1.0

    scripted("Answer: a")
    best = BestOfN(Predict("question -> answer"), 2, reward, threshold=1.0)
    assert asyncio.run(best.acall(question="?")).answer == "a"
    with pytest.raises(ModuleError, match="N is 0"):
        BestOfN(Predict("question -> answer"), 0, shortness, 1.0)


# -- Refine ------------------------------------------------------------------------------------------------------------


class Two(Module):
    """Two predictors, one of them inside another module."""

    def __init__(self) -> None:
        self.first = Predict("question -> query")
        self.second = ChainOfThought("question, query -> answer")

    def forward(self, question: str) -> Any:
        return self.second(question=question, query=self.first(question=question).query)


ADVICE = 'Discussion: too long\nAdvice: {"first": "N/A", "second.predict": "Be brief."}'


@ways
def test_advice_reaches_the_predictor_it_is_for(way: Any) -> None:
    lm = scripted("Query: q", "Reasoning: r\nAnswer: long", ADVICE, "Query: q", "Reasoning: r\nAnswer: a")
    two = Two()
    with trace_calls() as steps:
        assert way(Refine(two, 2, shortness, threshold=-1))(question="?").answer == "a"
    told = [r.messages[-1].text for r in lm.requests]
    assert "Be brief." in told[4] and not any("Be brief." in t for t in (*told[:4], lm.requests[3].messages[0].text))
    assert "def shortness" in told[2] and "class Two" in told[2] and "second.predict" in told[2]
    assert "hint_" not in two.second.predict.signature.fields
    if way is not WAYS[2]:
        assert [s.predictor for s in steps if "hint_" not in s.inputs][-2:] == [two.first, two.second.predict]


def test_advice_that_cannot_be_read_costs_the_advice_alone() -> None:
    scripted("Answer: long", "junk", "junk", "Answer: a")
    assert Refine(Predict("question -> answer"), 2, shortness, threshold=-1)(question="?").answer == "a"


def test_no_advice_is_asked_for_after_the_last_attempt() -> None:
    lm = scripted("Answer: long")
    assert Refine(Predict("question -> answer"), 1, shortness, threshold=-1)(question="?").answer == "long"
    assert lm.calls == 1


# -- comparison and majority -------------------------------------------------------------------------------------------


@ways
def test_several_attempts_are_compared_in_one_call(way: Any) -> None:
    attempts = [Prediction(reasoning="by hand\nmore", answer=4), {"rationale": "by eye", "answer": 5}, {"answer": 4}]

    class Compare(Module):
        def __init__(self) -> None:
            self.compare = MultiChainComparison("question -> answer: int", M=3)

        async def aforward(self, question: str) -> Any:
            return await self.compare.acall(attempts, question=question)

    lm = scripted("Rationale: the first is right\nAnswer: 4")
    made = way(Compare())(question="2+2?")
    assert made.answer == 4 and made.rationale == "the first is right" and lm.requests[0].temperature == 0.7
    sent = lm.requests[0].messages[-1].text
    assert "I'm trying to by hand I'm not sure but my prediction is 4" in sent and "Attempt #3" in sent


def test_comparison_says_what_does_not_fit() -> None:
    compare = MultiChainComparison("question -> answer", M=2)
    assert [n for n, _ in compare.named_predictors()] == ["predict"]
    with pytest.raises(ModuleError, match="M is 2"):
        compare([{"answer": "x"}], question="?")
    with pytest.raises(ModuleError, match="no 'answer'"):
        compare([{"reply": "x"}] * 2, question="?")


def test_comparison_takes_the_completions_of_one_call() -> None:
    scripted("Reasoning: r\nAnswer: a", "Reasoning: s\nAnswer: b", "Rationale: x\nAnswer: b")
    several = ChainOfThought("question -> answer", n=2, temperature=1.0)(question="?")
    assert MultiChainComparison("question -> answer", M=2)(several.completions, question="?").answer == "b"


def test_majority() -> None:
    rows = [{"reasoning": "r", "answer": a} for a in ("Rome", "the  paris", "Paris.")]
    assert majority(rows).answer == "the  paris" and majority(rows, normalize=None).answer == "Rome"
    assert majority(Prediction.from_completions(rows)).answer == "the  paris"
    assert majority(rows, field="reasoning").answer == "Rome"
    assert majority([{"answer": ""}, {"answer": ""}, {"answer": "x"}]).answer == "x"
    assert majority([{"n": [1]}, {"n": [2]}, {"n": [2]}]).n == [2]
    for wrong in ([], [{"a": 1}, {"b": 1}]):
        with pytest.raises(ModuleError):
            majority(wrong)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9))
def test_majority_is_the_most_frequent_and_first(answers: list[str]) -> None:
    found = majority([{"answer": a} for a in answers], normalize=None).answer
    assert answers.count(found) == max(map(answers.count, answers))
    assert found == max(answers, key=lambda a: (answers.count(a), -answers.index(a)))


# -- KNN ---------------------------------------------------------------------------------------------------------------


def letters(texts: list[str]) -> Any:
    """How often each letter stands in a text."""
    return [[text.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for text in texts]


def test_the_nearest_examples() -> None:
    train = [Example(question=q, answer=q).with_inputs("question") for q in ("zzz", "aaa", "mmm", "aab")]
    knn = KNN(k=2, trainset=train, vectorizer=letters)
    assert [e.question for e in knn(question="aaaa")] == ["aaa", "aab"]
    assert asyncio.run(knn.acall(question="zz"))[0].question == "zzz"
    with pytest.raises(TracedslError, match="does not say"):
        KNN(1, [Example(question="x")], letters)
    with pytest.raises(ModuleError):
        KNN(0, train, letters)
    with pytest.raises(ValueError, match="shape"):
        KNN(1, train, lambda texts: np.zeros(3))


# -- Parallel ----------------------------------------------------------------------------------------------------------


def test_pairs_run_beside_each_other_and_results_stand_in_order() -> None:
    together = threading.Barrier(4, timeout=20)

    def answer(request: LMRequest) -> str:
        together.wait()
        return f"Answer: {request.messages[-1].text[-1]}"

    configure(lm=ScriptedLM(answer, adapter=PLAIN))
    qa = Predict("question -> answer")
    pairs = [(qa, Example(question="a").with_inputs("question")), (qa, {"question": "b"}),
             (lambda x: qa(question=x), ("c",)), (lambda x: qa(question=x), "d")]
    with trace_calls() as steps:
        assert [p.answer for p in Parallel(num_threads=4)(pairs)] == list("abcd")
    assert len(steps) == 4
    assert [p.answer for p in asyncio.run(Parallel(num_threads=4).acall(pairs))] == list("abcd")


def test_failures_of_pairs() -> None:
    def work(x: int) -> int:
        if x % 2:
            raise ValueError(x)
        return x

    pairs = [(work, (x,)) for x in range(5)]
    with pytest.raises(ValueError):
        Parallel()(pairs)
    assert Parallel(max_errors=2)(pairs) == [0, None, 2, None, 4]
    good, failed, errors = Parallel(return_failed_examples=True)(pairs)
    assert (good, failed) == ([0, 2, 4], [(1,), (3,)]) and [str(e) for e in errors] == ["1", "3"]
    assert Parallel()([]) == []
    with pytest.raises(ModuleError, match="pairs"):
        Parallel()([(1, 2)])  # type: ignore[list-item]


def test_parallel_within_parallel() -> None:
    inner = Parallel(num_threads=2)
    assert Parallel(num_threads=2)([(inner, [(abs, (-1,)), (abs, (-2,))]), (inner, [(abs, (-3,))])]) == [[1, 2], [3]]


def test_progress_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert Parallel(disable_progress_bar=False)([(abs, (-1,))]) == [1]
    assert "calls" in capsys.readouterr().out
