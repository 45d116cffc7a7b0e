"""Graphs to tasks to loop nests, interpreted and compared with NumPy; what fuses, what stays apart, golden tasks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from tensor_graphs import Writer, chain, check, dense, graphs, layer_norm, softmax, sums, transposed

from tracedsl.diagnostics import Unsupported
from tracedsl.ir.compute import element, reduce_axis, symbolic_compute
from tracedsl.ir.graph import Graph
from tracedsl.rewrite.passes import run_passes
from tracedsl.rewrite.tensor import passes
from tracedsl.rewrite.tensor.lower import lower
from tracedsl.rewrite.tensor.memory import plan_memory


def user_compute() -> Graph:
    w = Writer("user_compute")
    a, b = w.param("a", (10, 6)), w.param("b", (6, 9))
    k = reduce_axis(6)
    product = symbolic_compute(w.builder, (10, 9), lambda i, j: np.sqrt(k.sum(element(a, (i, k)) * element(b, (k, j)))
                                                                         ** 2 + 1))
    return w.build(product)


SAMPLES: dict[str, Callable[[], Graph]] = {
    "elementwise_chain": chain, "row_softmax": softmax, "layer_norm": layer_norm, "sum_axis_0": lambda: sums((0,)),
    "full_sum": lambda: sums((0, 1)), "matmul_bias_relu": dense, "transpose": transposed, "user_compute": user_compute,
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_agree_with_numpy_and_golden_tasks(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"tasks/{name}.txt", str(check(SAMPLES[name]())))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(graph=graphs())
def test_random_graphs(graph: Graph) -> None:
    check(graph)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(graph=graphs())
def test_random_graphs_after_all_passes(graph: Graph) -> None:
    check(run_passes(graph, passes.TENSOR_PASSES).graph)


def test_softmax_and_layer_norm_are_one_task_over_rows() -> None:
    for graph in (softmax(), layer_norm()):
        (task,) = lower(graph).tasks
        assert task.shared == 1
        assert not lower(graph).temps


def test_kept_dimensions_of_one_become_registers() -> None:
    w = Writer()
    x = w.param("x", (40, 9))
    top = w.reshape(w.reduce(x, kind="maximum", axes=(1,)), shape=(40, 1))
    program = check(w.build(w.exp(w.sub(x, w.spread(top, (40, 9), (0, 1))))))
    assert program.tasks[0].stages[0].out.shape == () and len(program.tasks) == 1


def test_a_row_that_is_too_long_stays_a_temp() -> None:
    program = lower(softmax(40, 40_000))
    assert [t.shape for t in program.temps] == [(40, 40_000)]
    assert len(program.tasks) == 1


def test_independent_results_of_one_shape_share_a_task() -> None:
    w = Writer()
    x, y = w.param("x", (5, 9)), w.param("y", (5, 9))
    (task,) = check(w.build(w.add(x, y), w.sub(x, y))).tasks
    assert task.shared == 2 and len(task.stages) == 2


def test_what_is_dear_is_computed_once() -> None:
    w = Writer()
    x, v = w.param("x", (40, 8)), w.param("v", (8,))
    powers = w.spread(w.exp(v), (40, 8), (1,))
    program = check(w.build(w.mul(x, powers)))
    text = str(program)
    assert text.count("exp(") == 1 and "exp(v[i])" in text


def test_what_is_cheap_is_computed_where_it_is_used() -> None:
    w = Writer()
    x = w.param("x", (64, 8))
    twice = w.add(x, x)
    program = check(w.build(w.sum(twice, 0), w.mul(twice, twice)))
    assert not program.temps


def test_epilogue_and_prologue_of_a_product() -> None:
    program = check(dense())
    (task,) = program.tasks
    assert task.stages[0].finish is not None and len(task.stages) == 1
    w = Writer()
    x, y = w.param("x", (20, 6)), w.param("y", (6, 30))
    dear = check(w.build(w.contract(w.tanh(x), y, spec="ik,kj->ij")))
    assert [b.shape for b in dear.temps] == [(20, 6)]


@pytest.mark.parametrize("spec,left,right", [
    ("ik,jk->ij", (9, 7), (11, 7)), ("ki,kj->ij", (7, 9), (7, 11)), ("ik,k->i", (9, 21), (21,)),
    ("k,kj->j", (9,), (9, 13)),
    ("bik,bkj->bij", (3, 5, 4), (3, 4, 6)), ("i,j->ij", (4,), (5,)),
    ("ij,ij->", (4, 9), (4, 9)), ("k,k->", (50,), (50,)),
    ("ikl,klj->ij", (5, 3, 4), (3, 4, 9)), ("bik,kj->bij", (2, 5, 4), (4, 9)), ("ij,kl->ikjl", (2, 3), (4, 5)),
])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_contractions(spec: str, left: tuple[int, ...], right: tuple[int, ...], dtype: str) -> None:
    w = Writer()
    check(w.build(w.contract(w.param("x", left, dtype), w.param("y", right, dtype), spec=spec)))


@pytest.mark.parametrize("dtype", ["float16", "bool", "int8", "uint64", "complex64", "complex128"])
def test_contractions_and_sums_of_other_dtypes(dtype: str) -> None:
    w = Writer()
    check(w.build(w.contract(w.param("x", (5, 6), dtype), w.param("y", (6, 7), dtype), spec="ik,kj->ij")))
    w = Writer()
    check(w.build(w.sum(w.param("x", (5, 6), dtype), 1), ))


def test_strided_parameters() -> None:
    w = Writer()
    x, y = w.param("x", (6, 8)), w.param("y", (6, 8))
    check(w.build(w.add(x, y)), strides={"x": (1, 6), "y": (20, 2)})
    w = Writer()
    x = w.param("x", (6, 8))
    program = check(w.build(w.reshape(w.neg(x), shape=(4, 12))), strides={"x": (1, 6)})
    assert program.params[0].strides == (1, 6)
    w = Writer()
    check(w.build(w.reshape(w.param("x", (6, 8)), shape=(4, 12))), strides={"x": (1, 6)})


def test_reshapes() -> None:
    for shape in ((48,), (4, 12), (2, 24), (3, 2, 8), (12, 4), (1, 6, 8, 1), (8, 6)):
        w = Writer()
        x = w.param("x", (6, 8))
        y = w.param("y", shape)
        check(w.build(w.add(w.reshape(w.mul(x, x), shape=shape), y)))
        check(w.build(w.sum(w.reshape(w.mul(x, x), shape=shape), 0)))


def test_concatenation_writes_parts_of_one_buffer() -> None:
    w = Writer()
    x, y = w.param("x", (3, 4)), w.param("y", (3, 2))
    program = check(w.build(w.concat(w.exp(x), w.neg(y), w.spread(w.sum(x, 1), (3, 5), (0,)), axis=1)))
    assert not any(b.shape == (3, 4) for b in program.temps)
    w = Writer()
    x = w.param("x", (64, 4))
    program = check(w.build(w.sum(w.concat(w.sum(x, 1), w.reduce(x, kind="maximum", axes=(1,)), axis=0), 0)))
    assert [b.shape for b in program.temps] == [(128,)]


def test_a_local_may_be_seen_by_several_shapes() -> None:
    w = Writer()
    a = w.param("a", (2, 2, 2))
    check(w.build(w.concat(*[w.concat(a, a, axis=1)] * 2, axis=2)))


def test_constants_become_parameters_and_params_are_copied_to_results() -> None:
    w = Writer()
    x = w.param("x", (3, 4))
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    program = check(w.build(w.add(x, w.array(table)), x, w.constant(3.0)))
    assert [p.name for p in program.params] == ["x", "c0"] and program.constants[0] is table
    assert [r.name for r in program.results] == ["out0", "out1", "out2"]


def test_empty_and_tiny_shapes() -> None:
    for shape in ((0, 4), (4, 0), (1, 1), (1,), ()):
        w = Writer()
        x = w.param("x", shape)
        check(w.build(w.neg(x)))
        if shape:
            w = Writer()
            check(w.build(w.sum(w.param("x", shape), len(shape) - 1)))
    w = Writer()
    with pytest.raises(Unsupported, match="no elements"):
        lower(w.build(w.reduce(w.param("x", (4, 0)), kind="maximum", axes=(1,))))


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div"])
def test_complex_arithmetic(op: str) -> None:
    w = Writer()
    x, y = w.param("x", (3, 4), "complex64"), w.param("y", (3, 4), "complex64")
    check(w.build(getattr(w, op)(x, y)))
    check(w.build(w.abs(getattr(w, op)(x, w.conj(y))), w.real(x), w.imag(y)))


def test_complex_division_is_numpys_in_all_cases() -> None:
    values = [0.0, -0.0, 1.0, -3.5, 1e30, 1e-30, np.inf, np.nan]
    every = np.array([complex(a, b) for a in values for b in values], np.complex64)
    w = Writer()
    n = len(every) ** 2
    graph = w.build(w.div(w.param("x", (n,), "complex64"), w.param("y", (n,), "complex64")))
    from nest_interpreter import run_program

    from tracedsl.schedule import Schedule, lower_task

    program = lower(graph)
    left, right = np.repeat(every, len(every)), np.tile(every, len(every))
    nests = [lower_task(task, Schedule.of(task)) for task in program.tasks]
    (got,) = run_program(program, nests, [left, right])
    with np.errstate(all="ignore"):
        want = left / right
    np.testing.assert_allclose(got[:, 0], want.real, rtol=1e-6)
    np.testing.assert_allclose(got[:, 1], want.imag, rtol=1e-6)


def test_complex_functions_are_refused_by_name() -> None:
    w = Writer()
    with pytest.raises(Unsupported, match="exp of complex numbers") as caught:
        lower(w.build(w.exp(w.param("x", (3,), "complex64"))))
    assert caught.value.code == "S012"


def test_a_long_chain_does_not_exhaust_the_stack() -> None:
    w = Writer()
    x = node = w.param("x", (3,))
    for _ in range(3000):
        node = w.add(w.minimum(node, x), x)
    assert len(lower(w.build(node)).tasks) == 1


def test_memory_is_shared_by_temps_that_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    w = Writer()
    x = w.param("x", (20, 20))
    node = x
    for _ in range(4):
        node = w.contract(node, x, spec="ik,kj->ij")
    program = check(w.build(node), tolerance=1e-3)
    plan = plan_memory(program)
    assert len(program.temps) == 3 and plan.workspace == 2 * 1600
    assert all(offset % 64 == 0 for offset in plan.offsets)
    lives = {b.name: [n for n, t in enumerate(program.tasks) if b.name in {x.name for x in t.buffers()}]
             for b in program.temps}
    for n, one in enumerate(program.temps):
        for m, other in enumerate(program.temps[:n]):
            if set(range(min(lives[one.name]), max(lives[one.name]) + 1)) & set(lives[other.name]):
                assert abs(plan.offsets[n] - plan.offsets[m]) >= 1600


def test_hints_reach_the_stage_that_computes_the_value() -> None:
    w = Writer()
    x, y = w.param("x", (8, 9)), w.param("y", (9, 10))
    product = w.hint(w.contract(x, y, spec="ik,kj->ij"), steps=(("tile", (4, 8)),))
    program = check(w.build(w.neg(product)))
    (task,) = program.tasks
    assert task.hints == {"out": (("tile", (4, 8)),)}


def test_sums_do_not_depend_on_cores_and_are_as_accurate_as_numpys() -> None:
    from nest_interpreter import run_program
    from tensor_graphs import WideMachine

    from tracedsl.schedule import default_schedule, lower_task

    rng = np.random.default_rng(1)
    data = (rng.random(12_345) + 1).astype(np.float32)
    graph = run_passes(sums((0,), (12_345,)), passes.TENSOR_PASSES).graph
    program = lower(graph)
    results = set()
    for cores in (1, 2, 64):
        machine = WideMachine(cores=cores)
        nests = [lower_task(task, default_schedule(task, machine)) for task in program.tasks]
        results.add(float(run_program(program, nests, [data])[0]))
    assert len(results) == 1
    exact = data.astype(np.float64).sum()
    assert abs(results.pop() - exact) <= max(abs(float(data.sum()) - exact), 2 * np.spacing(np.float32(exact)))
