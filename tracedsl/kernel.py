"""`@kernel`: an ordinary NumPy function, compiled for the arguments it is called with.

Read `_Compiler.build` for the five stages in order: capture -> graph -> rewrite -> tune -> compile.

What holds here: a decorated function returns what NumPy would return. A call looks up the variant for its arguments'
types; without one, the disk; without that, the stages run, once, whatever the number of threads and processes that ask.
What cannot be compiled runs in plain NumPy and says why (`explain()`; an error under `strict=True`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import update_wrapper
from pathlib import Path
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, overload

from tracedsl.cache import Key, Store, code_digest
from tracedsl.capture.source import read_source
from tracedsl.capture.tensor.arguments import Bound, Parameters, bind, key_text
from tracedsl.capture.tensor.environment import Environment, Snapshot
from tracedsl.diagnostics import TracedslError, Unsupported, warn
from tracedsl.hw.cpu.entry_type import WORDS_AT, natively_callable
from tracedsl.hw.target import Runnable, Target, target
from tracedsl.kernel_effort import Effort, checked_strategy
from tracedsl.kernel_procedure import NO_GRAPH, LeftToNumpy, Procedures, ProcedureVariant, check_unrolled
from tracedsl.kernel_variant import Variant, load_variant, make_variant, separate, store_variant

if TYPE_CHECKING:
    from tracedsl.capture.tensor.kernel import Captured
    from tracedsl.ir.loops import LoopProgram
    from tracedsl.kernel_entry import NativeCalls
    from tracedsl.kernel_session import TuningReport
    from tracedsl.kernel_tuning import Tuned, Tuner
    from tracedsl.rewrite.passes import Rewritten
    from tracedsl.rewrite.tensor.lower import TaskProgram
    from tracedsl.schedule import Schedule

MAX_VARIANTS = 64    # specialisations of one function; further shapes run in NumPy rather than compiling for ever


@dataclass(frozen=True)
class Options:
    """Settings of one kernel. `tune` is how much to tune on the first call (see `kernel_effort`; 0: take the schedules
    that are known without measuring); `disable` names passes to leave out."""

    target: str | Target = "cpu"
    strict: bool = False
    tune: int | str = 0
    disable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stages:
    """What the stages made of one function for one set of argument types."""

    captured: Captured
    rewritten: Rewritten
    tasks: TaskProgram
    schedules: tuple[Schedule, ...]
    loops: LoopProgram
    places: tuple[str, ...]
    seconds: Mapping[str, float]
    tuned: tuple[Tuned, ...] = ()


@dataclass
class _Clock:
    """How long each stage took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start


