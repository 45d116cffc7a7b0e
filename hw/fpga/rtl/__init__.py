"""The accelerator's RTL, written from a `Config`: plain Verilog, a function a module.

What holds here: `top.write` is a pure function of the configuration; the text is all that the tools get to see.
"""
