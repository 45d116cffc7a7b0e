"""Sessions, contests and searches: budgets, records, races, threads, interruptions."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracedsl.autotune import Budget
from tracedsl.diagnostics import TracedslWarning
from tracedsl.programs import (
    BootstrapFewShot,
    BootstrapFewShotWithRandomSearch,
    Ensemble,
    Example,
    KNNFewShot,
    LMError,
    LMRequest,
    Module,
    PlainAdapter,
    Predict,
    ScriptedLM,
    configure,
    exact_match,
    majority,
)
from tracedsl.programs.teleprompters.base import CompileError, MetricError
from tracedsl.programs.teleprompters.candidates import Candidate, Part, PromptSpace
from tracedsl.programs.teleprompters.race import Contest, leave_out, planned, rungs, sign_flip
from tracedsl.programs.teleprompters.runs import Job, code_identity, metric_identity
from tracedsl.programs.teleprompters.session import SearchEnded, Session

TRAIN = [Example(n=str(i), answer=str(i * 3)).with_inputs("n") for i in range(24)]


def skilled(**settings: Any) -> ScriptedLM:
    """A model that answers rightly the more often, the more demonstrations it has seen; the same every time."""

    def answer(request: LMRequest) -> str:
        turns = request.messages[1:]
        n = int(turns[-1].text.split(": ")[1])
        shown = (len(turns) - 1) // 2
        lucky = random.Random(f"{n} {[m.text for m in turns[:-1]]}").random() < 0.25 + 0.15 * shown
        return f"Answer: {n * 3 if lucky else 'no'}"

    return ScriptedLM(answer, adapter=PlainAdapter(), **settings)


def search(**settings: Any) -> BootstrapFewShotWithRandomSearch:
    return BootstrapFewShotWithRandomSearch(
        **{"metric": exact_match, "max_bootstrapped_demos": 3, "max_labeled_demos": 3, "num_candidate_programs": 6,
           **settings})


def artefact(program: Module) -> str:
    return json.dumps([program.dump_state(), program.compile_report.to_json()], indent=1, sort_keys=True)


def test_random_search_finds_a_better_program_with_fewer_metric_calls() -> None:
    configure(lm=skilled())
    made = search().compile(Predict("n -> answer"), trainset=TRAIN)
    report = made.compile_report
    rows = {row["candidate"]: row for row in report.search}
    assert report.score > rows["uncompiled"]["score"] and len(made.demos) == 3
    full = 9 * len(TRAIN) + report.tried
    assert report.cost["metric_calls"] <= full / 2, "a search without races would need twice as many"
    assert all(row["fate"] for row in report.search) and sum(row["fate"] == "best" for row in report.search) == 1


def test_threads_change_nothing() -> None:
    made = []
    for threads in (1, 16):
        configure(lm=skilled())
        made.append(artefact(search(num_threads=threads).compile(Predict("n -> answer"), trainset=TRAIN)))
    assert made[0] == made[1]
    configure(lm=skilled())
    assert artefact(search(seed=1).compile(Predict("n -> answer"), trainset=TRAIN)) != made[0]


def test_a_second_search_pays_for_nothing() -> None:
    lm = skilled(cache=True)
    configure(lm=lm)
    first = search().compile(Predict("n -> answer"), trainset=TRAIN)
    calls, asked = lm.calls, []

    def metric(example: Example, prediction: Any) -> bool:
        asked.append(example)
        return exact_match(example, prediction)

    again = search().compile(Predict("n -> answer"), trainset=TRAIN)
    assert lm.calls == calls and again.compile_report.paid == 0 and artefact(again) == artefact(first)
    search(metric=metric).compile(Predict("n -> answer"), trainset=TRAIN)
    assert asked and lm.calls == calls, "another metric scores anew, and the answers are known"


@pytest.mark.parametrize("most", [0, 1, 7, 30, 55, 80])
def test_the_budget_of_metric_calls_holds_exactly(most: int) -> None:
    asked = []

    def metric(example: Example, prediction: Any) -> bool:
        asked.append(example)
        return exact_match(example, prediction)

    configure(lm=skilled())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = search(metric=metric, budget=Budget(trials=most)).compile(Predict("n -> answer"), trainset=TRAIN)
    assert len(asked) <= most and made.compile_report.cost["metric_calls"] == len(asked)
    assert made.compile_report.stopped == ("trials" if most < 80 else made.compile_report.stopped)


@pytest.mark.parametrize("limit", ["calls", "tokens"])
@pytest.mark.parametrize("threads", [1, 8])
def test_the_budget_of_model_calls_holds(limit: str, threads: int) -> None:
    lm = skilled(max_tokens=8)
    configure(lm=lm)
    made = search(num_threads=threads, budget=Budget(**{limit: 60 if limit == "calls" else 2000})).compile(
        Predict("n -> answer"), trainset=TRAIN)
    used = lm.calls if limit == "calls" else lm.usage.total_tokens
    assert used <= (60 if limit == "calls" else 2000) and made.compile_report.stopped == limit


def test_a_budget_that_is_too_small_says_so() -> None:
    configure(lm=skilled())
    with pytest.warns(TracedslWarning, match=r"its budget \(trials\) is too small"):
        made = search(budget=Budget(trials=2)).compile(Predict("n -> answer"), trainset=TRAIN)
    assert made.demos == []


def test_ctrl_c_keeps_the_best_and_the_next_search_goes_on() -> None:
    done: list[int] = []

    def metric(example: Example, prediction: Any) -> bool:
        done.append(1)
        if len(done) == 70:
            raise KeyboardInterrupt
        return exact_match(example, prediction)

    lm = skilled(cache=True)
    configure(lm=lm)
    with pytest.warns(TracedslWarning, match="was interrupted"):
        made = search(metric=metric).compile(Predict("n -> answer"), trainset=TRAIN)
    assert made.compile_report.interrupted and made.compile_report.score is not None
    calls = lm.calls
    whole = search(metric=metric).compile(Predict("n -> answer"), trainset=TRAIN)
    assert whole.compile_report.paid == whole.compile_report.cost["metric_calls"] - 69
    again = search(metric=metric).compile(Predict("n -> answer"), trainset=TRAIN)
    assert artefact(whole) == artefact(again) and lm.calls > calls


def test_bootstrap_twice() -> None:
    lm = skilled()
    configure(lm=lm)
    once = search().compile(Predict("n -> answer"), trainset=TRAIN)
    twice = search().compile(Predict("n -> answer"), teacher=once, trainset=TRAIN)
    assert twice.compile_report.passed >= once.compile_report.passed and twice.demos != once.demos
    with pytest.raises(CompileError, match="different predictors"):
        search().compile(Predict("n -> answer"), teacher=Pair(), trainset=TRAIN)


class Pair(Module):
    def __init__(self) -> None:
        self.one, self.two = Predict("n -> answer"), Predict("n -> answer")

    def forward(self, n: str) -> Any:
        return self.two(n=self.one(n=n).answer)


def test_errors_of_metrics_and_programs() -> None:
    configure(lm=skilled())

    def raises(example: Example, prediction: Any) -> float:
        raise ZeroDivisionError("in the metric")

    for metric, text in ((raises, "ZeroDivisionError: in the metric"), (lambda e, p: float("nan"), "returned nan"),
                         (lambda e: 1.0, "takes 1 positional"), (lambda e, p: None, "returned None")):
        with pytest.raises((MetricError, CompileError), match=text):
            search(metric=metric).compile(Predict("n -> answer"), trainset=TRAIN)
    with pytest.raises(CompileError, match="needs a metric"):
        search(metric=None).compile(Predict("n -> answer"), trainset=TRAIN)

    class Broken(Module):
        def __init__(self) -> None:
            self.step = Predict("n -> answer")

        def forward(self, n: str) -> Any:
            raise ValueError("always")

    with pytest.raises(CompileError, match=r"runs of the (teacher|program) failed"):
        search().compile(Broken(), trainset=TRAIN)

    class Sometimes(Broken):
        def forward(self, n: str) -> Any:
            return self.step(n=str(12 // (int(n) % 2) and n))

    made = search().compile(Sometimes(), trainset=TRAIN)
    assert made.compile_report.failures == ("ZeroDivisionError: integer division or modulo by zero",)


def test_a_teacher_that_is_down() -> None:
    configure(lm=skilled())
    down = ScriptedLM(lambda request: LMError("L001", "nobody listens"), adapter=PlainAdapter())
    with pytest.raises(LMError, match="nobody listens"):
        search(teacher_settings={"lm": down}).compile(Predict("n -> answer"), trainset=TRAIN)


def test_tiny_and_inconsistent_trainsets() -> None:
    configure(lm=skilled())
    for n in (1, 2):
        made = search().compile(Predict("n -> answer"), trainset=TRAIN[:n])
        assert made.compile_report.search[0]["examples"] == n
    odd = [*TRAIN[:6], Example(n="7").with_inputs("n")]       # one without a label
    with pytest.raises(MetricError, match="metric"):
        search(metric=lambda e, p: e.answer == p.answer).compile(Predict("n -> answer"), trainset=odd)


def test_stop_at_score_and_restrict() -> None:
    configure(lm=skilled())
    made = search(stop_at_score=0.0).compile(Predict("n -> answer"), trainset=TRAIN, restrict=[-3, -2])
    assert [row["candidate"] for row in made.compile_report.search] == ["uncompiled", "labeled"]


# -- races ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, 0.5, -0.25]), max_size=12))
def test_sign_flip_is_a_probability_and_turns_around(differences: list[float]) -> None:
    p, q = sign_flip(differences), sign_flip([-d for d in differences])
    assert 0 < p <= 1 and 0 < q <= 1 and (sum(differences) <= 0 or p <= 0.55 or len(set(map(abs, differences))) > 1)
    assert p + q >= 1 - 0.1, "both tails cover everything"


def test_sign_flip_agrees_with_all_flips() -> None:
    from itertools import product

    differences = [0.5, 1.0, 0.25, -0.5, 1.0, 0.75, 0.5]
    flips = [sum(s * d for s, d in zip(signs, differences)) for signs in product((1, -1), repeat=7)]
    exact = sum(f >= sum(differences) - 1e-9 for f in flips) / len(flips)
    assert abs(sign_flip(differences) - exact) < 0.02


@given(st.integers(1, 300), st.integers(1, 40))
def test_rungs_and_plans(total: int, candidates: int) -> None:
    steps = rungs(total)
    assert steps == sorted(set(steps)) and steps[-1] == total
    assert total <= planned(candidates, total) <= candidates * total


def test_the_best_of_clearly_different_candidates_wins_a_race() -> None:
    hits = []
    for seed in range(8):
        quality = {f"c{i}": 0.2 + 0.07 * i for i in range(9)}

        def answer(request: LMRequest, quality: dict[str, float] = quality) -> str:
            name, n = request.messages[0].text.split()[0], request.messages[-1].text
            return f"Answer: {n.split(': ')[1] if random.Random(name + n).random() < quality[name] else 'x'}"

        configure(lm=ScriptedLM(answer, adapter=PlainAdapter()))
        examples = [Example(n=str(i), answer=str(i)).with_inputs("n") for i in range(60)]
        student = Predict("n -> answer")
        session = Session(student, exact_match)
        contest = Contest(session, student, examples, seed=seed)
        order = random.Random(seed).sample(sorted(quality), len(quality))
        entries = [contest.add(Candidate(c, {"self": Part(f"{c} says")})) for c in order]
        hits.append(int(contest.race(entries).candidate.name[1:]))
        assert session.spent["trials"] <= 0.5 * len(entries) * len(examples)
    assert sum(hits) / len(hits) >= 6.5, "the winners are among the best"


def test_equal_candidates_are_one_entry_and_ties_keep_the_earlier() -> None:
    configure(lm=ScriptedLM(lambda r: "Answer: 0", adapter=PlainAdapter()))
    student = Predict("n -> answer")
    contest = Contest(Session(student, exact_match), student, TRAIN)
    one, same = contest.add(Candidate("one")), contest.add(Candidate("two", {"self": Part()}))
    other = contest.add(Candidate("other", {"self": Part("Otherwise.")}))
    assert one is same and contest.race([one, other]) is one


def test_an_example_is_not_shown_its_own_answer() -> None:
    program = Predict("n -> answer")
    program.demos = [Example(n="1", answer="3"), Example(n="2", answer="6")]
    assert [d.n for d in leave_out(program, TRAIN[1]).demos] == ["2"]
    assert leave_out(program, TRAIN[5]) is program and len(program.demos) == 2


def test_points_of_a_prompt_space_are_candidates() -> None:
    demos = (Example(n="1", answer="3"), Example(n="2", answer="6"))
    space = PromptSpace({"self": ("Now.", "Else.")}, {"self": ((), demos)}, orders=2)
    points = list(space.space().points())
    assert len(points) == 8 and space.space().default == {"self: instructions": 0, "self: demos": 0, "self: order": 0}
    last = space.candidate({"self: instructions": 1, "self: demos": 1, "self: order": 1})
    made = last.program(Predict("n -> answer"))
    assert made.signature.instructions == "Else." and [d.n for d in made.demos] == ["2", "1"]


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_identities_change_with_what_they_name() -> None:
    def other(example: Example, prediction: Any) -> bool:
        return True

    assert metric_identity(exact_match) != metric_identity(other)
    limits = [lambda e, p, limit=limit: limit for limit in (1, 2)]
    assert metric_identity(limits[0]) != metric_identity(limits[1])
    assert code_identity(Predict("a -> b")) != code_identity(Pair())


def test_equal_jobs_are_made_once_and_batches_are_whole() -> None:
    lm = skilled()
    configure(lm=lm)
    program = Predict("n -> answer")
    session = Session(program, exact_match, limits=Budget(trials=3))
    runs = session.runs([Job(program, TRAIN[0]), Job(program, TRAIN[0]), Job(program.deepcopy(), TRAIN[0])])
    assert lm.calls == 1 and len({id(r) for r in runs}) == 1
    with pytest.raises(SearchEnded):
        session.runs([Job(program, e) for e in TRAIN[:4]])
    assert lm.calls == 1, "nothing was begun"


def test_questions_are_asked_once_over_all_sessions() -> None:
    lm = ScriptedLM(lambda r: f"Answer: {r.rollout_id}", adapter=PlainAdapter(), cache=True)
    configure(lm=lm)
    ask = Predict("n -> answer")
    first, second = Session(ask, exact_match), Session(ask, exact_match)
    answers = [s.ask(ask, {"n": "1"}, rollout=i) for s in (first, second) for i in (1, 2, 1)]
    assert [a and a["answer"] for a in answers] == ["1", "2", "1"] * 2 and lm.calls == 2
    assert first.spent == second.spent and first.spent["calls"] == 2


# -- ensembles and neighbours -----------------------------------------------------------------------------------------


def test_ensembles() -> None:
    def says(text: str) -> Predict:
        made = Predict("n -> answer", temperature=0.0)
        made.lm = ScriptedLM(lambda r: f"Answer: {text}", adapter=PlainAdapter())
        return made

    programs = [says(t) for t in ("a", "b", "b")]
    assert Ensemble(reduce_fn=majority).compile(programs)(n="1").answer == "b"
    assert [p.answer for p in Ensemble().compile(programs)(n="1")] == ["a", "b", "b"]
    drawn = Ensemble(size=2, deterministic=True).compile(programs)
    assert [p.answer for p in drawn(n="1")] == [p.answer for p in drawn(n="1")]
    assert len(drawn.named_predictors()) == 3
    for size in (0, 4):
        with pytest.raises(CompileError, match="size is"):
            Ensemble(size=size).compile(programs)
    with pytest.raises(CompileError, match="no programs"):
        Ensemble().compile([])


def test_neighbours_become_demonstrations() -> None:
    lm = skilled()
    configure(lm=lm)

    def vectors(texts: Sequence[str]) -> list[list[float]]:
        return [[-(float(t.split(": ")[1]) - m) ** 2 for m in range(24)] for t in texts]

    train = [Example(n=str(i), answer=str(i * 3)).with_inputs("n") for i in range(24)]
    made = KNNFewShot(k=3, trainset=train, vectorizer=vectors, metric=exact_match).compile(Predict("n -> answer"))
    made(n="7")
    assert len(lm.requests[-1].messages) == 2 + 2 * 3
    before = lm.calls
    made(n="7")
    assert lm.calls == before + 1, "the same neighbours are bootstrapped once"
    assert BootstrapFewShot().settings()["teleprompter"] == "BootstrapFewShot"
