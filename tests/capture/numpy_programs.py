"""Random NumPy programs with loops, branches, helpers, slices and writes, as source text.

What holds here: the same numbers give the same program; every program ends. Most programs are fit for their arguments;
some fail as NumPy programs fail (an index out of range, shapes that do not agree): then both must fail in the same way.
"""

from __future__ import annotations

import linecache
import random
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

HEAD = "def helper(x, y):\n    if x > y:\n        return x - y\n    return x * y\n\n"
FILL = "def fill(v, x):\n    for g in range(len(v)):\n        v[g] = x + g\n\n"
PARAMETERS = "a, b, m, k, n, c"      # float[N], float[N], number[R, N], int[max(1, N)], int, float
_ODD = 0.04      # how often something is chosen that probably does not fit


class Program:
    """One program, made of random numbers."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.depth = 1
        self.loops: list[tuple[str, str]] = []      # variable, what it counts: "N", "R", "n"
        self.scalars = ["c", "n", "s", "t"]
        self.has_w = False
        self.count = 0

    def pick(self, *options: Any) -> Any:
        return self.random.choice(options)

    def odd(self) -> bool:
        return self.random.random() < _ODD

    # -- expressions --------------------------------------------------------------------------------------------

    def index(self, axis: str = "N") -> str:
        """A position along an axis: of a column or element ("N"), of a row ("R")."""
        if self.odd():
            return self.pick("2", "n", "-3", *(f"{name} + 1" for name, _ in self.loops))
        known = [name for name, of in self.loops if of == axis]
        if not known or self.random.random() < 0.2:
            return self.pick("0", "-1")
        return self.random.choice(known) + self.pick("", "", "", " - 1")

    def element(self) -> str:
        i, j = self.index(), self.index("R")
        return self.pick(f"a[{i}]", f"b[{i}]", f"m[{j}, {i}]", f"k[{i}]", f"m[{j}][{i}]", f"a[k[{i}]]",
                         *([f"w[{i}]"] * self.has_w))

    def scalar(self, depth: int = 2) -> str:
        if depth == 0 or self.random.random() < 0.3:
            return self.pick(self.element(), self.element(), self.random.choice(self.scalars), "2", "0.5", "-1", "3",
                             *(name for name, _ in self.loops))
        x, y, i = self.scalar(depth - 1), self.scalar(depth - 1), self.index()
        return self.pick(f"({x} + {y})", f"({x} - {y})", f"{x} * {y}", f"{x} / 3.0", f"({x}) // 2", f"({x}) % 3",
                         f"np.sqrt(abs({x}))", f"np.maximum({x}, {y})", f"helper({x}, {y})", f"(-{x})", f"abs({x})",
                         f"np.dot(a[:{i}], b[:{i}])", "a.sum()", f"np.sum(m[{self.index('R')}])", "np.dot(a, b)",
                         f"float({x})", f"({x} if {self.test()} else {x})", "b.max()", f"np.exp(-abs({x}))",
                         "m.sum()", "a.mean()", f"min({i}, n)", f"{x} / ({y} * {y} + 1)")

    def test(self) -> str:
        x, y = self.scalar(0), self.scalar(0)
        simple = f"{x} {self.pick('<', '>', '<=', '!=', '==')} {y}"
        return self.pick(simple, simple, f"{simple} and {self.scalar(0)} > 0", f"not {simple}", f"0 < {x} < {y}",
                         f"({simple} or {x} > {y})")

    def size(self) -> str:
        """How long a vector is to be."""
        return self.pick("N", "N", "N-1", "N-2", "R", "half", "to", "from") if not self.odd() else "odd"

    def part(self, size: str) -> str:
        """A slice of an axis of N elements that has a size."""
        i = next((name for name, of in self.loops if of == "N"), "n")
        known = {"N": (":", "::-1"), "N-1": ("1:", ":-1", "-2::-1", ":0:-1"), "N-2": ("1:-1", "2:", ":-2"),
                 "half": ("::2", "::2"), "to": (f":{i}", f"{i}-1::-1") if i != "n" else (":n", "0:n"),
                 "from": (f"{i}:",), "odd": ("::3", "1:3", "5:2", ":-4")}
        return self.pick(*known[size])

    def vector(self, size: str, depth: int = 2) -> str:
        if depth == 0 or self.random.random() < 0.3:
            j = self.index("R")
            if size == "R":
                return self.pick(f"m[:, {self.index()}]", f"m[:, {self.index()}]", "m[::-1, 0]", "m.sum(axis=1)")
            part = self.part(size)
            options = [f"a[{part}]", f"b[{part}]", f"m[{j}, {part}]", f"m[{j}][{part}]"] + [f"w[{part}]"] * self.has_w
            return self.pick(*options, *(["a", "b", "m.sum(axis=0)"] if size == "N" else []))
        x, y = self.vector(size, depth - 1), self.pick(self.vector(size, depth - 1), self.scalar(0))
        return self.combined(x, y)

    def combined(self, x: str, y: str) -> str:
        return self.pick(f"({x} + {y})", f"({x} - {y})", f"{x} * {y}", f"np.minimum({x}, {y})", f"np.abs({x})",
                         f"np.where({x} > {y}, {x}, {y})", f"{x} / 2", f"np.tanh({x})", f"{x} ** 2")

    def matrix(self, depth: int = 2) -> str:
        """Of R rows and N columns."""
        if depth == 0 or self.random.random() < 0.3:
            return self.pick("m", "m[:, ::-1]", "m[::-1]", "a", f"m[:, {self.index()}, None]", "a[None, :]",
                             "b[None]")
        return self.combined(self.matrix(depth - 1), self.pick(self.matrix(depth - 1), self.scalar(0)))

    # -- statements ---------------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def statement(self) -> None:
        rules: list[Callable[[], None]] = [self.store, self.store, self.slice_store, self.slice_store, self.assign,
                                           self.assign, self.update, self.local_array, self.swap]
        if self.depth < 4:
            rules += [self.loop, self.loop, self.branch, self.repeat]
        if self.loops:
            rules += [self.leave]
        self.random.choice(rules)()

    def store(self) -> None:
        target = self.pick(f"a[{self.index()}]", f"m[{self.index('R')}, {self.index()}]")
        self.line(f"{target} {self.pick('=', '=', '+=', '*=', '-=')} {self.scalar()}")

    def slice_store(self) -> None:
        op = self.pick("=", "=", "+=", "-=", "*=")
        if self.random.random() < 0.3:
            self.line(f"m[:] {op} {self.pick(self.matrix(), self.matrix(), self.scalar())}")
            return
        size = self.size()
        target = f"m[:, {self.index()}]" if size == "R" else self.pick(
            f"a[{self.part(size)}]", f"m[{self.index('R')}, {self.part(size)}]")
        self.line(f"{target} {op} {self.pick(self.vector(size), self.vector(size), self.scalar())}")

    def assign(self) -> None:
        self.line(f"{self.pick('s', 't')} = {self.scalar()}")

    def update(self) -> None:
        self.line(f"{self.pick('s', 't')} {self.pick('+=', '-=', '*=')} {self.scalar(1)}")

    def local_array(self) -> None:
        if not self.has_w:
            self.line(self.pick(f"w = {self.vector('N')} * 1.0", "w = a.copy()", "w = np.zeros(len(a))"))
            self.has_w = self.depth == 1
            return
        size = self.pick("N", "N-1", "to")
        self.line(self.pick(f"w[{self.index()}] = c", f"w[{self.part(size)}] = {self.vector(size, 1)}",
                            f"v = m[{self.index('R')}]; v[:] = c", f"a[:] = w * {self.scalar(0)}",
                            f"w = {self.vector('N')} * 1.0", f"fill(w, {self.scalar(0)})"))

    def swap(self) -> None:
        i, j = self.index(), self.index()
        self.line(self.pick(f"a[{i}], a[{j}] = {self.element()}, {self.element()}", "a, b = b, a",
                            f"s, t = {self.scalar(1)}, {self.scalar(1)}", "v = a[1:]; v[:] = v[::-1] + v",
                            f"v = m[:, {i}]; v += {self.vector('R', 1)}"))

    def block(self) -> None:
        self.depth += 1
        for _ in range(self.random.randint(1, 3)):
            self.statement()
        self.depth -= 1

    def loop(self) -> None:
        name = ("i", "j", "l", "p")[len(self.loops) % 4]
        of = self.pick("N", "N", "R", "n")
        stop = {"N": self.pick("len(a)", "m.shape[1]", "a.shape[0]"), "R": "m.shape[0]", "n": "n"}[of]
        outer = next((name for name, kind in self.loops if kind == of), None)
        if outer is not None and self.random.random() < 0.3:
            head = self.pick(f"range({outer})", f"range({outer} + 1, {stop})", f"range({outer}, -1, -1)")
        elif self.random.random() < 0.8:
            head = f"range({self.pick('', '', '1, ', '2, ')}{stop})"
        else:
            head = f"range({stop} - 1, {self.pick('-1', '0')}, {self.pick('-1', '-2')})"
        self.line(f"for {name} in {head}:")
        self.loops.append((name, of))
        self.block()
        self.loops.pop()

    def repeat(self) -> None:
        self.count += 1
        name = f"q{self.count}"
        self.line(f"{name} = 0")
        self.line(f"while {name} < n and ({self.test()}):")
        self.depth += 1
        self.line(f"{name} += 1")
        self.depth -= 1
        self.block()

    def branch(self) -> None:
        self.line(f"if {self.test()}:")
        self.block()
        if self.random.random() < 0.5:
            self.line("else:")
            self.block()

    def leave(self) -> None:
        self.line(f"if {self.test()}:")
        self.depth += 1
        self.line(self.pick("break", "continue", f"return {self.scalar(0)}"))
        self.depth -= 1

    def text(self) -> str:
        self.line("s = 0")
        self.line("t = 1.0")
        for _ in range(self.random.randint(2, 5)):
            self.statement()
        self.line(self.pick("return s", "return s, t", "return a", "return a[1:], s", "return m, t"))
        return HEAD + FILL + f"def program({PARAMETERS}):\n" + "\n".join(self.lines) + "\n"


def build(text: str, name: str) -> FunctionType:
    """The function `program` of a text whose source can be found."""
    file = f"<program {name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    names: dict[str, Any] = {"np": np, "__name__": "numpy_program"}
    exec(compile(text, file, "exec"), names)  # noqa: S102 - text of this file
    found = names["program"]
    assert isinstance(found, FunctionType)
    return found


def arguments(seed: int) -> tuple[Any, ...]:
    """Arguments of odd shapes, dtypes and layouts, some that overlap or are read-only, some numbers that are none."""
    r = np.random.default_rng(seed)
    n, rows = (int(r.integers(4, 9)), int(r.integers(2, 7))) if seed % 4 else (int(r.integers(0, 4)), 1)
    of = "float32" if seed % 5 == 0 else "float64"
    a, b = (r.normal(size=n).astype(of) for _ in range(2))
    m = r.normal(size=(rows, n)).astype(r.choice(["float64", "float64", "float64", "float32"]))
    if seed % 6 == 0:
        a, m = r.normal(size=2 * n)[::2], r.normal(size=(n, rows)).T
    if seed % 7 == 0 and n:
        b[0] = r.choice([np.nan, np.inf, -0.0])
    if seed % 11 == 0:
        m = r.integers(-9, 9, size=(rows, n))
    if seed % 23 == 0:
        a = m[0]
    if seed % 29 == 0:
        a.flags.writeable = False
    return a, b, m, r.integers(-2, 4, size=max(1, n)), int(r.integers(0, 6)), float(r.normal())


def outcome(function: Callable[..., Any], given: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """What a call returns or raises, and its arguments afterwards."""
    args = _copied(given)
    with np.errstate(all="ignore"):
        try:
            result = function(*args)
        except Exception as error:  # noqa: BLE001 - whatever NumPy raises for a random program
            result = Failed(type(error), str(error))
    return result, args


class Failed(tuple[type, str]):
    """An exception's type and text."""

    def __new__(cls, kind: type, text: str) -> Failed:
        return super().__new__(cls, (kind, text))


