"""Proposals: instructions that a model writes, from what it is shown of the program, the data and earlier attempts.

What holds here: a proposal is a question to a model through the session, so it is budgeted, kept and never asked twice.
What cannot be used (empty, repeated, an answer that cannot be read) is left out; nobody gets fewer than none.

Sources: Opsahl-Ong et al., Optimizing Instructions and Demonstrations for Multi-Stage Language Model Programs (2024),
section 4 (grounding in data, program and demonstrations; tips; history); Yang et al., Large Language Models as
Optimizers (2023), for improving on scored attempts; Agrawal et al., GEPA (2025), section 3, for reflection on runs.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tracedsl.programs.example import Example
from tracedsl.programs.fields import InputField, OutputField
from tracedsl.programs.modules.module import Module
from tracedsl.programs.modules.predict import Predict
from tracedsl.programs.signature import Signature
from tracedsl.programs.teleprompters.runs import Run
from tracedsl.programs.teleprompters.session import Session

TIPS = (
    "", "Name the one mistake that is made most easily, and say how to avoid it.", "Keep it short and plain.",
    "Say exactly what form the outputs have.", "Say who the reader is meant to be, and what depends on the answer.",
    "Give the steps that lead to the answer.", "Be inventive: find a view of the task that was not taken before.",
)
MOST_SHOWN = 1500       # characters of one example in a prompt
LONGEST = 4000          # characters of instructions


class DescribeData(Signature):
    """Describe what these examples have in common: the kind of task, the form of inputs and outputs, what varies, what
    is difficult. A few sentences, no list of the examples."""

    examples: str = InputField()
    description: str = OutputField()


class DescribeProgram(Signature):
    """Say in a few sentences what this program is for and what each of its modules contributes."""

    program_code: str = InputField()
    modules: str = InputField()
    description: str = OutputField()


class WriteInstructions(Signature):
    """Write better instructions for one module of a language-model program. They are put before the module's inputs; so
    they must tell everything that a model has to know to produce the outputs. Write the instructions alone."""

    data: str = InputField(desc="what the data looks like")
    program: str = InputField(desc="what the program is for")
    module: str = InputField(desc="the module's inputs and outputs")
    demonstrations: str = InputField(desc="what good outputs look like")
    current_instructions: str = InputField()
    attempts: str = InputField(desc="earlier instructions with their scores in percent, the best last")
    tip: str = InputField()
    instructions: str = OutputField(desc="the new instructions")


class ReflectOnRuns(Signature):
    """A module of a language-model program was run with these instructions on these examples. Read what it was given,
    what it answered and what was said about it. Find out what the instructions lack: facts of the task, the form of the
    outputs, a way to go about it. Then write them anew, complete, so that runs like these would go well. Keep what
    works. Write the instructions alone."""

    module: str = InputField(desc="the module's inputs and outputs")
    current_instructions: str = InputField()
    runs: str = InputField(desc="inputs, outputs, feedback")
    instructions: str = OutputField(desc="the new instructions")


class FindRules(Signature):
    """Read these examples of a task and write down rules that, when followed, lead from the inputs to the outputs. Each
    rule stands by itself, is short and general, and can be acted on. One rule a line."""

    module: str = InputField(desc="inputs and outputs")
    examples: str = InputField()
    number: int = InputField(desc="how many rules at most")
    rules: str = OutputField()


class CompareRuns(Signature):
    """Two runs of the same program on the same example: one went better than the other. Say in one or two sentences
    what the module should do in such a case, and when; the advice is added to its instructions and has to make sense to
    somebody who saw neither run. Write N/A if the module made no difference."""

    program: str = InputField(desc="the modules")
    module_name: str = InputField()
    better_run: str = InputField()
    better_score: float = InputField()
    worse_run: str = InputField()
    worse_score: float = InputField()
    advice: str = OutputField()


class Proposer:
    """Writes instructions.

    Args:
        session: asks, counts and keeps.
        student: the program.
        trainset: what the data is described by; None: not described.
        lm: the model that writes; None: the one in force.
        describe_program: whether the program's code is shown.
        rows: how many examples are shown for the description of the data.
    """

    def __init__(self, session: Session, student: Module, *, trainset: Sequence[Example] | None = None, lm: Any = None,
                 describe_program: bool = False, rows: int = 10) -> None:
        self._session, self._student, self._lm = session, student, lm
        self._trainset, self._rows, self._code = list(trainset or ()), rows, describe_program
        self._about: tuple[str, str] | None = None

    def instructions(self, name: str, count: int, *, current: str, demos: Sequence[Example] = (),
                     attempts: Sequence[tuple[str, float]] = (), tips: Sequence[str] = TIPS, first: int = 1,
                     temperature: float = 1.0) -> list[str]:
        """At most `count` new instructions for a predictor; `first` numbers the samples."""
        data, about = self._grounding()
        made: list[str] = []
        for i in range(first, first + count):
            answer = self._session.ask(Predict(WriteInstructions), {
                "data": data, "program": about, "module": module_text(self._student, name),
                "demonstrations": shown(demos), "current_instructions": current,
                "attempts": "\n".join(f"{score:.1f}: {text}" for text, score in sorted(attempts, key=lambda a: a[1])),
                "tip": tips[i % len(tips)]}, lm=self._lm, rollout=i, temperature=temperature)
            _add(made, answer, "instructions", but=(current, *(text for text, _ in attempts)))
        return made

    def reflected(self, name: str, current: str, runs: Sequence[Run], rollout: int) -> str | None:
        """New instructions for a predictor from its runs, or None."""
        answer = self._session.ask(Predict(ReflectOnRuns), {
            "module": module_text(self._student, name), "current_instructions": current,
            "runs": "\n\n".join(run_text(run, name, self._session.feedback(run, name)) for run in runs)},
            lm=self._lm, rollout=rollout)
        made: list[str] = []
        _add(made, answer, "instructions", but=(current,))
        return made[0] if made else None

    def rules(self, name: str, examples: Sequence[Example], number: int, rollout: int) -> str:
        """Rules that lead from inputs to outputs, one a line; empty if there are none."""
        answer = self._session.ask(Predict(FindRules), {
            "module": module_text(self._student, name), "examples": shown(examples), "number": number},
            lm=self._lm, rollout=rollout)
        lines = [line.strip() for line in str((answer or {}).get("rules", "")).splitlines() if line.strip()]
        return "\n".join(dict.fromkeys(lines[:number]))[:LONGEST]

    def advice(self, name: str, better: Run, worse: Run, rollout: int, lm: Any = None) -> str:
        """What a predictor should do in a case like this; empty for nothing."""
        answer = self._session.ask(Predict(CompareRuns), {
            "program": modules_text(self._student), "module_name": name, "better_run": run_text(better, None, ""),
            "better_score": better.score, "worse_run": run_text(worse, None, ""), "worse_score": worse.score},
            lm=lm or self._lm, rollout=rollout)
        text = clean(str((answer or {}).get("advice", "")))
        return "" if text.casefold().rstrip(".") in ("", "n/a", "none") else text[:LONGEST]

    def _grounding(self) -> tuple[str, str]:
        """What the data and the program are about; asked once."""
        if self._about is None:
            data = program = ""
            if self._trainset:
                answer = self._session.ask(Predict(DescribeData), {"examples": shown(self._trainset[:self._rows])},
                                           lm=self._lm)
                data = clean(str((answer or {}).get("description", "")))
            if self._code:
                answer = self._session.ask(Predict(DescribeProgram), {
                    "program_code": code_text(self._student), "modules": modules_text(self._student)}, lm=self._lm)
                program = clean(str((answer or {}).get("description", "")))
            self._about = (data, program)
        return self._about


def _add(made: list[str], answer: Mapping[str, Any] | None, field: str, but: Sequence[str] = ()) -> None:
    text = clean(str((answer or {}).get(field) or ""))
    if text and text not in made and text not in but and len(text) <= LONGEST:
        made.append(text)


def clean(text: str) -> str:
    """A text without the quotes and fences that models put around it."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and len(text) > 6:
        text = text.strip("`").partition("\n")[2].strip() or text.strip("`").strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return text


