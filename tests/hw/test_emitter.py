"""LLVM IR as text: one golden module with every kind of instruction (which LLVM accepts), and the errors."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracedsl.hw.cpu import jit
from tracedsl.hw.cpu.emitter import (
    FunctionEmitter,
    ModuleEmitter,
    Param,
    Value,
    constant,
    constant_bits,
    constant_vector,
    element,
    lanes,
    vec,
)
from tracedsl.hw.cpu.irtypes import mangle


def test_types_as_text() -> None:
    assert vec("float", 16) == "<16 x float>" and vec("float", 1) == "float"
    assert lanes("<7 x i8>") == 7 and lanes("ptr") == 1
    assert element("<7 x i8>") == "i8" and element("i64") == "i64"
    assert [mangle(t) for t in ("<16 x float>", "double", "i1", "<4 x ptr>")] == ["v16f32", "f64", "i1", "v4p0"]
    with pytest.raises(ValueError, match="no vector"):
        vec("float", 0)


def arithmetic(module: ModuleEmitter) -> None:
    f = module.function("arithmetic", "<4 x float>", [Param("x", "<4 x float>"), Param("n", "<4 x i32>")])
    x, n = f.params
    for op in (f.fadd, f.fsub, f.fmul, f.fdiv, f.frem):
        x = op(x, f.params[0])
    x = f.fadd(x, f.fneg(x), flags="contract")
    for op in (f.add, f.sub, f.mul, f.sdiv, f.udiv, f.srem, f.urem, f.and_, f.or_, f.xor, f.shl, f.ashr, f.lshr):
        n = op(n, f.params[1])
    less, equal = f.fcmp("olt", x, constant(x.type, 0.1)), f.icmp("eq", f.not_(n), constant(n.type, -1))
    x = f.select(f.and_(less, f.not_(equal)), x, f.fma(x, x, f.splat(constant("float", 2), 4)))
    f.ret(f.copysign(f.sqrt(f.fabs(x)), f.bitcast(n, x.type)))


def conversions(module: ModuleEmitter) -> None:
    f = module.function("conversions", "i64", [Param("x", "<2 x double>"), Param("p", "ptr")])
    x, p = f.params
    narrow = f.fptrunc(x, "float")
    assert f.fptrunc(narrow, "float") is narrow, "nothing to convert"
    whole = f.fptosi(f.fpext(narrow, "double"), "i32")
    again = f.uitofp(f.fptoui(f.sitofp(whole, "double"), "i16"), "half")
    bits = f.zext(f.trunc(f.sext(f.bitcast(again, "<2 x i16>"), "i32"), "i8"), "i64")
    f.ret(f.add(f.extract_element(bits, 1), f.ptrtoint(p)))


def memory(module: ModuleEmitter) -> None:
    f = module.function("memory", params=[Param("p", "ptr", "noalias"), Param("i", "i64")], linkage="internal",
                        attributes='nounwind "min-legal-vector-width"="512"')
    p, i = f.params
    table = module.global_("table", "[2 x float]", "[float 1.0, float 2.0]", constant=True)
    scratch = f.alloca("float", 16)
    zero = constant("<8 x float>", 0)
    v = f.load(f.gep(p, i, "float"), "<8 x float>")
    mask = f.fcmp("ogt", v, zero)
    w = f.masked_load(f.gep(p, 32), mask, zero, align=32)
    where = f.gep(p, constant_vector("i64", range(8)), "float")
    w = f.insert_element(f.gather(where, mask, w), f.load(table, "float"), 3)
    f.masked_store(f.shuffle(v, w, [0, 8, 1, 9, 2, 10, -1, 11]), scratch, mask)
    f.store(f.splat(f.extract_element(w, i), 8), p, align=4, metadata=f"!nontemporal {module.metadata('!{i32 1}')}")
    f.call_void("free", [scratch])
    f.ret()


def loop(module: ModuleEmitter) -> None:
    f = module.function("loop", "double", [Param("n", "i64"), Param("g", "ptr")])
    n, g = f.params
    entry, head, done = f.here, f.label("head"), f.label("done")
    f.br(head)
    f.start(head)
    i = f.phi("i64", [(constant("i64", 0), entry)], "i")
    total = f.phi("double", [(constant("double", 0), entry)])
    more = f.fadd(f.call("cos", "double", [total.value]), f.call_pointer(g, "double", [i.value]))
    after = f.add(i.value, constant("i64", 1), flags="nsw")
    i.add(after, f.here)
    total.add(more, f.here)
    again = module.metadata('distinct !{!self, !"llvm.loop.unroll.disable"}')
    f.cond_br(f.icmp("slt", after, n), head, done, f"!llvm.loop {again}")
    f.start(done)
    f.ret(f.intrinsic("llvm.vector.reduce.fadd", (more, f.splat(more, 4)), "double", ("<4 x double>",)))


def test_golden_module(golden: Callable[[str, str], None]) -> None:
    module = ModuleEmitter("golden")
    for build in (arithmetic, conversions, memory, loop):
        build(module)
    golden("emitter/instructions.ll", module.text())
    assert jit.assembly(module.text())


def test_same_calls_same_text() -> None:
    texts = set()
    for _ in range(2):
        module = ModuleEmitter("twice")
        arithmetic(module)
        texts.add(module.text())
    assert len(texts) == 1


def one_constant(elem: str, value: bool | int | float) -> bytes:
    """The constant's bytes as LLVM lays them out."""
    import ctypes

    module = ModuleEmitter("constant")
    module.global_("it", elem, constant(elem, value).name, linkage="")
    loaded = jit.load(jit.compile_object(module.text()), ["it"])
    return ctypes.string_at(loaded["it"], 8)


