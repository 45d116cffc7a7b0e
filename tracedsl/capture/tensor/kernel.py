"""Capture of a kernel: an ordinary NumPy function and one call's arguments become a tensor graph.

What holds here: the function itself is never run, only a copy of it on symbolic arrays, once, for the dtypes, shapes
and compiled-in values that the call's key describes. Whatever cannot be captured raises `Unsupported` with the user's
line; an error of the function's own is also `Unsupported` (C013), so that running it in plain NumPy raises the real
one.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np

from tracedsl.capture.tensor.arguments import Bound, Key, Parameters, children, leaf_names, rebuild
from tracedsl.capture.tensor.arrays import SymbolicArray
from tracedsl.capture.tensor.calls import Tracer
from tracedsl.capture.tensor.environment import Snapshot
from tracedsl.capture.tensor.functions import by_identity
from tracedsl.capture.tensor.host import HostExpr
from tracedsl.capture.tensor.numbers import PythonNumber
from tracedsl.capture.tensor.outputs import (
    Argument,
    Computed,
    Container,
    Host,
    InputSource,
    Interface,
    Outer,
    Output,
    Result,
    Same,
    Static,
    ViewOf,
    ViewStep,
)
from tracedsl.capture.tensor.recorder import Recorder
from tracedsl.diagnostics import Unsupported
from tracedsl.ir.graph import Graph, Node
from tracedsl.ir.tensor import TensorType

RESULT_CAP = 1000     # arrays and numbers in one result


@dataclass(frozen=True, eq=False)
class Captured:
    """A graph, and how a call's arguments and results go with it."""

    graph: Graph
    interface: Interface


def capture_kernel(function: FunctionType, bound: Bound, snapshot: Snapshot) -> Captured:
    """Capture `function` for calls whose key is `bound.key`, with the outer names as in `snapshot`.

    Raises `Unsupported` (C***) for what cannot be captured, with the place in the user's source."""
    recorder = Recorder(function.__name__.replace("<lambda>", "lambda"), by_identity())
    names = Parameters.of(function).names
    leaves = _leaves(recorder, bound, names)
    outer = [_input(recorder, part, f"outer_{i}", Outer(i)) for i, part in
             enumerate(part for _, key in snapshot.key for part in _leaf_keys((key,)))]
    tracer = Tracer(recorder, snapshot, outer)
    stand_ins = iter(leaves)
    arguments = [rebuild(part, stand_ins, tracer.foreign) for part in bound.key]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = _call(function, tracer, arguments)
    except Unsupported as error:
        raise _placed(error, recorder) from None
    except RecursionError:
        recorder.refuse("C012", "the function calls itself too deep",
                        hint="write a loop, or operations on whole arrays")
    except Exception as error:
        raise Unsupported("C013", f"the function raises {type(error).__name__}: {error}",
                          why="it did so while it was captured; it is run in NumPy to raise the real error",
                          span=recorder.span or recorder.last_span) from error
    returned = _Returned(recorder, bound)
    outputs = returned.output(value)
    writes = tuple((source.index, returned.add(owner.node)) for source, owner in recorder.written.items())
    graph = recorder.builder.build(returned.results)
    inputs: tuple[InputSource, ...] = tuple(recorder.sources[param] for param in graph.params)
    return Captured(graph, Interface(inputs, outputs, len(returned.results), writes))


def _call(function: FunctionType, tracer: Tracer, arguments: list[Any]) -> Any:
    """Pass the arguments the way the function takes them."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for parameter, value in zip(Parameters.of(function).signature.parameters.values(), arguments):
        if parameter.kind is parameter.VAR_POSITIONAL:
            args += value
        elif parameter.kind is parameter.VAR_KEYWORD:
            kwargs |= value
        elif parameter.kind is parameter.KEYWORD_ONLY:
            kwargs[parameter.name] = value
        else:
            args.append(value)
    return tracer.copy(function)(*args, **kwargs)


def _placed(error: Unsupported, recorder: Recorder) -> Unsupported:
    """The error with a place, if it was raised by a part that knows none."""
    d = error.diagnostic
    return error if d.span else Unsupported(d.code, d.what, why=d.why, hint=d.hint,
                                            span=recorder.span or recorder.last_span)


# -- what comes in ------------------------------------------------------------------------------------------------


def _leaf_keys(key: Key) -> Iterator[Key]:
    for part in key:
        if part[0] in ("array", "scalar", "number"):
            yield part
        else:
            yield from _leaf_keys(tuple(child for _, child in children(part)))


def _leaves(recorder: Recorder, bound: Bound, names: Sequence[str]) -> list[Any]:
    """What stands for the call's arrays and numbers; the same array twice is the same stand-in twice."""
    leaves: list[Any] = []
    for i, (part, name) in enumerate(zip(_leaf_keys(bound.key), leaf_names(names, bound.key))):
        first = bound.aliases[i] if bound.aliases else i
        leaves.append(_leaf(recorder, part, name, i) if first == i else leaves[first])
    return leaves


