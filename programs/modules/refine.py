"""Refine: as BestOfN, but each attempt is told what the last one did wrong.

Source: Madaan et al., Self-Refine: Iterative Refinement with Self-Feedback (2023). What holds here: advice is given for
each predictor by name, as an input `hint_` of that predictor in the next attempt alone. What teleprompters learn from
the best attempt does not hold the hint.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from tracedsl.programs.adapters.base import AdapterParseError
from tracedsl.programs.example import Example
from tracedsl.programs.fields import InputField, OutputField
from tracedsl.programs.modules.best_of_n import check_attempts
from tracedsl.programs.modules.module import Module
from tracedsl.programs.modules.predict import Predict, PreparedCall
from tracedsl.programs.modules.rollouts import Attempt, Attempts, Reward
from tracedsl.programs.signature import Signature, make_signature
from tracedsl.programs.types import to_json

HINT = "hint_"


class OfferFeedback(Signature):
    """Say which modules are to blame that the reward is below the target, and advise each of them concretely what to do
    otherwise with the same or similar inputs. A module does not see its own history, so the advice must stand by
    itself. Write N/A for a module that is not to blame."""

    program_code: str = InputField(desc="the code of the program")
    modules_defn: str = InputField(desc="each module with its inputs, outputs and instructions")
    program_inputs: str = InputField(desc="what the program was given")
    program_trajectory: str = InputField(desc="what each module was given and answered")
    program_outputs: str = InputField(desc="what the program answered")
    reward_code: str = InputField(desc="the code of the reward function")
    target_threshold: str = InputField(desc="the reward to be reached")
    reward_value: float = InputField(desc="the reward that was reached")
    module_names: list[str] = InputField(desc="the modules that need advice")
    discussion: str = OutputField(desc="which module went wrong, and where")
    advice: dict[str, str] = OutputField(desc="module name: advice")


class Refine(Module):
    """`Refine(module=qa, N=3, reward_fn=one_word, threshold=1.0)(question="...")`

    The arguments are those of `BestOfN`. The predictors are those of `module` and `feedback`, which gives the advice.
    """

    def __init__(self, module: Module, N: int, reward_fn: Reward, threshold: float | None,
                 fail_count: int | None = None) -> None:
        self.module = module
        self.N = check_attempts(N)
        self.threshold = threshold
        self.fail_count = N if fail_count is None else fail_count
        self.reward_fn: Reward = lambda *args: reward_fn(*args)  # so that its predictors are not this program's
        self.feedback = Predict(OfferFeedback)
        self._codes = (_source(type(module)), _source(reward_fn))

    async def aforward(self, **inputs: Any) -> Any:
        attempts = Attempts(self.module, self.N, self.reward_fn, self.fail_count)
        advice: Mapping[str, str] = {}
        for number in range(self.N):
            made = await attempts.make(number, inputs, partial(_give, advice=advice))
            if made is None:
                continue
            if self.threshold is not None and made.reward >= self.threshold:
                break
            if number + 1 < self.N:
                advice = await self._advise(made, inputs) or advice
        return attempts.result(hidden=(HINT,))

    async def _advise(self, attempt: Attempt, inputs: Mapping[str, Any]) -> Mapping[str, str]:
        """Advice by the predictor's name; none if the answer cannot be read, which costs the advice alone."""
        names = {id(p): name for name, p in attempt.program.named_predictors()}
        trajectory = [{"module_name": names.get(id(s.predictor), "?"), "inputs": _without_hint(s.inputs),
                       "outputs": dict(s.prediction.items())} for s in attempt.steps]
        outputs = dict(attempt.prediction.items()) if isinstance(attempt.prediction, Example) else attempt.prediction
        try:
            said = await self.feedback.acall(
                program_code=self._codes[0], modules_defn=_definitions(self.module), program_inputs=_json(inputs),
                program_trajectory=_json(trajectory), program_outputs=_json(outputs), reward_code=self._codes[1],
                target_threshold="as high as possible" if self.threshold is None else str(self.threshold),
                reward_value=attempt.reward, module_names=list(names.values()))
        except AdapterParseError:
            return {}
        advice: Mapping[str, str] = said.advice
        return advice


class _Hinted(Predict):
    """A predictor with one more input, whose value is fixed."""

    _hint: str

    def prepare(self, inputs: Mapping[str, Any], *, signature: Any = None, **overrides: Any) -> PreparedCall:
        made = self.signature if signature is None else make_signature(signature)
        made = made.append(HINT, InputField(desc="a hint from an earlier attempt"), str)
        return super().prepare({**inputs, HINT: self._hint}, signature=made, **overrides)


def _give(copy: Module, advice: Mapping[str, str]) -> None:
    """Let the predictors of a copy see their advice."""
    for name, predictor in copy.named_predictors():
        hint = advice.get(name, "")
        if hint.strip() and hint.strip().casefold().rstrip(".") not in ("n/a", "none") and type(predictor) is Predict:
            predictor.__class__ = _Hinted     # the copy alone; it stays where it is, also as a part of others
            predictor._hint = hint  # type: ignore[attr-defined]


def _without_hint(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name != HINT}


def _definitions(program: Module) -> str:
    return "\n\n".join(f"Module {name}: {p.signature.signature}\n{p.signature.instructions}"
                       for name, p in program.named_predictors())


def _json(value: Any) -> str:
    return json.dumps(to_json(value), ensure_ascii=False, indent=1)


def _source(thing: Any) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return str(getattr(thing, "__doc__", None) or getattr(thing, "__name__", type(thing).__name__))
