"""BM25: passages by the words that they share with the query. Needs no model: the default for a local corpus.

Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009); computed by `bm25s` (Lu,
2024), with Lucene's variant of the formula. What holds here: words are compared in lower case, with English stop words
left out unless told otherwise; passages that share no word with the query are not returned. Needs the extra
`retrieval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tracedsl.programs.retrieval.base import Hit, RetrievalError, Retriever, check_corpus, read_index, write_index

_WORD = r"(?u)\b\w+\b"


class BM25(Retriever):
    """`BM25(["a cat sat", "a dog ran"], k=1)("dogs and dog").passages`

    Args:
        corpus: the passages.
        k: how many are returned at most.
        k1, b: how fast a word's weight saturates, and how much a passage's length counts.
        stopwords: "english", another language that `bm25s` knows, a list, or None for none.
    """

    def __init__(self, corpus: Sequence[str], k: int = 5, *, k1: float = 1.5, b: float = 0.75,
                 stopwords: str | list[str] | None = "english") -> None:
        self.corpus = tuple(check_corpus(corpus))
        self.k = k
        self._settings = {"k1": k1, "b": b, "stopwords": stopwords}
        self._index = _bm25s().BM25(k1=k1, b=b)
        words = self._tokens(self.corpus)
        self._known = frozenset(word for passage in words for word in passage)
        if self._known:     # a corpus of stop words alone has no index, and nothing to find
            self._index.index(words, show_progress=False)

    def _tokens(self, texts: Sequence[str]) -> Any:
        stopwords = self._settings["stopwords"]
        return _bm25s().tokenize(list(texts), stopwords=[] if stopwords is None else stopwords, token_pattern=_WORD,
                                 return_ids=False, show_progress=False)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        found: list[list[Hit]] = []
        for words in self._tokens(queries):
            known = [word for word in words if word in self._known]
            if not known:
                found.append([])
                continue
            indices, scores = self._index.retrieve([known], k=min(k, len(self.corpus)), show_progress=False)
            found.append([Hit(int(i), self.corpus[i], float(s)) for i, s in zip(indices[0], scores[0]) if s > 0])
        return found

    def save(self, path: str | Path) -> None:
        """Write corpus and settings to a folder; the words are counted again when it is loaded."""
        write_index(path, "bm25", self.corpus, {**self._settings, "k": self.k}, {})

    def load(self, path: str | Path) -> Self:
        """Take over what `save` wrote; raises `RetrievalError` P049 and changes nothing if it is no good."""
        corpus, settings, _ = read_index(path, "bm25")
        try:
            made = type(self)(corpus, **settings)
        except TypeError as error:
            raise RetrievalError("P049", f"the index in {path} does not fit", why=str(error),
                                 hint="build the index again") from None
        self.__dict__.update(made.__dict__)
        return self

    @classmethod
    def from_saved(cls, path: str | Path) -> Self:
        """What `save` wrote to a folder."""
        return cls.__new__(cls).load(path)

    def __repr__(self) -> str:
        return f"BM25({len(self.corpus)} passages, k={self.k})"


def _bm25s() -> Any:
    try:
        import bm25s
    except ImportError:
        raise RetrievalError("P049", "BM25 needs a package that is not installed", why="there is no `bm25s`",
                             hint="pip install 'tracedsl[retrieval]'") from None
    return bm25s
