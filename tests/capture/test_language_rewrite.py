"""The rewritten source: which operations ask the run, what is left alone, what is refused."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from tracedsl.capture.language.python_rewrite import RUN, bind, rewrite_function
from tracedsl.capture.source import read_source
from tracedsl.diagnostics import Unsupported

OUTER = 5


def load_module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rewritten(function: Callable[..., Any]) -> str:
    assert isinstance(function, FunctionType)
    return rewrite_function(function, read_source(function)).text.replace(RUN, "run")


def test_golden_source(golden: Callable[[str, str], None]) -> None:
    golden("language/rewritten.txt", rewritten(load_module(Path(__file__).parent / "rag_program.py").everything))


def test_positions_are_those_of_the_file() -> None:
    def failing(q: Any) -> Any:
        return q.missing

    source = read_source(failing)
    made = rewrite_function(failing, source)
    assert made.code.co_firstlineno == failing.__code__.co_firstlineno + 0
    assert made.code.co_filename == __file__
    lines = {line for *_, line in made.code.co_lines() if line}
    assert failing.__code__.co_firstlineno + 1 in lines


def test_closure_defaults_and_globals_are_shared_with_the_original() -> None:
    counter = [0]

    def reads(q: int = 4, *, k: int = 2) -> Any:
        return q, k, counter, OUTER

    class Run:
        pass

    made = bind(rewrite_function(reads, read_source(reads)).code, reads, Run())
    assert made() == (4, 2, counter, OUTER) and made()[2] is counter


def test_variables_of_nested_code_hold_finished_values() -> None:
    def nested(q: Any) -> Any:
        shared = q.a
        private = q.b
        for shared in q:
            private = shared
        return lambda: shared, private

    text = rewritten(nested)
    assert "shared = run.export(" in text and "private = run.attr" in text
    assert "return (lambda: shared, private)" in text


def _function_in_comprehension(q: Any) -> Any:
    return [lambda: x for x in q]  # noqa: B023


def _yields(q: Any) -> Any:
    yield q


def _locals(q: Any) -> Any:
    return locals()


def _private(q: Any) -> Any:
    return q.__secret


def _walrus_in_chain(q: Any) -> Any:
    return 1 < (x := q) < 3, x


def _dict_in_an_iterable(q: Any) -> Any:
    return [k for k in {x: 1 for x in q}]  # noqa: C416, C420


@pytest.mark.parametrize("function", [_function_in_comprehension, _dict_in_an_iterable,
                                      _yields, _locals, _private, _walrus_in_chain],
                         ids=lambda f: f.__name__)
def test_what_cannot_be_rewritten_rightly_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(Unsupported) as caught:
        rewritten(function)
    assert caught.value.code == "P102" and caught.value.diagnostic.span is not None
    assert caught.value.diagnostic.span.file == __file__


def test_every_statement_and_expression_is_either_rewritten_or_refused() -> None:
    """New syntax in a later Python must not slip through unchanged."""
    from tracedsl.capture.language.python_expressions import Expressions
    from tracedsl.capture.language.python_rewrite import Rewriter

    statements = {c.__name__ for c in ast.stmt.__subclasses__()}
    known = {n[1:] for n in dir(Rewriter) if n.startswith("_") and n[1:2].isupper()}
    assert known <= statements
    assert statements - known <= {"AsyncFor", "AsyncWith", "AsyncFunctionDef", "TypeAlias"}
    expressions = {c.__name__ for c in ast.expr.__subclasses__()}
    visited = {n[6:] for n in dir(Expressions) if n.startswith("visit_") and n[6:7].isupper()}
    assert expressions - visited <= {"Await", "Yield", "YieldFrom", "FormattedValue", "TemplateStr", "Interpolation"}
