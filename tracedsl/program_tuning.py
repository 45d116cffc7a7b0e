"""The tuning stage of programs: is the compiled program better than the uncompiled one, on examples it has not seen?

What holds here: the search is an ordinary `autotune.Study` over one parameter, `candidate`; its measurer compiles with
the teleprompter and scores with the metric, in a session as teleprompters use it. What was run and measured is in the
records and not paid for again; the learned state lies beside the measurement, so that a compilation that was killed
after it is not repeated either. A budget is always in force.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from tracedsl.autotune import Budget, Exhaustive, Measurement, Outcome, Parameter, Point, Records, Space, Study, Trial
from tracedsl.cache import Store, digest
from tracedsl.diagnostics import TracedslError, TracedslWarning, Unsupported
from tracedsl.programs.context import current_lm
from tracedsl.programs.evaluate import bootstrap_interval
from tracedsl.programs.lm.accounts import BudgetExceeded, budget, track_usage
from tracedsl.programs.lm.base import LMError, Usage
from tracedsl.programs.lm.rehearsal import rehearse
from tracedsl.programs.metrics import Verdict, metric_name, verdict_of
from tracedsl.programs.teleprompters.base import CompileError, MetricError, metric_error
from tracedsl.programs.teleprompters.estimate import CompilationEstimate
from tracedsl.programs.teleprompters.race import leave_out
from tracedsl.programs.teleprompters.runs import Job, Run, records_in
from tracedsl.programs.teleprompters.session import SearchEnded, Session

if TYPE_CHECKING:
    from tracedsl.program import Program
    from tracedsl.program_options import Options
    from tracedsl.programs.example import Example

SMALLEST_SPLIT = 4
CAPTURE_EXAMPLES = 8
DEFAULT_BUDGET = Budget(calls=10_000)       # where none is given


@dataclass(frozen=True)
class Data:
    """`train` for the teleprompter, `held` for the scores, and how they came about."""

    train: tuple[Example, ...]
    held: tuple[Example, ...]
    how: str


def split(trainset: Sequence[Example], valset: Sequence[Example] | None) -> Data:
    """Keep examples away from the teleprompter: the valset, else about a third of the trainset, chosen by the digest of
    each example, so that the same examples are chosen every time."""
    if valset is not None:
        return Data(tuple(trainset), tuple(valset), f"the valset ({len(valset)} examples)")
    if len(trainset) < SMALLEST_SPLIT:
        return Data(tuple(trainset), tuple(trainset),
                    f"the trainset itself ({len(trainset)} examples are too few to hold some back)")
    order = sorted(range(len(trainset)), key=lambda i: digest(repr(trainset[i].dump()), str(i)))
    held = set(order[:max(1, len(trainset) // 3)])
    return Data(tuple(e for i, e in enumerate(trainset) if i not in held),
                tuple(e for i, e in enumerate(trainset) if i in held),
                f"{len(held)} of the trainset's {len(trainset)} examples, held back from the teleprompter")


def fitting(function: Callable[..., Any], options: Options) -> Data:
    """The data, checked: the inputs of each example are arguments of the function. Raises `TracedslError` P104."""
    trainset = options.trainset or ()
    signature = inspect.signature(function)
    for name, examples in (("trainset", trainset), ("valset", options.valset or ())):
        for i, example in enumerate(examples):
            try:
                signature.bind(**example.inputs())
            except TypeError as error:
                raise TracedslError("P104", f"{name}[{i}] does not fit {function.__name__}{signature}", why=str(error),
                                    hint="the inputs of an example are the arguments of the function") from None
    return split(trainset, options.valset)


def visit_sites(student: Program, data: Data, tell: Callable[[str], None]) -> float:
    """Run the program on training inputs, so that its call sites are known; returns how many model calls that took,
    answered from a cache or not. Raises the first error if all runs fail, `TracedslError` P104 if there is no call
    site."""
    errors: list[Exception] = []
    examples = data.train[:CAPTURE_EXAMPLES]
    with track_usage() as account:
        for i, example in enumerate(examples):
            tell(f"capturing: {i + 1}/{len(examples)}")
            try:
                student(**example.inputs())
            except LMError as error:
                if not error.concerns_one_request:
                    raise
                errors.append(error)
            except Exception as error:  # noqa: BLE001 - users' code; the first one is raised if nothing works
                errors.append(error)
    if len(errors) == len(examples):
        raise errors[0]
    if not student.named_predictors():
        reason = student._captured
        why = reason.diagnostic.what if isinstance(reason, Unsupported) else "no model was called"
        raise TracedslError("P104", f"{student.__name__!r} has no call site to compile", why=why,
                            hint="call Predict or ChainOfThought in the decorated function itself")
    return float(account.spent.calls + account.spent.cached_calls)


def data_digest(examples: Sequence[Example] | None) -> str:
    """64 hex digits over all examples, in order."""
    if examples is None:
        return "none"
    return digest(*(json.dumps(example.dump(), sort_keys=True, default=repr) for example in examples))


@dataclass(frozen=True)
class Tuning:
    """All that a search needs. `task` identifies it in the records."""

    program: Program
    data: Data
    metric: Callable[..., Any]
    teleprompter: Any
    task: str
    store: Store
    budget: Budget
    threads: int | None = None
    visited: float = 0.0        # model calls that finding the call sites took

    def run(self, tell: Callable[[str], None]) -> Outcome:
        """Score both candidates. Raises `MetricError` P104 if the metric raises, `CompileError`, `LMError`."""
        space = Space((Parameter("candidate", ("uncompiled", "compiled")),), default={"candidate": "uncompiled"})
        session = Session(self.program, checked(self.metric), limits=self.budget, threads=self.threads,
                          progress=lambda done, most, line: tell(line))
        study = Study(space, Exhaustive(space), self._measurer(tell, session), self.task, goal="max",
                      budget=replace(self.budget, trials=math.inf),
                      records=Records(self.store.root / "records" / "programs.jsonl"))
        done: list[Trial] = []

        def on_trial(trial: Trial, best: Trial) -> None:
            done.append(trial)
            if trial.recorded:      # an earlier process scored it; the budget is what it would be in one
                session.charge(trial.measurement.notes.get("spent", {}))
            tell(f"{trial.point['candidate']}: {score_text(trial.measurement)}")

        try:
            with records_in(self.store):
                return study.run(on_trial)
        except SearchEnded as end:
            return Outcome(done[0] if done else None, tuple(done), end.reason)
        except BudgetExceeded as error:
            return Outcome(done[0] if done else None, tuple(done), error.limit)

    def _measurer(self, tell: Callable[[str], None], session: Session) -> Callable[[Point], Measurement]:
        def measure(point: Point) -> Measurement:
            started, before, spent = time.monotonic(), _usage(), dict(session.spent)
            student = self.program.reset_copy()
            notes: dict[str, Any] = {"held_out": self.data.how}
            if point["candidate"] == "compiled":
                student = self.compiled(student, tell, session)
                report = getattr(student, "compile_report", None)
                notes["report"] = None if report is None else report.to_json()
            runs = self._scored(student, str(point["candidate"]), session)
            scores = [100 * run.score for run in runs]
            notes |= {"interval": list(bootstrap_interval(scores)), "examples": len(scores),
                      "failures": sum(run.error is not None for run in runs), "sites": student.dump_state()["sites"],
                      "spent": {name: value - spent[name] for name, value in session.spent.items()}}
            cost = {"seconds": time.monotonic() - started, **_difference(before, _usage())}
            return Measurement(sum(scores) / len(scores), cost=cost, notes=notes)

        return measure

    def compiled(self, student: Program, tell: Callable[[str], None], session: Session | None = None) -> Program:
        """What the teleprompter makes of the student, within what is left of the budget."""
        teleprompter = self.teleprompter
        if hasattr(teleprompter, "with_metric"):
            teleprompter = teleprompter.with_metric(checked(self.metric))
        if is_dataclass(teleprompter) and getattr(teleprompter, "progress", self) is None:
            teleprompter = replace(teleprompter, progress=lambda done, total, line: tell(  # type: ignore[type-var]
                f"{type(self.teleprompter).__name__}: {done}/{total}, {line}"))
        if is_dataclass(teleprompter) and getattr(teleprompter, "budget", self) is None:
            teleprompter = replace(teleprompter, budget=self._left(session))  # type: ignore[type-var]
        try:
            compiled: Program = teleprompter.compile(student, trainset=list(self.data.train))
        except CompileError as error:
            if isinstance(error.__cause__, MetricError):
                raise error.__cause__ from None
            raise
        if type(compiled) is not type(student):
            raise TracedslError("P104", f"{type(self.teleprompter).__name__} makes a {type(compiled).__name__} of a "
                                "program, which cannot be installed in its place",
                                hint="call it by itself: teleprompter.compile(function, ...)")
        if getattr(getattr(compiled, "compile_report", None), "interrupted", False):
            raise KeyboardInterrupt
        return compiled

    def _left(self, session: Session | None) -> Budget:
        """What the teleprompter may use: so much that its result can be scored as well. Calls that were answered from
        records and caches count, so that it is the same when a compilation goes on."""
        if session is None:
            return Budget(trials=max(0.0, self.budget.trials - 2 * len(self.data.held)), calls=self.budget.calls)
        trials, calls = session.spent["trials"], session.spent["calls"]
        score = len(self.data.held)
        return Budget(trials=max(0.0, self.budget.trials - trials - score),
                      calls=max(0.0, self.budget.calls - self.visited - calls - calls / max(1.0, trials) * score))

    def _scored(self, student: Program, name: str, session: Session) -> list[Run]:
        """The student on the examples that were held back; one that it has as a demonstration is taken out of those."""
        session.planned = int(session.spent["trials"]) + len(self.data.held)
        session.tell(f"scoring {name}")
        return session.scored([Job(leave_out(student, example), example) for example in self.data.held])


def estimated(program: Program, data: Data, tuning: Tuning) -> CompilationEstimate:
    """What a compilation would use, from a dry run of all that it does: finding the call sites, the teleprompter, both
    scores. Nothing is asked and nothing is paid."""
    with rehearse() as rehearsal, warnings.catch_warnings(), records_in(tuning.store):
        warnings.simplefilter("ignore", TracedslWarning)
        visit_sites(program, data, lambda line: None)
        session = Session(program, None, threads=tuning.threads)
        session.runs([Job(program.reset_copy(), example) for example in data.held])
        compiled = tuning.compiled(program.reset_copy(), lambda line: None)
        session.runs([Job(leave_out(compiled, example), example) for example in data.held])
    report = getattr(compiled, "compile_report", None)
    searched = 0 if report is None else int(report.cost.get("metric_calls", 0))
    return CompilationEstimate(int(session.spent["trials"]) + searched, rehearsal.likely, rehearsal.most)


def checked(metric: Callable[..., Any]) -> Callable[..., Any]:
    """The metric, with its own failures told apart from those of the program."""

    @functools.wraps(metric)
    def score(*given: Any) -> Verdict:
        try:
            return verdict_of(metric, *given)
        except Exception as error:
            raise metric_error(metric, given[0], given[1], error) from error

    score.__qualname__ = metric_name(metric) or "metric"
    return score


def score_text(measurement: Measurement) -> str:
    """`62.5 % (95 %: 45.0 to 80.0; 24 examples)`"""
    if measurement.value is None:
        return f"failed: {measurement.error}"
    low, high = measurement.notes.get("interval", (measurement.value, measurement.value))
    examples = measurement.notes.get("examples", "?")
    return f"{measurement.value:.1f} % (95 %: {low:.1f} to {high:.1f}; {examples} examples)"


@contextmanager
def metered(limits: Budget) -> Iterator[None]:
    """Within this block the budget of a compilation holds for each call."""
    with budget(usd=limits.money, tokens=limits.tokens, calls=limits.calls, seconds=limits.seconds):
        yield


@contextmanager
def progress_display(title: str, verbose: bool) -> Iterator[Callable[[str], None]]:
    """Where progress is told: a live line on a terminal, plain lines if asked for, nowhere else."""
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(title) as status:
            yield lambda line: status.update(f"{title}: {line}")
    elif verbose:
        yield lambda line: print(f"{title}: {line}", file=sys.stderr)
    else:
        yield lambda line: None


def _usage() -> Usage | None:
    usage = getattr(current_lm(), "usage", None)
    return usage if isinstance(usage, Usage) else None


def _difference(before: Usage | None, after: Usage | None) -> Mapping[str, float]:
    if before is None or after is None:
        return {}
    return {"calls": float(after.calls - before.calls), "tokens": float(after.total_tokens - before.total_tokens)}
