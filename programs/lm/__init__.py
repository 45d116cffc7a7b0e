"""Language-model clients behind one protocol: endpoints, the embedded model, scripted ones.

What holds here: importing this package loads no client library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracedsl.programs.lm.client import LMClient
    from tracedsl.programs.lm.embedder import Embedder


def make_lm(model: str, **settings: Any) -> LMClient:
    """A client by the model's name.

    `local/NAME` and `local/path/to/file.gguf` (or any name that ends in `.gguf`) run in this process; everything else
    goes to an OpenAI-compatible endpoint: `openai/NAME`, with `api_base` and `api_key` if it is not OpenAI's own.
    Further settings are those of `EmbeddedLM` and `OpenAILM`.
    """
    provider, _, name = model.partition("/")
    if provider == "local" or model.endswith(".gguf"):
        from tracedsl.programs.lm.embedded import EmbeddedLM

        return EmbeddedLM(name if provider == "local" else model, **settings)
    from tracedsl.programs.lm.openai_lm import OpenAILM

    return OpenAILM(name if provider == "openai" else model, **settings)


def make_embedder(model: str = "local/smollm2-135m", **settings: Any) -> Embedder:
    """An embedder by the model's name, written as for `make_lm`; the default runs in this process. Further settings are
    those of `EmbeddedEmbedder` and `OpenAIEmbedder`."""
    provider, _, name = model.partition("/")
    if provider == "local" or model.endswith(".gguf"):
        from tracedsl.programs.lm.embedded import EmbeddedEmbedder

        return EmbeddedEmbedder(name if provider == "local" else model, **settings)
    from tracedsl.programs.lm.openai_lm import OpenAIEmbedder

    return OpenAIEmbedder(name if provider == "openai" else model, **settings)
