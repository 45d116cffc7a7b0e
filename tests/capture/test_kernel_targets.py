"""The random NumPy programs of the capture tests, compiled for both targets: they agree, and agree with NumPy.

The source for Numba runs as plain Python here: compiling so many functions would take minutes.
"""

from __future__ import annotations

import random
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracedsl import kernel
from tracedsl.diagnostics import Unsupported
from tracedsl.hw.numba.target import Numba
from tracedsl.hw.target import target

sys.path.insert(0, str(Path(__file__).parent))

from test_kernel_fuzz import _STEPPED, compare, function_of, inputs, program


def arrays(value: Any) -> list[Any]:
    return [a for v in value for a in arrays(v)] if isinstance(value, list | tuple) else [np.asarray(value)]


def check(seed: int) -> bool:
    """Whether the program was compiled at all."""
    rng = random.Random(seed)
    text, steps = program(rng)
    function, (x, y, s) = function_of(text, f"<targets {seed}>"), inputs(rng, seed)
    results = []
    for name in ("cpu", "numba"):
        try:
            results.append(kernel(target=name, strict=True)(function)(x.copy(order="K"), y.copy(), s))
        except Unsupported:
            return False
        except Exception as error:  # noqa: BLE001 - what NumPy raises for a random program
            with pytest.raises(type(error)):
                function(x.copy(order="K"), y.copy(), s)
            return False
    stepped = any(word in steps for word in _STEPPED)
    compare(results[1], function(x.copy(order="K"), y.copy(), s), not stepped)
    for native, python in zip(*map(arrays, results), strict=True):
        assert native.dtype == python.dtype and native.shape == python.shape
        if native.dtype.kind in "iub" and not stepped:
            assert np.array_equal(native, python), f"seed {seed}\n{text}"
    return True


@pytest.mark.timeout(3600)     # `--long` takes about ten minutes
def test_both_targets_agree(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {"cpu": target("cpu"), "numba": Numba(jit=False)}
    monkeypatch.setattr(import_module("tracedsl.kernel"), "target", plain.__getitem__)
    seeds = range(2000 if request.config.getoption("--long") else 80)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        compiled = sum(map(check, seeds))
    assert compiled > len(seeds) // 3
