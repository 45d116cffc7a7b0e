"""Embedders: texts to vectors, from the embedded model or any OpenAI-compatible endpoint.

What holds here: a vector depends on the text, the model and where it runs alone, and `identity` names the last two:
whoever keeps vectors keeps them under it. Vectors are float32, one row a text, as long as the model makes them.
Importing this loads no client library and no NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@runtime_checkable
class Embedder(Protocol):
    """Anything that turns texts into vectors."""

    @property
    def identity(self) -> str:
        """Which model, where: a text for keys, without credentials."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """An array of shape (n, d) for n texts; (0, 0) for none. Raises `LMError`."""

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same, without holding up an event loop."""
