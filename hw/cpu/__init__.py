"""The CPU target: LLVM IR as text (`emitter`), machine code (`jit`), vector math (`math`), threads (`pool`).

What holds here: importing it loads nothing.
"""
