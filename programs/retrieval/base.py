"""What a retriever is: a query in, the passages that fit it best out.

What holds here: a retriever is a module (`retriever(query)`, `await retriever.acall(query)`), and a tool as it is:
`ReAct(..., tools=[retriever])`. Its prediction has `passages`, their `indices` in the corpus and their `scores`, best
first. Searching changes nothing and is safe from any number of threads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tracedsl.cache import write_atomic
from tracedsl.diagnostics import TracedslError
from tracedsl.programs.driving import current_io
from tracedsl.programs.example import Prediction
from tracedsl.programs.modules.module import Module

FORMAT = "tracedsl-index"
VERSION = 1
_HEAD = "index.json"


class RetrievalError(TracedslError, ValueError):
    """An index that cannot be built, read or asked."""


class Hit(NamedTuple):
    """A passage that was found: where it stands in the corpus, its text, and how well it fits (more is better)."""

    position: int | str
    text: str
    score: float


class Retriever(Module):
    """Base of the retrievers: write `search`."""

    k: int

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """The `k` best passages for each query, best first."""
        raise NotImplementedError

    def __call__(self, query: str, k: int | None = None) -> Prediction:
        """Find the passages that fit a query best."""
        found: Prediction = super().__call__(query=query, k=k)
        return found

    async def acall(self, query: str, k: int | None = None) -> Prediction:
        """As a call; the search runs on a thread, so that an event loop goes on."""
        found: Prediction = await super().acall(query=query, k=k)
        return found

    async def aforward(self, query: str, k: int | None = None) -> Prediction:
        wanted = self.k if k is None else k
        if not isinstance(query, str):
            raise RetrievalError("P049", f"a query is text, not {type(query).__name__}", hint="pass str(...)")
        if wanted < 1:
            raise RetrievalError("P049", f"k is {wanted}", hint="ask for at least one passage")
        hits = (await current_io().call(self.search, [query], wanted))[0]
        return Prediction(passages=[hit.text for hit in hits], indices=[hit.position for hit in hits],
                          scores=[hit.score for hit in hits])


def check_corpus(corpus: Sequence[str]) -> list[str]:
    """The passages as a list; raises `RetrievalError` unless they are texts and at least one."""
    passages = list(corpus)
    if not passages:
        raise RetrievalError("P049", "the corpus is empty", hint="give at least one passage")
    for i, passage in enumerate(passages):
        if not isinstance(passage, str):
            raise RetrievalError("P049", f"corpus[{i}] is a {type(passage).__name__}, not text",
                                 hint="give one text a passage")
    return passages


# -- indexes on disk ---------------------------------------------------------------------------------------------------


def write_index(folder: str | Path, kind: str, corpus: Sequence[str], settings: Mapping[str, Any],
                arrays: Mapping[str, Any]) -> None:
    """Write an index to a folder: a JSON head and NumPy arrays, no pickle. The head comes last and names each array's
    digest, so that a folder that was written half is noticed."""
    import io

    import numpy as np

    from tracedsl.cache import digest

    path, sums = Path(folder), {}
    path.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_atomic(path / f"{name}.npy", buffer.getvalue())
        sums[name] = digest(buffer.getvalue())
    head = {"format": FORMAT, "version": VERSION, "kind": kind, "settings": dict(settings), "arrays": sums,
            "corpus": list(corpus)}
    write_atomic(path / _HEAD, json.dumps(head, ensure_ascii=False).encode())


def read_index(folder: str | Path, kind: str) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """Corpus, settings and arrays that `write_index` wrote; raises `RetrievalError` P049 for anything else."""
    import io

    import numpy as np

    from tracedsl.cache import digest

    path = Path(folder)
    try:
        head = json.loads((path / _HEAD).read_bytes())
        fits = head["format"] == FORMAT and head["version"] == VERSION and head["kind"] == kind
        raw = {name: (path / f"{Path(name).name}.npy").read_bytes() for name in head["arrays"]}
        if fits and (broken := [name for name, data in raw.items() if digest(data) != head["arrays"][name]]):
            raise RetrievalError("P049", f"the index in {path} is damaged", hint="build the index again",
                                 why=f"{broken[0]}.npy is not what was saved")
        arrays = {name: np.load(io.BytesIO(data), allow_pickle=False) for name, data in raw.items()}
        corpus, settings = check_corpus(head["corpus"]), dict(head["settings"])
    except FileNotFoundError as error:
        raise RetrievalError("P049", f"there is no whole index in {path}", why=f"{error.filename} is missing",
                             hint="build it, and save it with .save(folder)") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        if isinstance(error, RetrievalError):
            raise
        raise RetrievalError("P049", f"the index in {path} cannot be read", why=f"{type(error).__name__}: {error}",
                             hint="build the index again") from None
    if not fits:
        raise RetrievalError("P049", f"{path} holds no {kind} index of version {VERSION}",
                             why=f"it says {head['kind']!r}, version {head['version']}", hint="build the index again")
    return corpus, settings, arrays
