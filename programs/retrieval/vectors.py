"""Passages by the nearness of vectors: exact search with NumPy, and its retriever `Embeddings`.

What holds here: vectors are float32, one row a passage; with `normalize` the score is the cosine, otherwise the inner
product. Search is exact: a matrix product over the whole corpus (a million passages of 384 numbers are 1.5 GB, and one
query is some 0.1 s); larger corpora belong into a store (`stores.py`). Equal scores keep the corpus's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tracedsl.programs.retrieval.base import Hit, RetrievalError, Retriever, check_corpus, read_index, write_index

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def embed(embedder: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    """The vectors of n texts, shape (n, d), by an `Embedder` or a function. Raises `RetrievalError` otherwise."""
    import numpy as np

    made = embedder.embed(list(texts)) if hasattr(embedder, "embed") else embedder(list(texts))
    try:
        vectors = np.ascontiguousarray(made, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise RetrievalError("P049", "the embedder returned no vectors", why=str(error),
                             hint="it has to return one vector of numbers a text") from None
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise RetrievalError("P049", f"the embedder returned an array of shape {vectors.shape} for {len(texts)} texts",
                             why="it has to be (n, d), finite", hint="return one vector a text")
    return vectors


def identity_of(embedder: Any) -> str:
    """What an embedder is called: vectors of different ones cannot be compared."""
    return str(getattr(embedder, "identity", None) or getattr(embedder, "__qualname__", type(embedder).__qualname__))


class Vectors:
    """Vectors of texts, and the search in them."""

    def __init__(self, texts: tuple[str, ...], rows: NDArray[np.float32], embedder: Any, normalize: bool) -> None:
        self.texts, self.rows, self.embedder, self.normalize = texts, rows, embedder, normalize

    @classmethod
    def of(cls, texts: Sequence[str], embedder: Any, *, normalize: bool) -> Vectors:
        made = cls(tuple(texts), embed(embedder, texts), embedder, normalize)
        made.rows = made._scaled(made.rows)
        return made

    def _scaled(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        import numpy as np

        if not self.normalize:
            return rows
        scaled: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-10)
        return scaled

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """The `k` nearest texts for each query."""
        import numpy as np

        asked = self._scaled(embed(self.embedder, queries))
        if asked.shape[1] != self.rows.shape[1]:
            raise RetrievalError("P049", f"the query's vector has {asked.shape[1]} numbers, the corpus's "
                                 f"{self.rows.shape[1]}", hint="use the embedder that the index was built with")
        found = []
        for scores in asked @ self.rows.T:
            best = np.argsort(-scores, kind="stable")[:k] if k >= len(scores) else _top(scores, k)
            found.append([Hit(int(i), self.texts[i], float(scores[i])) for i in best])
        return found


def _top(scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """The positions of the `k` largest, the largest first and the earlier one of equal ones: without sorting all."""
    import numpy as np

    bound = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= bound)
    order: NDArray[np.intp] = candidates[np.argsort(-scores[candidates], kind="stable")][:k]
    return order


class Embeddings(Retriever):
    """`Embeddings(corpus, embedder, k=3)("a question").passages`

    Args:
        corpus: the passages.
        embedder: an `Embedder`, or a function from a list of n texts to n vectors.
        k: how many passages are returned.
        normalize: compare by the cosine (else by the inner product).
        callbacks, cache, brute_force_threshold: taken for DSPy's sake; the search here is always exact.
    """

    def __init__(self, corpus: Sequence[str], embedder: Any, k: int = 5, callbacks: Any = None, cache: bool = False,
                 brute_force_threshold: int = 20_000, normalize: bool = True) -> None:
        self.k = k
        self._vectors = Vectors.of(check_corpus(corpus), embedder, normalize=normalize)

    @property
    def corpus(self) -> tuple[str, ...]:
        return self._vectors.texts

    @property
    def embedder(self) -> Any:
        return self._vectors.embedder

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        return self._vectors.search(queries, k)

    def save(self, path: str | Path) -> None:
        """Write the index to a folder, with the embedder's name and without the embedder."""
        v = self._vectors
        settings = {"k": self.k, "normalize": v.normalize, "embedder": identity_of(v.embedder)}
        write_index(path, "vectors", v.texts, settings, {"vectors": v.rows})

    def load(self, path: str | Path, embedder: Any = None) -> Self:
        """Take over an index that `save` wrote. `embedder` must be the one it was built with; raises `RetrievalError`
        P049 and changes nothing otherwise."""
        given = embedder if embedder is not None else self.embedder
        corpus, settings, arrays = read_index(path, "vectors")
        if settings.get("embedder") != identity_of(given):
            raise RetrievalError("P049", f"the index in {path} was built with another embedder",
                                 why=f"it was {settings.get('embedder')!r}, this is {identity_of(given)!r}",
                                 hint="use the same one, or build the index again")
        rows = arrays.get("vectors")
        if rows is None or rows.ndim != 2 or len(rows) != len(corpus):
            raise RetrievalError("P049", f"the index in {path} is not whole", hint="build the index again")
        self.k, self._vectors = int(settings["k"]), Vectors(tuple(corpus), rows, given, bool(settings["normalize"]))
        return self

    @classmethod
    def from_saved(cls, path: str | Path, embedder: Any) -> Self:
        """The index that `save` wrote to a folder."""
        return cls.__new__(cls).load(path, embedder)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.corpus)} passages, k={self.k})"


class EmbeddingsWithScores(Embeddings):
    """DSPy's name for a retriever that also tells scores; `Embeddings` does so here already."""
