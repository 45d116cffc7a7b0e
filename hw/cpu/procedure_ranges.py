"""Which positions of a loop are linear in its index: inside at both ends, they are inside all along."""

from __future__ import annotations

from collections.abc import Mapping

from tracedsl.ir.statements import (
    Allocate,
    Apply,
    Assign,
    Bind,
    Block,
    Const,
    Element,
    Expr,
    Extent,
    Loop,
    Store,
    Sum,
    Var,
    walk,
)

Access = tuple[str, tuple[Expr, ...], tuple[Expr, ...]]     # array, index as written, index in terms of the loop's



def linear_accesses(s: Loop) -> list[Access]:
    """The checked accesses of an innermost loop whose positions are linear in its index, with nothing else in them that
    the loop changes."""
    parts = list(walk(s.body))
    if any(isinstance(p, Loop | Block | Bind | Allocate) for p in parts):
        return []
    assigned = [p.name for p in parts if isinstance(p, Assign | Sum)]
    once = {p.name: p.value for p in s.body if isinstance(p, Assign) and assigned.count(p.name) == 1}
    found: list[Access] = []
    for p in parts:
        if not (isinstance(p, Element | Store) and p.checked):
            continue
        index = tuple(_expanded(e, once, frozenset(assigned)) for e in p.index)
        known = [e for e in index if e is not None]
        if len(known) == len(index) and (p.array, p.index) not in {(a, i) for a, i, _ in found}:
            found.append((p.array, p.index, tuple(known)))
    return found


def _expanded(e: Expr, once: Mapping[str, Expr], assigned: frozenset[str]) -> Expr | None:
    """The expression without the variables that the loop sets; None if it is not linear."""
    match e:
        case Const() | Extent():
            return e
        case Var():
            if e.name in once:
                return _expanded(once[e.name], {n: v for n, v in once.items() if n != e.name}, assigned)
            return None if e.name in assigned else e
        case Apply(op="add" | "sub" | "mul", exact=False, of="int64"):
            a, b = (_expanded(arg, once, assigned) for arg in e.args)
            if a is None or b is None or (e.op == "mul" and not isinstance(b, Const)):
                return None
            return Apply(e.op, (a, b), e.of, e.dtype)
    return None
