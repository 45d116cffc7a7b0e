"""The machines, as one table: what LLVM calls them, how wide their vectors are, what links and runs their code here.

What holds here: plain data; looking at it starts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracedsl.hw.cpu.machine import Machine, host

_LLD = ("ld.lld", "apt install lld")
_QEMU = "apt install qemu-user"


@dataclass(frozen=True)
class Row:
    """`link` and `run` are commands; `tools` are their programs, each with the line that installs it. `system` is the
    function `long system(long number, six arguments)`, which calls Linux, as words of machine code, since llvmlite
    assembles for this machine alone; empty where no Linux is."""

    about: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    vector_registers: int
    link: tuple[str, ...]
    tools: tuple[tuple[str, str], ...]
    run: tuple[str, ...] = ()
    system: tuple[int, ...] = ()

    @property
    def pointer_bytes(self) -> int:
        return 4 if self.triple.startswith("wasm32") else 8

    def machine(self) -> Machine:
        """The CPU for the code generator: one core, caches as small as such machines have them."""
        return Machine(self.cpu, self.features, self.triple, host().llvm, self.vector_bytes, self.vector_registers,
                       1, 32 << 10, 512 << 10, 4 << 20)


_ELF = ("ld.lld", "-static", "--gc-sections")
# the number to x8, the arguments down by one register; svc #0; ret
_ARM = (*(0xAA0003E0 | source << 16 | to for to, source in ((8, 0), *((i, i + 1) for i in range(6)))),
        0xD4000001, 0xD65F03C0)
# the number to a7 (x17) after its last argument has left it; ecall; ret
_RISCV = (*(source << 15 | to << 7 | 0x13 for to, source in ((5, 10), *((10 + i, 11 + i) for i in range(6)), (17, 5))),
          0x00000073, 0x00008067)

TABLE = {
    "aarch64": Row(
        "64-bit ARM, 128-bit NEON with dot products of bytes (Armv8.6)", "aarch64-unknown-linux-gnu",
        "neoverse-n2", "+neon,+dotprod,+i8mm,+fullfp16", 16, 32, _ELF, (_LLD, ("qemu-aarch64", _QEMU)),
        ("qemu-aarch64", "-cpu", "max"), _ARM),
    "aarch64-sve": Row(
        "64-bit ARM, 256-bit SVE with byte matrix products (Graviton 3)", "aarch64-unknown-linux-gnu",
        "neoverse-v1", "+neon,+sve,+dotprod,+i8mm,+fullfp16", 32, 32, _ELF, (_LLD, ("qemu-aarch64", _QEMU)),
        ("qemu-aarch64", "-cpu", "max,sve256=on"), _ARM),
    "riscv64": Row(
        "64-bit RISC-V without vectors (RV64GC)", "riscv64-unknown-linux-gnu", "generic-rv64", "+m,+a,+f,+d,+c", 8, 32,
        _ELF, (_LLD, ("qemu-riscv64", _QEMU)), ("qemu-riscv64", "-cpu", "rv64"), _RISCV),
    "riscv64-rvv": Row(
        "64-bit RISC-V with 256-bit vectors (RVV 1.0)", "riscv64-unknown-linux-gnu", "generic-rv64",
        "+m,+a,+f,+d,+c,+v,+zvl256b", 32, 32, _ELF, (_LLD, ("qemu-riscv64", _QEMU)),
        ("qemu-riscv64", "-cpu", "rv64,v=true,vlen=256,vext_spec=v1.0"), _RISCV),
    "wasm32": Row(
        "WebAssembly with 128-bit SIMD, run by wasmtime", "wasm32-unknown-unknown", "generic",
        "+simd128,+bulk-memory,+nontrapping-fptoint", 16, 16,
        ("wasm-ld", "--no-entry", "--export=run", "--export=__heap_base", "-z", "stack-size=1048576"),
        (("wasm-ld", "apt install lld"), ("wasmtime", "pip install 'tracedsl[wasm]'"))),
}
