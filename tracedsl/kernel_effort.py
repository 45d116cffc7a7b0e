"""How much tuning a kernel gets, as users write it: `tune=50`, `tune="2min"`, `tune="background"`.

What holds here: plain data and parsing; nothing of the compiler is loaded.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from tracedsl.diagnostics import TracedslError, nearest

# name -> class in `tracedsl.autotune`
STRATEGIES = {
    "model": "ModelGuided", "genetic": "Genetic", "random": "RandomSearch", "coordinate": "CoordinateDescent",
    "annealing": "SimulatedAnnealing", "model-annealing": "ModelAnnealing", "exhaustive": "Exhaustive",
}
BACKGROUND = 120.0      # seconds of tuning in the background

_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Effort:
    """Limits of tuning one kernel: trials of each task, seconds in all. `background`: beside the program."""

    trials: float = math.inf
    seconds: float = math.inf
    background: bool = False

    @staticmethod
    def of(tune: int | str) -> Effort | None:
        """What `tune=` means; None for 0. Raises TracedslError T005 for something else than trials, a time or
        "background".

            >>> Effort.of("2min")
            Effort(trials=inf, seconds=120.0, background=False)
            >>> Effort.of(50).trials, Effort.of(0)
            (50, None)
        """
        if tune == "background":
            return Effort(seconds=BACKGROUND, background=True)
        if isinstance(tune, int) and not isinstance(tune, bool) and tune >= 0:
            return Effort(trials=tune) if tune else None
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", tune) if isinstance(tune, str) else None
        if found is None or found[2] not in _UNITS or float(found[1]) <= 0:
            raise TracedslError("T005", f"tune={tune!r} is not understood",
                                hint='give trials (tune=100), a time (tune="2min") or tune="background"')
        return Effort(seconds=float(found[1]) * _UNITS[found[2]])


    @staticmethod
    def limits(trials: float, minutes: float) -> Effort:
        """Limits as `f.tune` takes them. Raises TracedslError T005 where they leave nothing to do."""
        if not (trials >= 1 and minutes > 0):
            raise TracedslError("T005", f"tuning with trials={trials!r}, minutes={minutes!r} measures nothing",
                                hint="give at least one trial and some time")
        return Effort(trials, minutes * 60)


def checked_strategy(name: str) -> str:
    """The name, if there is such a strategy. Raises TracedslError T005."""
    if name != "auto" and name not in STRATEGIES:
        raise TracedslError("T005", f"there is no search strategy {name!r}", hint=nearest(name, ["auto", *STRATEGIES]))
    return name


def modelled(name: str) -> bool:
    """Whether a strategy learns from features of points."""
    return name in ("model", "model-annealing")
