"""Retrieval: BM25, vectors, stores of others, Retrieve, and indexes on disk."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracedsl import program
from tracedsl.programs import (
    BM25,
    ChromaRetriever,
    Embeddings,
    FaissRetriever,
    Module,
    Predict,
    Prediction,
    ReAct,
    Retrieve,
    ScriptedLM,
    StoreRetriever,
    Tool,
    configure,
    context,
)
from tracedsl.programs.retrieval.base import RetrievalError
from tracedsl.programs.retrieval.vectors import Vectors

bm25s = pytest.importorskip("bm25s", reason="the extra `retrieval` is not installed")

CORPUS = ["Porvel is a city in Aldoria.", "Mara Osei was born in Arkona.", "Arkona is a city in Cestia.",
          "Nils Duarte was born in Felsted.", "The Tavy River runs through Porvel."]


def letters(texts: list[str]) -> Any:
    """How often each letter stands in a text."""
    return np.array([[text.casefold().count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for text in texts])


def test_bm25_finds_by_words() -> None:
    found = BM25(CORPUS, k=2)("Where was Mara Osei born?")
    assert found.passages[0] == CORPUS[1] and found.indices[0] == 1 and found.scores == sorted(found.scores)[::-1]
    assert sorted(BM25(CORPUS)("PORVEL", k=5).indices) == [0, 4]
    assert all(BM25(CORPUS)(query).passages == [] for query in ("zebra", "", "the of"))
    assert BM25(["one passage"])("one", k=9).passages == ["one passage"]
    assert asyncio.run(BM25(CORPUS).acall("Felsted", 1)).passages == [CORPUS[3]]


@pytest.mark.filterwarnings("ignore:invalid value")
@given(st.lists(st.text("ab \u00e4\u4e2d", min_size=1, max_size=12), min_size=1, max_size=6), st.text(max_size=8))
def test_bm25_takes_any_text(corpus: list[str], query: str) -> None:
    found = BM25(corpus, k=3)(query)
    assert all(corpus[i] == text for i, text in zip(found.indices, found.passages))


@pytest.mark.parametrize("corpus", [[], ["a", 3]])
def test_what_is_no_corpus(corpus: Any) -> None:
    with pytest.raises(RetrievalError, match="P049"):
        BM25(corpus)


def test_bad_queries() -> None:
    with pytest.raises(RetrievalError, match="query is text"):
        BM25(CORPUS)(3)  # type: ignore[arg-type]
    with pytest.raises(RetrievalError, match="k is 0"):
        BM25(CORPUS)("x", k=0)


def test_embeddings_find_by_nearness() -> None:
    found = Embeddings(CORPUS, letters, k=1)("arkona is a city in cestia")
    assert found.passages == [CORPUS[2]] and found.scores[0] == pytest.approx(1.0, abs=0.01)

    class OwnEmbedder:
        identity = "letters"

        def embed(self, texts: list[str]) -> Any:
            return letters(texts)

    assert Embeddings(CORPUS, OwnEmbedder(), k=2)(CORPUS[4]).indices[0] == 4


@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 2**32 - 1))
def test_vector_search_is_a_sort(n: int, k: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 3, (n, 4)).astype(np.float32)
    query = rows[:1] + 1
    found = Vectors(tuple(map(str, range(n))), rows, lambda texts: query, False).search(["q"], k)[0]
    expected = sorted(range(n), key=lambda i: (-float(query[0] @ rows[i]), i))[:k]
    assert [hit.position for hit in found] == expected


def test_indexes_are_saved_and_loaded(tmp_path: Path) -> None:
    first = BM25(CORPUS, k=2, b=0.5, stopwords=None)
    first.save(tmp_path / "bm25")
    again = BM25.from_saved(tmp_path / "bm25")
    for query in ("city in Cestia", "is", "born Felsted"):
        assert again(query).toDict() == first(query).toDict()
    dense = Embeddings(CORPUS, letters, k=3)
    dense.save(tmp_path / "dense")
    assert Embeddings.from_saved(tmp_path / "dense", letters)("Porvel").toDict() == dense("Porvel").toDict()
    assert b"pickle" not in b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert json.loads((tmp_path / "dense" / "index.json").read_text())["version"] == 1


def test_a_folder_that_is_no_index(tmp_path: Path) -> None:
    dense = Embeddings(CORPUS, letters)
    dense.save(tmp_path / "x")
    with pytest.raises(RetrievalError, match="another embedder"):
        Embeddings.from_saved(tmp_path / "x", lambda texts: letters(texts))
    with pytest.raises(RetrievalError, match="holds no bm25"):
        BM25.from_saved(tmp_path / "x")
    with pytest.raises(RetrievalError, match="no whole index"):
        BM25.from_saved(tmp_path / "nowhere")
    data = (tmp_path / "x" / "vectors.npy").read_bytes()
    (tmp_path / "x" / "vectors.npy").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(RetrievalError, match="damaged"):
        Embeddings.from_saved(tmp_path / "x", letters)
    (tmp_path / "x" / "index.json").write_text("{")
    with pytest.raises(RetrievalError, match="cannot be read"):
        dense.load(tmp_path / "x", letters)
    assert dense("Porvel", k=1).passages


def test_an_index_with_pickle_inside_is_refused(tmp_path: Path) -> None:
    from tracedsl.cache import digest

    Embeddings(CORPUS, letters).save(tmp_path)
    np.save(tmp_path / "vectors.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    head = json.loads((tmp_path / "index.json").read_text())
    head["arrays"]["vectors"] = digest((tmp_path / "vectors.npy").read_bytes())
    (tmp_path / "index.json").write_text(json.dumps(head))
    with pytest.raises(RetrievalError, match="cannot be read"):
        Embeddings.from_saved(tmp_path, letters)


def test_retrieve_asks_what_is_configured() -> None:
    with pytest.raises(RetrievalError, match="no retriever"):
        Retrieve()("x")
    configure(rm=BM25(CORPUS))
    assert Retrieve(k=1)("Felsted").passages == [CORPUS[3]]
    with context(rm=lambda query, k: [f"{query} {i}" for i in range(k)]):
        assert Retrieve(k=2)("x").passages == ["x 0", "x 1"]
    with context(rm=lambda query, k: [SimpleNamespace(long_text="long"), {"long_text": "row"}]):
        assert asyncio.run(Retrieve().acall("x")).passages == ["long", "row"]
    with context(rm=lambda query, k: Prediction(passages=["p"], scores=[1])):
        assert Retrieve()("x").scores == [1]


class RAG(Module):
    def __init__(self) -> None:
        self.retrieve = Retrieve(k=2)
        self.answer = Predict("context: list[str], question -> answer")

    def forward(self, question: str) -> Any:
        return self.answer(context=self.retrieve(question).passages, question=question)


def test_in_programs(tmp_path: Path) -> None:
    lm = ScriptedLM(lambda request: "[[ ## answer ## ]]\n" + request.messages[-1].text.split("] ")[1].split("\n")[0])
    configure(lm=lm, rm=BM25(CORPUS))
    rag = RAG()

    @program
    def run(question: str) -> str:
        return rag(question=question).answer

    assert run("Where was Mara Osei born?") == rag(question="Where was Mara Osei born?").answer == CORPUS[1]
    rag.save(tmp_path / "rag.json")
    other = RAG()
    other.retrieve.k = 9
    assert other.load(tmp_path / "rag.json").retrieve.k == 2


def test_a_retriever_is_a_tool() -> None:
    tool = Tool(BM25(CORPUS, k=1), name="search")
    assert list(tool.args) == ["query", "k"] and tool.required == ["query"] and "passages" in tool.desc
    lm = ScriptedLM(["[[ ## next_thought ## ]]\nt\n[[ ## next_tool_name ## ]]\nsearch\n[[ ## next_tool_args ## ]]\n"
                     '{"query": "Felsted"}', "[[ ## reasoning ## ]]\nr\n[[ ## answer ## ]]\nFelsted"])
    configure(lm=lm)
    made = ReAct("question -> answer", tools=[tool], max_iters=1)(question="Where?")
    assert CORPUS[3] in made.trajectory["observation_0"]


# -- stores of others: stand-ins of the shape that Chroma's collections and FAISS's indexes have -----------------------


class Collection:
    """What `ChromaRetriever` asks of a Chroma collection."""

    def query(self, *, n_results: int, include: list[str], query_texts: list[str] | None = None,
              query_embeddings: list[list[float]] | None = None) -> dict[str, Any]:
        rows = len(query_texts or query_embeddings or [])
        return {"ids": [["b", "a"][:n_results]] * rows, "documents": [["text b", "text a"][:n_results]] * rows,
                "distances": [[0.25, 0.5][:n_results]] * rows}


def test_stores_of_others() -> None:
    chroma = ChromaRetriever(Collection(), k=2)
    assert chroma("x").toDict() == {"passages": ["text b", "text a"], "indices": ["b", "a"], "scores": [0.75, 0.5]}
    assert ChromaRetriever(Collection(), k=1, embedder=letters)("x").indices == ["b"]
    any_store = StoreRetriever(lambda queries, k: [[(i, q * i, 1 / i) for i in range(1, 9)] for q in queries], k=2)
    assert any_store("ab").passages == ["ab", "abab"]

    class Index:
        def search(self, vectors: Any, k: int) -> tuple[Any, Any]:
            far = ((vectors[:, None, :] - letters(CORPUS)[None]) ** 2).sum(2)
            order = np.argsort(far, axis=1)[:, :k]
            order[:, -1] = -1       # FAISS says so where it found no more
            return np.take_along_axis(far, order, 1), order

    assert FaissRetriever(Index(), CORPUS, letters, k=2)(CORPUS[3]).indices == [3]


def test_faiss_itself() -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatL2(26)
    index.add(letters(CORPUS).astype(np.float32))
    assert FaissRetriever(index, CORPUS, letters, k=9)(CORPUS[3]).indices[0] == 3
