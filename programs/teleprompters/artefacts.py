"""Artefacts: what a compilation left, read from the cache or from files, and what differs between two of them.

What holds here: an artefact is JSON. Three forms are read: an entry of the cache, what `Program.artefact()` gives, and
a file that `Module.save` wrote. Nothing is run.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracedsl.cache import Store
from tracedsl.programs.modules.module import FORMAT, SavedProgramError

ARTEFACT = "tracedsl-artefact"


@dataclass(frozen=True)
class Artefact:
    """`predictors`: name -> {"instructions": ..., "demos": [...]}; `scores` and `report` where they are known."""

    name: str
    predictors: Mapping[str, Mapping[str, Any]]
    scores: Mapping[str, str]
    report: Mapping[str, Any]


def read_artefact(what: str, store: Store | None = None) -> Artefact:
    """The artefact in a file, or the program in the cache whose digest begins so. Raises `SavedProgramError` P006."""
    path = Path(what)
    if path.is_file():
        try:
            return _of_json(str(path), json.loads(path.read_bytes()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SavedProgramError("P006", f"{path} is no artefact", why=f"{type(error).__name__}: {error}",
                                    hint="save one: program.save(path)") from None
    found = [e for e in (store or Store()).entries("program") if e.key.digest.startswith(what)]
    if len(found) != 1:
        raise SavedProgramError("P006", f"{len(found)} compiled programs have a digest that begins with {what!r}",
                                hint="`tracedsl cache ls --kind program` lists them; or name a file")
    meta = found[0].meta
    return _of_json(f"{found[0].key.subject} {found[0].key.digest[:12]}", {
        "format": ARTEFACT, "sites": meta["sites"], "scores": meta["status"]["scores"],
        "report": meta["status"].get("report", {})})


def _of_json(name: str, data: Mapping[str, Any]) -> Artefact:
    if data.get("format") not in (ARTEFACT, FORMAT):
        raise ValueError(f"its format is {data.get('format')!r}")
    states: dict[str, Any] = data.get("state", {})
    if "signature" in states:       # a predictor by itself
        states = {"self": states}
    sites = data.get("sites", states.get("sites"))
    if sites is not None:
        states = {f"{row['site']}/{part}": state for row in sites for part, state in row["predictors"].items()}
    predictors = {n: {"instructions": s["signature"]["instructions"], "demos": [d["fields"] for d in s["demos"]]}
                  for n, s in states.items()}
    return Artefact(name, predictors, data.get("scores", {}), data.get("report", {}))


def difference(old: Artefact, new: Artefact) -> dict[str, Any]:
    """What differs, as JSON data: by predictor the instructions as a diff and the demonstrations that came and went,
    the scores, the settings. Empty where nothing does."""
    made: dict[str, Any] = {}
    for name in sorted({*old.predictors, *new.predictors}):
        one, two = old.predictors.get(name), new.predictors.get(name)
        if one is None or two is None:
            made[name] = "only in the second" if one is None else "only in the first"
        elif change := _predictor(one, two):
            made[name] = change
    for what in ("scores", "report"):
        one, two = _plain(getattr(old, what)), _plain(getattr(new, what))
        if changed := {k: [one.get(k), two.get(k)] for k in sorted({*one, *two}) if one.get(k) != two.get(k)}:
            made[what] = changed
    return made


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a report that is worth comparing: its trace is as long as the search."""
    kept = {k: v for k, v in values.items() if k not in ("search", "settings", "steps", "failures", "demos")}
    return {**kept, **{f"settings: {k}": v for k, v in dict(values.get("settings", {})).items()}}


def _predictor(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    change: dict[str, Any] = {}
    if one["instructions"] != two["instructions"]:
        lines = difflib.unified_diff(one["instructions"].splitlines(), two["instructions"].splitlines(), lineterm="",
                                     n=1)
        change["instructions"] = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    gone = [demo for demo in one["demos"] if demo not in two["demos"]]
    came = [demo for demo in two["demos"] if demo not in one["demos"]]
    if gone or came:
        change["demonstrations"] = {"gone": gone, "came": came}
    elif one["demos"] != two["demos"]:
        change["demonstrations"] = "in another order"
    return change


def difference_text(old: Artefact, new: Artefact) -> str:
    """The same for people."""
    changes = difference(old, new)
    lines = [f"- {old.name}", f"+ {new.name}"]
    for name, change in changes.items():
        lines.append(f"{name}:" if not isinstance(change, str) else f"{name}: {change}")
        if name in ("scores", "report"):
            lines += [f"  {k}: {_short(one)} -> {_short(two)}" for k, (one, two) in change.items()]
        elif isinstance(change, dict):
            lines += [f"  {line}" for line in change.get("instructions", [])]
            demos = change.get("demonstrations", {})
            if isinstance(demos, str):
                lines.append(f"  demonstrations: {demos}")
            else:
                lines += [f"  {sign} demonstration {_short(demo)}" for sign, key in (("-", "gone"), ("+", "came"))
                          for demo in demos.get(key, [])]
    return "\n".join(lines if changes else [*lines, "no difference"])


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:156]} ..."
