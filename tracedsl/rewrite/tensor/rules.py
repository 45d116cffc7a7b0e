"""Simplification rules of the tensor dialect, as a table.

What holds here:
- A rule is (pattern, replacement, condition). Patterns and replacements are written as calls over variables: `x`,
  `y`, ... stand for any node, a number for a constant of that value (or one that is broadcast).
- Every rule keeps every bit of the result, signed zeros and NaN included; each is fuzzed against NumPy by its own text.
- Views compose by functions of their attributes; these are rules as well, with a Python replacement.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tracedsl.ir.dtypes import is_complex, is_float, is_integer
from tracedsl.ir.graph import CONSTANT, Node, Rewriter
from tracedsl.ir.tensor import ELEMENTWISE, OPS, VIEWS, TensorType, constant_text

Bound = Mapping[str, Node]
Replacement = str | Callable[[Rewriter, Node, Bound], Node | None]


@dataclass(frozen=True)
class Rule:
    """Where `pattern` matches and `when` holds for its variables, `to` computes the same."""

    pattern: str
    to: Replacement
    when: Callable[[Bound], bool] = lambda bound: True

    def apply(self, rewriter: Rewriter, node: Node) -> Node | None:
        bound: dict[str, Node] = {}
        if not _matches(_parsed(self.pattern), node, bound) or not self.when(bound):
            return None
        if isinstance(self.to, str):
            return _built(_parsed(self.to), rewriter, node, bound)
        return self.to(rewriter, node, bound)


# -- conditions ---------------------------------------------------------------------------------------------------


def type_of(node: Node) -> TensorType:
    assert isinstance(node.type, TensorType)
    return node.type


def _float(bound: Bound) -> bool:
    return is_float(type_of(bound["x"]).dtype)


def _whole(bound: Bound) -> bool:
    return is_integer(type_of(bound["x"]).dtype)


def _real(bound: Bound) -> bool:
    return not is_complex(type_of(bound["x"]).dtype)


def _bits(bound: Bound) -> bool:
    return _whole(bound) or type_of(bound["x"]).dtype == "bool"


def _power_of_two(bound: Bound) -> bool:
    value = number(bound["c"])
    if value is None or not _float(bound) or not math.isfinite(value) or value == 0:
        return False
    limits = np.finfo(type_of(bound["x"]).dtype)
    low, high = float(limits.tiny), float(limits.max)
    return abs(math.frexp(value)[0]) == 0.5 and low <= abs(value) <= high and low <= abs(1 / value) <= high


def lossless(source: str, target: str) -> bool:
    """Whether every value of one dtype is one of the other (NumPy calls int64 -> float64 safe, which it is not)."""
    if source in ("int64", "uint64") and np.dtype(target).kind in "fc":
        return False
    return bool(np.can_cast(source, target, "safe"))


# -- replacements in Python ---------------------------------------------------------------------------------------


def _reciprocal(rewriter: Rewriter, node: Node, bound: Bound) -> Node | None:
    value, kind = number(bound["c"]), type_of(bound["x"])
    assert value is not None
    return rewriter.add(OPS["mul"], [bound["x"], splat(rewriter, 1 / value, kind)], span=node.span)


def _cast(rewriter: Rewriter, node: Node, bound: Bound) -> Node | None:
    source, target = bound["x"], type_of(node).dtype
    if type_of(source).dtype == target:
        return source
    if source.op is OPS["cast"]:
        first = source.inputs[0]
        if lossless(type_of(first).dtype, type_of(source).dtype):
            return rewriter.add(OPS["cast"], [first], {"dtype": target}, span=node.span)
    return None


def _transpose(rewriter: Rewriter, node: Node, bound: Bound) -> Node | None:
    source, perm = bound["x"], node.attr("perm")
    if tuple(perm) == tuple(range(len(perm))):
        return source
    if source.op is OPS["transpose"]:
        both = tuple(source.attr("perm")[d] for d in perm)
        return rewriter.add(OPS["transpose"], source.inputs, {"perm": both}, span=node.span)
    return None


def _reshape(rewriter: Rewriter, node: Node, bound: Bound) -> Node | None:
    source = bound["x"]
    if type_of(source).shape == type_of(node).shape:
        return source
    if source.op is OPS["reshape"]:
        return rewriter.add(OPS["reshape"], source.inputs, {"shape": tuple(node.attr("shape"))}, span=node.span)
    return None


def _broadcast(rewriter: Rewriter, node: Node, bound: Bound) -> Node | None:
    source = bound["x"]
    if type_of(source).shape == type_of(node).shape:
        return source
    if source.op is OPS["broadcast"]:
        dims = tuple(node.attr("dims")[d] for d in source.attr("dims"))
        return rewriter.add(OPS["broadcast"], source.inputs, {"shape": tuple(node.attr("shape")), "dims": dims},
                            span=node.span)
    return None


def _slice(rewriter: Rewriter, node: Node, bound: Bound) -> Node | None:
    source, start, step, size = bound["x"], node.attr("start"), node.attr("step"), node.attr("size")
    if type_of(source).shape == tuple(size) and all(a == 0 or n == 0 for a, n in zip(start, size)) \
            and all(s == 1 or n <= 1 for s, n in zip(step, size)):
        return source
    if source.op is OPS["slice"] and 0 not in size:
        inner = list(zip(source.attr("start"), source.attr("step")))
        attrs = {"start": tuple(a + s * b for (a, s), b in zip(inner, start)),
                 "step": tuple(s * t for (_, s), t in zip(inner, step)), "size": tuple(size)}
        return rewriter.add(OPS["slice"], source.inputs, attrs, span=node.span)
    return None


def _view_of_scalar(rewriter: Rewriter, node: Node) -> Node | None:
    """A view of one number that is broadcast is that number broadcast."""
    source = node.inputs[0]
    if source.op is OPS["broadcast"] and type_of(source.inputs[0]).shape == ():
        return rewriter.add(OPS["broadcast"], source.inputs, {"shape": type_of(node).shape, "dims": ()}, span=node.span)
    return None


def _elementwise_of_scalars(rewriter: Rewriter, node: Node) -> Node | None:
    """An operation on numbers that are broadcast is computed once, then broadcast."""
    if type_of(node).shape == ():
        return None
    if not all(s.op is OPS["broadcast"] and type_of(s.inputs[0]).shape == () for s in node.inputs):
        return None
    one = rewriter.add(node.op, [s.inputs[0] for s in node.inputs], node.attrs, span=node.span)
    return rewriter.add(OPS["broadcast"], [one], {"shape": type_of(node).shape, "dims": ()}, span=node.span)


def _no_axes(rewriter: Rewriter, node: Node, bound: Bound) -> Node | None:
    return None if node.attr("axes") else bound["x"]


RULES: tuple[Rule, ...] = (
    Rule("mul(x, 1)", "x", _real),
    Rule("mul(1, x)", "x", _real),
    Rule("div(x, 1)", "x", _float),
    Rule("add(x, -0.0)", "x", _float),
    Rule("add(-0.0, x)", "x", _float),
    Rule("sub(x, 0.0)", "x", _float),
    Rule("add(x, 0)", "x", _whole),
    Rule("add(0, x)", "x", _whole),
    Rule("sub(x, 0)", "x", _whole),
    Rule("mul(x, 0)", "sub(x, x)", _whole),
    Rule("div(x, c)", _reciprocal, _power_of_two),
    Rule("neg(neg(x))", "x"),
    Rule("not(not(x))", "x", _bits),
    Rule("abs(abs(x))", "abs(x)", _real),
    Rule("abs(neg(x))", "abs(x)", _float),
    Rule("mul(neg(x), neg(y))", "mul(x, y)", _real),
    Rule("sub(x, neg(y))", "add(x, y)", _real),
    Rule("add(x, neg(y))", "sub(x, y)", _real),
    Rule("pow(x, 1)", "x", _real),
    Rule("pow(x, 2)", "mul(x, x)", _real),
    Rule("maximum(x, x)", "x"),
    Rule("minimum(x, x)", "x"),
    Rule("and(x, x)", "x"),
    Rule("or(x, x)", "x"),
    Rule("select(True, x, y)", "x"),
    Rule("select(False, x, y)", "y"),
    Rule("select(m, x, x)", "x"),
    Rule("real(complex(x, y))", "x"),
    Rule("imag(complex(x, y))", "y"),
    Rule("conj(conj(x))", "x"),
    Rule("floor(floor(x))", "floor(x)"),
    Rule("cast(x)", _cast),
    Rule("transpose(x)", _transpose),
    Rule("reshape(x)", _reshape),
    Rule("broadcast(x)", _broadcast),
    Rule("slice(x)", _slice),
    Rule("reduce(x)", _no_axes),
)


@cache
def _rules_of(op: str) -> tuple[Rule, ...]:
    return tuple(rule for rule in RULES if rule.pattern.split("(")[0] == op)


def simplified(rewriter: Rewriter, node: Node) -> Node | None:
    """The node that the first matching rule gives, if one does."""
    for rule in _rules_of(node.op.name.removeprefix("tensor.")):
        if (new := rule.apply(rewriter, node)) is not None:
            return new
    if node.op in VIEWS and node.op is not OPS["broadcast"]:
        return _view_of_scalar(rewriter, node)
    return _elementwise_of_scalars(rewriter, node) if node.op in ELEMENTWISE else None


# -- patterns -----------------------------------------------------------------------------------------------------

# a number, a variable, or (operation, parts)
Pattern = int | float | bool | str | tuple[str, tuple[Any, ...]]


@cache
def _parsed(text: str) -> Pattern:
    for word in ("not", "and", "or"):
        text = text.replace(f"{word}(", f"{word}_(")
    return _pattern(ast.parse(text, mode="eval").body)


def _pattern(tree: ast.AST) -> Pattern:
    match tree:
        case ast.Name(id=name):
            return name
        case ast.Constant(value=value) if isinstance(value, int | float):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=value)) if isinstance(value, int | float):
            return -value
        case ast.Call(func=ast.Name(id=name), args=args):
            return name.rstrip("_"), tuple(map(_pattern, args))
    raise ValueError(f"not a pattern: {ast.dump(tree)}")


def _matches(pattern: Pattern, node: Node, bound: dict[str, Node]) -> bool:
    match pattern:
        case str():
            return bound.setdefault(pattern, node) is node
        case (op, parts):
            return node.op is OPS[op] and len(node.inputs) == len(parts) and all(
                _matches(part, source, bound) for part, source in zip(parts, node.inputs))
    value = number(node)
    return value is not None and value == pattern and math.copysign(1, value) == math.copysign(1, pattern)


def _built(pattern: Pattern, rewriter: Rewriter, node: Node, bound: Bound) -> Node:
    match pattern:
        case str():
            return bound[pattern]
        case (op, parts):
            return rewriter.add(OPS[op], [_built(part, rewriter, node, bound) for part in parts], span=node.span)
    return splat(rewriter, pattern, type_of(node))


def number(node: Node) -> float | None:
    """The value of a real constant, broadcast or not; None for everything else."""
    while node.op is OPS["broadcast"]:
        node = node.inputs[0]
    if node.op is not CONSTANT or type_of(node).shape != () or is_complex(type_of(node).dtype):
        return None
    value = node.attr("value").value
    plain = value.item() if hasattr(value, "item") else value
    return plain if isinstance(plain, int | float) else None


def splat(rewriter: Rewriter, value: Any, kind: TensorType) -> Node:
    """A constant of this type, every element of which is `value`."""
    array = np.asarray(value).astype(kind.dtype)
    one = rewriter.constant(array, TensorType(kind.dtype, ()), constant_text(array))
    return one if kind.shape == () else rewriter.add(OPS["broadcast"], [one], {"shape": kind.shape, "dims": ()})
