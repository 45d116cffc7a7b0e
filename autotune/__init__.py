"""The search engine for schedules and prompts alike: space, strategy, measurer, records, budget, study.

What holds here: nothing is known of kernels or language models; a point of a space is a dict of JSON values, a
measurement is one number. NumPy and scikit-learn are loaded by the strategies that have a model, and by nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracedsl.autotune.budget import Budget as Budget
    from tracedsl.autotune.measure import Measurement as Measurement
    from tracedsl.autotune.measure import Measurer as Measurer
    from tracedsl.autotune.model import CostModel as CostModel
    from tracedsl.autotune.model import Trees as Trees
    from tracedsl.autotune.pool import Crash as Crash
    from tracedsl.autotune.pool import DevicePool as DevicePool
    from tracedsl.autotune.pool import Result as Result
    from tracedsl.autotune.pool import Timeout as Timeout
    from tracedsl.autotune.records import Records as Records
    from tracedsl.autotune.space import Parameter as Parameter
    from tracedsl.autotune.space import Point as Point
    from tracedsl.autotune.space import Space as Space
    from tracedsl.autotune.strategies.annealing import SimulatedAnnealing as SimulatedAnnealing
    from tracedsl.autotune.strategies.base import Strategy as Strategy
    from tracedsl.autotune.strategies.coordinate import CoordinateDescent as CoordinateDescent
    from tracedsl.autotune.strategies.exhaustive import Exhaustive as Exhaustive
    from tracedsl.autotune.strategies.genetic import Genetic as Genetic
    from tracedsl.autotune.strategies.model_annealing import ModelAnnealing as ModelAnnealing
    from tracedsl.autotune.strategies.model_guided import ModelGuided as ModelGuided
    from tracedsl.autotune.strategies.random_search import RandomSearch as RandomSearch
    from tracedsl.autotune.study import Outcome as Outcome
    from tracedsl.autotune.study import Study as Study
    from tracedsl.autotune.study import Trial as Trial
    from tracedsl.autotune.workers import Device as Device
    from tracedsl.autotune.workers import LocalPool as LocalPool
else:
    from tracedsl._lazy import make_lazy

    make_lazy(__name__, {
        "budget": "Budget",
        "measure": "Measurement Measurer",
        "model": "CostModel Trees",
        "pool": "Crash DevicePool Result Timeout",
        "records": "Records",
        "space": "Parameter Point Space",
        "strategies.annealing": "SimulatedAnnealing",
        "strategies.base": "Strategy",
        "strategies.coordinate": "CoordinateDescent",
        "strategies.exhaustive": "Exhaustive",
        "strategies.genetic": "Genetic",
        "strategies.model_annealing": "ModelAnnealing",
        "strategies.model_guided": "ModelGuided",
        "strategies.random_search": "RandomSearch",
        "study": "Outcome Study Trial",
        "workers": "Device LocalPool",
    })
