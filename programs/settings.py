"""`settings`: what is in force, to read and to set, under the names that DSPy has.

What holds here: nothing is kept here; `programs.context` says what is in force.
"""

from __future__ import annotations

from typing import Any

from tracedsl.programs.context import configure, context, settings_in_force


class _SettingsInForce:
    """`settings.lm`, `settings.adapter` and `settings.rm` (None where nothing was set), `settings.configure(...)`,
    `with settings.context(...)`."""

    __name__ = "settings"
    configure = staticmethod(configure)
    context = staticmethod(context)

    @property
    def lm(self) -> Any:
        return settings_in_force().lm

    @property
    def adapter(self) -> Any:
        return settings_in_force().adapter

    @property
    def rm(self) -> Any:
        return settings_in_force().rm

    def __repr__(self) -> str:
        return f"settings(lm={self.lm!r}, adapter={self.adapter!r}, rm={self.rm!r})"


settings = _SettingsInForce()
