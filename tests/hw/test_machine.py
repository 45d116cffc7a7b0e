"""What the CPU is: safe answers where the system gives none, and a fingerprint that tells machines apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tracedsl.cache import Store
from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cpu.machine import cache_sizes, host, usable_cores
from tracedsl.hw.target import names, target


def test_host_is_plausible() -> None:
    machine = host()
    assert machine is host()
    assert machine.vector_bytes in (16, 32, 64) and machine.vector_registers in (16, 32)
    assert machine.cores == usable_cores() >= 1
    assert 8 << 10 <= machine.l1 <= machine.l2
    assert machine.lanes(4) * 4 == machine.vector_bytes and machine.lanes(1000) == 1


def test_features_are_whole_words() -> None:
    machine = dataclasses.replace(host(), features="+avx512fp16,-avx512f,+fma")
    assert machine.has("fma") and machine.has("avx512fp16")
    assert not machine.has("avx512f") and not machine.has("avx")


@pytest.mark.parametrize("change", [{"cpu": "other"}, {"features": "+none"}, {"triple": "riscv64"}, {"llvm": "0"}])
def test_fingerprint_depends_on_what_code_depends_on(change: dict[str, str]) -> None:
    assert dataclasses.replace(host(), **change).fingerprint() != host().fingerprint()


def write_cache(folder: Path, number: int, **files: str) -> None:
    place = folder / f"index{number}"
    place.mkdir()
    for name, text in files.items():
        (place / name).write_text(text + "\n")


def test_cache_sizes_are_read(tmp_path: Path) -> None:
    write_cache(tmp_path, 0, level="1", type="Data", size="48K")
    write_cache(tmp_path, 1, level="1", type="Instruction", size="64K")
    write_cache(tmp_path, 2, level="2", type="Unified", size="1024K")
    write_cache(tmp_path, 3, level="3", type="Unified", size="32M")
    assert cache_sizes(tmp_path) == (48 << 10, 1 << 20, 32 << 20)


def test_unreadable_caches_give_guesses(tmp_path: Path) -> None:
    guesses = cache_sizes(tmp_path / "nothing")
    write_cache(tmp_path, 0, level="one", type="Data", size="48K")
    write_cache(tmp_path, 1, level="2", type="Unified", size="")
    write_cache(tmp_path, 2, level="3", type="Unified")
    write_cache(tmp_path, 3, level="1", type="Data", size="0K")
    assert cache_sizes(tmp_path) == guesses
    assert 0 < guesses[0] < guesses[1] < guesses[2]


def test_targets_by_name() -> None:
    cpu = target("cpu")
    assert cpu is target("cpu") and "cpu" in names()
    description = cpu.description
    assert description.name == "cpu" and description.caches == (host().l1, host().l2, host().l3)
    assert description.vector_bytes == host().vector_bytes and description.vector_registers == host().vector_registers
    assert all(not feature.startswith(("+", "-")) for feature in description.features)
    with pytest.raises(TracedslError, match="did you mean 'cpu'"):
        target("cpuu")


@pytest.mark.parametrize("text, cores", [("max 100000\n", None), ("150000 100000", 2), ("1000 100000", 1), ("", None)])
def test_a_containers_share_of_time_counts(text: str, cores: int | None, tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    everything = usable_cores(tmp_path / "missing")
    assert usable_cores(quota) == (everything if cores is None else min(cores, everything))


def test_what_llvm_says_is_remembered(tmp_path: Path) -> None:
    from tracedsl.hw.cpu import machine

    if machine._identity() is None:
        pytest.skip("this machine has no identity")
    store = Store(tmp_path / "s")
    words = machine._words(store)
    assert words == machine._words(store) and len(list(store.entries("memo"))) == 1
    assert "LLVM" in words[3]
