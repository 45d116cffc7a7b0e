"""All programs, in the order of the table."""

from __future__ import annotations

from benchmarks.numpy_programs.program import Program
from benchmarks.numpy_programs.programs import linear, particles, signals, stencils, tables

PROGRAMS: dict[str, Program] = {p.name: p for module in (stencils, linear, tables, particles, signals)
                                for p in module.PROGRAMS}
