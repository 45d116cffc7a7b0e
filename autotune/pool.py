"""Device pools: where candidates are tried, apart from the process that searches.

What holds here: a candidate is JSON, and so is what comes of it. Whatever a candidate does - crash, hang, run out of
memory - is an answer, never an exception of the pool; it costs that one trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What the candidate's handler returned."""

    data: Json


@dataclass(frozen=True)
class Crash:
    """The worker died or its handler failed; it is started anew for the next candidate."""

    reason: str


@dataclass(frozen=True)
class Timeout:
    """The candidate did not end within its limit of so many seconds; its worker was killed."""

    seconds: float


Answer = Result | Crash | Timeout


class DevicePool(Protocol):
    """Tries candidates on devices, one at a time on each."""

    def submit(self, candidate: Json, device: str = "", limit: float = 10.0) -> Future[Answer]:
        """Try a candidate on the device of this tag ("": whichever is free first), for at most `limit` seconds."""
        ...

    def close(self) -> None:
        """End all workers at once, whatever they do."""
        ...
