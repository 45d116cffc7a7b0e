"""ChainOfThought: reason first, then answer.

What holds here: it is a `Predict` whose signature has one more output, `reasoning`, before the others (Wei et al.,
Chain-of-Thought Prompting Elicits Reasoning in Large Language Models, 2022).
"""

from __future__ import annotations

from typing import Any

from tracedsl.programs.fields import OutputField
from tracedsl.programs.modules.module import Module
from tracedsl.programs.modules.predict import Predict
from tracedsl.programs.signature import make_signature


class ChainOfThought(Module):
    """`ChainOfThought("question -> answer")(question="...")`; the prediction has `reasoning` and `answer`.

    Args:
        signature: as for `Predict`.
        rationale_field: another field in place of `reasoning: OutputField()`.
        rationale_field_type: its type.
        config: settings of the call.
    """

    def __init__(self, signature: Any, rationale_field: Any = None, rationale_field_type: Any = str,
                 **config: Any) -> None:
        made = make_signature(signature)
        field = OutputField() if rationale_field is None else rationale_field
        if "reasoning" not in made.fields:
            made = made.prepend("reasoning", field, rationale_field_type)
        self.predict = Predict(made, **config)

    async def aforward(self, *args: Any, **inputs: Any) -> Any:
        return await self.predict.acall(*args, **inputs)
