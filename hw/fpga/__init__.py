"""The FPGA target: an accelerator whose RTL is written from here, its instruction set, and three ways to run a program.

What holds here: importing it loads nothing. `ISA.md` is the machine on one page.
"""
