"""The layout: one import package from an editable install, from a wheel and from the repository's root, whatever a
user's own files are called; and an import that costs next to nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("tracedsl", "hw", "autotune", "programs")
PROBE = """
import json
import tracedsl, tracedsl.hw, tracedsl.autotune, tracedsl.programs, tracedsl.hw.cpu, tracedsl.ir.graph
print(json.dumps({m.__name__: m.__file__ for m in (tracedsl, tracedsl.hw, tracedsl.autotune, tracedsl.programs)}))
"""


def probe(cwd: Path, *flags: str, path: str | None = None) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path is not None:
        env["PYTHONPATH"] = path
    done = subprocess.run([sys.executable, *flags, "-c", PROBE], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.fixture
def decoys(tmp_path: Path) -> Path:
    """A user's folder whose modules are called like our folders."""
    for name in ("hw", "programs", "autotune"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the user was imported')\n")
    return tmp_path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources (building leaves files beside them)."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("building a wheel needs setuptools")
    copy = tmp_path_factory.mktemp("sources")
    for name in PARTS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, "-w", str(out), str(copy)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_the_running_installation_ignores_a_users_modules(decoys: Path) -> None:
    where = probe(decoys, path=None if _installed() else str(ROOT))
    assert {Path(file).parent.name for file in where.values()} == set(PARTS)


def _installed() -> bool:
    done = subprocess.run([sys.executable, "-I", "-c", "import tracedsl"], capture_output=True)
    return done.returncode == 0


def test_the_wheel_ignores_a_users_modules(wheel: Path, decoys: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    import zipfile

    target = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(target)
    site = sysconfig.get_paths()["purelib"]
    where = probe(decoys, "-S", path=f"{target}{os.pathsep}{site}")
    assert where["tracedsl.hw"] == str(target / "tracedsl" / "hw" / "__init__.py")
    tops = {name.split("/")[0] for name in names}
    assert all(top == "tracedsl" or top.endswith(".dist-info") for top in tops), tops
    assert {"tracedsl/py.typed", "tracedsl/ir/README.md", "tracedsl/demo/dates.dev.jsonl"} <= set(names)


def test_the_root_as_working_directory_needs_no_installation() -> None:
    where = probe(ROOT, "-S", path=sysconfig.get_paths()["purelib"])
    assert where["tracedsl.programs"] == str(ROOT / "programs" / "__init__.py")


def test_pyproject_lists_every_package() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = set()
    for part in PARTS:
        for init in (ROOT / part).rglob("__init__.py"):
            dotted = ".".join(init.parent.relative_to(ROOT).parts)
            found.add(dotted if part == "tracedsl" else f"tracedsl.{dotted}")
    assert listed == found


WATCH = """
import sys
opened, reached = [], []
def watch(event, args):
    if event == "open" and isinstance(args[0], str):
        opened.append((args[0], args[1] or ""))
    elif event.startswith(("socket.", "subprocess.", "os.mkdir")):
        reached.append(event)
sys.addaudithook(watch)
before = set(sys.modules)
import tracedsl
loaded = set(sys.modules) - before
assert not reached, reached
assert all(path.endswith((".py", ".pyc")) for path, mode in opened), opened
heavy = {"numpy", "llvmlite", "openai", "torch", "pydantic", "rich", "xllamacpp", "click", "scipy", "numba"}
assert not heavy & {name.split(".")[0] for name in sys.modules}, heavy & set(sys.modules)
assert {name for name in loaded if name.startswith("tracedsl")} == {"tracedsl", "tracedsl._lazy"}, loaded
from tracedsl import program
import tracedsl.programs
light = heavy - {"click"}
assert not light & set(sys.modules), light & set(sys.modules)
assert not any(event.startswith("socket.") for event in reached), reached
"""


def test_import_is_light_and_touches_nothing(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TRACEDSL_CACHE": str(tmp_path / "c")}
    done = subprocess.run([sys.executable, "-c", WATCH], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "c").exists()


def test_the_decorators_stay_decorators_after_their_modules_are_imported() -> None:
    code = ("import tracedsl.kernel, tracedsl.program, tracedsl; from tracedsl import kernel, program\n"
            "assert callable(tracedsl.kernel) and tracedsl.kernel is kernel, tracedsl.kernel\n"
            "assert callable(tracedsl.program) and tracedsl.program is program\n"
            "assert set(tracedsl.__all__) <= set(dir(tracedsl))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["tracedsl", "tracedsl.programs"])
def test_lazy_names_are_those_that_type_checkers_see(package: str) -> None:
    import ast
    import importlib

    module = importlib.import_module(package)
    tree = ast.parse(Path(module.__file__ or "").read_text())
    seen = {alias.asname: (node.module, alias.name) for branch in tree.body if isinstance(branch, ast.If)
            for node in branch.body if isinstance(node, ast.ImportFrom) for alias in node.names if alias.asname}
    assert seen == dict(module._exports)
    for name in seen:
        assert getattr(module, name).__name__ == seen[name][1]
