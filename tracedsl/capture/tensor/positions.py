"""Rewrites a function's syntax tree so that every operation asks the capture.

    y = np.exp(x) + a[1:]     becomes     y = __capture__.binary(7, 'add', __capture__.call(5, __capture__.attribute(4,
                                              np, 'exp'), x), __capture__.item(6, a, slice(1, None, None)))
    if y.any(): ...           becomes     if __capture__.test(9, ...): ...

What holds here: the order of evaluation stays that of Python. The first argument is the number of the expression's span
in `Positions.spans`. Tests and loops go through `test` and `turns`: this is the seam where control flow on values that
are not known can be captured. What cannot be captured at all is refused here, before anything runs.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from typing import Any, NoReturn

from tracedsl.capture.source import FunctionTree, Source
from tracedsl.diagnostics import Span, Unsupported

HOOK = "__capture__"

_BINARY = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "truediv", ast.FloorDiv: "floordiv",
           ast.Mod: "mod",
           ast.Pow: "pow", ast.MatMult: "matmul", ast.BitAnd: "and_", ast.BitOr: "or_", ast.BitXor: "xor",
           ast.LShift: "lshift", ast.RShift: "rshift"}
_COMPARE = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge"}
_UNARY = {ast.USub: "neg", ast.UAdd: "pos", ast.Invert: "invert"}

_REFUSED: dict[type[ast.AST], tuple[str, str]] = {
    ast.Global: ("a global statement", "return the value instead"),
    ast.Nonlocal: ("a nonlocal statement", "return the value instead"),
    ast.Yield: ("a generator", "return a list or an array"),
    ast.YieldFrom: ("a generator", "return a list or an array"),
    ast.Await: ("an await", "await outside, and pass the value"),
    ast.AsyncFunctionDef: ("an async function", "write a plain function"),
    ast.AsyncFor: ("an async loop", "write a plain loop"),
    ast.AsyncWith: ("an async with", "write it outside the function"),
    ast.Try: ("a try statement", "handle errors outside the function"),
    ast.With: ("a with statement", "write it around the call of the function"),
    ast.ClassDef: ("a class definition", "define the class outside the function"),
}
_EFFECTS = {
    "print": "print outside the function; the values are not known while it is captured",
    "input": "read input outside the function", "open": "read files outside the function",
    **dict.fromkeys(("exec", "eval", "compile", "__import__", "globals", "locals", "vars", "setattr", "delattr",
                     "breakpoint",
                     "id", "hash", "super", "memoryview", "help", "exit", "quit"), "leave it out of the function"),
}


class Positions(ast.NodeTransformer):
    """One rewrite. Raises `Unsupported` C003 (statements) or C004 (effects) with the place and what to do."""

    def __init__(self, source: Source, shadowed: Sequence[str]) -> None:
        self.source = source
        self.spans: list[Span] = []
        self.shadowed = set(shadowed)   # names that are not the builtins of that name

    def rewrite(self) -> FunctionTree:
        """The function's tree, rewritten, without decorators and annotations."""
        tree = ast.fix_missing_locations(self._function(_copied(self.source.tree)))
        assert isinstance(tree, ast.FunctionDef | ast.Lambda)
        return tree

    def _function(self, tree: FunctionTree) -> ast.AST:
        if isinstance(tree, ast.AsyncFunctionDef):
            self._refuse(tree, *_REFUSED[ast.AsyncFunctionDef])
        assigned = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        self.shadowed |= assigned | {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
        if isinstance(tree, ast.FunctionDef):
            tree.decorator_list, tree.returns = [], None
            for arg in ast.walk(tree.args):
                if isinstance(arg, ast.arg):
                    arg.annotation = None
            tree.body = [self.visit(statement) for statement in tree.body]
        else:
            tree.body = self.visit(tree.body)
        return tree

    def visit(self, node: ast.AST) -> Any:
        if type(node) in _REFUSED or type(node).__name__ == "TryStar":
            self._refuse(node, *_REFUSED.get(type(node), _REFUSED[ast.Try]))
        return super().visit(node)

    def _refuse(self, node: ast.AST, what: str, hint: str) -> NoReturn:
        raise Unsupported("C003", f"{what} cannot be captured", hint=hint, span=self.source.span(node))

    def _ask(self, node: ast.AST, what: str, *args: ast.expr, keywords: Sequence[ast.keyword] = ()) -> ast.expr:
        self.spans.append(self.source.span(node))
        hook = ast.Attribute(ast.Name(HOOK, ast.Load()), what, ast.Load())
        number = ast.Constant(len(self.spans) - 1)
        return ast.copy_location(ast.Call(hook, [number, *args], list(keywords)), node)

    # -- expressions ----------------------------------------------------------------------------------------------

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        name = _BINARY[type(node.op)]
        return self._ask(node, "binary", ast.Constant(name), self.visit(node.left), self.visit(node.right))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        if isinstance(node.op, ast.Not):
            return ast.copy_location(ast.UnaryOp(node.op, self._test(node.operand)), node)
        if isinstance(node.operand, ast.Constant):
            return node
        return self._ask(node, "unary", ast.Constant(_UNARY[type(node.op)]), self.visit(node.operand))

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        if len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            return self._ask(node, "binary", ast.Constant(_COMPARE[type(node.ops[0])]), self.visit(node.left),
                             self.visit(node.comparators[0]))
        self.generic_visit(node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if isinstance(node.func, ast.Name) and node.func.id in _EFFECTS and self._builtin(node.func.id):
            raise Unsupported("C004", f"a call of {node.func.id}() cannot be captured", hint=_EFFECTS[node.func.id],
                              why="it has effects, or looks at more than values", span=self.source.span(node))
        function, args = self.visit(node.func), [self.visit(arg) for arg in node.args]
        keywords = [ast.keyword(k.arg, self.visit(k.value)) for k in node.keywords]
        return self._ask(node, "call", function, *args, keywords=keywords)

    def _builtin(self, name: str) -> bool:
        return name not in self.shadowed and hasattr(builtins, name)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if not isinstance(node.ctx, ast.Load):
            self._refuse(node, "a write to an attribute", "return the value instead")
        return self._ask(node, "attribute", self.visit(node.value), ast.Constant(node.attr))

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        if isinstance(node.ctx, ast.Load):
            return self._ask(node, "item", self.visit(node.value), self._index(node.slice))
        self.generic_visit(node)
        return node

    def _index(self, index: ast.expr) -> ast.expr:
        if isinstance(index, ast.Slice):
            parts = [self.visit(p) if p else ast.Constant(None) for p in (index.lower, index.upper, index.step)]
            hook = ast.Attribute(ast.Name(HOOK, ast.Load()), "slice", ast.Load())
            return ast.copy_location(ast.Call(hook, parts, []), index)
        if isinstance(index, ast.Tuple):
            return ast.copy_location(ast.Tuple([self._index(part) for part in index.elts], ast.Load()), index)
        return self.visit(index)  # type: ignore[no-any-return]

    # -- statements -----------------------------------------------------------------------------------------------

    def visit_Assign(self, node: ast.Assign) -> Any:
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Subscript):
            return self._set_item(node, node.targets[0], self.visit(node.value))
        for target in node.targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Subscript):
                    self._refuse(part, "a write to an element among several targets", "write one assignment for each")
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if node.value is None or not isinstance(node.target, ast.Name):
            self._refuse(node, "this annotation", "leave it out")
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        name, value = ast.Constant("i" + _BINARY[type(node.op)].rstrip("_")), node.value
        if isinstance(node.target, ast.Name):
            before = ast.copy_location(ast.Name(node.target.id, ast.Load()), node)
            now = self._ask(node, "binary", name, before, self.visit(value))
            return ast.copy_location(ast.Assign([node.target], now), node)
        if isinstance(node.target, ast.Subscript):
            ask = self._ask(node, "change_item", self.visit(node.target.value), self._index(node.target.slice), name,
                            self.visit(value))
            return ast.copy_location(ast.Expr(ask), node)
        return self._refuse(node, "a write to an attribute", "return the value instead")

    def _set_item(self, node: ast.AST, target: ast.Subscript, value: ast.expr) -> ast.stmt:
        ask = self._ask(node, "set_item", value, self.visit(target.value), self._index(target.slice))
        return ast.copy_location(ast.Expr(ask), node)

    def visit_Delete(self, node: ast.Delete) -> Any:
        if not all(isinstance(target, ast.Name) for target in node.targets):
            self._refuse(node, "a deletion inside a container", "build a new container")
        return node

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> Any:
        self._refuse(node, "an import", "import at the top of the module")

    visit_ImportFrom = visit_Import

    # -- control flow ---------------------------------------------------------------------------------------------

    def _test(self, test: ast.expr) -> ast.expr:
        return self._ask(test, "test", self.visit(test))

    def visit_If(self, node: ast.If | ast.While | ast.IfExp | ast.Assert) -> ast.AST:
        test, node.test = self._test(node.test), ast.Constant(None)
        self.generic_visit(node)
        node.test = test
        return node

    visit_While = visit_IfExp = visit_Assert = visit_If

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        """`a and b` stays Python's; the first operand that is not known is refused where it is tested."""
        node.values = [self._ask(v, "operand", self.visit(v)) for v in node.values[:-1]] + [self.visit(node.values[-1])]
        return node

    def visit_For(self, node: ast.For) -> ast.AST:
        turns, node.iter = self._ask(node.iter, "turns", self.visit(node.iter)), ast.Constant(None)
        self.generic_visit(node)
        node.iter = turns
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        return ast.comprehension(self.visit(node.target), self._ask(node.iter, "turns", self.visit(node.iter)),
                                 [self._test(test) for test in node.ifs], node.is_async)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.decorator_list:
            self._refuse(node, "a decorated inner function", "define it outside")
        return self._function(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return self._function(node)


def _copied(tree: FunctionTree) -> FunctionTree:
    from copy import deepcopy

    return deepcopy(tree)
