"""What a user sees of tuning: a live view while it runs, a summary at the end.

What holds here: only texts; on a terminal one line that renews itself, else a line now and then if asked for.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracedsl.kernel_session import TuningReport
    from tracedsl.kernel_tuning import Progress, Tuned, Watch

EVERY = 5.0     # seconds between plain lines


@contextmanager
def live(name: str, progress: bool | None) -> Iterator[Watch | None]:
    """Where progress goes: a renewed line on a terminal, plain lines otherwise if `progress` is True, nowhere if it is
    False."""
    terminal = sys.stderr.isatty()
    if progress is False or (progress is None and not terminal):
        yield None
    elif terminal:
        from rich.console import Console

        with Console(stderr=True).status(f"tuning {name}: starting") as status:
            yield lambda now: status.update(f"tuning {name}: {line(now)}")
    else:
        yield _now_and_then(lambda text: print(f"tuning {name}: {text}", file=sys.stderr, flush=True))


def _now_and_then(say: Callable[[str], None]) -> Watch:
    last = -math.inf

    def watch(now: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY or now.trials >= now.budget:
            last = time.monotonic()
            say(line(now))

    return watch


def line(now: Progress) -> str:
    """`task 1/2, 40 of 200 trials: best 1.21 ms (1.35x the default, 81 % of the roofline), 2 failures, 3:10 left`"""
    of = "" if math.isinf(now.budget) else f" of {now.budget:.0f}"
    parts = [f"task {now.number + 1}/{now.count}, {now.trials}{of} trials: best {time_text(now.best)}"]
    inside = []
    if now.best and now.default:
        inside.append(f"{now.default / now.best:.2f}x the default")
    if now.best and now.roofline:
        inside.append(f"{100 * now.roofline / now.best:.0f} % of the roofline")
    if inside:
        parts[0] += f" ({', '.join(inside)})"
    if now.failures:
        parts.append(f"{now.failures} failures")
    if not math.isinf(now.left):
        parts.append(f"{max(0, int(now.left)) // 60}:{max(0, int(now.left)) % 60:02d} left")
    return ", ".join(parts)


def summary(report: TuningReport) -> str:
    """One paragraph a task: what was tried, what it gave, the schedule as a hint."""
    lines = [f"{report.subject}: {report.trials} trials in {report.seconds:.1f} s"
             + (", interrupted: the best so far is kept" if report.interrupted else "")]
    for one in report.tasks:
        lines.append(f"  {one.task.name}: {result_text(one)}")
        if one.foreign:
            lines.append(f"    {one.foreign} records of other machines or compilers were not used")
        if one.gain > 1:
            lines.append(f"    {one.schedule.as_python()}")
    return "\n".join(lines)


def result_text(one: Tuned) -> str:
    if not one.outcome.trials:
        return "not searched (nothing to choose, or little work)"
    failures = sum(not trial.measurement.ok for trial in one.outcome.trials)
    share = f", {100 * one.roofline / one.seconds:.0f} % of the roofline" if one.roofline and one.seconds else ""
    what = f"{time_text(one.default)} -> {time_text(one.seconds)} ({one.gain:.2f}x){share}" if one.gain > 1 else \
        f"the default is the best, {time_text(one.default)}{share}"
    new = one.outcome.measured
    known = len(one.outcome.trials) - new
    return (f"{what}; {new} measured" + (f", {known} on record" if known else "")
            + (f", {failures} failed" if failures else ""))


def time_text(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1 or unit == "us":
            return f"{seconds * factor:.3g} {unit}"
    return ""
