"""Rewrites of language-model programs: the list of passes, in the order in which they run.

What holds here: each pass is a function graph -> graph of declared class. Folding, sharing and dropping are the generic
passes of `rewrite.generic`, the same as for tensors; this folder only says how a node of this dialect is computed and
how its value becomes a constant.
"""

from __future__ import annotations

from tracedsl.rewrite.generic import drop_dead, share_common
from tracedsl.rewrite.language.fold import fold
from tracedsl.rewrite.language.templates import fill_templates
from tracedsl.rewrite.passes import Class, Pass

LANGUAGE_PASSES: tuple[Pass, ...] = (
    Pass("fold-constants", fold, Class.EXACT),
    Pass("fill-templates", fill_templates, Class.EXACT),
    Pass("share-common", share_common, Class.EXACT),
    Pass("drop-dead", drop_dead, Class.EXACT),
)

__all__ = ["LANGUAGE_PASSES"]
