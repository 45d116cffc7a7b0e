"""Record and replay."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tracedsl.programs import ChainOfThought, LMError, OracleLM, Predict, ScriptedLM, context
from tracedsl.programs.lm.base import Message
from tracedsl.programs.lm.recorded import RecordingLM, ReplayLM


def test_a_program_gives_the_same_on_a_replayed_model(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    programs = [Predict("q -> a: int"), ChainOfThought("q -> b: list[str]"), Predict("q -> a: int", n=2)]
    with context(lm=RecordingLM(OracleLM(3), path)):
        first = [p(q="x") for p in programs]
        asyncio.run(programs[0].acall(q="y"))
    lm = ReplayLM(path)
    with context(lm=lm):
        assert [p(q="x") for p in programs] == first
        assert asyncio.run(programs[0].acall(q="x")) == first[0]
        with pytest.raises(LMError, match=r"(?s)L015.*was not recorded"):
            programs[0](q="z")
    assert lm.calls == 5 and lm.identity == OracleLM(3).identity and lm.usage.calls == 4


def test_answers_of_a_hot_request_come_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    recording = RecordingLM(ScriptedLM(["a", "b", "c"], temperature=1.0), path)
    for _ in range(3):
        recording("hello")
    path.write_bytes(path.read_bytes() + b'{"torn": ')
    lm = ReplayLM(path)
    assert [lm("hello")[0] for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(LMError, match="used up"):
        lm("hello")
    assert [c.text for c in ReplayLM(path).stream(lm.request([Message("user", "hello")]))] == ["a", ""]


def test_what_is_no_recording_is_said(tmp_path: Path) -> None:
    for text in (None, "", "{", "[]", '{"format": "tracedsl-recording", "version": 9}'):
        if text is not None:
            (tmp_path / "x").write_text(text)
        with pytest.raises(LMError, match="L015"):
            ReplayLM(tmp_path / "x")
