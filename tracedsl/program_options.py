"""What `@program` was given, and what a program knows about itself.

What holds here: options never change; the status is for reports and decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tracedsl.cache import Store
from tracedsl.capture.language.model_calls import ModelCall
from tracedsl.capture.language.recording import Recording
from tracedsl.diagnostics import TracedslError
from tracedsl.programs.evaluate import check_examples
from tracedsl.rewrite.language import LANGUAGE_PASSES
from tracedsl.rewrite.language.plan import check_names

if TYPE_CHECKING:
    from tracedsl.autotune import Budget
    from tracedsl.programs.adapters.base import Adapter
    from tracedsl.programs.example import Example
    from tracedsl.programs.lm.base import LM
    from tracedsl.programs.teleprompters.base import Teleprompter


When = Literal["call", "background"]


@dataclass(frozen=True)
class Options:
    """What was given to `@program`."""

    trainset: Sequence[Example] | None = None
    metric: Callable[..., Any] | None = None
    teleprompter: Teleprompter | None = None
    valset: Sequence[Example] | None = None
    lm: LM | None = None
    adapter: Adapter | None = None
    budget: Budget | None = None
    store: Store | str | Path | None = None
    strict: bool = False
    disable: Sequence[str] = ()
    verbose: bool = False
    compile: When = "call"
    num_threads: int | None = None

    def check(self) -> None:
        """Raise `TracedslError` P103 or P104 for options that do not go together."""
        check_names(self.disable, LANGUAGE_PASSES)
        if self.compile not in ("call", "background"):
            raise TracedslError("P103", f"compile is {self.compile!r}", hint="'call' or 'background'")
        if self.teleprompter is None:
            return
        if self.metric is None or self.trainset is None:
            lacking = "a metric" if self.metric is None else "a trainset"
            raise TracedslError("P104", f"a teleprompter needs {lacking}",
                                hint="@program(trainset=..., metric=..., teleprompter=...)")
        check_examples(self.trainset, "trainset")
        if self.valset is not None:
            check_examples(self.valset, "valset")


@dataclass
class SiteCost:
    """What the calls of one site did in this process: how many ended how, tokens, and seconds that they took."""

    how: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def add(self, call: ModelCall) -> None:
        self.how[call.how if call.done else "dropped"] += 1
        self.seconds += call.seconds
        if call.how == "asked":
            self.prompt_tokens += sum(r.usage.prompt_tokens for r in call.answers.values())
            self.completion_tokens += sum(r.usage.completion_tokens for r in call.answers.values())


@dataclass
class Status:
    """What `explain` tells: where the compiled state came from, what was measured, what runs of this process did."""

    origin: str = "not called yet"
    cached: bool = False
    scores: Mapping[str, str] = field(default_factory=dict)
    installed: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)     # how the compiled candidate was found
    held_out: str = ""
    eager: dict[str, str] = field(default_factory=dict)     # code that calls models by itself -> where
    notes: list[str] = field(default_factory=list)
    runs: int = 0
    calls: dict[str, int] = field(default_factory=lambda: {"asked": 0, "shared": 0, "folded": 0, "dropped": 0})
    sites: dict[str, SiteCost] = field(default_factory=dict)
    last: Recording | None = None
