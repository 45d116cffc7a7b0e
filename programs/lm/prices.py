"""What calls cost: a table, as data with its source and date, and the sums over it.

What holds here: a model that is not in the table has no price, never a guessed one; `LM(..., price=Price(...))` says
what yours costs. Prices are list prices without discounts (cached prompts, batches), so that sums are not too low.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SOURCE = "the table that litellm bundles (model_prices_and_context_window.json), standard tier, as of 2025-12"


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens. `max_output` is the most that one answer of the model may have, in tokens."""

    prompt: float
    completion: float
    max_output: int | None = None

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars for so many tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


FREE = Price(0.0, 0.0)

PRICES: dict[str, Price] = {
    "gpt-5.2": Price(1.75, 14.00, 128_000),
    "gpt-5.1": Price(1.25, 10.00, 128_000),
    "gpt-5": Price(1.25, 10.00, 128_000),
    "gpt-5-mini": Price(0.25, 2.00, 128_000),
    "gpt-5-nano": Price(0.05, 0.40, 128_000),
    "gpt-4.1": Price(2.00, 8.00, 32_768),
    "gpt-4.1-mini": Price(0.40, 1.60, 32_768),
    "gpt-4.1-nano": Price(0.10, 0.40, 32_768),
    "gpt-4o": Price(2.50, 10.00, 16_384),
    "gpt-4o-mini": Price(0.15, 0.60, 16_384),
    "gpt-4-turbo": Price(10.00, 30.00, 4_096),
    "gpt-3.5-turbo": Price(0.50, 1.50, 4_096),
    "o1": Price(15.00, 60.00, 100_000),
    "o3": Price(2.00, 8.00, 100_000),
    "o3-mini": Price(1.10, 4.40, 100_000),
    "o4-mini": Price(1.10, 4.40, 100_000),
    "text-embedding-3-small": Price(0.02, 0.0, 0),
    "text-embedding-3-large": Price(0.13, 0.0, 0),
    "text-embedding-ada-002": Price(0.10, 0.0, 0),
}

_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def price_of(model: str) -> Price | None:
    """The list price of a model; a dated name (`gpt-4o-2024-08-06`) has the price of its family."""
    return PRICES.get(model) or PRICES.get(_DATED.sub("", model))
