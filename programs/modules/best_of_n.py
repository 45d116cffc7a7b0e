"""BestOfN: run a program several times and keep the answer that a reward function likes best.

What holds here: attempts are made one after the other and stop at `threshold`; a failed attempt costs that attempt, and
if all fail, the first error is raised (DSPy returns None then, and counts failures across calls).
"""

from __future__ import annotations

from typing import Any

from tracedsl.programs.modules.agents import ModuleError
from tracedsl.programs.modules.module import Module
from tracedsl.programs.modules.rollouts import Attempts, Reward


class BestOfN(Module):
    """`BestOfN(module=qa, N=3, reward_fn=lambda args, pred: float(len(pred.answer) < 9), threshold=1.0)(question=...)`

    Args:
        module: the program.
        N: how many attempts at most, each at temperature 1 with a `rollout_id` of its own.
        reward_fn: `(inputs, prediction)` to a number; may be `async`.
        threshold: the reward that is good enough; None: make all attempts.
        fail_count: how many attempts may fail before the next failure is raised; default N.
    """

    def __init__(self, module: Module, N: int, reward_fn: Reward, threshold: float | None,
                 fail_count: int | None = None) -> None:
        self.module = module
        self.N = check_attempts(N)
        self.threshold = threshold
        self.fail_count = N if fail_count is None else fail_count
        self.reward_fn: Reward = lambda *args: reward_fn(*args)  # so that its predictors are not this program's

    async def aforward(self, **inputs: Any) -> Any:
        attempts = Attempts(self.module, self.N, self.reward_fn, self.fail_count)
        for number in range(self.N):
            made = await attempts.make(number, inputs)
            if made is not None and self.threshold is not None and made.reward >= self.threshold:
                break
        return attempts.result()


def check_attempts(n: int) -> int:
    if n < 1:
        raise ModuleError("P047", f"N is {n}", hint="make at least one attempt")
    return n
