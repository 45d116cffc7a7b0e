"""Runs: a program on one example, with its steps and its score, and the records that keep each one.

What holds here: a run is plain data. What comes from the records and what was made just now cannot be told apart, so a
search that was killed and goes on sees what it would have seen. A run is known by everything that decides it: the
program's code and learned state, the model, the adapter, the example, the metric, the rollout. Runs of a model with
`cache=False` stay in memory, and so do runs that failed.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from tracedsl.autotune import Measurement, Records
from tracedsl.cache import Store, digest
from tracedsl.programs.batch import call_program
from tracedsl.programs.context import context, current_adapter, current_lm, trace_calls
from tracedsl.programs.driving import current_io
from tracedsl.programs.example import Example, Prediction
from tracedsl.programs.lm.accounts import track_usage
from tracedsl.programs.lm.base import LMError
from tracedsl.programs.metrics import Metric, Verdict, metric_name, takes_trace, verdict_of
from tracedsl.programs.modules.module import Module
from tracedsl.programs.types import to_json


@dataclass(frozen=True)
class Step:
    """One call of a predictor within a run, as JSON data."""

    predictor: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]

    def demonstration(self) -> Example:
        """The step as a demonstration."""
        return Example(dict(self.inputs), **self.outputs, augmented=True)


@dataclass(frozen=True)
class Run:
    """What came of a program on an example. `prediction` is JSON data. One that failed has the score 0 and an `error`;
    `metric_failed` says that the program answered and the metric raised. `cost` counts calls (those that were answered
    from a cache too, so that it is the same every time), tokens and money."""

    example: Example
    score: float
    feedback: str = ""
    steps: tuple[Step, ...] = ()
    prediction: Any = None
    cost: Mapping[str, float] = field(default_factory=dict)
    error: Exception | None = None
    metric_failed: bool = False


@dataclass(frozen=True)
class Job:
    """A run that is wanted. `rollout` > 0 is another sample, at temperature `temperature`; `traced` hands the steps to
    the metric; `settings` are a model or an adapter for this run."""

    program: Module
    example: Example
    rollout: int = 0
    traced: bool = False
    temperature: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)


async def make_run(job: Job, metric: Metric | None) -> Run:
    """Run the program and ask the metric. Raises what concerns all runs: a model that is out of reach, a spent budget,
    Ctrl-C."""
    program = sampled(job.program, job.rollout, job.temperature)
    names = {id(p): name for name, p in program.named_predictors()}
    failed: Exception | None = None
    prediction, answered, verdict = None, False, Verdict(0.0)
    with context(**job.settings), track_usage() as account, trace_calls(alone=True) as steps:
        try:
            prediction = await call_program(program, dict(job.example.inputs().items()))
            trace, answered = list(steps), True
            verdict = Verdict(1.0) if metric is None else await current_io().call(
                verdict_of, metric, job.example, prediction, trace if job.traced else None)
        except Exception as error:
            if isinstance(error, LMError) and not error.concerns_one_request:
                raise
            failed = error
    spent = account.spent
    cost = {"calls": float(spent.calls + spent.cached_calls), "tokens": float(spent.tokens), "money": spent.usd}
    if failed is not None:
        return Run(job.example, 0.0, prediction=to_json(prediction), cost=cost, error=failed, metric_failed=answered)
    made = tuple(Step(names[id(s.predictor)], to_json(dict(s.inputs)), to_json(dict(s.prediction.items())))
                 for s in trace if id(s.predictor) in names)
    return Run(job.example, verdict.score, verdict.feedback, made, to_json(prediction), cost)


def sampled(program: Module, rollout: int, temperature: float) -> Module:
    """The program itself, or a copy whose calls are samples of their own."""
    if not rollout:
        return program
    copy = program.deepcopy()
    for predictor in copy.predictors():
        predictor.config = {**predictor.config, "temperature": temperature, "rollout_id": rollout}
    return copy


def as_prediction(run: Run) -> Any:
    """What a run answered, for a metric that is asked once more."""
    return Prediction(run.prediction) if isinstance(run.prediction, Mapping) else run.prediction


_store: ContextVar[Store | None] = ContextVar("tracedsl_run_records", default=None)


@contextmanager
def records_in(store: Store) -> Iterator[None]:
    """Within this block, runs are kept in this store rather than in the user's cache folder."""
    token = _store.set(store)
    try:
        yield
    finally:
        _store.reset(token)


