"""The syntax tree of a program, rewritten so that every operation on a value that may still be on its way asks the run.

What holds here: the rewritten function does what the original does, in the same order of evaluation, with calls,
attribute and item access, operators, tests and stores going through the run (`capture.language.run.Run`), which is the
first parameter of an enclosing function. What cannot be rewritten rightly raises `Unsupported` P102, never gives a
function that does something else. Bodies of nested functions, lambdas and generators stay as they are; the variables
that they share with the function only ever hold finished values.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable
from dataclasses import dataclass
from types import CodeType, FunctionType

from tracedsl.capture.language.python_expressions import RUN, SCOPES, CallSite, Expressions, load, run_call
from tracedsl.capture.source import Source, compile_function
from tracedsl.diagnostics import Unsupported

# Built-ins that take all of a generator before anything else happens: a list in its place changes nothing.
_DRAIN = frozenset({"list", "tuple", "sorted"})


@dataclass(frozen=True)
class Rewritten:
    """`code` is that of the rewritten function, `tree` shows it."""

    code: CodeType
    tree: ast.FunctionDef
    sites: tuple[CallSite, ...]

    @property
    def text(self) -> str:
        return ast.unparse(self.tree)


def rewrite_function(function: FunctionType, source: Source) -> Rewritten:
    """The function with all its operations going through the run. Raises `Unsupported` P102."""
    tree = source.tree
    if not isinstance(tree, ast.FunctionDef):
        what = "an async function" if isinstance(tree, ast.AsyncFunctionDef) else "a lambda"
        raise _unsupported(f"{what} is not captured", source, tree)
    if "__class__" in function.__code__.co_freevars:
        raise _unsupported("super() and __class__ are not captured", source, tree)
    original = tree
    tree = copy.deepcopy(tree)
    tree.decorator_list, tree.returns = [], None
    for argument in ast.walk(tree.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    tree.args.defaults = [ast.Constant(None) for _ in tree.args.defaults]
    tree.args.kw_defaults = [None if d is None else ast.Constant(None) for d in tree.args.kw_defaults]
    _Drainer(function).visit(tree)
    rewriter = Rewriter(source, original, tree)
    tree.body = rewriter.block(tree.body)
    ast.fix_missing_locations(tree)
    try:
        code = compile_function(tree, function.__code__, (RUN,)).replace(co_qualname=function.__qualname__)
    except SyntaxError as error:    # a := of ours where Python allows none: in the iterable of a comprehension
        raise _unsupported(f"this nesting of comprehensions is not captured ({error.msg})", source, original) from error
    return Rewritten(code, tree, tuple(rewriter.sites))


def bind(code: CodeType, function: FunctionType, run: object) -> FunctionType:
    """The rewritten code as a function over the original's globals and closure, for one run."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or ()))

    def cell_of_run() -> object:
        return run

    cells[RUN] = (cell_of_run.__closure__ or ())[0]
    made = FunctionType(code, function.__globals__, function.__name__, function.__defaults__,
                        tuple(cells[name] for name in code.co_freevars))
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _unsupported(what: str, source: Source, node: ast.AST) -> Unsupported:
    return Unsupported("P102", what, span=source.span(node), why="calls inside it could change their order or meaning",
                       hint="the program runs as plain Python; move this part into a helper function")


