"""Modules: parameters and their names, copies, saved programs."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tracedsl.programs import ChainOfThought, Example, Module, OracleLM, Predict, configure
from tracedsl.programs.modules.module import SavedProgramError


class Hops(Module):
    def __init__(self) -> None:
        self.steps = [Predict("question -> query"), Predict("question, facts -> query")]
        self.answer = ChainOfThought("question, facts -> answer")
        self.tools = {"look up": Predict("query -> facts")}
        self.again = self.steps[0]
        self.lock = threading.Lock()

    def forward(self, question: str) -> Any:
        query = self.steps[0](question=question).query
        facts = self.tools["look up"](query=query).facts
        return self.answer(question=question, facts=facts)


NAMES = ["steps[0]", "steps[1]", "answer.predict", "tools['look up']"]


def learned() -> Hops:
    hops = Hops()
    for i, predictor in enumerate(hops.predictors()):
        predictor.demos = [Example(question=f"q{i}", query="x").with_inputs("question")]
        predictor.signature = predictor.signature.with_instructions(f"Step {i}.")
    return hops


def test_every_parameter_has_one_name() -> None:
    hops = Hops()
    assert [name for name, _ in hops.named_predictors()] == NAMES
    assert hops.predictors() == [*hops.steps, hops.answer.predict, hops.tools["look up"]]
    hops.answer._compiled = True
    assert [name for name, _ in hops.named_parameters()] == [n for n in NAMES if n != "answer.predict"]


def test_predictors_can_be_replaced() -> None:
    hops = Hops().map_named_predictors(lambda p: Predict(p.signature, temperature=0.5))
    assert hops.steps[0].config == hops.steps[1].config == {"temperature": 0.5}
    assert hops.answer.predict.config == hops.tools["look up"].config == {"temperature": 0.5}


def test_copies_share_nothing_learned_but_the_model() -> None:
    lm = OracleLM()
    hops = learned()
    hops.set_lm(lm)
    copy, reset = hops.deepcopy(), hops.reset_copy()
    copy.steps[0].demos.append(Example(question="new"))
    assert len(hops.steps[0].demos) == 1 and copy.get_lm() is lm and copy.again is copy.steps[0]
    assert all(p.demos == [] and p.lm is None for p in reset.predictors())
    assert reset.steps[0].signature == hops.steps[0].signature
    copy.steps[0].lm = OracleLM()
    with pytest.raises(ValueError, match="different"):
        copy.get_lm()


def test_save_and_load(tmp_path: Path) -> None:
    hops = learned()
    hops.set_lm(OracleLM())
    hops.save(tmp_path / "p.json")
    back = Hops().load(tmp_path / "p.json")
    assert back.dump_state() == {**hops.dump_state()} | {
        n: {**s, "lm": None} for n, s in hops.dump_state().items()}
    assert back.steps[0].demos[0].inputs() == Example(question="q0")
    configure(lm=OracleLM())
    assert back(question="x") == hops(question="x") != Hops()(question="x")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".new")] == []


@pytest.mark.parametrize(("change", "code"), [
    (lambda w: w.update(format="other"), "P006"), (lambda w: w.update(version=99), "P006"),
    (lambda w: w["state"].pop("steps[0]"), "P007"),
    (lambda w: w["state"].update(stps=w["state"]["steps[0]"]), "P007"),
    (lambda w: w["state"]["steps[1]"].pop("signature"), "P007"),
    (lambda w: w["state"]["steps[1]"]["signature"]["fields"].pop(), "P007"),
    (lambda w: w["state"]["tools['look up']"].update(demos=[{"x": 1}]), "P007"),
    (lambda w: w["state"]["answer.predict"].update(demos=None), "P007"),
    (lambda w: w.update(state=None), "P006"), (lambda w: w.update(state={"steps[0]": 3}), "P007"),
])
def test_a_file_that_does_not_fit_changes_nothing(tmp_path: Path, change: Any, code: str) -> None:
    learned().save(tmp_path / "p.json")
    whole = json.loads((tmp_path / "p.json").read_text())
    change(whole)
    (tmp_path / "p.json").write_text(json.dumps(whole))
    hops = Hops()
    before = hops.dump_state()
    with pytest.raises(SavedProgramError) as caught:
        hops.load(tmp_path / "p.json")
    assert caught.value.code == code and hops.dump_state() == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"\x80\x04pickle"])
def test_a_file_that_is_no_program_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(SavedProgramError, match="P006"):
        Hops().load(tmp_path / "p.json")
    with pytest.raises(SavedProgramError, match="there is no saved program"):
        Hops().load(tmp_path / "missing.json")


def test_a_single_predictor_saves_too(tmp_path: Path) -> None:
    predict = Predict("q -> a")
    predict.demos = [Example(q="x", a="y")]
    predict.save(tmp_path / "p.json")
    assert Predict("q -> a").load(tmp_path / "p.json").demos == predict.demos
    with pytest.raises(SavedProgramError, match="P007"):
        Hops().load(tmp_path / "p.json")


def test_modules_can_be_awaited() -> None:
    configure(lm=OracleLM())
    hops = Hops()

    async def several() -> list[Any]:
        return await asyncio.gather(*(hops.acall(question=q) for q in "abc"))

    assert asyncio.run(several()) == [hops(question=q) for q in "abc"]


def test_a_module_without_forward_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Empty has no forward"):
        type("Empty", (Module,), {})()()
