"""What this machine has, what is missing, and the line that installs it.

What holds here: looking changes nothing and loads nothing heavy; what cannot be found out is said to be unknown.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from tracedsl.cache import Store

# package -> (what it gives, the line that installs it; "" if it is a plain dependency)
_PACKAGES = {
    "numpy": ("arrays", ""),
    "llvmlite": ("machine code for the CPU", ""),
    "openai": ("OpenAI-compatible endpoints", ""),
    "numba": ("target='numba', a second opinion on kernels", "pip install 'tracedsl[numba]'"),
    "scikit-learn": ("models that guide searches: MIPROv2", "pip install 'tracedsl[tune]'"),
    "xllamacpp": ("language models in this process", "pip install 'tracedsl[local]'"),
}


@dataclass(frozen=True)
class Finding:
    """`state` is "ok", "missing" (optional) or "broken" (needed)."""

    name: str
    state: str
    detail: str
    todo: str = ""

    def __str__(self) -> str:
        mark = {"ok": "ok     ", "missing": "missing", "broken": "BROKEN "}[self.state]
        return f"{mark}  {self.name:<12} {self.detail}" + (f"\n         {'':<12} -> {self.todo}" if self.todo else "")


def examine() -> list[Finding]:
    """All findings, in the order in which a user would want them."""
    return list(_findings())


def _findings() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{sys.version.split()[0]} on {sys.platform}")
    for package, (gives, install) in _PACKAGES.items():
        try:
            yield Finding(package, "ok", f"{version(package)} ({gives})")
        except PackageNotFoundError:
            state = "missing" if install else "broken"
            yield Finding(package, state, gives, install or f"pip install {package}")
    yield _cpu()
    yield _cache()
    yield _model()


def _cpu() -> Finding:
    try:
        from tracedsl.hw.cpu.machine import host
    except ImportError as error:
        return Finding("cpu", "broken", str(error))
    machine = host()
    return Finding("cpu", "ok", f"{machine.cpu}, {machine.cores} cores usable, {machine.vector_bytes * 8}-bit vectors")


def _cache() -> Finding:
    store = Store()
    try:
        os.makedirs(store.root, mode=0o700, exist_ok=True)
    except OSError as error:
        return Finding("cache", "broken", str(error), "set TRACEDSL_CACHE to a folder of yours")
    if not store.usable():
        return Finding("cache", "broken", f"{store.root} cannot be used", f"chmod 700 {store.root}")
    return Finding("cache", "ok", str(store.root))


def _model() -> Finding:
    from tracedsl.programs.lm.models import DEFAULT, local_path

    path = local_path(DEFAULT)
    if path is None:
        return Finding("model", "missing", f"{DEFAULT} is fetched on first use", f"tracedsl model pull {DEFAULT}")
    return Finding("model", "ok", str(path))