# -- what prompts show ------------------------------------------------------------------------------------------------


def shown(examples: Sequence[Example]) -> str:
    """Examples as text, one a paragraph."""
    return "\n\n".join(_cut(json.dumps({k: v for k, v in e.toDict().items() if k != "augmented"}, ensure_ascii=False))
                       for e in examples)


def run_text(run: Run, name: str | None, feedback: str) -> str:
    """A run as text: the steps of one predictor or of all, the answer, the score, what was said about it."""
    steps = [s for s in run.steps if name is None or s.predictor == name]
    lines = [_cut(f"{s.predictor}: given {json.dumps(dict(s.inputs), ensure_ascii=False)}\nanswered "
                  f"{json.dumps(dict(s.outputs), ensure_ascii=False)}") for s in steps]
    lines.append(_cut(f"expected: {json.dumps(run.example.labels().toDict(), ensure_ascii=False)}"))
    if run.error is not None:
        lines.append(_cut(f"it failed: {run.error}"))
    lines.append(f"score: {run.score:g}")
    return "\n".join(lines + ([f"feedback: {feedback}"] if feedback else []))


def module_text(program: Module, name: str) -> str:
    """The inputs and outputs of one predictor, with what is said about them."""
    signature = dict(program.named_predictors())[name].signature
    fields = [f"{f.kind} {f.name} ({f.type_name}): {f.desc}" for f in signature.fields.values()]
    return "\n".join([f"{name}: {signature.signature}", *fields])


def modules_text(program: Module) -> str:
    return "\n\n".join(f"{module_text(program, name)}\n{p.signature.instructions}"
                       for name, p in program.named_predictors())


def code_text(program: Module) -> str:
    """The source of a program, as far as it is at hand."""
    try:
        return _cut(inspect.getsource(getattr(program, "__wrapped__", type(program))), 4 * MOST_SHOWN)
    except (OSError, TypeError):
        return type(program).__name__


def _cut(text: str, most: int = MOST_SHOWN) -> str:
    return text if len(text) <= most else f"{text[:most - 4]} ..."
