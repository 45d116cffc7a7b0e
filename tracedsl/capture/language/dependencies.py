"""What a program depends on besides its arguments: helper functions, modules of language-model calls, constants.

What holds here: the digest changes whenever the source of the program or of a helper of the user changes, however deep,
or a plain outer value, or a module's instructions. Functions of installed libraries count by name. No NumPy is needed.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from tracedsl.cache import digest
from tracedsl.capture.language.python_rules import is_plain
from tracedsl.capture.language.sites import state_digest
from tracedsl.capture.source import read_source
from tracedsl.diagnostics import Unsupported
from tracedsl.programs.modules.module import Module

_LIBRARIES = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def is_library(file: str) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    return file.startswith(_LIBRARIES)


def source_digest(function: Callable[..., Any]) -> str:
    """64 hex digits that change with the function's meaning; with its byte code where there is no source."""
    plain = _plain(function)
    if not isinstance(plain, FunctionType):
        return digest(repr(function) if not isinstance(function, type) else function.__qualname__)
    try:
        return read_source(plain).digest
    except Unsupported:
        code = plain.__code__
        return digest(code.co_code, *(repr(c) for c in code.co_consts if not isinstance(c, CodeType)))


def _plain(value: Any) -> Any:
    """The function itself, or the one inside a kernel or a program."""
    return value if isinstance(value, FunctionType) else getattr(value, "__wrapped__", value)


def helpers_digest(function: FunctionType) -> str:
    """64 hex digits over everything outside of the function that it uses, as far as it can be followed."""
    rows: dict[str, str] = {}
    _collect(function, rows, set())
    return digest(*(f"{name}={text}" for name, text in sorted(rows.items())))


def _collect(function: FunctionType, rows: dict[str, str], seen: set[int]) -> None:
    if id(function) in seen:
        return
    seen.add(id(function))
    for path, value in outer_values(function):
        plain = _plain(value)
        if isinstance(plain, FunctionType):
            rows[path] = f"{plain.__module__}.{plain.__qualname__}"
            if not is_library(plain.__code__.co_filename) and not plain.__module__.startswith("tracedsl."):
                rows[path] = source_digest(plain)
                _collect(plain, rows, seen)
        elif isinstance(value, Module):
            rows[path] = state_digest(value)
        elif is_plain(value):
            rows[path] = repr(value)
        elif isinstance(value, type) and hasattr(value, "fingerprint"):
            rows[path] = str(value.fingerprint)      # a signature


def outer_values(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Outer names that the function, or code inside it, mentions, with their values; those of modules of the user too
    (`helpers.search`)."""
    names = names_in(function.__code__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            yield f"{function.__qualname__}.{name}", cell.cell_contents
        except ValueError:
            continue
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        yield f"{function.__module__}.{name}", value
        if isinstance(value, ModuleType):
            for inner in sorted(names & vars(value).keys()):
                if isinstance(vars(value)[inner], FunctionType):
                    yield f"{value.__name__}.{inner}", vars(value)[inner]


def names_in(code: CodeType) -> set[str]:
    """The names that the code, or code inside it, mentions: globals, attributes, imports."""
    return set(_names(code))


def constants_in(code: CodeType) -> Iterator[Any]:
    """The constants of the code, and of code inside it."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from constants_in(constant)
        else:
            yield constant


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