@given(st.floats(width=64))
def test_float_constants_are_exact(value: float) -> None:
    text = constant("double", value).name
    assert struct.pack("<Q", int(text, 16)) == struct.pack("<d", value)
    with np.errstate(over="ignore"):
        assert constant("float", value).name == constant("double", float(np.float32(value))).name


@pytest.mark.parametrize("value", [0.1, -0.0, float("inf"), 1e-45, 3.4e38, 1e300, 65504.0, 6e-8])
def test_llvm_reads_constants_as_numpy_rounds_them(value: float) -> None:
    with np.errstate(over="ignore"):
        for elem, dtype in (("half", np.float16), ("float", np.float32), ("double", np.float64)):
            assert one_constant(elem, value)[:dtype().itemsize] == np.array(value, dtype).tobytes()


def test_integer_constants_wrap() -> None:
    assert constant("i8", 255).name == "-1" and constant("i64", 2 ** 63).name == str(-(2 ** 63))
    assert constant("<4 x i8>", 300).name == "splat (i8 44)"
    assert constant("i1", 2).name == "true" and constant("ptr", 0).name == "null"
    assert constant_bits("float", 0x7F800000).name == constant("float", float("inf")).name
    assert str(constant_vector("i16", [1, -2])) == "<2 x i16> <i16 1, i16 -2>"
    with pytest.raises(ValueError, match="null"):
        constant("ptr", 8)


def test_one_lane_is_a_scalar() -> None:
    f = ModuleEmitter("m").function("f", params=[Param("x", "float")])
    x = f.params[0]
    assert f.splat(x, 1) is x and f.extract_element(x, 0) is x
    assert f.insert_element(x, constant("float", 1), 0) == constant("float", 1)


def emitter() -> tuple[FunctionEmitter, Value, Value]:
    f = ModuleEmitter("m").function("f", params=[Param("x", "float"), Param("n", "i32")])
    return f, f.params[0], f.params[1]


def test_mixed_types_are_refused() -> None:
    f, x, n = emitter()
    for wrong in (lambda: f.fadd(x, n), lambda: f.fcmp("olt", x, n), lambda: f.icmp("eq", n, x),
                  lambda: f.select(constant("i1", 1), x, n), lambda: f.phi("float").add(n, "entry")):
        with pytest.raises(TypeError):
            wrong()
    assert "fadd" not in f.text()


def test_symbols_are_declared_once() -> None:
    module = ModuleEmitter("m")
    f = module.function("f", params=[Param("x", "float")])
    x = f.params[0]
    f.call("g", "float", [x])
    f.call("g", "float", [x])
    f.call("f", "float", [x])
    assert module.text().count("declare") == 1
    with pytest.raises(ValueError, match="declared twice"):
        f.call("g", "double", [x])
    with pytest.raises(ValueError, match="exists already"):
        module.function("f")
    with pytest.raises(ValueError, match="defined twice"):
        module.global_("t", module.global_("t", "i32").type)


def test_odd_names_are_quoted() -> None:
    module = ModuleEmitter("m")
    module.function("a b\"c", "void").ret()
    assert '@"a b\\22c"()' in module.text()
    assert jit.compile_object(module.text())


def test_a_detour_is_part_of_its_block() -> None:
    """A phi of a later block names the block that holds the detour; the text has the label after it."""
    f = ModuleEmitter("m").function("f", "i64", [Param("x", "i64")])
    (x,) = f.params
    start = f.here
    big = f.detour(f.icmp("sgt", x, constant("i64", 9)), x, lambda: f.mul(x, x))
    assert f.here == start
    loop = f.label("loop")
    f.br(loop)
    f.start(loop)
    total = f.phi("i64", [(big, start)])
    more = f.detour(f.icmp("eq", x, constant("i64", 3)), total.value, lambda: f.add(total.value, x))
    total.add(f.add(more, constant("i64", 1)), loop)
    f.cond_br(f.icmp("slt", more, constant("i64", 100)), loop, done := f.label("done"))
    f.start(done)
    f.ret(more)
    run = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    loaded = jit.load(jit.compile_object(f.module.text()), ["f"])
    call = run(loaded["f"])
    assert (call(10), call(11), call(3), call(0)) == (100, 121, 102, 100)
