"""Which language model and which adapter are in force, and who listens to the calls that are made.

What holds here: `configure` sets the default of the process and may be called from any thread; `context` overrides it
for the code inside, in this thread or task alone. Work handed to other threads keeps its settings if it is started
through `contextvars.copy_context()`, as everything in this package is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tracedsl.programs.adapters.base import Adapter
    from tracedsl.programs.lm.base import LM, LMChunk

FALLBACK_MODEL = "local/smollm2-135m"


@dataclass(frozen=True)
class Settings:
    """What is in force; None means: not set here."""

    lm: LM | None = None
    adapter: Adapter | None = None
    rm: Any = None


class TraceStep(NamedTuple):
    """One call of a predictor: which one, what it was given, what it answered."""

    predictor: Any
    inputs: Mapping[str, Any]
    prediction: Any


class _Process:
    """The default of the process. Settings are immutable and replaced as a whole, so that readers need no lock."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.found: tuple[str, LM] | None = None
        self.lock = threading.Lock()


_process = _Process()
_override: ContextVar[Settings | None] = ContextVar("tracedsl_settings", default=None)
_listeners: ContextVar[tuple[list[TraceStep], ...]] = ContextVar("tracedsl_trace", default=())


def configure(*, lm: LM | None = None, adapter: Adapter | None = None, rm: Any = None) -> None:
    """Set the process's default model, adapter and retriever; what is not given stays as it is."""
    with _process.lock:
        old = _process.settings
        _process.settings = Settings(lm or old.lm, adapter or old.adapter, old.rm if rm is None else rm)


@contextmanager
def context(*, lm: LM | None = None, adapter: Adapter | None = None, rm: Any = None) -> Iterator[None]:
    """Use another model, adapter or retriever for the calls inside the `with` block."""
    old = _override.get() or Settings()
    token = _override.set(replace(old, lm=lm or old.lm, adapter=adapter or old.adapter,
                                  rm=old.rm if rm is None else rm))
    try:
        yield
    finally:
        _override.reset(token)


def current_lm() -> LM:
    """The model in force. If none was set: the one named by `TRACEDSL_LM`, else OpenAI's if `OPENAI_API_KEY` is set,
    else the embedded default model."""
    lm = (_override.get() or Settings()).lm or _process.settings.lm
    return lm if lm is not None else _from_environment()


def current_adapter(lm: LM) -> Adapter:
    """The adapter in force; if none was set, the one that suits the model."""
    return (_override.get() or Settings()).adapter or _process.settings.adapter or lm.default_adapter


def current_rm() -> Any:
    """The retriever in force, or None."""
    return settings_in_force().rm


def settings_in_force() -> Settings:
    """What was set, by `context` or else by `configure`."""
    inner, outer = _override.get() or Settings(), _process.settings
    return Settings(inner.lm or outer.lm, inner.adapter or outer.adapter, outer.rm if inner.rm is None else inner.rm)


def _from_environment() -> LM:
    from tracedsl.programs.lm import make_lm

    name = os.environ.get("TRACEDSL_LM", "")
    if not name:
        name = "openai/gpt-4o-mini" if os.environ.get("OPENAI_API_KEY") else FALLBACK_MODEL
    with _process.lock:
        if _process.found is None or _process.found[0] != name:
            _process.found = (name, make_lm(name))
        return _process.found[1]


ChunkSink = Callable[[Any, Any, "LMChunk"], Awaitable[None]]
"""Takes (predictor, prepared call, chunk) for each piece of an answer."""
_chunk_sink: ContextVar[ChunkSink | None] = ContextVar("tracedsl_chunk_sink", default=None)


@contextmanager
def listen_to_chunks(sink: ChunkSink | None) -> Iterator[None]:
    """Within this block, predictors stream and hand every piece to `sink` before they go on; None: nobody listens. A
    repaired answer comes as another stream of the same predictor, after the last chunk of the first one."""
    token = _chunk_sink.set(sink)
    try:
        yield
    finally:
        _chunk_sink.reset(token)


def chunk_sink() -> ChunkSink | None:
    """Who listens to the pieces of answers here."""
    return _chunk_sink.get()


Watcher = Callable[[str, Any, Any], None]
"""Told ("module_start", module, inputs), ("module_end", module, outputs), the same for "lm" and "tool"."""
_watcher: ContextVar[Watcher | None] = ContextVar("tracedsl_watcher", default=None)


@contextmanager
def watch_calls(watcher: Watcher | None) -> Iterator[None]:
    """Within this block, `watcher` is told when modules, models and tools begin and end."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def current_watcher() -> Watcher | None:
    """Who watches here."""
    return _watcher.get()


@contextmanager
def trace_calls(*, alone: bool = False) -> Iterator[list[TraceStep]]:
    """Collect the calls of all predictors made inside the `with` block. Enclosing blocks collect them too, unless this
    one wants to be `alone`."""
    steps: list[TraceStep] = []
    token = _listeners.set((steps,) if alone else (*_listeners.get(), steps))
    try:
        yield steps
    finally:
        _listeners.reset(token)


def record_call(predictor: Any, inputs: Mapping[str, Any], prediction: Any) -> None:
    """Tell everybody who listens about a call."""
    for steps in _listeners.get():
        steps.append(TraceStep(predictor, inputs, prediction))
