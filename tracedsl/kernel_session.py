"""Tuning sessions: one kernel tuned for some types, at once or in the background, and what a user is told about it.

What holds here: a session leaves a variant that is in the store under the kernel's own key, so that later processes
load it like any other. A session in the background never disturbs the program: it ends with it, and its failures are
warnings.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from tracedsl.cache import Key
from tracedsl.diagnostics import TracedslError, nearest, warn
from tracedsl.kernel_effort import BACKGROUND, Effort

if TYPE_CHECKING:
    from tracedsl.capture.tensor.arguments import Bound
    from tracedsl.kernel import Kernel, _Compiler
    from tracedsl.kernel_tuning import Tuned
    from tracedsl.kernel_variant import Variant


@dataclass(frozen=True)
class TuningReport:
    """What a session found. `str()` of it is a summary; `tasks` has every trial."""

    subject: str
    tasks: tuple[Tuned, ...]
    seconds: float

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return any(one.outcome.stopped == "interrupted" for one in self.tasks)

    @property
    def trials(self) -> int:
        """Schedules that were measured or were on record."""
        return sum(len(one.outcome.trials) for one in self.tasks)

    def hints(self) -> list[str]:
        """The schedules as Python that can be pasted into the function, task by task."""
        return [one.schedule.as_python() for one in self.tasks]

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return {"subject": self.subject, "seconds": self.seconds, "interrupted": self.interrupted, "tasks": [
            {"task": one.task.name, "trials": len(one.outcome.trials), "measured": one.outcome.measured,
             "failures": sum(not t.measurement.ok for t in one.outcome.trials), "stopped": one.outcome.stopped,
             "seconds": one.seconds, "default": one.default, "gain": one.gain, "roofline": one.roofline,
             "schedule": one.schedule.to_json(),
             "hint": one.schedule.as_python(), "foreign_records": one.foreign} for one in self.tasks]}

    def html(self, path: Path | str) -> Path:
        """Write a page that needs nothing else: the searches as pictures, the winners as text."""
        from tracedsl.kernel_tuning_page import page

        file = Path(path)
        file.write_text(page(self), encoding="utf-8")
        return file

    def __str__(self) -> str:
        from tracedsl.kernel_progress import summary

        return summary(self)


def run_tuning(compiler: _Compiler, bound: Bound, effort: Effort, strategy: str = "auto", seed: int = 0,
               progress: bool | None = None) -> tuple[Variant, TuningReport]:
    """Search, make the variant with what was found, and keep it. Raises `Unsupported` if there is no code."""
    from tracedsl.kernel_progress import live
    from tracedsl.kernel_tuning import Tuner

    start = time.perf_counter()
    with live(compiler.function.__name__, progress) as watch:
        made = compiler.stages(bound, Tuner(compiler.on, compiler.store, effort, strategy, seed, watch))
    key = compiler.key(bound)
    variant = compiler.finish(made, key)
    compiler.store.put(_done(key), meta={"tasks": len(made.tuned)})
    return variant, TuningReport(key.subject, made.tuned, time.perf_counter() - start)


def tune_in_background(compiler: _Compiler, bound: Bound, use: Callable[[Variant], None]) -> threading.Thread | None:
    """Tune beside the program and hand over the better variant; nothing to do if an earlier process did."""
    key = compiler.key(bound)
    if compiler.store.get(_done(key)) is not None:
        return None

    def work() -> None:
        try:
            use(run_tuning(compiler, bound, Effort(seconds=BACKGROUND, background=True), progress=False)[0])
        except TracedslError as error:
            warn(error.code, f"tuning {key.subject} in the background failed: {error.diagnostic.what}",
                 why=error.diagnostic.why, hint=error.diagnostic.hint)

    thread = threading.Thread(target=work, name=f"tracedsl-tuning-{key.subject}", daemon=True)
    thread.start()
    return thread


def find_kernel(name: str) -> Kernel:
    """The kernel that "module:function" names; a plain function becomes one. The working directory counts as a place
    for modules. Raises TracedslError K010 if there is none."""
    from tracedsl.kernel import Kernel, kernel

    found = _named(name)
    if isinstance(found, Kernel):
        return found
    if not isinstance(found, FunctionType):
        raise TracedslError("K010", f"{name} is no function but {type(found).__name__}",
                            hint="name a function: package.module:function")
    return kernel(found)


def arguments_for(name: str, shapes: Sequence[str]) -> list[Any]:
    """Made-up arrays of the given kinds ("float32[512,768]"), or what "module:function_inputs" returns. Raises
    TracedslError K010 if they cannot be made."""
    if not shapes:
        try:
            return list(_named(f"{name}_inputs")())
        except TracedslError as error:
            raise TracedslError("K010", f"there is nothing to call {name} with", why=error.diagnostic.what,
                                hint="give its arguments: --shape 'float32[512,768]', once for each") from error
    return [_array(text) for text in shapes]


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise TracedslError("K010", f"{name!r} names no function", hint="write it as package.module:function")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        loaded = import_module(module)
    except ImportError as error:
        raise TracedslError("K010", f"there is no module {module!r} to import", why=str(error),
                            hint="run it where the module can be imported from") from error
    if not hasattr(loaded, attribute):
        raise TracedslError("K010", f"module {module} has no {attribute!r}", hint=nearest(attribute, vars(loaded)))
    return getattr(loaded, attribute)


def _array(text: str) -> Any:
    import numpy as np

    found = re.fullmatch(r"\s*([a-z]+\d*)\s*(?:\[\s*((?:\d+\s*,?\s*)*)\])?\s*", text)
    try:
        if found is None:
            raise TypeError("it is no dtype[extent, ...]")
        shape = [int(n) for n in re.findall(r"\d+", found[2] or "")]
        return np.ones(shape, np.dtype(found[1]))
    except (TypeError, ValueError) as error:
        raise TracedslError("K010", f"{text!r} is not understood as an argument", why=str(error),
                            hint="write float32[512,768], or float64 for a number") from error


def _done(key: Key) -> Key:
    """Where it is noted that a variant was tuned."""
    return Key("tuning", key.subject, key.parts)
