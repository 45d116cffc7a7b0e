"""Expressions of a program, rewritten: the half of `python_rewrite` that deals with values.

What holds here: the parts of an expression stay in the order in which Python evaluates them. What is not listed here is
refused, so that new syntax never slips through unchanged.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracedsl.diagnostics import Span

if TYPE_CHECKING:
    from tracedsl.capture.language.python_rewrite import Rewriter

RUN = "__tracedsl_run__"
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_FRAME_READERS = frozenset({"locals", "vars", "dir", "eval", "exec", "globals", "super", "breakpoint"})


@dataclass(frozen=True)
class CallSite:
    """A call in the source. `number` counts the calls of the function in the order of their text; `literals` are the
    keyword arguments that are written as constants; `function` is the helper that the call stands in, "" in the program
    itself."""

    number: int
    callee: str
    span: Span
    literals: frozenset[str]
    function: str = ""


class Expressions(ast.NodeTransformer):
    """Expressions, innermost first in evaluation order."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter

    def visit(self, node: ast.AST) -> ast.expr:
        method = getattr(self, f"visit_{type(node).__name__}", None)
        if method is None:
            raise self._rewriter.unsupported(f"a {type(node).__name__} expression is not captured", node)
        made: ast.expr = ast.copy_location(method(node), node)
        return made

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return node

    def truth(self, node: ast.expr) -> ast.expr:
        return ast.copy_location(run_call("truth", self.visit(node)), node)

    def thunk(self, node: ast.expr) -> ast.expr:
        """The expression, to be evaluated later, if at all."""
        if any(isinstance(inner, ast.NamedExpr) for inner in ast.walk(node)):
            raise self._rewriter.unsupported("a := here is not captured", node)
        nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
        return ast.Lambda(nothing, self.visit(node))

    # -- calls ---------------------------------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> ast.expr:
        return self._call(node, "call")

    def iterable(self, node: ast.expr) -> ast.expr:
        """What a loop runs over: `enumerate(...)` and the like may pass handles on."""
        return self._call(node, "call_in_loop") if isinstance(node, ast.Call) else self.visit(node)

    def _call(self, node: ast.Call, how: str) -> ast.expr:
        if isinstance(node.func, ast.Name) and node.func.id in _FRAME_READERS:
            raise self._rewriter.unsupported(f"{node.func.id}() is not captured", node)
        number = len(self._rewriter.sites)
        literals = frozenset(k.arg for k in node.keywords if k.arg and isinstance(k.value, ast.Constant))
        site = CallSite(number, _callee_text(node.func), self._rewriter.source.span(node), literals)
        self._rewriter.sites.append(site)
        function = self.visit(node.func)
        arguments = [self.visit(a) for a in node.args]
        made = run_call(how, ast.Constant(number), function, *arguments)
        made.keywords = [ast.keyword(k.arg, self.visit(k.value) if k.arg else run_call("mapping", self.visit(k.value)))
                         for k in node.keywords]
        return ast.copy_location(made, node)

    def visit_Starred(self, node: ast.Starred) -> ast.expr:
        return ast.Starred(run_call("unpack", self.visit(node.value)), node.ctx)

    # -- parts of values -----------------------------------------------------------------------------------------

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return run_call("attr", self.visit(node.value), ast.Constant(node.attr))

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        return run_call("item", self.visit(node.value), self.visit(node.slice))

    def visit_Slice(self, node: ast.Slice) -> ast.expr:
        ends = (node.lower, node.upper, node.step)
        return run_call("make_slice", *(ast.Constant(None) if e is None else self.visit(e) for e in ends))

    def visit_Tuple(self, node: ast.Tuple) -> ast.expr:
        return ast.Tuple([self.visit(e) for e in node.elts], node.ctx)

    def visit_List(self, node: ast.List) -> ast.expr:
        return run_call("own", ast.List([self.visit(e) for e in node.elts], node.ctx))

    def visit_Set(self, node: ast.Set) -> ast.expr:
        return run_call("own", ast.Set([self._key(e) for e in node.elts]))

    def visit_Dict(self, node: ast.Dict) -> ast.expr:
        keys: list[ast.expr | None] = []
        values: list[ast.expr] = []
        for key, value in zip(node.keys, node.values):
            entry = (None, run_call("mapping", self.visit(value))) if key is None else self._entry(key, value)
            keys.append(entry[0])
            values.append(entry[1])
        return run_call("own", ast.Dict(keys, values))

    def _entry(self, key: ast.expr, value: ast.expr) -> tuple[ast.expr, ast.expr]:
        """A key and the value beside it, which must be finished if hashing the key runs unknown code."""
        if isinstance(key, ast.Constant):
            return key, self.visit(value)
        held = ast.Name(self._rewriter.temporary(), ast.Store())
        made = ast.NamedExpr(held, run_call("key", self.visit(key)))
        return made, run_call("beside", load(held), self.visit(value))

    def _key(self, node: ast.expr) -> ast.expr:
        return self.visit(node) if isinstance(node, (ast.Starred, ast.Constant)) else run_call("key", self.visit(node))

    # -- operators -----------------------------------------------------------------------------------------------

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        return run_call("binary", ast.Constant(type(node.op).__name__), self.visit(node.left), self.visit(node.right))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        if isinstance(node.op, ast.Not):
            return ast.UnaryOp(node.op, self.truth(node.operand))
        return run_call("unary", ast.Constant(type(node.op).__name__), self.visit(node.operand))

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        return ast.BoolOp(node.op, [*(run_call("test", self.visit(v)) for v in node.values[:-1]),
                                    self.visit(node.values[-1])])

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        names = [ast.Constant(type(op).__name__) for op in node.ops]
        first = self.visit(node.left)
        if len(names) == 1:
            return run_call("compare", names[0], first, self.visit(node.comparators[0]))
        rest = [part for name, other in zip(names, node.comparators) for part in (name, self.thunk(other))]
        return run_call("chain", first, *rest)

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        return ast.IfExp(self.truth(node.test), self.visit(node.body), self.visit(node.orelse))

    def visit_NamedExpr(self, node: ast.NamedExpr) -> ast.expr:
        value = self.visit(node.value)
        return ast.NamedExpr(node.target, run_call("export", value) if node.target.id in self._rewriter.outside
                             else value)

    # -- text ----------------------------------------------------------------------------------------------------

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        # Python 3.12 puts an empty text behind a format specification
        parts = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
        return run_call("template", ast.Constant(node.lineno), *map(self._part, parts))

    def _part(self, node: ast.expr) -> ast.expr:
        if not isinstance(node, ast.FormattedValue):
            return node
        conversion = ast.Constant("" if node.conversion < 0 else chr(node.conversion))
        spec = ast.Constant("") if node.format_spec is None else self.visit(node.format_spec)
        return run_call("part", self.visit(node.value), conversion, spec)

    # -- comprehensions and nested functions -----------------------------------------------------------------------

    def visit_Lambda(self, node: ast.Lambda) -> ast.expr:
        return node

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.expr:
        return run_call("after", run_call("barrier"), node)

    def visit_ListComp(self, node: ast.ListComp) -> ast.expr:
        generators = self._generators(node)
        return run_call("own", ast.ListComp(self.visit(node.elt), generators))

    def visit_SetComp(self, node: ast.SetComp) -> ast.expr:
        generators = self._generators(node)
        return run_call("own", ast.SetComp(self._key(node.elt), generators))

    def visit_DictComp(self, node: ast.DictComp) -> ast.expr:
        generators = self._generators(node)
        return run_call("own", ast.DictComp(*self._entry(node.key, node.value), generators))

    def _generators(self, node: ast.ListComp | ast.SetComp | ast.DictComp) -> list[ast.comprehension]:
        if any(isinstance(inner, (*SCOPES, ast.GeneratorExp)) for inner in ast.walk(node)):
            raise self._rewriter.unsupported("a function or generator inside a comprehension is not captured", node)
        made = []
        for generator in node.generators:
            if any(isinstance(t, (ast.Attribute, ast.Subscript)) for t in ast.walk(generator.target)):
                raise self._rewriter.unsupported("this target of a comprehension is not captured", generator.target)
            several = ast.Constant(not isinstance(generator.target, ast.Name))
            items = run_call("iterate", self.iterable(generator.iter), several)
            made.append(ast.comprehension(generator.target, items, [self.truth(t) for t in generator.ifs], 0))
        return made


# -- pieces of trees ----------------------------------------------------------------------------------------------


def run_call(method: str, *arguments: ast.expr) -> ast.Call:
    """`run.method(*arguments)`"""
    return ast.Call(ast.Attribute(ast.Name(RUN, ast.Load()), method, ast.Load()), list(arguments), [])


def load(name: ast.Name) -> ast.Name:
    return ast.Name(name.id, ast.Load())


def _callee_text(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _callee_text(node.func)
    return ast.unparse(node)
