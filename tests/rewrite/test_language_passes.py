"""Passes of the language dialect and the plans that are made of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracedsl.diagnostics import TracedslError
from tracedsl.ir.graph import Builder, Graph, Literal, Node, print_graph, verify
from tracedsl.ir.language import FIELD, LM_CALL, LOOK, PY_CALL, STR, TEMPLATE, RecordedCall, field_type, prediction_type
from tracedsl.programs import Prediction
from tracedsl.rewrite.generic import drop_dead, share_common
from tracedsl.rewrite.language import LANGUAGE_PASSES
from tracedsl.rewrite.language.plan import Path, Plan, RecordedAnswer, check_names, make_path
from tracedsl.rewrite.language.templates import fill_templates
from tracedsl.rewrite.passes import Class, run_passes


def call(builder: Builder, number: int, source: Node, *, deterministic: bool = True) -> Node:
    recorded = RecordedCall(number, f"f/{number}:Predict", Prediction(answer=f"a{number}") if deterministic else None)
    return builder.add(LM_CALL, [source], {
        "call": Literal(recorded, "Predict"), "signature": "question -> answer", "state": "0", "fields": ("question",),
        "outputs": (("answer", "str"),), "deterministic": deterministic})


def field(builder: Builder, source: Node) -> Node:
    return builder.add(FIELD, [source], {"name": "answer"})


def example(deterministic: bool = True) -> Graph:
    b = Builder("f")
    q = b.param("q", STR)
    calls = [call(b, 0, q, deterministic=deterministic), call(b, 1, q, deterministic=deterministic),
             call(b, 2, b.constant("c", STR, "'c'"), deterministic=deterministic),
             call(b, 3, q, deterministic=deterministic)]
    last = b.add(TEMPLATE, [field(b, calls[0]), field(b, calls[1]), field(b, calls[2])],
                 {"parts": (("hole", "", ""), ("hole", "", ""), ("text", " "), ("hole", "", ""))})
    return b.build([last])


def answers(keys: str) -> list[RecordedAnswer]:
    return [RecordedAnswer(key, {f"r{i}": {"texts": [f"t{i}"], "finish_reason": "stop"}}) for i, key in enumerate(keys)]


def test_the_generic_passes_are_the_same_functions() -> None:
    runs = {step.name: step.run for step in LANGUAGE_PASSES}
    assert runs["share-common"] is share_common and runs["drop-dead"] is drop_dead
    assert all(step.kind is Class.EXACT for step in LANGUAGE_PASSES)


def test_advice_for_each_call() -> None:
    path = make_path(["e"], example(), answers("aaca"), LANGUAGE_PASSES)
    assert path.advice == (("run", None), ("share", 0), ("fold", None), ("share", 0))
    assert path.pinned == {"r2": {"texts": ["t2"], "finish_reason": "stop"}} and path.saved() == 3
    assert "'a2'" not in path.after and "' a2'" in path.after


def test_sampled_calls_are_only_dropped() -> None:
    path = make_path(["e"], example(deterministic=False), answers("abcd"), LANGUAGE_PASSES)
    assert [what for what, _ in path.advice] == ["run", "run", "run", "drop"] and not path.pinned


@pytest.mark.parametrize("name", [step.name for step in LANGUAGE_PASSES])
def test_each_pass_can_be_left_out(name: str) -> None:
    advice = [what for what, _ in make_path(["e"], example(), answers("aaca"), LANGUAGE_PASSES, [name]).advice]
    gone = {"fold-constants": "fold", "share-common": "share"}.get(name)
    assert gone not in advice


def test_unknown_pass() -> None:
    with pytest.raises(TracedslError, match="did you mean 'drop-dead'"):
        check_names(["drop-dad"], LANGUAGE_PASSES)


def test_looked_at_and_ordered_nodes_stay() -> None:
    b = Builder("f")
    q = b.param("q", STR)
    looked = call(b, 0, q)
    b.add(LOOK, [looked], {"kind": "truth", "outcome": True})
    b.add(PY_CALL, [call(b, 1, looked)], {"callee": "print", "result": "NoneType", "pure": False})
    graph = b.build([q])
    assert print_graph(run_passes(graph, LANGUAGE_PASSES).graph) == print_graph(graph)


def test_walker_gives_advice_only_on_recorded_paths() -> None:
    def path(events: tuple[str, ...], *advice: str) -> Path:
        return Path(events, tuple((a, None) for a in advice), {}, "", "", ())

    plan = Plan((path(("a", "b", "True"), "drop", "fold"), path(("a", "c"), "run", "run")))
    walker = plan.walk()
    walker.event("a")
    assert walker.advice(0) == ("run", None), "not dropped: the other path needs it"
    walker.event("b")
    assert walker.advice(1) == ("fold", None)
    walker.event("False")
    assert walker.advice(2) == ("run", None) and walker.pinned == {}
    assert Plan.from_json(plan.to_json()) == plan


def test_types_are_read_from_their_text() -> None:
    whole = prediction_type({"a": "list[str]", "b": "Literal['x', 'y']", "c": "dict[str, int]"})
    assert [str(field_type(whole, name)) for name in "abcd"] == [
        "list[str]", "Literal['x', 'y']", "dict[str, int]", "object"]


PARTS = st.lists(st.one_of(st.tuples(st.just("text"), st.text(max_size=4)), st.tuples(
    st.just("hole"), st.sampled_from(["", "s", "r"]), st.sampled_from(["", ">6"]))), max_size=6)


@given(PARTS, PARTS, st.lists(st.sampled_from(["param", "constant", "inner"]), min_size=6, max_size=6))
def test_filled_templates_make_the_same_text(outer: list[Any], inner: list[Any], kinds: list[str]) -> None:
    b = Builder("f")
    params = [b.param(f"p{i}", STR) for i in range(12)]
    holes = [p for p in inner if p[0] == "hole"]
    nested = b.add(TEMPLATE, params[6:6 + len(holes)], {"parts": tuple(inner)})
    sources = {"param": lambda i: params[i], "constant": lambda i: b.constant(f"c{i}", STR, f"'c{i}'"),
               "inner": lambda i: nested}
    count = sum(p[0] == "hole" for p in outer)
    graph = b.build([b.add(TEMPLATE, [sources[kinds[i]](i) for i in range(count)], {"parts": tuple(outer)})])
    filled = fill_templates(graph)
    verify(filled)
    values = {f"p{i}": f"v{i}" for i in range(12)}
    assert evaluate(filled, values) == evaluate(graph, values)
    assert fill_templates(filled).results[0].attrs == filled.results[0].attrs


def evaluate(graph: Graph, values: dict[str, str]) -> Any:
    known: dict[Node, Any] = {}
    for node in graph.nodes:
        if node.op is TEMPLATE:
            assert node.op.evaluate is not None
            known[node] = node.op.evaluate([known[source] for source in node.inputs], node.attrs)
        else:
            known[node] = values[node.attr("name")] if node in graph.params else node.attr("value").value
    return known[graph.results[0]]