def _leaf(recorder: Recorder, part: Key, name: str, index: int) -> Any:
    source = Argument(index)
    if part[0] == "number":
        number = HostExpr("argument", (index,), part[1])
        recorder.names[number] = name
        return PythonNumber(recorder, number)
    return _input(recorder, part, name, source)


def _input(recorder: Recorder, part: Key, name: str, source: Argument | Outer) -> SymbolicArray:
    """A parameter of the graph. Its attribute `strides` (in elements) is there if the array is not C-contiguous."""
    shape, strides = (part[2], part[3]) if part[0] == "array" else ((), None)
    attrs = {} if strides is None else {"strides": strides}
    node = recorder.builder.param(name, TensorType(part[1], shape), **attrs)
    recorder.sources[node] = source
    return SymbolicArray(recorder, node, is_scalar=part[0] == "scalar", source=source, contiguous=strides is None)


# -- what goes out ------------------------------------------------------------------------------------------------


class _Returned:
    """Turns the function's result into outputs. Arrays that share memory are results once, with views of them."""

    def __init__(self, recorder: Recorder, bound: Bound) -> None:
        self.recorder = recorder
        self.results: list[Node] = []
        self._index: dict[int, int] = {}      # id of a symbolic array -> its result
        self._sharing: dict[int, set[int]] = {}   # id of an owner -> ids of the parts of the result in its memory
        self._held: list[Any] = []            # keeps the ids above alive

    def output(self, value: Any) -> Output:
        for part in self._parts(value, 0):
            self._held += [part, part.owner]
            self._sharing.setdefault(id(part.owner), set()).add(id(part))
        return self._output(value)

    def _parts(self, value: Any, depth: int) -> Iterator[SymbolicArray]:
        if depth > 20 or len(self._held) > RESULT_CAP:
            self.recorder.refuse("C014", "the result is nested too deep, or too large")
        if type(value) is SymbolicArray:
            yield value
        elif isinstance(value, tuple | list):
            for part in value:
                yield from self._parts(part, depth + 1)
        elif isinstance(value, dict):
            for part in value.values():
                yield from self._parts(part, depth + 1)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            for field in dataclasses.fields(value):
                yield from self._parts(getattr(value, field.name), depth + 1)

    def _output(self, value: Any) -> Output:
        kind = type(value)
        if kind is SymbolicArray:
            return self._array(value)
        if kind is PythonNumber:
            return Host(value.expr)
        if kind in (tuple, list):
            return Container(kind.__name__, tuple(map(self._output, value)))
        if kind is dict:
            return Container("dict", tuple(map(self._output, value.values())), tuple(value))
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return Container("record", tuple(map(self._output, value)), kind._fields, kind)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = tuple(f.name for f in dataclasses.fields(value))
            return Container("record", tuple(self._output(getattr(value, n)) for n in names), names, kind)
        if kind is np.ndarray:
            return Static(value.copy())
        if value is None or value is Ellipsis or isinstance(
                value, bool | int | float | complex | str | bytes | np.generic | np.dtype | type):
            return Static(value)
        return self.recorder.refuse("C014", f"the function returns an object of type {kind.__qualname__!r}",
                                    why="only arrays, numbers, text, tuples, lists, dicts, dataclasses of them can be",
                                    hint="return the arrays that it holds")

    def _array(self, value: SymbolicArray) -> Output:
        owner = value.owner
        if isinstance(owner.source, Argument | Outer):
            steps = self._steps(value.node, owner.node)
            return Same(owner.source) if value is owner else ViewOf(owner.source, steps)
        if value is not owner and len(self._sharing[id(owner)]) > 1:
            return ViewOf(Result(self._result(owner)), self._steps(value.node, owner.node))
        return Computed(self._result(value), value.is_scalar)

    def add(self, node: Node) -> int:
        """One more result of the graph."""
        self.results.append(node)
        return len(self.results) - 1

    def _result(self, value: SymbolicArray) -> int:
        if id(value) not in self._index:
            self._index[id(value)] = self.add(value.node)
        return self._index[id(value)]

    def _steps(self, node: Node, owner: Node) -> tuple[ViewStep, ...]:
        """How a view comes from the array that owns the memory."""
        steps: list[ViewStep] = []
        while node is not owner:
            name = node.op.name.removeprefix("tensor.")
            if name == "window":
                steps.append((name, (node.attr("shape"), node.attr("start"), *node.attr("steps"))))
            elif name != "hint":
                steps.append((name, tuple(node.attr(key) for key in _VIEW_ATTRS[name])))
            node = node.inputs[0]
        return tuple(reversed(steps))


_VIEW_ATTRS = {"slice": ("start", "step", "size"), "transpose": ("perm",), "reshape": ("shape",),
               "broadcast": ("shape", "dims")}
