"""The source of a Python function: its text, its syntax tree, the place of every part of it.

What holds here: nothing knows NumPy or language models. The source is found through `linecache`, so that functions of
modules, notebook cells, closures and nested or decorated functions are all found the same way. Positions in the tree
are those of the user's file. Decorators are not part of a function's meaning and are left out of its digest.
"""

from __future__ import annotations

import ast
import dis
import inspect
import linecache
import textwrap
import threading
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FunctionType

from tracedsl.cache import digest
from tracedsl.diagnostics import Span, Unsupported

_FUTURE = 0x1FF0000   # the bits of `co_flags` that `from __future__ import ...` sets

# Python 3.11 counts the depth of trees for all threads together, so that only one may make or compile a tree at a time.
_PARSING = threading.RLock()

FunctionTree = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True, eq=False)
class Source:
    """A function's syntax tree with the positions of the file that it stands in."""

    file: str
    name: str
    tree: FunctionTree

    def span(self, node: ast.AST) -> Span:
        """The place of a part of the tree; the whole function's first line if the part has none."""
        line = getattr(node, "lineno", self.tree.lineno)
        return Span(self.file, line, getattr(node, "col_offset", self.tree.col_offset),
                    getattr(node, "end_lineno", None), getattr(node, "end_col_offset", None))

    @property
    def digest(self) -> str:
        """64 hex digits that change with the function's meaning, not with its place, its comments or decorators."""
        return digest(self.name, _meaning(self.tree))


def read_source(function: FunctionType) -> Source:
    """The source of a plain Python function.

    Raises `Unsupported` C001 if there is no source (built with `exec`, typed at a bare prompt), and C002 if the text
    that is found is not the text that runs (the file was edited after it was imported).
    """
    return _read(function.__code__, function.__code__.co_filename)


@lru_cache(maxsize=512)
def _read(code: CodeType, file: str) -> Source:   # code objects of different files can be equal
    place = Span(code.co_filename, code.co_firstlineno)
    lines = linecache.getlines(code.co_filename)
    if not lines:
        linecache.checkcache(code.co_filename)
        lines = linecache.getlines(code.co_filename)
    if not lines or code.co_firstlineno > len(lines):
        raise Unsupported("C001", f"the source of {code.co_name!r} is not at hand", span=place,
                          why="it is read again to be captured, and there is no file or notebook cell that holds it",
                          hint="define the function in a file or in a notebook cell")
    with _PARSING:
        tree = _lambda(code, lines) if code.co_name == "<lambda>" else _definition(code, lines)
        fits = tree is not None and _same_parameters(tree, code) and _runs(tree, code)
    if tree is None or not fits:
        raise Unsupported("C002", f"the source of {code.co_name!r} is not the code that runs", span=place,
                          why="the file was changed after it was imported, or the function was made by other code",
                          hint="import the module again")
    return Source(code.co_filename, code.co_name, tree)


def _definition(code: CodeType, lines: list[str]) -> FunctionTree | None:
    """The `def` that starts (with its decorators) at the code's first line. Only its own lines are parsed."""
    first = code.co_firstlineno - 1
    tree = _parsed(code, lines[first:_last_line(code)], first)
    return tree if tree is not None else _parsed(code, inspect.getblock(lines[first:]), first)


def _last_line(code: CodeType) -> int:
    """The last line that any instruction comes from: the end of the function, but for text that does nothing."""
    own = max((end for _, end, _, _ in code.co_positions() if end is not None), default=code.co_firstlineno)
    return max([own, *(_last_line(c) for c in code.co_consts if isinstance(c, CodeType))])


def _parsed(code: CodeType, block: list[str], first: int) -> FunctionTree | None:
    indented = block[0][:1].isspace()
    text = "".join(["if 1:\n", *block] if indented else block)
    try:
        module = ast.parse(text)
    except SyntaxError:  # text at the left edge inside an indented function, such as a comment or a long string
        try:
            module = ast.parse(textwrap.dedent("".join(block)))
            indented = False
        except SyntaxError:
            return None
    ast.increment_lineno(module, first - (1 if indented else 0))
    return next((node for node in _functions(module) if getattr(node, "name", None) == code.co_name), None)


