"""What this CPU is, as data: its vectors, its caches, its cores, and a fingerprint for cache keys.

What holds here: `Machine` is frozen and plain; `host()` asks the system once. Every question has a safe answer where
the system gives none (containers hide /sys, other systems have none).
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tracedsl.cache import Key, Store, digest

_SYS_CACHE = Path("/sys/devices/system/cpu/cpu0/cache")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_CPUINFO = "/proc/cpuinfo"
_VARYING = ("processor", "cpu MHz", "bogomips", "BogoMIPS", "core id", "apicid", "initial apicid", "physical id")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Machine:
    """A CPU as the code generator sees it. Sizes in bytes; caches: L1 data and L2 of one core, L3 as shared.

    `cores` is how many this process may use; `features` and `cpu` are LLVM's words; `llvm` is LLVM's version.
    """

    cpu: str
    features: str
    triple: str
    llvm: str
    vector_bytes: int
    vector_registers: int
    cores: int
    l1: int
    l2: int
    l3: int

    def lanes(self, elem_bytes: int) -> int:
        """Elements of one vector register."""
        return max(1, self.vector_bytes // elem_bytes)

    def has(self, feature: str) -> bool:
        """Whether LLVM's feature ("avx512bf16", "fma") is there."""
        return f"+{feature}" in self.features.split(",")

    def feature_names(self) -> frozenset[str]:
        """LLVM's names of the features that are there."""
        return frozenset(word[1:] for word in self.features.split(",") if word.startswith("+"))

    def fingerprint(self) -> str:
        """What decides whether object code made for one machine runs on another: 16 hex digits."""
        return digest(self.triple, self.cpu, self.features, self.llvm)[:16]

    def function_attributes(self) -> str:
        """Attributes of functions that use whole vector registers: without them LLVM halves 512-bit vectors on CPUs
        that it believes to clock down, and takes SVE's registers for 128 bits."""
        if self.has("sve"):
            return f"nounwind vscale_range({self.vector_bytes // 16},{self.vector_bytes // 16})"
        return f'nounwind "min-legal-vector-width"="{self.vector_bytes * 8}"'

    @property
    def lacks(self) -> frozenset[str]:
        """What code has to do by other means (`soft`): "fma", "half" (conversions of float16)."""
        if self.triple.startswith(("x86_64", "amd64", "i686")):
            has = {"fma": self.has("fma"), "half": self.has("f16c")}
        else:
            arm, wasm = self.triple.startswith(("aarch64", "arm64")), self.triple.startswith("wasm")
            has = {"fma": not wasm, "half": arm or self.has("zfhmin")}
        return frozenset(name for name, there in has.items() if not there)


@cache
def host() -> Machine:
    """The machine that this process runs on."""
    cpu, features, triple, version = _words(Store())
    width, registers = _vectors(triple, features)
    return Machine(cpu, features, triple, version, width, registers, usable_cores(), *cache_sizes(_SYS_CACHE))


def _words(store: Store) -> tuple[str, str, str, str]:
    """CPU, features, triple and version in LLVM's words; kept, since asking LLVM means loading it."""
    identity = _identity()
    key = Key("memo", "machine", {"identity": identity or ""})
    if identity and (known := store.get(key)) is not None:
        cpu, features, triple, version = known.meta["words"]
        return cpu, features, triple, version
    import llvmlite
    import llvmlite.binding as llvm

    version = f"llvmlite {llvmlite.__version__} LLVM {'.'.join(map(str, llvm.llvm_version_info))}"
    words = (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), llvm.get_process_triple(), version)
    if identity:
        store.put(key, meta={"words": words}, durable=False)
    return words


def _identity() -> str | None:
    """What tells this CPU, this kernel and this LLVM from others without loading LLVM; None where that is not known."""
    found = find_spec("llvmlite")
    if found is None or found.origin is None:
        return None
    try:
        with open(_CPUINFO) as file:
            first = file.read(1 << 14).partition("\n\n")[0]
        library = [(path.name, path.stat().st_size, path.stat().st_mtime_ns)
                   for path in sorted((Path(found.origin).parent / "binding").glob("*llvmlite*"))]
    except OSError:
        return None
    lines = [line for line in first.splitlines() if not line.startswith(_VARYING)]
    return digest(*lines, *os.uname()[2:], str(library)) if lines and library else None


def usable_cores(quota: Path = _QUOTA) -> int:
    """Cores that this process may run on: by its affinity, and by the share of time that its container grants."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        allowed, period = quota.read_text().split()
        if allowed != "max":
            cores = min(cores, math.ceil(int(allowed) / int(period)))
    return max(1, cores)


def cache_sizes(folder: Path) -> tuple[int, int, int]:
    """L1 data, L2 and L3 in bytes, as Linux tells them below `folder`; careful guesses for what it does not tell."""
    sizes = {1: 32 << 10, 2: 512 << 10, 3: 4 << 20}
    for index in sorted(folder.glob("index*")):
        try:
            level = int((index / "level").read_text())
            kind = (index / "type").read_text().strip()
            text = (index / "size").read_text().strip()
            size = int(text[:-1]) * _UNITS[text[-1]] if text[-1] in _UNITS else int(text)
        except (OSError, ValueError, IndexError):
            continue
        if level in sizes and kind in ("Data", "Unified") and size > 0:
            sizes[level] = size
    return sizes[1], sizes[2], sizes[3]


def _vectors(triple: str, features: str) -> tuple[int, int]:
    """Bytes of a vector register, and how many there are."""
    import platform

    on = set(features.split(","))
    if triple.startswith(("x86_64", "amd64", "i686")) or platform.machine() in ("x86_64", "AMD64"):
        if "+avx512f" in on and "+avx512vl" in on:
            return 64, 32
        return (32, 16) if "+avx2" in on else (16, 16)
    return 16, 32
