"""majority: the answer that most completions agree on.

Source: Wang et al., Self-Consistency Improves Chain of Thought Reasoning in Language Models (2022). What holds here: no
model is asked; of equally frequent answers the earlier one wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from tracedsl.programs.example import Completions, Prediction
from tracedsl.programs.metrics import normalize_text
from tracedsl.programs.modules.agents import ModuleError
from tracedsl.programs.types import to_json


def default_normalize(value: Any) -> Any:
    """Texts without case, articles and punctuation (an empty one does not count); other values as they are."""
    return (normalize_text(value) or None) if isinstance(value, str) else value


def majority(prediction_or_completions: Prediction | Completions | Iterable[Any],
             normalize: Callable[[Any], Any] | None = default_normalize, field: str | None = None) -> Prediction:
    """The first completion with the most frequent value of `field` (default: the last one).

    What `normalize` turns into None does not count, unless that is all of them. Raises `ModuleError` P047 if there is
    no completion.

    >>> majority([{"answer": "Paris"}, {"answer": "Rome"}, {"answer": "paris."}]).answer
    'Paris'
    """
    given = prediction_or_completions
    completions: Any = given.completions if isinstance(given, Prediction) else given
    rows = [dict(row.items()) for row in completions]
    if not rows:
        raise ModuleError("P047", "there is no completion to choose from", hint="ask for several: Predict(..., n=5)")
    name = field or list(rows[0])[-1]
    if missing := [row for row in rows if name not in row]:
        raise ModuleError("P047", f"a completion has no field {name!r}", why=f"it has {', '.join(missing[0])}")
    values = [row[name] if normalize is None else normalize(row[name]) for row in rows]
    keys = [repr(to_json(value)) for value in values]
    counted = [key for key, value in zip(keys, values) if value is not None] or keys
    winner = Counter(counted).most_common(1)[0][0]
    return Prediction.from_completions([rows[keys.index(winner)]])
