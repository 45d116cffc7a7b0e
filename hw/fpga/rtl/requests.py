"""Requests: asks for a load's or a store's rows, one burst each, ahead of the data.

What holds here: no more than `bursts` rows are asked for and not yet moved.
"""

from __future__ import annotations

from tracedsl.hw.fpga.config import Config
from tracedsl.hw.fpga.rtl.verilog import bits, module

BEATS = 9  # bits of a row's beats


def requests(config: Config) -> str:
    """The module `requests`, which load and store each have one of."""
    count = bits(config.bursts)
    return module(
        "requests", "Offers a request a row, from the cycle after `take` on. `row_done`: a row that was asked for has "
        "moved.",
        [("input", 1, "reset"), ("input", 1, "take"), ("input", 12, "rows"), ("input", BEATS, "row_beats"),
         ("input", 32, "first_address"), ("input", 24, "row_stride"),
         ("output", 1, "busy"), ("output", 1, "offer"), ("output", 32, "address"), ("output", BEATS, "beats"),
         ("input", 1, "grant"), ("input", 1, "row_done")],
        f"""
        reg [11:0] left;
        reg [{BEATS - 1}:0] length;
        reg [31:0] next;
        reg [23:0] stride;
        reg active;
        reg [{count - 1}:0] open;
        assign busy = active;
        assign offer = active && open != {count}'d{config.bursts};
        assign address = next;
        assign beats = length;
        always @(posedge clk) begin
            if (take) begin
                left <= rows;
                length <= row_beats;
                next <= first_address;
                stride <= row_stride;
            end else if (grant) begin
                left <= left - 12'd1;
                next <= next + {{8'd0, stride}};
            end
            if (reset) begin
                active <= 1'b0;
                open <= {count}'d0;
            end else begin
                if (take) active <= 1'b1;
                else if (grant && left == 12'd1) active <= 1'b0;
                if (grant && !row_done) open <= open + {count}'d1;
                if (row_done && !grant) open <= open - {count}'d1;
            end
        end
        """)
