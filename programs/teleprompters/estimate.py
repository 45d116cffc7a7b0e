"""A dry run of a compilation: what it would use, before anything is paid.

What holds here: the teleprompter itself runs, on its real path, within a rehearsal: no model is asked, answers are
invented from the types of the outputs, scores with the mean of the recorded ones (one half without any). What is on
record already costs nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tracedsl.diagnostics import TracedslWarning
from tracedsl.programs.example import Example
from tracedsl.programs.lm.accounts import Spent
from tracedsl.programs.lm.rehearsal import rehearse
from tracedsl.programs.modules.module import Module


@dataclass(frozen=True)
class CompilationEstimate:
    """`metric_calls`, and what the models would use: `likely` by rule of thumb, `most` what a budget would have to
    allow for the same calls."""

    metric_calls: int
    likely: Spent
    most: Spent

    def __str__(self) -> str:
        return f"about {self.metric_calls} metric calls, {self.likely}"


def estimate_compilation(teleprompter: Any, student: Module, *, trainset: Sequence[Example], **arguments: Any,
                         ) -> CompilationEstimate:
    """What `teleprompter.compile(student, trainset=trainset, ...)` would use."""
    with rehearse() as rehearsal, warnings.catch_warnings():
        warnings.simplefilter("ignore", TracedslWarning)
        compiled = teleprompter.compile(student, trainset=trainset, **arguments)
    report = getattr(compiled, "compile_report", None)
    cost = {} if report is None else report.cost
    return CompilationEstimate(int(cost.get("metric_calls", 0)), rehearsal.likely, rehearsal.most)
