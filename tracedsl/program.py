"""@program: a plain Python function that calls language models, compiled in five stages.

    capture   the function's operations go through a run: model calls go out at once     capture.language.run
    graph     what a run did, one node a step                                            capture.language.recording
    rewrite   passes fold, share and drop calls; what they decide is a plan, checked     rewrite.language
    tune      a teleprompter's candidate against the uncompiled program, held-out        program_tuning
    compile   the better one and the plan: one JSON entry under a key that explains      cache

What holds here: the decorated function gives what the plain one gives, raises what it raises, and effects keep their
order. What cannot be captured runs as plain Python, and `explain()` says why. Nothing is installed that scored lower.
"""

from __future__ import annotations

import functools
import inspect
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import fields, replace
from pathlib import Path
from types import FunctionType, MappingProxyType, MethodType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import tracedsl
from tracedsl.autotune import Outcome
from tracedsl.cache import Entry, Key, Store, digest
from tracedsl.capture.language.dependencies import helpers_digest, source_digest
from tracedsl.capture.language.model_calls import PURE_MARK, ModelCall
from tracedsl.capture.language.python_rewrite import Rewritten, bind, rewrite_function
from tracedsl.capture.language.recording import Recording
from tracedsl.capture.language.run import Run
from tracedsl.capture.language.sites import Sites
from tracedsl.capture.source import read_source
from tracedsl.diagnostics import TracedslError, Unsupported, nearest, warn
from tracedsl.program_background import Background
from tracedsl.program_options import Options, SiteCost, Status, When
from tracedsl.program_report import explain, show
from tracedsl.program_tuning import (
    DEFAULT_BUDGET,
    Data,
    Tuning,
    data_digest,
    estimated,
    fitting,
    metered,
    progress_display,
    score_text,
    visit_sites,
)
from tracedsl.programs.context import context, current_adapter, current_lm
from tracedsl.programs.lm.accounts import BudgetExceeded
from tracedsl.programs.lm.base import LMError
from tracedsl.programs.lm.interception import tracing_by_itself
from tracedsl.programs.lm.rehearsal import current_rehearsal
from tracedsl.programs.modules.module import Module
from tracedsl.programs.modules.predict import Predict
from tracedsl.programs.teleprompters.artefacts import ARTEFACT
from tracedsl.rewrite.language import LANGUAGE_PASSES
from tracedsl.rewrite.language.plan import Plan, RecordedAnswer, make_path

if TYPE_CHECKING:
    from tracedsl.autotune import Budget
    from tracedsl.programs.adapters.base import Adapter
    from tracedsl.programs.example import Example
    from tracedsl.programs.lm.base import LM
    from tracedsl.programs.teleprompters.base import Teleprompter
    from tracedsl.programs.teleprompters.estimate import CompilationEstimate

FORMAT = 1
F = TypeVar("F", bound=Callable[..., Any])

# While a copy of a program runs for a teleprompter, calls of the program itself (recursion) go to that copy.
_stand_ins: ContextVar[Mapping[object, Program]] = ContextVar("tracedsl_stand_ins", default=MappingProxyType({}))


