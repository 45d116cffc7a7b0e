"""Prompts for elsewhere: what is exported is what is sent, and scores the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tracedsl.programs import (
    LM,
    Evaluate,
    Example,
    History,
    Module,
    OracleLM,
    Predict,
    Prediction,
    ScriptedLM,
    Signature,
    context,
    exact_match,
)
from tracedsl.programs.adapters import NAMES, adapter_by_name
from tracedsl.programs.lm.base import LMRequest, Message, ResponseFormat
from tracedsl.programs.lm.wire import chat_message
from tracedsl.programs.tools.tool import Tool

TEXTS = ["Due 4 May 1999.", "Signed on 7 June 2001.", "Left on July 20, 1999.", "Paid on 1 March 2010."]
DATES = ["04.05.1999", "07.06.2001", "20.07.1999", "01.03.2010"]
DEV = [Example(text=t, date=d).with_inputs("text") for t, d in zip(TEXTS, DATES)]


def sent_elsewhere(lm: Any, exported: dict[str, Any], signature: type[Signature]) -> Prediction:
    """As a program without this package would: messages and settings from JSON, to the model, then read."""
    data = json.loads(json.dumps(exported))
    messages = [Message(m["role"], m["content"]) for m in data["messages"]]
    settings = {k: data[k] for k in ("temperature", "max_tokens") if k in data}
    if "grammar" in data:
        settings["response_format"] = ResponseFormat("grammar", data["grammar"])
    if "response_format" in data:
        schema = data["response_format"]["json_schema"]["schema"]
        settings["response_format"] = ResponseFormat("json_schema", json.dumps(schema, ensure_ascii=False))
    text = lm(messages=[m._asdict() for m in messages], **settings)[0]
    return Prediction(adapter_by_name(data["adapter"]).parse(signature, text))


def reads_some_dates(request: LMRequest) -> str:
    """Knows two of the four, and needs the demonstration to know the form."""
    asked = request.messages[-1].text
    known = {"Due 4 May 1999.": "04.05.1999", "Left on July 20, 1999.": "20.07.1999"}
    date = next((d for text, d in known.items() if text in asked), "no idea")
    return f"Date: {date}" if "04.04.1998" in request.messages[2].text else "what?"


@pytest.mark.parametrize("exact", [True, False])
def test_exported_messages_score_the_same(exact: bool) -> None:
    lm = ScriptedLM(reads_some_dates, adapter=adapter_by_name("plain"))
    predict = Predict("text -> date")
    predict.lm, predict.demos = lm, [Example(text="Signed April 4th, 1998.", date="04.04.1998")]
    here = Evaluate(devset=DEV, metric=exact_match("date"))(predict).score

    def elsewhere(text: str) -> Prediction:
        exported = predict.export_messages(**({"text": text} if exact else {}))[0]
        if not exact:
            exported["messages"][-1]["content"] = exported["messages"][-1]["content"].replace("{{text}}", text)
        return sent_elsewhere(lm, exported, predict.signature)

    assert Evaluate(devset=DEV, metric=exact_match("date"))(elsewhere).score == here == 50.0


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_answers_exported_messages_alike(name: str) -> None:
    lm, predict = OracleLM(), Predict("text, tags: list[str] -> n: int, ok: bool")
    inputs = {"text": "a\nb", "tags": ["x", "y"]}
    with context(lm=lm, adapter=adapter_by_name(name)):
        [exported] = predict.export_messages(**inputs)
        assert exported["messages"] == [chat_message(m) for m in predict.prepare(inputs).request.messages]
        if name in ("json", "baml"):  # the oracle answers what comes with a schema
            assert sent_elsewhere(lm, exported, predict.signature).items() == predict(**inputs).items()


class Program(Module):
    def __init__(self) -> None:
        self.first = Predict("question, past: History, tools: list[Tool] -> facts")
        self.second = Predict("facts -> answer", max_tokens=9)

    def forward(self, **inputs: Any) -> Any:
        return self.second(facts=self.first(**inputs).facts)


def test_a_program_exports_every_prompt() -> None:
    program = Program()
    given = {"question": "x", "past": History(messages=[{"question": "a", "facts": "b"}]), "tools": [Tool(ord)]}
    with context(lm=ScriptedLM(["this and that", "so"])):
        first, second = program.export_messages()
        exact = program.export_messages(**given)
    assert json.loads(json.dumps([first, second, *exact])) == [first, second, *exact]
    assert [first["predictor"], second["predictor"]] == ["first", "second"]
    assert "{{question}}" in first["messages"][-1]["content"] and "{{facts}}" in second["messages"][-1]["content"]
    assert second["max_tokens"] == 9 and second["outputs"] == {"answer": "str"}
    assert [m["role"] for m in exact[0]["messages"]] == ["system", "user", "assistant", "user"]
    assert "this and that" in exact[1]["messages"][-1]["content"]


@pytest.mark.local_model
def test_the_embedded_model_scores_the_same(weights: Path) -> None:
    lm = LM("local/smollm2-135m", max_tokens=16)
    predict = Predict("text -> date")
    predict.lm = lm
    predict.demos = [Example(text=f"Signed on {d} {m} 199{y}.", date=f"0{d}.0{i}.199{y}")
                     for d, m, i, y in ((4, "April", 4, 8), (5, "May", 5, 3), (1, "March", 3, 7))]
    here = Evaluate(devset=DEV, metric=exact_match("date"), num_threads=1)(predict)

    def elsewhere(text: str) -> Prediction:
        return sent_elsewhere(LM("local/smollm2-135m", max_tokens=16, cache=False) if text == TEXTS[0] else lm,
                              predict.export_messages(text=text)[0], predict.signature)

    there = Evaluate(devset=DEV, metric=exact_match("date"), num_threads=1)(elsewhere)
    assert [r.prediction.date for r in here.results] == [r.prediction.date for r in there.results]
    assert here.score == there.score
