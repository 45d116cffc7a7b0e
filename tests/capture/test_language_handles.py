"""Handles: opaque, lazy where they may be, finished wherever anybody looks."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest

from tracedsl.capture.language.handles import Call, Handle, finished, handles_in, step_of
from tracedsl.capture.language.recording import Recording
from tracedsl.capture.language.run import Run
from tracedsl.capture.language.sites import Sites
from tracedsl.rewrite.language.plan import Plan


class Ready(Call):
    """A call whose answer is known."""

    def __init__(self, run: Run, value: Any, fail: bool = False) -> None:
        super().__init__(run, None, ())
        self._answer, self._fail = value, fail

    def compute(self) -> Any:
        if self._fail:
            raise ValueError(self._answer)
        return self._answer


def make_run(overlap: bool = True) -> Run:
    return Run(Sites("f"), (), Recording("f", {}), Plan().walk(), overlap=overlap)


def handle_of(value: Any, run: Run | None = None) -> Handle:
    run = run or make_run()
    return run.add(Ready(run, value))


LOOKS: list[tuple[Callable[[Any], Any], Any]] = [
    (bool, ""), (bool, "x"), (len, [1, 2]), (list, (1, 2)), (str, 3), (repr, "a"), (int, "7"), (float, 2), (hash, "k"),
    (operator.neg, 3), (operator.index, 4), (abs, -2), (lambda v: v + 1, 2), (lambda v: 1 + v, 2),
    (lambda v: "a" + v, "b"), (lambda v: v * 2, [1]), (lambda v: v == "x", "x"), (lambda v: v == "x", "x"),
    (lambda v: v != 1, 1), (lambda v: v < 3, 2), (lambda v: v < 3, 2), (lambda v: 2 in v, [1, 2]),
    (lambda v: v[0], "ab"),
    (lambda v: f"{v:>5}", "ab"), (lambda v: [*v], "ab"), (lambda v: {v: 1}["k"], "k"), (lambda v: v.upper(), "ab"),
    (lambda v: divmod(v, 3), 7), (lambda v: 7 & v, 3), (lambda v: v(2), lambda x: x + 1),
    (lambda v: "%s" % v, "z"),  # noqa: UP031
    (lambda v: sorted([v, 1]), 0), (lambda v: v in (1, 2), 2), (lambda v: list(range(v)), 3),
    (lambda v: [1, 2, 3][v], 1),
]


@pytest.mark.parametrize(("look", "value"), LOOKS, ids=[str(i) for i in range(len(LOOKS))])
def test_code_that_was_not_rewritten_sees_the_value(look: Callable[[Any], Any], value: Any) -> None:
    assert look(handle_of(value)) == look(value)


def test_a_handle_is_nothing_else() -> None:
    handle = handle_of("text")
    assert not isinstance(handle, str) and type(handle) is Handle


def test_fields_and_items_stay_lazy_and_fail_late_in_program_order() -> None:
    run = make_run()
    chain = handle_of({"a": [1, "x"]}, run)["a"][1].upper
    assert type(chain) is Handle and not step_of(chain).done
    assert chain() == "X"
    missing = handle_of({"a": 1}, run)["b"]
    later = run.add(Ready(run, "second", fail=True))
    with pytest.raises(KeyError):
        run.force(later)
    assert type(missing) is Handle


def test_in_order_everything_fails_at_once() -> None:
    run = make_run(overlap=False)
    with pytest.raises(KeyError):
        handle_of({"a": 1}, run)["b"]
    run = make_run()
    run.enter()
    with pytest.raises(ValueError, match="now"):
        run.add(Ready(run, "now", fail=True))


def test_stores_go_to_the_value() -> None:
    value: dict[str, int] = {}
    handle_of(value)["k"] = 1
    assert value == {"k": 1}


def test_finish_changes_own_containers_in_place_and_no_others() -> None:
    run = make_run()
    handle = handle_of("v", run)
    mine, foreign = run.own([handle, {"k": (handle, 1)}]), ["f"]
    run.own(mine[1])
    assert run.finish(mine) is mine and mine == ["v", {"k": ("v", 1)}]
    assert type(mine[1]["k"][0]) is str
    assert run.finish(foreign) is foreign
    pair = (handle, 2)
    assert run.finish(pair) is run.finish(pair), "one tuple stays one tuple"


def test_what_left_the_run_never_gets_a_handle_again() -> None:
    run = make_run()
    inner: list[Any] = run.own([])
    outer = run.own([inner])
    run.export(outer)
    assert not run.owns(inner) and not run.owns(outer)


def test_a_container_within_itself() -> None:
    run = make_run()
    mine: list[Any] = run.own([handle_of(1, run)])
    mine.append(mine)
    run.ref(mine)
    run.snapshot(mine)
    assert run.export(mine)[0] == 1 and mine[1] is mine


def test_snapshot_does_not_follow_later_changes() -> None:
    run = make_run()
    handle = handle_of("v", run)
    mine = run.own([handle])
    snapshot = run.snapshot((mine, {"plain": 1}))
    mine.append("later")
    assert [step_of(h) for h in handles_in(snapshot)] == [step_of(handle)]
    run.barrier()
    assert finished(snapshot) == (["v"], {"plain": 1})
