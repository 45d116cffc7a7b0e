"""Variables: what each holds, its type in all rounds, whether it is set.

What holds here: a variable is a scalar of one type or an array of one dtype and rank; types are joined until they
settle (the capture is repeated). `roots` says in whose memory an array variable may lie.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any

import numpy as np

from tracedsl.capture.source import Source
from tracedsl.capture.tensor.procedure.emitting import ONE
from tracedsl.capture.tensor.procedure.expressions import Expressions
from tracedsl.capture.tensor.procedure.values import (
    Array,
    Kind,
    Known,
    Refused,
    Scalar,
    Several,
    Types,
    Value,
    converted,
    number,
)
from tracedsl.ir.dtypes import is_integer
from tracedsl.ir.statements import (
    Allocate,
    ArrayType,
    Assign,
    Bind,
    Const,
    Expr,
    Var,
)


@dataclass
class Scope:
    """The names of one function: the decorated one, or a helper that is inlined."""

    source: Source
    function: FunctionType
    prefix: str
    exit: str | None = None                      # the label that `return` leaves; None: the procedure
    names: dict[str, str] = field(default_factory=dict)      # variable -> what it holds
    known: dict[str, Value] = field(default_factory=dict)


class Variables(Expressions):
    """Names and their values."""

    def __init__(self, types: Types, arrays: dict[str, ArrayType], roots: dict[str, frozenset[str]],
                 flags: set[str]) -> None:
        super().__init__()
        self.types, self.arrays, self.roots, self.flags = types, arrays, roots, flags
        self.defined: set[str] | None = set()      # None: not reached
        self.loops: list[str] = []
        self.forms: list[Any] = []
        self.stack: list[Scope] = []
        for known in (types.scalars, types.bits, arrays, roots):      # temporaries are numbered anew
            for name in [name for name in known if "." in name]:
                del known[name]      # type: ignore[attr-defined]

    def _holds(self, local: str, what: str) -> None:
        if self.stack[-1].names.setdefault(local, what) != what:
            raise Refused(f"{local!r} is a number here and an array there")

    def _variable(self, local: str) -> str:
        return self.stack[-1].prefix + local

    def name(self, node: ast.Name) -> Value:
        scope = self.stack[-1]
        what = scope.names.get(node.id)
        if what is None:
            return self._outer(scope, node)
        if what == "known":
            return scope.known[node.id]
        return self._read(self._variable(node.id), what)

    def _read(self, variable: str, what: str) -> Value:
        if self.defined is not None and variable not in self.defined:
            if variable not in self.flags:
                self.flags.add(variable)
                self.types.changed = True
            self.guard(Var(f"{variable}.set", "bool"))
        if what == "array":
            return self.viewed(self.full(variable, self.arrays[variable].rank))
        kind = self.types.scalars[variable]
        tag = Var(f"{variable}.kind", "int64") if kind.mixed else None
        return Scalar(Var(variable, kind.dtype), kind.weak, kind.mixed, tag)

    def _outer(self, scope: Scope, node: ast.Name) -> Value:
        function, name = scope.function, node.id
        if name in function.__code__.co_varnames:
            raise Refused(f"{name!r} before it is assigned", node)
        if name in function.__code__.co_freevars:
            cell = (function.__closure__ or ())[function.__code__.co_freevars.index(name)]
            value = cell.cell_contents
        elif name in function.__globals__:
            value = function.__globals__[name]
        else:
            builtin = function.__globals__.get("__builtins__")
            table = builtin if isinstance(builtin, dict) else vars(builtin)
            if name not in table:
                raise Refused(f"the name {name!r}", node)
            value = table[name]
        if isinstance(value, np.ndarray):
            raise Refused(f"the outer array {name!r}", node)
        return number(value) or Known(value)

    def _scalar_kind(self, variable: str, kind: Kind) -> Kind:
        known = self.types.scalars.get(variable)
        joined = kind if known is None else known.joined(kind)
        if joined != known:
            self.types.scalars[variable] = joined
            self.types.changed = self.types.changed or known is not None
        return joined

    def _array_type(self, variable: str, kind: ArrayType) -> None:
        known = self.arrays.get(variable)
        if known is not None and (known.dtype, known.rank) != (kind.dtype, kind.rank):
            raise Refused("an array variable of several types")
        joined = kind if known is None else replace(kind, unit=known.unit and kind.unit, ones=tuple(
            axis for axis in known.ones if axis in kind.ones))
        if joined != known:
            self.arrays[variable] = joined
            self.types.changed = self.types.changed or known is not None

    def _add_roots(self, variable: str, roots: frozenset[str]) -> None:
        known = self.roots.get(variable)
        if known is None or not roots <= known:
            self.roots[variable] = (known or frozenset()) | roots
            self.types.changed = self.types.changed or known is not None

    def _set(self, variable: str) -> None:
        if variable in self.flags:
            self.emit(Assign(f"{variable}.set", Const(True, "bool")))
        if self.defined is not None:
            self.defined.add(variable)

    def assign(self, variable: str, value: Scalar | Array) -> None:
        if isinstance(value, Array):
            if value.view is None:
                value = self.materialised(value)
            assert value.view is not None
            view = value.view
            source = self.arrays[view.array]
            last = view.axes[-1] if view.axes else None
            unit = last is None or (source.unit and last[:2] == (source.rank - 1, 1))
            ones = tuple(axis for axis, (_, _, extent) in enumerate(view.axes) if extent == ONE)
            self._array_type(variable, ArrayType(value.dtype, len(value.extents), unit, ones))
            self._add_roots(variable, self.roots[view.array])
            self.emit(Bind(variable, view))
        else:
            self._assign_scalar(variable, value)
        self._held.clear()      # what was held may have been read from this variable
        self._set(variable)

    def _assign_scalar(self, variable: str, value: Scalar) -> None:
        known = self.types.scalars.get(variable)
        kind = self._scalar_kind(variable, value.kind)
        if is_integer(value.expr.dtype):
            bits, before = self.types.bound(value.expr), self.types.bits.get(variable)
            if before is None:
                self.types.bits[variable] = bits
            elif bits > before:
                self.types.bits[variable] = 63
                self.types.changed = True
        if kind.mixed:
            self._tag(variable, value.tagged())
            if is_integer(value.expr.dtype):
                self._exactly_a_float(value.expr)
            weak = value.weak and kind.dtype != "float64"
            if weak and not (isinstance(value.expr, Const) and float(np.float32(value.expr.value)) == value.expr.value):
                raise Refused("a variable that is a Python number here and of another precision there")
        assert known is not None or kind == value.kind
        self.emit(Assign(variable, converted(value.expr, kind.dtype)))

    def _tag(self, variable: str, tag: Expr) -> None:
        self.emit(Assign(f"{variable}.kind", tag))

    def _kept(self, value: Value) -> Value:
        """A value that stays what it is while variables change."""
        if isinstance(value, Scalar):
            name = self.fresh("kept")
            self.types.bits[name] = self.types.bound(value.expr)
            if isinstance(value.expr, Const):
                return value
            self.emit(Assign(name, value.expr))
            tag = self._kept(Scalar(value.tag)) if value.tag is not None else None
            return replace(value, expr=Var(name, value.expr.dtype), tag=tag.expr if isinstance(tag, Scalar) else None)
        if isinstance(value, Array):
            name = self.fresh("kept")
            self.assign(name, value)
            return self.viewed(self.full(name, self.arrays[name].rank))
        return value

    def _to_name(self, local: str, value: Value) -> None:
        variable = self._variable(local)
        if isinstance(value, Known | Several):
            if isinstance(value, Several):
                value = Several(tuple(map(self._kept, value.parts)), value.kind)
            if self.loops or local in self.stack[-1].names:
                raise Refused(f"{local!r} holds neither a number nor an array")
            self._holds(local, "known")
            self.stack[-1].known[local] = value
            return
        self._holds(local, "scalar" if isinstance(value, Scalar) else "array")
        self.assign(variable, value)

    def allocated(self, dtype: str, extents: Sequence[Expr], zero: bool) -> Array:
        name = self.fresh("new")
        ones = tuple(axis for axis, extent in enumerate(extents) if extent == ONE)
        self._array_type(name, ArrayType(dtype, len(extents), ones=ones))
        self._add_roots(name, frozenset({name}))
        self.emit(Allocate(name, tuple(extents), zero))
        return self.viewed(self.full(name, len(extents)))
