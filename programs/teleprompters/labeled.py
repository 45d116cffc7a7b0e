"""LabeledFewShot: demonstrations drawn from the training set as they are.

What holds here: no model is asked. The draw is the same every time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracedsl.programs.example import Example
from tracedsl.programs.teleprompters.base import CompileReport, Configured, P, check_trainset, finish, sample_labeled

if TYPE_CHECKING:
    from tracedsl.programs.modules.module import Module


@dataclass(frozen=True)
class LabeledFewShot(Configured):
    """`LabeledFewShot(k=4).compile(program, trainset=train)`"""

    k: int = 16

    def compile(self, student: P, *, trainset: Sequence[Example], teacher: Module | None = None,
                valset: Sequence[Example] | None = None, sample: bool = True) -> P:
        """A copy of `student` with `k` examples as demonstrations for each predictor they fit; `sample=False` takes
        the first ones. `teacher` and `valset` are not used."""
        check_trainset(student, trainset)
        compiled, source, counts = student.reset_copy(), random.Random(0), {}
        for name, predictor in compiled.named_predictors():
            drawn = sample_labeled(predictor, trainset, self.k if sample else len(trainset), source)
            predictor.demos = drawn if sample else sample_first(drawn, trainset, self.k)
            counts[name] = len(predictor.demos)
        missing = tuple(name for name, n in counts.items() if n == 0 and self.k > 0)
        return finish(compiled, CompileReport(type(self).__name__, self.settings(), counts, missing))


def sample_first(usable: Sequence[Example], trainset: Sequence[Example], k: int) -> list[Example]:
    """The first `k` of the training set among the usable ones."""
    ids = {id(e) for e in usable}
    return [e for e in trainset if id(e) in ids][:k]
