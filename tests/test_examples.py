"""Every example runs as its first lines say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NEEDS_MODEL = {"read_dates"}
ON_HOPS = {"answer_from_passages": "Mara Osei was born in Arkona", "two_hops": "100.0 %", "agent": "answer: Gorlan"}
APART = {*NEEDS_MODEL, *ON_HOPS, "quantised_digits"}


def run(path: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(path)], env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.stem not in APART], ids=lambda p: p.stem)
def test_example(path: Path) -> None:
    assert run(path)


def test_quantised_digits_are_read_as_well_as_in_float() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    printed = run(ROOT / "examples" / "quantised_digits.py")
    in_float, in_int8 = map(float, re.findall(r"([0-9.]+)% in", printed))
    assert in_float > 85 and in_int8 > in_float - 1
    assert "on the accelerator (gemm)" in printed and "on the accelerator (pool)" in printed


@pytest.mark.parametrize("name", ON_HOPS)
def test_examples_on_hops_find_the_answers(name: str) -> None:
    pytest.importorskip("bm25s", reason="the extra `retrieval` is not installed")
    assert ON_HOPS[name] in run(ROOT / "examples" / f"{name}.py")


@pytest.mark.local_model
def test_example_with_the_embedded_model(weights: Path) -> None:
    assert run(ROOT / "examples" / "read_dates.py").count("1961") >= 1
