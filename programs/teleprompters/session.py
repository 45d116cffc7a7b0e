"""A session: the one place where a compilation runs programs, asks models and spends its budget.

What holds here:
- Equal runs are made once in a session and, through the records, once for all sessions.
- The budget is hard. `trials` counts runs that are scored; a run from the records counts as if it were made now, so
  that a search that goes on ends where it would have ended.
- What a caller gets depends on what it asks for, not on the number of threads: a batch is whole, or the search ends.
- Within a rehearsal nothing is paid or recorded: scores are invented with the mean of the recorded ones.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from tracedsl.autotune import Budget, Measurement
from tracedsl.autotune.space import key as key_of
from tracedsl.cache import digest
from tracedsl.programs.batch import SLOTS
from tracedsl.programs.context import current_lm
from tracedsl.programs.driving import as_done, drive
from tracedsl.programs.lm.accounts import BudgetExceeded, budget, track_usage
from tracedsl.programs.lm.base import LMError
from tracedsl.programs.lm.rehearsal import current_rehearsal
from tracedsl.programs.metrics import Metric, takes_predictor, verdict_of
from tracedsl.programs.modules.module import Module
from tracedsl.programs.modules.predict import Predict
from tracedsl.programs.teleprompters.base import CompileError, MetricError, Progress, metric_error
from tracedsl.programs.teleprompters.runs import (
    Job,
    Run,
    RunRecords,
    as_prediction,
    from_measurement,
    make_run,
    may_record,
    state_of,
    to_measurement,
)
from tracedsl.programs.types import to_json

_UNKNOWN = 0.5


class SearchEnded(Exception):
    """The budget is spent. `reason` names the limit."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Session:
    """Runs for one compilation.

    Args:
        student: whose code is compiled.
        metric: scores the runs; None: every run that does not raise is right.
        limits: `trials` (metric calls), `calls`, `tokens`, `money`, `seconds`.
        threads: runs at the same time.
        progress: told (metric calls so far, most there can be, a line).
    """

    def __init__(self, student: Module, metric: Metric | None, *, limits: Budget | None = None,
                 threads: int | None = None, progress: Progress | None = None) -> None:
        self.metric = metric
        self.limits = limits or Budget()
        self.spent = {"trials": 0.0, "calls": 0.0, "tokens": 0.0, "money": 0.0}
        self.paid_trials = 0
        self.planned = 0            # metric calls that the search expects in all; for the progress view alone
        self.note = ""              # what the search is doing
        self.records = RunRecords(student, metric)
        self.errors: list[Exception] = []
        self._threads = threads or SLOTS
        self._progress = progress
        self._started = time.monotonic()
        self._known: dict[str, Run] = {}
        self._told: dict[str, Mapping[str, Any] | None] = {}
        self._working = False       # whether any run ever succeeded

    # -- runs ----------------------------------------------------------------------------------------------------

    def runs(self, jobs: Sequence[Job]) -> list[Run]:
        """The runs, in the order of the jobs. Raises `SearchEnded` if the budget does not allow all of them, `LMError`
        if the model cannot be used, `CompileError` if the metric fails."""
        states: dict[int, str] = {}
        keys, todo = [], dict[str, tuple[Job, dict[str, Any]]]()
        for job in jobs:
            if id(job.program) not in states:
                states[id(job.program)] = state_of(job.program)
            point = self.records.point(job, states[id(job.program)])
            keys.append(key_of(point))
            if keys[-1] not in self._known:
                todo.setdefault(keys[-1], (job, point))
        if todo:
            self._check_room(len(todo))
            self._fill(todo)
        return [self._known[key] for key in keys]

    def scored(self, jobs: Sequence[Job]) -> list[Run]:
        """As `runs`, for scores: raises `MetricError` if the metric failed on one, `CompileError` if all runs failed.
        A program that fails on an example has the score 0 there."""
        runs = self.runs(jobs)
        for run in runs:
            self.check_metric(run)
        self._working = self._working or any(run.error is None for run in runs)
        if runs and not self._working:
            raise CompileError("P008", f"all {len(runs)} runs of the program failed", why=str(runs[0].error),
                               hint="run the program on one example of the trainset") from runs[0].error
        return runs

    def check_metric(self, run: Run) -> None:
        """Raise `MetricError` if the metric failed on a run."""
        if run.metric_failed and run.error is not None:
            if isinstance(run.error, MetricError) or self.metric is None:
                raise run.error
            raise metric_error(self.metric, run.example, as_prediction(run), run.error) from run.error

    def known(self, jobs: Sequence[Job]) -> list[Run | None]:
        """Those of the runs that were made already."""
        return [self._known.get(key_of(self.records.point(job, state_of(job.program)))) for job in jobs]

    def cost(self) -> dict[str, float]:
        """Metric calls and model calls, those from records and caches too."""
        return {"metric_calls": self.spent["trials"], "calls": self.spent["calls"]}

    @property
    def room(self) -> float:
        """How many more runs the budget allows, each with as many model calls as those so far."""
        room = self.limits.trials - self.spent["trials"]
        if math.isfinite(self.limits.calls) and self.spent["trials"]:
            each = max(1.0, self.spent["calls"] / self.spent["trials"])
            room = min(room, (self.limits.calls - self.spent["calls"]) // each)
        return max(0.0, room)

    def _check_room(self, wanted: int) -> None:
        if wanted > self.limits.trials - self.spent["trials"]:
            raise SearchEnded("trials")
        self._check_limits()

    def short_of(self) -> str:
        """The limit that leaves the least room."""
        trials = self.limits.trials - self.spent["trials"]
        return "trials" if trials <= self.room or not math.isfinite(self.limits.calls) else "calls"

    def _check_limits(self) -> None:
        if time.monotonic() - self._started >= self.limits.seconds:
            raise SearchEnded("seconds")
        for name in ("calls", "tokens", "money"):
            if self.spent[name] >= getattr(self.limits, name):
                raise SearchEnded(name)

    def _fill(self, todo: Mapping[str, tuple[Job, dict[str, Any]]]) -> None:
        """Make the runs that are not known yet, and keep each as it comes."""
        rehearsing = current_rehearsal() is not None
        missing: list[tuple[str, Job, dict[str, Any]]] = []
        for key, (job, point) in todo.items():
            kept = self.records.find(key) if may_record(job) else None
            if kept is None:
                missing.append((key, job, point))
            else:
                self._take(key, from_measurement(job.example, kept))
        self.paid_trials += len(missing)
        if missing:
            try:
                with self._metered():
                    drive(self._make(missing, rehearsing))
            except BudgetExceeded as error:
                raise SearchEnded(error.limit) from None
        for name in ("calls", "tokens", "money"):
            if self.spent[name] > getattr(self.limits, name):
                raise SearchEnded(name)

    async def _make(self, missing: Sequence[tuple[str, Job, dict[str, Any]]], rehearsing: bool) -> None:
        async def one(item: tuple[str, Job, dict[str, Any]]) -> Run:
            metric = None if rehearsing else self.metric
            return await make_run(item[1], metric)

        async with aclosing(as_done(one, missing, min(self._threads, len(missing)))) as outcomes:
            async for position, run, error in outcomes:
                if run is None:
                    raise error or AssertionError()
                key, job, point = missing[position]
                if rehearsing:
                    run = self._invented(run, key)
                elif run.error is None and may_record(job):
                    kept = to_measurement(run)
                    self.records.keep(point, kept)
                    run = from_measurement(job.example, Measurement.from_json(kept.to_json()))
                self._take(key, run)
                self.tell()

    def _take(self, key: str, run: Run) -> None:
        self._known[key] = run
        self.spent["trials"] += 1
        if run.error is not None:
            self.errors.append(run.error)
        self._pay(run.cost)

    def charge(self, spent: Mapping[str, float]) -> None:
        """Count what was spent for this session elsewhere."""
        self.spent = {name: value + spent.get(name, 0.0) for name, value in self.spent.items()}

    def _pay(self, cost: Mapping[str, float]) -> None:
        for name in ("calls", "tokens", "money"):
            self.spent[name] += cost.get(name, 0.0)

    def _metered(self) -> Any:
        """What is left of the budget, for the calls of one batch."""
        left = {name: getattr(self.limits, name) - self.spent[name] for name in ("calls", "tokens", "money")}
        seconds = self.limits.seconds - (time.monotonic() - self._started)
        return budget(usd=left["money"], tokens=left["tokens"], calls=left["calls"], seconds=seconds)

    def _invented(self, run: Run, key: str) -> Run:
        """A run of a rehearsal with a score: right as often as the recorded ones were."""
        mean = self.records.mean()
        right = random.Random(digest("rehearsed", key)).random() < (_UNKNOWN if mean is None else mean)
        return replace(run, score=float(right), error=None, metric_failed=False)

    # -- questions to a model ------------------------------------------------------------------------------------

    def ask(self, predictor: Predict, inputs: Mapping[str, Any], *, lm: Any = None, rollout: int = 0,
            temperature: float | None = None) -> Mapping[str, Any] | None:
        """What a predictor answers, as JSON data; None if the answer cannot be read. For proposals: paid once, kept,
        and counted in calls but not in trials."""
        config = dict(predictor.config)
        if rollout:
            config |= {"rollout_id": rollout, "temperature": 1.0 if temperature is None else temperature}
        model = lm or predictor.lm or current_lm()
        prepared = predictor.prepare(inputs, lm=model, config=config)
        point = {"ask": prepared.key}
        key = key_of(point)
        if key in self._told:
            return self._told[key]
        keeps = bool(getattr(model, "cache", True)) and current_rehearsal() is None
        kept = self.records.find(key) if keeps else None
        if kept is None:
            self._check_limits()
            kept = self._answered(predictor, prepared)
            if keeps:
                self.records.keep(point, kept)
        self._pay(kept.cost)
        self._told[key] = kept.notes.get("answer")
        self.tell()
        return self._told[key]

    def _answered(self, predictor: Predict, prepared: Any) -> Measurement:
        answer: dict[str, Any] | None = None
        try:
            with self._metered(), track_usage() as account:
                try:
                    answer = to_json(dict(predictor.execute(prepared).items()))
                except LMError as error:
                    if not error.concerns_one_request:
                        raise
                except ValueError:      # an answer that cannot be read costs this proposal alone
                    pass
        except BudgetExceeded as error:
            raise SearchEnded(error.limit) from None
        spent = account.spent
        cost = {"calls": float(spent.calls + spent.cached_calls), "tokens": float(spent.tokens), "money": spent.usd}
        return Measurement(None, cost=cost, notes={"answer": answer})

    def feedback(self, run: Run, predictor: str) -> str:
        """What the metric says in words, about one predictor if it can, else about the run."""
        if self.metric is None or not takes_predictor(self.metric) or current_rehearsal() is not None:
            return run.feedback
        trace = [(s.predictor, dict(s.inputs), dict(s.outputs)) for s in run.steps]
        mine = [step for step in trace if step[0] == predictor]
        return verdict_of(self.metric, run.example, as_prediction(run), trace, predictor, mine).feedback

    # -- progress ------------------------------------------------------------------------------------------------

    def tell(self, note: str = "") -> None:
        """Say how far it is."""
        self.note = note or self.note
        if self._progress is None:
            return
        done = int(self.spent["trials"])
        most = min(self.limits.trials, max(self.planned, done))
        cost = f"${self.spent['money']:.4f}" if self.spent["money"] else f"{self.spent['calls']:.0f} calls"
        line = f"{self.note}; {cost}{self._time_left(done, most)}" if self.note else cost + self._time_left(done, most)
        self._progress(done, int(most) if math.isfinite(most) else done, line)

    def _time_left(self, done: int, most: float) -> str:
        if not done or done >= most or not math.isfinite(most):
            return ""
        seconds = (time.monotonic() - self._started) / done * (most - done)
        return f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"