class RunRecords:
    """The runs of one program's code under one metric, in a file of their own."""

    def __init__(self, program: Module, metric: Metric | None) -> None:
        self._scope = digest(code_identity(program), metric_identity(metric))
        self._records = Records((_store.get() or Store()).root / "records" / "runs" / f"{self._scope[:24]}.jsonl")
        self._metric = metric
        self._known: dict[str, Measurement] | None = None

    @property
    def scope(self) -> str:
        """A digest of code and metric."""
        return self._scope

    def point(self, job: Job, state: str) -> dict[str, Any]:
        """What identifies a run within the file."""
        with context(**job.settings):
            lm = current_lm()
            model = digest(lm.identity, json.dumps(lm.dump_state(), sort_keys=True, default=repr),
                           current_adapter(lm).name)
        traced = job.traced and self._metric is not None and takes_trace(self._metric)
        return {"program": state, "example": digest(json.dumps(job.example.dump(), sort_keys=True, default=repr)),
                "rollout": job.rollout, "temperature": job.temperature if job.rollout else None, "traced": traced,
                "model": model}

    def find(self, key: str) -> Measurement | None:
        """A run that an earlier process made."""
        if self._known is None:
            self._known = self._records.load(self._scope)
        return self._known.get(key)

    def keep(self, point: Mapping[str, Any], value: Measurement) -> None:
        self._records.append(self._scope, point, value)

    def mean(self) -> float | None:
        """The mean of all recorded scores, if there are some: a guess for runs to come."""
        self.find("")
        values = [m.value for m in (self._known or {}).values() if m.value is not None and "steps" in m.notes]
        return sum(values) / len(values) if values else None


def to_measurement(run: Run) -> Measurement:
    """A run as a record."""
    steps = [[s.predictor, dict(s.inputs), dict(s.outputs)] for s in run.steps]
    return Measurement(run.score, cost=run.cost,
                       notes={"feedback": run.feedback, "steps": steps, "prediction": run.prediction})


def from_measurement(example: Example, kept: Measurement) -> Run:
    """The run that a record tells of."""
    notes = kept.notes
    return Run(example, float(kept.value or 0.0), str(notes["feedback"]),
               tuple(Step(*row) for row in notes["steps"]), notes["prediction"], kept.cost)


def may_record(job: Job) -> bool:
    """Whether the model lets its answers be kept."""
    with context(**job.settings):
        return bool(getattr(current_lm(), "cache", True))


# -- identities ---------------------------------------------------------------------------------------------------


def state_of(program: Module) -> str:
    """A digest of all that is learned or set in a program's predictors."""
    rows = [json.dumps(program.dump_state(), sort_keys=True, default=repr)]
    for name, predictor in program.named_predictors():
        lm = predictor.lm.identity if predictor.lm is not None else ""
        rows += [name, predictor.signature.fingerprint, repr(sorted(predictor.config.items())), lm]
    return digest(*rows)


def code_identity(program: Module) -> str:
    """A digest of the code that a program runs: of the classes of all its modules, with their plain attributes."""
    given = getattr(program, "code_identity", None)
    if callable(given):
        return str(given())
    rows: list[str] = []
    _collect(program, rows, set())
    return digest(*rows)


def _collect(value: Any, rows: list[str], seen: set[int]) -> None:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Module):
        rows.append(_source(type(value)))
        for name, inner in sorted(value.__dict__.items()):
            if isinstance(inner, (str, int, float, bool)) and not name.startswith("_"):
                rows.append(f"{name}={inner!r}")
            _collect(inner, rows, seen)
    elif isinstance(value, Mapping):
        for inner in value.values():
            _collect(inner, rows, seen)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _collect(inner, rows, seen)


def metric_identity(metric: Metric | None) -> str:
    """A digest of a metric: its name, its code, the plain values it closes over."""
    if metric is None:
        return "none"
    metric = getattr(metric, "__wrapped__", metric)
    cells = [repr(c.cell_contents) for c in getattr(metric, "__closure__", None) or ()
             if _is_plain(c)]
    return digest(metric_name(metric) or "", _source(metric), repr(getattr(metric, "__defaults__", None)), *cells)


def _is_plain(cell: Any) -> bool:
    try:
        return isinstance(cell.cell_contents, (str, int, float, bool, tuple))
    except ValueError:      # not set yet
        return False


def _source(thing: Callable[..., Any]) -> str:
    """The text of a class or function; its byte code where there is no text; its settings if it is an object."""
    if not hasattr(thing, "__code__") and not isinstance(thing, type):
        shown = repr(thing)
        return f"{_source(type(thing))} {'' if ' at 0x' in shown else shown}"     # an address is no setting
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        code = getattr(thing, "__code__", None)
        if isinstance(code, CodeType):
            return digest(code.co_code, repr([c for c in code.co_consts if not isinstance(c, CodeType)]))
        return f"{thing.__module__}.{thing.__qualname__}"
