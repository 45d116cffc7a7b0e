"""Auto: looks at the program, the data, the model and the budget, chooses a teleprompter, and says why.

What holds here: the choice is a table of rules, the first that fits counts; each rule names what was seen. Nothing is
asked and nothing is paid for the choice itself.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tracedsl.autotune import Budget
from tracedsl.programs.context import current_lm
from tracedsl.programs.example import Example
from tracedsl.programs.metrics import Metric, takes_predictor
from tracedsl.programs.teleprompters.base import Configured, P, Progress, Teleprompter, check_trainset
from tracedsl.programs.teleprompters.bootstrap import BootstrapFewShot
from tracedsl.programs.teleprompters.gepa import GEPA
from tracedsl.programs.teleprompters.labeled import LabeledFewShot
from tracedsl.programs.teleprompters.mipro import MIPROv2
from tracedsl.programs.teleprompters.race import planned
from tracedsl.programs.teleprompters.random_search import BootstrapFewShotWithRandomSearch

if TYPE_CHECKING:
    from tracedsl.programs.modules.module import Module

FEW, ENOUGH = 10, 50        # examples


class Facts(NamedTuple):
    """What the choice goes by."""

    examples: int               # to learn and to score with
    predictors: int
    labeled: bool               # whether the trainset has inputs and outputs of every predictor
    writes: bool                # whether a model that can write instructions is at hand
    feedback: bool              # whether the metric says something about single predictors
    trials: float               # metric calls that the budget allows


@dataclass(frozen=True)
class Auto(Configured):
    """`Auto(metric=exact_match).compile(program, trainset=train)`

    Args:
        metric: scores a run.
        prompt_model: a strong model that writes instructions; None: the model in force, unless it runs in this process.
        budget: hard limits; `trials` are metric calls.
        seed: decides all draws.
        num_threads: runs at the same time.
        progress: told after each run.
    """

    metric: Metric | None = None
    prompt_model: Any = None
    budget: Budget | None = None
    seed: int = 0
    num_threads: int | None = field(default=None, compare=False)
    progress: Progress | None = field(default=None, compare=False)

    def compile(self, student: P, *, trainset: Sequence[Example], teacher: Module | None = None,
                valset: Sequence[Example] | None = None) -> P:
        """A compiled copy of `student`; its report says what was chosen and why."""
        check_trainset(student, trainset)
        chosen, why = self.choose(student, trainset, valset)
        compiled = chosen.compile(student, trainset=trainset, teacher=teacher, valset=valset)
        report = compiled.compile_report  # type: ignore[attr-defined]
        compiled.compile_report = replace(report, why=f"{type(chosen).__name__}: {why}")  # type: ignore[attr-defined]
        return compiled

    def choose(self, student: Module, trainset: Sequence[Example], valset: Sequence[Example] | None = None,
               ) -> tuple[Teleprompter, str]:
        """The teleprompter for this case, and why."""
        facts = self._facts(student, trainset, valset)
        for rule in RULES:
            if rule.fits(facts):
                return rule.make(self, facts), rule.why.format(**facts._asdict())
        raise AssertionError("the last rule fits everything")

    def _facts(self, student: Module, trainset: Sequence[Example], valset: Sequence[Example] | None) -> Facts:
        predictors = student.predictors()
        labeled = all(any(set(p.signature.fields) <= set(e.keys()) for e in trainset) for p in predictors)
        local = str(current_lm().dump_state().get("model", "")).startswith("local/")
        return Facts(len(trainset) + len(valset or ()), len(predictors), labeled,
                     self.prompt_model is not None or not local,
                     self.metric is not None and takes_predictor(self.metric),
                     (self.budget or Budget()).trials)


class Rule(NamedTuple):
    """A case, what is chosen in it, and why."""

    fits: Callable[[Facts], bool]
    make: Callable[[Auto, Facts], Any]
    why: str


def _shared(auto: Auto) -> dict[str, Any]:
    return {"metric": auto.metric, "seed": auto.seed, "budget": auto.budget, "num_threads": auto.num_threads,
            "progress": auto.progress}


def _search(auto: Auto, facts: Facts) -> Any:
    count = 16
    while count > 2 and planned(count + 3, facts.examples) + facts.examples > facts.trials:
        count //= 2
    return BootstrapFewShotWithRandomSearch(**_shared(auto), max_labeled_demos=8, num_candidate_programs=count)


RULES = (
    Rule(lambda f: f.trials < f.examples and f.labeled, lambda a, f: LabeledFewShot(k=8),
         "the budget of {trials:.0f} metric calls is too small to score candidates, and the {examples} examples can be "
         "demonstrations as they are"),
    Rule(lambda f: f.trials < 2 * f.examples,
         lambda a, f: BootstrapFewShot(a.metric, max_labeled_demos=8, budget=a.budget, progress=a.progress),
         "the budget of {trials:.0f} metric calls allows a teacher's runs on {examples} examples and no comparison"),
    Rule(lambda f: f.examples < FEW,
         lambda a, f: BootstrapFewShotWithRandomSearch(**_shared(a), max_labeled_demos=4, num_candidate_programs=4),
         "{examples} examples are too few to tell many candidates apart, so a few sets of demonstrations are compared"),
    Rule(lambda f: f.writes and f.feedback,
         lambda a, f: GEPA(**_shared(a), reflection_lm=a.prompt_model),
         "the metric gives feedback on single predictors, and a model that can write instructions is at hand"),
    Rule(lambda f: f.writes and f.examples >= ENOUGH and importlib.util.find_spec("sklearn") is not None,
         lambda a, f: MIPROv2(**_shared(a), prompt_model=a.prompt_model),
         "{examples} examples are enough to search instructions and demonstrations of {predictors} predictor(s)"),
    Rule(lambda f: True, _search,
         "demonstrations help most where the model does not write instructions well, or examples are few ({examples})"),
)
