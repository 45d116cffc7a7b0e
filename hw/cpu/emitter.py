"""LLVM IR as text: values, functions, modules.

What holds here:
- Pointers are opaque and types are LLVM's own words ("float", "<16 x float>", "i64", "ptr").
- A `Value` is immutable and knows its type; every emitting method appends one instruction to the current block and
  returns its result. Names are numbered in order, so the same calls give the same text.
- No fast-math flag is ever added unless the caller passes one. Fused multiply-add is explicit (`fma`).
- Nothing here needs LLVM: text goes in and out; `jit` hands it to LLVM, whose verifier has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tracedsl.hw.cpu.irtypes import BITS, element, lanes, like, mangle, vec
from tracedsl.hw.cpu.values import Blocks, Param, Phi, Value, constant, constant_bits, constant_vector, undefined

__all__ = ["FunctionEmitter", "ModuleEmitter", "Param", "Phi", "Value", "constant", "constant_bits",
           "constant_vector", "element", "lanes", "undefined", "vec"]


class FunctionEmitter(Blocks):
    """One function under construction: every method emits one instruction into the current block."""

    def __init__(self, module: ModuleEmitter, name: str, result: str, params: Sequence[Param], head: str) -> None:
        super().__init__(head, params)
        self.module = module
        self.name = name
        self.result = result
        self.params = tuple(Value(f"%{p.name}", p.type) for p in params)

    def _binary(self, op: str, a: Value, b: Value, flags: str = "") -> Value:
        if a.type != b.type:
            raise TypeError(f"{op} of {a} and {b}: the types differ")
        return self.instruction(f"{op} {flags + ' ' if flags else ''}{a}, {b.name}", a.type)

    # -- floating point -------------------------------------------------------------------------------------------

    def fadd(self, a: Value, b: Value, flags: str = "") -> Value:
        return self._binary("fadd", a, b, flags)

    def fsub(self, a: Value, b: Value, flags: str = "") -> Value:
        return self._binary("fsub", a, b, flags)

    def fmul(self, a: Value, b: Value, flags: str = "") -> Value:
        return self._binary("fmul", a, b, flags)

    def fdiv(self, a: Value, b: Value, flags: str = "") -> Value:
        return self._binary("fdiv", a, b, flags)

    def frem(self, a: Value, b: Value, flags: str = "") -> Value:
        return self._binary("frem", a, b, flags)

    def fneg(self, a: Value) -> Value:
        return self.instruction(f"fneg {a}", a.type)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once."""
        return self.intrinsic("llvm.fma", (a, b, c))

    def fabs(self, a: Value) -> Value:
        return self.intrinsic("llvm.fabs", (a,))

    def sqrt(self, a: Value) -> Value:
        return self.intrinsic("llvm.sqrt", (a,))

    def copysign(self, magnitude: Value, sign: Value) -> Value:
        return self.intrinsic("llvm.copysign", (magnitude, sign))

    # -- integers -------------------------------------------------------------------------------------------------

    def add(self, a: Value, b: Value, flags: str = "") -> Value:
        return self._binary("add", a, b, flags)

    def sub(self, a: Value, b: Value, flags: str = "") -> Value:
        return self._binary("sub", a, b, flags)

    def mul(self, a: Value, b: Value, flags: str = "") -> Value:
        return self._binary("mul", a, b, flags)

    def sdiv(self, a: Value, b: Value) -> Value:
        return self._binary("sdiv", a, b)

    def udiv(self, a: Value, b: Value) -> Value:
        return self._binary("udiv", a, b)

    def srem(self, a: Value, b: Value) -> Value:
        return self._binary("srem", a, b)

    def urem(self, a: Value, b: Value) -> Value:
        return self._binary("urem", a, b)

    def and_(self, a: Value, b: Value) -> Value:
        return self._binary("and", a, b)

    def or_(self, a: Value, b: Value) -> Value:
        return self._binary("or", a, b)

    def xor(self, a: Value, b: Value) -> Value:
        return self._binary("xor", a, b)

    def not_(self, a: Value) -> Value:
        return self.xor(a, constant(a.type, -1 if element(a.type) != "i1" else True))

    def shl(self, a: Value, b: Value) -> Value:
        return self._binary("shl", a, b)

    def ashr(self, a: Value, b: Value) -> Value:
        return self._binary("ashr", a, b)

    def lshr(self, a: Value, b: Value) -> Value:
        return self._binary("lshr", a, b)

    # -- comparing and choosing -----------------------------------------------------------------------------------

    def icmp(self, predicate: str, a: Value, b: Value) -> Value:
        """`predicate`: eq ne slt sle sgt sge ult ule ugt uge. The result is i1, a lane each."""
        if a.type != b.type:
            raise TypeError(f"icmp of {a} and {b}: the types differ")
        return self.instruction(f"icmp {predicate} {a}, {b.name}", like(a.type, "i1"), "c")

    def fcmp(self, predicate: str, a: Value, b: Value) -> Value:
        """`predicate`: oeq ogt oge olt ole one ord, ueq ugt uge ult ule une uno."""
        if a.type != b.type:
            raise TypeError(f"fcmp of {a} and {b}: the types differ")
        return self.instruction(f"fcmp {predicate} {a}, {b.name}", like(a.type, "i1"), "c")

    def select(self, condition: Value, then: Value, otherwise: Value) -> Value:
        if then.type != otherwise.type:
            raise TypeError(f"select of {then} and {otherwise}: the types differ")
        return self.instruction(f"select {condition}, {then}, {otherwise}", then.type)

    # -- converting -----------------------------------------------------------------------------------------------

    def cast(self, op: str, a: Value, to: str) -> Value:
        """`op`: sext zext trunc fpext fptrunc sitofp uitofp fptosi fptoui bitcast ptrtoint inttoptr. `to` may be an
        element type: it then gets the lanes of `a`. A conversion to the type that is there already emits nothing."""
        if lanes(to) == 1 and op != "bitcast":
            to = like(a.type, to)
        return a if to == a.type else self.instruction(f"{op} {a} to {to}", to)

    def sext(self, a: Value, to: str) -> Value:
        return self.cast("sext", a, to)

    def zext(self, a: Value, to: str) -> Value:
        return self.cast("zext", a, to)

    def trunc(self, a: Value, to: str) -> Value:
        return self.cast("trunc", a, to)

    def fpext(self, a: Value, to: str) -> Value:
        return self.cast("fpext", a, to)

    def fptrunc(self, a: Value, to: str) -> Value:
        return self.cast("fptrunc", a, to)

    def sitofp(self, a: Value, to: str) -> Value:
        return self.cast("sitofp", a, to)

    def uitofp(self, a: Value, to: str) -> Value:
        return self.cast("uitofp", a, to)

    def fptosi(self, a: Value, to: str) -> Value:
        """Towards zero; poison where the result does not fit."""
        return self.cast("fptosi", a, to)

    def fptoui(self, a: Value, to: str) -> Value:
        return self.cast("fptoui", a, to)

    def bitcast(self, a: Value, to: str) -> Value:
        """`to` is the whole type, not an element."""
        return self.cast("bitcast", a, to)

    def ptrtoint(self, a: Value, to: str = "i64") -> Value:
        return self.cast("ptrtoint", a, to)

    # -- vectors --------------------------------------------------------------------------------------------------

    def splat(self, a: Value, n: int) -> Value:
        """`a` in every one of `n` lanes; `n` == 1 gives `a` itself."""
        if n == 1:
            return a
        type_ = vec(a.type, n)
        if not a.name.startswith("%"):
            return Value("poison" if a.name == "poison" else f"splat ({a})", type_)
        first = self.insert_element(undefined(type_), a, 0)
        return self.shuffle(first, undefined(type_), [0] * n)

    def extract_element(self, a: Value, index: Value | int) -> Value:
        """A lane; of a scalar, the scalar itself."""
        if lanes(a.type) == 1:
            return a
        return self.instruction(f"extractelement {a}, {_index(index)}", element(a.type))

    def insert_element(self, a: Value, value: Value, index: Value | int) -> Value:
        """`a` with one lane replaced; of a scalar, `value` itself."""
        if lanes(a.type) == 1:
            return value
        return self.instruction(f"insertelement {a}, {value}, {_index(index)}", a.type)

    def shuffle(self, a: Value, b: Value, order: Sequence[int]) -> Value:
        """The lanes `order` of `a` followed by `b`; -1 is any value. At least two lanes result."""
        picks = ", ".join(f"i32 {i}" if i >= 0 else "i32 poison" for i in order)
        mask = "zeroinitializer" if not any(order) else f"<{picks}>"
        type_ = vec(element(a.type), len(order))
        return self.instruction(f"shufflevector {a}, {b}, <{len(order)} x i32> {mask}", type_)

    # -- memory ---------------------------------------------------------------------------------------------------

    def load(self, pointer: Value, type_: str, align: int | None = None, metadata: str = "") -> Value:
        """`align` in bytes; by default that of one element, which is right for any array."""
        tail = f", {metadata}" if metadata else ""
        return self.instruction(f"load {type_}, {pointer}, align {align or _natural(type_)}{tail}", type_)

    def store(self, value: Value, pointer: Value, align: int | None = None, metadata: str = "") -> None:
        tail = f", {metadata}" if metadata else ""
        self.line(f"store {value}, {pointer}, align {align or _natural(value.type)}{tail}")

    def masked_load(self, pointer: Value, mask: Value, otherwise: Value, align: int | None = None) -> Value:
        """The lanes where `mask` is set, read from consecutive elements; the others from `otherwise`."""
        type_ = otherwise.type
        args = f"ptr align {align or _natural(type_)} {pointer.name}, {mask}, {otherwise}"
        name = f"llvm.masked.load.{mangle(type_)}.p0"
        self.module.declare(name, type_, ("ptr", mask.type, type_))
        return self.instruction(f"call {type_} @{name}({args})", type_)

    def masked_store(self, value: Value, pointer: Value, mask: Value, align: int | None = None) -> None:
        """Write the lanes where `mask` is set to consecutive elements; nothing else is touched."""
        name = f"llvm.masked.store.{mangle(value.type)}.p0"
        self.module.declare(name, "void", (value.type, "ptr", mask.type))
        self.line(f"call void @{name}({value}, ptr align {align or _natural(value.type)} {pointer.name}, {mask})")

    def gather(self, pointers: Value, mask: Value, otherwise: Value) -> Value:
        """One element from each pointer whose lane of `mask` is set; the others from `otherwise`."""
        type_ = otherwise.type
        name = f"llvm.masked.gather.{mangle(type_)}.{mangle(pointers.type)}"
        self.module.declare(name, type_, (pointers.type, mask.type, type_))
        where = f"{pointers.type} align {_natural(type_)} {pointers.name}"
        return self.instruction(f"call {type_} @{name}({where}, {mask}, {otherwise})", type_)

    def gep(self, base: Value, index: Value | int, elem: str = "i8", inbounds: bool = True) -> Value:
        """`base` moved by `index` elements of type `elem` (bytes by default); a vector of indices gives a vector of
        pointers."""
        at = Value(str(index), "i64") if isinstance(index, int) else index
        type_ = vec("ptr", max(lanes(base.type), lanes(at.type)))
        return self.instruction(f"getelementptr {'inbounds ' if inbounds else ''}{elem}, {base}, {at}", type_, "p")

    def alloca(self, type_: str, count: int = 1, align: int = 64) -> Value:
        """Memory of this call, `count` elements; stands in the entry block wherever it is asked for."""
        value = Value(f"%{self._unique('a')}", "ptr")
        self._allocas.append(f"{value.name} = alloca {type_}, i64 {count}, align {align}")
        return value

    # -- calls ----------------------------------------------------------------------------------------------------

    def intrinsic(self, name: str, args: Sequence[Value], result: str | None = None,
                  overload: Sequence[str] | None = None) -> Value:
        """Call an LLVM intrinsic by the name without its type suffixes, which are `overload` (default: the result's
        type, which by default is that of the first argument). It is declared as a side effect."""
        type_ = result or args[0].type
        full = ".".join([name, *map(mangle, [type_] if overload is None else overload)])
        return self.call(full, type_, args)

    def call(self, name: str, result: str, args: Sequence[Value], attributes: str = "") -> Value:
        """Call the symbol `name`, which is declared (with `attributes`) if the module does not know it yet."""
        self.module.declare(name, result, [a.type for a in args], attributes)
        return self.instruction(f"call {result} @{name}({', '.join(map(str, args))})", result)

    def call_void(self, name: str, args: Sequence[Value], attributes: str = "") -> None:
        self.module.declare(name, "void", [a.type for a in args], attributes)
        self.line(f"call void @{name}({', '.join(map(str, args))})")

    def call_pointer(self, pointer: Value, result: str, args: Sequence[Value]) -> Value:
        """Call through a function pointer."""
        return self.instruction(f"call {result} {pointer.name}({', '.join(map(str, args))})", result)


