"""The teleprompters that write instructions, reflect, merge, combine and choose."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tracedsl.autotune import Budget, Measurement
from tracedsl.diagnostics import TracedslWarning
from tracedsl.programs import (
    COPRO,
    GEPA,
    SIMBA,
    Auto,
    BetterTogether,
    BootstrapFewShot,
    BootstrapFewShotWithRandomSearch,
    BootstrapFinetune,
    Example,
    InferRules,
    LabeledFewShot,
    LMRequest,
    MIPROv2,
    Module,
    PlainAdapter,
    Predict,
    Prediction,
    ScriptedLM,
    configure,
    estimate_compilation,
    exact_match,
)
from tracedsl.programs.teleprompters.base import CompileError
from tracedsl.programs.teleprompters.candidates import PromptSpace
from tracedsl.programs.teleprompters.gepa import pareto_front
from tracedsl.programs.teleprompters.proposing import clean
from tracedsl.programs.teleprompters.surrogate import BayesianSearch, prompt_features

TRAIN = [Example(n=str(i), answer=str(i * 3)).with_inputs("n") for i in range(20)]
WORDS = ("triple", "carefully", "number", "plain", "digits")


def student_answer(request: LMRequest) -> str:
    """Rightly the more often, the more good words the instructions have and the more demonstrations there are."""
    turns = request.messages[1:]
    n = int(turns[-1].text.split("N: ")[1].split()[0])
    said = request.messages[0].text
    skill = 0.2 + 0.16 * sum(word in said for word in WORDS) + 0.06 * (len(turns) // 2)
    lucky = random.Random(f"{n} {said} {len(turns)} {request.rollout_id}").random() < skill
    return f"Answer: {n * 3 if lucky else 'no'}"


def teachable(**settings: Any) -> ScriptedLM:
    """A model that answers, and writes instructions: what it was shown, with one more good word, most of the time."""

    def answer(request: LMRequest) -> str:
        asked = request.messages[-1].text
        source = random.Random(f"{request.rollout_id} {asked}")
        if asked.startswith("N:"):
            return student_answer(request)
        current = next((line for line in asked.splitlines() if line.startswith("Current Instructions:")), ": Answer.")
        word = source.choice((*WORDS, "nonsense"))
        if "Advice" in request.messages[0].text:
            return f"Advice: Think of {word}."
        if "Rules" in request.messages[0].text:
            return f"Rules: Use {word}.\nUse {source.choice(WORDS)}."
        if "Description" in request.messages[0].text:
            return "Description: Numbers."
        return f"Instructions: {current.partition(': ')[2]} Use {word}."

    return ScriptedLM(answer, adapter=PlainAdapter(), **settings)


def feedback_metric(example: Example, prediction: Any, trace: Any = None, pred_name: str | None = None,
                    pred_trace: Any = None) -> Prediction:
    return Prediction(score=float(exact_match(example, prediction)), feedback=f"expected {example.answer}")


def artefact(program: Module) -> str:
    return json.dumps([program.dump_state(), program.compile_report.to_json()], sort_keys=True, indent=1)


class Two(Module):
    """Two steps with instructions of their own."""

    def __init__(self) -> None:
        self.first = Predict("n -> answer", temperature=0.0)
        self.second = Predict("n -> answer")

    def forward(self, n: str) -> Any:
        said = self.first(n=n)
        return said if said.answer == str(int(n) * 3) else self.second(n=n)


MAKERS: dict[str, Callable[..., Any]] = {
    "COPRO": lambda **o: COPRO(metric=exact_match, breadth=4, depth=2, **o),
    "MIPROv2": lambda **o: MIPROv2(metric=exact_match, max_bootstrapped_demos=2, max_labeled_demos=2, **o),
    "SIMBA": lambda **o: SIMBA(metric=exact_match, bsize=8, num_candidates=4, max_steps=4, **o),
    "GEPA": lambda **o: GEPA(metric=feedback_metric, **o),
    "InferRules": lambda **o: InferRules(metric=exact_match, num_candidates=4, max_bootstrapped_demos=2,
                                         max_labeled_demos=2, **o),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("make", [lambda: Predict("n -> answer"), Two])
def test_each_improves_a_program_the_same_way_for_any_number_of_threads(name: str, make: Callable[[], Module]) -> None:
    made = []
    for threads in (1, 16):
        configure(lm=teachable())
        student = make()
        before = student.dump_state()
        made.append(MAKERS[name](num_threads=threads).compile(student, trainset=TRAIN))
        assert student.dump_state() == before, "the student is left alone"
    assert artefact(made[0]) == artefact(made[1])
    report = made[0].compile_report
    first = report.search[0]["score"]
    assert report.score is not None and report.score > first, f"{report.score} after {first}"
    assert sum(row["fate"] == "best" for row in report.search) == 1
    assert report.cost["metric_calls"] > 0 and report.settings["teleprompter"] == name


@pytest.mark.parametrize("name", MAKERS)
def test_each_keeps_its_budget_and_pays_nothing_twice(name: str) -> None:
    asked: list[int] = []

    def metric(*given: Any) -> Any:
        asked.append(1)
        return feedback_metric(given[0], given[1])

    lm = teachable(cache=True)
    configure(lm=lm)
    teleprompter = MAKERS[name](budget=Budget(trials=60))
    import dataclasses

    teleprompter = dataclasses.replace(teleprompter, metric=metric)
    made = teleprompter.compile(Predict("n -> answer"), trainset=TRAIN)
    assert len(asked) == made.compile_report.cost["metric_calls"] <= 60
    calls, scored = lm.calls, len(asked)
    again = teleprompter.compile(Predict("n -> answer"), trainset=TRAIN)
    assert (lm.calls, len(asked)) == (calls, scored) and artefact(again) == artefact(made)


@pytest.mark.parametrize("name", MAKERS)
def test_a_dry_run_asks_nobody(name: str) -> None:
    lm = teachable()
    configure(lm=lm)
    estimate = estimate_compilation(MAKERS[name](), Predict("n -> answer"), trainset=TRAIN)
    assert lm.calls == 0 and estimate.metric_calls > 20 and estimate.likely.calls > 20


def test_a_dry_run_comes_close() -> None:
    for make in (lambda: BootstrapFewShotWithRandomSearch(exact_match, num_candidate_programs=6, max_labeled_demos=2),
                 lambda: COPRO(metric=exact_match, breadth=4, depth=1)):
        lm = teachable(max_tokens=8)
        configure(lm=lm)
        guess = estimate_compilation(make(), Predict("n -> answer"), trainset=TRAIN)
        made = make().compile(Predict("n -> answer"), trainset=TRAIN)
        assert abs(guess.metric_calls / made.compile_report.cost["metric_calls"] - 1) < 0.5


def test_instructions_of_proposers_are_cleaned() -> None:
    assert clean(' "Do it." ') == "Do it." and clean("```\nDo it.\n```") == "Do it." and clean("Say \"x\"") == 'Say "x"'


def test_a_proposer_that_writes_nothing_costs_nothing_but_its_calls() -> None:
    def mute(request: LMRequest) -> str:
        return student_answer(request) if request.messages[-1].text.startswith("N:") else ""

    configure(lm=ScriptedLM(mute, adapter=PlainAdapter()))
    for name in MAKERS:
        made = MAKERS[name]().compile(Predict("n -> answer"), trainset=TRAIN)
        assert made.compile_report.score is not None


def test_gepa_wants_one_budget_and_merges() -> None:
    configure(lm=teachable())
    with pytest.raises(CompileError, match="more than one budget"):
        GEPA(feedback_metric, auto="light", max_metric_calls=9).compile(Predict("n -> answer"), trainset=TRAIN)
    made = GEPA(feedback_metric, max_metric_calls=500).compile(Two(), trainset=TRAIN)
    assert any("together" in row["candidate"] for row in made.compile_report.search)
    told: list[tuple[str, str]] = []

    def watching(example: Example, prediction: Any, trace: Any, pred_name: str | None, pred_trace: Any) -> Any:
        told.append((pred_name or "", repr(pred_trace)))
        return feedback_metric(example, prediction)

    GEPA(watching, max_metric_calls=80).compile(Two(), trainset=TRAIN)
    assert {name for name, _ in told} == {"", "first", "second"}


def test_the_pareto_front() -> None:
    assert pareto_front([[1, 0, 0], [0, 1, 1], [0, 1, 0]]) == {0: 1, 1: 2}
    assert pareto_front([[1, 1], [1, 1]]) == {0: 2}


def test_the_model_of_choices_finds_the_best_of_many_points_early() -> None:
    ranks = []
    for seed in range(4):
        space = PromptSpace({f"p{i}": tuple(f"text {j}" for j in range(6)) for i in range(3)})
        made = space.space()
        source = random.Random(seed)
        worth = {(p.name, c): source.random() for p in made.parameters for c in p.choices}
        value = {json.dumps(p): sum(worth[item] for item in p.items()) / 3 for p in made.points()}
        strategy, best = BayesianSearch(made, seed, prompt_features(space.candidate)), -1.0
        for _ in range(24):
            point = strategy.ask(1)[0]
            mean = sum(source.random() < value[json.dumps(point)] for _ in range(30)) / 30
            strategy.tell(point, -mean, Measurement(mean, notes={"examples": 30}))
            best = max(best, value[json.dumps(point)])
        ranks.append(sum(v > best for v in value.values()))
    assert sum(ranks) / len(ranks) < 6, f"of 216 points, the best that was tried: {ranks}"


def test_the_model_of_choices_ends_with_the_space_and_repeats_itself() -> None:
    space = PromptSpace({"p": ("a", "b", "c")}).space()
    walks = []
    for _ in range(2):
        strategy, walk = BayesianSearch(space, 3), []
        while points := strategy.ask(2):
            for point in points:
                strategy.tell(point, -float(point["p: instructions"] or 0), Measurement(0.0, notes={"examples": 4}))
            walk.append(points)
        walks.append(walk)
    assert walks[0] == walks[1] and sum(len(w) for w in walks[0]) == 3


def test_teleprompters_one_after_the_other() -> None:
    configure(lm=teachable())
    together = BetterTogether(exact_match, p=COPRO(breadth=3, depth=1), d=BootstrapFewShot(max_labeled_demos=3))
    made = together.compile(Predict("n -> answer"), trainset=TRAIN, strategy="d -> p", valset_ratio=0.4, seed=1)
    report = made.compile_report
    assert [row["candidate"] for row in report.search] == ["the student", "1. d", "2. p"]
    assert [s.teleprompter for s in report.steps] == ["BootstrapFewShot", "COPRO"]
    assert report.score == max(row["score"] for row in report.search) and report.settings["optimizers"]["p"]
    with pytest.raises(CompileError, match="names 'w', which is no teleprompter here"):
        together.compile(Predict("n -> answer"), trainset=TRAIN)


def test_passing_runs_become_training_data(tmp_path: Path) -> None:
    configure(lm=teachable())
    with pytest.warns(TracedslWarning, match="no model is trained"):
        BootstrapFinetune(exact_match, output_dir=tmp_path).compile(Two(), trainset=TRAIN)
    [path] = tmp_path.glob("*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        system, user, answer = row["messages"]
        assert (system["role"], user["role"], answer["role"]) == ("system", "user", "assistant")
    assert any(row["messages"][2]["content"] == f"Answer: {int(row['messages'][1]['content'][3:]) * 3}" for row in rows)

    class Trainer:
        def train(self, lm: Any, data: Path, settings: Any) -> Any:
            return ScriptedLM([], model=f"trained on {len(data.read_text().splitlines())} rows, {settings['epochs']}")

    made = BootstrapFinetune(exact_match, trainer=Trainer(), output_dir=tmp_path, multitask=False, exclude_demos=True,
                             train_kwargs={"epochs": 2}).compile(Two(), trainset=TRAIN)
    assert "trained on" in made.first.lm.model and made.second.lm is None, "the second step never passed"
    with pytest.raises(CompileError, match="nothing to train on"):
        BootstrapFinetune(lambda e, p: False).compile(Two(), trainset=TRAIN)


def test_auto_chooses_and_explains() -> None:
    configure(lm=teachable())
    student = Predict("n -> answer")

    def chosen(n: int, **settings: Any) -> tuple[Any, str]:
        return Auto(**{"metric": exact_match, **settings}).choose(student, (TRAIN * 10)[:n])

    cases = [(chosen(20, budget=Budget(trials=5)), LabeledFewShot, "too small"),
             (chosen(20, budget=Budget(trials=30)), BootstrapFewShot, "no comparison"),
             (chosen(5), BootstrapFewShotWithRandomSearch, "too few"),
             (chosen(60, metric=feedback_metric), GEPA, "feedback"), (chosen(60), MIPROv2, "60 examples are enough"),
             (chosen(30), BootstrapFewShotWithRandomSearch, "few (30)")]
    for (teleprompter, why), kind, text in cases:
        assert type(teleprompter) is kind and text in why
    made = Auto(exact_match).compile(student, trainset=TRAIN)
    assert made.compile_report.why.startswith("BootstrapFewShotWithRandomSearch: ")
    assert len(chosen(100, budget=Budget(trials=201), metric=feedback_metric)[1]) > 0


def test_settings_tell_what_decides_and_nothing_else() -> None:
    for make in MAKERS.values():
        one = make(num_threads=1)
        assert one.settings() == make(num_threads=8).settings() and json.dumps(one.settings())
        assert make(budget=Budget(trials=5)).settings()["budget"] == {"trials": 5}