class Rewriter:
    """Rewrites statements; their values are rewritten by `Expressions`."""

    def __init__(self, source: Source, original: ast.FunctionDef, tree: ast.FunctionDef) -> None:
        self.source = source
        self.sites: list[CallSite] = []
        self.outside = _outside_names(tree)
        self._temporaries = 0
        self.expressions = Expressions(self)
        self._check(original)

    def _check(self, tree: ast.FunctionDef) -> None:
        """Refuse what can be seen at once."""
        for node in _own_nodes(tree):
            if isinstance(node, (ast.Await, ast.Yield, ast.YieldFrom, ast.AsyncFor, ast.AsyncWith)):
                raise self.unsupported("yield and await are not captured", node)
            if isinstance(node, ast.comprehension) and node.is_async:
                raise self.unsupported("an async comprehension is not captured", node.iter)
            name = getattr(node, "id", None) or getattr(node, "attr", None)
            if isinstance(name, str) and name.startswith("__") and not name.endswith("__"):
                raise self.unsupported(f"the private name {name} is not captured", node)

    def unsupported(self, what: str, node: ast.AST) -> Unsupported:
        return _unsupported(what, self.source, node)

    def temporary(self) -> str:
        self._temporaries += 1
        return f"__tracedsl_{self._temporaries}"

    # -- statements ----------------------------------------------------------------------------------------------

    def block(self, statements: Iterable[ast.stmt]) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        for statement in statements:
            visit = getattr(self, f"_{type(statement).__name__}", None)
            if visit is None:
                raise self.unsupported(f"a {type(statement).__name__} statement is not captured", statement)
            for new in visit(statement):
                made.append(ast.copy_location(new, statement))
        return made

    def _value(self, node: ast.expr) -> ast.expr:
        return self.expressions.visit(node)

    def _truth(self, node: ast.expr) -> ast.expr:
        return self.expressions.truth(node)

    def _keep(self, node: ast.stmt) -> list[ast.stmt]:
        return [node]

    _Pass = _Break = _Continue = _Global = _Nonlocal = _keep

    def _after_barrier(self, node: ast.stmt) -> list[ast.stmt]:
        """Code that stays as it is, and may do anything."""
        return [ast.Expr(run_call("barrier")), node]

    _Import = _ImportFrom = _FunctionDef = _ClassDef = _after_barrier

    def _Expr(self, node: ast.Expr) -> list[ast.stmt]:
        return [ast.Expr(self._value(node.value))]

    def _Return(self, node: ast.Return) -> list[ast.stmt]:
        return [ast.Return(None if node.value is None else self._value(node.value))]

    def _If(self, node: ast.If) -> list[ast.stmt]:
        return [ast.If(self._truth(node.test), self.block(node.body), self.block(node.orelse))]

    def _While(self, node: ast.While) -> list[ast.stmt]:
        return [ast.While(self._truth(node.test), self.block(node.body), self.block(node.orelse))]

    def _Assert(self, node: ast.Assert) -> list[ast.stmt]:
        return [ast.Assert(self._truth(node.test), None if node.msg is None else self._value(node.msg))]

    def _Raise(self, node: ast.Raise) -> list[ast.stmt]:
        exc, cause = (None if n is None else run_call("export", self._value(n)) for n in (node.exc, node.cause))
        return [ast.Raise(exc, cause)]

    def _Delete(self, node: ast.Delete) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        for target in node.targets:
            match target:
                case ast.Name():
                    made.append(ast.Delete([target]))
                case ast.Attribute(value=value, attr=name):
                    made.append(ast.Expr(run_call("del_attr", self._value(value), ast.Constant(name))))
                case ast.Subscript(value=value, slice=key):
                    made.append(ast.Expr(run_call("del_item", self._value(value), self._value(key))))
                case _:
                    raise self.unsupported("this form of del is not captured", target)
        return made

    def _For(self, node: ast.For) -> list[ast.stmt]:
        items = run_call("iterate", self.expressions.iterable(node.iter))
        if isinstance(node.target, ast.Name) and node.target.id not in self.outside:
            body, target = self.block(node.body), node.target
        else:
            target = ast.Name(self.temporary(), ast.Store())
            body = [*self.store(node.target, load(target)), *self.block(node.body)]
        return [ast.For(target, items, body, self.block(node.orelse))]

    def _Match(self, node: ast.Match) -> list[ast.stmt]:
        for case in node.cases:
            case.guard = None if case.guard is None else self._truth(case.guard)
            case.body = self.block(case.body)
        return [ast.Match(run_call("export", self._value(node.subject)), node.cases)]

    def _Try(self, node: ast.Try | ast.TryStar) -> list[ast.stmt]:
        node.body, node.orelse, node.finalbody = (self.block(b) for b in (node.body, node.orelse, node.finalbody))
        for handler in node.handlers:
            handler.type = None if handler.type is None else self._value(handler.type)
            handler.body = self.block(handler.body)
        return self._in_order(node)

    _TryStar = _Try

    def _With(self, node: ast.With) -> list[ast.stmt]:
        before: list[ast.stmt] = []
        for item in node.items:
            item.context_expr = run_call("export", self._value(item.context_expr))
            if item.optional_vars is not None and not isinstance(item.optional_vars, ast.Name):
                if len(node.items) > 1:
                    raise self.unsupported("this target of a with statement is not captured", item.optional_vars)
                target = ast.Name(self.temporary(), ast.Store())
                before += self.store(item.optional_vars, load(target))
                item.optional_vars = target
        node.body = [*before, *self.block(node.body)]
        return self._in_order(node)

    def _in_order(self, node: ast.stmt) -> list[ast.stmt]:
        """Around code that may catch exceptions: all before it is finished, and within it nothing overlaps."""
        leave: list[ast.stmt] = [ast.Expr(run_call("leave"))]
        return [ast.Expr(run_call("enter")), ast.Try([node], [], [], leave)]

    # -- stores --------------------------------------------------------------------------------------------------

    def _Assign(self, node: ast.Assign) -> list[ast.stmt]:
        if len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Tuple) and _pairs_up(target, node.value):
                return self._assign_pairwise(target, node.value)
            if not isinstance(target, (ast.Tuple, ast.List)):
                return self.store(target, self._value(node.value))
        held = ast.Name(self.temporary(), ast.Store())
        made: list[ast.stmt] = [ast.Assign([held], self._value(node.value))]
        for target in node.targets:
            made += self.store(target, load(held))
        return made

    def _assign_pairwise(self, target: ast.Tuple, value: ast.expr) -> list[ast.stmt]:
        """`a, b = x, y`: no tuple is made."""
        assert isinstance(value, ast.Tuple)
        held = [ast.Name(self.temporary(), ast.Store()) for _ in value.elts]
        made: list[ast.stmt] = [ast.Assign([h], self._value(v)) for h, v in zip(held, value.elts)]
        for inner, h in zip(target.elts, held):
            made += self.store(inner, load(h))
        return made

    def store(self, target: ast.expr, value: ast.expr) -> list[ast.stmt]:
        """`target = value`, where `value` is rewritten already."""
        match target:
            case ast.Name(id=name):
                return [ast.Assign([target], run_call("export", value) if name in self.outside else value)]
            case ast.Attribute(value=owner, attr=name):
                return [ast.Expr(run_call("set_attr", value, self._value(owner), ast.Constant(name)))]
            case ast.Subscript(value=owner, slice=key):
                return [ast.Expr(run_call("set_item", value, self._value(owner), self._value(key)))]
            case ast.Tuple() | ast.List():
                return self._store_unpacked(target, value)
        raise self.unsupported("this form of assignment is not captured", target)

    def _store_unpacked(self, target: ast.Tuple | ast.List, value: ast.expr) -> list[ast.stmt]:
        pieces: list[ast.expr] = []
        stores: list[ast.stmt] = []
        for inner in target.elts:
            held = ast.Name(self.temporary(), ast.Store())
            if isinstance(inner, ast.Starred):
                pieces.append(ast.Starred(held, ast.Store()))
                stores += self.store(inner.value, run_call("own", load(held)))
            else:
                pieces.append(held)
                stores += self.store(inner, load(held))
        return [ast.Assign([ast.Tuple(pieces, ast.Store())], run_call("unpack", value)), *stores]

    def _AnnAssign(self, node: ast.AnnAssign) -> list[ast.stmt]:
        if node.value is not None:
            return self.store(node.target, self._value(node.value))
        return [ast.AnnAssign(node.target, ast.Constant(None), None, node.simple)]

    def _AugAssign(self, node: ast.AugAssign) -> list[ast.stmt]:
        name = ast.Constant(type(node.op).__name__)
        match node.target:
            case ast.Name() as target:
                value = run_call("inplace", name, load(target), self._value(node.value))
                return self.store(target, value)
            case ast.Attribute(value=owner, attr=attribute):
                return [ast.Expr(run_call("inplace_attr", name, self._value(owner), ast.Constant(attribute),
                                          self.expressions.thunk(node.value)))]
            case ast.Subscript(value=owner, slice=key):
                return [ast.Expr(run_call("inplace_item", name, self._value(owner), self._value(key),
                                          self.expressions.thunk(node.value)))]


