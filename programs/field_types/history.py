"""History: an earlier conversation, as a field. Its messages become turns of the prompt, before the question."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ConfigDict

from tracedsl.programs.field_types.base import Type


class History(Type):
    """`History(messages=[{"question": "...", "answer": "..."}])`: each message holds fields of the signature."""

    field_role: ClassVar[str] = "history"
    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: list[dict[str, Any]]
