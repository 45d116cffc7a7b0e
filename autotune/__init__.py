"""The search engine for schedules and prompts alike: space, strategy, measurer, records, budget, study.

What holds here: nothing is known of kernels or language models; a point of a space is a dict of JSON values, a
measurement is one number.
"""

from __future__ import annotations

from tracedsl.autotune.budget import Budget
from tracedsl.autotune.measure import Measurement, Measurer
from tracedsl.autotune.records import Records
from tracedsl.autotune.space import Parameter, Point, Space
from tracedsl.autotune.strategies import CoordinateDescent, Exhaustive, RandomSearch, Strategy
from tracedsl.autotune.study import Outcome, Study, Trial

__all__ = [
    "Budget", "CoordinateDescent", "Exhaustive", "Measurement", "Measurer", "Outcome", "Parameter", "Point",
    "RandomSearch", "Records", "Space", "Strategy", "Study", "Trial",
]
