"""A tuning session as one HTML page: for each task the search as a picture, the numbers, the winner as text.

What holds here: the page needs nothing beside itself: pictures are SVG written here, nothing is loaded, nothing runs.
All text that comes from elsewhere is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from tracedsl.kernel_progress import result_text, time_text

if TYPE_CHECKING:
    from tracedsl.kernel_session import TuningReport
    from tracedsl.kernel_tuning import Tuned

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 240, 70, 30

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222}
pre{background:#f5f5f5;padding:.6rem;overflow-x:auto;font-size:13px}svg{width:100%;height:auto}
h2{margin-top:2rem}.axis{stroke:#999}.trial{fill:#8aa}.best{stroke:#06c;fill:none;stroke-width:2}
.default{stroke:#c60;stroke-dasharray:6 4}text{font-size:12px;fill:#555}"""


def page(report: TuningReport) -> str:
    """The whole page."""
    body = [f"<h1>{escape(report.subject)}</h1>",
            f"<p>{report.trials} trials in {report.seconds:.1f} s"
            + (", interrupted: the best so far is kept" if report.interrupted else "") + "</p>"]
    for one in report.tasks:
        body += _task(one)
    return (f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(report.subject)}: tuning</title>'
            f"<style>{_STYLE}</style><body>{''.join(body)}</body></html>\n")


def _task(one: Tuned) -> Iterator[str]:
    from tracedsl.ir.expr import task_text

    yield f"<h2>{escape(one.task.name)}</h2><p>{escape(result_text(one))}</p>"
    yield f"<pre>{escape(task_text(one.task))}</pre>"
    if one.outcome.trials:
        yield picture([t.measurement.value for t in one.outcome.trials], one.default)
        failures = sorted({t.measurement.error for t in one.outcome.trials if not t.measurement.ok})
        if failures:
            yield "<p>Failures: " + "; ".join(map(escape, failures[:5])) + "</p>"
    yield f"<pre>{escape(str(one.schedule))}</pre><p>As a hint:</p><pre>{escape(one.schedule.as_python())}</pre>"


def picture(values: Sequence[float | None], default: float | None) -> str:
    """Best so far against trials, on a logarithmic axis of time: dots are trials, the line is the best so far, the
    broken line the default. SVG."""
    good = [v for v in values if v is not None and v > 0]
    if not good:
        return "<p>Nothing worked.</p>"
    low, high = math.log(min(good) * 0.95), math.log(min(max(*good, min(good) * 1.1), min(good) * 20))

    def x(n: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * n / max(1, len(values) - 1)

    def y(value: float) -> float:
        share = (min(math.log(value), high) - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 10) * share

    dots, line, best = [], [], math.inf
    for n, value in enumerate(values):
        if value is not None and value > 0:
            dots.append(f'<circle class="trial" cx="{x(n):.1f}" cy="{y(value):.1f}" r="2.5"/>')
            if value < best:
                line += [] if best == math.inf else [f"{x(n):.1f},{y(best):.1f}"]
                line.append(f"{x(n):.1f},{y(value):.1f}")
                best = value
    line.append(f"{x(len(values) - 1):.1f},{y(best):.1f}")
    floor = HEIGHT - BOTTOM
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="best so far against trials">',
             f'<path class="axis" d="M{LEFT} 10V{floor}H{WIDTH - 10}" fill="none"/>', *dots,
             f'<polyline class="best" points="{" ".join(line)}"/>']
    if default:
        parts.append(f'<path class="default" d="M{LEFT} {y(default):.1f}H{WIDTH - 10}"/>')
    for value in (math.exp(low), math.exp((low + high) / 2), math.exp(high)):
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{time_text(value)}</text>')
    parts += [f'<text x="{x(0):.0f}" y="{HEIGHT - 8}">1</text>',
              f'<text x="{WIDTH - 10}" y="{HEIGHT - 8}" text-anchor="end">{len(values)} trials</text></svg>']
    return "".join(parts)
