"""What the examples on `hops` share: 144 passages, 40 questions that need two of them, and a stand-in for a model.

The stand-in is a scripted model that reads its prompt by rules: it knows nothing that does not stand there, so a
program that looks up the wrong passages gets a wrong answer. Put a model in its place with `use(LM("openai/..."))`, or
set `TRACEDSL_LM`.
"""

import json
import os
import re
from pathlib import Path

from tracedsl.programs import LM, Example, PlainAdapter, ScriptedLM, configure

HERE = Path(__file__).parent


def rows(name):
    return [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def passages():
    return [row["text"] for row in rows("passages")]


def questions():
    return [Example(question=row["question"], answer=row["answer"]).with_inputs("question")
            for row in rows("questions")]


def use(lm=None):
    """Let this model, the one named by TRACEDSL_LM, or the stand-in answer."""
    name = os.environ.get("TRACEDSL_LM")
    configure(lm=lm or (LM(name) if name else ScriptedLM(read, adapter=PlainAdapter(), model="reader")))


def read(request):
    """What the prompt says, by rules."""
    system, text = request.messages[0].text, request.messages[-1].text
    found = facts(text)
    if "Next Tool Name" in system:
        return next_step(found)
    if "Person:" in system:
        return f"Person: {found['person']}"
    if "City:" in system:
        return f"City: {found.get('city', 'unknown')}"
    return f"Reasoning: it stands in the passages.\nAnswer: {found.get('answer', 'unknown')}"


def facts(text):
    """Who is asked about, where they were born, and the answer, as far as the prompt tells."""
    question = re.search(r"Question: (.*)", text).group(1)
    found = {"person": re.search(r"([A-Z][\w']+ [A-Z][\w']+)(?= was born| born|\?)", question).group(1)}
    if born := re.search(rf"{found['person']} is an? \w+ born in ([\w' ]+?) in \d", text):
        found["city"] = found["answer"] = born.group(1)
    if "river" in question or "country" in question:
        found.pop("answer", None)
        if city := re.search(rf"{found.get('city', '-')} is a city in ([\w' ]+)\. \w+ lies on the ([\w' ]+)\.", text):
            found["answer"] = city.group(2) if "river" in question else city.group(1)
    return found


def next_step(found):
    """The next tool of an agent: look the person up, then the city, then finish."""
    if "answer" in found:
        return "Next Thought: that is all.\nNext Tool Name: finish\nNext Tool Args: {}"
    query = found.get("city", found["person"])
    return f"Next Thought: I need {query}.\nNext Tool Name: search\nNext Tool Args: {json.dumps({'query': query})}"
