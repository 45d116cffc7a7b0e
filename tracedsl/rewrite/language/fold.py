"""Folding for the language dialect: a call whose inputs are all constants is answered at compile time.

What holds here: no model is asked. A call is folded to the answer that was recorded for it, and only if that answer is
the answer to every equal request (temperature 0, or a seed).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tracedsl.cache import digest
from tracedsl.capture.language.python_rules import is_plain
from tracedsl.ir.graph import Node, Rewriter
from tracedsl.ir.language import NoValue
from tracedsl.programs.example import Prediction
from tracedsl.rewrite.generic import CannotFold, fold_constants


def _evaluate(node: Node, values: Sequence[Any]) -> Any:
    assert node.op.evaluate is not None
    try:
        return node.op.evaluate(values, node.attrs)
    except NoValue:
        raise CannotFold from None


def _constant(to: Rewriter, value: Any, node: Node) -> Node:
    if isinstance(value, Prediction):
        text = "Prediction(" + ", ".join(f"{k}={json.dumps(str(v))}" for k, v in value.items()) + ")"
    elif is_plain(value):
        text = repr(value)
    else:       # what a client answered, or a part of it
        text = f"{type(value).__name__}#{digest(repr(value))[:8]}"
    return to.constant(value, node.type, text, node.span)


fold = fold_constants(_evaluate, _constant)
