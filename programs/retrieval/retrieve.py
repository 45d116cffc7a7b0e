"""Retrieve: ask the configured retriever.

What holds here: which retriever answers is said by `configure(rm=...)` or `context(rm=...)`, so a program can be moved
to another corpus without a change. Any callable will do that takes (query, k) and returns a prediction with `passages`,
a list of texts, or a list of objects with `long_text`, as DSPy's retrievers do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from tracedsl.programs.batch import call_program
from tracedsl.programs.context import current_rm
from tracedsl.programs.example import Example, Prediction
from tracedsl.programs.modules.module import Module, Parameter
from tracedsl.programs.retrieval.base import RetrievalError


class Retrieve(Module, Parameter):
    """`Retrieve(k=3)("a query").passages`"""

    name = "Search"
    input_variable = "query"
    desc = "takes a search query and returns one or more potentially relevant passages from a corpus"

    def __init__(self, k: int = 3) -> None:
        self.k = k

    def __call__(self, query: str, k: int | None = None, **more: Any) -> Prediction:
        """Search the configured corpus."""
        found: Prediction = super().__call__(query=query, k=k, **more)
        return found

    async def acall(self, query: str, k: int | None = None, **more: Any) -> Prediction:
        """As a call, awaited."""
        found: Prediction = await super().acall(query=query, k=k, **more)
        return found

    async def aforward(self, query: str, k: int | None = None, **more: Any) -> Prediction:
        rm = current_rm()
        if rm is None:
            raise RetrievalError("P049", "no retriever is configured", hint="configure(rm=BM25(passages))")
        found = await call_program(rm, {"query": query, "k": self.k if k is None else k, **more})
        return found if isinstance(found, Prediction) and "passages" in found else Prediction(passages=_texts(found))

    # -- as a parameter: nothing is learned, `k` is kept ---------------------------------------------------------

    def reset(self) -> None:
        pass

    def dump_state(self) -> dict[str, Any]:
        return {"k": self.k}

    def check_state(self, state: Mapping[str, Any]) -> None:
        if not isinstance(state["k"], int):
            raise TypeError(f"k is {state['k']!r}")

    def load_state(self, state: Mapping[str, Any]) -> Self:
        self.k = state["k"]
        return self

    def __repr__(self) -> str:
        return f"Retrieve(k={self.k})"


def _texts(found: Any) -> list[str]:
    rows = found if isinstance(found, (list, tuple)) else [found]
    return [row if isinstance(row, str)
            else str(row["long_text"] if isinstance(row, (Mapping, Example)) else row.long_text) for row in rows]
