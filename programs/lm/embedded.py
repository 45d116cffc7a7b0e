"""The embedded model: llama.cpp in this process, through `xllamacpp`. Any GGUF file; known models by name.

What holds here: the file is loaded on the first call, not before, once for each `EmbeddedLM`. The model keeps to a
grammar or JSON schema exactly. Prompts share their common beginning, so calls with the same demonstrations cost only
what differs. Calls from several threads and tasks are safe: they are batched over the model's slots, and queue for
them. Every answer is streamed inside, so that whoever gives up (Ctrl-C, a cancelled task, a closed stream) frees its
slot.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import threading
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracedsl.cache import Store
from tracedsl.programs.driving import current_io, drive, pushed
from tracedsl.programs.lm import models
from tracedsl.programs.lm.base import Capability, Constraint, LMChunk, LMError, LMRequest, LMResponse, Usage
from tracedsl.programs.lm.client import LMClient
from tracedsl.programs.lm.prices import FREE
from tracedsl.programs.lm.wire import ChatStream, chat_body

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tracedsl.programs.adapters.base import Adapter

DEFAULT_TOKENS = 256
_FATAL_ONLY = -1


class EmbeddedLM(LMClient):
    """A model in this process.

    Args:
        model: a known name (`smollm2-135m`) or the path of a .gguf file.
        n_ctx: room for prompt and answer, in tokens.
        threads: threads that compute; the default leaves one core alone (the threads spin while they wait).
        slots: how many calls run at the same time, batched; they share `threads`. What stands beside a call in a batch
            may change the last bits of its probabilities: with one slot, equal calls give equal answers.
        constrained: whether answers are held to the adapter's grammar, so that typed fields always parse.
        capabilities: what the model takes and gives beside text; "tools" for one that was trained to call them.
        progress: called as the weights are fetched (bytes here, bytes in all); default: a line on stderr.
        settings: see `LMClient`.
    """

    def __init__(self, model: str, *, n_ctx: int | None = None, threads: int | None = None, slots: int = 1,
                 constrained: bool = True, capabilities: Iterable[Capability] = ("logprobs",),
                 progress: models.Progress | None = None, max_tokens: int = DEFAULT_TOKENS, **settings: Any) -> None:
        super().__init__(model, max_tokens=max_tokens, **{"price": FREE, **settings})
        self._engine = _Engine(model, n_ctx, threads, slots, progress, self._store)
        self._constrained = constrained
        self._capabilities = frozenset(capabilities)

    @property
    def endpoint(self) -> str:
        """The weights' digest and the engine's version: what an answer depends on."""
        return self._engine.identity

    @property
    def constraints(self) -> frozenset[Constraint]:
        return frozenset({"grammar", "json_schema"}) if self._constrained else frozenset()

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._capabilities

    @property
    def default_adapter(self) -> Adapter:
        from tracedsl.programs.adapters import adapter_by_name

        return adapter_by_name(self._engine.info.adapter if self._engine.info else "plain")

    def dump_state(self) -> dict[str, Any]:
        return {**super().dump_state(), "model": f"local/{self.model}"}

    def load(self) -> None:
        """Fetch the weights if need be and load them; the first call does it by itself."""
        self._engine.server()

    # -- the call ------------------------------------------------------------------------------------------------

    async def _asend(self, request: LMRequest) -> LMResponse:
        response: LMResponse | None = None
        async with aclosing(self._astream(request)) as chunks:
            async for chunk in chunks:
                response = chunk.response
        assert response is not None     # a stream that breaks off raises
        return response

    async def _astream(self, request: LMRequest) -> AsyncGenerator[LMChunk, None]:
        server = await current_io().call(self._engine.server)
        answers: list[LMResponse] = []
        for i in range(request.n):
            stream = ChatStream()
            async with aclosing(pushed(partial(server.handle_chat_completions, _body(request, i)))) as events:
                async for event in events:
                    if "error" in event:
                        raise _refusal(self.model, event["error"])
                    for chunk in stream.add(event):
                        yield replace(chunk, index=i)
            answer = stream.finished()
            if answer is None:
                raise LMError("L003", f"{self.model} ended in the middle of an answer", hint="report it")
            answers.append(answer)
        yield LMChunk(response=_joined(answers))


class EmbeddedEmbedder:
    """Vectors from a model in this process: the mean over its last layer, of length 1.

    Args:
        model: a known name (`smollm2-135m`) or the path of a .gguf file, best of an embedding model.
        n_ctx: room for one text, in tokens.
        threads, progress: as for `EmbeddedLM`.
        store: where the weights are kept.
    """

    def __init__(self, model: str = models.DEFAULT, *, n_ctx: int = 512, threads: int | None = None,
                 progress: models.Progress | None = None, store: Store | None = None) -> None:
        self.model = model
        self._engine = _Engine(model, n_ctx, threads, 1, progress, store or Store(), embeds=True)

    @property
    def identity(self) -> str:
        return f"{self.model} @ {self._engine.identity}, mean"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Embedder`. Raises `LMError` L010 for a text longer than `n_ctx`."""
        return drive(self.aembed(texts))

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Embedder`."""
        import numpy as np

        if not texts:
            return np.zeros((0, 0), np.float32)
        server = await current_io().call(self._engine.server)
        reply = await current_io().call(server.handle_embeddings, {"input": [text or " " for text in texts]})
        if "error" in reply:
            raise _refusal(self.model, reply["error"])
        rows = sorted(reply["data"], key=lambda row: int(row["index"]))
        return np.array([row["embedding"] for row in rows], np.float32)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"


class _Engine:
    """A weights file and the llama.cpp server that runs it, made when it is first needed."""

    def __init__(self, model: str, n_ctx: int | None, threads: int | None, slots: int,
                 progress: models.Progress | None, store: Store, *, embeds: bool = False) -> None:
        self.model = model
        self.info = None if model.endswith(".gguf") else models.model_info(model)
        self._n_ctx = n_ctx or (self.info.context if self.info else 4096)
        self._threads = threads or max(1, _cores() - 1)
        self._slots, self._embeds, self._progress, self._store = slots, embeds, progress, store
        self._server: Any = None
        self._weights = ""
        self._loading = threading.Lock()

    @property
    def identity(self) -> str:
        """The weights' digest and the engine's version."""
        if not self._weights:
            self._weights = self.info.sha256 if self.info else models.sampled_digest(self._given_path())
        return f"weights {self._weights[:16]}, xllamacpp {_engine_version()}"

    def server(self) -> Any:
        """The running server."""
        with self._loading:
            if self._server is None:
                self._server = self._load(_import_engine())
            return self._server

    def _load(self, engine: Any) -> Any:
        path = self._path()
        parameters = engine.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = self._n_ctx * self._slots
        parameters.n_parallel = self._slots
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = self._threads
        parameters.verbosity = _FATAL_ONLY
        parameters.warmup = parameters.fit_params = parameters.ui = parameters.endpoint_slots = False
        if self._embeds:
            parameters.embedding = True
            parameters.pooling_type = engine.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
            parameters.n_batch = parameters.n_ubatch = self._n_ctx      # a text is one batch
        try:
            return engine.Server(parameters)
        except RuntimeError as error:
            if self.info and models.discard_damaged(self.model, self._store):
                raise LMError("L007", f"the weights of {self.model} were damaged and have been removed",
                              hint="run it again: they are fetched anew") from error
            raise LMError("L007", f"cannot load the model file {path}",
                          why="it is damaged, no GGUF file, or of an architecture that xllamacpp does not know",
                          hint="fetch the file again, or upgrade: pip install -U xllamacpp") from error

    def _path(self) -> Path:
        if self.info is None:
            return self._given_path()
        found = models.local_path(self.model, self._store)
        return found or models.pull(self.model, self._progress, store=self._store)

    def _given_path(self) -> Path:
        path = Path(self.model).expanduser()
        if not path.is_file():
            raise LMError("L007", f"there is no model file {path}", why="it has to be a GGUF file on this machine",
                          hint=f"correct the path, or use a known model: {', '.join(models.MODELS)}")
        return path


def _import_engine() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise LMError("L006", "the embedded model needs the package xllamacpp", why=str(error),
                      hint='pip install "tracedsl[local]"') from error
    return xllamacpp


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _engine_version() -> str:
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _body(request: LMRequest, index: int) -> dict[str, Any]:
    """The request as llama.cpp's chat endpoint takes it; answer `index` of several gets a seed of its own. A rollout's
    number is its seed, so that it can be repeated."""
    body: dict[str, Any] = {
        **chat_body(request),
        "max_tokens": request.max_tokens or DEFAULT_TOKENS,
        "temperature": 0.8 if request.temperature is None else request.temperature,
        "cache_prompt": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    seed = request.seed if request.seed is not None else request.rollout_id
    if seed is not None:
        body["seed"] = seed + index
    if (form := request.response_format) is not None:
        if form.kind == "grammar":
            body["grammar"] = form.text
        else:
            schema = {"name": "answer", "schema": json.loads(form.text)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _joined(answers: list[LMResponse]) -> LMResponse:
    """Several answers of one each as one response."""
    if len(answers) == 1:
        return answers[0]
    finish = {a.finish_reason for a in answers}
    calls = tuple(a.tool_calls[0] if a.tool_calls else () for a in answers)
    reasoning = tuple(a.reasoning[0] if a.reasoning else "" for a in answers)
    return LMResponse(
        tuple(a.texts[0] for a in answers), sum((a.usage for a in answers), Usage()),
        next((f for f in ("length", "tool_calls") if f in finish), "stop"),
        tool_calls=calls if any(calls) else (), reasoning=reasoning if any(reasoning) else (),
        logprobs=tuple(a.logprobs[0] for a in answers) if all(a.logprobs for a in answers) else ())


def _refusal(model: str, error: Any) -> LMError:
    """Why llama.cpp did not answer."""
    message = str(error.get("message", error))
    too_long = "context size" in message or "too large to process" in message
    if too_long or error.get("type") == "exceed_context_size_error":
        return LMError("L010", f"the prompt is too long for {model}", why=message,
                       hint="use fewer or shorter demonstrations, or a larger n_ctx")
    return LMError("L003", f"{model} refused the request", why=message,
                   hint="if this concerns the grammar, use EmbeddedLM(..., constrained=False) and report it")
