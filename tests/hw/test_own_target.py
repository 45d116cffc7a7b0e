"""A target of one's own: the examples of docs/targets.md, as they stand there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from tracedsl import kernel
from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cross.target import Cross
from tracedsl.hw.target import missing, names, target

ROOT = Path(__file__).parents[2]


def test_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its code runs; the machine that it adds computes what NumPy does, without instructions that it lacks."""
    if lacking := missing("aarch64") + missing("wasm32"):
        pytest.skip("; ".join(f"{tool} is not here ({line})" for tool, line in lacking))
    page = (ROOT / "docs" / "targets.md").read_text()
    file = tmp_path / "page.py"
    file.write_text("\n".join(re.findall(r"```python\n(.*?)```", page, re.S)))
    space = runpy.run_path(str(file))
    assert "sdot" in capsys.readouterr().out
    rng = np.random.default_rng(0)
    args = [rng.standard_normal(s).astype(np.float32) for s in ((5, 9), (9, 7), (7,))]
    for name in ("here", "phone", "browser", "small"):
        np.testing.assert_allclose(space[name](*args), space["dense"](*args), rtol=1e-5, atol=1e-6)
        assert space[name].compiled
    a = np.ones((16, 64), np.int8)
    text = kernel(target=space["CORTEX_A53"])(space["bytes_product"]).show("asm", a, a.T)
    assert "dot\t" not in text


def test_every_target_says_what_it_is() -> None:
    for name in names():
        made = target(name)
        assert made.name == name and made.about and "\n" not in made.about
        assert all(tool and line for tool, line in made.missing())
    page = (ROOT / "docs" / "targets.md").read_text()
    assert set(re.findall(r"^\| `([\w-]+)`", page, re.M)) == set(names())


def test_a_machine_that_is_not_there() -> None:
    with pytest.raises(TracedslError, match="no machine 'aarch65'"):
        _ = Cross("aarch65").row
    with pytest.raises(TracedslError, match="no target 'wasm31'"):
        target("wasm31")