@dataclass(frozen=True)
class _Compiler:
    """The five stages, for one function."""

    function: FunctionType
    environment: Snapshot
    options: Options
    store: Store
    on: Target

    def stages(self, bound: Bound, tuner: Tuner | None = None) -> Stages:
        """Everything up to loop nests; with a `tuner`, schedules are searched for. Raises `Unsupported` if there is no
        way to compile this call."""
        # the stages are loaded here: a kernel that comes from disk needs none of them
        from tracedsl.capture.tensor.kernel import capture_kernel
        from tracedsl.rewrite.passes import run_passes
        from tracedsl.rewrite.tensor.lower import lower
        from tracedsl.rewrite.tensor.memory import loop_program
        from tracedsl.rewrite.tensor.passes import TENSOR_PASSES
        from tracedsl.schedule.planner import planner_of

        clock, planner = _Clock(), planner_of(self.on)
        with clock("capture"):
            captured = capture_kernel(self.function, bound, self.environment)
            check_unrolled(self.function, len(captured.graph.nodes))
        with clock("rewrite"):
            rewritten = run_passes(captured.graph, TENSOR_PASSES, disable=(*self.options.disable, *planner.disable))
            tasks = lower(rewritten.graph, apart=planner.apart, rework=planner.rework)
            planner.admit(tasks.tasks)
        with clock("tune"):
            schedules, tuned = self._schedules(tasks, tuner)
        with clock("loops"):
            nests = [planner.lower(task, schedule) for task, schedule in zip(tasks.tasks, schedules)]
        places = tuple(map(planner.where, tasks.tasks))
        return Stages(captured, rewritten, tasks, schedules, loop_program(tasks, nests),
                      places if any(places) else (), clock.seconds, tuned)

    def build(self, bound: Bound, key: Key) -> Variant:
        """All stages: a function and the types of its arguments in, a variant out, kept on disk under `key`."""
        return self.finish(self.stages(bound), key)

    def finish(self, made: Stages, key: Key) -> Variant:
        """The last stage: machine code, and the variant around it."""
        start = time.perf_counter()
        artefact = self.on.compile(made.loops)
        seconds = {**made.seconds, "compile": time.perf_counter() - start}
        variant = make_variant(made, artefact, self.on, seconds)
        store_variant(self.store, key, variant, artefact)
        return variant

    def key(self, bound: Bound) -> Key:
        """What a compiled variant depends on, part by part."""
        arguments = key_text((bound.key, bound.aliases) if bound.aliases else bound.key)
        return Key("kernel", f"{self.function.__module__}:{self.function.__qualname__}",
                   {**self.parts(), "arguments": arguments})

    def parts(self) -> dict[str, str]:
        """What compiled code depends on beside the arguments."""
        return {
            "source": read_source(self.function).digest, "surroundings": key_text(self.environment.key),
            "target": f"{self.on.name} {self.on.fingerprint()}", "compiler": code_digest(Path(__file__).parent),
            "options": f"tune={self._effort_key()} disable={','.join(sorted(self.options.disable))}",
        }

    def _effort_key(self) -> int | str:
        """Tuning in the background starts from the code that is there without tuning, and replaces it."""
        return 0 if self.options.tune == "background" else self.options.tune

    def find_or_build(self, bound: Bound) -> Variant:
        key = self.key(bound)
        if (variant := load_variant(self.store, key, self.on)) is not None:
            return variant
        why = str(self.store.why(key))
        with self.store.lock(key):
            found = load_variant(self.store, key, self.on)     # another process may have made it meanwhile
            return found if found is not None else self._make(bound, key).because(why)

    def _make(self, bound: Bound, key: Key) -> Variant:
        """Build; tune first if that is asked for."""
        effort = Effort.of(self.options.tune)
        if effort is None or effort.background:
            return self.build(bound, key)
        from tracedsl.kernel_session import run_tuning

        return run_tuning(self, bound, effort)[0]

    def _schedules(self, tasks: TaskProgram, tuner: Tuner | None) -> tuple[tuple[Schedule, ...], tuple[Tuned, ...]]:
        from tracedsl.kernel_schedules import known_schedule

        if tuner is None:
            return tuple(known_schedule(task, self.on, self.store) for task in tasks.tasks), ()
        tuned = tuple(tuner.tune(tasks.tasks))
        return tuple(one.schedule for one in tuned), tuned


