"""The passes that a graph of the tensor dialect goes through before lowering, as one readable list.

What holds here: every pass is exact (same bits, sums aside, which keep or gain accuracy); constants are folded up to
`FOLD_LIMIT` elements, and a broadcast is never written out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracedsl.ir.dtypes import BYTES, is_complex
from tracedsl.ir.graph import CONSTANT, Graph, Node, Rewriter
from tracedsl.ir.tensor import OPS, constant_text
from tracedsl.rewrite.generic import CannotFold, drop_dead, fold_constants, share_common
from tracedsl.rewrite.passes import Pass
from tracedsl.rewrite.tensor.attention import divide_after_product
from tracedsl.rewrite.tensor.fuse import MIN_ROWS, ROW_BYTES
from tracedsl.rewrite.tensor.products import pair_bytes
from tracedsl.rewrite.tensor.rules import simplified, splat, type_of

FOLD_LIMIT = 4096   # elements of a constant that is computed while compiling
SUM_BLOCK = 4096    # elements that one chain of partial sums covers at most
LONG_ROW = 512      # from so many elements on, a row is worth being read in one go
ROWS, GROUP = 64, 8  # rows of a block, and of a group within it, in a reduction across rows


def _evaluate(node: Node, values: Sequence[Any]) -> Any:
    grows = node.op in (OPS["broadcast"], OPS["iota"])
    if type_of(node).size > (1 if grows else FOLD_LIMIT) or not node.inputs:
        raise CannotFold
    assert node.op.evaluate is not None
    return node.op.evaluate(values, node.attrs)


def _constant(rewriter: Rewriter, value: Any, node: Node) -> Node:
    array = np.ascontiguousarray(np.asarray(value), type_of(node).dtype).reshape(type_of(node).shape)
    return rewriter.constant(array, type_of(node), constant_text(array), node.span)


def simplify(graph: Graph) -> Graph:
    """apply the table of rules (rules.py)

        %0 = tensor.neg(%x)
        %1 = tensor.neg(%0)          ->     return %x
        return %1
    """
    for _ in range(4):
        changed = False

        def rule(to: Rewriter, node: Node) -> Node | None:
            nonlocal changed
            result = None
            while (new := _uniform(to, node) or simplified(to, node)) is not None:
                changed, result, node = True, new, new
            return result

        graph = Rewriter(graph).run(rule)
        if not changed:
            break
    return graph


def _uniform(to: Rewriter, node: Node) -> Node | None:
    """A constant array all of whose elements have the same bits is one number that is broadcast."""
    if node.op is not CONSTANT or type_of(node).shape == () or type_of(node).size == 0:
        return None
    array = np.ascontiguousarray(node.attr("value").value)
    if array.size > 1 and array.tobytes() != array.reshape(-1)[:1].tobytes() * array.size:
        return None
    return splat(to, array.reshape(-1)[0], type_of(node))


def block_reductions(graph: Graph) -> Graph:
    """cut long reductions into blocks of a fixed size, whose results are reduced again

        %0 = tensor.reduce(%x) {axes=(0,), kind='add'}         with %x: f32[20000]
    ->
        blocks of 4096 elements to f32[4], the rest to f32[], both to f32[5], then one sum

    Long float sums become at least as accurate as NumPy's pairwise ones, and full reductions can run in parallel; the
    blocks follow from the shape alone, so the result does not depend on the number of threads.
    """

    def rule(to: Rewriter, node: Node) -> Node | None:
        if node.op is OPS["contract"]:
            return _weighted_rows(to, node)
        if node.op is not OPS["reduce"]:
            return None
        current: Node = _across_rows(to, node, node.inputs[0], node.attr("axes"), node.attr("kind")) or node
        while (shorter := _one_block_step(to, current)) is not None:
            current = shorter
        return None if current is node else current

    return Rewriter(graph).run(rule)


def _weighted_rows(to: Rewriter, node: Node) -> Node | None:
    """A vector times a matrix with long rows is a sum of weighted rows: they are read as those of other sums are."""
    parts, result = node.attr("spec").split("->")
    letters = parts.split(",")
    if len(letters) != 2 or len({type_of(n).dtype for n in (*node.inputs, node)}) > 1 \
            or type_of(node).dtype not in ("float32", "float64"):
        return None
    for at, vector in enumerate(letters):
        weights, matrix = node.inputs[at], node.inputs[1 - at]
        shape = type_of(matrix).shape
        if len(vector) == 1 and letters[1 - at] == vector + result and matrix.op is not OPS["transpose"] \
                and _long_rows(shape, (0,), type_of(node).dtype):
            wide = to.add(OPS["broadcast"], [weights], {"shape": shape, "dims": (0,)}, span=node.span)
            product = to.add(OPS["mul"], [matrix, wide], {}, span=node.span)
            return _across_rows(to, node, product, (0,), "add")
    return None


def _long_rows(shape: Sequence[int], axes: Sequence[int], dtype: str) -> bool:
    """Whether a reduction along these axes is one across rows that are worth reading one after the other."""
    if len(axes) != 1 or dtype == "float16" or is_complex(dtype):
        return False
    (cut,), row = axes, math.prod(shape[axes[0] + 1:])
    return not (row < LONG_ROW or row * GROUP * BYTES[dtype] > ROW_BYTES or math.prod(shape[:cut]) >= MIN_ROWS
                or shape[cut] < 2 * ROWS or shape[cut] % GROUP or _block_of(shape[cut]) < ROWS // 2)


def _block_of(rows: int) -> int:
    return max(n for n in range(GROUP, ROWS + 1, GROUP) if rows % n == 0)


def _across_rows(to: Rewriter, node: Node, source: Node, axes: Sequence[int], kind: str) -> Node | None:
    """Reduce along an axis across long rows by blocks of rows, these by groups of a few: memory is then read row after
    row, some rows side by side, and there are blocks for all threads."""
    shape, dtype = type_of(source).shape, type_of(source).dtype
    if not _long_rows(shape, axes, dtype):
        return None
    cut, many = axes[0], _block_of(shape[axes[0]])
    attrs = {"shape": (*shape[:cut], shape[cut] // many, many // GROUP, GROUP, *shape[cut + 1:])}
    made = to.add(OPS["reshape"], [source], attrs, span=source.span)
    for axis in (cut + 2, cut + 1, cut):
        made = to.add(OPS["reduce"], [made], {"axes": (axis,), "kind": kind, "loop": True}, span=node.span)
    return made


def _one_block_step(to: Rewriter, node: Node) -> Node | None:
    """Reduce blocks of the innermost reduced axes first; None if the reduction is short."""
    source, axes, kind = node.inputs[0], node.attr("axes"), node.attr("kind")
    shape = type_of(source).shape
    if math.prod(shape[a] for a in axes) <= 2 * SUM_BLOCK:
        return None
    inner, taken = 1, len(axes)
    while taken and inner * shape[axes[taken - 1]] <= SUM_BLOCK:
        taken -= 1
        inner *= shape[axes[taken]]
    if taken == 0:
        return None
    cut, many = axes[taken - 1], SUM_BLOCK // inner
    if many < 2:
        partial = to.add(OPS["reduce"], [source], {"axes": tuple(axes[taken:]), "kind": kind}, span=node.span)
        return to.add(OPS["reduce"], [partial], {"axes": tuple(axes[:taken]), "kind": kind}, span=node.span)
    partial = _blocks(to, source, cut, many, tuple(axes[taken:]), kind)
    return to.add(OPS["reduce"], [partial], {"axes": tuple(axes[:taken]), "kind": kind}, span=node.span)


def _blocks(to: Rewriter, source: Node, cut: int, many: int, inner: tuple[int, ...], kind: str) -> Node:
    """Reduce `inner` and each run of `many` steps of axis `cut`; what remains of that axis is one entry a run."""
    shape = type_of(source).shape
    count, rest = divmod(shape[cut], many)
    whole = _part(to, source, cut, 0, count * many)
    folded = to.add(OPS["reshape"], [whole], {"shape": (*shape[:cut], count, many, *shape[cut + 1:])}, span=source.span)
    axes = (cut + 1, *(a + 1 for a in inner))
    blocks = to.add(OPS["reduce"], [folded], {"axes": axes, "kind": kind}, span=source.span)
    if not rest:
        return blocks
    tail = to.add(OPS["reduce"], [_part(to, source, cut, count * many, rest)], {"axes": (cut, *inner), "kind": kind},
                  span=source.span)
    kept = type_of(tail).shape
    last = to.add(OPS["reshape"], [tail], {"shape": (*kept[:cut], 1, *kept[cut:])}, span=source.span)
    return to.add(OPS["concat"], [blocks, last], {"axis": cut}, span=source.span)


def _part(to: Rewriter, source: Node, axis: int, start: int, size: int) -> Node:
    shape = type_of(source).shape
    if (start, size) == (0, shape[axis]):
        return source
    attrs = {"start": tuple(start if d == axis else 0 for d in range(len(shape))), "step": (1,) * len(shape),
             "size": tuple(size if d == axis else n for d, n in enumerate(shape))}
    return to.add(OPS["slice"], [source], attrs, span=source.span)


fold = fold_constants(_evaluate, _constant)

TENSOR_PASSES: tuple[Pass, ...] = (
    Pass("fold-constants", fold),
    Pass("simplify", simplify),
    Pass("fold-simplified", fold),
    Pass("share-common", share_common),
    Pass("divide-after-product", divide_after_product),
    Pass("drop-dead", drop_dead),
    Pass("pair-bytes", pair_bytes),
    Pass("block-reductions", block_reductions),
    Pass("share-again", share_common),
    Pass("drop-again", drop_dead),
)
