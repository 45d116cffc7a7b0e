"""Lazy public names: a package whose names are loaded on first use.

What holds here: importing such a package loads none of its modules; its submodules are loaded when they are asked for,
too. A name wins over a module of the same name: after `import tracedsl.kernel` the package's attribute `kernel` still
is the decorator, not the module.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class LazyPackage(ModuleType):
    """The type of a package with lazy names; `_exports` maps a name to (module, attribute)."""

    _exports: Mapping[str, tuple[str, str]]

    def __getattr__(self, name: str) -> Any:
        if name not in self._exports:
            if not name.startswith("_") and find_spec(f"{self.__name__}.{name}") is not None:
                return import_module(f"{self.__name__}.{name}")
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module, attribute = self._exports[name]
        return getattr(import_module(module), attribute)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in self._exports:
            module, attribute = self._exports[name]
            value = getattr(value, attribute) if value.__name__ == module else self.__getattr__(name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*self._exports, *super().__dir__()})


def make_lazy(package: str, modules: Mapping[str, str]) -> None:
    """Give a package lazy names. `modules` maps a module, relative to the package, to its public names, separated by
    spaces; `name=attribute` gives an attribute another public name."""
    exports: dict[str, tuple[str, str]] = {}
    for module, names in modules.items():
        for entry in names.split():
            name, _, attribute = entry.partition("=")
            exports[name] = (f"{package}.{module}", attribute or name)
    module_object = sys.modules[package]
    module_object.__class__ = LazyPackage
    module_object.__dict__["_exports"] = exports
    module_object.__dict__["__all__"] = sorted(exports)