@natively_callable
class Kernel:
    """A decorated function. Call it like the function; `function` is the plain one."""

    def __init__(self, function: FunctionType, options: Options, store: Store | None = None) -> None:
        update_wrapper(self, function)
        self.function = function
        self.options = options
        self._store = store if store is not None else Store()
        self._parameters = Parameters.of(function)
        self._variants: dict[Any, Variant | Unsupported] = {}
        self._procedures = Procedures(function, self._parameters.names, self._store, strict=options.strict)
        self._lock = threading.RLock()
        self._environment = Environment(function)
        self._shown: Bound | None = None     # the types of the latest specialisation, without its arrays
        self._last_in_python: Variant | ProcedureVariant | Unsupported | None = None
        self._native: NativeCalls | None = None
        self._retired: list[NativeCalls] = []       # calls may still be inside their plans
        self._warned = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The way that can serve every call. Calls like an earlier one do not come here (`kernel_entry`)."""
        try:
            bound = bind(self._parameters, args, kwargs)
            snapshot = self._environment.snapshot()
            procedure = self._procedure(bound, snapshot)
            if procedure is not None:
                return self._run_procedure(procedure, bound, args, kwargs)
            known = len(self._variants)
            variant = self._last = self._variant(bound, snapshot)
            if isinstance(variant, Unsupported):
                if variant.code in NO_GRAPH and (procedure := self._procedure(bound, snapshot, anyway=True)):
                    return self._run_procedure(procedure, bound, args, kwargs)
                variant = self._last = self._procedures.refusal(bound, snapshot.key) or variant
            if isinstance(variant, Variant) and variant.interface.writes:
                bound = separate(bound, snapshot, [leaf for leaf, _ in variant.interface.writes])
                variant = self._last = self._variant(bound, snapshot)
            if isinstance(variant, Variant):
                result = variant(bound, snapshot)
                if known == len(self._variants) and not kwargs:
                    self._learn(variant, len(args), bound, snapshot)
                return result
        except Unsupported as error:
            variant = self._last = error
        self._fall_back(variant)
        return self.function(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> str:
        return self.function.__qualname__      # copied and pickled by name, as functions are

    def __repr__(self) -> str:
        return f"<kernel {self.function.__module__}.{self.function.__qualname__}>"

    def _learn(self, variant: Variant, given: int, bound: Bound, snapshot: Snapshot) -> None:
        """Let calls like this one be served natively from now on."""
        words = getattr(type(self), WORDS_AT, None)
        if words is None or variant.runnable.native is None:
            return
        with self._lock:
            if self._native is None:
                from tracedsl.kernel_entry import NativeCalls

                self._native = NativeCalls(self, Kernel.__call__, words)
            self._native.learn(self, variant, self._parameters, given, bound, snapshot)

    @property
    def _last(self) -> Variant | ProcedureVariant | Unsupported | None:
        """What served the last call."""
        plan = getattr(self, "_latest", 0)
        return self._native.variant(plan) if plan and self._native is not None else self._last_in_python

    @_last.setter
    def _last(self, served: Variant | ProcedureVariant | Unsupported) -> None:
        self._last_in_python = served
        self._latest = 0

    def tune(self, *args: Any, trials: float = 200, minutes: float = 10, strategy: str = "auto", seed: int = 0,
             progress: bool | None = None, **kwargs: Any) -> TuningReport:
        """Search for better schedules for these arguments, and use them from now on, in this process and in later ones.

        Args:
            trials: schedules to measure for each task, at most.
            minutes: of searching, at most.
            strategy: "auto", "model", "genetic", "annealing", "model-annealing", "coordinate", "random", "exhaustive".
            seed: of the search; the same seed asks the same questions.
            progress: show a live view (by default on a terminal).

        What was measured is on record and not measured again. Ctrl-C ends the search and keeps the best. Raises
        `Unsupported` if the function cannot be compiled, TracedslError T005 for limits or a strategy that there are
        not.
        """
        from tracedsl.kernel_session import run_tuning

        effort = Effort.limits(trials, minutes)
        bound, snapshot = bind(self._parameters, args, kwargs), self._environment.snapshot()
        checked_strategy(strategy)
        variant, report = run_tuning(self._compiler(snapshot), bound, effort, strategy, seed, progress)
        self._replace(bound, snapshot, variant)
        return report

    def _replace(self, bound: Bound, snapshot: Snapshot, variant: Variant) -> None:
        """Serve calls of these types by another variant from now on."""
        with self._lock:
            self._variants[(bound.key, snapshot.key, bound.aliases)] = variant
            if self._native is not None:
                self._native.forget(self)
                self._retired.append(self._native)
                self._native = None
            self._shown = replace(bound, leaves=())
            self._last = variant

    # -- what happened ------------------------------------------------------------------------------------------

    @property
    def compiled(self) -> bool:
        """Whether the last call ran as machine code."""
        return isinstance(self._last, Variant | ProcedureVariant)

    @property
    def runnable(self) -> Runnable | None:
        """The code that the last call ran, as the target loaded it; None if it ran in plain NumPy."""
        return self._last.runnable if isinstance(self._last, Variant) else None

    @property
    def from_cache(self) -> bool:
        """Whether the last call's machine code came from disk rather than being compiled in this process."""
        last = self._last
        return last.cached if isinstance(last, ProcedureVariant) else isinstance(last, Variant) and last.origin.cached

    def explain(self) -> str:
        """What was done for each set of argument types and why, as text."""
        from tracedsl.kernel_report import explain_kernel

        return explain_kernel(self.function, {**self._procedures.variants, **self._variants}, self._last)

    def show(self, what: str = "graph", *args: Any, **kwargs: Any) -> str:
        """A stage's text: "graph" (as captured), "rewritten", "tasks", "schedule", "hint" (the schedule as
        Python that can be pasted into the function), "loops", "llvm", "asm", "numba" (the loops as Python), "opencl";
        of a function with loops, "statements".

        For the given arguments, or for those of the last compiled call. Raises TracedslError (K002) for another
        word or without arguments to go by, and `Unsupported` if they cannot be compiled for.
        """
        from tracedsl.kernel_report import show_stage

        bound = bind(self._parameters, args, kwargs) if args or kwargs else None
        bound = bound or self._shown or self._procedures.shown
        if bound is None:
            raise TracedslError("K002", f"there is nothing of {self.function.__name__!r} to show yet",
                                hint="call it first, or pass arguments: show('loops', x, w)")
        snapshot = self._environment.snapshot()
        compiler = self._compiler(snapshot)
        if what == "statements" and (procedure := self._procedure(bound, snapshot)) is not None:
            return procedure.text
        return show_stage(what, compiler.stages(bound), compiler.on)

    # -- functions with loops -----------------------------------------------------------------------------------

    def _procedure(self, bound: Bound, snapshot: Snapshot, *, anyway: bool = False) -> ProcedureVariant | None:
        """The function as statements, if it has loops (or is no graph: `anyway`) and can be compiled so."""
        if self.options.target != "cpu":
            return None
        return self._procedures.find(bound, snapshot.key, lambda: self._compiler(snapshot).parts(), anyway=anyway)

    def _run_procedure(self, procedure: ProcedureVariant, bound: Bound, args: Sequence[Any],
                       kwargs: Mapping[str, Any]) -> Any:
        self._last = procedure
        try:
            return procedure(bound)
        except LeftToNumpy:
            self._last = self._procedures.left(procedure)
        return self.function(*args, **kwargs)

    # -- variants -----------------------------------------------------------------------------------------------

    def _variant(self, bound: Bound, snapshot: Snapshot) -> Variant | Unsupported:
        key = (bound.key, snapshot.key, bound.aliases)
        found = self._variants.get(key)
        if found is None:
            with self._lock:
                found = self._variants.get(key)
                if found is None:
                    found = self._variants[key] = self._specialise(bound, snapshot)
        return found

    def _specialise(self, bound: Bound, snapshot: Snapshot) -> Variant | Unsupported:
        if len(self._variants) >= MAX_VARIANTS:
            what = f"{self.function.__name__!r} was compiled for {MAX_VARIANTS} sets of types already"
            return Unsupported("K001", what, why="each new shape is compiled on its own",
                               hint="pass arrays of a few fixed shapes, or leave this function to NumPy")
        try:
            variant = self._compiler(snapshot).find_or_build(bound)
        except Unsupported as error:
            return error
        except TracedslError:
            raise
        except Exception as error:
            if self.options.strict:
                raise
            what = f"the compiler failed on {self.function.__name__!r}: {type(error).__name__}: {error}"
            return Unsupported("K003", what, why="this is a fault of tracedsl, not of the function",
                               hint="please report it, with what @kernel(strict=True) prints")
        self._shown = replace(bound, leaves=())
        if self.options.tune == "background":
            from tracedsl.kernel_session import tune_in_background

            typed = replace(bound, leaves=())
            tune_in_background(self._compiler(snapshot), typed, lambda better: self._replace(typed, snapshot, better))
        return variant

    def _compiler(self, snapshot: Snapshot) -> _Compiler:
        return _Compiler(self.function, snapshot, self.options, self._store, target(self.options.target))

    def _fall_back(self, why: Unsupported) -> None:
        if self.options.strict:
            raise why
        if not self._warned:
            self._warned = True
            d = why.diagnostic
            what = f"{self.function.__name__!r} runs in plain NumPy: {d.what}"
            warn(d.code, what, why=d.why, hint=d.hint, span=d.span, stacklevel=4)


