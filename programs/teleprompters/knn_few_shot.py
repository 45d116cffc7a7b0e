"""KNNFewShot: for each question, demonstrations bootstrapped from the examples that are most like it.

What holds here: the compiled program finds the neighbours of its inputs, bootstraps on them with `BootstrapFewShot`,
and answers. The same neighbours are bootstrapped once.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any

from tracedsl.diagnostics import TracedslWarning
from tracedsl.programs.batch import call_program
from tracedsl.programs.driving import current_io
from tracedsl.programs.example import Example
from tracedsl.programs.modules.knn import KNN
from tracedsl.programs.modules.module import Module
from tracedsl.programs.teleprompters.base import check_trainset, plain
from tracedsl.programs.teleprompters.bootstrap import BootstrapFewShot


class KNNFewShot:
    """`KNNFewShot(k=3, trainset=train, vectorizer=embedder).compile(program)`

    Args:
        k: how many neighbours.
        trainset: where they are looked for.
        vectorizer: an `Embedder`, or a function from texts to vectors.
        few_shot_bootstrap_args: settings of the `BootstrapFewShot`.
    """

    def __init__(self, k: int, trainset: Sequence[Example], vectorizer: Any, **few_shot_bootstrap_args: Any) -> None:
        self.KNN = KNN(k, trainset, vectorizer)
        self.few_shot_bootstrap_args = few_shot_bootstrap_args
        self._bootstrap = BootstrapFewShot(**few_shot_bootstrap_args)

    def settings(self) -> dict[str, Any]:
        return {"teleprompter": type(self).__name__, "k": self.KNN.k, "vectorizer": plain(self.KNN.embedding),
                "bootstrap": self._bootstrap.settings()}

    def compile(self, student: Module, *, trainset: Sequence[Example] | None = None, teacher: Module | None = None,
                valset: Sequence[Example] | None = None) -> KNNProgram:
        """A program that compiles itself for each question. `trainset` and `valset` are not used: the examples were
        given to the constructor."""
        check_trainset(student, self.KNN.trainset)
        return KNNProgram(student.reset_copy(), self.KNN, self._bootstrap, teacher)


class KNNProgram(Module):
    """The student, with the demonstrations of the neighbours of its inputs."""

    def __init__(self, program: Module, knn: KNN, bootstrap: BootstrapFewShot, teacher: Module | None) -> None:
        self.program = program
        self._knn, self._bootstrap, self._teacher = knn, bootstrap, teacher
        self._compiled_for: dict[tuple[int, ...], Module] = {}
        self._busy = threading.Lock()

    async def aforward(self, **inputs: Any) -> Any:
        near = await self._knn.acall(**inputs)
        program = await current_io().call(self._for, near)
        return await call_program(program, inputs)

    def _for(self, near: Sequence[Example]) -> Module:
        positions = {id(e): i for i, e in enumerate(self._knn.trainset)}
        key = tuple(positions[id(e)] for e in near)
        with self._busy:
            if key not in self._compiled_for:
                with warnings.catch_warnings():     # an inner step without demonstrations is no news for each question
                    warnings.simplefilter("ignore", TracedslWarning)
                    self._compiled_for[key] = self._bootstrap.compile(self.program, trainset=near,
                                                                      teacher=self._teacher)
            return self._compiled_for[key]
