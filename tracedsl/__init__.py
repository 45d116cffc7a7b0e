"""tracedsl: two decorators, one compiler.

`@kernel` compiles NumPy functions, `@program` compiles functions that call language models.

What holds here: importing this package loads nothing but this file. Every public name is loaded on first use, so
that `import tracedsl` costs milliseconds, touches no network and needs neither LLVM nor a language-model client.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tracedsl.cache import Store as Store
    from tracedsl.capture.hints import hint as hint
    from tracedsl.diagnostics import TracedslError as TracedslError
    from tracedsl.diagnostics import Unsupported as Unsupported
    from tracedsl.ir.compute import axis as axis
    from tracedsl.ir.compute import compute as compute
    from tracedsl.ir.compute import reduce_axis as reduce_axis
    from tracedsl.kernel import kernel as kernel
    from tracedsl.program import program as program

# public name -> the module that defines it
_EXPORTS = {
    "kernel": "tracedsl.kernel",
    "program": "tracedsl.program",
    "hint": "tracedsl.capture.hints",
    "compute": "tracedsl.ir.compute",
    "axis": "tracedsl.ir.compute",
    "reduce_axis": "tracedsl.ir.compute",
    "Store": "tracedsl.cache",
    "TracedslError": "tracedsl.diagnostics",
    "Unsupported": "tracedsl.diagnostics",
}

__all__ = [*_EXPORTS, "__version__"]


class _Package(ModuleType):
    """The type of this package: keeps `tracedsl.kernel` the decorator even after the module `tracedsl/kernel.py`
    was imported (the import system would otherwise put the module there)."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _EXPORTS and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'tracedsl' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


# In a checkout, hw/, autotune/ and programs/ stand beside this folder; in a wheel they are inside it.
_here = os.path.dirname(os.path.abspath(__file__))
if not os.path.isdir(os.path.join(_here, "hw")):
    __path__.append(os.path.dirname(_here))

sys.modules[__name__].__class__ = _Package
