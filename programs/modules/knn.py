"""KNN: the examples of a training set that are most like a question.

What holds here: nothing is learned; vectors are made once, when it is built, and compared by their inner product, as in
DSPy. An `Embedder`, `SentenceTransformer(...).encode`, or any function from texts to vectors will do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracedsl.programs.driving import current_io, drive
from tracedsl.programs.example import Example
from tracedsl.programs.modules.agents import ModuleError


class KNN:
    """`KNN(k=3, trainset=train, vectorizer=embedder)(question="...")`: the `k` nearest examples, the nearest first.

    Args:
        k: how many.
        trainset: examples that know their inputs.
        vectorizer: an `Embedder`, or a function from a list of n texts to n vectors.
    """

    def __init__(self, k: int, trainset: Sequence[Example], vectorizer: Any) -> None:
        from tracedsl.programs.evaluate import check_examples
        from tracedsl.programs.retrieval.vectors import Vectors

        check_examples(trainset, "trainset")
        if k < 1:
            raise ModuleError("P047", f"k is {k}", hint="ask for at least one neighbour")
        self.k = k
        self.trainset = list(trainset)
        self.embedding = vectorizer
        self._vectors = Vectors.of([as_query(dict(e.inputs().items())) for e in self.trainset], vectorizer,
                                   normalize=False)

    def __call__(self, **inputs: Any) -> list[Example]:
        return drive(self.acall(**inputs))

    async def acall(self, **inputs: Any) -> list[Example]:
        """As a call, awaited."""
        found = await current_io().call(self._vectors.search, [as_query(inputs)], self.k)
        return [self.trainset[int(hit.position)] for hit in found[0]]


def as_query(inputs: Mapping[str, Any]) -> str:
    """Inputs as one text: `question: ... | context: ...`."""
    return " | ".join(f"{name}: {value}" for name, value in inputs.items())
