"""Attempts: the same program several times, each time with other random choices.

What holds here: an attempt works on a copy whose predictors have a rollout number and temperature 1, so that its calls
are its own, also in the cache. What is told to those who listen is the best attempt alone, under the predictors of the
original, so that a teleprompter learns from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tracedsl.programs.batch import call_program
from tracedsl.programs.context import TraceStep, record_call, trace_calls
from tracedsl.programs.lm.base import LMError
from tracedsl.programs.modules.agents import ModuleError
from tracedsl.programs.modules.module import Module
from tracedsl.programs.modules.predict import Predict

Reward = Callable[[dict[str, Any], Any], Any]


@dataclass(frozen=True)
class Attempt:
    """One attempt that ended well: its number, prediction, reward, and the calls of the copy that made it."""

    number: int
    prediction: Any
    reward: float
    steps: tuple[TraceStep, ...]
    program: Module


class Attempts:
    """The attempts of one call, and the best of them so far.

    Args:
        module: the program.
        total: how many attempts there are at most.
        reward: what an attempt is worth.
        allowed: how many attempts may fail before the next failure is raised.
    """

    def __init__(self, module: Module, total: int, reward: Reward, allowed: int) -> None:
        self._module, self._total, self._reward, self._allowed = module, total, reward, allowed
        self.best: Attempt | None = None
        self.failures: list[Exception] = []

    async def make(self, number: int, inputs: Mapping[str, Any],
                   change: Callable[[Module], Any] = lambda copy: None) -> Attempt | None:
        """One attempt; None if it failed. `change` may change the copy beforehand. Raises the first failure if there
        were too many, and what concerns every attempt at once."""
        copy = self._module.deepcopy()
        change(copy)
        for predictor in copy.predictors():
            base = predictor.config.get("rollout_id") or 0
            predictor.config = {**predictor.config, "temperature": 1.0, "rollout_id": base * self._total + number}
        try:
            with trace_calls(alone=True) as steps:
                prediction = await call_program(copy, dict(inputs))
            with trace_calls(alone=True):
                value = self._reward(dict(inputs), prediction)
                reward = float(await value if inspect.isawaitable(value) else value)
        except Exception as error:
            if isinstance(error, LMError) and not error.concerns_one_request:
                raise
            self.failures.append(error)
            if len(self.failures) > self._allowed:
                raise self.failures[0] from None
            return None
        attempt = Attempt(number, prediction, reward, tuple(steps), copy)
        if self.best is None or reward > self.best.reward:
            self.best = attempt
        return attempt

    def result(self, hidden: tuple[str, ...] = ()) -> Any:
        """The best attempt's prediction, its calls told to those who listen (without the inputs in `hidden`). Raises
        `ModuleError` P048 if every attempt failed."""
        if self.best is None:
            raise ModuleError("P048", f"all {len(self.failures)} attempts failed", why=str(self.failures[0]),
                              hint="run the module alone with these inputs") from self.failures[0]
        originals: dict[int, Predict] = {id(copy): original for copy, original in zip(
            self.best.program.predictors(), self._module.predictors())}
        for step in self.best.steps:
            shown = {name: value for name, value in step.inputs.items() if name not in hidden}
            record_call(originals.get(id(step.predictor), step.predictor), shown, step.prediction)
        return self.best.prediction
