"""Products of arrays: matmul, dot, inner, outer, tensordot, einsum.

What holds here: every product becomes `contract` nodes of two operands of one dtype, with a letter a dimension.
Diagonals and broadcast dimensions are removed before. float16 is accumulated in float32, booleans in int32, as exact
as NumPy.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from tracedsl.capture.tensor.arrays import SymbolicArray, symbolic
from tracedsl.capture.tensor.elementwise import store
from tracedsl.capture.tensor.recorder import Implementation, Recorder
from tracedsl.capture.tensor.windows import diagonal_node
from tracedsl.ir.graph import Node

LETTERS = string.ascii_letters


def contract(recorder: Recorder, spec: str, a: Node, b: Node, dtype: np.dtype[Any]) -> Node:
    """`spec` as in einsum, explicit, with no letter twice in an operand."""
    work = {"float16": np.dtype(np.float32), "bool": np.dtype(np.int32)}.get(dtype.name, dtype)
    node = recorder.emit("contract", [recorder.cast(a, work), recorder.cast(b, work)], spec=spec)
    if dtype == np.bool_:
        return recorder.emit("ne", [node, recorder.full(recorder.type(node).shape, 0, work)])
    return recorder.cast(node, dtype)


def _pair(recorder: Recorder, spec: str, a: SymbolicArray, b: SymbolicArray, dtype: Any = None) -> SymbolicArray:
    common = np.dtype(dtype) if dtype is not None else np.result_type(a.dtype, b.dtype)
    node = contract(recorder, spec, a.node, b.node, common)
    return SymbolicArray(recorder, node, is_scalar=recorder.type(node).shape == ())


def _matmul(recorder: Recorder, x1: Any, x2: Any, out: Any = None, *, dtype: Any = None, **options: Any) -> Any:
    """Batch dimensions broadcast: one that only one operand has gets a letter of that operand alone."""
    a, b = symbolic(recorder, x1), symbolic(recorder, x2)
    if isinstance(out, tuple):
        out = out[0]
    if options or (out is not None and type(out) is not SymbolicArray):
        recorder.refuse("C008", "this option of np.matmul is not captured")
    if not a.ndim or not b.ndim:
        raise ValueError("matmul: Input operand does not have enough dimensions")
    left, right = a.shape[-1], b.shape[-2 if b.ndim > 1 else -1]
    if left != right:
        raise ValueError(f"matmul: Input operand 1 has a mismatch in its core dimension 0 (size {right} is different "
                         f"from {left})")
    np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rank = max(a.ndim, b.ndim, 2) - 2
    batch = LETTERS[:rank]
    m, k, n = LETTERS[rank], LETTERS[rank + 1], LETTERS[rank + 2]
    a, spec_a, used_a = _batched(recorder, a, b, batch)
    b, spec_b, used_b = _batched(recorder, b, a, batch)
    spec_a += (m if a.ndim - len(used_a) > 1 else "") + k
    spec_b += k + (n if b.ndim - len(used_b) > 1 else "")
    result = [letter for letter in batch if letter in used_a or letter in used_b]
    spec = f"{spec_a},{spec_b}->{''.join(result)}{m if m in spec_a else ''}{n if n in spec_b else ''}"
    product = _pair(recorder, spec, a, b, dtype)
    shape = (*np.broadcast_shapes(_batch_shape(symbolic(recorder, x1)), _batch_shape(symbolic(recorder, x2))),
             *product.shape[len(result):])
    node = recorder.reshape(product.node, shape)
    if out is not None and not out.is_scalar:
        return store(recorder, out, node)
    return SymbolicArray(recorder, node, is_scalar=shape == ())


def _batch_shape(x: SymbolicArray) -> tuple[int, ...]:
    return x.shape[:-2]


def _batched(recorder: Recorder, x: SymbolicArray, other: SymbolicArray,
             batch: str) -> tuple[SymbolicArray, str, str]:
    """`x` without batch dimensions of extent 1 (they are put back into the result's shape), and its batch letters."""
    own = x.shape[:-2]
    letters = batch[len(batch) - len(own):]
    kept = "".join(letter for letter, extent in zip(letters, own) if extent != 1)
    shape = tuple(extent for extent in own if extent != 1) + x.shape[len(own):]
    return SymbolicArray(recorder, recorder.reshape(x.node, shape)), kept, kept


def _dot(recorder: Recorder, a: Any, b: Any, out: Any = None) -> Any:
    x, y = symbolic(recorder, a), symbolic(recorder, b)
    if out is not None:
        recorder.refuse("C008", "np.dot(out=...) is not captured")
    if not x.ndim or not y.ndim:
        return np.multiply(x, y)
    rest_x, rest_y = LETTERS[:x.ndim - 1], LETTERS[x.ndim:x.ndim + y.ndim - 1]
    k = LETTERS[x.ndim - 1]
    left, right = x.shape[-1], y.shape[-2 if y.ndim > 1 else -1]
    if left != right:
        raise ValueError(f"shapes {x.shape} and {y.shape} not aligned: {left} (dim {x.ndim - 1}) != {right} "
                         f"(dim {max(y.ndim - 2, 0)})")
    spec_y = rest_y[:-1] + k + rest_y[-1:] if y.ndim > 1 else k
    return _pair(recorder, f"{rest_x}{k},{spec_y}->{rest_x}{rest_y}", x, y)


def _inner(recorder: Recorder, a: Any, b: Any) -> Any:
    x, y = symbolic(recorder, a), symbolic(recorder, b)
    if not x.ndim or not y.ndim:
        return np.multiply(x, y)
    return np.tensordot(x, y, axes=([-1], [-1]))[()]


def _vdot(recorder: Recorder, a: Any, b: Any) -> Any:
    return np.dot(_conjugate(symbolic(recorder, a)).ravel(), symbolic(recorder, b).ravel())


def _conjugate(x: Any) -> Any:
    return np.conjugate(x) if x.dtype.kind == "c" else x


def _vecdot(recorder: Recorder, a: Any, b: Any, *, axis: int = -1) -> Any:
    x: Any = symbolic(recorder, a)
    y: Any = symbolic(recorder, b)
    x, y = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
    return np.sum(np.multiply(_conjugate(x), y), axis=-1, dtype=np.result_type(x.dtype, y.dtype))


def _outer(recorder: Recorder, a: Any, b: Any, out: Any = None) -> Any:
    if out is not None:
        recorder.refuse("C008", "np.outer(out=...) is not captured")
    return np.multiply(symbolic(recorder, a).ravel()[:, None], symbolic(recorder, b).ravel()[None, :])


def _tensordot(recorder: Recorder, a: Any, b: Any, axes: Any = 2) -> Any:
    x, y = symbolic(recorder, a), symbolic(recorder, b)
    if isinstance(axes, int):
        over_x, over_y = list(range(x.ndim - axes, x.ndim)), list(range(axes))
    else:
        over_x, over_y = ([side] if isinstance(side, int) else list(side) for side in axes)
    over_x = [normalize_axis_index(i, x.ndim) for i in over_x]
    over_y = [normalize_axis_index(i, y.ndim) for i in over_y]
    if len(over_x) != len(over_y) or any(x.shape[i] != y.shape[j] for i, j in zip(over_x, over_y)):
        raise ValueError("shape-mismatch for sum")
    letters_x = list(LETTERS[:x.ndim])
    letters_y = list(LETTERS[x.ndim:x.ndim + y.ndim])
    for i, j in zip(over_x, over_y):
        letters_y[j] = letters_x[i]
    rest = [c for i, c in enumerate(letters_x) if i not in over_x]
    rest += [c for j, c in enumerate(letters_y) if j not in over_y]
    product = _pair(recorder, f"{''.join(letters_x)},{''.join(letters_y)}->{''.join(rest)}", x, y)
    product.is_scalar = False
    return product


# -- einsum -------------------------------------------------------------------------------------------------------


def _einsum(recorder: Recorder, *operands: Any, out: Any = None, dtype: Any = None, optimize: Any = False,
            casting: str = "safe", order: str = "K") -> Any:
    """Any number of operands, implicit and explicit form, ellipsis; operands are taken pairwise from the left."""
    if not operands or not isinstance(operands[0], str) or out is not None:
        recorder.refuse("C008", "this form of np.einsum is not captured",
                        hint="give the subscripts as text, without out=")
    arrays = [symbolic(recorder, operand) for operand in operands[1:]]
    inputs, result = _subscripts(recorder, operands[0], arrays)
    common = np.dtype(dtype) if dtype is not None else np.result_type(*(a.dtype for a in arrays))
    parts = [_single(recorder, letters, a) for letters, a in zip(inputs, arrays)]
    extents: dict[str, int] = {}
    for letters, node in parts:
        for letter, extent in zip(letters, recorder.type(node).shape):
            known = extents.setdefault(letter, extent)
            if known != extent and 1 not in (known, extent):
                raise ValueError(f"operands could not be broadcast together: {letter!r} is {known} and {extent}")
            extents[letter] = max(known, extent) if known == 1 else known
    for letter in result:
        if letter not in extents:
            raise ValueError(f"einstein sum subscripts string includes output subscript {letter!r}, which no input has")
    parts = [_drop_ones(recorder, letters, node, extents) for letters, node in parts]
    while len(parts) > 1:
        (la, a), (lb, b), *rest = parts
        later = set(result).union(*(letters for letters, _ in rest))
        kept = "".join(c for c in dict.fromkeys(la + lb) if c in later)
        parts = [(kept, contract(recorder, f"{la},{lb}->{kept}", a, b, common)), *rest]
    return _finish(recorder, parts[0], result, extents, common, len(arrays))


def _subscripts(recorder: Recorder, text: str, arrays: Sequence[SymbolicArray]) -> tuple[list[str], str]:
    """Letters of the operands and of the result, ellipses spelled out."""
    source, arrow, result = text.replace(" ", "").partition("->")
    inputs = source.split(",")
    if len(inputs) != len(arrays):
        raise ValueError("more operands provided to einstein sum function than specified in the subscripts string")
    free = [c for c in LETTERS if c not in text]
    counts = [a.ndim - len(letters.replace("...", "")) for letters, a in zip(inputs, arrays)]
    if any(n < 0 or (n > 0 and "..." not in letters) for n, letters in zip(counts, inputs)):
        raise ValueError("einstein sum subscripts string does not match the operands' dimensions")
    wide = max([n for n, letters in zip(counts, inputs) if "..." in letters], default=0)
    spelled = "".join(free[:wide])
    inputs = [letters.replace("...", spelled[wide - n:] if n else "") for letters, n in zip(inputs, counts)]
    if not arrow:
        joined = source.replace("...", "").replace(",", "")
        result = ("..." if "..." in source else "") + "".join(sorted(c for c in set(joined) if joined.count(c) == 1))
    result = result.replace("...", spelled)
    if len(set(result)) != len(result) or not all(c in LETTERS for c in "".join(inputs) + result):
        raise ValueError("einstein sum subscripts string is not well formed")
    return inputs, result


def _single(recorder: Recorder, letters: str, a: SymbolicArray) -> tuple[str, Node]:
    """An operand without letters that it has twice: their diagonal has one."""
    node = a.node
    for letter in [c for c in dict.fromkeys(letters) if letters.count(c) > 1]:
        while letters.count(letter) > 1:
            first = letters.index(letter)
            second = letters.index(letter, first + 1)
            shape = recorder.type(node).shape
            if shape[first] != shape[second]:
                raise ValueError(f"dimensions in single operand for collapsing index {letter!r} don't match "
                                 f"({shape[first]} != {shape[second]})")
            node = diagonal_node(recorder, node, first, second)
            letters = "".join(c for d, c in enumerate(letters) if d not in (first, second)) + letter
    return letters, node


def _drop_ones(recorder: Recorder, letters: str, node: Node, extents: dict[str, int]) -> tuple[str, Node]:
    """Without dimensions of extent 1 that stand for a longer one."""
    shape = recorder.type(node).shape
    kept = [(c, n) for c, n in zip(letters, shape) if n == extents[c]]
    return "".join(c for c, _ in kept), recorder.reshape(node, tuple(n for _, n in kept))


def _finish(recorder: Recorder, part: tuple[str, Node], result: str, extents: dict[str, int], dtype: np.dtype[Any],
            count: int) -> SymbolicArray:
    letters, node = part
    axes = tuple(i for i, c in enumerate(letters) if c not in result)
    if axes:
        work = np.dtype(np.float32) if dtype == np.float16 else dtype
        kind = "or" if dtype == np.bool_ else "add"
        node = recorder.emit("reduce", [recorder.cast(node, work)], kind=kind, axes=axes)
    node = recorder.cast(node, dtype)
    left = [c for c in letters if c in result]
    missing = [c for c in result if c not in left]
    node = recorder.reshape(node, (*recorder.type(node).shape, *(1 for _ in missing)))
    node = recorder.broadcast(recorder.transpose(node, tuple((left + missing).index(c) for c in result)),
                              tuple(extents[c] for c in result))
    return SymbolicArray(recorder, node, is_scalar=not result)


def table() -> dict[Any, Implementation]:
    """NumPy function -> symbolic form."""
    forms: dict[Any, Implementation] = {
        np.matmul: _matmul, np.dot: _dot, np.inner: _inner, np.outer: _outer, np.vdot: _vdot,
        np.tensordot: _tensordot, np.einsum: _einsum, np.linalg.matmul: _matmul,
    }
    if hasattr(np, "vecdot"):
        forms |= {np.vecdot: _vecdot}
    return forms
