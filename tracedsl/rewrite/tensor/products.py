"""Products of bytes, made such that one operand is unsigned and the other signed: what processors multiply.

What holds here: integers wrap, so moving an operand by 128 and taking the difference back from the sum changes no bit:
sum a * b = sum (a + 128) * b - 128 * sum b.
"""

from __future__ import annotations

from tracedsl.ir.graph import Graph, Node, Rewriter
from tracedsl.ir.tensor import OPS, TensorType
from tracedsl.rewrite.tensor.rules import splat, type_of

WORTH = 32     # steps of every axis of a product from which the second sum is little work beside it


def pair_bytes(graph: Graph) -> Graph:
    """make one operand of a product of bytes unsigned and the other signed

        %2 = tensor.contract(%0, %1) {spec='ik,kj->ij'}        with %0, %1: i32 casts of i8
    ->
        %2 = tensor.contract(i32(u8(x) ^ 128), %1) - 128 * add[k] %1
    """

    def rule(to: Rewriter, node: Node) -> Node | None:
        if node.op is not OPS["contract"] or type_of(node).dtype != "int32":
            return None
        sources = [_byte(source) for source in node.inputs]
        if any(source is None for source in sources):
            return None
        dtypes = [type_of(source).dtype for source in sources if source is not None]
        if dtypes[0] != dtypes[1] or not _worth(node):
            return None
        return _moved(to, node, dtypes[0])

    return Rewriter(graph).run(rule)


def _byte(node: Node) -> Node | None:
    """What a node is a cast to int32 of, if that is bytes."""
    if node.op is OPS["cast"] and type_of(node.inputs[0]).dtype in ("int8", "uint8"):
        return node.inputs[0]
    return None


def _worth(node: Node) -> bool:
    """Whether this is a product of matrices of some size, and each axis that is summed is one of both operands."""
    inputs, result = node.attr("spec").split("->")
    first, second = inputs.split(",")
    extents = {letter: extent for part, source in zip((first, second), node.inputs)
               for letter, extent in zip(part, type_of(source).shape)}
    summed = {letter for letter in extents if letter not in result}
    free = [set(part) - summed - set(other) for part, other in ((first, second), (second, first))]
    if not summed <= set(first) & set(second) or not summed:
        return False

    def size(letters: set[str]) -> int:
        count = 1
        for letter in letters:
            count *= extents[letter]
        return count

    return min(size(summed), *map(size, free)) >= WORTH


def _moved(to: Rewriter, node: Node, dtype: str) -> Node:
    """Signed: the first operand becomes unsigned. Unsigned: the second one becomes signed."""
    span, inputs = node.span, list(node.inputs)
    moved, other = (0, 1) if dtype == "int8" else (1, 0)
    bytes_ = inputs[moved].inputs[0]
    flipped = to.add(OPS["cast"], [bytes_], {"dtype": "uint8"}, span=span)
    flipped = to.add(OPS["xor"], [flipped, splat(to, 128, type_of(flipped))], {}, span=span)
    if dtype == "uint8":
        flipped = to.add(OPS["cast"], [flipped], {"dtype": "int8"}, span=span)
    kept = inputs[other]
    inputs[moved] = to.add(OPS["cast"], [flipped], {"dtype": "int32"}, span=span)
    product = to.add(OPS["contract"], inputs, dict(node.attrs), span=span)
    parts, result = node.attr("spec").split("->")
    letters = parts.split(",")[other]
    axes = tuple(at for at, letter in enumerate(letters) if letter not in result)
    total = to.add(OPS["reduce"], [kept], {"axes": axes, "kind": "add"}, span=span)
    scaled = to.add(OPS["mul"], [total, splat(to, 128, type_of(total))], {}, span=span)
    spread = _spread(to, scaled, [letter for letter in letters if letter in result], result, type_of(product))
    return to.add(OPS["sub" if dtype == "int8" else "add"], [product, spread], {}, span=span)


def _spread(to: Rewriter, node: Node, letters: list[str], result: str, like: TensorType) -> Node:
    """A tensor over some letters of the result as one over all of them."""
    order = tuple(sorted(range(len(letters)), key=lambda at: result.index(letters[at])))
    if order != tuple(range(len(letters))):
        node = to.add(OPS["transpose"], [node], {"perm": order}, span=node.span)
    dims = tuple(sorted(result.index(letter) for letter in letters))
    return to.add(OPS["broadcast"], [node], {"shape": like.shape, "dims": dims}, span=node.span)
