"""Object code: made from text, loaded in this process and in a fresh one that never compiles, refused when wrong."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cpu import jit
from tracedsl.hw.cpu.machine import host

ADD = "define i32 @add(i32 %a, i32 %b) {\n  %c = add i32 %a, %b\n  ret i32 %c\n}\n"
CALLS = "declare i32 @ours(i32)\ndefine i32 @f(i32 %x) {\n  %y = call i32 @ours(i32 %x)\n  ret i32 %y\n}\n"
SUM = """
define i64 @sum(ptr %p, i64 %n) {
entry:
  %slot = alloca i64
  store i64 0, ptr %slot
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %at = getelementptr i64, ptr %p, i64 %i
  %v = load i64, ptr %at
  %old = load i64, ptr %slot
  %new = add i64 %old, %v
  store i64 %new, ptr %slot
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  %r = load i64, ptr %slot
  ret i64 %r
}
"""


def function(loaded: jit.Loaded, name: str, *args: type) -> object:
    return ctypes.CFUNCTYPE(ctypes.c_int, *args)(loaded[name])


def test_compile_and_call() -> None:
    loaded = jit.load(jit.compile_object(ADD), ["add"])
    assert function(loaded, "add", ctypes.c_int, ctypes.c_int)(40, 2) == 42  # type: ignore[operator]
    with pytest.raises(KeyError):
        loaded["other"]


def test_same_text_same_bytes() -> None:
    assert jit.compile_object(SUM) == jit.compile_object(SUM)


def test_passes_are_off_unless_asked_for() -> None:
    assert "alloca" in jit.optimized(SUM, passes=0)
    assert "alloca" not in jit.optimized(SUM, passes=1)
    assert f"<{host().vector_bytes // 8} x i64>" in jit.optimized(SUM, passes=3)
    values = (ctypes.c_int64 * 100)(*range(100))
    for level in range(4):
        loaded = jit.load(jit.compile_object(SUM, passes=level), ["sum"])
        call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(loaded["sum"])
        assert call(ctypes.addressof(values), 100) == 4950


def test_assembly_is_text() -> None:
    assert "add:" in jit.assembly(ADD)


def test_code_for_another_machine() -> None:
    import dataclasses

    small = dataclasses.replace(host(), cpu="generic", features="")
    wide = "define <16 x float> @f(<16 x float> %x) {\n  %y = fadd <16 x float> %x, %x\n  ret <16 x float> %y\n}\n"
    assert jit.assembly(wide, small) != jit.assembly(wide)


FRESH = """
    import ctypes, sys
    import llvmlite.binding as llvm
    def refuse(*args, **kwargs):
        raise AssertionError("the compiler was used")
    llvm.parse_assembly = llvm.Target.from_triple = llvm.parse_bitcode = refuse
    from tracedsl.hw.cpu import jit
    loaded = jit.load(open(sys.argv[1], "rb").read(), ["sinh_of"])
    f = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(loaded["sinh_of"])
    print(round(f(1.0), 6))
"""


def test_load_in_a_fresh_process_without_the_compiler(tmp_path: Path) -> None:
    text = """
        declare double @sinh(double)
        define double @sinh_of(double %x) {
          %y = call double @sinh(double %x)
          ret double %y
        }"""
    (tmp_path / "code.o").write_bytes(jit.compile_object(text))
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(FRESH), str(tmp_path / "code.o")],
                          capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1.175201\n", "")


def test_imports_are_linked() -> None:
    image = jit.compile_object(CALLS)
    ours = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: x * 3)
    loaded = jit.load(image, ["f"], {"ours": ctypes.cast(ours, ctypes.c_void_p).value or 0})
    assert function(loaded, "f", ctypes.c_int)(14) == 42  # type: ignore[operator]
    with pytest.raises(TracedslError, match="H002"):
        jit.load(image, ["f"])


def test_broken_text_shows_its_line() -> None:
    with pytest.raises(TracedslError) as caught:
        jit.compile_object(ADD.replace("%a, %b\n", "%a, %nothing\n"))
    assert caught.value.code == "H001"
    assert "IR line 2: %c = add i32 %a, %nothing" in str(caught.value)


def test_invalid_text_shows_its_line() -> None:
    text = "define i32 @f() {\n  %x = add i32 %y, 1\n  br label %b\nb:\n  %y = add i32 %x, 1\n  ret i32 %y\n}\n"
    with pytest.raises(TracedslError) as caught:
        jit.compile_object(text)
    assert "does not dominate" in str(caught.value) and "IR line 5: %y = add i32 %x, 1" in str(caught.value)


@pytest.mark.parametrize("damage", [b"", b"not code", b"\x7fELF" + bytes(100)])
def test_bytes_that_are_no_code(damage: bytes) -> None:
    with pytest.raises(TracedslError, match="H002"):
        jit.load(damage, ["add"])


def test_missing_symbol() -> None:
    with pytest.raises(TracedslError, match="subtract"):
        jit.load(jit.compile_object(ADD), ["subtract"])


def test_a_failed_load_harms_no_other() -> None:
    image = jit.compile_object(ADD)
    kept = jit.load(image, ["add"])
    for _ in range(3):
        with pytest.raises(TracedslError):
            jit.load(b"damaged", ["add"])
    gc.collect()
    assert function(kept, "add", ctypes.c_int, ctypes.c_int)(1, 1) == 2  # type: ignore[operator]


def test_many_threads_compile_and_load() -> None:
    failures: list[object] = []

    def work(number: int) -> None:
        for step in range(5):
            text = ADD.replace("%a, %b\n", f"%a, {number * 10 + step}\n")
            loaded = jit.load(jit.compile_object(text), ["add"])
            got = function(loaded, "add", ctypes.c_int, ctypes.c_int)(1, 0)  # type: ignore[operator]
            if got != number * 10 + step + 1:
                failures.append((number, step, got))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
