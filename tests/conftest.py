"""What every test gets: a cache folder of its own, verified passes, golden files, no network beyond this machine.

`pytest --update-golden` rewrites the golden files instead of comparing with them.
"""

from __future__ import annotations

import difflib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tracedsl.cache import Store, default_root

HERE = Path(__file__).parent
USERS_CACHE = default_root()  # before any test moves it: the weights of the embedded model lie there


def pytest_configure(config: pytest.Config) -> None:
    """Property tests walk the same examples every time, unless `--long` sends them out for new ones."""
    settings.register_profile("steady", derandomize=True, deadline=None)
    settings.register_profile("hunting", deadline=None)
    settings.load_profile("hunting" if config.getoption("--long") else "steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files")
    parser.addoption("--long", action="store_true", help="run the long form of property tests")


@pytest.fixture(autouse=True)
def _own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEDSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRACEDSL_VERIFY", "1")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "TRACEDSL_LM", "TRACEDSL_PRINT", "TRACEDSL_DISABLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests are offline: a connection to anything but this machine fails at once (the model tests may download)."""
    if request.node.get_closest_marker("local_model"):
        yield
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family in (socket.AF_INET, socket.AF_INET6) and host not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden("loops/softmax.txt", text)`: the text must equal tests/golden/loops/softmax.txt."""

    def check(name: str, text: str) -> None:
        path = HERE / "golden" / name
        text = text.rstrip("\n") + "\n"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        assert path.exists(), f"no golden file {path}: run pytest --update-golden and read it"
        expected = path.read_text()
        diff = "\n".join(difflib.unified_diff(expected.splitlines(), text.splitlines(), "golden", "now", lineterm=""))
        assert text == expected, f"{name} changed (pytest --update-golden rewrites it):\n{diff}"

    return check


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The real SmolLM2, fetched once into the user's cache; the test's own cache sees it too."""
    pytest.importorskip("xllamacpp", reason="the extra `local` is not installed")
    from tracedsl.programs.lm import models
    from tracedsl.programs.lm.base import LMError

    try:
        found = models.pull("smollm2-135m", store=Store(USERS_CACHE))
    except LMError as error:
        pytest.skip(f"the weights cannot be had: {error}")
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache" / "models").symlink_to(found.parent)
    return found
