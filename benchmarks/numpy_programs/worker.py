"""What a contender's process does when it is asked to: make a program ready, check it on two data sets, time it.

What holds here: each call gets fresh copies of its arguments, which are not timed.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.harness.serving import main
from benchmarks.numpy_programs.program import Data, Program, copied, difference, outcome
from benchmarks.numpy_programs.programs import PROGRAMS

_CHECKS = ((1, "small"), (2, "small"), (1, "full"), (2, "full"))      # seeds and sizes


class Worker:
    """One contender: "numpy", "tracedsl", "numba" (the program as it is), "numba expert", "jax"."""

    def __init__(self, peer: str, threads: int) -> None:
        self.peer = peer
        package = {"numba expert": "numba"}.get(peer, peer)
        self.version = version(package) if package != "tracedsl" else ""
        self.call: Callable[..., Any] | None = None
        self.args: Data = ()
        warnings.simplefilter("ignore")
        os.environ["TRACEDSL_CACHE"] = tempfile.mkdtemp()      # so that first calls compile

    def prepare(self, program: str, check: bool = True) -> dict[str, Any]:
        """Make a program ready; its first call, a further call, the largest error on the data sets."""
        chosen = PROGRAMS[program]
        self.args = chosen.data(np.random.default_rng(1), "full")
        made = self._made(chosen)
        if made is None:
            return {"absent": True}
        start = time.perf_counter()
        made(*copied(self.args))
        first = time.perf_counter() - start
        error = max(self._error(chosen, made, seed, size) for seed, size in _CHECKS) if check else 0.0
        self.call = made
        note = ""
        if self.peer == "tracedsl":
            note = "" if made.compiled else "plain NumPy"      # type: ignore[attr-defined]
        return {"first_call": first, "once": self._once(), "error": error, "right": error <= chosen.tolerance,
                "note": note}

    def _made(self, program: Program) -> Callable[..., Any] | None:
        if self.peer == "numpy":
            return program.function
        if self.peer == "tracedsl":
            from tracedsl import kernel

            return kernel(program.function)
        if self.peer == "jax":
            return _of_jax(program)
        from numba import njit

        function = program.function if self.peer == "numba" else program.numba
        if function is None:
            return None
        for helper in program.helpers:
            program.function.__globals__[helper.__name__] = njit(helper)
        found: Callable[..., Any] = njit(function)
        return found

    def _error(self, program: Program, made: Callable[..., Any], seed: int, size: str) -> float:
        given = program.data(np.random.default_rng(seed), size)
        mine, plain = copied(given), copied(given)
        with np.errstate(all="ignore"):
            got = made(*mine)
            want = outcome(program.function(*plain), plain)
        return difference(got if self.peer == "jax" else outcome(got, mine), want)

    def _once(self) -> float:
        assert self.call is not None, "nothing is prepared"
        args = copied(self.args)
        start = time.perf_counter()
        self.call(*args)
        return time.perf_counter() - start

    def sample(self, seconds: float) -> dict[str, Any]:
        """Seconds a call, one number a call, for as long as asked, at least one; the first call of a turn warms up."""
        end = time.perf_counter() + seconds
        if seconds:
            self._once()
        found = [self._once()]
        while time.perf_counter() < end:
            found.append(self._once())
        return {"times": found}


def _of_jax(program: Program) -> Callable[..., Any] | None:
    if program.jax is None:
        return None
    import jax

    jax.config.update("jax_enable_x64", True)
    compiled = jax.jit(program.jax(jax.numpy))

    def call(*args: Any) -> list[Any]:
        return [np.asarray(x) for x in jax.block_until_ready(compiled(*args))]

    return call


if __name__ == "__main__":
    main(Worker)
