"""Saved programs: JSON without pickle, loaded by another process with another home, where they answer the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = '''
import json, sys
from tracedsl.programs import (RLM, BestOfN, ChainOfThought, CodeAct, Evaluate, Example, Module, MultiChainComparison,
                               OracleLM, Predict, ProgramOfThought, ReAct, Refine, Retrieve, configure)

def search(query: str) -> str:
    """Find something."""
    return f"about {query}"

class Whole(Module):
    """A program of every kind of module."""

    def __init__(self):
        self.retrieve = Retrieve(k=2)
        self.parts = {"react": ReAct("question -> answer: int", tools=[search], max_iters=2)}
        self.steps = [ChainOfThought("context: list[str], question -> answer: int"), Predict("question -> n: int")]
        self.compare = MultiChainComparison("question -> answer: int", M=2)
        self.best = BestOfN(Predict("question -> answer: int"), 2, lambda i, p: p.answer, threshold=None)
        self.fine = Refine(Predict("question -> answer: int"), 1, lambda i, p: p.answer, threshold=None)
        self.code = [ProgramOfThought("question -> answer"), CodeAct("question -> answer", tools=[search]),
                     RLM("question -> answer")]

    def forward(self, question):
        found = self.retrieve(question).passages
        first = self.steps[0](context=found, question=question)
        second = self.parts["react"](question=question)
        best = self.compare([first, second], question=question)
        total = best.answer + self.best(question=question).answer + self.fine(question=question).answer
        return Example(answer=total + self.steps[1](question=question).n)

dev = [Example(question=f"question {i}", answer=i).with_inputs("question") for i in range(6)]

def score(program):
    configure(lm=OracleLM(7), rm=lambda query, k: [f"{query} {i}" for i in range(k)])
    return Evaluate(devset=dev, metric=lambda e, p: (p.answer % 97) / 97)(program).score

def learned():
    program = Whole()
    program.retrieve.k = 3
    for i, predictor in enumerate(program.predictors()):
        predictor.signature = predictor.signature.with_instructions(f"Step {i}, with care: \\u00e4\\u4e2d.")
        inputs, outputs = predictor.signature.input_fields, predictor.signature.output_fields
        predictor.demos = [Example({name: "x" for name in inputs} | {name: 1 for name in outputs})]
    return program
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "whole.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


def run(folder: Path, code: str, home: str) -> Any:
    """Run code beside the program above, in a process whose home and cache are its own."""
    (folder / home).mkdir(exist_ok=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(folder / home), "TRACEDSL_CACHE": str(folder / home / "cache"),
           "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    done = subprocess.run([sys.executable, "-c", f"from whole import *\n{code}"], env=env, cwd=folder / home, text=True,
                          capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_whole_program_answers_the_same_on_another_machine(folder: Path) -> None:
    saved = folder / "saved.json"
    first = run(folder, f"p = learned(); p.save({str(saved)!r}); print(json.dumps([score(p), score(Whole())]))", "one")
    second = run(folder, f"p = Whole(); p.load({str(saved)!r})\n"
                         "print(json.dumps([score(p), p.retrieve.k, p.dump_state() == learned().dump_state()]))", "two")
    assert second == [first[0], 3, True] and first[0] != first[1]
    whole = json.loads(saved.read_bytes())
    assert whole["format"] == "tracedsl-program" and isinstance(whole["version"], int)
    assert str(folder) not in saved.read_text() and len(whole["state"]) == 16
