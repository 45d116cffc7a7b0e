"""Language models without a model: fixed answers, and an oracle whose answers depend on the request alone.

What holds here: both are real `LMClient`s, so tests drive the same path as with a paid model; `calls` counts how often
the "model" was really asked. Nothing is kept on disk unless asked for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tracedsl.cache import digest
from tracedsl.programs.lm.base import LMError, LMRequest, LMResponse, Usage
from tracedsl.programs.lm.client import LMClient

if TYPE_CHECKING:
    from tracedsl.programs.adapters.base import Adapter

Answer = str | Exception


class ScriptedLM(LMClient):
    """Answers from a list, one after the other, or from a function of the request.

    An exception in the list (or returned by the function) is raised in place of an answer.
    """

    def __init__(self, answers: Iterable[Answer] | Callable[[LMRequest], Answer], *, model: str = "scripted",
                 adapter: Adapter | None = None, cache: bool = False, **settings: Any) -> None:
        super().__init__(model, cache=cache, **settings)
        self._function = answers if callable(answers) else None
        self._answers = [] if callable(answers) else list(answers)
        self._adapter = adapter
        self.calls = 0
        self.requests: list[LMRequest] = []

    @property
    def default_adapter(self) -> Adapter:
        return self._adapter if self._adapter is not None else super().default_adapter

    def _send(self, request: LMRequest) -> LMResponse:
        texts = tuple(self._next(request) for _ in range(request.n))
        words = sum(len(m.text.split()) for m in request.messages)
        return LMResponse(texts, Usage(words, sum(len(t.split()) for t in texts), 1))

    def _next(self, request: LMRequest) -> str:
        with self._lock:
            self.calls += 1
            self.requests.append(request)
            if self._function is None:
                if not self._answers:
                    raise LMError("L011", f"the scripted model has no answer left for call {self.calls}",
                                  hint="give it more answers, or a function of the request")
                answer = self._answers.pop(0)
        if self._function is not None:
            answer = self._function(request)
        if isinstance(answer, Exception):
            raise answer
        return answer


class OracleLM(LMClient):
    """Answers every request with a pseudo-random, well-formed answer that depends on the request and `seed` alone.

    It stands in for a model where a rewrite must not change what a program does: equal requests get equal answers,
    different ones differ. It answers through the JSON adapter, whose schema travels with the request.
    """

    def __init__(self, seed: int = 0, *, cache: bool = False, **settings: Any) -> None:
        super().__init__(f"oracle-{seed}", cache=cache, **settings)
        self.seed = seed
        self.calls = 0

    @property
    def constraints(self) -> frozenset[Any]:
        return frozenset({"json_schema"})

    @property
    def default_adapter(self) -> Adapter:
        from tracedsl.programs.adapters.json import JSONAdapter

        return JSONAdapter()

    def _send(self, request: LMRequest) -> LMResponse:
        import json

        with self._lock:
            self.calls += 1
        texts = []
        for i in range(request.n):
            source = random.Random(digest(str(self.seed), request.fingerprint, str(i)))
            if request.response_format is None or request.response_format.kind != "json_schema":
                texts.append(f"answer {source.randrange(10**6)}")
                continue
            schema = json.loads(request.response_format.text)
            texts.append(json.dumps(invent(schema, schema.get("$defs", {}), source), ensure_ascii=False))
        return LMResponse(tuple(texts), Usage(0, 0, 1))


def invent(schema: dict[str, Any], definitions: dict[str, Any], source: random.Random) -> Any:
    """A pseudo-random value that fits a JSON schema as pydantic writes them."""
    if "$ref" in schema:
        return invent(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions, source)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return source.choice(schema["enum"])
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return invent(source.choice(options), definitions, source)
    if "prefixItems" in schema:
        return [invent(item, definitions, source) for item in schema["prefixItems"]]
    kind = schema.get("type", "string")
    if kind == "object":
        return {k: invent(v, definitions, source) for k, v in schema.get("properties", {}).items()}
    if kind == "array":
        return [invent(schema.get("items", {}), definitions, source) for _ in range(source.randint(1, 3))]
    return _invent_plain(kind, schema.get("format", ""), source)


def _invent_plain(kind: str, form: str, source: random.Random) -> Any:
    if kind == "integer":
        return source.randrange(1000)
    if kind == "number":
        return round(source.uniform(0, 100), 3)
    if kind == "boolean":
        return source.random() < 0.5
    if kind == "null":
        return None
    day = f"{source.randrange(1900, 2100)}-{source.randrange(1, 13):02}-{source.randrange(1, 29):02}"
    if form.startswith("date"):
        return day + ("T00:00:00" if form == "date-time" else "")
    return " ".join(source.choice(_WORDS) for _ in range(source.randint(1, 4)))


_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jade", "kelp", "lunar",
          "maple", "north", "ocean", "pearl", "quartz", "river", "stone", "tidal")
