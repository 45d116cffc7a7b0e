"""Functions with loops, branches and writes: what is compiled does what NumPy does, to results and arguments.

`pytest --long` tries 5,000 random programs. A failure names the seed, which gives the same program again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy_programs import Failed, Program, arguments, build, outcome, precision, same, unstable

from tracedsl import kernel

OFFSET = 2.5


def check(function: Callable[..., Any], *args: Any, native: bool = True) -> Any:
    """The kernel after a call that is held against NumPy."""
    compiled = kernel(function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want, got = outcome(function, args), outcome(compiled, args)
    assert same(got, want, precision(args)), f"{got}\n{want}\n{compiled.explain()}"
    assert compiled.compiled == native, compiled.explain()
    return compiled


# -- random programs ----------------------------------------------------------------------------------------------


def hunt(seeds: range) -> dict[str, int]:
    """How many calls ran as machine code, were refused, failed in NumPy as well. Raises for a wrong one."""
    found = {"native": 0, "refused": 0, "failed": 0}
    for seed in seeds:
        text = Program(seed).text()
        function = build(text, str(seed))
        compiled = kernel(function)
        for data in range(3 * seed, 3 * seed + 3):
            given = arguments(data)
            want, got = outcome(function, given), outcome(compiled, given)
            assert same(got, want, precision(given)) or unstable(function, given, want), f"{seed}, {data}\n{text}"
            failed = isinstance(want[0], Failed)
            found["failed" if failed else "native" if compiled.compiled else "refused"] += 1
    return found


def test_random_programs(request: pytest.FixtureRequest) -> None:
    count = 5000 if request.config.getoption("--long") else 80
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = hunt(range(count))
    rate = found["refused"] / (found["refused"] + found["native"])
    print(f"{count} programs: {found}, refused {rate:.1%}")
    assert rate < 0.2, found
    assert found["failed"] < 0.25 * 3 * count, found


# -- writes, views, aliasing --------------------------------------------------------------------------------------


def thomas(a, b, c, d):  # type: ignore[no-untyped-def]
    n = len(d)
    for i in range(1, n):
        w = a[i] / b[i - 1]
        b[i] -= w * c[i - 1]
        d[i] -= w * d[i - 1]
    d[-1] /= b[-1]
    for i in range(n - 2, -1, -1):
        d[i] = (d[i] - c[i] * d[i + 1]) / b[i]
    return d


def heat(u, steps):  # type: ignore[no-untyped-def]
    for _ in range(steps):
        u[1:-1, 1:-1] = 0.25 * (u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2])
        u[0, :] = u[1, :]
        u[:, -1] = u[:, -2]


def recurrence(v, c):  # type: ignore[no-untyped-def]
    for k in range(3):
        v[1:] -= c * v[:-1]
        v[:] = v[::-1] + v
        v[k:] *= v[:len(v) - k]


def transitive(m):  # type: ignore[no-untyped-def]
    n = m.shape[0]
    for k in range(n):
        m[:] = np.maximum(m, m[:, k:k + 1] * m[k:k + 1, :])
    return m


def cholesky(a):  # type: ignore[no-untyped-def]
    n = a.shape[0]
    for j in range(n):
        a[j, j] = np.sqrt(a[j, j] - np.dot(a[j, :j], a[j, :j]))
        for i in range(j + 1, n):
            a[i, j] = (a[i, j] - np.dot(a[i, :j], a[j, :j])) / a[j, j]
        a[j, j + 1:] = 0
    return a


def live_view(a):  # type: ignore[no-untyped-def]
    v = a[2:]
    w = a.copy()
    for i in range(len(a)):
        a[i] += 10
        v[0] += w[i]
    return v, a


def first_over(a, limit):  # type: ignore[no-untyped-def]
    total = 0
    for i in range(len(a)):
        if a[i] < 0:
            continue
        total += a[i]
        if total > limit:
            return i, total
    return -1, total


def collatz(n):  # type: ignore[no-untyped-def]
    steps = 0
    while n != 1:
        if n % 2 == 0:
            n //= 2
        else:
            n = 3 * n + 1
        steps += 1
        if steps > 1000:
            break
    return steps


def put(target, where, value):  # type: ignore[no-untyped-def]
    target[where] = value + OFFSET


def helped(a, n):  # type: ignore[no-untyped-def]
    for i in range(n):
        put(a, i, i * 2)
    return a


def gathered(values, index, out):  # type: ignore[no-untyped-def]
    for i in range(len(index)):
        out[i] = values[index[i]]


def swapped(a):  # type: ignore[no-untyped-def]
    for i in range(len(a) // 2):
        a[i], a[-1 - i] = a[-1 - i], a[i]


def rebound(a, b):  # type: ignore[no-untyped-def]
    for i in range(5):
        a, b = b, a
        a[0] += i
    return a


NUMBERS = np.random.default_rng(5)
MATRIX = NUMBERS.normal(size=(6, 6))
VECTOR = NUMBERS.normal(size=9)
PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "thomas": (thomas, tuple(NUMBERS.random(8) + (4 if i == 1 else 0) for i in range(4))),
    "heat": (heat, (NUMBERS.random((9, 7)), 4)),
    "recurrence": (recurrence, (VECTOR, 0.5)),
    "recurrence in steps": (recurrence, (NUMBERS.random(18)[::2], 0.5)),
    "transitive": (transitive, (NUMBERS.random((5, 5)),)),
    "cholesky": (cholesky, (MATRIX @ MATRIX.T + np.eye(6),)),
    "live view": (live_view, (VECTOR,)),
    "first over": (first_over, (VECTOR, 0.7)),
    "first over none": (first_over, (VECTOR, 1e9)),
    "collatz": (collatz, (27,)),
    "helped": (helped, (VECTOR, 4)),
    "gathered": (gathered, (VECTOR, np.array([3, -1, 0]), np.zeros(3))),
    "swapped": (swapped, (VECTOR,)),
    "rebound": (rebound, (VECTOR, VECTOR * 2)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    function, args = PROGRAMS[name]
    check(function, *args)


@pytest.mark.parametrize("name", ["thomas", "heat", "cholesky", "first over"])
def test_statements_as_text(name: str, golden: Callable[[str, str], None]) -> None:
    function, args = PROGRAMS[name]
    golden(f"statements/{name.replace(' ', '_')}.txt", kernel(function).show("statements", *args))


def test_one_procedure_serves_all_shapes_and_numbers() -> None:
    compiled = kernel(heat)
    for shape, steps in (((4, 5), 1), ((30, 3), 7), ((2, 2), 0), ((11, 12), 3)):
        u = NUMBERS.random(shape)
        want = u.copy()
        heat(want, steps)
        compiled(u, steps)
        assert compiled.compiled and np.allclose(u, want, rtol=1e-13)
    assert compiled.explain().count("procedure heat") == 1


# -- what is left to NumPy ----------------------------------------------------------------------------------------


def test_steps_and_shifts_of_python_numbers() -> None:
    def marked(flags, step, by):  # type: ignore[no-untyped-def]
        last = 0
        for q in range(step * 2, len(flags), step):
            flags[q] = q >> by
            last = 1 << by
        return last

    check(marked, np.zeros(20), 3, 1)
    check(marked, np.zeros(20), 99, 0)
    check(marked, np.zeros(20), 0, 1, native=False)
    check(marked, np.zeros(20), -1, 1, native=False)
    check(marked, np.zeros(20), 3, -1, native=False)
    check(marked, np.zeros(20), 3, 70, native=False)


def test_an_index_out_of_range_raises_as_numpy_does_and_undoes_nothing_else() -> None:
    check(gathered, VECTOR, np.array([1, 99]), np.zeros(2), native=False)
    check(helped, VECTOR, 99, native=False)


def test_shapes_that_do_not_agree() -> None:
    def added(a, b, n):  # type: ignore[no-untyped-def]
        for _ in range(n):
            a += b

    check(added, VECTOR, np.ones(9), 2)
    check(added, VECTOR, np.ones(1), 2)
    check(added, VECTOR, np.ones(4), 2, native=False)


def test_division_of_python_numbers_by_zero() -> None:
    def ratio(n, d):  # type: ignore[no-untyped-def]
        total = 0.0
        for i in range(n):
            total += i / d
        return total

    check(ratio, 5, 2.0)
    check(ratio, 5, 0.0, native=False)


def test_whole_numbers_that_grow_too_large() -> None:
    def grown(n):  # type: ignore[no-untyped-def]
        x = 1
        for _ in range(n):
            x = x * 10
        return x

    check(grown, 18)
    check(grown, 40, native=False)


def test_arguments_that_overlap() -> None:
    base = NUMBERS.random(12)
    check(gathered, base[:6], np.array([2, 1, 5]), base[1:4], native=False)
    check(gathered, base[:6], np.array([2, 1, 5]), base[6:9])
    check(heat, np.broadcast_to(np.ones(4), (4, 4)), 1, native=False)      # read-only, and it meets itself


def test_a_generator_in_a_loop_is_left_to_numpy_with_the_reason() -> None:
    def odd(a):  # type: ignore[no-untyped-def]
        for i in range(len(a)):
            if a[i] > 0:
                a[i] = sum(x for x in a[:i])

    compiled = check(odd, VECTOR, native=False)
    assert "not compiled as statements" in compiled.explain() and "sum(x for x in a[:i])" in compiled.explain()


def test_empty_arrays() -> None:
    check(heat, np.zeros((0, 3)), 2, native=False)      # u[0] is out of range
    check(gathered, VECTOR, np.array([], int), np.zeros(0))
    check(first_over, np.zeros(0), 1.0)
