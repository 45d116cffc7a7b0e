"""The program half of the demo: a question to a small language model, compiled by a teleprompter on first call.

What holds here: the model runs in this process. The teleprompter sees the training sentences and a validation part; the
scores that are shown are of further sentences that neither has seen.
"""

from __future__ import annotations

import json
import time
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from tracedsl.program import program
from tracedsl.programs import (
    BootstrapFewShot,
    Evaluate,
    Example,
    InputField,
    OutputField,
    Predict,
    Prediction,
    Signature,
    exact_match,
)

if TYPE_CHECKING:
    from rich.console import Console

    from tracedsl.program import Program

QUESTIONS = ("The bridge was opened on 3 May 1897 by the mayor.", "Rent is due July 14th, 2003.")


class ReadDate(Signature):
    """Find the date in the text and write it as DD.MM.YYYY."""

    text: str = InputField()
    date: str = OutputField(desc="DD.MM.YYYY")


def read_date(text: str) -> Prediction:
    return Predict(ReadDate, max_tokens=24)(text=text)


def examples(name: str) -> list[Example]:
    """The sentences of `dates.<name>.jsonl`, made for this purpose, with their dates."""
    lines = (files(__package__) / f"dates.{name}.jsonl").read_text().splitlines()
    return [Example(**json.loads(line)).with_inputs("text") for line in lines]


def make(short: bool) -> Program:
    """The program, decorated; `short` takes fewer examples."""
    train, dev = examples("train"), examples("dev")
    return program(trainset=train[:30 if short else 60], valset=dev[:16 if short else 24], metric=exact_match("date"),
                   teleprompter=BootstrapFewShot(max_bootstrapped_demos=4, max_labeled_demos=8))(read_date)


def run(console: Console, short: bool) -> dict[str, Any]:
    """Compile (or load), score both forms on sentences that were not used before, and answer two questions."""
    from rich.table import Table

    compiled = make(short)
    console.print("A language model in this process reads dates. It is compiled first, which takes about half a minute "
                  "unless the cache has it.")
    start = time.perf_counter()
    compiled.compile()      # shows its own progress
    with console.status("scoring on sentences that were not used before"):
        dev = examples("dev")
        evaluate = Evaluate(devset=dev[24:24 + (16 if short else 48)], metric=exact_match("date"))
        before, after = evaluate(compiled.uncompiled), evaluate(compiled)
        answers = {question: compiled(question).date for question in QUESTIONS}
    seconds = time.perf_counter() - start
    table = Table("@program", "score", "95 % interval", title=f"Dates in {len(before.results)} held-out sentences")
    for name, result in (("uncompiled", before), ("compiled", after)):
        table.add_row(name, f"{result.score:.1f} %", "{:.0f} to {:.0f} %".format(*result.interval))
    console.print(table)
    for question, answer in answers.items():
        console.print(f"  {question}  ->  [bold]{answer}[/bold]")
    origin = "from the cache" if compiled.from_cache else "compiled now"
    console.print(f"{origin}, {seconds:.1f} s in all. `print(program.explain())` tells what was learned.")
    return {"before": before.score, "after": after.score, "interval_before": list(before.interval),
            "interval_after": list(after.interval), "examples": len(before.results), "answers": answers,
            "seconds": seconds, "origin": origin}
