"""The benchmark of teleprompters: one engine for both libraries, books by row, the table."""

from __future__ import annotations

from pathlib import Path

from benchmarks.teleprompters.__main__ import table
from benchmarks.teleprompters.engine import Books, Engine, OurLM
from tracedsl.programs import PlainAdapter, Predict, ScriptedLM, context


def test_an_answer_is_asked_once_and_booked_in_each_row(tmp_path: Path) -> None:
    lm = ScriptedLM(lambda r: "Answer: 7", adapter=PlainAdapter())
    for _ in range(2):
        engine = Engine(lm, tmp_path / "memory.jsonl")
        for _ in range(2):
            books = engine.books = Books()
            ours = OurLM(engine, "plain", False, cache=False)
            with context(lm=ours):
                assert [Predict("n -> answer")(n="1").answer for _ in range(2)] == ["7", "7"]
            assert books.calls == 1 and books.prompt_tokens > 0
    assert lm.calls == 1


def test_the_table_has_means_over_seeds() -> None:
    row = {"task": "t", "teleprompter": "p", "system": "s", "metric_calls": 4, "calls": 5, "prompt_tokens": 6,
           "completion_tokens": 7, "seconds": 8.0}
    text = table([{**row, "score": 50.0}, {**row, "score": 100.0}])
    assert "| t | p | s | 75.0 | 4 | 5 | 6 + 7 | 8 | 2 |" in text
