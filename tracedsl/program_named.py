"""The program that a text names: for the command line.

What holds here: only what the user named is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracedsl.diagnostics import TracedslError

if TYPE_CHECKING:
    from tracedsl.program import Program


def named_program(text: str) -> Program:
    """The `@program` that `MODULE:FUNCTION` or `FILE.py:FUNCTION` names. Raises `TracedslError` P112."""
    from tracedsl.program import Program

    where, _, name = text.rpartition(":")
    if not where or not name:
        raise TracedslError("P112", f"{text!r} names no program", hint="write MODULE:FUNCTION or FILE.py:FUNCTION")
    try:
        found: Any = _file(Path(where)) if where.endswith(".py") else _module(where)
    except (ImportError, OSError) as error:
        raise TracedslError("P112", f"{where} cannot be imported", why=str(error),
                            hint="run it from the folder that the module lies in") from error
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Program):
        raise TracedslError("P112", f"{text!r} is no @program", why=f"it is {type(found).__name__}",
                            hint="name a function that @program decorates")
    return found


def _module(name: str) -> Any:
    sys.path.insert(0, "")
    return importlib.import_module(name)


def _file(path: Path) -> Any:
    """The module in a file, under the name that an import would give it."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    sys.path.insert(0, str(path.resolve().parent))
    return importlib.import_module(path.stem)