@overload
def kernel(function: Callable[..., Any], /) -> Kernel: ...
@overload
def kernel(*, target: str | Target = ..., strict: bool = ..., tune: int | str = ..., disable: Sequence[str] = ...,
           store: Store | None = ...) -> Callable[[Callable[..., Any]], Kernel]: ...
def kernel(function: Callable[..., Any] | None = None, /, *, target: str | Target = "cpu", strict: bool = False,
           tune: int | str = 0, disable: Sequence[str] = (), store: Store | None = None) -> Any:
    """Compile a NumPy function on first call, for the types of the arguments it is called with.

    Args:
        target: what to compile for; `tracedsl targets` lists what there is. A `tracedsl.hw.target.Target` of your own
            may stand here, too (docs/targets.md).
        strict: raise `Unsupported`, with file, line and caret, instead of running in plain NumPy.
        tune: on the first call, how many schedules of each task to measure (`tune=100`) or how long (`tune="2min"`);
            "background": serve the default at once, and better code when it is found. 0 measures nothing.
        disable: names of rewrites to leave out.
        store: where compiled code is kept; the user's cache folder if not given.

    Raises TypeError for something that is not a plain Python function, TracedslError T005 for a `tune` that is not
    understood.
    """
    Effort.of(tune)
    options = Options(target, strict, tune, tuple(disable))

    def decorate(plain: Callable[..., Any]) -> Kernel:
        if isinstance(plain, Kernel):
            plain = plain.function
        if not isinstance(plain, FunctionType):
            raise TypeError(f"@kernel takes a plain Python function, not {plain!r}")
        return Kernel(plain, options, store)

    return decorate if function is None else decorate(function)
