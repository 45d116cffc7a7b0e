"""Plans: what the passes decided about the calls of a recorded path, as advice for later runs.

What holds here: a plan is advice that is checked. A folded or shared answer is used only for an equal request, a
dropped call is still made if somebody looks at it, and a run that leaves the recorded paths goes on without advice. So
a wrong plan costs time and never changes a result. A plan is JSON data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tracedsl.capture.language.model_calls import Answers, ModelCall
from tracedsl.diagnostics import TracedslError, nearest
from tracedsl.ir.graph import Graph, print_graph
from tracedsl.ir.language import LM_CALL
from tracedsl.rewrite.passes import Pass, PassRecord, run_passes

MOST_PATHS = 32

# What it means that a call is gone after a pass.
_REASONS = {"fold-constants": "fold", "share-common": "share"}


@dataclass(frozen=True)
class RecordedAnswer:
    """What a run knows of one model call: the key of its request, and its answers by digest of model and request
    (none if they must not be used again)."""

    key: str
    answers: Answers


@dataclass(frozen=True)
class Path:
    """One recorded path. `events` identify it; `advice` is, for each call, (what, with which call)."""

    events: tuple[str, ...]
    advice: tuple[tuple[str, int | None], ...]
    pinned: Answers
    before: str
    after: str
    passes: tuple[str, ...]

    def saved(self) -> int:
        """How many calls a run on this path saves."""
        return sum(what != "run" for what, _ in self.advice)


@dataclass(frozen=True)
class Plan:
    """The recorded paths of a program."""

    paths: tuple[Path, ...] = field(default=())

    def knows(self, events: Sequence[str]) -> bool:
        return any(path.events == tuple(events) for path in self.paths)

    @property
    def full(self) -> bool:
        return len(self.paths) >= MOST_PATHS

    def with_path(self, path: Path) -> Plan:
        return self if self.full or self.knows(path.events) else Plan((*self.paths, path))

    def walk(self) -> Walker:
        return Walker(self.paths)

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(path) for path in self.paths]

    @staticmethod
    def from_json(rows: Iterable[Mapping[str, Any]]) -> Plan:
        """Raises `KeyError`, `TypeError` or `ValueError` for what is no plan."""
        return Plan(tuple(
            Path(tuple(row["events"]), tuple((str(what), other) for what, other in row["advice"]), dict(row["pinned"]),
                 str(row["before"]), str(row["after"]), tuple(row["passes"])) for row in rows))


class Walker:
    """Follows one run along the recorded paths: only those that fit what has happened so far give advice."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._paths = list(paths)
        self._length = 0

    def event(self, name: str) -> None:
        at = self._length
        self._paths = [p for p in self._paths if len(p.events) > at and p.events[at] == name]
        self._length += 1

    def direct(self, call: ModelCall, earlier: Sequence[ModelCall]) -> None:
        what, twin = self.advice(len(earlier))
        call.pinned = self.pinned
        call.deferred = what == "drop"
        if what == "share" and twin is not None and twin < len(earlier) and not call.differs_from(earlier[twin]):
            call.twin = earlier[twin]
            call.after.append(call.twin)

    def advice(self, number: int) -> tuple[str, int | None]:
        """For the call whose event came last. Dropping needs all paths that are still possible to agree."""
        found = [p.advice[number] for p in self._paths if number < len(p.advice)]
        if not found:
            return ("run", None)
        if found[0][0] == "drop" and any(what != "drop" for what, _ in found):
            return ("run", None)
        return found[0]

    @property
    def pinned(self) -> Answers:
        merged: dict[str, Mapping[str, Any]] = {}
        for path in self._paths:
            merged.update(path.pinned)
        return merged


def make_path(events: Sequence[str], graph: Graph, answers: Sequence[RecordedAnswer], passes: Sequence[Pass],
              disable: Iterable[str] = ()) -> Path:
    """Run the passes over a recorded graph and read off what became of each call."""
    advice: list[tuple[str, int | None]] = [("run", None) for _ in answers]
    records: list[PassRecord] = []
    current, left = graph, _calls(graph)
    off = set(disable)
    for step in passes:
        rewritten = run_passes(current, [step], disable=off & {step.name})
        current, now = rewritten.graph, _calls(rewritten.graph)
        records += rewritten.records
        for number in left - now:
            advice[number] = (_REASONS.get(step.name, "drop"), None)
        left = now
    for number, (what, _) in enumerate(advice):
        if what == "share":
            twin = next((j for j in range(number) if answers[j].key == answers[number].key), None)
            advice[number] = ("run", None) if twin is None else ("share", twin)
    pinned = {name: answer for (what, _), recorded in zip(advice, answers) if what == "fold"
              for name, answer in recorded.answers.items()}
    return Path(tuple(events), tuple(advice), pinned, print_graph(graph), print_graph(current),
                tuple(map(str, records)))


def check_names(disable: Iterable[str], passes: Sequence[Pass]) -> frozenset[str]:
    """The names, if all of them are passes; raises `TracedslError` P103 otherwise."""
    names = {step.name for step in passes}
    for name in disable:
        if name not in names:
            raise TracedslError("P103", f"no pass is called {name!r}", hint=nearest(name, names))
    return frozenset(disable)


def _calls(graph: Graph) -> set[int]:
    return {node.attr("call").value.number for node in graph.nodes if node.op is LM_CALL}
