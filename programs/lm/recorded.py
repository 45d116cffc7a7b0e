"""Record a model's answers to a file, and replay them without the model.

What holds here: the file is JSON lines, the first of which describes the model; a line is written whole, at once, when
its answer is there. Replaying makes no call: a request that was not recorded is a clear error. The replayed model has
the identity, the defaults and the prompt layout of the recorded one, so that programs send it the same requests.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracedsl.programs.lm.base import Capability, Constraint, LMError, LMRequest, LMResponse
from tracedsl.programs.lm.client import LMClient
from tracedsl.programs.lm.prices import FREE
from tracedsl.programs.lm.stored import from_json, to_json

if TYPE_CHECKING:
    from tracedsl.programs.adapters.base import Adapter

FORMAT, VERSION = "tracedsl-recording", 1


class RecordingLM(LMClient):
    """`RecordingLM(lm, "answers.jsonl")`: `lm`, with every answer appended to a file."""

    def __init__(self, lm: LMClient, path: str | Path) -> None:
        super().__init__(lm.model, temperature=lm.temperature, max_tokens=lm.max_tokens, cache=False, num_retries=0,
                         price=FREE)   # retries, books and cache are those of `lm`
        self._lm = lm
        self._path = Path(path)

    @property
    def endpoint(self) -> str:
        return self._lm.endpoint

    @property
    def identity(self) -> str:
        return self._lm.identity

    @property
    def constraints(self) -> frozenset[Constraint]:
        return self._lm.constraints

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._lm.capabilities

    @property
    def default_adapter(self) -> Adapter:
        return self._lm.default_adapter

    def dump_state(self) -> dict[str, Any]:
        return self._lm.dump_state()

    async def acomplete(self, request: LMRequest) -> LMResponse:
        response = await self._lm.acomplete(request)
        self._write(request, response)
        return response

    def _write(self, request: LMRequest, response: LMResponse) -> None:
        row = {"request": request.as_json(), "fingerprint": request.fingerprint, "answer": to_json(response)}
        with self._lock, open(self._path, "ab") as file:
            lines = [] if file.tell() else [self._header()]
            file.write(b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in (*lines, row)))
            file.flush()
            os.fsync(file.fileno())

    def _header(self) -> dict[str, Any]:
        lm = self._lm
        return {"format": FORMAT, "version": VERSION, "model": lm.model, "endpoint": lm.endpoint,
                "temperature": lm.temperature, "max_tokens": lm.max_tokens, "constraints": sorted(lm.constraints),
                "capabilities": sorted(lm.capabilities), "adapter": lm.default_adapter.name}


class ReplayLM(LMClient):
    """`ReplayLM("answers.jsonl")`: the recorded answers. Where the same request was recorded several times (at a
    temperature above 0), its answers come in their order; after the last one, and for every other request, `LMError`
    L015. `calls` counts the requests."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._header, self._answers = _read(self._path)
        super().__init__(self._header["model"], temperature=self._header["temperature"],
                         max_tokens=self._header["max_tokens"], cache=False, num_retries=0, price=FREE)
        self.calls = 0

    @property
    def endpoint(self) -> str:
        return str(self._header["endpoint"])

    @property
    def constraints(self) -> frozenset[Constraint]:
        return frozenset(self._header["constraints"])

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset(self._header["capabilities"])

    @property
    def default_adapter(self) -> Adapter:
        from tracedsl.programs.adapters import adapter_by_name

        return adapter_by_name(self._header["adapter"])

    async def _asend(self, request: LMRequest) -> LMResponse:
        with self._lock:
            self.calls += 1
            known = self._answers.get(request.fingerprint)
            if known:
                return known[0] if request.cacheable else known.popleft()
        shown = request.messages[-1].text[:200] if request.messages else ""
        why = "its recorded answers are used up" if known is not None else f"the request was not recorded: ...{shown!r}"
        raise LMError("L015", f"{self._path.name} has no answer for call {self.calls}", why=why,
                      hint="record again: RecordingLM(lm, path); a changed prompt, setting or layout is another one")


def _read(path: Path) -> tuple[Mapping[str, Any], dict[str, deque[LMResponse]]]:
    """The description of the model and the answers by request; a torn last line is left out."""
    try:
        lines = path.read_bytes().split(b"\n")
        header = json.loads(lines[0])
    except (OSError, ValueError) as error:
        raise LMError("L015", f"{path} is not a recording", why=str(error), hint="RecordingLM(lm, path) makes one",
                      ) from None
    if not isinstance(header, dict) or (header.get("format"), header.get("version")) != (FORMAT, VERSION):
        raise LMError("L015", f"{path} is not a recording", why=f"its first line does not say {FORMAT!r} {VERSION}",
                      hint="RecordingLM(lm, path) makes one")
    answers: dict[str, deque[LMResponse]] = {}
    for line in lines[1:]:
        try:
            row = json.loads(line)
            response = from_json(row["answer"])
            if response is not None:
                answers.setdefault(row["fingerprint"], deque()).append(response)
        except (ValueError, KeyError, TypeError):
            continue
    return header, answers
