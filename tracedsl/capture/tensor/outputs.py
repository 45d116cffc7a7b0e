"""What a captured function takes and returns: where the graph's inputs come from, what its results become.

What holds here: everything is plain data that goes to JSON and back, so that a variant is loaded without a capture. The
result has the identity and aliasing that NumPy would give: the same argument object, a view of its memory, or a new
array.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracedsl.capture.tensor.arguments import make_record
from tracedsl.capture.tensor.host import HostExpr
from tracedsl.diagnostics import Unsupported

ViewStep = tuple[str, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True, slots=True)
class Argument:
    """Leaf `index` of the bound arguments."""

    index: int


@dataclass(frozen=True, slots=True)
class Outer:
    """Outer array `index` of the environment's snapshot."""

    index: int


@dataclass(frozen=True, slots=True)
class Result:
    """Result `index` of the graph."""

    index: int


InputSource = Argument | Outer | HostExpr


@dataclass(frozen=True, slots=True)
class Computed:
    """Result `index` of the graph; a NumPy scalar, or a new array. The same index twice is the same object twice."""

    index: int
    is_scalar: bool


@dataclass(frozen=True, slots=True)
class Same:
    """The object that came in."""

    source: Argument | Outer


@dataclass(frozen=True, slots=True)
class ViewOf:
    """A view of an input's, or of a result's, memory. Steps: ("slice", (start, step, size)), ("transpose", (perm,)),
    ("reshape", (shape,)), ("broadcast", (shape, dims)), ("window", (shape, start, *steps))."""

    source: Argument | Outer | Result
    steps: tuple[ViewStep, ...]


@dataclass(frozen=True, slots=True)
class Static:
    """A value that is known: a Python object that does not change, or an array (copied for each call)."""

    value: Any


@dataclass(frozen=True, slots=True)
class Host:
    """A Python number that Python computes."""

    expr: HostExpr


@dataclass(frozen=True, slots=True)
class Container:
    """`kind`: "tuple", "list", "dict" (`labels`: its keys) or "record" (`labels`: its fields, `record`: its class)."""

    kind: str
    parts: tuple[Output, ...]
    labels: tuple[Any, ...] = ()
    record: type | None = None


Output = Computed | Same | ViewOf | Static | Host | Container


@dataclass(frozen=True, slots=True)
class Interface:
    """`inputs`: one for each parameter of the graph. `results`: how many the graph gives. `writes`: pairs of an
    argument that is written in place (a leaf) and the result that it becomes."""

    inputs: tuple[InputSource, ...]
    outputs: Output
    results: int
    writes: tuple[tuple[int, int], ...] = ()

    def gather(self, leaves: Sequence[Any], outer: Sequence[Any]) -> list[Any]:
        """The values of the graph's parameters for one call: arrays and numbers, as they came.

        Raises what Python raises while it computes numbers (ZeroDivisionError ...), and `Unsupported` C018."""
        values = []
        for source in self.inputs:
            if type(source) is Argument:
                values.append(leaves[source.index])
            elif type(source) is Outer:
                values.append(outer[source.index])
            else:
                assert isinstance(source, HostExpr)
                values.append(source.evaluate(leaves))
        return values

    def assemble(self, results: Sequence[np.ndarray[Any, Any]], leaves: Sequence[Any], outer: Sequence[Any]) -> Any:
        """The function's result from the graph's results (arrays, also for scalars) and the call's inputs. Arguments
        that are written take their results here, unless the result was written there at once."""
        for leaf, index in self.writes:
            if results[index] is not leaves[leaf]:
                np.copyto(leaves[leaf], results[index])
        return _assemble(self.outputs, results, leaves, outer)

    def to_json(self) -> dict[str, Any]:
        """Plain data. Raises `Unsupported` C014 for what has no form outside this process (a local class)."""
        return {"inputs": [_source_json(s) for s in self.inputs], "outputs": _output_json(self.outputs),
                "results": self.results, "writes": [list(pair) for pair in self.writes]}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Interface:
        """Raises KeyError, ValueError or TypeError for data that `to_json` did not make."""
        writes = tuple((int(leaf), int(index)) for leaf, index in data["writes"])
        return Interface(tuple(map(_source_from, data["inputs"])), _output_from(data["outputs"]), int(data["results"]),
                         writes)


# -- running ------------------------------------------------------------------------------------------------------


def _assemble(output: Output, results: Sequence[Any], leaves: Sequence[Any], outer: Sequence[Any]) -> Any:
    match output:
        case Computed(index=index, is_scalar=is_scalar):
            return results[index][()] if is_scalar else results[index]
        case Same(source=source):
            return leaves[source.index] if isinstance(source, Argument) else outer[source.index]
        case ViewOf(source=source, steps=steps):
            held = leaves if isinstance(source, Argument) else outer if isinstance(source, Outer) else results
            return view(held[source.index], steps)
        case Static(value=value):
            return value.copy() if isinstance(value, np.ndarray) else value
        case Host(expr=expr):
            return expr.evaluate(leaves)
    parts = [_assemble(part, results, leaves, outer) for part in output.parts]
    if output.kind == "record":
        assert output.record is not None
        return make_record(output.record, output.labels, parts)
    if output.kind == "dict":
        return dict(zip(output.labels, parts))
    return tuple(parts) if output.kind == "tuple" else parts


