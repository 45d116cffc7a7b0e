"""A program's run as a picture: what each unit worked on, cycle by cycle, to see what overlaps.

What holds here: text in, SVG out, no scripts and nothing from elsewhere; each bar says in its title which instruction
it is, and when it was taken and done.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from tracedsl.hw.fpga.assembly import line
from tracedsl.hw.fpga.isa import Program, Unit, name_of
from tracedsl.hw.fpga.timing import Event, Timeline, events

_COLOURS = {"load": "#4878a8", "gemm": "#c05746", "alu": "#d8a048", "store": "#5c946e"}
_ROW, _GAP, _LEFT, _AXIS = 14, 10, 70, 24  # pixels


def svg(program: Program, timeline: Timeline, width: int = 1200) -> str:
    """The picture, `width` pixels wide. Words that a unit has at the same time stand below each other."""
    scale = (width - _LEFT) / timeline.cycles
    found = events(program, timeline)
    parts, top = [], _GAP
    for unit in Unit:
        rows = _rows([event for event in found if event.unit is unit])
        parts.append(f'<text x="4" y="{top + _ROW - 3}">{unit.name.lower()}</text>')
        for at, row in enumerate(rows):
            parts += [_bar(program, event, _LEFT + event.start * scale, top + at * _ROW, scale) for event in row]
        top += max(1, len(rows)) * _ROW + _GAP
    parts += _axis(timeline.cycles, scale, top)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top + _AXIS}" font-family="sans-serif" '
            'font-size="11">\n' + "\n".join(parts) + "\n</svg>\n")


def _rows(of_unit: Sequence[Event]) -> list[list[Event]]:
    """Events that do not overlap, row by row, each in the first that has room."""
    rows: list[list[Event]] = []
    for event in of_unit:
        row = next((row for row in rows if row[-1].end < event.start), None)
        if row is None:
            rows.append(row := [])
        row.append(event)
    return rows


def _bar(program: Program, event: Event, left: float, top: int, scale: float) -> str:
    instruction = program[event.number]
    title = escape(f"{event.number}: {line(instruction)}; cycles {event.start} to {event.end}")
    return (f'<rect x="{left:.2f}" y="{top}" width="{(event.end - event.start + 1) * scale:.2f}" height="{_ROW - 2}" '
            f'fill="{_COLOURS[name_of(instruction)]}"><title>{title}</title></rect>')


def _axis(cycles: int, scale: float, top: int) -> list[str]:
    """About ten marks, at round numbers."""
    step = next(times * 10**power for power in range(12) for times in (1, 2, 5) if times * 10**power * 12 > cycles)
    return [f'<text x="{_LEFT + at * scale:.1f}" y="{top + _ROW}" text-anchor="middle">{at}</text>'
            for at in range(0, cycles, step)]
