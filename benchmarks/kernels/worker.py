"""What a contender's process does when it is asked to: make a workload ready, take samples of it.

What holds here: among several forms of one library the fastest that is right is measured; only calls are timed.
"""

from __future__ import annotations

import time
import timeit
from typing import Any

import numpy as np

from benchmarks.harness.serving import main
from benchmarks.kernels.contenders import Ready, load, ready
from benchmarks.kernels.workload import Workload, memory, results
from benchmarks.kernels.workloads import every

_SAMPLE = 2e-4        # seconds that one sample takes at least: short calls are repeated within it
_WARM = 0.05          # calls that take longer than this need no warm-up
_PROBE = 0.15         # seconds for choosing among the forms of one library


class Worker:
    """What a contender has ready."""

    def __init__(self, peer: str, threads: int) -> None:
        self.peer = peer
        self.module, self.version = load(peer, threads)
        self.workloads = {w.name: w for w in every()}
        self.timer: timeit.Timer | None = None
        self.calls = 1
        self.once = 0.0

    def prepare(self, workload: str, reference: str, tiny: bool) -> dict[str, Any]:
        """Make the workload ready in the fastest form that is right; what its first call and one further call take."""
        chosen = self.workloads[workload]
        self.timer = None
        if self.peer == "torch.compile":
            self.module.compiler.reset()      # else functions that share code hit a limit of recompilations
        inputs = chosen.inputs(tiny)
        want = list(np.load(reference, allow_pickle=False).values())
        tried = [self._try(chosen, form, want) for form in ready(self.peer, self.module, chosen, inputs)]
        right = [t for t in tried if t["error"] <= chosen.tolerance] or tried
        best = min(right, key=lambda t: float(t["once"]))
        form = best.pop("form")
        self.timer, self.once = _timer(form), best["once"]
        self.calls = max(1, min(10_000, int(_SAMPLE / max(self.once, 1e-9))))
        return {**best, "right": best["error"] <= chosen.tolerance, "name": form.name, "note": form.note(),
                "bytes": memory(inputs, want_like(form, want, inputs))}

    def _try(self, workload: Workload, form: Ready, want: list[Any]) -> dict[str, Any]:
        start = time.perf_counter()
        with np.errstate(all="ignore"):
            got = form.call(*form.args)
        first = time.perf_counter() - start
        error = workload.difference(form.finish(got), want)
        del got
        timer, spent, once = _timer(form), 0.0, float("inf")
        while spent < _PROBE:
            took = timer.timeit(1)
            once, spent = min(once, took), spent + took
            if took > _PROBE:
                break
            timer = _timer(form) if spent == took else timer
        return {"form": form, "first_call": first, "once": once, "error": error}

    def sample(self, seconds: float) -> dict[str, Any]:
        """Seconds a call, one number a sample, for as long as asked, at least one."""
        assert self.timer is not None, "nothing is prepared"
        if self.once < _WARM:
            self.timer.timeit(self.calls)
        found, end = [], time.perf_counter() + seconds
        while not found or time.perf_counter() < end:
            found.append(self.timer.timeit(self.calls) / self.calls)
        return {"times": found}


def want_like(form: Ready, want: list[Any], inputs: Any) -> list[Any]:
    """The results in the dtype in which the function gives them, for counting bytes; an `out` argument is an input."""
    got = results(form.finish(form.call(*form.args)))
    return [g for g in got if not any(g is a for a in inputs)]


def _timer(form: Ready) -> timeit.Timer:
    """The call and nothing else in the timed loop."""
    names = {f"a{i}": a for i, a in enumerate(form.args)}
    return timeit.Timer(f"call({', '.join(names)})", globals={"call": form.call, **names})


class Machine:
    """The contender that measures the machine itself."""

    version = ""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def limits(self) -> dict[str, Any]:
        from benchmarks.kernels.limits import measure

        return measure(self.threads).model_dump()


def make(peer: str, threads: int) -> Worker | Machine:
    return Machine(threads) if peer == "limits" else Worker(peer, threads)


if __name__ == "__main__":
    main(make)
