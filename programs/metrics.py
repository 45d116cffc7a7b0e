"""Metrics: how good a prediction is. A metric takes (example, prediction) and perhaps a trace, and returns a number.

What holds here: text is compared as in SQuAD (Rajpurkar et al., 2016, official script): case, punctuation, articles
and white space do not count. Other values are compared as they are. Metrics are plain values: equal settings, equal
metrics.
"""

from __future__ import annotations

import inspect
import math
import re
import string
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tracedsl.diagnostics import nearest
from tracedsl.programs.example import Example
from tracedsl.programs.types import FieldError

Metric = Callable[..., Any]

_ARTICLE = re.compile(r"\b(a|an|the)\b(?![\u0300-\u036f])")  # a letter that carries an accent is no article
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_text(text: str) -> str:
    """Lower case, without punctuation, articles and superfluous white space; normalising twice changes nothing."""
    folded = _folded(text)
    while folded != text:  # folding can give characters that compose, and composing ones that fold
        text, folded = folded, _folded(folded)
    return text


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFC", text).casefold().translate(_PUNCTUATION)
    return " ".join(_ARTICLE.sub(" ", unicodedata.normalize("NFC", plain)).split())


def same_value(expected: Any, got: Any) -> bool:
    """Whether two values agree; texts are normalised first."""
    if isinstance(expected, str) and isinstance(got, str):
        return normalize_text(expected) == normalize_text(got)
    return bool(expected == got)


@dataclass(frozen=True)
class ExactMatch:
    """1.0 if all `fields` of the prediction agree with the example's (none named: all labels)."""

    fields: tuple[str, ...] = ()

    def __call__(self, example: Example, prediction: Any, trace: Any = None) -> bool:
        fields = self.fields or tuple(example.labels().keys())
        return all(same_value(example[name], field_of(prediction, name, only=len(fields) == 1)) for name in fields)


def exact_match(*args: Any) -> Any:
    """`exact_match` is a metric over all labels of an example; `exact_match("city", "date")` makes one over these
    fields."""
    if args and isinstance(args[0], Example):
        return ExactMatch()(*args)
    return ExactMatch(tuple(args))


def answer_exact_match(example: Example, prediction: Any, trace: Any = None) -> bool:
    """Whether `answer` agrees with the example's `answer`, or with one of them if that is a list."""
    got = field_of(prediction, "answer", only=True)
    expected = example.answer if isinstance(example.answer, (list, tuple)) else [example.answer]
    return any(same_value(answer, got) for answer in expected)


def field_of(prediction: Any, name: str, *, only: bool) -> Any:
    """A field of a prediction. A program may also return a plain value: that is its `only` field."""
    if isinstance(prediction, (Example, Mapping)):
        if name not in prediction:
            raise FieldError("P003", f"the prediction has no field {name!r} to compare",
                             hint=nearest(name, prediction.keys()))
        return prediction[name]
    if only or hasattr(prediction, name):
        return getattr(prediction, name, prediction) if not only else prediction
    raise FieldError("P003", f"the metric needs {name!r}, the program returned a {type(prediction).__name__}",
                     hint="return a Prediction with that field, or name the one field: exact_match('answer')")


class Verdict(NamedTuple):
    """What a metric says: a number, and in words what was good or bad (may be empty)."""

    score: float
    feedback: str = ""


def score_of(metric: Metric, example: Example, prediction: Any, trace: Any = None) -> float:
    """What a metric says, as a number; metrics of two and of three arguments are called rightly.

    Raises `ValueError` if it is no finite number.
    """
    return verdict_of(metric, example, prediction, trace).score


def verdict_of(metric: Metric, example: Example, prediction: Any, trace: Any = None, pred_name: str | None = None,
               pred_trace: Any = None) -> Verdict:
    """What a metric says, in number and in words. Metrics of two to five arguments are called rightly; the last two
    name a predictor and its calls, where feedback for that one alone is wanted. Words come from a result with
    `score` and `feedback`.

    Raises `ValueError` if the score is no finite number.
    """
    value = metric(*(example, prediction, trace, pred_name, pred_trace)[:_arity(metric)])
    feedback = getattr(value, "feedback", None) if not isinstance(value, (bool, int, float)) else None
    value = getattr(value, "score", value)
    if value is None:
        raise ValueError("the metric returned None; does it lack a return statement?")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"the metric returned {value!r}")
    return Verdict(number, "" if feedback is None else str(feedback))


def takes_trace(metric: Metric) -> bool:
    """Whether a metric has a third parameter."""
    return _arity(metric) >= 3


def takes_predictor(metric: Metric) -> bool:
    """Whether a metric can say something about one predictor alone: it has five parameters."""
    return _arity(metric) >= 5


def _arity(metric: Metric) -> int:
    """How many arguments a metric is given: two to five."""
    try:
        parameters = inspect.signature(metric).parameters.values()
    except (TypeError, ValueError):
        return 2
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 3
    return min(5, max(2, sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)))


def metric_name(metric: Metric | None) -> str | None:
    """A name for settings and reports: a dataclass metric shows its settings, a function its qualified name."""
    if metric is None:
        return None
    name = getattr(metric, "__qualname__", None)
    return f"{getattr(metric, '__module__', '')}.{name}" if name else repr(metric)
