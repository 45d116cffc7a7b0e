"""One model for both libraries, with books for each row of the table.

What holds here: a request that was answered once is answered from a file afterwards, with the tokens and seconds that
it took, so that a run which was stopped goes on, and each row is booked as if it began with nothing. Within a row a
repeatable request counts once, since both libraries keep answers.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tracedsl.programs.adapters import adapter_by_name
from tracedsl.programs.lm.base import LMRequest, LMResponse, Message, Usage
from tracedsl.programs.lm.client import LMClient


@dataclass
class Books:
    """What a row used."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    metric_calls: int = 0
    seen: set[str] = field(default_factory=set)


class Engine:
    """The embedded model or an endpoint, remembered on disk. `books` belongs to the row under way."""

    def __init__(self, lm: LMClient, memory: Path) -> None:
        self.lm, self.books = lm, Books()
        self._path, self._lock = memory, threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        if memory.exists():
            for line in memory.read_text().splitlines():
                row = json.loads(line)
                self._known[row["request"]] = row

    def answer(self, request: LMRequest) -> LMResponse:
        """The answer, booked."""
        name = f"{self.lm.identity} {request.fingerprint}"
        with self._lock:
            row = self._known.get(name)
            if row is None:
                started = time.perf_counter()
                response = self.lm.complete(request)
                row = {"request": name, "texts": list(response.texts), "finish": response.finish_reason,
                       "tokens": [response.usage.prompt_tokens, response.usage.completion_tokens],
                       "seconds": time.perf_counter() - started}
                self._known[name] = row
                with open(self._path, "a") as file:
                    file.write(json.dumps(row) + "\n")
            if name not in self.books.seen or not request.cacheable:
                self.books.seen.add(name)
                self.books.calls += request.n
                self.books.prompt_tokens += row["tokens"][0]
                self.books.completion_tokens += row["tokens"][1]
                self.books.seconds += row["seconds"]
        return LMResponse(tuple(row["texts"]), Usage(*row["tokens"], 1), row["finish"])


class OurLM(LMClient):
    """The engine as a model of tracedsl."""

    def __init__(self, engine: Engine, adapter: str, held: bool, **settings: Any) -> None:
        super().__init__(engine.lm.model, **settings)
        self._engine, self._adapter, self._held = engine, adapter, held

    @property
    def constraints(self) -> frozenset[Any]:
        return self._engine.lm.constraints if self._held else frozenset()

    @property
    def default_adapter(self) -> Any:
        return adapter_by_name(self._adapter)

    def _send(self, request: LMRequest) -> LMResponse:
        return self._engine.answer(request)


def dspy_lm(engine: Engine, max_tokens: int) -> Any:
    """The engine as a model of DSPy."""
    import dspy

    class TheirLM(dspy.BaseLM):  # type: ignore[misc]
        def forward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
            chat = messages or [{"role": "user", "content": prompt}]
            temperature = settings.get("temperature", self.kwargs.get("temperature"))
            request = LMRequest(tuple(Message(m["role"], _text(m["content"])) for m in chat),
                                temperature=0.0 if temperature is None else temperature,
                                max_tokens=settings.get("max_tokens") or max_tokens,
                                rollout_id=settings.get("rollout_id") or None)
            texts = []
            for i in range(settings.get("n") or 1):
                one = request if not i else request.with_(rollout_id=(request.rollout_id or 0) * 1000 + i)
                response = engine.answer(one)
                texts.append(response.texts[0])
            choices = [SimpleNamespace(index=i, finish_reason="stop", logprobs=None,
                                       message=SimpleNamespace(role="assistant", content=t, tool_calls=None))
                       for i, t in enumerate(texts)]
            usage = {"prompt_tokens": response.usage.prompt_tokens, "total_tokens": response.usage.total_tokens,
                     "completion_tokens": response.usage.completion_tokens}
            return SimpleNamespace(choices=choices, usage=usage, model=self.model)

    return TheirLM(model=Path(engine.lm.model).stem, temperature=0.0, max_tokens=max_tokens, cache=True)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
