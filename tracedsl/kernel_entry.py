"""From a call that was served in Python to a plan that serves calls like it natively.

What holds here: `plan_call` describes exactly what the Python path would do for every call that the plan matches; what
it cannot describe (containers, views of results, numbers that Python computes, keyword arguments) gets no plan and
stays on the Python path. A kernel's first call never comes here: what is called once pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from inspect import Parameter
from typing import Any

import numpy as np

from tracedsl.capture.tensor.arguments import Bound, Key, Parameters
from tracedsl.capture.tensor.environment import Slot, Snapshot
from tracedsl.capture.tensor.host import HostExpr
from tracedsl.capture.tensor.outputs import Argument, Computed, Container, Outer, Output, Same, Static
from tracedsl.hw.cpu.entry import Dispatch, native
from tracedsl.hw.cpu.entry_plan import Argument as Record
from tracedsl.hw.cpu.entry_plan import (
    ArrayArgument,
    CallPlan,
    FloatArgument,
    Guard,
    Out,
    Part,
    Plan,
    RepeatedArgument,
    ScalarArgument,
    StaticArgument,
)
from tracedsl.kernel_variant import Variant

_WIDTHS = {"float64": "wide", "float32": "narrow"}
_PLAIN = (int, float, complex, bool, str, bytes, type(None))


class NativeCalls:
    """The native side of one kernel: which variants have plans, and which plan belongs to which variant."""

    def __init__(self, target: Any, slow: Any, words: int) -> None:
        found = native(words)
        self._dispatch = None if found is None else Dispatch(target, slow, found)
        self._plans: dict[tuple[int, int], Plan | None] = {}
        self._seen: dict[tuple[int, int], Snapshot] = {}      # the outer names that a plan expects
        self._variants: dict[int, Variant] = {}

    def learn(self, target: Any, variant: Variant, parameters: Parameters, given: int, bound: Bound,
              snapshot: Snapshot) -> None:
        """Make a plan for calls like this one, or bring the plan that there is up to the outer names of today."""
        if self._dispatch is None:
            return
        key = (id(variant), given)
        if key in self._plans:
            plan, guards = self._plans[key], None
            if plan is not None and self._seen[key] is not snapshot and (guards := _guards(variant, snapshot)):
                plan.expect(guards)
            self._seen[key] = snapshot
            return
        call = plan_call(variant, parameters, given, bound, snapshot)
        self._plans[key], self._seen[key] = None, snapshot
        if call is None:
            return
        try:
            plan = Plan(call, versions=self._dispatch.versions)
        except ValueError:
            return
        if self._dispatch.add(target, plan):
            self._plans[key] = plan
            self._variants[plan.address] = variant

    def forget(self, target: Any) -> None:
        """Serve no call by the plans any more. They stay in memory: a call may be inside one."""
        target._count = 0

    def variant(self, address: int) -> Variant:
        """The variant that the plan at this address calls."""
        return self._variants[address]


def plan_call(variant: Variant, parameters: Parameters, given: int, bound: Bound,
              snapshot: Snapshot) -> CallPlan | None:
    """The plan for calls with `given` positional arguments like this one; None if they need Python."""
    code = variant.runnable.native
    if code is None or bound.copies or snapshot.copies():
        return None
    arguments = _arguments(variant, parameters, given, bound)
    guards = _guards(variant, snapshot)
    returned = _parts(variant, given, bound)
    if not variant.in_place.issuperset(index for _, index in variant.interface.writes):
        return None
    if arguments is None or guards is None or returned is None:
        return None
    records, fixed = arguments
    first = len(variant.params)
    fixed += [(first + i, array) for i, array in enumerate(variant.constants)]
    first += len(variant.constants)
    scalars = {part.index for part in _computed(variant.interface.outputs) if part.is_scalar}
    written = {index for _, index in variant.interface.writes}
    outs = tuple(Out(dtype, shape, first + i, i in scalars) for i, (dtype, shape) in enumerate(variant.results)
                 if i not in written)
    first += len(variant.results)
    temps = tuple(range(first, first + len(code.offsets)))
    single = not isinstance(variant.interface.outputs, Container)
    return CallPlan(records, guards, outs, returned, single, tuple(fixed), code, temps)


def _arguments(variant: Variant, parameters: Parameters, given: int, bound: Bound) -> \
        tuple[tuple[Record, ...], list[tuple[int, np.ndarray[Any, Any]]]] | None:
    """A record for each argument, and the numbers among the defaults that were filled in."""
    kinds = [p.kind for p in parameters.signature.parameters.values()]
    if any(kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) for kind in kinds):
        return None
    slots = _slots(variant)
    if slots is None:
        return None
    leaf = 0
    records: list[Record] = []
    positions: dict[int, int] = {}      # leaf -> argument
    results = {leaf: len(variant.params) + len(variant.constants) + index for leaf, index in variant.interface.writes}
    fixed = []
    for position, part in enumerate(bound.key):
        if part[0] not in ("array", "scalar", "number", "static"):
            return None
        mine = slots.get(leaf, []) if part[0] != "static" else []
        record = _record(part, mine, variant)
        if part[0] == "array" and isinstance(record, ArrayArgument):
            first = bound.aliases[leaf] if bound.aliases else leaf
            if first == leaf and leaf in results and record.strides is not None:
                return None
            record = replace(record, written=results.get(leaf)) if first == leaf else RepeatedArgument(positions[first])
        positions[leaf] = position
        if record is None:
            return None
        if position < given:
            records.append(record)
        elif part[0] == "number":
            fixed += [(slot, np.array(bound.leaves[leaf], dtype=variant.params[slot][0])) for slot in mine]
        elif part[0] != "static":
            return None
        leaf += part[0] != "static"
    return tuple(records), fixed


def _slots(variant: Variant) -> dict[int, list[int]] | None:
    """Leaf -> the code's arrays that it is read as."""
    slots: dict[int, list[int]] = {}
    for slot, source in enumerate(variant.interface.inputs):
        if isinstance(source, HostExpr):
            if source.op != "argument":
                return None
            slots.setdefault(source.args[0], []).append(slot)
        elif isinstance(source, Argument):
            slots.setdefault(source.index, []).append(slot)
    return slots


