"""choose_adapter: measured, recorded, not paid for twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tracedsl.autotune import Budget, Records
from tracedsl.diagnostics import TracedslError
from tracedsl.programs import Example, LMRequest, Predict, ScriptedLM, choose_adapter, exact_match
from tracedsl.programs.choosing import AdapterScore

DEV = [Example(text=str(i), date=str(i)).with_inputs("text") for i in range(4)]


def likes_tags(request: LMRequest) -> str:
    """Understands the XML layout alone."""
    text = request.messages[-1].text
    return text.replace("text>", "date>") if "<text>" in text else "what?"


def test_the_best_layout_is_found_and_remembered(tmp_path: Path) -> None:
    lm, seen, metric = ScriptedLM(likes_tags), list[AdapterScore](), exact_match("date")
    records = Records(tmp_path / "records.jsonl")
    choice = choose_adapter(Predict("text -> date"), lm, DEV, metric, records=records, progress=seen.append)
    assert choice.adapter.name == "xml" and choice.stopped == "done" and "best: xml" in str(choice)
    scores = {s.adapter: s.score for s in choice.scores}
    assert scores == {"plain": 0.0, "json": 0.0, "baml": 0.0, "xml": 100.0, "chat": 0.0} and seen == list(choice.scores)
    assert all(s.prompt_tokens > 0 for s in choice.scores)
    before = lm.calls
    again = choose_adapter(Predict("text -> date"), lm, DEV, exact_match("date"), records=records)
    assert lm.calls == before and again.scores == choice.scores
    choose_adapter(Predict("text -> date: int"), lm, DEV, exact_match("date"), records=records)
    assert lm.calls > before


def test_of_equal_layouts_the_more_compact_one_wins_and_a_budget_holds(tmp_path: Path) -> None:
    lm = ScriptedLM(lambda request: "Date: " + request.messages[-1].text.split()[-1])
    def choose(**more: Any) -> Any:
        return choose_adapter(Predict("text -> date"), lm, DEV, exact_match("date"), adapters=("plain", "json"), **more)

    choice = choose(records=Records(tmp_path / "a.jsonl"))
    assert choice.adapter.name == "plain" and [s.score for s in choice.scores] == [100.0, 100.0]
    short = choose(records=Records(tmp_path / "b.jsonl"), budget=Budget(trials=1))
    assert len(short.scores) == 1 and short.stopped == "trials"


def test_an_interrupted_search_goes_on_where_it_was(tmp_path: Path) -> None:
    records, stop = Records(tmp_path / "records.jsonl"), [True]

    def answer(request: LMRequest) -> str:
        if stop and "<text>" in request.messages[-1].text:
            raise KeyboardInterrupt
        return likes_tags(request)

    lm = ScriptedLM(answer)
    first = choose_adapter(Predict("text -> date"), lm, DEV, exact_match("date"), records=records, num_threads=1)
    assert first.stopped == "interrupted" and [s.adapter for s in first.scores] == ["plain", "json", "baml"]
    stop.clear()
    before = lm.calls
    second = choose_adapter(Predict("text -> date"), lm, DEV, exact_match("date"), records=records, num_threads=1)
    assert second.adapter.name == "xml" and lm.calls - before == 2 * len(DEV)


def test_nothing_to_choose_from_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TracedslError, match="P021"):
        choose_adapter(Predict("text -> date"), ScriptedLM(likes_tags), DEV, exact_match("date"),
                       records=Records(tmp_path / "r.jsonl"), budget=Budget(trials=0))
