"""The pass manager: runs a readable list of passes over a graph of either dialect.

What holds here: a pass is a function graph -> graph with a name and a declared class; it never changes its input.
After each pass, if asked, the verifier runs, and a pass that breaks a graph is named. One switch prints and times:
TRACEDSL_PRINT=passes (to stderr); TRACEDSL_DISABLE=name,name switches passes off; TRACEDSL_VERIFY=1 verifies.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from tracedsl.diagnostics import nearest
from tracedsl.ir.graph import Graph, GraphError, fingerprint, print_graph, verify


class Class(Enum):
    """What a pass promises."""

    EXACT = "exact"                                      # same results, same calls
    DISTRIBUTION = "distribution-preserving"             # same distribution of results
    APPROXIMATE = "approximate"                          # only if asked for, and kept only if a test says so


@dataclass(frozen=True)
class Pass:
    """One rewrite of whole graphs."""

    name: str
    run: Callable[[Graph], Graph]
    kind: Class = Class.EXACT

    @property
    def summary(self) -> str:
        return (self.run.__doc__ or "").strip().split("\n")[0]


@dataclass(frozen=True)
class PassRecord:
    """What one pass did: operations before and after, and the time it took in seconds."""

    name: str
    before: int
    after: int
    changed: bool
    seconds: float

    def __str__(self) -> str:
        what = f"{self.before} -> {self.after} operations" if self.changed else "nothing to do"
        return f"{self.name:<22} {what:<28} {self.seconds * 1e3:7.2f} ms"


@dataclass(frozen=True)
class Rewritten:
    graph: Graph
    records: tuple[PassRecord, ...]


def run_passes(graph: Graph, passes: Sequence[Pass], *, disable: Iterable[str] = ()) -> Rewritten:
    """Run `passes` in order, leaving out those named in `disable` or in TRACEDSL_DISABLE.

    Raises `GraphError` G002 if a pass breaks the graph (with TRACEDSL_VERIFY=1), `ValueError` for an unknown name in
    `disable`.
    """
    off = _switched_off(passes, disable)
    checking = os.environ.get("TRACEDSL_VERIFY", "") not in ("", "0")
    printing = "passes" in os.environ.get("TRACEDSL_PRINT", "")
    if checking:
        verify(graph)
    records = []
    text = fingerprint(graph)
    for step in passes:
        if step.name in off:
            continue
        start = time.perf_counter()
        new = step.run(graph)
        seconds = time.perf_counter() - start
        if checking:
            _verify_after(step, new)
        new_text = fingerprint(new)
        record = PassRecord(step.name, _count(graph), _count(new), new_text != text, seconds)
        records.append(record)
        if printing:
            print(f"-- {record}", *([print_graph(new)] if record.changed else []), sep="\n", file=sys.stderr)
        graph, text = new, new_text
    return Rewritten(graph, tuple(records))


def _switched_off(passes: Sequence[Pass], disable: Iterable[str]) -> set[str]:
    names = {step.name for step in passes}
    for name in disable:
        if name not in names:
            raise ValueError(f"no pass is called {name!r}: {nearest(name, names)}")
    return {*disable, *filter(None, os.environ.get("TRACEDSL_DISABLE", "").split(","))}


def _verify_after(step: Pass, graph: Graph) -> None:
    try:
        verify(graph)
    except GraphError as error:
        raise GraphError("G002", f"pass {step.name!r} broke the graph", why=error.diagnostic.what,
                         hint=f"switch it off: TRACEDSL_DISABLE={step.name}", span=error.diagnostic.span) from error


def _count(graph: Graph) -> int:
    return sum(1 for _ in graph.operations())
