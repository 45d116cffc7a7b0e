"""What capture refuses: the code, the place, and the text that the user reads."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracedsl.capture.tensor.arguments import Parameters, bind
from tracedsl.capture.tensor.environment import Environment
from tracedsl.capture.tensor.kernel import capture_kernel
from tracedsl.diagnostics import Unsupported

X = np.arange(12.0).reshape(3, 4)
LOG: list[Any] = []
TABLE = {"a": 1}
GRID = np.zeros((3, 4))


def refusal(function: Callable[..., Any], *args: Any) -> Unsupported:
    with pytest.raises(Unsupported) as refused:
        capture_kernel(function, bind(Parameters.of(function), args, {}), Environment(function).snapshot())
    return refused.value


def prints(x: Any) -> Any:
    y = x + 1
    print(y)
    return y


def tries(x: Any) -> Any:
    try:
        return x / 2
    except ValueError:
        return x


def branches(x: Any) -> Any:
    if x.sum() > 0:
        return x
    return -x


def loops_until(x: Any) -> Any:
    while (x > 1).any():
        x = x / 2
    return x


def decomposes(x: Any) -> Any:
    return np.linalg.svd(x + 1)


def draws(x: Any) -> Any:
    return x + np.random.rand(4)


def writes_part(x: Any) -> Any:
    GRID[1:] = x[1:]
    return x


def writes_every_second(x: Any) -> Any:
    y = np.zeros(4)
    y[::2] = x[0, :2]
    return y


def writes_outside(x: Any) -> Any:
    np.add(GRID, x, out=GRID)
    return x


def writes_under_a_view(x: Any) -> Any:
    y = x * 2
    flat = y.reshape(-1)
    y += 1
    return y, flat


def masks(x: Any) -> Any:
    return x[x > 1].sum()


def gathers(x: Any) -> Any:
    return x[:, [0, 1]]


def asks_value(x: Any) -> Any:
    return range(int(x[0, 0]))


def formats(x: Any) -> Any:
    return f"{x.mean()}"


def unrolls(x: Any) -> Any:
    for _ in range(100_000):
        x = x + 1
    return x


def raises(x: Any) -> Any:
    return x @ x


def appends_outside(x: Any) -> Any:
    LOG.append(x)
    return x


def changes_argument_list(x: Any, parts: Any) -> Any:
    parts.append(x)
    return x


def short_circuits(x: Any) -> Any:
    return x.any() and x


def generates(x: Any) -> Any:
    yield x


def sorts(x: Any) -> Any:
    return np.sort(x, axis=0)


def wrong_option(x: Any) -> Any:
    return np.sum(x, where=x > 0)


def reads_file(x: Any) -> Any:
    return x + len(os.listdir("."))


def sets_attribute(x: Any) -> Any:
    x.shape = (12,)
    return x


CASES: list[tuple[Callable[..., Any], str, str]] = [
    (prints, "C004", "print(y)"), (tries, "C003", "try:"), (branches, "C005", "x.sum() > 0"),
    (loops_until, "C005", "(x > 1).any()"), (decomposes, "C007", "np.linalg.svd(x + 1)"), (draws, "C004", "np.random"),
    (writes_part, "C011", "GRID[1:] = x[1:]"), (writes_every_second, "C011", "y[::2] = x[0, :2]"),
    (writes_outside, "C011", "np.add(GRID, x, out=GRID)"),
    (writes_under_a_view, "C011", "y += 1"), (masks, "C017", "x[x > 1]"), (gathers, "C017", "x[:, [0, 1]]"),
    (asks_value, "C006", "int(x[0, 0])"), (formats, "C006", ""), (unrolls, "C012", "x + 1"), (raises, "C013", "x @ x"),
    (appends_outside, "C011", "LOG.append(x)"), (short_circuits, "C005", "x.any()"), (generates, "C003", "yield x"),
    (sorts, "C007", "np.sort(x, axis=0)"), (wrong_option, "C008", "np.sum(x, where=x > 0)"),
    (reads_file, "C004", "os.listdir"), (sets_attribute, "C003", "x.shape"),
]


@pytest.mark.parametrize("function, code, at", CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_refusals_point_at_the_place(function: Callable[..., Any], code: str, at: str) -> None:
    error = refusal(function, X)
    assert error.code == code, str(error)
    assert error.diagnostic.hint or code in ("C013", "C006"), "a refusal says what to do"
    if at:
        span = error.diagnostic.span
        assert span is not None and span.end_column is not None
        line = Path(span.file).read_text().splitlines()[span.line - 1]
        pointed = line[span.column:span.end_column if span.end_line == span.line else None]
        assert pointed == at


@pytest.mark.parametrize("function", [prints, branches, decomposes, writes_outside, raises], ids=lambda f: f.__name__)
def test_texts_of_refusals(function: Callable[..., Any], golden: Callable[[str, str], None]) -> None:
    text = str(refusal(function, X)).replace(str(Path(__file__).parent), "tests/capture")
    text = re.sub(r"(?<=\.py:)\d+", "LINE", re.sub(r"^ *\d+ \|", " LINE |", text, flags=re.M))
    golden(f"../errors/kernel_{function.__name__}.txt", text)


def test_lists_of_the_caller_are_not_changed() -> None:
    parts = [X]
    assert refusal(changes_argument_list, X, parts).code == "C011"
    assert len(parts) == 1


def _identity(x: Any) -> Any:
    return x


@pytest.mark.parametrize("value, text", [
    (np.array([1, "a"], object), "object"), (np.array(["a"]), "<U1"), (np.ma.masked_array([1, 2]), "subclass"),
    (np.array(["2020"], "datetime64[Y]"), "datetime64"), (object(), "type object"), ({1.5: X}, "keys"),
    (np.longdouble(1), "longdouble"), ([[[X, object()]]], "type object"),
])
def test_arguments_that_cannot_be_taken(value: Any, text: str) -> None:
    with pytest.raises(Unsupported) as refused:
        bind(Parameters.of(_identity), (value,), {})
    assert refused.value.code == "C009" and text in str(refused.value) and "'x'" in str(refused.value)


def test_text_for_an_object_array(golden: Callable[[str, str], None]) -> None:
    with pytest.raises(Unsupported) as refused:
        bind(Parameters.of(_identity), (np.array([1, "a"], object),), {})
    golden("../errors/kernel_object_array.txt", str(refused.value))


def test_ragged_input_is_taken_as_lists_and_refused_where_it_becomes_an_array() -> None:
    def f(x: Any) -> Any:
        return np.array(x) * 2

    error = refusal(f, [[1.0, 2.0], [3.0]])
    assert error.code == "C013" and "shape" in str(error)


def test_wrong_calls_raise_as_python_does() -> None:
    with pytest.raises(TypeError):
        bind(Parameters.of(_identity), (X, X), {})
    with pytest.raises(TypeError):
        bind(Parameters.of(_identity), (), {"y": X})


class Session:
    rate = 2.0


SESSION = Session()


def test_unknown_outer_objects_are_refused() -> None:
    def f(x: Any) -> Any:
        return x * SESSION.rate

    with pytest.raises(Unsupported) as refused:
        Environment(f).snapshot()
    assert refused.value.code == "C010" and "SESSION" in str(refused.value)


def test_a_function_without_source_is_refused() -> None:
    made: dict[str, Any] = {}
    exec(compile("def f(x):\n    return x + 1\n", "<made>", "exec"), made)  # noqa: S102 - text of this file
    assert refusal(made["f"], X).code == "C001"


@pytest.mark.parametrize("changed", ["import numpy\n\n\ndef g(a, b):\n    return a\n",
                                     "def f(x):\n    return x + 23\n"])
def test_a_source_that_changed_is_refused(changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import linecache

    name = f"edited_module_{len(changed)}"
    module = tmp_path / f"{name}.py"
    module.write_text("def f(x):\n    return x + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    function = importlib.import_module(name).f
    module.write_text(changed)
    linecache.checkcache(str(module))
    assert refusal(function, X).code == "C002"


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any


def test_unknown_classes_are_refused() -> None:
    def f(x: Any) -> Any:
        return Session()

    assert refusal(f, X).code == "C004"


def test_an_object_result_is_refused() -> None:
    def f(x: Any) -> Any:
        return {x.ndim, 5}

    assert refusal(f, X).code == "C014"
