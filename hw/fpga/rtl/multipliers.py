"""Multipliers with registers before and behind them.

What holds here: `multiply` is what is simulated, and what families whose tools find the registers by themselves are
given. `for_ecp5` is the same module on the chip's own cell, whose registers Yosys would leave unused: a multiplier then
stands alone between two far registers, and no clock above some 70 MHz is reached.
"""

from __future__ import annotations

from tracedsl.hw.fpga.rtl.verilog import Port, module

WIDTHS = ((8, 8), (17, 16), (16, 16))  # of the array, of the lower and the upper half of 32 bits
_ECP5_BITS = 18
_ABOUT = "The signed product, two cycles after its factors: one register before, one behind."


def name_of(a: int, b: int) -> str:
    return f"multiply_{a}x{b}"


def multiply(a: int, b: int) -> str:
    """The module that multiplies `a` by `b` bits."""
    return module(
        name_of(a, b), _ABOUT, _ports(a, b),
        f"""
        reg signed [{a - 1}:0] a_held;
        reg signed [{b - 1}:0] b_held;
        reg signed [{a + b - 1}:0] found;
        assign product = found;
        always @(posedge clk) begin
            a_held <= a;
            b_held <= b;
            found <= a_held * b_held;
        end
        """)


def for_ecp5(a: int, b: int) -> str:
    """The same for an ECP5. Factors stand at the top of the cell's inputs, so that no sign has to be spread."""
    zeros = {"a": _ECP5_BITS - a, "b": _ECP5_BITS - b}
    pins = [f".{side.upper()}{at}(" + (f"{side}[{at - zeros[side]}])" if at >= zeros[side] else "1'b0)")
            for side in ("a", "b") for at in range(_ECP5_BITS)]
    pins += [f".C{at}(1'b0)" for at in range(_ECP5_BITS)]
    low = zeros["a"] + zeros["b"]
    pins += [f".P{at}(product[{at - low}])" for at in range(low, 2 * _ECP5_BITS)]
    registers = ", ".join(f'.REG_{place}_CLK("CLK0")' for place in ("INPUTA", "INPUTB", "OUTPUT"))
    return module(
        name_of(a, b), _ABOUT, _ports(a, b),
        f"""
        MULT18X18D #({registers}) on_chip (.CLK0(clk), .CE0(1'b1), .RST0(1'b0),
            .SIGNEDA(1'b1), .SIGNEDB(1'b1), .SOURCEA(1'b0), .SOURCEB(1'b0),
            {", ".join(pins)});
        """)


def _ports(a: int, b: int) -> list[Port]:
    return [("input", a, "a"), ("input", b, "b"), ("output", a + b, "product")]