class Program(Module):
    """A function that `@program` decorated. It is a `Module`: its predictors are those of its call sites."""

    overlaps_its_calls = True
    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]

    def __init__(self, function: Callable[..., Any], options: Options) -> None:
        options.check()
        functools.update_wrapper(self, function)
        self._function = function
        self._options = options
        self._store = options.store if isinstance(options.store, Store) else Store(options.store)
        self._sites = Sites(function.__qualname__.replace("<locals>.", ""))
        self._plan = Plan()
        self._status = Status()
        self._student = False                       # a copy that a teleprompter works on: never compiles itself
        self._root = object()                       # the same for all copies
        self._ready_for: tuple[str, str] | None = None
        self._lock = threading.RLock()
        if options.strict:
            _ = self._captured

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._student and (stand_in := _stand_ins.get().get(self._root)) is not None:
            return stand_in(*args, **kwargs)
        if inspect.iscoroutinefunction(self._function):
            return self._run_async(args, kwargs)
        with self._settings():
            if self._student:
                return self._run_as_student(args, kwargs)
            if current_rehearsal() is not None:
                return self._function(*args, **kwargs)
            self._make_ready()
            return self._run(args, kwargs)

    async def _run_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An async function runs as plain Python; its calls of clients are traced."""
        with self._settings():
            self._make_ready()
            return await self._function(*args, **kwargs)

    def _run_as_student(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        token = _stand_ins.set({**_stand_ins.get(), self._root: self})
        try:
            return self._run(args, kwargs)
        finally:
            _stand_ins.reset(token)

    forward = __call__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    # -- 1. capture ----------------------------------------------------------------------------------------------

    @functools.cached_property
    def _captured(self) -> Rewritten | Unsupported:
        """The rewritten function, or why there is none."""
        try:
            if not isinstance(self._function, FunctionType):
                raise Unsupported("P101", f"{self.__name__!r} is not a Python function",
                                  hint="put @program on a plain `def`, below other decorators")
            return rewrite_function(self._function, read_source(self._function))
        except Unsupported as reason:
            if self._options.strict:
                raise
            warn(reason.code, f"{self.__name__!r} runs as plain Python: {reason.diagnostic.what}", stacklevel=6,
                 why=reason.diagnostic.why, hint="strict=True makes this an error", span=reason.diagnostic.span)
            return reason

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One run, overlapped and recorded; as plain Python if the function could not be captured."""
        captured = self._captured
        if isinstance(captured, Unsupported) or not isinstance(self._function, FunctionType):
            return self._function(*args, **kwargs)
        recording = Recording(self.__name__, self._parameters(args, kwargs))
        run = Run(self._sites, captured.sites, recording, self._plan.walk(), overlap=not self._student)
        run.note_constants(self._function, captured.code)
        result = run.drive(functools.partial(bind(captured.code, self._function, run), *args, **kwargs))
        self._count(run)
        self._learn_path(recording)
        return result

    def _parameters(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        try:
            return inspect.signature(self._function).bind(*args, **kwargs).arguments
        except TypeError:
            return {}       # the call itself raises it, in Python's words

    def _count(self, run: Run) -> None:
        with self._lock:
            self._status.runs += 1
            self._status.eager.update({name: str(span) for name, span in run.eager.items()})
            for call in run.model_calls:
                self._status.calls[call.how if call.done else "dropped"] += 1
                self._status.sites.setdefault(call.site, SiteCost()).add(call)

    # -- 2. graph, 3. rewrite ------------------------------------------------------------------------------------

    def _learn_path(self, recording: Recording) -> None:
        """A path that is not in the plan yet: make its graph, run the passes, keep what they decide."""
        with self._lock:
            self._status.last = recording
            path = recording.path()
            if self._student or not recording.complete or self._plan.full or self._plan.knows(path):
                return
            try:
                graph = recording.graph()
            except (TypeError, ValueError) as error:    # advice is lost, and nothing else
                self._status.notes.append(f"a run was not recorded: {error}")
                return
            made = make_path(path, graph, [_recorded(call) for call in recording.calls()], LANGUAGE_PASSES,
                             self._options.disable)
            self._plan = self._plan.with_path(made)
            if made.saved():
                self._keep()

    # -- 4. tune -------------------------------------------------------------------------------------------------

    def _tune(self, key: Key) -> None:
        """Find the call sites, let the teleprompter work, score both candidates, take over the better one."""
        data, student, tuning = self._tuning(key.digest)
        with progress_display(f"compiling {self.__name__}", self._options.verbose) as tell, metered(tuning.budget):
            try:
                visited = visit_sites(student, data, tell)
                self._sites = student._sites.copy()
                outcome = replace(tuning, visited=visited).run(tell)
            except BudgetExceeded as error:
                outcome = Outcome(None, (), error.limit)
        self._install(outcome, data)

    def _tuning(self, task: str) -> tuple[Data, Program, Tuning]:
        """The data, a student, and the search that works on it."""
        o, student = self._options, self._copy()
        student._options = replace(o, lm=None, adapter=None)    # they are in force already
        assert o.metric is not None
        data = fitting(self._function, o)
        return data, student, Tuning(student, data, o.metric, o.teleprompter, task, self._store,
                                     o.budget or DEFAULT_BUDGET, o.num_threads)

    def estimate(self) -> CompilationEstimate:
        """What compiling would use, from a dry run: no model is asked. Raises `TracedslError` P104 without a
        teleprompter."""
        if self._options.teleprompter is None:
            raise TracedslError("P104", f"{self.__name__!r} has no teleprompter, so there is nothing to compile",
                                hint="@program(trainset=..., metric=..., teleprompter=...)")
        with self._settings():
            data, student, tuning = self._tuning("")
            return estimated(student, data, tuning)

    def _install(self, outcome: Outcome, data: Data) -> None:
        """Take over the better candidate."""
        scores = {str(t.point["candidate"]): score_text(t.measurement) for t in outcome.trials}
        self._status.scores, self._status.held_out, self._status.installed = scores, data.how, "uncompiled"
        self._status.report = next((t.measurement.notes["report"] for t in outcome.trials
                                    if t.measurement.notes.get("report")), {})
        if outcome.stopped == "interrupted":
            warn("P107", f"compiling {self.__name__!r} was interrupted", hint="call it again to go on: what was "
                 "measured is recorded, and answers are cached")
            raise KeyboardInterrupt
        if outcome.best is not None and outcome.best.point["candidate"] == "compiled":
            self._sites.load(outcome.best.measurement.notes["sites"])
            self._status.installed = "compiled"
        elif outcome.stopped == "done":
            warn("P105", f"the compiled {self.__name__!r} is not installed: it is not better than the uncompiled one",
                 why="; ".join([f"{name}: {text}" for name, text in scores.items()] + [
                     f"the search ended at its budget ({end})" for end in [self._status.report.get("stopped")] if end]),
                 hint="more training examples, another teleprompter, or another metric")
        else:
            self._status.notes.append(f"the budget ({outcome.stopped}) was spent before both candidates were scored")

    # -- 5. compile ----------------------------------------------------------------------------------------------

    def compile(self) -> Self:
        """Do now what the first call would do. Raises `TracedslError` P104 for data or a metric that do not fit."""
        with self._settings():
            self._make_ready()
        return self

    def _make_ready(self) -> None:
        """Load the artefact for the model in force, or make it; only one process makes it."""
        wanted = self._model()
        if self._ready_for in (wanted, ("saved", "")):
            return
        if self._options.compile == "background" and self._background.busy(wanted):
            return
        with self._lock:
            if self._ready_for == wanted:
                return
            key = self._key(wanted)
            if not self._load(key):
                changed = self._store.why(key)
                with self._store.lock(key):
                    if not self._load(key):
                        self._sites, self._plan = Sites(self._sites.prefix), Plan()
                        if isinstance(self._captured, Unsupported):
                            self._status.notes.append("nothing is compiled: the program runs as plain Python")
                        elif self._options.teleprompter is not None:
                            self._tune(key)
                        self._status.origin = f"made now; {changed}"
                        self._ready_for = wanted
                        if self._status.scores:
                            self._keep()
            self._ready_for = wanted

    def _model(self) -> tuple[str, str]:
        """The model and the adapter in force, by name."""
        if self._options.teleprompter is None and self._options.lm is None:
            try:
                lm = current_lm()
            except LMError:
                return ("none", "")     # a program that may never call one
        else:
            lm = current_lm()
        return (f"{lm.identity} {json.dumps(lm.dump_state(), sort_keys=True, default=repr)}", current_adapter(lm).name)

    def _key(self, model: tuple[str, str]) -> Key:
        o = self._options
        parts = {"source": source_digest(self._function), "model": model[0], "adapter": model[1],
                 "helpers": helpers_digest(self._function) if isinstance(self._function, FunctionType) else "",
                 "tracedsl": f"{tracedsl.__version__} {FORMAT}", "passes off": ", ".join(sorted(o.disable))}
        if o.teleprompter is not None:
            parts |= {"trainset": data_digest(o.trainset), "valset": data_digest(o.valset),
                      "metric": source_digest(o.metric) if o.metric is not None else "",
                      "teleprompter": json.dumps(o.teleprompter.settings(), sort_keys=True, default=repr),
                      "budget": repr(o.budget or DEFAULT_BUDGET)}
        return Key("program", f"{self._function.__module__}:{self._function.__qualname__}", parts)

    def _load(self, key: Key) -> bool:
        """Take over a stored artefact; False if there is none that can be used."""
        entry = self._store.get(key)
        if entry is None:
            return False
        try:
            self._take_over(entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            warn("P106", f"the stored form of {self.__name__!r} is not used: {error}", hint="it is made anew")
            return False
        return True

    def _take_over(self, entry: Entry) -> None:
        meta = entry.meta
        sites, plan = Sites(self._sites.prefix), Plan.from_json(meta["plan"])
        sites.load(meta["sites"])
        status = meta["status"]
        self._sites, self._plan = sites, plan
        self._status.scores, self._status.held_out = dict(status["scores"]), str(status["held_out"])
        self._status.installed, self._status.report = str(status["installed"]), dict(status.get("report", {}))
        self._status.origin, self._status.cached = f"loaded from the cache (entry {entry.key.digest[:12]})", True

    def _keep(self) -> None:
        """Store what is learned and planned, as one JSON entry."""
        if self._ready_for is None or self._ready_for[0] == "saved":
            return
        s = self._status
        self._store.put(self._key(self._ready_for), meta={
            "sites": self._sites.dump(), "plan": self._plan.to_json(), "model": self._ready_for[0],
            "status": {"scores": dict(s.scores), "held_out": s.held_out, "installed": s.installed,
                       "report": dict(s.report)}})

    @functools.cached_property
    def _background(self) -> Background:
        return Background(self)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a compilation in the background, `timeout` seconds at most; True if none is under way any more."""
        return self._background.wait(timeout)

    def artefact(self) -> dict[str, Any]:
        """What is installed, as JSON data: instructions and demonstrations by call site, scores, and how they were
        found. `tracedsl diff` shows what differs between two."""
        s = self._status
        return {"format": ARTEFACT, "program": f"{self.__module__}:{self.__qualname__}", "sites": self._sites.dump(),
                "scores": dict(s.scores), "held_out": s.held_out, "installed": s.installed, "report": dict(s.report)}

    # -- as a module: what teleprompters need ------------------------------------------------------------------------

    def named_parameters(self) -> list[tuple[str, Any]]:
        return list(self._sites.named_predictors())

    def map_named_predictors(self, function: Callable[[Predict], Predict]) -> Self:
        for name, predictor in self.named_predictors():
            self._sites.replace(name, function(predictor))
        return self

    def deepcopy(self) -> Self:
        """A copy that shares nothing that can be learned. It never compiles itself, and runs its calls one after the
        other, so that what a teleprompter sees does not depend on threads."""
        return self._copy()

    def _copy(self) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._sites, made._status, made._plan = self._sites.copy(), Status(), Plan()
        made._student, made._lock = True, threading.RLock()
        made.__dict__.pop("_background", None)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._copy()

    def reset_copy(self) -> Self:
        made = self._copy()
        for predictor in made.predictors():
            predictor.reset()
        return made

    def code_identity(self) -> str:
        """A digest of the function and its helpers: under which a teleprompter's runs are kept."""
        helpers = helpers_digest(self._function) if isinstance(self._function, FunctionType) else ""
        return digest(source_digest(self._function), helpers)

    def dump_state(self) -> dict[str, Any]:
        """What is learned, by call site; also for sites that this process has not met yet."""
        return {"sites": self._sites.dump()}

    def load_state(self, state: Mapping[str, Any]) -> Self:
        """Take over what was learned; from then on nothing is compiled. Raises `SavedProgramError` P007."""
        self._sites.load(list(state.get("sites", ({},))))
        self._ready_for, self._status.origin = ("saved", ""), "taken from a saved program"
        return self

    # -- for people ----------------------------------------------------------------------------------------------

    @property
    def uncompiled(self) -> Program:
        """The program without anything learned, for comparison."""
        made = self._copy()
        made._sites = Sites(self._sites.prefix)
        return made

    @property
    def from_cache(self) -> bool:
        """Whether what is installed was compiled by an earlier process rather than by this one."""
        return self._status.cached

    def explain(self) -> str:
        """What the five stages did, and why."""
        return explain(self)

    def show(self, what: str = "graph") -> str:
        """The text of "graph", "plan", "sites" (what the calls of each cost), "prompts" or "source"."""
        return show(self, what)

    def export_messages(self, **inputs: Any) -> list[dict[str, Any]]:
        """The messages that each call sends for these inputs, in program order. Runs the program."""
        with self._lock:
            self(**inputs)
            calls = self._status.last.calls() if self._status.last is not None else []
            return [{"site": call.site, "messages": [m._asdict() for m in call.prepared.request.messages]}
                    for call in calls if call.prepared is not None]

    @contextmanager
    def _settings(self) -> Iterator[None]:
        o = self._options
        chosen = nullcontext() if o.lm is None and o.adapter is None else context(lm=o.lm, adapter=o.adapter)
        with chosen, tracing_by_itself(None if o.store is None else self._store):
            yield

    def __repr__(self) -> str:
        return f"<program {self.__module__}.{self.__qualname__}>"


def _recorded(call: ModelCall) -> RecordedAnswer:
    if call.prepared is None or not call.deterministic:
        return RecordedAnswer(f"sampled {id(call)}", {})
    return RecordedAnswer(call.prepared.key, {name: {"texts": list(r.texts), "finish_reason": r.finish_reason}
                                              for name, r in call.answers.items()})


@overload
def program(function: F, /) -> Program: ...


@overload
def program(*, trainset: Sequence[Example] | None = None, metric: Callable[..., Any] | None = None,
            teleprompter: Teleprompter | None = None, valset: Sequence[Example] | None = None, lm: LM | None = None,
            adapter: Adapter | None = None, budget: Budget | None = None, store: Store | str | Path | None = None,
            strict: bool = False, disable: Sequence[str] = (), verbose: bool = False, compile: When = "call",
            num_threads: int | None = None) -> Callable[[Callable[..., Any]], Program]: ...


def program(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Compile a function that calls language models.

    Args:
        trainset: examples whose inputs are the function's arguments.
        metric: `(example, result)` or `(example, result, trace)` to a number; 1 is perfect.
        teleprompter: compiles on the first call. Without one: capture, rewrites and overlap only.
        valset: examples for the scores; without it about a third of the trainset is held back.
        lm, adapter: model and adapter for this program; without them those in force.
        budget: hard limits of the compilation (`tracedsl.autotune.Budget`; `trials` are metric calls); without it
            10,000 model calls.
        store: where artefacts are kept, a `Store` or a folder; without it the user's cache folder.
        strict: an error (`Unsupported`), not plain Python, for what cannot be captured.
        disable: names of passes to leave out.
        verbose: tell progress also where there is no terminal.
        compile: "call": the first call compiles and then answers; "background": it answers uncompiled, and a thread
            compiles meanwhile (`wait()` waits for it).
        num_threads: examples that are scored at the same time.

    Raises `TracedslError` P103 or P104 for options that do not fit together.
    """
    known = {f.name for f in fields(Options)}
    for name in options:
        if name not in known:
            raise TracedslError("P103", f"@program has no option {name!r}", hint=nearest(name, known))
    made = Options(**options)
    return Program(function, made) if function is not None else lambda f: Program(f, made)


def pure(function: F) -> F:
    """Say that a function (or a module class) has no effects and depends on its arguments alone: it may run beside the
    program, and need not wait for earlier calls."""
    setattr(function, PURE_MARK, True)
    return function
