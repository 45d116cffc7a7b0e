"""Retrievers over stores of others: Chroma, FAISS, and whatever can answer `search`.

What holds here: the store's package is the user's, and nothing of it is imported here: each adapter asks the few
methods that it needs of the object that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracedsl.programs.retrieval.base import Hit, Retriever
from tracedsl.programs.retrieval.vectors import embed

Search = Callable[[Sequence[str], int], Sequence[Sequence[Any]]]


class StoreRetriever(Retriever):
    """Any store: `search(queries, k)` returns for each query rows of (id, text, score), best first.

    >>> StoreRetriever(lambda queries, k: [[("a", "text of a", 1.0)] for _ in queries])("x").passages
    ['text of a']
    """

    def __init__(self, search: Search, k: int = 5) -> None:
        self._search, self.k = search, k

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        return [[Hit(i, str(text), float(score)) for i, text, score in list(rows)[:k]]
                for rows in self._search(list(queries), k)]


class ChromaRetriever(Retriever):
    """A collection of Chroma. `embedder` None lets the collection embed the query itself. The score is 1 - distance."""

    def __init__(self, collection: Any, k: int = 5, embedder: Any = None) -> None:
        self._collection, self._embedder, self.k = collection, embedder, k

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        asked: dict[str, Any] = {"query_texts": list(queries)} if self._embedder is None else {
            "query_embeddings": embed(self._embedder, queries).tolist()}
        found = self._collection.query(**asked, n_results=k, include=["documents", "distances"])
        rows = zip(found["ids"], found["documents"], found["distances"])
        return [[Hit(i, text, 1.0 - float(far)) for i, text, far in zip(*row)] for row in rows]


class FaissRetriever(Retriever):
    """An index of FAISS whose row i belongs to `corpus[i]`. `nearer_is_less`: the index tells distances (as
    `IndexFlatL2` does), not inner products; the score is then the negative distance."""

    def __init__(self, index: Any, corpus: Sequence[str], embedder: Any, k: int = 5, *,
                 nearer_is_less: bool = True) -> None:
        self._index, self.corpus, self._embedder, self.k = index, tuple(corpus), embedder, k
        self._sign = -1.0 if nearer_is_less else 1.0

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        scores, places = self._index.search(embed(self._embedder, queries), min(k, len(self.corpus)))
        return [[Hit(int(i), self.corpus[i], self._sign * float(s)) for s, i in zip(*row) if i >= 0]
                for row in zip(scores, places)]