def _lambda(code: CodeType, lines: list[str]) -> FunctionTree | None:
    """The `lambda` whose body stands where the code says; the whole file has to be parsed to find it."""
    try:
        module = ast.parse("".join(lines))
    except SyntaxError:
        return None
    places = {(line, column) for line, _, column, _ in code.co_positions() if line is not None and column}
    found = [node for node in _functions(module)
             if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno]
    if len(found) > 1:
        found = [node for node in found if any((part.lineno, part.col_offset) in places
                                               for part in ast.walk(node.body) if isinstance(part, ast.expr))]
    return found[0] if len(found) == 1 else None


def _functions(module: ast.AST) -> Iterator[FunctionTree]:
    return (n for n in ast.walk(module) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def _same_parameters(tree: FunctionTree, code: CodeType) -> bool:
    return tuple(parameter_names(tree)) == code.co_varnames[:len(parameter_names(tree))]


def _runs(tree: FunctionTree, code: CodeType) -> bool:
    """Whether the tree compiles to the code that runs. (Test runners rewrite `assert`, which is let pass.)"""
    if any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        return True
    return _same_code(compile_function(tree, code), code)


def _same_code(a: CodeType, b: CodeType) -> bool:
    """Whether two code objects do the same. Compared by instruction: how a name of an imported module is called
    depends on the rest of the module."""
    inner_a, inner_b = ([c for c in code.co_consts if isinstance(c, CodeType)] for code in (a, b))
    return (a.co_freevars == b.co_freevars and list(_instructions(a)) == list(_instructions(b))
            and len(inner_a) == len(inner_b) and all(map(_same_code, inner_a, inner_b)))


def _instructions(code: CodeType) -> Iterator[tuple[str, str]]:
    for i in dis.get_instructions(code):
        if i.opname in ("CACHE", "PUSH_NULL", "EXTENDED_ARG", "NOP", "PRECALL"):
            continue
        name = "LOAD_ATTR" if i.opname == "LOAD_METHOD" else i.opname
        jumps = i.opcode in dis.hasjrel or i.opcode in dis.hasjabs
        yield name, "" if jumps or isinstance(i.argval, CodeType) else repr(i.argval)


def compile_function(tree: FunctionTree, original: CodeType, cells: Sequence[str] = ()) -> CodeType:
    """The code object of a tree, with the free variables and the `from __future__` features of the original, and
    further free variables `cells`. Nothing is executed: the code is taken out of a function that never runs."""
    plain = copy(tree)
    if not isinstance(plain, ast.Lambda):
        plain.decorator_list = []
    with _PARSING:
        factory = ast.parse("def __factory__(): pass").body[0]     # has all the fields of this Python's trees
    assert isinstance(factory, ast.FunctionDef)
    factory.args.args = [ast.arg(name) for name in (*cells, *original.co_freevars)]
    factory.body = [ast.Expr(plain) if isinstance(plain, ast.Lambda) else plain]
    module = ast.fix_missing_locations(ast.Module([factory], []))
    with _PARSING:
        outer = compile(module, original.co_filename, "exec", flags=original.co_flags & _FUTURE, dont_inherit=True)
    made = next(c for c in outer.co_consts if isinstance(c, CodeType))
    return next(c for c in made.co_consts if isinstance(c, CodeType) and c.co_name == original.co_name)


def parameter_names(tree: FunctionTree) -> list[str]:
    """In the order of `co_varnames`: positional, keyword-only, then *args and **kwargs."""
    args = tree.args
    names = [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
    return names + [a.arg for a in (args.vararg, args.kwarg) if a is not None]


def _meaning(tree: FunctionTree) -> str:
    if isinstance(tree, ast.Lambda):
        return ast.dump(tree)
    head = ast.Lambda(tree.args, tree.returns or ast.Constant(None))
    return ast.dump(ast.Module([*tree.body, ast.Expr(head)], []))
