"""A workload as each library runs it: something to call with arrays of its own, ready to be timed.

What holds here: runs in a contender's own process, which uses `threads` threads, as the environment says
(`session.environment`) and as the library wants to be told in addition.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.kernels.workload import OURS, Arrays, Form, Workload, forms

_MODULES = {"numpy": "numpy", "numexpr": "numexpr", "numba": "numba", "jax": "jax", "torch": "torch",
            "torch.compile": "torch", "tvm": "tvm", OURS: "tracedsl"}


@dataclass(frozen=True)
class Ready:
    """`finish(call(*args))` is the result as NumPy arrays."""

    call: Callable[..., Any]
    args: Arrays
    finish: Callable[[Any], Any]
    name: str = ""
    note: Callable[[], str] = str


def takes_part(peer: str, workload: Workload) -> bool:
    return peer in (OURS, "numpy") or peer.removesuffix(".compile") in workload.peers


def load(peer: str, threads: int) -> tuple[Any, str]:
    """The library, told how many threads to use, and its version. Raises ImportError."""
    module = import_module(_MODULES[peer])
    if peer == "jax":
        module.config.update("jax_enable_x64", True)
        import_module("jax.scipy.special")
    elif peer == "numexpr":
        module.set_num_threads(threads)
    elif peer.startswith("torch"):
        module.set_num_threads(threads)
        module.set_grad_enabled(False)
        module.log(module.rand(1 << 20, dtype=module.float64))    # compiled functions of doubles run 3x faster after it
    elif peer == "numba":
        module.set_num_threads(threads)
    elif peer == OURS:
        import_module("tracedsl.hw.cpu.pool").set_num_threads(threads)
    if peer in ("numpy", "numba", OURS):
        import_module("scipy.linalg")
        import_module("threadpoolctl").threadpool_limits(threads)
    return module, str(getattr(module, "__version__", ""))


def ready(peer: str, module: Any, workload: Workload, inputs: Arrays) -> list[Ready]:
    """Every form of the workload that this library has."""
    if peer == OURS:
        return [_ours(workload, inputs)]
    if peer == "numpy":
        own = [Form(workload.function)] if "numpy" not in workload.peers else []
        return [_plain(f, inputs) for f in own + (forms(workload.peers["numpy"](np)) if not own else [])]
    made = forms(workload.peers[peer.removesuffix(".compile")](module))
    if peer == "jax":
        return [_jax(module, form, inputs) for form in made]
    if peer.startswith("torch"):
        return [_torch(module, form, inputs, peer == "torch.compile") for form in made]
    return [_plain(form, inputs) for form in made]


def _plain(form: Form, inputs: Arrays) -> Ready:
    args = form.prepare(*inputs) if form.prepare else inputs
    return Ready(form.run, args, form.finish or _same, form.name)


def _same(value: Any) -> Any:
    return value


def _ours(workload: Workload, inputs: Arrays) -> Ready:
    from tracedsl import kernel

    function = kernel(tune=int(os.environ.get("BENCHMARK_TUNE", "0")),
                      target=os.environ.get("BENCHMARK_TARGET", "cpu"))(workload.function)

    def note() -> str:
        if function.compiled:
            return ""
        return "plain NumPy: " + str(function.explain()).split("runs in plain NumPy: ")[-1].strip().split("\n")[0]
    return Ready(function, inputs, _same, note=note)


def _each(value: Any, one: Callable[[Any], Any]) -> Any:
    return tuple(map(one, value)) if isinstance(value, tuple | list) else one(value)


def _jax(jax: Any, form: Form, inputs: Arrays) -> Ready:
    args = tuple(jax.device_put(a) for a in (form.prepare(*inputs) if form.prepare else inputs))
    run, wait = jax.jit(form.run), jax.block_until_ready
    return Ready(lambda *given: wait(run(*given)), args, form.finish or (lambda v: _each(v, np.asarray)), form.name)


def _torch(torch: Any, form: Form, inputs: Arrays, compiled: bool) -> Ready:
    args = form.prepare(*inputs) if form.prepare else tuple(map(torch.from_numpy, inputs))
    run = torch.compile(form.run, dynamic=False, fullgraph=True) if compiled else form.run
    return Ready(run, args, form.finish or (lambda v: _each(v, lambda t: t.numpy())), form.name)
