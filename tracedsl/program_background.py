"""Compilation in the background: a thread compiles a twin of the program, which then takes over.

What holds here: the program answers uncompiled until the twin is ready, and changes as a whole. A compilation that
fails is told once, as a warning and a note, and not tried again in this process. The thread ends with the process; what
was measured is on record, so the next process goes on.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING

from tracedsl.diagnostics import warn

if TYPE_CHECKING:
    from tracedsl.program import Program


class Background:
    """The compilations of one program, by the model that they are for."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._threads: dict[tuple[str, str], threading.Thread] = {}
        self._lock = threading.Lock()

    def busy(self, wanted: tuple[str, str]) -> bool:
        """Whether the program for this model is being compiled, or was in vain; begins it if nobody did."""
        with self._lock:
            if wanted not in self._threads:
                context = copy_context()
                self._threads[wanted] = threading.Thread(target=context.run, args=(self._work,), daemon=True,
                                                         name=f"tracedsl-compile-{self._program.__name__}")
                self._threads[wanted].start()
        return True

    def wait(self, timeout: float | None) -> bool:
        """Wait for what is under way; True if it has ended."""
        for thread in list(self._threads.values()):
            thread.join(timeout)
        return not any(thread.is_alive() for thread in self._threads.values())

    def _work(self) -> None:
        program = self._program
        twin = program._copy()
        twin._student, twin._ready_for = False, None
        twin._options = replace(program._options, compile="call", verbose=False)
        try:
            twin._make_ready()
        except Exception as error:  # noqa: BLE001 - told, since nobody waits for this thread
            program._status.notes.append(f"the compilation in the background failed: {error}")
            warn("P111", f"compiling {program.__name__!r} in the background failed; it runs uncompiled",
                 why=f"{type(error).__name__}: {error}", hint="compile='call' tries it on the first call")
            return
        with program._lock:
            done, mine = twin._status, program._status
            program._sites, program._plan, program._ready_for = twin._sites, twin._plan, twin._ready_for
            mine.scores, mine.installed, mine.held_out, mine.report = (
                done.scores, done.installed, done.held_out, done.report)
            mine.origin, mine.cached = done.origin, done.cached
            mine.notes += done.notes
