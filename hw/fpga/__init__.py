"""The FPGA accelerator: its instruction set, the checks of a program, and what a program computes.

What holds here: importing it loads nothing. `ISA.md` is the machine on one page.
"""
