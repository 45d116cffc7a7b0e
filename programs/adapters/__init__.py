"""Prompt layouts: how a signature, demonstrations and inputs become messages, and answers become values."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tracedsl.diagnostics import TracedslError, nearest

if TYPE_CHECKING:
    from tracedsl.programs.adapters.base import Adapter

_CLASSES = {"chat": "ChatAdapter", "json": "JSONAdapter", "plain": "PlainAdapter", "xml": "XMLAdapter",
            "baml": "BAMLAdapter"}
NAMES = tuple(_CLASSES)


def adapter_by_name(name: str) -> Adapter:
    """The adapter with this name, as it stands in an artefact or in the registry of models."""
    if name in NAMES:
        module, attribute = f"tracedsl.programs.adapters.{name}", _CLASSES[name]
        made: Adapter = getattr(import_module(module), attribute)()
        return made
    raise TracedslError("P003", f"there is no adapter {name!r}", hint=nearest(name, NAMES))
