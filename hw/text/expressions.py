"""Expressions as text of some language.

What holds here: what is used more than once, or grows long, gets a name in a line before; a branch of a selection that
may read outside of a buffer is computed below an `if`. Deep expressions need no deep recursion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from tracedsl.ir.expr import Affine, Axis, Buffer, Call, Cast, Const, Expr, Load, Position, children, walk

_LONG = 100     # characters from which on a part gets a line of its own

AxisName = Callable[[Axis], str]


class NewName(Protocol):
    """Gives names that are not taken."""

    def new(self, wanted: str) -> str: ...


class Dialect(Protocol):
    """A language, as far as expressions need it. Values are text of the operation's dtype."""

    def literal(self, dtype: str, value: bool | int | float) -> str: ...

    def position(self, index: str, dtype: str) -> str:
        """A position among the loops as a value."""
        ...

    def convert(self, value: str, source: str, target: str) -> str: ...

    def scalar(self, op: str, dtype: str, args: Sequence[str]) -> str: ...

    def define(self, name: str, dtype: str, value: str) -> str:
        """The line that gives a value a name."""
        ...

    def declare(self, name: str, dtype: str) -> str:
        """The line before the branches that assign `name`; empty if there need be none."""
        ...

    def assign(self, name: str, value: str) -> str: ...

    def branches(self, condition: str) -> tuple[str, str]:
        """The heads of the two blocks of a choice."""
        ...


def bare(text: str) -> str:
    """The text without a pair of brackets around all of it."""
    depth = 0
    for number, letter in enumerate(text if text[:1] == "(" else ""):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:-1] if number == len(text) - 1 else text
    return text


def affine(index: Affine, axis: AxisName) -> str:
    """A position."""
    parts = [axis(a) if f == 1 else f"{f} * {axis(a)}" for a, f in index.terms]
    if index.constant or not parts:
        parts.append(str(index.constant))
    return " + ".join(parts).replace("+ -", "- ")


class Expressions:
    """Writes the values of one function's statements. `line` and `block` write lines, `element` reads a buffer at
    positions, of which those that are computed are given as text."""

    def __init__(self, dialect: Dialect, line: Callable[[str], None],
                 block: Callable[[str], AbstractContextManager[None]], names: NewName, axis: AxisName,
                 element: Callable[[Buffer, Sequence[Affine | str]], str]) -> None:
        self._dialect, self._line, self._block = dialect, line, block
        self._names, self._axis, self._element = names, axis, element
        self._known: list[dict[int, str]] = []
        self._uses: dict[int, int] = {}
        self._risky: dict[int, bool] = {}

    def text(self, root: Expr) -> str:
        """The value of `root`; lines that it needs are written before."""
        self._uses, self._risky = {}, {}
        for expr in walk(root):
            self._risky[id(expr)] = any(self._risky[id(c)] for c in children(expr)) or may_be_outside(expr)
            for child in children(expr):
                self._uses[id(child)] = self._uses.get(id(child), 0) + 1
        with self._scope():
            return self._value(root)

    @contextmanager
    def _scope(self) -> Iterator[None]:
        """What is named inside is not known outside."""
        self._known.append({})
        try:
            yield
        finally:
            self._known.pop()

    def _recall(self, expr: Expr) -> str | None:
        return next((scope[id(expr)] for scope in reversed(self._known) if id(expr) in scope), None)

    def _value(self, root: Expr) -> str:
        stack = [root]
        while stack:
            expr = stack[-1]
            missing = [c for c in self._first(expr) if self._recall(c) is None]
            if self._recall(expr) is not None:
                stack.pop()
            elif missing:
                stack += reversed(missing)
            else:
                stack.pop()
                self._known[-1][id(expr)] = self._named(expr, self._compute(expr))
        return self._part(root)

    def _part(self, expr: Expr) -> str:
        found = self._recall(expr)
        if found is None:
            raise AssertionError("an operand was not written")
        return found

    def _first(self, expr: Expr) -> tuple[Expr, ...]:
        """The operands that are written before `expr`; branches that may read outside wait for their condition."""
        if self._branches(expr):
            return children(expr)[:1]
        return children(expr)

    def _branches(self, expr: Expr) -> bool:
        return isinstance(expr, Call) and expr.op == "select" and any(self._risky[id(a)] for a in expr.args[1:])

    def _named(self, expr: Expr, text: str) -> str:
        plain = isinstance(expr, Const | Position | Load) or text.isidentifier()
        if plain or (self._uses.get(id(expr), 0) <= 1 and len(text) < _LONG):
            return text
        name = self._names.new("t")
        self._line(self._dialect.define(name, expr.dtype, bare(text)))
        return name

    def _compute(self, expr: Expr) -> str:
        match expr:
            case Const():
                return self._dialect.literal(expr.dtype, expr.value)
            case Position():
                return self._dialect.position(affine(expr.index, self._axis), expr.dtype)
            case Load():
                return self._element(expr.buffer, [at if isinstance(at, Affine) else self._part(at)
                                                   for at in expr.index])
            case Cast():
                return self._dialect.convert(self._part(expr.arg), expr.arg.dtype, expr.dtype)
            case Call() if self._branches(expr):
                return self._select(expr)
            case Call():
                return self._dialect.scalar(expr.op, expr.args[-1].dtype, [self._part(arg) for arg in expr.args])
        raise TypeError(f"{type(expr).__name__} cannot stand in a loop nest")

    def _select(self, expr: Call) -> str:
        condition, then, otherwise = expr.args
        name = self._names.new("t")
        if declared := self._dialect.declare(name, expr.dtype):
            self._line(declared)
        for head, branch in zip(self._dialect.branches(self._part(condition)), (then, otherwise), strict=True):
            with self._block(head), self._scope():
                value = self._value(branch)
                self._line(self._dialect.assign(name, bare(value)))
        return name


def may_be_outside(expr: Expr) -> bool:
    """Whether an expression is a load whose bounds do not show that it lies inside of its buffer."""
    if not isinstance(expr, Load):
        return False
    for extent, at in zip(expr.buffer.shape, expr.index, strict=True):
        if not isinstance(at, Affine) or at.bounds()[0] < 0 or at.bounds()[1] >= extent:
            return True
    return False