def _copied(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments in memory of their own: layout, overlap and flags stay what they are."""
    bases: dict[int, Any] = {}

    def copied(x: Any) -> Any:
        if not isinstance(x, np.ndarray):
            return x
        base = x if x.base is None else x.base
        memory = bases.setdefault(id(base), base.copy(order="A"))
        offset = x.__array_interface__["data"][0] - base.__array_interface__["data"][0]
        view: Any = np.ndarray(x.shape, x.dtype, memory.reshape(-1, order="A"), offset, x.strides)
        view.flags.writeable = x.flags.writeable
        return view

    return tuple(map(copied, given))


def precision(given: tuple[Any, ...]) -> float:
    """How near results must be: float32 among the arguments may be in any of them."""
    return 1e-4 if any(getattr(x, "dtype", None) == np.float32 for x in given) else 1e-9


def same(x: Any, y: Any, near: float = 1e-9) -> bool:
    """Equal type, dtype, shape; numbers within rounding, as sums may be added in another order."""
    if isinstance(x, tuple) and isinstance(y, tuple):
        return type(x) is type(y) and len(x) == len(y) and all(same(p, q, near) for p, q in zip(x, y))
    if type(x) is not type(y):
        return False
    if isinstance(x, np.ndarray | np.generic | float):
        p, q = np.asarray(x), np.asarray(y)
        if p.dtype != q.dtype or p.shape != q.shape:
            return False
        with np.errstate(all="ignore"):
            return bool(np.allclose(p, q, rtol=near, atol=near, equal_nan=True))
    return bool(x == y)


def unstable(function: Callable[..., Any], given: tuple[Any, ...], wanted: Any) -> bool:
    """Whether a change of the arguments in their last digits changes the result: then rounding decides, and results
    cannot be compared."""
    for sign in (1, -1):
        moved = _copied(given)
        for x in moved:
            if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.flags.writeable:
                x *= 1 + sign * 4 * np.finfo(x.dtype).eps
        if not same(outcome(function, moved), wanted, 0.1 * precision(given)):
            return True
    return False