def view(array: Any, steps: Sequence[ViewStep]) -> Any:
    """NumPy's own view of an array; a copy where NumPy has to copy (reshape of strided memory)."""
    if not steps:
        return array[...]
    for step, args in steps:
        if step == "slice":
            array = array[tuple(_slice(*part) for part in zip(*args))]
        elif step == "transpose":
            array = array.transpose(args[0])
        elif step == "reshape":
            array = array.reshape(args[0])
        elif step == "window":
            array = _window(array, *args)
        else:
            shape, dims = args
            spread = [1] * len(shape)
            for extent, dim in zip(array.shape, dims):
                spread[dim] = extent
            array = np.broadcast_to(array.reshape(spread), shape)
    return array


def _window(array: Any, shape: tuple[int, ...], start: tuple[int, ...], *steps: tuple[int, ...]) -> Any:
    strides = [sum(row[j] * stride for row, stride in zip(steps, array.strides)) for j in range(len(shape))]
    first = array[tuple(slice(at, None) for at in start)]
    return np.lib.stride_tricks.as_strided(first, shape, strides, writeable=False)


def _slice(start: int, step: int, size: int) -> slice:
    stop = start + step * size
    return slice(start, None if stop < 0 else stop, step) if size else slice(0, 0)


# -- JSON ---------------------------------------------------------------------------------------------------------


def _source_json(source: InputSource | Result) -> list[Any]:
    if isinstance(source, HostExpr):
        return ["number", source.to_json()]
    return [type(source).__name__.lower(), source.index]


def _source_from(data: Sequence[Any]) -> Any:
    kind, value = data
    if kind == "number":
        return HostExpr.from_json(value)
    return {"argument": Argument, "outer": Outer, "result": Result}[kind](int(value))


def _output_json(output: Output) -> list[Any]:
    match output:
        case Computed():
            return ["computed", output.index, output.is_scalar]
        case Same():
            return ["same", _source_json(output.source)]
        case ViewOf():
            return ["view", _source_json(output.source), [[name, [list(a) for a in args]] for name,
                                                          args in output.steps]]
        case Static():
            return ["static", _static_json(output.value)]
        case Host():
            return ["host", output.expr.to_json()]
    record = "" if output.record is None else _class_name(output.record)
    return ["container", output.kind, [_output_json(part) for part in output.parts],
            [_static_json(label) for label in output.labels], record]


def _output_from(data: Sequence[Any]) -> Output:
    kind, *rest = data
    match kind:
        case "computed":
            return Computed(int(rest[0]), bool(rest[1]))
        case "same":
            return Same(_source_from(rest[0]))
        case "view":
            steps = tuple((str(name), tuple(tuple(map(int, a)) for a in args)) for name, args in rest[1])
            return ViewOf(_source_from(rest[0]), steps)
        case "static":
            return Static(_static_from(rest[0]))
        case "host":
            return Host(HostExpr.from_json(rest[0]))
        case "container":
            record = _class_named(rest[3]) if rest[3] else None
            return Container(str(rest[0]), tuple(map(_output_from, rest[1])), tuple(map(_static_from, rest[2])), record)
    raise ValueError(f"not an output: {kind!r}")


def _static_json(value: Any) -> list[Any]:
    match value:
        case None | bool() | str():
            return ["plain", value]
        case int() if type(value) is int:
            return ["int", str(value)]
        case float() if type(value) is float:
            return ["float", value.hex()]
        case complex() if type(value) is complex:
            return ["complex", value.real.hex(), value.imag.hex()]
        case bytes():
            return ["bytes", base64.b64encode(value).decode()]
        case np.dtype():
            return ["dtype", value.str]
        case np.ndarray() | np.generic():
            whole = np.ascontiguousarray(value)
            kind = "array" if isinstance(value, np.ndarray) else "scalar"
            return [kind, whole.dtype.str, list(np.shape(value)), base64.b64encode(whole.tobytes()).decode()]
        case type():
            return ["class", _class_name(value)]
    if value is Ellipsis:
        return ["ellipsis"]
    raise Unsupported("C014", f"a result of type {type(value).__qualname__} cannot be kept on disk")


def _static_from(data: Sequence[Any]) -> Any:
    kind, *rest = data
    match kind:
        case "plain":
            return rest[0]
        case "int":
            return int(rest[0])
        case "float":
            return float.fromhex(rest[0])
        case "complex":
            return complex(float.fromhex(rest[0]), float.fromhex(rest[1]))
        case "bytes":
            return base64.b64decode(rest[0])
        case "dtype":
            return np.dtype(rest[0])
        case "array" | "scalar":
            array = np.frombuffer(base64.b64decode(rest[2]), np.dtype(rest[0])).reshape(rest[1]).copy()
            return array if kind == "array" else array[()]
        case "class":
            return _class_named(rest[0])
        case "ellipsis":
            return Ellipsis
    raise ValueError(f"not a value: {kind!r}")


def _class_name(kind: type) -> str:
    name = f"{kind.__module__}:{kind.__qualname__}"
    if "<" in name or kind.__module__ == "__main__":
        raise Unsupported("C014", f"the class {kind.__qualname__!r} cannot be found again by its name",
                          hint="define it at the top level of a module")
    return name


def _class_named(name: str) -> type:
    """The class of this name, in a module that is loaded already: what a file says is never imported."""
    module, _, path = name.partition(":")
    found: Any = sys.modules[module]
    for part in path.split("."):
        found = getattr(found, part)
    if not isinstance(found, type):
        raise ValueError(f"{name} is no class")
    return found


def leaves_of(output: Output) -> Iterator[Output]:
    """All parts that are no containers, in order."""
    if isinstance(output, Container):
        for part in output.parts:
            yield from leaves_of(part)
    else:
        yield output
