"""Measurements: what a trial gave, and the protocol of whoever measures.

What holds here: a measurer never raises for a bad candidate: it returns a failure, which costs one trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from tracedsl.autotune.space import Point


@dataclass(frozen=True)
class Measurement:
    """`value` is what the search improves (seconds, a score), None for a failure, whose reason is `error`.

    `cost` counts what a budget limits: `seconds` of wall time, `calls`, `tokens`, `money`. `notes` are JSON values.
    """

    value: float | None
    error: str = ""
    cost: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is a number to go by (NaN is none)."""
        return self.value is not None and self.value == self.value

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Measurement:
        value = data["value"]
        return Measurement(None if value is None else float(value), str(data.get("error", "")),
                           dict(data.get("cost", {})), dict(data.get("notes", {})))


class Measurer(Protocol):
    """Measures one point. `KeyboardInterrupt` passes through."""

    def __call__(self, point: Point, /) -> Measurement: ...
