"""What a workload is.

What holds here: plain data. Nothing of a peer is imported before its form is asked for; inputs follow from a seed, so
that each process makes the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = tuple[Any, ...]
PEERS = ("tracedsl", "numpy", "numexpr", "numba", "jax", "torch", "torch.compile", "tvm")
OURS = "tracedsl"


@dataclass(frozen=True)
class Form:
    """One way in which a library does the workload. `run` is what is timed; `prepare` turns the NumPy inputs into what
    `run` takes (best layout, not timed); `finish` turns its result back. None: the library's usual way."""

    run: Callable[..., Any]
    prepare: Callable[..., Arrays] | None = None
    finish: Callable[[Any], Any] | None = None
    name: str = ""


@dataclass(frozen=True)
class Target:
    """What issue 3 asks of a row: the ratio to the best peer (or to the peer `against`), or a part of the roofline;
    `together`: of the geometric mean of the group rather than of each row."""

    at_least: float
    aim: float
    roofline: float | None = None
    against: str | None = None
    together: bool = False


TARGETS: dict[str, Target] = {
    "gemm f32": Target(1.00, 1.05, roofline=0.90),
    "gemm f64": Target(1.00, 1.03),
    "gemm int8": Target(0.95, 1.0, roofline=0.70),
    "gemm skinny": Target(1.15, 1.3),
    "gemm batched": Target(1.9, 2.2),
    "gemm fused": Target(1.1, 1.3),
    "conv": Target(1.0, 1.15, together=True),
    "depthwise": Target(1.3, 2.0, together=True),
    "attention": Target(1.1, 1.5),
    "rows": Target(1.3, 2.0),
    "elementwise": Target(1.3, 2.0),
    "reduction": Target(0.95, 1.0),
    "loops": Target(1.3, 2.0),
    "stencil": Target(0.95, 1.0),
    "call": Target(2.0, 4.0, against="numpy"),
}
ROW_FLOOR, MEAN_AT_LEAST, MEAN_AIM = 0.95, 1.3, 2.0

# Floating-point operations that a function costs, so that rows made of functions have a roofline: what the prototypes
# of vector functions took of a core that does two operations (one fused multiply-add) a lane and cycle.
COST = {"exp": 30, "log": 36, "tanh": 52, "erf": 60, "sqrt": 16, "div": 16}

Forms = Callable[[Any], Form | Sequence[Form] | Callable[..., Any]]


@dataclass(frozen=True)
class Workload:
    """`function` is what is decorated with @kernel and, plain, what NumPy runs; `make(rng, *sizes)` gives its
    arguments. `peers` maps a library to a function that gets its module and returns one or more `Form`s (or just what
    is to be run), of which the fastest is taken. `flops(*sizes)` counts operations; `unit` says which peak they are
    held against. A result may differ from `reference` (by default the function in float64) by `tolerance` times its
    largest value, or, with `share`, in that share of its elements."""

    name: str
    group: str
    function: Callable[..., Any]
    make: Callable[..., Arrays]
    sizes: tuple[int, ...]
    tiny: tuple[int, ...]
    flops: Callable[..., float]
    peers: Mapping[str, Forms] = field(default_factory=dict)
    unit: str = "f32"
    tolerance: float = 1e-4
    share: bool = False
    reference: Callable[..., Any] | None = None

    def inputs(self, tiny: bool = False) -> Arrays:
        return self.make(np.random.default_rng(0), *(self.tiny if tiny else self.sizes))

    def expected(self, inputs: Arrays) -> list[Any]:
        """The results in float64."""
        wide = {"f": np.float64, "c": np.complex128}
        arrays = [np.array(a, wide.get(a.dtype.kind, a.dtype)) for a in inputs]
        with np.errstate(all="ignore"):
            return results((self.reference or self.function)(*arrays))

    def difference(self, got: Any, want: Sequence[Any]) -> float:
        """How far a result is off: see `tolerance`. Infinite for a wrong number of results, a wrong shape or a NaN."""
        given = results(got)
        if len(given) != len(want) or any(g.shape != w.shape for g, w in zip(given, want)):
            return float("inf")
        return max(self._difference(g, w) for g, w in zip(given, want))

    def _difference(self, got: Any, want: Any) -> float:
        if self.share:
            return float(np.mean(got != want))
        if want.dtype.kind in "iub":
            return float(np.max(np.abs(got.astype(np.int64) - want.astype(np.int64)), initial=0))
        off = float(np.max(np.abs(got.astype(want.dtype) - want), initial=0))
        return off / max(float(np.max(np.abs(want), initial=0)), 1e-300) if off == off else float("inf")


def results(value: Any) -> list[Any]:
    """The result or results as a list of arrays."""
    return [np.asarray(v) for v in value] if isinstance(value, tuple | list) else [np.asarray(value)]


def forms(made: Form | Sequence[Form] | Callable[..., Any]) -> list[Form]:
    if isinstance(made, Form):
        return [made]
    return [Form(made)] if callable(made) else list(made)


def memory(inputs: Arrays, outputs: Sequence[Any]) -> int:
    """Bytes that have to move at least: every input read once, every result written once."""
    return sum(a.nbytes for a in inputs) + sum(o.nbytes for o in outputs if all(o is not a for a in inputs))
