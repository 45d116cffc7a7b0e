"""BootstrapFinetune: a teacher's passing runs as training data for a model.

Source: Khattab et al., DSPy (2023), section 4, stage 3 (finetuning); Soylu et al. (2024). What holds here: each step of
a run that passes is one row, with the prompt as the student's predictor would send it and the answer as the adapter
would want it. Rows are written as JSON lines of chat messages, the form that hosted finetuning takes. Training itself
is a `trainer`'s work; without one the data is written, and the program is returned as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tracedsl.autotune import Budget
from tracedsl.cache import Store, digest, write_atomic
from tracedsl.diagnostics import warn
from tracedsl.programs.adapters.native import prompt_for
from tracedsl.programs.context import context, current_adapter, current_lm
from tracedsl.programs.example import Example
from tracedsl.programs.lm.base import LM
from tracedsl.programs.metrics import Metric
from tracedsl.programs.modules.module import Module
from tracedsl.programs.modules.predict import Predict
from tracedsl.programs.teleprompters.base import (
    CompileError,
    CompileReport,
    Configured,
    P,
    Progress,
    check_trainset,
    finish,
)
from tracedsl.programs.teleprompters.bootstrap import Bootstrapper, Passing, make_teacher
from tracedsl.programs.teleprompters.runs import Step
from tracedsl.programs.teleprompters.session import Session


class Trainer(Protocol):
    """Trains a model on rows of chat messages."""

    def train(self, lm: LM, data: Path, settings: Mapping[str, Any]) -> LM:
        """The trained model. `data` is a file of JSON lines."""


@dataclass(frozen=True)
class BootstrapFinetune(Configured):
    """`BootstrapFinetune(metric=exact_match, output_dir="data").compile(program, trainset=train, teacher=strong)`

    Args:
        metric: which runs of the teacher are training data; None: all that do not raise.
        multitask: one file for all predictors; False: one for each, and a model for each.
        train_kwargs: for the trainer.
        adapter: lays out prompts and answers; None: the one in force.
        exclude_demos: leave the demonstrations out of the prompts, also in the trained program.
        num_threads: runs at the same time.
        trainer: trains; None: the data is written and nothing is trained.
        output_dir: where the files go; None: the cache folder.
        budget: hard limits; `trials` are runs of the teacher.
        progress: told after each run.
    """

    metric: Metric | None = None
    multitask: bool = True
    train_kwargs: Mapping[str, Any] | None = None
    adapter: Any = None
    exclude_demos: bool = False
    num_threads: int | None = field(default=None, compare=False)
    trainer: Trainer | None = None
    output_dir: str | Path | None = field(default=None, compare=False)
    budget: Budget | None = None
    progress: Progress | None = field(default=None, compare=False)

    def compile(self, student: P, trainset: Sequence[Example], teacher: Module | Sequence[Module] | None = None,
                valset: Sequence[Example] | None = None) -> P:
        """A copy of `student` with the trained model. Each of several teachers adds its runs. Raises `CompileError`
        P008 if no run passes. `valset` is not used."""
        check_trainset(student, trainset)
        session = Session(student, self.metric, limits=self.budget, threads=self.num_threads, progress=self.progress)
        compiled, tried, rows = student.deepcopy(), 0, list[tuple[str, dict[str, Any]]]()
        teachers = [teacher or student] if isinstance(teacher, Module) or teacher is None else list(teacher)
        for one in teachers:
            boot = Bootstrapper(session, make_teacher(one, student, trainset, 0), trainset, Passing())
            passed = boot.collect(range(len(trainset)), len(trainset))
            boot.check()
            tried += boot.tried
            rows += [row for i in sorted(passed) for row in self._rows(compiled, boot.passed[i].steps)]
        if not rows:
            raise CompileError("P008", f"none of {tried} runs of the teacher passes: there is nothing to train on",
                               hint="a stronger teacher, a program that is compiled already, or another metric")
        files = self._write(rows)
        self._train(compiled, files)
        return finish(compiled, CompileReport(
            type(self).__name__, self.settings(), {name: len(p.demos) for name, p in compiled.named_predictors()},
            tried=tried, passed=len(rows), cost=session.cost(), paid=session.paid_trials,
            why="; ".join(f"{name or 'all predictors'}: {path}" for name, path in files.items())))

    def _rows(self, student: Module, steps: Sequence[Step]) -> list[tuple[str, dict[str, Any]]]:
        """The steps of a run as rows, with the predictor's name."""
        predictors = dict(student.named_predictors())
        return [(step.predictor, training_row(predictors[step.predictor], step, self.adapter, not self.exclude_demos))
                for step in steps if step.predictor in predictors]

    def _write(self, rows: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Path]:
        """One file, or one for each predictor: its name -> its path."""
        folder = Path(self.output_dir) if self.output_dir is not None else Store().root / "finetune"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = {}
        for name in [""] if self.multitask else list(dict.fromkeys(name for name, _ in rows)):
            lines = [json.dumps(row, ensure_ascii=False) for owner, row in rows if not name or owner == name]
            text = "\n".join(lines) + "\n"
            files[name] = folder / f"{digest(text)[:16]}.jsonl"
            write_atomic(files[name], text.encode())
        return files

    def _train(self, compiled: Module, files: Mapping[str, Path]) -> None:
        predictors = dict(compiled.named_predictors())
        if self.exclude_demos:
            for predictor in predictors.values():
                predictor.demos = []
        if self.trainer is None:
            warn("P110", "training data is written, and no model is trained", stacklevel=4,
                 why=f"BootstrapFinetune has no trainer; the data: {', '.join(map(str, files.values()))}",
                 hint="trainer=LoRA(...) trains here; or give the file to your endpoint, then program.set_lm(LM(...))")
            return
        for name, path in files.items():
            mine = predictors.values() if not name else [predictors[name]]
            model = next(iter(mine)).lm or current_lm()
            trained = self.trainer.train(model, path, self.train_kwargs or {})
            for predictor in mine:
                predictor.lm = trained


def training_row(predictor: Predict, step: Step, adapter: Any = None, demos: bool = True) -> dict[str, Any]:
    """A step as chat messages: the prompt that the predictor sends for its inputs, and the answer laid out by the
    adapter."""
    with context(adapter=adapter):
        lm = predictor.lm or current_lm()
        layout = current_adapter(lm)
        shown = [dict(demo.items()) for demo in predictor.demos] if demos else []
        inputs = predictor.signature.check_inputs(
            {k: v for k, v in step.inputs.items() if k in predictor.signature.input_fields})
        prompt, _ = prompt_for(layout, predictor.signature, shown, inputs, lm)
        with_answer, _ = prompt_for(layout, predictor.signature, [{**step.inputs, **step.outputs}], inputs, lm)
    messages = [*prompt, with_answer[-2]]       # a demonstration's answer stands before the last question
    return {"messages": [{"role": m.role, "content": m.text} for m in messages]}