# -- pieces of trees ----------------------------------------------------------------------------------------------


def _pairs_up(target: ast.Tuple, value: ast.expr) -> bool:
    return (isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts)
            and not any(isinstance(e, ast.Starred) for e in (*target.elts, *value.elts)))


class _Drainer(ast.NodeTransformer):
    """`", ".join(x for x in xs)` -> `", ".join([x for x in xs])`: a list can be captured, a generator cannot."""

    def __init__(self, function: FunctionType) -> None:
        code = function.__code__
        shadowed = {*code.co_varnames, *code.co_cellvars, *code.co_freevars, *function.__globals__}
        self._names = _DRAIN - shadowed

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if len(node.args) == 1 and self._drains(node.func):
            node.args[0] = _listed(node.args[0])
        return node

    def visit_Starred(self, node: ast.Starred) -> ast.AST:
        self.generic_visit(node)
        node.value = _listed(node.value)
        return node

    def _drains(self, callee: ast.expr) -> bool:
        """Whether the callee uses a generator up before anything else happens."""
        match callee:
            case ast.Attribute(value=ast.Constant(value=str()), attr="join"):
                return True
            case ast.Name(id=name):
                return name in self._names
        return False


def _listed(node: ast.expr) -> ast.expr:
    if not isinstance(node, ast.GeneratorExp):
        return node
    return ast.copy_location(ast.ListComp(node.elt, node.generators), node)


def _own_nodes(tree: ast.AST) -> Iterable[ast.AST]:
    """The nodes of a function, without those of functions inside it."""
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, SCOPES):
            yield child
            yield from _own_nodes(child)


def _outside_names(tree: ast.FunctionDef) -> frozenset[str]:
    """Variables that other code can see: global and nonlocal ones, and those that nested code mentions."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            names.update(node.names)
        elif node is not tree and isinstance(node, (*SCOPES, ast.GeneratorExp)):
            names.update(inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))
    return frozenset(names)
