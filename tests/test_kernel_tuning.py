"""Tuning of kernels: what is measured, recorded, kept and served; what happens when candidates fail or users interrupt.

Most tests put a pool in place of the workers that makes times up, so that they know what must win.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tracedsl import kernel
from tracedsl.autotune.pool import Answer, Crash, Result, Timeout
from tracedsl.cache import Store
from tracedsl.capture.tensor.arguments import bind
from tracedsl.diagnostics import TracedslError
from tracedsl.hw.target import target
from tracedsl.ir.expr import Task
from tracedsl.ir.task_json import task_to_json
from tracedsl.kernel import Kernel
from tracedsl.kernel_effort import Effort
from tracedsl.kernel_limits import Limits
from tracedsl.kernel_measuring import Bench, Measuring
from tracedsl.kernel_schedules import keep_schedule, known_schedule
from tracedsl.kernel_tuning import Tuner, search_space
from tracedsl.schedule import Schedule, ScheduleSpace, default_schedule

CPU = target("cpu")


def product(x, w):  # type: ignore[no-untyped-def]
    return np.maximum(x @ w, 0)


def arrays(m: int = 40, k: int = 30, n: int = 50) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.random((m, k), np.float32), rng.random((k, n), np.float32)


def task_of(made: Kernel, *args: Any) -> Task:
    compiler = made._compiler(made._environment.snapshot())
    (task,) = compiler.stages(bind(made._parameters, args, {})).tasks.tasks
    return task


def unrolled(steps: Any) -> int:
    """Rows of a tile: what the made-up times go by."""
    leaves = Schedule.from_json(task_of(kernel(product), *arrays()), steps).leaves(0)
    return next(leaf.extent for leaf in leaves if leaf.root == "i" and leaf.kind == "unroll")


class Pool:
    """Answers at once. `seconds(steps)` gives a time, an answer or an exception."""

    made: ClassVar[list[Pool]] = []

    def __init__(self, handler: str, setup: Any) -> None:
        json.dumps(setup)
        self.asked: list[Any] = []
        Pool.made.append(self)

    seconds: Callable[[Any], Any] = staticmethod(lambda steps: float(unrolled(steps)))

    def submit(self, candidate: Any, device: str = "", limit: float = 10.0) -> Future[Answer]:
        json.dumps(candidate)
        future: Future[Answer] = Future()
        if "limits" in candidate:
            future.set_result(Result({"operations": 1e9, "bytes": 1e9, "cache": 1 << 20}))
            return future
        self.asked.append(candidate)
        found = Pool.seconds(candidate["steps"])
        future.set_result(found if isinstance(found, Crash | Timeout | Result) else Result({"seconds": found}))
        return future

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> type[Pool]:
    monkeypatch.setattr("tracedsl.autotune.workers.LocalPool", Pool)
    monkeypatch.setattr(Pool, "seconds", staticmethod(lambda steps: float(unrolled(steps))))
    Pool.made.clear()
    return Pool


def rows(steps: str) -> int:
    return int(steps.split(" unroll")[0].rsplit("i_i:", 1)[1])


def test_the_fastest_schedule_is_served_and_found_by_later_processes(made_up: type[Pool], tmp_path: Path) -> None:
    store, (x, w) = Store(tmp_path / "s"), arrays()
    first = kernel(store=store)(product)
    first(x, w)
    before = rows(first.show("schedule"))
    report = first.tune(x, w, trials=60, strategy="exhaustive")
    assert rows(first.show("schedule")) < before and report.tasks[0].gain > 1
    assert np.allclose(first(x, w), product(x, w), rtol=1e-5)
    later = kernel(store=store)(product)
    assert np.allclose(later(x, w), product(x, w), rtol=1e-5) and later.from_cache
    assert later.explain().count(str(report.tasks[0].schedule).splitlines()[0]) == 1


def test_another_kernel_with_the_same_task_gets_its_schedule(made_up: type[Pool], tmp_path: Path) -> None:
    store, (x, w) = Store(tmp_path / "s"), arrays()
    report = kernel(store=store)(product).tune(x, w, trials=40, strategy="exhaustive")

    def same_product(x, w):  # type: ignore[no-untyped-def]
        return np.maximum(x @ w, 0)

    other = kernel(store=store)(same_product)
    other(x, w)
    assert other.show("schedule") == str(report.tasks[0].schedule)


def test_what_is_on_record_is_not_measured_again(made_up: type[Pool], tmp_path: Path) -> None:
    store, (x, w) = Store(tmp_path / "s"), arrays()
    one = kernel(store=store)(product).tune(x, w, trials=20)
    two = kernel(store=store)(product).tune(x, w, trials=28)
    assert one.tasks[0].outcome.measured == 20 and two.tasks[0].outcome.measured == 8
    assert [t.point for t in two.tasks[0].outcome.trials[:20]] == [t.point for t in one.tasks[0].outcome.trials]


def test_records_of_another_machine_are_not_used_and_said(made_up: type[Pool], tmp_path: Path) -> None:
    store, (x, w) = Store(tmp_path / "s"), arrays()
    kernel(store=store)(product).tune(x, w, trials=10)
    file = store.root / "records" / "kernels.jsonl"
    file.write_text(file.read_text().replace(CPU.fingerprint(), "0123456789abcdef"))
    report = kernel(store=store)(product).tune(x, w, trials=10)
    assert report.tasks[0].outcome.measured == 10
    assert "10 records of other machines or compilers were not used" in str(report)


def test_failing_candidates_cost_a_trial_and_are_counted(made_up: type[Pool], tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[int, Any] = {1: Crash("the worker was killed by SIGSEGV"), 2: Timeout(10.0),
                               3: Result({"error": "wrong values in out"})}
    monkeypatch.setattr(Pool, "seconds", staticmethod(lambda steps: answers.get(unrolled(steps), 1.0)))
    (x, w) = arrays()
    report = kernel(store=Store(tmp_path / "s"))(product).tune(x, w, trials=80, strategy="random")
    errors = {t.measurement.error for t in report.tasks[0].outcome.trials}
    assert errors == {"", "crashed: the worker was killed by SIGSEGV", "took longer than 10 s", "wrong values in out"}
    assert " failed" in str(report) and "the default is the best" in str(report)


def test_a_lucky_run_does_not_win(made_up: type[Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured as the fastest is timed again beside the default before it is taken."""
    monkeypatch.setattr(Pool, "seconds", staticmethod(lambda steps: float(unrolled(steps)) if len(
        Pool.made[-1].asked) <= 30 else 100.0))
    (x, w) = arrays()
    store = Store(tmp_path / "s")
    report = kernel(store=store)(product).tune(x, w, trials=30, strategy="random")
    task = report.tasks[0].task
    assert report.tasks[0].gain == 1 and known_schedule(task, CPU, store) == default_schedule(task, CPU.description)


