"""CPUs that this machine is not: AArch64, RISC-V, WebAssembly. Code from the CPU's generator, run by an emulator.

What holds here: a target is a row in `machines.TABLE`. What is compiled is a whole image that needs nothing but the
emulator; what it computes is what the real machine would compute. How long that takes here says nothing.
"""
