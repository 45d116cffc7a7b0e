"""Short sums: reductions over a few elements become expressions, as if their terms had been written down.

What holds here: terms are combined in order, first to last, as NumPy combines so few. The reduction is element-wise
then, and fuses with whatever stands around it: the squared distance of two points is no loop. Products of matrices are
left to contractions unless the result is narrow or nothing of an operand is used twice, sums over windows to stencils
and convolutions, and what is marked as a `loop` (a block of a long sum) stays one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from tracedsl.ir.dtypes import is_complex, is_float
from tracedsl.ir.expr import Affine, Index
from tracedsl.ir.graph import Node
from tracedsl.ir.short import UNROLLED, WRITTEN, is_short
from tracedsl.ir.tensor import ELEMENTWISE, OPS, VIEWS, TensorType

Place = tuple[Node, tuple[Index, ...]]


def is_written_out(node: Node) -> bool:
    """Whether the node is a reduction whose terms are written down."""
    assert isinstance(node.type, TensorType)
    if is_complex(node.type.dtype) or node.type.dtype == "float16" or node.attrs.get("loop"):
        return False
    if node.op is OPS["reduce"]:
        count = math.prod(_shape(node.inputs[0])[axis] for axis in node.attr("axes"))
    elif node.op is OPS["contract"] and is_float(node.type.dtype) and _is_narrow(node):
        count = count_of(node)
    else:
        return False
    return 1 <= count <= WRITTEN and not _has_windows(node)


def terms(node: Node, index: Sequence[Index]) -> Iterator[tuple[Place, ...]]:
    """The factors of each term of the element at `index`."""
    if node.op is OPS["reduce"]:
        (source,), axes = node.inputs, node.attr("axes")
        for spot in itertools.product(*(range(_shape(source)[axis]) for axis in axes)):
            kept, at = iter(index), dict(zip(axes, spot))
            yield ((source, tuple(Affine((), at[d]) if d in at else next(kept) for d in range(len(_shape(source))))),)
        return
    sources, result = node.attr("spec").split("->")
    summed, places = _summed(node), dict(zip(result, index))
    for spot in itertools.product(*map(range, summed.values())):
        whole = {**places, **{letter: Affine((), n) for letter, n in zip(summed, spot)}}
        yield tuple((source, tuple(whole[letter] for letter in part))
                    for part, source in zip(sources.split(","), node.inputs))


def count_of(node: Node) -> int:
    """How many terms there are."""
    if node.op is OPS["reduce"]:
        return math.prod(_shape(node.inputs[0])[axis] for axis in node.attr("axes"))
    return math.prod(_summed(node).values())


def _shape(node: Node) -> tuple[int, ...]:
    assert isinstance(node.type, TensorType)
    return node.type.shape


def _summed(node: Node) -> dict[str, int]:
    """The letters that a contraction sums over, with their extents."""
    sources, result = node.attr("spec").split("->")
    extents = {letter: extent for part, source in zip(sources.split(","), node.inputs)
               for letter, extent in zip(part, _shape(source))}
    return {letter: extent for letter, extent in extents.items() if letter not in result}


def _is_narrow(node: Node) -> bool:
    """Whether a contraction's tile would have a short axis for its vectors and there is little to unroll, or whether
    there is nothing to keep in a tile."""
    sources, result = node.attr("spec").split("->")
    if all(set(result) <= set(part) for part in sources.split(",")):
        return True
    short = math.prod(extent for extent in _shape(node) if is_short(extent))
    return is_short(_shape(node)[-1]) and short * count_of(node) <= UNROLLED


def _has_windows(node: Node) -> bool:
    """Whether an operand is made of sliding windows."""
    seen: set[Node] = set()
    stack = list(node.inputs)
    while stack:
        source = stack.pop()
        if source.op is OPS["window"]:
            return True
        if source not in seen and (source.op in VIEWS or source.op in ELEMENTWISE):
            seen.add(source)
            stack += source.inputs
    return False
