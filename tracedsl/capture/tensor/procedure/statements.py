"""Capture of a function with loops and writes as statements: `capture_procedure(function, ...)`.

What holds here: the syntax tree is walked until the types of all variables are settled; what is not understood is
refused (`Unsupported` C003) with its place. Shapes, trip counts and numbers are not known: one procedure serves
them all. Helper functions are inlined.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

from tracedsl.capture.source import Source, read_source
from tracedsl.capture.tensor.arguments import Key
from tracedsl.capture.tensor.environment import plain_function
from tracedsl.capture.tensor.procedure.emitting import ONE, ZERO
from tracedsl.capture.tensor.procedure.values import (
    BITS_OF_EXTENTS,
    DTYPES,
    PYTHON_INT,
    Array,
    Kind,
    Known,
    Refused,
    Scalar,
    Several,
    Types,
    Value,
    number,
)
from tracedsl.capture.tensor.procedure.variables import Scope
from tracedsl.capture.tensor.procedure.writes import Writes
from tracedsl.diagnostics import Unsupported
from tracedsl.ir.statements import (
    Allocate,
    Apply,
    ArrayType,
    Assign,
    Block,
    Body,
    Const,
    Expr,
    If,
    Leave,
    Loop,
    Procedure,
    Return,
    Stmt,
    Store,
    Sum,
    Var,
    walk,
)

Form = Any      # JSON: ["scalar", index, dtype, weak, tag index or None], ["array", index], ["none"], [kind, parts...]
_PASSES = 12


@dataclass(frozen=True)
class CapturedProcedure:
    """`forms`: what each form of `Return` puts together."""

    procedure: Procedure
    forms: tuple[Form, ...]


def capture_procedure(function: FunctionType, names: Sequence[str], key: Sequence[Key]) -> CapturedProcedure:
    """Raises `Unsupported` C003 for what is no statement that compiles."""
    source = read_source(function)
    types, arrays, roots, flags = Types(), dict[str, ArrayType](), dict[str, frozenset[str]](), set[str]()
    for _ in range(_PASSES):
        types.changed = False
        walker = _Statements(types, arrays, roots, flags)
        try:
            found = walker.procedure(function, source, names, key)
        except Refused as error:
            span = source.span(error.node) if error.node is not None else None
            raise Unsupported("C003", f"not compiled as statements: {error.what}", span=span) from None
        if not types.changed:
            return found
    raise Unsupported("C003", "the types of the variables do not settle")


def _reusing(body: Body, roots: Mapping[str, frozenset[str]]) -> Body:
    """Allocations whose arrays nobody sees later use two pieces of memory by turns: those that are not returned and
    have one name at most, which then holds the latest."""
    returned = frozenset().union(*(roots[a] for s in walk(body) if isinstance(s, Return) for a in s.arrays))
    names: dict[str, int] = {}
    for variable, lies_in in roots.items():
        for root in lies_in - {variable}:
            names[root] = names.get(root, 0) + 1

    def changed(part: Any) -> Any:
        if isinstance(part, tuple):
            return tuple(map(changed, part))
        if isinstance(part, Allocate) and not part.scratch:
            return replace(part, reused=part.array not in returned and names.get(part.array, 0) <= 1)
        inner = {name: changed(getattr(part, name)) for name in ("body", "then", "otherwise") if hasattr(part, name)}
        return replace(part, **inner) if inner else part

    found: Body = changed(body)
    return found


class _Statements(Writes):
    """Control flow, helpers, and the function as a whole."""

    direct: ast.expr | None = None      # the value of the statement that is being captured

    def procedure(self, function: FunctionType, source: Source, names: Sequence[str],
                  key: Sequence[Key]) -> CapturedProcedure:
        if not isinstance(source.tree, ast.FunctionDef):
            raise Refused("a lambda")
        self.stack.append(Scope(source, function, ""))
        params = [name for name, part in zip(names, key) if self._parameter(name, part)]
        self._body(source.tree.body)
        if self.defined is not None:
            self.emit(self._returned(Known(None)))
        body = tuple(self.out)
        scalars = {s.name: s.value.dtype for s in walk(body) if isinstance(s, Assign)}
        for s in walk(body):
            if isinstance(s, Loop):
                scalars[s.index] = "int64"
            if isinstance(s, Sum):
                scalars |= {**dict.fromkeys(s.indices, "int64"), s.name: s.value.dtype}
        scalars |= {p: self.types.scalars[p].dtype for p in params if p not in self.arrays}
        for f in walk(body):      # flags that are read before they are set
            if isinstance(f, Var):
                scalars.setdefault(f.name, f.dtype)
        body = _reusing(body, self.roots)
        stored = frozenset().union(*(self.roots[s.array] for s in walk(body) if isinstance(s, Store)))
        written = tuple(p for p in params if p in stored)
        used = {s.array for s in walk(body) if hasattr(s, "array")} | {a for s in walk(body) if isinstance(s, Return)
                                                                    for a in s.arrays} | set(params)
        arrays = {name: kind for name, kind in self.arrays.items() if name in used}
        made = Procedure(function.__name__, tuple(params), arrays, scalars, written, body)
        return CapturedProcedure(made, tuple(self.forms))

    def _parameter(self, name: str, part: Key) -> bool:
        """Make a parameter known; whether it is handed over at the call."""
        match part:
            case ("array", dtype, rank, unit, ones):
                if dtype not in DTYPES:
                    raise Refused(f"an array of {dtype}")
                self._array_type(name, ArrayType(dtype, rank, unit, ones))
                self.roots.setdefault(name, frozenset())
                self._add_roots(name, frozenset({name}))
                self._holds(name, "array")
            case ("scalar", dtype):
                if dtype not in DTYPES:
                    raise Refused(f"a number of type {dtype}")
                self._scalar_kind(name, Kind(dtype))
                self.types.bits[name] = 63
                self._holds(name, "scalar")
            case ("number", dtype):
                kind = {"int": "int64", "float": "float64"}.get(dtype)
                if kind is None:
                    raise Refused("a complex number")
                self._scalar_kind(name, Kind(kind, True))
                self.types.bits[name] = max(self.types.bits.get(name, 0), BITS_OF_EXTENTS)
                self._holds(name, "scalar")
                if self.types.scalars[name].mixed:
                    self._tag(name, Const(PYTHON_INT if kind == "int64" else 1))
            case ("static", _, value):
                self._holds(name, "known")
                self.stack[-1].known[name] = number(value) or Known(value)
                return False
            case _:
                raise Refused(f"the argument {name!r}")
        assert self.defined is not None
        self.defined.add(name)
        return True

    def _body(self, body: Sequence[ast.stmt]) -> None:
        for node in body:
            if self.defined is None:
                return
            self._held.clear()
            rule = getattr(self, f"_do_{type(node).__name__.lower()}", None)
            if rule is None:
                raise Refused(f"the statement {type(node).__name__.lower()!r}", node)
            try:
                rule(node)
            except Refused as error:
                error.node = error.node if error.node is not None else node
                raise

    def _do_pass(self, node: ast.Pass) -> None:
        pass

    def _do_expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self.direct = node.value
            self.value(node.value)

    def _do_assign(self, node: ast.Assign) -> None:
        self.direct = node.value
        value = self.value(node.value)
        for target in node.targets:
            self._to(target, value)

    def _do_annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._to(node.target, self.value(node.value))

    def _branch(self, emit: Callable[[], None], before: set[str] | None) -> tuple[tuple[Stmt, ...], set[str] | None]:
        self.defined = None if before is None else set(before)
        body = self.nested(emit)
        return body, self.defined

    def _do_if(self, node: ast.If) -> None:
        test = self.truth(node.test)
        if isinstance(test, Const):
            self._body(node.body if test.value else node.orelse)
            return
        before = self.defined
        then, after_then = self._branch(lambda: self._body(node.body), before)
        other, after_other = self._branch(lambda: self._body(node.orelse), before)
        self.emit(If(test, then, other))
        self.defined = after_then if after_other is None else after_other if after_then is None else \
            after_then & after_other

    def _do_while(self, node: ast.While) -> None:
        if node.orelse:
            raise Refused("'else' of a loop", node)
        label, before = self.fresh("while"), self.defined

        def body() -> None:
            test = self.truth(node.test)
            self.emit(If(Apply("not", (test,), "bool", "bool"), (Leave(label),)))
            self._body(node.body)

        self.loops.append(label)
        repeated, _ = self._branch(body, before)
        self.loops.pop()
        self.emit(Block(label, repeated, repeats=True))
        self.defined = before
        if isinstance(node.test, ast.Constant) and not any(
                isinstance(s, Leave) and s.label == label and not s.again for s in walk(repeated[1:])):
            self.defined = None      # `while True` without a break

    def _do_for(self, node: ast.For) -> None:
        call = node.iter
        if node.orelse or not isinstance(node.target, ast.Name) or not isinstance(call, ast.Call) or call.keywords \
                or not isinstance(callee := self.value(call.func), Known) or callee.value is not range:
            raise Refused("a loop over something else than range()", node)
        parts = [self.held(self.integer(a)) for a in call.args]
        start, stop = (ZERO, parts[0]) if len(parts) == 1 else parts[:2]
        step = parts[2] if len(parts) == 3 else ONE
        if isinstance(step, Const) and not step.value:
            raise Refused("a step of zero", node)
        for bound in (start, stop, step):
            if self.types.bound(bound) > 61:
                self.guard(Apply("lt", (bound, Const(1 << 61)), "int64", "bool"))
                self.guard(Apply("gt", (bound, Const(-(1 << 61))), "int64", "bool"))
        first, by = start, step
        if not isinstance(step, Const):      # rounds are counted
            self.guard(Apply("gt", (step, ZERO), "int64", "bool"))
            integer = self.types.integer
            span = integer("add", integer("sub", stop, start), integer("sub", step, ONE))
            start, stop, step = ZERO, self.held(Apply("floordiv", (span, step), "int64", "int64")), ONE
        label, index, before, target = self.fresh("for"), self.fresh("at"), self.defined, node.target.id
        self.types.bits[index] = min(63, max(map(self.types.bound, (start, stop))) + 1)

        def body() -> None:
            at: Expr = Var(index, "int64")
            if by is not step:
                at = self.types.integer("add", first, self.types.integer("mul", at, by))
            self._to_name(target, Scalar(at, True))
            self._body(node.body)

        self.loops.append(label)
        inner, _ = self._branch(body, before)
        self.loops.pop()
        assert isinstance(step, Const)
        self.emit(Loop(label, index, start, stop, int(step.value), inner))
        self.defined = before

    def _do_break(self, node: ast.Break) -> None:
        self.emit(Leave(self.loops[-1]))
        self.defined = None

    def _do_continue(self, node: ast.Continue) -> None:
        self.emit(Leave(self.loops[-1], True))
        self.defined = None

    def _do_return(self, node: ast.Return) -> None:
        self.direct = node.value
        value = self.value(node.value) if node.value is not None else Known(None)
        scope = self.stack[-1]
        if scope.exit is None:
            self.emit(self._returned(value))
        else:
            self._to_name("return", value)
            self.emit(Leave(scope.exit))
        self.defined = None

    def _returned(self, value: Value) -> Return:
        scalars: list[Expr] = []
        arrays: list[str] = []

        def form(v: Value) -> Form:
            match v:
                case Scalar():
                    kind = v.kind
                    scalars.append(v.expr)
                    found = ["scalar", len(scalars) - 1, kind.dtype, kind.weak, None]
                    if kind.mixed:
                        scalars.append(v.tagged())
                        found[-1] = len(scalars) - 1
                    return found
                case Array():
                    kept = self._kept(v)
                    assert isinstance(kept, Array) and kept.view is not None
                    arrays.append(kept.view.array)
                    return ["array", len(arrays) - 1]
                case Several():
                    return [v.kind, *map(form, v.parts)]
                case Known(value=None):
                    return ["none"]
            raise Refused("this result")

        self.forms.append(form(value))
        return Return(len(self.forms) - 1, tuple(scalars), tuple(arrays))

    def inlined(self, function: Any, args: Sequence[Value], keywords: dict[str, Value], node: ast.Call) -> Value:
        plain = plain_function(function)
        if plain is None or any(s.function is plain for s in self.stack) or \
                (plain.__module__ or "").split(".")[0] in ("numpy", "scipy"):
            raise Refused(f"the call of {getattr(function, '__name__', function)!r}", node)
        source = read_source(plain)
        tree = source.tree
        if not isinstance(tree, ast.FunctionDef) or tree.args.vararg or tree.args.kwarg or tree.args.kwonlyargs:
            raise Refused(f"the call of {plain.__name__!r}", node)
        names = [a.arg for a in (*tree.args.posonlyargs, *tree.args.args)]
        given = dict(zip(names, args)) | keywords
        for name, default in zip(reversed(names), reversed(plain.__defaults__ or ())):
            given.setdefault(name, number(default) or Known(default))
        if set(given) != set(names) or len(args) > len(names):
            raise Refused(f"these arguments of {plain.__name__!r}", node)
        prefix = f"{self.stack[-1].prefix}{plain.__name__}@{node.lineno}:{node.col_offset}/"
        return self._inline(Scope(source, plain, prefix, self.fresh("call")), given, node is self.direct)

    def _inline(self, scope: Scope, given: dict[str, Value], direct: bool) -> Value:
        """`direct`: the call is all of a statement's value, so that nothing of it was evaluated before."""
        kept = {name: self._kept(value) for name, value in given.items()}
        held, loops, self._held, self.loops = self._held, self.loops, {}, []
        self.stack.append(scope)
        before, outside, self.out = self.defined, self.out, []
        for name, value in kept.items():
            self._to_name(name, value)
        tree = scope.source.tree
        assert isinstance(tree, ast.FunctionDef) and scope.exit is not None
        self._body(tree.body)
        ends = self.defined is not None
        body, self.out = tuple(self.out), outside
        self._held, self.loops = held, loops
        what = scope.names.get("return")
        if any(isinstance(s, Store) and "." not in s.array for s in walk(body)):
            if not direct:
                raise Refused("a helper that writes, inside of an expression")
            self._held.clear()
        self.defined = before
        self.emit(Block(scope.exit, body))
        self.stack.pop()
        if what is None:
            return Known(None)
        if ends:
            raise Refused("a helper that returns nothing on one of its ways")
        if what == "known":
            return scope.known["return"]
        variable = scope.prefix + "return"
        if self.defined is not None:
            self.defined.add(variable)
        return self._read(variable, what)
