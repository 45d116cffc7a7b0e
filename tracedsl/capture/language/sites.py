"""What is learned, by call site.

What holds here: what is learned belongs to the call site: `Sites` keeps one copy of the module for each site and each
form in which it comes there. A site is a place in the source of the program or of a helper that runs with it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from tracedsl.cache import digest
from tracedsl.capture.language.python_expressions import CallSite
from tracedsl.programs.modules.module import Module, SavedProgramError
from tracedsl.programs.modules.predict import Predict

Where = tuple[str, int, str]     # helper ("" for the program itself), number of the call in it, the module's state


class Sites:
    """The modules of a program by call site, each a copy of what was called there with what was learned for it.

    A module that comes to a site in another state (another signature, other demonstrations) is another *sub-site*.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._lock = threading.Lock()
        self._modules: dict[Where, tuple[str, Module]] = {}
        self._waiting: dict[Where, tuple[str, Mapping[str, Any]]] = {}

    def find(self, place: CallSite, module: Module) -> tuple[str, Module]:
        """The site's name and the module to use there in place of `module`."""
        key = (place.function, place.number, state_digest(module))
        with self._lock:
            if key not in self._modules:
                self._modules[key] = self._register(key, place, module)
            return self._modules[key]

    def knows(self, place: CallSite) -> bool:
        """Whether anything was learned, or visited for learning, at this place in the source."""
        with self._lock:
            return any(key[:2] == (place.function, place.number) for key in (*self._modules, *self._waiting))

    def name(self, place: CallSite, kind: str) -> str:
        """What the call site is called: program, function where it is a helper, number of the call in it, kind."""
        return f"{'>'.join(filter(None, (self.prefix, place.function)))}/{place.number}:{kind}"

    def _register(self, key: Where, place: CallSite, module: Module) -> tuple[str, Module]:
        mine = module.deepcopy()
        if key in self._waiting:
            name, states = self._waiting.pop(key)
            for part, predictor in _parts(mine):
                if part in states:
                    predictor.load_state(states[part])
            return name, mine
        taken = {name for name, _ in (*self._modules.values(), *self._waiting.values())}
        name = self.name(place, type(module).__name__)
        if name in taken:
            name = f"{name}#{key[2][:6]}"
        return name, mine

    def items(self) -> list[tuple[str, Module]]:
        """Names and modules, in the order of the source."""
        with self._lock:
            return [entry for _, entry in sorted(self._modules.items(), key=lambda item: (item[0][:2], item[1][0]))]

    def named_predictors(self) -> list[tuple[str, Predict]]:
        return [(f"{name}/{part}", p) for name, module in self.items() for part, p in _parts(module)]

    def copy(self) -> Sites:
        made = Sites(self.prefix)
        with self._lock:
            made._modules = {key: (name, module.deepcopy()) for key, (name, module) in self._modules.items()}
            made._waiting = dict(self._waiting)
        return made

    def replace(self, wanted: str, new: Predict) -> None:
        """Put another predictor in the place of the one with this name."""
        for key, (name, module) in list(self._modules.items()):
            for part, _ in _parts(module):
                if f"{name}/{part}" == wanted:
                    if isinstance(module, Predict):
                        self._modules[key] = (name, new)
                    else:
                        setattr(module, part, new)

    # -- saved form ----------------------------------------------------------------------------------------------

    def dump(self) -> list[dict[str, Any]]:
        """What is learned, as JSON data, in the order of the source."""
        with self._lock:
            rows = [_row(key, name, {part: p.dump_state() for part, p in _parts(module)})
                    for key, (name, module) in self._modules.items()]
            rows += [_row(key, name, dict(states)) for key, (name, states) in self._waiting.items()]
        return sorted(rows, key=lambda row: (row.get("function", ""), row["number"], row["site"]))

    def load(self, rows: list[Mapping[str, Any]]) -> None:
        """Take over what was learned; sites that were not seen yet get it when they are. Raises `SavedProgramError`
        P007 and changes nothing if the data does not fit."""
        waiting: dict[Where, tuple[str, Mapping[str, Any]]] = {}
        try:
            for row in rows:
                waiting[str(row.get("function", "")), int(row["number"]), str(row["initial"])] = (
                    str(row["site"]), dict(row["predictors"]))
            with self._lock:
                for key, (_, states) in waiting.items():
                    for part, predictor in _parts(self._modules[key][1]) if key in self._modules else ():
                        predictor.check_state(states[part])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SavedProgramError("P007", "a saved program does not fit", hint="compile the program again",
                                    why=f"{type(error).__name__}: {error}") from error
        with self._lock:
            for key, (name, states) in waiting.items():
                if key in self._modules:
                    for part, predictor in _parts(self._modules[key][1]):
                        predictor.load_state(states[part])
                else:
                    self._waiting[key] = (name, states)


def _row(key: Where, name: str, states: Mapping[str, Any]) -> dict[str, Any]:
    return {"site": name, **({"function": key[0]} if key[0] else {}), "number": key[1], "initial": key[2],
            "predictors": states}


def _parts(module: Module) -> Iterator[tuple[str, Predict]]:
    """The predictors of a module; a predictor by itself is its own part, `predict`."""
    if isinstance(module, Predict):
        yield "predict", module
    else:
        yield from module.named_predictors()


def state_digest(module: Module) -> str:
    """A digest of all that decides what a module answers, but its inputs and the configured model."""
    rows = [type(module).__qualname__]
    for part, predictor in _parts(module):
        lm = getattr(predictor.lm, "identity", "") if predictor.lm is not None else ""
        demos = json.dumps([demo.dump() for demo in predictor.demos], sort_keys=True, default=repr)
        rows += [part, predictor.signature.fingerprint, repr(sorted(predictor.config.items())), demos, lm]
    return digest(*rows)
