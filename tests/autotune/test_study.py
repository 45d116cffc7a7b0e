"""The search engine: strategies, budgets, records, interruption, resumption."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from tracedsl.autotune import (
    Budget,
    CoordinateDescent,
    Exhaustive,
    Genetic,
    Measurement,
    ModelAnnealing,
    ModelGuided,
    Outcome,
    Parameter,
    Point,
    RandomSearch,
    Records,
    SimulatedAnnealing,
    Space,
    Study,
)
from tracedsl.autotune.space import SpaceError, key

SPACE = Space(
    (Parameter("tile", (1, 2, 4, 8, 16, 32), ordered=True), Parameter("order", ("ij", "ji")),
     Parameter("unroll", (1, 2, 4), ordered=True)),
    valid=lambda p: not (p["tile"] == 32 and p["unroll"] == 4), default={"tile": 1, "order": "ij", "unroll": 1})


def loss(point: Point) -> float:
    assert isinstance(point["tile"], int) and isinstance(point["unroll"], int)
    return abs(math.log2(point["tile"]) - 3) + (0.5 if point["order"] == "ij" else 0) + abs(point["unroll"] - 2) / 4


class Counting:
    def __init__(self) -> None:
        self.points: list[str] = []

    def __call__(self, point: Point) -> Measurement:
        self.points.append(key(point))
        return Measurement(loss(point))


BEST = {"tile": 8, "order": "ji", "unroll": 2}


def test_space_counts_and_refuses() -> None:
    points = list(SPACE.points())
    assert len(SPACE) == 36 and len(points) == 34
    assert len({key(p) for p in points}) == 34
    assert [p["tile"] for p in SPACE.neighbours({"tile": 8, "order": "ij", "unroll": 1}, "tile")] == [4, 16]


def test_an_empty_space_says_so() -> None:
    empty = Space((Parameter("a", (1, 2)),), valid=lambda p: False)
    with pytest.raises(SpaceError, match="empty"):
        RandomSearch(empty).ask(1)
    with pytest.raises(SpaceError):
        Parameter("b", ())


NESTED = Space((Parameter("pack", (False, True)), Parameter("depth", (0, 1, 2), when=(("pack", (True,)),)),
                Parameter("order", ("a", "b"), when=(("depth", (1, 2)),))),
               default={"pack": False, "depth": 2, "order": "b"})


def test_parameters_that_do_not_matter_have_their_first_choice() -> None:
    points = list(NESTED.points())
    assert len(points) == 1 + 1 + 4 == len({key(NESTED.normal(NESTED._decode(n))) for n in range(len(NESTED))})
    assert NESTED.default == {"pack": False, "depth": 0, "order": "a"}
    assert {key(NESTED.sample(Random(n))) for n in range(60)} == set(map(key, points))
    assert list(NESTED.neighbours(points[0], "order")) == []
    assert list(NESTED.neighbours({"pack": True, "depth": 1, "order": "b"}, "pack")) == [points[0]]


def test_conditions_that_never_hold_say_so() -> None:
    for when in ((("no", (1,)),), (("a", (3,)),)):
        with pytest.raises(SpaceError, match="can never matter"):
            Space((Parameter("a", (1, 2)), Parameter("b", (1, 2), when=when)))
    with pytest.raises(SpaceError, match="the same name"):
        Space((Parameter("a", (1, 2)), Parameter("a", (1,))))


STRATEGIES = [RandomSearch, CoordinateDescent, Genetic, SimulatedAnnealing, ModelAnnealing, ModelGuided]


@pytest.mark.parametrize("strategy", [Exhaustive, *STRATEGIES])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_strategy_finds_the_optimum_and_measures_nothing_twice(strategy: type, seed: int) -> None:
    measure = Counting()
    study = Study(SPACE, strategy(SPACE, seed), measure, "t", budget=Budget(trials=200), batch=4)
    outcome = study.run()
    assert outcome.best is not None and dict(outcome.best.point) == BEST
    assert outcome.trials[0].point == SPACE.default
    assert len(measure.points) == len(set(measure.points))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_seed_asks_the_same(strategy: type) -> None:
    def walk(seed: int) -> list[str]:
        measure = Counting()
        Study(SPACE, strategy(SPACE, seed), measure, "t", budget=Budget(trials=12)).run()
        return measure.points

    assert walk(0) == walk(0) and walk(0) != walk(1)


def test_maximising_and_failures() -> None:
    def measure(point: Point) -> Measurement:
        if point["order"] == "ij":
            return Measurement(None, "crashed")
        if point["tile"] == 1:
            return Measurement(math.nan)
        return Measurement(-loss(point))

    outcome = Study(SPACE, Exhaustive(SPACE), measure, "t", goal="max").run()
    assert outcome.best is not None and dict(outcome.best.point) == BEST and outcome.stopped == "done"


def test_nothing_worked() -> None:
    outcome = Study(SPACE, Exhaustive(SPACE), lambda p: Measurement(None, "no"), "t").run()
    assert outcome.best is None and len(outcome.trials) == 34


def test_budgets_are_hard() -> None:
    def measure(point: Point) -> Measurement:
        return Measurement(1.0, cost={"calls": 3, "money": 0.5})

    for budget, count in [(Budget(trials=5), 5), (Budget(calls=9), 3), (Budget(money=2), 4), (Budget(seconds=0), 0)]:
        assert len(Study(SPACE, Exhaustive(SPACE), measure, "t", budget=budget).run().trials) == count


def test_records_are_not_paid_again(tmp_path: Path) -> None:
    records = Records(tmp_path / "deep" / "r.jsonl")

    def run(trials: int, task: str = "t") -> tuple[Outcome, Counting]:
        measure = Counting()
        study = Study(SPACE, Exhaustive(SPACE), measure, task, budget=Budget(trials=trials), records=records)
        return study.run(), measure

    first, _ = run(10)
    second, measured = run(100)
    assert first.measured == 10 and second.measured == 24 and len(measured.points) == 24
    assert len(second.trials) == 34 and run(5, "other task")[0].measured == 5


def test_damaged_lines_are_skipped_and_left(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    records = Records(path)
    records.append("t", {"a": 1}, Measurement(1.0))
    with open(path, "ab") as file:
        file.write(b'{"v": 1, "task": "t", "poi')
    records.append("t", {"a": 2}, Measurement(2.0))
    with open(path, "ab") as file:
        file.write(b'\xff\xfe\n{"v": 99}\n[]\n')
    assert {k: m.value for k, m in Records(path).load("t").items()} == {'{"a": 1}': 1.0, '{"a": 2}': 2.0}


def test_ctrl_c_keeps_the_best() -> None:
    measured = Counting()

    def measure(point: Point) -> Measurement:
        if len(measured.points) == 7:
            raise KeyboardInterrupt
        return measured(point)

    outcome = Study(SPACE, Exhaustive(SPACE), measure, "t").run()
    assert outcome.stopped == "interrupted" and len(outcome.trials) == 7 and outcome.best is not None


def test_a_tie_keeps_the_earlier_point() -> None:
    outcome = Study(SPACE, Exhaustive(SPACE), lambda p: Measurement(1.0 - 1e-3 * (p["unroll"] == 4)), "t",
                    margin=0.01).run()
    assert outcome.best is not None and outcome.best.number == 0


SEARCH = """
import sys, time
from tracedsl.autotune import Exhaustive, Measurement, Parameter, Records, Space, Study
space = Space((Parameter("n", tuple(range(200))),))
def measure(point):
    time.sleep(0.003)
    print(point["n"], flush=True)
    return Measurement(float(point["n"]))
Study(space, Exhaustive(space), measure, "t", records=Records(sys.argv[1])).run()
"""


def test_kill_9_loses_at_most_the_trial_in_flight(tmp_path: Path) -> None:
    path, paid = tmp_path / "r.jsonl", list[str]()
    for pause in (0.5, 0.55, 0.6):
        process = subprocess.Popen([sys.executable, "-c", SEARCH, str(path)], stdout=subprocess.PIPE, text=True)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        paid += process.communicate()[0].split()
    process = subprocess.run([sys.executable, "-c", SEARCH, str(path)], stdout=subprocess.PIPE, text=True, check=True)
    paid += process.stdout.split()
    assert len(Records(path).load("t")) == 200
    assert len(paid) - len(set(paid)) <= 3
