"""One run of a program: which steps are under way, what has to be waited for, what other code can see.

What holds here:
- Steps are kept in program order. Before anything that other code could notice, `barrier` waits for all of them and
  raises the error that program order meets first.
- Handles are only in local variables, in tuples, and in containers that this run made and that nobody else has seen
  (`own`ed ones). Whatever leaves the run is finished first, deep inside containers, and from then on is not owned.
- A tuple with handles in it is finished to one and the same tuple each time.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import CodeType, FrameType, FunctionType
from typing import Any, Protocol

from tracedsl.capture.language.dependencies import constants_in, outer_values
from tracedsl.capture.language.handles import Call, Handle, Part, Snapshot, Step, step_of
from tracedsl.capture.language.model_calls import ModelCall
from tracedsl.capture.language.python_expressions import CallSite
from tracedsl.capture.language.python_rules import SCALARS
from tracedsl.capture.language.recording import Built, Known, Looked, Param, Recording, Ref, Value
from tracedsl.capture.language.sites import Sites
from tracedsl.diagnostics import Span

THREADS = 16
_OWNABLE = (list, dict, set)
_DEEPEST = 20
_LARGEST = 100


class Guide(Protocol):
    """What a plan says about the path that the run is on (`rewrite.language.plan.Walker`)."""

    def event(self, name: str) -> None:
        """The run came past this site, or this outcome of a look."""

    def direct(self, call: ModelCall, earlier: Sequence[ModelCall]) -> None:
        """Say how the call, whose event came last, is to be made: set what `ModelCall` lets a plan set."""


class RunCore:
    """Steps, barriers, finishing of values, recording."""

    def __init__(self, sites: Sites, source_sites: tuple[CallSite, ...], recording: Recording, guide: Guide, *,
                 overlap: bool = True) -> None:
        self.sites = sites
        self.source_sites = list(source_sites)               # those of helpers follow
        self.files = {place.span.file for place in source_sites[:1]}
        self.recording = recording
        self.guide = guide
        self.overlap = overlap
        self.model_calls: list[ModelCall] = []
        self.eager: dict[str, Span] = {}                     # code that called models by itself -> where
        self._pending: deque[Step] = deque()
        self._passed_over: list[Step] = []
        self._helpers_deep = 0
        self._depth = 0                                      # how many try and with blocks we are in
        self._failed = False
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()
        self._closed = False
        self._owned: dict[int, Any] = {}                     # id -> container (kept alive, so ids stay unique)
        self._tuples: dict[int, tuple[Any, Any]] = {}        # id -> tuple, the same tuple finished
        self._origins: dict[int, tuple[Any, Ref]] = {}       # id -> value, where it came from
        self._labels: dict[Any, int] = {}
        self._constants: dict[int, str] = {}                 # id -> text that is written in the source
        self._fixed: set[Any] = set()                        # (type, value) of other constants and defaults
        self._coded: set[CodeType] = set()
        for name, value in recording.params.items():
            self.remember(value, Param(name), always=type(value) not in (bool, type(None)))

    # -- steps ---------------------------------------------------------------------------------------------------

    @property
    def in_order(self) -> bool:
        """Whether each step has to be finished before the next one begins."""
        return self._depth > 0 or not self.overlap

    def add(self, step: Step) -> Handle:
        """Take a step into program order; it is under way, or finished, when this returns. Raises its error at once
        where exceptions may be caught."""
        if self._failed:
            self.barrier()
        self.recording.add(step)
        self._pending.append(step)
        if isinstance(step, Call):
            if self.in_order:
                step.settle_here()
            elif not step.deferred:
                step.start()
        elif step.idle and (self.in_order or not step.cannot_fail):
            for call in step.calls():
                call.start()
        if self.in_order:
            self.barrier()
        return Handle(step)

    def submit(self, work: Callable[[], None]) -> None:
        with self._pool_lock:
            if self._closed:
                return
            if self._pool is None:
                self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="tracedsl")
            self._pool.submit(work)

    def note_failure(self) -> None:
        self._failed = True

    def barrier(self) -> None:
        """Wait for all steps so far, in program order; raise the first error. Calls that the plan has dropped are not
        made, but wrong inputs are found."""
        while self._pending:
            step = self._pending[0]
            if step.idle:
                self._pass_over(step)
            else:
                step.settle()
            self._pending.popleft()
            if step.error is not None:
                self._pending.clear()
                self._failed = False
                raise step.error
            if isinstance(step, ModelCall) and step.done:
                step.report()

    def _pass_over(self, step: Step) -> None:
        self._passed_over.append(step)
        if not isinstance(step, ModelCall):
            return
        if any(inner.idle for inner in step.inputs()):
            return
        for inner in step.inputs():
            inner.settle()
        try:
            step.prepare()
        except Exception as error:  # noqa: BLE001 - kept, and raised by the barrier
            step.finish(None, error)

    def close(self) -> None:
        """Start nothing any more. Calls that are with a model end in the background; nobody waits for them."""
        with self._pool_lock:
            self._closed = True
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)

    def enter(self) -> None:
        """A block begins in which exceptions may be caught."""
        self.barrier()
        self._depth += 1

    def leave(self) -> None:
        self._depth -= 1

    # -- finishing values ----------------------------------------------------------------------------------------

    def force(self, handle: Handle) -> Any:
        """The value of a handle. If something failed, the error that program order meets first is raised."""
        step = step_of(handle)
        step.settle()
        if self._failed:
            self.barrier()
        if step.error is not None:
            raise step.error
        if self._passed_over:
            self._catch_up()
        return step.value

    def _catch_up(self) -> None:
        """Settle what was passed over and is needed now after all, before anybody can change what it was made of."""
        for late in [step for step in self._passed_over if not step.idle]:
            self._passed_over.remove(late)
            late.settle()
            if isinstance(late, ModelCall):
                late.report()

    def look(self, handle: Handle, kind: str, outcome: bool | int | None = None) -> Any:
        """Force a handle because Python looks at it."""
        value = self.force(handle)
        self.note_look(handle, kind, outcome)
        return value

    def note_look(self, value: Any, kind: str, outcome: bool | int | None) -> None:
        self.recording.add(Looked(self.ref(value), kind, outcome, self._here()))
        if outcome is not None:
            self.guide.event(f"{kind} {outcome}")

    def _here(self) -> Span | None:
        """The line of the program that is being run."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename not in self.files:
            frame = frame.f_back
        return Span(frame.f_code.co_filename, frame.f_lineno) if frame is not None else None

    def finish(self, value: Any, *, noted: bool = False) -> Any:
        """`value` without any handle in it. Owned containers are changed in place, tuples replaced by others. `noted`
        says that the recording knows already that the value is used."""
        return self._finish(value, self.force if noted else self._look_at, set())

    def _look_at(self, handle: Handle) -> Any:
        return self.look(handle, "value")

    def _finish(self, value: Any, force: Callable[[Handle], Any], busy: set[int]) -> Any:
        kind = type(value)
        if kind is Handle:
            return force(value)
        if kind is tuple:
            return self._finish_tuple(value, force, busy)
        if kind in (list, dict) and id(value) in self._owned and id(value) not in busy:
            busy.add(id(value))
            for key, inner in list(enumerate(value) if kind is list else value.items()):
                done = self._finish(inner, force, busy)
                if done is not inner:
                    value[key] = done
        return value

    def _finish_tuple(self, value: tuple[Any, ...], force: Callable[[Handle], Any], busy: set[int]) -> Any:
        if id(value) in self._tuples:
            return self._tuples[id(value)][1]
        items = [self._finish(inner, force, busy) for inner in value]
        if all(done is inner for done, inner in zip(items, value)):
            return value
        made = tuple(items)
        self._tuples[id(value)] = (value, made)
        return made

    def export(self, value: Any, *, noted: bool = False) -> Any:
        """`value`, finished, after everything before it; other code may see it from now on."""
        self.barrier()
        value = self.finish(value, noted=noted)
        self.disown(value)
        return value

    def own(self, value: Any) -> Any:
        """A container that was made just now, by the program."""
        if type(value) in _OWNABLE:
            self._owned[id(value)] = value
        return value

    def owns(self, value: Any) -> bool:
        return id(value) in self._owned

    def disown(self, value: Any) -> None:
        if self._owned.pop(id(value), None) is not None or type(value) is tuple:
            for inner in value.values() if type(value) is dict else value:
                self.disown(inner)

    def snapshot(self, value: Any, depth: int = 0) -> Any:
        """`value` as it is now: containers that could still change or hold handles are copied."""
        kind, inner = type(value), depth + 1
        if depth > _DEEPEST:    # a container within itself, or nearly so: no copy, so nothing may be on its way in it
            return self.finish(value)
        if kind is tuple:
            items = [self.snapshot(item, inner) for item in value]
            same = all(new is old and type(new) is not Handle for new, old in zip(items, value))
            return value if same else Snapshot(tuple, items)
        if kind is list and self.owns(value):
            return Snapshot(list, [self.snapshot(item, inner) for item in value])
        if kind is dict and self.owns(value):
            return Snapshot(dict, [self.snapshot(item, inner) for item in value.values()], list(value))
        return set(value) if kind is set and self.owns(value) else value

    # -- recording -----------------------------------------------------------------------------------------------

    def span(self, number: int) -> Span:
        return self.source_sites[number].span

    def remember(self, value: Any, origin: Ref, *, always: bool = False) -> None:
        """Where a value came from. Small values, which are the same object everywhere, are remembered only if asked."""
        if always or type(value) not in SCALARS or (type(value) in (str, bytes) and len(value) > 8):
            self._origins[id(value)] = (value, origin)

    def note_constants(self, function: FunctionType, code: CodeType) -> None:
        """What the function's source says is known: its constants, its defaults, plain outer values. That a value is
        one of them is a guess (equal texts may be one object), good enough for advice that is checked."""
        if code in self._coded:
            return
        self._coded.add(code)
        values = [*constants_in(code), *(function.__defaults__ or ()),
                  *(function.__kwdefaults__ or {}).values(), *(value for _, value in outer_values(function))]
        for value in values:
            if type(value) is str:
                self._constants[id(value)] = value
            elif type(value) in (float, bool, type(None)):
                self._fixed.add((type(value), value))

    def ref(self, value: Any, depth: int = 0) -> Ref:
        """What to record in place of a value."""
        kind = type(value)
        if kind is Handle:
            return step_of(value)
        if id(value) in self._origins:
            return self._origins[id(value)][1]
        if (kind is str and id(value) in self._constants) or (kind in SCALARS and (kind, value) in self._fixed):
            return Known(value)
        if (kind is tuple or self.owns(value)) and kind is not set and len(value) < _LARGEST and depth < _DEEPEST:
            items = value.values() if kind is dict else value
            keys = tuple(map(repr, value)) if kind is dict else ()
            return Built(kind.__name__, tuple(self.ref(item, depth + 1) for item in items), keys)
        if kind in SCALARS:
            return Value(self._labels.setdefault((kind, value), len(self._labels)), kind.__name__)
        made = Value(self._labels.setdefault(id(value), len(self._labels)), kind.__name__)
        self._origins[id(value)] = (value, made)
        return made

    def refs(self, site: CallSite | None, values: Mapping[str, Any]) -> dict[str, Ref]:
        """References for keyword arguments; those written as constants in the source are known."""
        literals = site.literals if site is not None else frozenset()
        return {name: Known(value) if name in literals and type(value) in SCALARS else self.ref(value)
                for name, value in values.items()}

    def template_refs(self, parts: tuple[Part, ...]) -> tuple[tuple[tuple[str, ...], ...], tuple[Ref, ...]]:
        """The parts of an f-string as the op `py.template` has them, and what fills its holes."""
        texts, refs = list[tuple[str, ...]](), list[Ref]()
        for part in parts:
            if not part.hole:
                texts.append(("text", part.text))
                continue
            texts.append(("hole", part.conversion, part.spec))
            refs.append(self.ref(part.value if part.handle is None else part.handle))
        return tuple(texts), tuple(refs)

    # -- the whole run -------------------------------------------------------------------------------------------

    def drive(self, function: Callable[[], Any]) -> Any:
        """Call the rewritten function; returns its finished result, or raises what program order meets first."""
        try:
            error = None
            try:
                result = function()
                self.recording.result = self.ref(result)
                return self.export(result, noted=True)
            except Exception as raised:  # noqa: BLE001 - raised again below, unless an earlier step failed
                self.recording.complete = False
                error = raised
            self._raise_first(error)
        finally:
            self.close()

    def _raise_first(self, error: Exception) -> None:
        try:
            self.barrier()
        except Exception as earlier:
            earlier.__context__ = None
            raise
        raise error
