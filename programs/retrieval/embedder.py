"""`Embedder(...)` as DSPy has it: by a model's name or from any function, to be called like a function.

What holds here: whatever it is made from, it is an embedder in the sense of `lm.embedder` and can be called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tracedsl.programs.retrieval.vectors import embed, identity_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class CallableEmbedder:
    """Texts to vectors by a function or another embedder, `batch_size` texts at a time.

    >>> CallableEmbedder(lambda texts: [[len(t), 1.0] for t in texts])(["a", "bc"]).tolist()
    [[1.0, 1.0], [2.0, 1.0]]
    """

    def __init__(self, model: Any, batch_size: int = 200) -> None:
        self.model, self.batch_size = model, max(1, batch_size)

    @property
    def identity(self) -> str:
        return identity_of(self.model)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """An array of shape (n, d) for n texts; (0, 0) for none."""
        import numpy as np

        pieces = [embed(self.model, texts[i:i + self.batch_size]) for i in range(0, len(texts), self.batch_size)]
        return np.concatenate(pieces) if pieces else np.zeros((0, 0), np.float32)

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same, without holding up an event loop."""
        return await asyncio.to_thread(self.embed, texts)

    def __call__(self, inputs: str | Sequence[str], **_: Any) -> NDArray[np.float32]:
        """The vector of one text, shape (d,), or the vectors of several, shape (n, d)."""
        if isinstance(inputs, str):
            one: NDArray[np.float32] = self.embed([inputs])[0]
            return one
        return self.embed(list(inputs))


def embedder(model: str | Callable[[list[str]], Any] | Any, batch_size: int = 200, caching: bool = True,
             **settings: Any) -> CallableEmbedder:
    """An embedder from a model's name (`"openai/text-embedding-3-small"`, `"local/..."`; further settings are the
    client's), a function from texts to vectors, or another embedder. `caching` is taken for DSPy's sake."""
    if isinstance(model, str):
        from tracedsl.programs.lm import make_embedder

        return CallableEmbedder(make_embedder(model, **settings), batch_size)
    return CallableEmbedder(model, batch_size)
