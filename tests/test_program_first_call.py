"""The first call of a program with a teleprompter that searches: progress, budgets, dry runs, background, artefacts."""

from __future__ import annotations

import json
import random
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tracedsl import Store, TracedslError, program
from tracedsl.autotune import Budget
from tracedsl.cli import main
from tracedsl.diagnostics import TracedslWarning
from tracedsl.programs import (
    Auto,
    BetterTogether,
    BootstrapFewShotWithRandomSearch,
    Example,
    KNNFewShot,
    LabeledFewShot,
    LMError,
    LMRequest,
    PlainAdapter,
    Predict,
    ScriptedLM,
    exact_match,
)
from tracedsl.programs.teleprompters.artefacts import difference, difference_text, read_artefact

TRAIN = [Example(n=str(i), answer=str(i * 3)).with_inputs("n") for i in range(24)]


def reply(request: LMRequest) -> str:
    """Rightly the more often, the more demonstrations it has seen."""
    turns = request.messages[1:]
    n = int(turns[-1].text.split(": ")[1])
    lucky = random.Random(f"{n} {[m.text for m in turns[:-1]]}").random() < 0.25 + 0.1 * (len(turns) // 2)
    return f"Answer: {n * 3 if lucky else 'no'}"


def make_lm(answer: Any = reply, **settings: Any) -> ScriptedLM:
    return ScriptedLM(answer, adapter=PlainAdapter(), **{"cache": True, "max_tokens": 8, **settings})


def triple(n: str) -> str:
    return str(Predict("n -> answer")(n=n).answer)


def search(**settings: Any) -> BootstrapFewShotWithRandomSearch:
    return BootstrapFewShotWithRandomSearch(
        **{"max_bootstrapped_demos": 3, "max_labeled_demos": 4, "num_candidate_programs": 6, **settings})


def make(lm: ScriptedLM, **options: Any) -> Any:
    return program(**{"trainset": TRAIN, "metric": exact_match, "teleprompter": search(), **options}, lm=lm)(triple)


def test_the_search_is_explained_and_kept() -> None:
    lm = make_lm()
    answer = make(lm)
    answer("100")
    told = answer.explain()
    assert re.search(r"search: \d+ metric calls, \d+ model calls, 9 candidates", told) and "installed: compiled" in told
    assert "best: " in told
    again = make(lm)
    again("100")
    assert again.explain().split("tune")[1].split("compile ")[0] == told.split("tune")[1].split("compile ")[0]
    assert again.artefact() == answer.artefact() and answer.artefact()["report"]["search"]


def test_progress_tells_candidates_scores_costs_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    make(make_lm(), verbose=True)("100")
    lines = capsys.readouterr().err
    assert re.search(r"9 candidates on \d+ of 16 examples", lines) and "scoring compiled" in lines
    assert re.search(r"best \d+\.\d % \(\d+\.\d to \d+\.\d\)", lines) and " calls" in lines and " left" in lines


def test_the_same_artefact_for_any_number_of_threads(tmp_path: Path) -> None:
    made = []
    for threads in (1, 16):
        answer = make(make_lm(), num_threads=threads, teleprompter=search(num_threads=threads),
                      store=tmp_path / str(threads))
        answer("100")
        made.append(json.dumps(answer.artefact(), indent=1))
    assert made[0] == made[1]


@pytest.mark.parametrize("budget", [Budget(trials=40), Budget(calls=60), Budget(tokens=2000), Budget(trials=90)])
def test_the_budget_of_a_first_call_is_hard(budget: Budget) -> None:
    scored: list[int] = []

    def metric(example: Example, prediction: Any) -> bool:
        scored.append(1)
        return exact_match(example, prediction)

    lm = make_lm()
    answer = make(lm, budget=budget, metric=metric)
    answer("100")
    own = 1 if "100" not in [r.messages[-1].text for r in lm.requests[:-1]] else 0
    assert len(scored) <= budget.trials and lm.calls - own <= budget.calls
    assert lm.usage.total_tokens <= budget.tokens + 20
    assert "budget" in answer.explain() or budget.trials == 90


def test_a_dry_run_is_within_a_fifth_and_pays_nothing() -> None:
    for i, teleprompter in enumerate((LabeledFewShot(k=4), search(), search(num_candidate_programs=2))):
        lm = make_lm(model=f"model {i}")
        answer = make(lm, teleprompter=teleprompter)
        guess = answer.estimate()
        assert lm.calls == 0 and answer.explain().endswith("not called yet")
        answer.compile()
        asked = lm.usage.calls
        assert abs(guess.likely.calls / asked - 1) < 0.2, f"{guess} and {asked} calls"
    with pytest.raises(TracedslError, match="no teleprompter"):
        program(lm=lm)(triple).estimate()


def test_a_dry_run_with_records_counts_what_is_left() -> None:
    lm = make_lm()
    answer = make(lm)
    whole = answer.estimate().likely.calls
    answer.compile()
    assert make(lm).estimate().likely.calls < whole / 4


def test_compilation_in_the_background_serves_meanwhile() -> None:
    gate = threading.Event()

    def slow(request: LMRequest) -> str:
        if not request.messages[-1].text.endswith("100"):
            gate.wait(30)
        return reply(request)

    answer = make(make_lm(slow), compile="background")
    assert answer("100") in ("300", "no") and answer.named_predictors()[0][1].demos == []
    assert not answer.wait(0.01)
    gate.set()
    assert answer.wait(60) and "installed: compiled" in answer.explain()
    assert answer.named_predictors()[0][1].demos and answer("100")
    again = make(make_lm(), compile="background")
    again("100")
    assert again.wait(60) and "loaded from the cache" in again.explain()


def test_a_background_compilation_that_fails_is_told_once() -> None:
    down = make_lm(lambda r: reply(r) if r.messages[-1].text.endswith("100") else LMError("L001", "nobody listens"))
    answer = make(down, compile="background")
    with pytest.warns(TracedslWarning, match="in the background failed"):
        answer("100")
        assert answer.wait(60)
    calls = down.calls
    assert answer("100") and answer.wait(60) and down.calls == calls
    assert "nobody listens" in answer.explain()
    with pytest.raises(TracedslError, match="compile is 'later'"):
        make(down, compile="later")


def test_data_and_metrics_that_do_not_fit() -> None:
    lm = make_lm()
    with pytest.raises(TracedslError, match=r"failed: ValueError: the metric returned nan"):
        make(lm, metric=lambda e, p: float("nan"))("1")
    with pytest.raises(TracedslError, match=r"takes 1 positional argument but 2 were given"):
        make(lm, metric=lambda e: 1.0)("1")
    neighbours = KNNFewShot(k=2, trainset=TRAIN, vectorizer=lambda texts: [[float(len(t))] for t in texts])
    with pytest.raises(TracedslError, match="KNNFewShot makes a KNNProgram of a program"):
        make(lm, teleprompter=neighbours)("1")


def test_teleprompters_that_choose_and_combine_compile_programs() -> None:
    lm = make_lm()
    chosen = make(lm, teleprompter=Auto(num_threads=4))
    chosen("100")
    assert "why: BootstrapFewShotWithRandomSearch: " in chosen.explain()
    both = BetterTogether(exact_match, a=LabeledFewShot(k=3), b=search(num_candidate_programs=2))
    together = make(lm, teleprompter=Then(both, "a -> b"))
    together("100")
    assert [s["teleprompter"] for s in together.artefact()["report"]["steps"]] == [
        "LabeledFewShot", "BootstrapFewShotWithRandomSearch"]


class Then:
    """A teleprompter with arguments for its `compile`."""

    def __init__(self, teleprompter: Any, strategy: str) -> None:
        self.teleprompter, self.strategy = teleprompter, strategy

    def settings(self) -> dict[str, Any]:
        return {**self.teleprompter.settings(), "strategy": self.strategy}

    def compile(self, student: Any, *, trainset: Any) -> Any:
        return self.teleprompter.compile(student, trainset=trainset, strategy=self.strategy)


# -- artefacts and the command line --------------------------------------------------------------------------------


def test_what_differs_between_two_artefacts(tmp_path: Path, golden: Any) -> None:
    one, two = Predict("n -> answer"), Predict("n -> answer", temperature=0.5)
    one.demos = [Example(n="1", answer="3"), Example(n="2", answer="6")]
    two.demos = [Example(n="2", answer="6"), Example(n="5", answer="15")]
    two.signature = two.signature.with_instructions(two.signature.instructions + "\nTriple the number.")
    one.save(tmp_path / "one.json")
    two.save(tmp_path / "two.json")
    old, new = (read_artefact(str(tmp_path / f"{name}.json")) for name in ("one", "two"))
    assert difference(old, old) == {}
    golden("prompts/artefact_diff.txt", difference_text(old, new).replace(str(tmp_path), "."))
    done = CliRunner().invoke(main, ["diff", str(tmp_path / "one.json"), str(tmp_path / "two.json"), "--json"])
    assert json.loads(done.output)["self"]["demonstrations"]["came"] == [{"n": "5", "answer": "15"}]
    (tmp_path / "bad.json").write_text('{"format": "else"}')
    for wrong, text in ((tmp_path / "bad.json", "is no artefact"), ("abcdef", "0 compiled programs")):
        done = CliRunner().invoke(main, ["diff", str(wrong), str(tmp_path / "two.json")])
        assert done.exit_code == 1 and text in done.output


SCRIPT = """
from tracedsl import program
from tracedsl.programs import Example, LabeledFewShot, PlainAdapter, Predict, ScriptedLM, exact_match

train = [Example(n=str(i), answer=str(i * 3)).with_inputs("n") for i in range(9)]

def reply(request):
    n = int(request.messages[-1].text.split(": ")[1])
    return f"Answer: {n * 3 if len(request.messages) > 2 else 'no'}"

@program(trainset=train, metric=exact_match, teleprompter=LabeledFewShot(k=2),
         lm=ScriptedLM(reply, adapter=PlainAdapter()))
def triple(n):
    return Predict("n -> answer")(n=n).answer

def plain(n):
    return n
"""


def test_compiling_ahead_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aot_script.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = CliRunner()
    dry = run.invoke(main, ["compile", "aot_script:triple", "--dry-run", "--json"])
    assert dry.exit_code == 0 and json.loads(dry.output)["likely"]["calls"] > 0, dry.output
    assert not list(Store().entries("program"))
    done = run.invoke(main, ["compile", "aot_script.py:triple", "--json"])
    assert done.exit_code == 0 and json.loads(done.output)["installed"] == "compiled", done.output
    entry = next(Store().entries("program"))
    same = run.invoke(main, ["diff", entry.key.digest[:10], entry.key.digest[:10]])
    assert same.output.endswith("no difference\n")
    for wrong, text in (("triple", "names no program"), ("aot_script:plain", "is no @program"),
                        ("nowhere_at_all:f", "cannot be imported"), ("gone.py:f", "there is no file")):
        failed = run.invoke(main, ["compile", wrong])
        assert failed.exit_code == 1 and text in failed.output
