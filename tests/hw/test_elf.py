"""Linking without LLVM: the same addresses work, and no bytes whatever make it crash or read what is not there."""

from __future__ import annotations

import ctypes
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tracedsl.hw.cpu import elf, jit
from tracedsl.hw.cpu.machine import host

pytestmark = pytest.mark.skipif(not (sys.platform == "linux" and host().triple.startswith("x86_64")),
                                reason="another linker serves this machine")

TEXT = """
@table = internal constant [4 x i64] [i64 10, i64 20, i64 30, i64 40], align 32
@kept = global i64 5, align 8
@functions = internal global [2 x ptr] [ptr @third, ptr @twice], align 16
declare double @sinh(double)
declare i64 @ours(i64)
define internal i64 @third(i64 %i) {
  %at = getelementptr i64, ptr @table, i64 %i
  %v = load i64, ptr %at
  ret i64 %v
}
define i64 @twice(i64 %x) {
  %a = call i64 @ours(i64 %x)
  %b = call i64 @ours(i64 %a)
  ret i64 %b
}
define i64 @through(i64 %which, i64 %x) {
  %at = getelementptr ptr, ptr @functions, i64 %which
  %f = load ptr, ptr %at
  %y = call i64 %f(i64 %x)
  %old = load i64, ptr @kept
  %new = add i64 %old, 1
  store i64 %new, ptr @kept
  %z = add i64 %y, %old
  ret i64 %z
}
define double @of_libm(double %x) {
  %y = call double @sinh(double %x)
  ret double %y
}
"""
OURS = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(lambda x: 3 * x)
IMPORTS = {"ours": ctypes.cast(OURS, ctypes.c_void_p).value or 0}
WANTED = ("through", "of_libm", "kept")


def test_code_data_and_names_are_linked() -> None:
    image = elf.link(jit.compile_object(TEXT), WANTED, IMPORTS)
    through = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(image.symbols["through"])
    assert [through(0, 2), through(1, 2), through(0, 3)] == [35, 24, 47]
    assert ctypes.c_int64.from_address(image.symbols["kept"]).value == 8
    of_libm = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(image.symbols["of_libm"])
    assert of_libm(1.0) == pytest.approx(1.1752011936438014)


def test_code_is_never_writable_and_executable() -> None:
    image = elf.link(jit.compile_object(TEXT), WANTED, IMPORTS)
    rights = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin < image.base + image.size and image.base < end:
            rights.append(line.split()[1][:3])
    assert "r-x" in rights and "rwx" not in rights


def test_code_goes_with_its_image() -> None:
    image = elf.link(jit.compile_object(TEXT), WANTED, IMPORTS)
    where = f"{image.base:x}-"
    assert where in Path("/proc/self/maps").read_text() or any(
        int(line.split("-")[0], 16) <= image.base < int(line.split("-")[1].split()[0], 16)
        for line in Path("/proc/self/maps").read_text().splitlines())
    kept = elf.link(jit.compile_object(TEXT), WANTED, IMPORTS)
    kept.keep()
    address = kept.symbols["kept"]
    del image, kept
    assert ctypes.c_int64.from_address(address).value == 5


@pytest.mark.parametrize("wanted, imports", [(("missing",), IMPORTS), (WANTED, {}), (("third",), IMPORTS)])
def test_missing_names_are_left_to_llvm(wanted: tuple[str, ...], imports: dict[str, int]) -> None:
    with pytest.raises(elf.NotLinked):
        elf.link(jit.compile_object(TEXT), wanted, imports)


def test_damaged_bytes_never_crash(request: pytest.FixtureRequest) -> None:
    good, rng = jit.compile_object(TEXT), random.Random(0)
    outcomes = {"linked": 0, "refused": 0}
    for _ in range(20_000 if request.config.getoption("--long") else 1500):
        bad = bytearray(good)
        for _ in range(rng.choice((1, 2, 20))):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        if rng.random() < 0.2:
            del bad[rng.randrange(len(bad)):]
        try:
            elf.link(bytes(bad), WANTED, IMPORTS)
            outcomes["linked"] += 1
        except elf.NotLinked:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50, outcomes


WARM = """
    import sys
    import numpy as np
    from tracedsl import kernel
    @kernel
    def f(x, w):
        return np.maximum(np.tanh(x) @ w, 0)
    x = np.ones((300, 300))
    for _ in range(3):
        f(x, x)
    if f.from_cache:
        assert "llvmlite" not in sys.modules, "LLVM was loaded"
        assert not [m for m in sys.modules if m.startswith(("tracedsl.rewrite", "tracedsl.schedule"))]
    print("cached" if f.from_cache else "compiled", f._latest != 0)
"""


def test_a_warm_start_needs_no_llvm(tmp_path: Path) -> None:
    path = tmp_path / "warm.py"
    path.write_text(textwrap.dedent(WARM))
    for word in ("compiled", "cached"):
        done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=120)
        assert (done.stdout, done.stderr) == (f"{word} True\n", "")
