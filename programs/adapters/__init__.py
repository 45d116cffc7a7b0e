"""Prompt layouts: how a signature, demonstrations and inputs become messages, and answers become values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracedsl.diagnostics import TracedslError, nearest

if TYPE_CHECKING:
    from tracedsl.programs.adapters.base import Adapter

NAMES = ("chat", "json", "plain")


def adapter_by_name(name: str) -> Adapter:
    """The adapter with this name, as it stands in an artefact or in the registry of models."""
    from tracedsl.programs.adapters.chat import ChatAdapter
    from tracedsl.programs.adapters.json import JSONAdapter
    from tracedsl.programs.adapters.plain import PlainAdapter

    for adapter in (ChatAdapter(), JSONAdapter(), PlainAdapter()):
        if adapter.name == name:
            return adapter
    raise TracedslError("P003", f"there is no adapter {name!r}", hint=nearest(name, NAMES))
