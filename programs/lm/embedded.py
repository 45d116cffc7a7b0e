"""The embedded model: llama.cpp in this process, through `xllamacpp`. Any GGUF file; known models by name.

What holds here: the file is loaded on the first call, not before, once for each `EmbeddedLM`. The model keeps to a
grammar or JSON schema exactly. Prompts share their common beginning, so calls with the same demonstrations cost only
what differs. Calls from several threads are safe; they queue for the model's slots.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracedsl.programs.lm import models
from tracedsl.programs.lm.base import Constraint, LMError, LMRequest, LMResponse, Usage
from tracedsl.programs.lm.client import LMClient
from tracedsl.programs.lm.prices import FREE
from tracedsl.programs.lm.wire import chat_message

if TYPE_CHECKING:
    from tracedsl.programs.adapters.base import Adapter

DEFAULT_TOKENS = 256
_FATAL_ONLY = -1


class EmbeddedLM(LMClient):
    """A model in this process.

    Args:
        model: a known name (`smollm2-135m`) or the path of a .gguf file.
        n_ctx: room for prompt and answer, in tokens.
        threads: threads that compute; the default leaves one core alone (the threads spin while they wait).
        slots: how many calls run at the same time; they share `threads`.
        constrained: whether answers are held to the adapter's grammar, so that typed fields always parse.
        progress: called as the weights are fetched (bytes here, bytes in all); default: a line on stderr.
        settings: see `LMClient`.
    """

    def __init__(self, model: str, *, n_ctx: int | None = None, threads: int | None = None, slots: int = 1,
                 constrained: bool = True, progress: models.Progress | None = None, max_tokens: int = DEFAULT_TOKENS,
                 **settings: Any) -> None:
        super().__init__(model, max_tokens=max_tokens, **{"price": FREE, **settings})
        self._info = None if model.endswith(".gguf") else models.model_info(model)
        self._n_ctx = n_ctx or (self._info.context if self._info else 4096)
        self._threads = threads or max(1, _cores() - 1)
        self._slots = slots
        self._constrained = constrained
        self._progress = progress
        self._server: Any = None
        self._weights = ""
        self._loading = threading.Lock()

    @property
    def endpoint(self) -> str:
        """The weights' digest and the engine's version: what an answer depends on."""
        if not self._weights:
            self._weights = self._info.sha256 if self._info else models.sampled_digest(self._given_path())
        return f"weights {self._weights[:16]}, xllamacpp {_engine_version()}"

    @property
    def constraints(self) -> frozenset[Constraint]:
        return frozenset({"grammar", "json_schema"}) if self._constrained else frozenset()

    @property
    def default_adapter(self) -> Adapter:
        from tracedsl.programs.adapters import adapter_by_name

        return adapter_by_name(self._info.adapter if self._info else "plain")

    def dump_state(self) -> dict[str, Any]:
        return {**super().dump_state(), "model": f"local/{self.model}"}

    def load(self) -> None:
        """Fetch the weights if need be and load them; the first call does it by itself."""
        with self._loading:
            if self._server is None:
                self._server = self._load(_import_engine())

    # -- the call ------------------------------------------------------------------------------------------------

    def _send(self, request: LMRequest) -> LMResponse:
        self.load()
        texts, usage, finish = [], Usage(), "stop"
        for i in range(request.n):
            reply = self._server.handle_chat_completions(_body(request, i))
            if "error" in reply:
                raise _refusal(self.model, reply["error"])
            choice = reply["choices"][0]
            texts.append(choice["message"].get("content") or "")
            finish = "length" if choice["finish_reason"] == "length" else finish
            spent = reply["usage"]
            usage += Usage(spent["prompt_tokens"], spent["completion_tokens"], 1)
        return LMResponse(tuple(texts), usage, finish)

    def _load(self, engine: Any) -> Any:
        path = self._path()
        parameters = engine.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = self._n_ctx * self._slots
        parameters.n_parallel = self._slots
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = self._threads
        parameters.verbosity = _FATAL_ONLY
        parameters.warmup = parameters.fit_params = parameters.ui = parameters.endpoint_slots = False
        try:
            return engine.Server(parameters)
        except RuntimeError as error:
            if self._info and models.discard_damaged(self.model, self._store):
                raise LMError("L007", f"the weights of {self.model} were damaged and have been removed",
                              hint="run it again: they are fetched anew") from error
            raise LMError("L007", f"cannot load the model file {path}",
                          why="it is damaged, no GGUF file, or of an architecture that xllamacpp does not know",
                          hint="fetch the file again, or upgrade: pip install -U xllamacpp") from error

    def _path(self) -> Path:
        if self._info is None:
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
        "messages": [chat_message(m) for m in request.messages],
        "max_tokens": request.max_tokens or DEFAULT_TOKENS,
        "temperature": 0.8 if request.temperature is None else request.temperature,
        "cache_prompt": True,
    }
    seed = request.seed if request.seed is not None else request.rollout_id
    if seed is not None:
        body["seed"] = seed + index
    if request.stop:
        body["stop"] = list(request.stop)
    if (form := request.response_format) is not None:
        if form.kind == "grammar":
            body["grammar"] = form.text
        else:
            schema = {"name": "answer", "schema": json.loads(form.text)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _refusal(model: str, error: Any) -> LMError:
    """Why llama.cpp did not answer."""
    message = str(error.get("message", error))
    if "context size" in message or error.get("type") == "exceed_context_size_error":
        return LMError("L010", f"the prompt is too long for {model}", why=message,
                       hint="use fewer or shorter demonstrations, or a larger n_ctx")
    return LMError("L003", f"{model} refused the request", why=message,
                   hint="if this concerns the grammar, use EmbeddedLM(..., constrained=False) and report it")