class ModuleEmitter:
    """A module under construction: functions, declarations, globals, attribute groups, metadata.

    `features` are what the CPU has beyond its base, in LLVM's words ("avx512f"); intrinsics of its own may be used
    where they are among them. `attributes` are what every function that holds vectors wants. `lacks` is what the CPU
    does not do though most do (`soft`).
    """

    def __init__(self, name: str, features: Iterable[str] = (), attributes: str = "nounwind",
                 lacks: Iterable[str] = ()) -> None:
        self.name = name
        self.lacks = frozenset(lacks)
        self.features = frozenset(features)
        self.attributes = attributes
        self._functions: dict[str, FunctionEmitter] = {}
        self._declared: dict[str, str] = {}
        self._globals: dict[str, str] = {}
        self._groups: dict[str, int] = {}
        self._metadata: list[str] = []

    def function(self, name: str, result: str = "void", params: Sequence[Param] = (), *, linkage: str = "",
                 attributes: str = "nounwind") -> FunctionEmitter:
        """A new function; `linkage` is e.g. "internal", `attributes` are those of the function."""
        if name in self._functions:
            raise ValueError(f"function {name!r} exists already")
        inner = ", ".join(" ".join(filter(None, (p.type, p.attributes, f"%{p.name}"))) for p in params)
        words = ("define", linkage, result, f"@{_symbol(name)}({inner})", self.group(attributes))
        self._functions[name] = FunctionEmitter(self, name, result, params, " ".join(filter(None, words)))
        return self._functions[name]

    def defines(self, name: str) -> bool:
        return name in self._functions

    def declare(self, name: str, result: str, params: Sequence[str], attributes: str = "") -> None:
        """Make the symbol known; saying it again is fine, saying something else is an error."""
        if name in self._functions:
            return
        words = ("declare", result, f"@{_symbol(name)}({', '.join(params)})", self.group(attributes))
        text = " ".join(filter(None, words))
        if self._declared.setdefault(name, text) != text:
            raise ValueError(f"{name!r} is declared twice: {self._declared[name]} / {text}")

    def global_(self, name: str, type_: str, initial: str = "zeroinitializer", *, linkage: str = "internal",
                constant: bool = False, align: int = 64) -> Value:
        """A global variable or table; returns its address."""
        kind = "constant" if constant else "global"
        text = f"@{_symbol(name)} = {linkage + ' ' if linkage else ''}{kind} {type_} {initial}, align {align}"
        if self._globals.setdefault(name, text) != text:
            raise ValueError(f"global {name!r} is defined twice")
        return Value(f"@{_symbol(name)}", "ptr")

    def group(self, attributes: str) -> str:
        """The attribute group "#0" for these function attributes; nothing for none."""
        return f"#{self._groups.setdefault(attributes, len(self._groups))}" if attributes else ""

    def metadata(self, node: str) -> str:
        """A numbered metadata node ("!3"); `node` is e.g. 'distinct !{!"x"}', with "!self" for itself."""
        name = f"!{len(self._metadata)}"
        self._metadata.append(f"{name} = {node.replace('!self', name)}")
        return name

    def text(self) -> str:
        groups = [f"attributes #{number} = {{ {text} }}" for text, number in self._groups.items()]
        declared = [text for name, text in sorted(self._declared.items()) if name not in self._functions]
        parts = [f'source_filename = "{self.name}"', "\n".join(self._globals.values()), "\n".join(declared),
                 *(f.text() for f in self._functions.values()), "\n".join(groups), "\n".join(self._metadata)]
        return "\n\n".join(filter(None, parts)) + "\n"


def _symbol(name: str) -> str:
    """The name as it stands after "@": quoted if LLVM asks for it."""
    return name if re.fullmatch(r"[A-Za-z_.$][\w.$]*", name) else '"' + name.replace('"', r"\22") + '"'


def _index(index: Value | int) -> str:
    return f"i32 {index}" if isinstance(index, int) else str(index)


def _natural(type_: str) -> int:
    return max(1, BITS[element(type_)] // 8)
