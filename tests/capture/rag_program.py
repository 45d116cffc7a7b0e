"""What golden files of the language dialect show. Nothing here is run but `rag`."""

from __future__ import annotations

from typing import Any

from tracedsl.programs import ChainOfThought, Predict

OUTER = 5


def search(question: str) -> list[str]:
    return [f"{question} is known", "water is wet"]


def rag(question: str) -> str:
    facts = search(question)
    mood = Predict("question -> mood")(question=question)
    first = Predict("question -> topic")(question=question)
    second = Predict("question -> topic")(question=question)
    style = Predict("language -> style")(language="English")
    answer = ChainOfThought("facts, question -> answer")(
        facts=facts, question=f"{question} ({first.topic}/{second.topic}, {style.style})")
    if answer.answer == "unknown":
        return f"nobody knows, {mood.mood}"
    return answer.answer


def everything(q: Any, *rest: Any, key: Any = 1, **more: Any) -> Any:
    a = q.b[key](1, *rest, c=2, **more)
    x, (y, *z) = a
    q.attr = q[0] = f"{a!r:>{key}} and {x}"
    y += 1
    q.n -= OUTER
    if not a and (y or z) and 1 < x <= 3:
        del q[1], q.attr
    for _, v in enumerate(z):
        while v is not None:
            v = [w.t for w in v if w] or {str(k): v for k in rest}
    with q as x, a:
        raise ValueError(x) from y
    try:
        return (n := lambda: q), {1: a, y: a}
    except (KeyError, q.Error):
        assert n, "m"
    return ", ".join(str(v) for v in z)