def test_ctrl_c_keeps_the_best(made_up: type[Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(steps: Any) -> float:
        if len(Pool.made[-1].asked) == 20:
            raise KeyboardInterrupt
        return float(unrolled(steps))

    monkeypatch.setattr(Pool, "seconds", staticmethod(seconds))
    (x, w) = arrays()
    made = kernel(store=Store(tmp_path / "s"))(product)
    report = made.tune(x, w, trials=200, strategy="random")
    assert report.interrupted and report.trials == 19 and report.tasks[0].gain > 1
    assert "interrupted: the best so far is kept" in str(report)
    assert np.allclose(made(x, w), product(x, w), rtol=1e-5)


def test_native_calls_go_to_the_new_code(made_up: type[Pool], tmp_path: Path) -> None:
    (x, w), made = arrays(), kernel(store=Store(tmp_path / "s"))(product)
    for _ in range(5):
        made(x, w)
    old = made._last
    made.tune(x, w, trials=60, strategy="exhaustive")
    for _ in range(5):
        result = made(x, w)
        assert made._last is not old and made.compiled
    assert np.allclose(result, product(x, w), rtol=1e-5)


def test_tuning_in_the_background_serves_at_once_and_swaps(made_up: type[Pool], tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracedsl.kernel_session.BACKGROUND", 1.0)
    (x, w), store = arrays(), Store(tmp_path / "s")
    made = kernel(tune="background", store=store)(product)
    made(x, w)
    for thread in threading.enumerate():
        if thread.name.startswith("tracedsl-tuning"):
            thread.join(60)
    assert len(Pool.made) == 1
    assert rows(made.show("schedule")) < rows(str(default_schedule(task_of(made, x, w), CPU.description)))
    again = kernel(tune="background", store=store)(product)
    again(x, w)
    assert again.from_cache and len(Pool.made) == 1


def test_small_tasks_keep_their_default(made_up: type[Pool], tmp_path: Path) -> None:
    def f(x, w, b):  # type: ignore[no-untyped-def]
        return x @ w, b + 1

    x, w = arrays(200, 200, 200)
    report = kernel(store=Store(tmp_path / "s"))(f).tune(x, w, np.ones(30, np.float32), trials=5)
    assert [len(one.outcome.trials) for one in report.tasks].count(0) == 1
    assert "not searched" in str(report)


def test_the_winner_prints_as_a_hint_that_gives_it_again(made_up: type[Pool], tmp_path: Path) -> None:
    (x, w) = arrays()
    report = kernel(store=Store(tmp_path / "s"))(product).tune(x, w, trials=40, strategy="exhaustive")
    (hint,) = report.hints()
    steps = report.tasks[0].schedule.steps
    assert hint == "hint(value)" + "".join(
        f".{name}({', '.join(json.dumps(a) for a in args)})" for name, args in steps)


def test_the_page_stands_alone(made_up: type[Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from html.parser import HTMLParser

    failed = Result({"error": "<script>alert(1)</script>"})
    monkeypatch.setattr(Pool, "seconds", staticmethod(lambda steps: failed if unrolled(steps) == 2 else 1.0))
    report = kernel(store=Store(tmp_path / "s"))(product).tune(*arrays(), trials=60, strategy="random")
    text = report.html(tmp_path / "page.html").read_text()
    tags: list[str] = []
    parser = HTMLParser()
    monkeypatch.setattr(parser, "handle_starttag", lambda tag, attrs: tags.append(tag))
    parser.feed(text)
    assert "script" not in tags and "&lt;script&gt;" in text and tags.count("svg") == 1
    assert tags.count("circle") == sum(t.measurement.ok for t in report.tasks[0].outcome.trials)
    assert not any(word in text for word in ("src=", "href=", "http"))


# -- the workers' side --------------------------------------------------------------------------------------------


def measuring(task: Task) -> Measuring:
    return Measuring({"target": "cpu", "tasks": [task_to_json(task)]})


def test_a_schedule_is_compared_with_the_plain_loops() -> None:
    task = task_of(kernel(product), *arrays())
    wrong = task_of(kernel(lambda x, w: np.maximum(x @ w, 0) + 1), *arrays())
    bench = Bench(task, CPU, lambda: 0.0)
    assert bench.measure(Bench(wrong, CPU, lambda: 0.0).loops(None), {}) == {"error": "wrong values in out"}


def test_limits_are_measured_with_own_code() -> None:
    found = Limits(**measuring(task_of(kernel(product), *arrays()))({"limits": True}))
    assert found.operations > found.bytes / 8 > 0
    wide = task_of(kernel(product), *arrays(600, 500, 700))
    assert found.least(wide) == pytest.approx(2 * 600 * 500 * 700 / found.operations)
    assert found.least(task_of(kernel(lambda x: np.exp(x)), np.ones(100))) is None


def test_equal_loops_are_measured_once() -> None:
    task = task_of(kernel(product), *arrays())
    handler, steps = measuring(task), default_schedule(task, CPU.description).to_json()
    one, two = handler({"task": 0, "steps": steps}), handler({"task": 0, "steps": steps})
    assert two == {"seconds": one["seconds"], "code": one["code"], "duplicate": True}


def test_a_slow_schedule_is_stopped_and_a_bad_one_refused() -> None:
    task = task_of(kernel(product), *arrays())
    handler, plain = measuring(task), Schedule.of(task).to_json()
    assert handler({"task": 0, "steps": plain, "against": plain, "value": 1e-12})["slow"]
    assert "no axis" in handler({"task": 0, "steps": [["split", ["z", 4]]]})["error"]


def test_every_point_of_small_spaces_gives_right_values() -> None:
    """Random points of each kind of task run in the workers' harness, whose check is against the plain loops."""
    from random import Random

    def softmax(x):  # type: ignore[no-untyped-def]
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    def conv(x, w):  # type: ignore[no-untyped-def]
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        return np.tensordot(windows, w, axes=([4, 5, 3], [0, 1, 2]))

    kinds = [(product, [(70, 300), (300, 90)]), (softmax, [(20, 90)]), (conv, [(1, 12, 15, 40), (3, 3, 40, 48)])]
    for f, shapes in kinds:
        task = task_of(kernel(f), *(np.zeros(shape, np.float32) for shape in shapes))
        found, rng = ScheduleSpace.of(task, CPU.description), Random(1)
        points, handler = search_space(found), measuring(task)
        for _ in range(12):
            answer = handler({"task": 0, "steps": found.schedule(points.sample(rng)).to_json(), "value": 1e-12})
            assert "error" not in answer, answer


def test_tuning_for_real(tmp_path: Path) -> None:
    (x, w), store = arrays(64, 48, 80), Store(tmp_path / "s")
    made = kernel(store=store)(product)
    report = made.tune(x, w, trials=5, minutes=1)
    (one,) = report.tasks
    assert len(one.outcome.trials) == 5 and all(t.measurement.ok for t in one.outcome.trials)
    assert np.allclose(made(x, w), product(x, w), rtol=1e-5)
    assert json.loads(json.dumps(report.to_json()))["tasks"][0]["trials"] == 5


# -- the command --------------------------------------------------------------------------------------------------


def run(*arguments: str) -> Any:
    from click.testing import CliRunner

    from tracedsl.cli import main

    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"tuned_{tmp_path.name[-8:].strip('_')}"
    (tmp_path / f"{name}.py").write_text(
        "import numpy as np\nfrom tracedsl import kernel\n"
        "@kernel\ndef product(x, w):\n    return np.maximum(x @ w, 0)\n"
        "def product_inputs():\n    return np.ones((40, 30), np.float32), np.ones((30, 50), np.float32)\n"
        "def plain(x, w):\n    return np.maximum(x @ w, 0)\nnumber = 3\n")
    monkeypatch.chdir(tmp_path)
    return name


def test_the_command_tunes_and_its_records_travel(made_up: type[Pool], module: str, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("tune", f"{module}:product", "--trials", "20", "--json", "--html", "page.html", "--strategy", "random")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["tasks"][0]["trials"] == 20 and (tmp_path / "page.html").exists()
    shapes = ("--shape", "float32[40,30]", "--shape", "float32[30, 50]")
    again = run("tune", f"{module}:plain", "--trials", "20", *shapes, "--strategy", "random")
    assert "20 on record" in again.output       # the task is the same
    (row,) = json.loads(run("records", "ls", "--json").stdout)
    assert row["measurements"] == 20 and row["where"]["target"] == "cpu" and row["best_seconds"]
    assert "20 measurements written" in run("records", "export", "r.jsonl").output
    monkeypatch.setenv("TRACEDSL_CACHE", str(tmp_path / "other"))
    assert "nothing was measured" in run("records", "ls").output
    assert "20 measurements taken over" in run("records", "import", "r.jsonl").output
    assert "0 measurements taken over" in run("records", "import", "r.jsonl").output


@pytest.mark.parametrize(("arguments", "said"), [
    (("nowhere:f",), "no module 'nowhere'"), (("product",), "names no function"), (("{}:produkt",), "has no 'produkt'"),
    (("{}:number",), "is no function but int"), (("{}:plain",), "nothing to call"),
    (("{}:plain", "--shape", "float31[3]"), "not understood as an argument"),
    (("{}:plain", "--shape", "float32[3,x]"), "not understood as an argument"),
    (("{}:product", "--strategy", "magic"), "no search strategy 'magic'"),
    (("{}:product", "--trials", "0"), "measures nothing"),
])
def test_the_command_says_what_is_wrong(module: str, arguments: tuple[str, ...], said: str) -> None:
    done = run("tune", *(a.format(module) for a in arguments))
    assert done.exit_code == 1 and said in done.output and "what to do" in done.output


# -- effort -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tune", "effort"), [
    (0, None), (30, Effort(trials=30)), ("90s", Effort(seconds=90)), ("1.5 min", Effort(seconds=90)),
    ("2h", Effort(seconds=7200)), ("background", Effort(seconds=120, background=True)),
])
def test_efforts(tune: Any, effort: Effort | None) -> None:
    assert Effort.of(tune) == effort


@pytest.mark.parametrize("tune", ["", "fast", "-3", "0min", "3 weeks", -1, True, 1.5, None])
def test_efforts_that_are_not_understood(tune: Any) -> None:
    with pytest.raises(TracedslError, match="is not understood") as caught:
        kernel(tune=tune)(product)
    assert caught.value.code == "T005" and "tune=100" in str(caught.value)


def test_limits_and_strategies_that_there_are_not() -> None:
    made = kernel(product)
    with pytest.raises(TracedslError, match="measures nothing"):
        made.tune(*arrays(), trials=0)
    with pytest.raises(TracedslError, match="no search strategy 'genetics'") as caught:
        made.tune(*arrays(), strategy="genetics")
    assert "genetic" in caught.value.diagnostic.hint


def test_without_scikit_learn_it_searches_without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from tracedsl.kernel_tuning import make_strategy

    monkeypatch.setattr("tracedsl.kernel_tuning.find_spec", lambda name: None)
    found = ScheduleSpace.of(task_of(kernel(product), *arrays()), CPU.description)
    with pytest.warns(Warning, match="without a cost model"):
        assert type(make_strategy("auto", search_space(found), found)).__name__ == "SimulatedAnnealing"


def test_a_kept_schedule_that_does_not_fit_is_no_error(tmp_path: Path) -> None:
    store, task = Store(tmp_path / "s"), task_of(kernel(product), *arrays())
    bad = Schedule.of(task).split("i", 4)
    keep_schedule(task, CPU, store, bad, 1.0, 2.0)
    assert known_schedule(task, CPU, store) == bad
    keep_schedule(task, CPU, store, Schedule((), (), (), steps=(("split", ("nowhere", 4)),)), 1.0, 2.0)
    assert known_schedule(task, CPU, store) == default_schedule(task, CPU.description)
    assert Tuner(CPU, store, Effort(trials=1)).tune([]) == []
