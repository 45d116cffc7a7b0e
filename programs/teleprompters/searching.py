"""What all teleprompters that score candidates share: the session, the end of a search, the report.

What holds here: a search that ends early (budget, Ctrl-C) gives the best that it has; one that has nothing yet passes
Ctrl-C on, and says of a budget that it was too small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracedsl.diagnostics import warn
from tracedsl.programs.metrics import Metric
from tracedsl.programs.modules.module import Module
from tracedsl.programs.teleprompters.base import CompileError, CompileReport, Configured, P, finish
from tracedsl.programs.teleprompters.candidates import Candidate, Part
from tracedsl.programs.teleprompters.race import Contest, Entry
from tracedsl.programs.teleprompters.session import SearchEnded, Session


class Searching(Configured):
    """Base of the dataclasses that search. They have `metric`, `budget`, `num_threads` and `progress`."""

    def open_session(self, student: Module) -> Session:
        """A session for this compilation. Raises `CompileError` P008 without a metric."""
        metric: Metric | None = getattr(self, "metric", None)
        if metric is None:
            raise CompileError("P008", f"{type(self).__name__} needs a metric to compare candidates",
                               hint=f"{type(self).__name__}(metric=exact_match)")
        return Session(student, metric, limits=getattr(self, "budget", None),
                       threads=getattr(self, "num_threads", None), progress=getattr(self, "progress", None))

    def conclude(self, contest: Contest[P], search: Callable[[], Entry[P]], **report: Any) -> P:
        """Run the search and make the best entry the compiled program. `report` are further fields of the report."""
        session, interrupted, stopped = contest.session, False, ""
        best: Entry[P] | None
        try:
            best = search()
        except SearchEnded as end:
            best, stopped = contest.best(), end.reason
        except KeyboardInterrupt:
            best, interrupted = contest.best(), True
            if best is None:
                raise
        if best is None:
            warn("P108", f"{type(self).__name__} changed nothing: its budget ({stopped}) is too small", stacklevel=3,
                 why=f"it was spent before a candidate was scored: {session.spent['trials']:.0f} metric calls",
                 hint="allow more, or give fewer examples")
        for entry in contest.entries:
            if entry.fate in ("", "best"):
                entry.fate = "best" if entry is best else "lower score" if entry.runs else "not scored"
        program = contest.student.deepcopy() if best is None else best.program
        counts = {name: len(p.demos) for name, p in program.named_predictors()}
        return finish(program, CompileReport(
            type(self).__name__, self.settings(), counts, failures=failures_of(session.errors),
            interrupted=interrupted, stopped=stopped, search=contest.rows(), cost=session.cost(),
            paid=session.paid_trials, score=None if best is None else best.row()["score"], **report))


def failures_of(errors: Sequence[Exception], most: int = 20) -> tuple[str, ...]:
    """The failures for a report: each text once, in a fixed order."""
    return tuple(sorted({f"{type(e).__name__}: {e}" for e in errors}))[:most]


def instructions_of(program: Module) -> dict[str, str]:
    """What each predictor is told now."""
    return {name: p.signature.instructions for name, p in program.named_predictors()}


def with_demos(name: str, demos: Any) -> Candidate:
    """A candidate that gives each predictor these demonstrations."""
    return Candidate(name, {predictor: Part(demos=tuple(d)) for predictor, d in demos.items()})