def _record(part: Key, slots: Sequence[int], variant: Variant) -> Record | None:
    match part:
        case ("static", _, value):
            return StaticArgument(value)
        case ("number", "float"):
            widths = {_WIDTHS.get(variant.params[slot][0]): slot for slot in slots}
            if None in widths or len(widths) != len(slots):
                return None
            return FloatArgument(widths.get("wide"), widths.get("narrow"))
    if len(slots) > 1:
        return None
    slot = slots[0] if slots else None
    match part:
        case ("array", dtype, shape, strides):
            return ArrayArgument(dtype, shape, strides, slot)
        case ("scalar", dtype):
            return ScalarArgument(dtype, slot)
    return None


def _guards(variant: Variant, snapshot: Snapshot) -> tuple[Guard, ...] | None:
    """What must hold of the outer names; None if one of them may change inside without a trace."""
    slots = {source.index: slot for slot, source in enumerate(variant.interface.inputs) if isinstance(source, Outer)}
    guards = []
    leaf = 0
    for slot in snapshot.slots_in_order():
        array = None
        if slot.key[0] == "array":
            _, dtype, shape, strides = slot.key
            array = ArrayArgument(dtype, shape, strides, slots.get(leaf))
        elif slot.volatile and not _frozen(slot):
            return None
        leaf += len(slot.leaves)
        guards.append(Guard(slot.holder, slot.name, slot.value, slot.key == ("missing",), array))
    return tuple(guards)


def _frozen(slot: Slot) -> bool:
    """Whether the value, though a container, cannot change."""
    return isinstance(slot.value, tuple) and all(type(part) in _PLAIN for part in slot.value)


def _computed(output: Output) -> list[Computed]:
    if isinstance(output, Container):
        return [part for child in output.parts for part in _computed(child)]
    return [output] if isinstance(output, Computed) else []


def _parts(variant: Variant, given: int, bound: Bound) -> tuple[Part, ...] | None:
    """What is returned, each result once and in one place; None for what only Python can put together."""
    outputs = variant.interface.outputs
    if isinstance(outputs, Container):
        if outputs.kind != "tuple":
            return None
        parts = [_part(part, given, bound) for part in outputs.parts]
    else:
        parts = [_part(outputs, given, bound)]
    results = [part.out for part in parts if part is not None and part.out is not None]
    written = {index for _, index in variant.interface.writes}
    new = [i for i in range(len(variant.results)) if i not in written]
    if any(part is None for part in parts) or sorted(results) != new:
        return None
    return tuple(part if part.out is None else Part(out=new.index(part.out)) for part in parts if part is not None)


def _part(output: Output, given: int, bound: Bound) -> Part | None:
    match output:
        case Computed():
            return Part(out=output.index)
        case Same(source=Argument(index=index)):
            positions = [i for i, part in enumerate(bound.key) if part[0] != "static"]
            return Part(argument=positions[index]) if positions[index] < given else None
        case Static(value=value) if type(value) in _PLAIN:
            return Part(value=value)
    return None
