"""MultiChainComparison: several lines of thought side by side, and one answer that weighs them.

Source: Yoran et al., Answering Questions by Meta-Reasoning over Multiple Chains of Thought (2023). What holds here: it
makes one call; the attempts come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tracedsl.programs.example import Prediction
from tracedsl.programs.fields import InputField, OutputField
from tracedsl.programs.modules.agents import ModuleError
from tracedsl.programs.modules.module import Module
from tracedsl.programs.modules.predict import Predict
from tracedsl.programs.signature import make_signature


class MultiChainComparison(Module):
    """`MultiChainComparison("question -> answer", M=3)(completions, question="...")`; the prediction has `rationale`
    and `answer`.

    Args:
        signature: as for `Predict`.
        M: how many attempts there are.
        temperature: of the call.
        config: more settings of the call.

    `completions` are predictions (or mappings) with the last output and, where there is one, `reasoning`; those of
    `Predict(..., n=3)` can be given as `prediction.completions`. The predictor is `predict`.
    """

    def __init__(self, signature: Any, M: int = 3, temperature: float | None = 0.7,
                 **config: Any) -> None:
        made = make_signature(signature)
        self.M = M
        self.last_key = list(made.output_fields)[-1]
        for i in range(1, M + 1):
            made = made.append(f"reasoning_attempt_{i}", InputField(prefix=f"Student Attempt #{i}:"))
        self.predict = Predict(made.prepend("rationale", OutputField(
            prefix="Accurate Reasoning:", desc="what is right and wrong in the attempts")), temperature=temperature,
            **config)

    async def aforward(self, completions: Iterable[Any], **inputs: Any) -> Prediction:
        attempts = [self._attempt(c) for c in completions]
        if len(attempts) != self.M:
            raise ModuleError("P047", f"there are {len(attempts)} attempts, M is {self.M}",
                              hint=f"give as many, or make MultiChainComparison(..., M={len(attempts)})")
        named = {f"reasoning_attempt_{i}": attempt for i, attempt in enumerate(attempts, 1)}
        made: Prediction = await self.predict.acall(**named, **inputs)
        return made

    def _attempt(self, completion: Mapping[str, Any]) -> str:
        thought = completion.get("rationale") or completion.get("reasoning") or ""
        if self.last_key not in completion:
            raise ModuleError("P047", f"an attempt has no {self.last_key!r}",
                              hint="give predictions of the same signature")
        reason, answer = _first_line(thought), _first_line(completion[self.last_key])
        return f"I'm trying to {reason} I'm not sure but my prediction is {answer}" if reason else \
            f"I'm not sure but my prediction is {answer}"


def _first_line(value: Any) -> str:
    return next(iter(str(value).strip().splitlines()), "").strip()
