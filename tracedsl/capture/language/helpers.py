"""Helper functions of a program that run with it: their calls overlap like those of the program itself.

What holds here: a helper is a plain function of the user that can be captured and from which a model can be reached;
its rewritten code runs in the same run, under the same rules. Every other function stays what it was: unknown code. So
which functions count as helpers changes when calls are made, and never what a program does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from types import CodeType, FunctionType, MethodType
from typing import Any

from tracedsl.capture.language.dependencies import is_library, names_in, outer_values
from tracedsl.capture.language.python_expressions import CallSite
from tracedsl.capture.language.python_rewrite import Rewritten, rewrite_function
from tracedsl.capture.source import read_source
from tracedsl.diagnostics import Unsupported
from tracedsl.programs.modules.module import Module

DEEPEST = 60
_CO_VARKEYWORDS = 0x08
_ASKING = frozenset({"create", "parse"})
_RESOURCES = frozenset({"completions", "responses"})
_FURTHEST = 8

_seen_asking: set[CodeType] = set()      # functions that were seen to call a model when they ran


@dataclass(frozen=True)
class Helper:
    """A captured helper. `first` is the object that a method is bound to, `bound` says whether there is one."""

    function: FunctionType
    rewritten: Rewritten
    first: Any = None
    bound: bool = False


def helper_of(callee: Any) -> Helper | None:
    """The helper behind a callee, if it is one."""
    function, bound = callee, type(callee) is MethodType
    if bound:
        function = callee.__func__
    if type(function) is not FunctionType or not _eligible(function.__code__, function.__module__):
        return None
    if function.__code__ not in _seen_asking and not _reaches(function, callee.__self__ if bound else None, _FURTHEST):
        return None
    rewritten = _rewritten(function.__code__, _Unhashed(function))
    return None if rewritten is None else Helper(function, rewritten, callee.__self__ if bound else None, bound)


def note_asking(callee: Any) -> None:
    """A function was seen to call a model: from now on it is a helper, if it can be captured."""
    function = callee.__func__ if type(callee) is MethodType else callee
    if type(function) is FunctionType:
        _seen_asking.add(function.__code__)


def _eligible(code: CodeType, module: str | None) -> bool:
    """Whether the function is the user's, and takes no dictionary of keyword arguments (values in it could not stay on
    their way)."""
    return not code.co_flags & _CO_VARKEYWORDS and not is_library(code.co_filename) \
        and not (module or "").startswith("tracedsl.")


class _Unhashed:
    """Something that takes no part in the key of a cache."""

    def __init__(self, function: FunctionType) -> None:
        self.function = function

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Unhashed)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=512)
def _rewritten(code: CodeType, held: _Unhashed) -> Rewritten | None:
    """The helper's rewritten code; None if it cannot be captured."""
    try:
        made = rewrite_function(held.function, read_source(held.function))
    except Unsupported:
        return None
    name = held.function.__qualname__.replace("<locals>.", "")
    return replace(made, sites=tuple(replace(place, function=name) for place in made.sites))


def _reaches(function: FunctionType, bound_to: Any, further: int) -> bool:
    """Whether the function seems to call a model: by a client's method, a module, or another function that does."""
    names = names_in(function.__code__)
    if names & _ASKING and names & _RESOURCES:
        return True
    values = [value for _, value in outer_values(function)]
    if bound_to is not None and further:
        values += [vars(base)[name] for base in type(bound_to).__mro__ for name in names & vars(base).keys()]
        values += [value for name, value in getattr(bound_to, "__dict__", {}).items() if name in names]
    for value in values:
        if isinstance(value, Module) or (isinstance(value, type) and issubclass(value, Module)):
            return True
        if further and isinstance(value, FunctionType) and value is not function \
                and _eligible(value.__code__, value.__module__) and _reaches(value, bound_to, further - 1):
            return True
    return False


class Frame:
    """A run as the code of one helper sees it: its call sites are numbered after those that the run has already."""

    def __init__(self, run: Any, offset: int, file: str) -> None:
        self._run, self._offset, self._file = run, offset, file

    def call(self, number: int, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return self._run.call(self._offset + number, function, *args, **kwargs)

    def call_in_loop(self, number: int, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return self._run.call_in_loop(self._offset + number, function, *args, **kwargs)

    def template(self, line: int, *parts: Any) -> Any:
        return self._run.template(line, *parts, file=self._file)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._run, name)
        return method


def placed(sites: tuple[CallSite, ...], known: list[CallSite]) -> int:
    """The number of a helper's first call site among those of the run; they are put there if they are new."""
    if not sites:
        return len(known)
    for i, place in enumerate(known):
        if place is sites[0]:
            return i
    known.extend(sites)
    return len(known) - len(sites)
